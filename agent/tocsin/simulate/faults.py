"""Faults: what, when, how bad.

```
KIND[.CHANNEL][@START[-END]][:SEVERITY][/RAMP]      bearing@10min:0.5   stuck.flow@5min-7min   fouling@0s:0.8/2h
```
Rules: severity above 0, to 1; 1 where it is left out; START from the beginning of the run, 0 where it is left out; a
fault grows over RAMP to its severity.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from tocsin.errors import ConfigError

MACHINE = {
    "imbalance": "the rotor's mass is off its axis: the shaft's own frequency",
    "misalignment": "of the coupling: twice and three times the shaft's frequency",
    "looseness": "of the foot: many harmonics and halves",
    "bearing": "a defect of the outer race",
    "bearing_inner": "a defect of the inner race",
    "bearing_ball": "a defect of a ball",
    "bearing_cage": "a defect of the cage",
    "cavitation": "the suction is throttled: bubbles collapse in the pump",
    "leakage": "behind the pump, before the flow meter",
    "fouling": "of the pipe: slow, over an hour where RAMP is left out",
}
SENSOR = {
    "stuck": "the value stays as it is",
    "drift": "a tenth of the span times severity in a minute",
    "dropout": "values are missing, severity is the share of them",
    "spikes": "single values are far off",
    "offset": "of a third of the span times severity",
    "noise": "of a tenth of the span times severity",
}
_RAMP_S = {"fouling": 3600.0}
_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = r"\d+(?:\.\d+)?(?:ms|s|min|h|d)?"
_FORM = re.compile(
    rf"(?P<kind>\w+)(?:\.(?P<channel>\w+))?(?:@(?P<start>{_TIME})(?:-(?P<end>{_TIME}))?)?"
    rf"(?::(?P<severity>\d*\.?\d+))?(?:/(?P<ramp>{_TIME}))?"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        kind: of `MACHINE` or `SENSOR`.
        channel: of a sensor's fault, else empty.
        start_s: seconds from the beginning of the run.
        end_s: likewise; infinite when it stays.
        severity: above 0, to 1.
        ramp_s: over which it grows.
    """

    kind: str
    channel: str = ""
    start_s: float = 0.0
    end_s: float = math.inf
    severity: float = 1.0
    ramp_s: float = 0.0

    @property
    def name(self) -> str:
        """`bearing`, `stuck.flow`."""
        return f"{self.kind}.{self.channel}" if self.channel else self.kind

    def at(self, time_s: float) -> float:
        """Severity at a time, 0 where it is off."""
        if not self.start_s <= time_s < self.end_s:
            return 0.0
        grown = 1.0 if self.ramp_s <= 0 else min(1.0, (time_s - self.start_s) / self.ramp_s)
        return self.severity * grown


def parse_fault(text: str, channels: tuple[str, ...], now_s: float = 0.0) -> Fault:
    """A fault from its short form.

    Args:
        text: as the module says.
        channels: that a sensor's fault may name.
        now_s: START where it is left out.

    >>> parse_fault("bearing@10min:0.5", ()).start_s
    600.0

    Raises:
        ConfigError: it is none; says what was expected.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"fault {text[:60]!r}: expected KIND[.CHANNEL][@START[-END]][:SEVERITY][/RAMP]")
    kind, channel = match["kind"], match["channel"] or ""
    if kind not in MACHINE and kind not in SENSOR:
        raise ConfigError(f"fault {text[:60]!r}: no kind {kind!r}; there are {', '.join([*MACHINE, *SENSOR])}")
    if kind in SENSOR and channel not in channels:
        raise ConfigError(f"fault {text[:60]!r}: expected {kind}.CHANNEL, CHANNEL one of {', '.join(channels)}")
    if kind in MACHINE and channel:
        raise ConfigError(f"fault {text[:60]!r}: {kind} is of the machine and takes no channel")
    start_s = now_s if match["start"] is None else _seconds(match["start"])
    fault = Fault(
        kind,
        channel,
        start_s,
        math.inf if match["end"] is None else _seconds(match["end"]),
        1.0 if match["severity"] is None else float(match["severity"]),
        _RAMP_S.get(kind, 0.0) if match["ramp"] is None else _seconds(match["ramp"]),
    )
    if not 0 < fault.severity <= 1:
        raise ConfigError(
            f"fault {text[:60]!r}: expected a severity above 0, to 1; `{fault.name} off` ends one that is on"
        )
    if fault.end_s <= fault.start_s:
        raise ConfigError(f"fault {text[:60]!r}: expected an end after the start")
    return fault


class Faults:
    """The faults of a run; some may come and go while it runs.

    Args:
        planned: known from the beginning.
        channels: that a sensor's fault may name.
    """

    def __init__(self, planned: tuple[Fault, ...], channels: tuple[str, ...]) -> None:
        self._all, self._channels = list(planned), channels

    def command(self, line: str, now_s: float) -> str:
        """Takes `KIND…`, `KIND off` or `clear`; gives what was done.

        Raises:
            ConfigError: it is none of these.
        """
        words = line.split()
        if words == ["clear"]:
            self._end(lambda _: True, now_s)
            return "all faults are off"
        if len(words) == 2 and words[1] == "off":
            name = words[0]
            if not self._end(lambda fault: name in (fault.name, fault.kind), now_s):
                raise ConfigError(f"no fault {name[:60]!r} is on: there are {', '.join(self.active(now_s)) or 'none'}")
            return f"{name} is off"
        if len(words) != 1:
            raise ConfigError(f"{line[:60]!r}: expected a fault such as bearing:0.5, `bearing off`, or `clear`")
        fault = parse_fault(words[0], self._channels, now_s)
        self._all.append(fault)
        return f"{fault.name} with severity {fault.severity:g} from {fault.start_s:.1f} s on"

    def _end(self, chosen: Callable[[Fault], bool], now_s: float) -> int:
        ended = 0
        for place, fault in enumerate(self._all):
            if chosen(fault) and fault.end_s > now_s:
                self._all[place] = replace(fault, end_s=now_s)
                ended += 1
        return ended

    def active(self, time_s: float) -> dict[str, float]:
        """Severity by name of what is on; of several of one name the worst."""
        found: dict[str, float] = {}
        for fault in self._all:
            severity = fault.at(time_s)
            if severity > 0:
                found[fault.name] = max(severity, found.get(fault.name, 0.0))
        return found


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)([a-z]*)", text)
    assert match is not None
    return float(match[1]) * _UNITS[match[2]]
