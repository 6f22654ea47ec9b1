"""What Sparkplug is told: alarms, scores, health and the birth document → metrics by name.

```
the node     Properties/…   Health/…   Alarm/<alarm>/…   of its clock, and of the lines to its assets
an asset     Score/Ratio   Model/…   Properties/…   Health/…   Alarm/<alarm>/…
```
Rules: pure. All metrics are known before the first birth. The alarm of a silent source is the node's: the asset is
dead then, and what is said of it counts for nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tocsin.alarms.alarm import Alarm
from tocsin.alarms.plan import Condition
from tocsin.delivery.sparkplug_payload import DataType, Value
from tocsin.delivery.wire import Health, Info, number

NODE = ""  # whose metric it is: the node's, or an asset's by id
RATIO = "Score/Ratio"
GOOD = 192
_SILENCE = "data_gap"  # cause of the alarm of a source that gives nothing
_LOST = frozenset({"silent", "failing", "ended"})  # states of a source whose asset is dead

Name = tuple[str, str]  # whose, and which
Values = dict[Name, Value]


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric, without its value.

    Attributes:
        kind: of its values.
        unit: of measure; empty without.
        deadband: a change that is no larger is not told.
    """

    kind: DataType
    unit: str = ""
    deadband: float = 0.0


_TEXT, _SWITCH = Definition(DataType.STRING), Definition(DataType.BOOLEAN)
_OF_NODE = {
    "Properties/Version": _TEXT,
    "Properties/Hardware Model": _TEXT,
    "Properties/Hardware Serial": _TEXT,
    "Properties/Architecture": _TEXT,
    "Properties/OS": _TEXT,
    "Health/Status": _TEXT,
    "Health/CPU": Definition(DataType.DOUBLE, "%", 5.0),
    "Health/CPU Temperature": Definition(DataType.DOUBLE, "°C", 1.0),
    "Health/Memory": Definition(DataType.DOUBLE, "MB", 5.0),
    "Health/Disk Free": Definition(DataType.DOUBLE, "MB", 50.0),
    "Health/Clock Synchronised": _SWITCH,
}
_OF_ASSET = {
    "Model/Name": _TEXT,
    "Model/Version": _TEXT,
    "Properties/Channels": _TEXT,
    "Health/State": _TEXT,
    "Health/Bad Channels": _TEXT,
}
_OF_ALARM = {"Active": _SWITCH, "Acked": _SWITCH, "Severity": _TEXT, "Text": _TEXT}


def homes(conditions: Mapping[str, Condition], assets: Collection[str]) -> dict[str, str]:
    """Whose metrics tell of an alarm, by its id."""
    return {
        alarm: one.asset if one.asset in assets and one.cause != _SILENCE else NODE for alarm, one in conditions.items()
    }


def definitions(assets: Collection[str], of_alarms: Mapping[str, str], deadband: float) -> dict[Name, Definition]:
    """Every metric that the node or an asset will ever have.

    Args:
        assets: ids.
        of_alarms: whose metrics tell of an alarm, by its id.
        deadband: of the ratio.
    """
    found = {(NODE, name): one for name, one in _OF_NODE.items()}
    for asset in assets:
        found[asset, RATIO] = Definition(DataType.DOUBLE, deadband=deadband)
        found |= {(asset, name): one for name, one in _OF_ASSET.items()}
    for alarm, whose in of_alarms.items():
        found |= {(whose, f"Alarm/{alarm}/{name}"): one for name, one in _OF_ALARM.items()}
    return found


def of_info(info: Info) -> Values:
    """What the birth document says."""
    values: Values = {
        (NODE, "Properties/Version"): info.agent.version,
        (NODE, "Properties/Hardware Model"): info.hw.model,
        (NODE, "Properties/Hardware Serial"): info.hw.serial,
        (NODE, "Properties/Architecture"): info.hw.arch,
        (NODE, "Properties/OS"): info.os,
    }
    for asset in info.assets:
        values[asset.id, "Model/Name"] = asset.model
        values[asset.id, "Model/Version"] = asset.version
        values[asset.id, "Properties/Channels"] = ", ".join(asset.channels)
    return values


def of_health(health: Health) -> Values:
    """How the node and its assets fare."""
    values: Values = {
        (NODE, "Health/Status"): health.status,
        (NODE, "Health/CPU"): number(health.cpu_percent),
        (NODE, "Health/CPU Temperature"): number(health.cpu_temp_c),
        (NODE, "Health/Memory"): number(health.memory_mb),
        (NODE, "Health/Disk Free"): number(health.disk_free_mb),
        (NODE, "Health/Clock Synchronised"): health.clock_synced,
    }
    for asset, line in health.assets.items():
        values[asset, "Health/State"] = health.sources[asset].state
        values[asset, "Health/Bad Channels"] = ", ".join(line.bad_channels)
    return values


def lost(health: Health) -> frozenset[str]:
    """Assets whose source gives nothing: ids."""
    return frozenset(asset for asset in health.assets if health.sources[asset].state in _LOST)


def of_alarms(standing: Mapping[str, Alarm], whose: Mapping[str, str]) -> Values:
    """Every alarm that may be, on or not.

    Args:
        standing: alarms that are not `normal`, by id.
        whose: metrics tell of an alarm, by its id.
    """
    values: Values = {}
    for alarm, home in whose.items():
        one = standing.get(alarm)
        values[home, f"Alarm/{alarm}/Active"] = one is not None and one.active
        values[home, f"Alarm/{alarm}/Acked"] = one is not None and one.acked_s is not None
        values[home, f"Alarm/{alarm}/Severity"] = None if one is None else one.severity.value
        values[home, f"Alarm/{alarm}/Text"] = None if one is None else one.text
    return values
