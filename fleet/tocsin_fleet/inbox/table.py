"""The alarms that stand at all devices, as a table that follows events.

```
 events ──► Standing.take ──► (device, alarm) → its newest event ──► what calls loudest first
```
"""

import json
from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table

from tocsin.alarms.alarm import AlarmState, Severity
from tocsin_fleet.inbox.store import Stored

_COLOURS = {"critical": "bold red", "major": "red", "minor": "yellow", "warning": "cyan"}
_LOUDEST = [str(severity) for severity in reversed(Severity)]
_CALLS = (AlarmState.UNACKED, AlarmState.RTN_UNACKED, AlarmState.LATCHED)
MOST = 200  # lines


class Standing:
    """What is in alarm just now.

    Args:
        events: the newest one of each alarm that stands.
    """

    def __init__(self, events: Iterable[Stored] = ()) -> None:
        self._events: dict[tuple[str, str], Stored] = {}
        self.devices: dict[str, str] = {}  # → its newest event's time
        for one in events:
            self.take(one)

    def take(self, one: Stored) -> None:
        """An event, in its device's order; one that is older than what is known of its alarm changes nothing."""
        self.devices[one.device] = max(one.time, self.devices.get(one.device, ""))
        if one.kind != "alarm" or one.alarm is None:
            return
        key = one.device, one.alarm
        known = self._events.get(key)
        if known is not None and (one.boot, one.seq) < (known.boot, known.seq):
            return
        self._events[key] = one

    def rows(self) -> list[tuple[str, ...]]:
        """Severity, device, state, since, text: what waits for somebody first, then by severity, newest first."""
        found = []
        for one in self._events.values():
            if one.type == "end":
                continue
            after = json.loads(one.body).get("after") or {}
            state, since = str(after.get("state", "")), str(after.get("raised") or one.time)
            found.append((str(one.severity), one.device, state, since, str(one.text)))
        found.sort(key=lambda row: row[3], reverse=True)
        return sorted(found, key=lambda row: (row[2] not in _CALLS, _rank(row[0])))

    def table(self) -> Table:
        """For a terminal."""
        rows = self.rows()
        calling = sum(row[2] in _CALLS for row in rows)
        title = f"{len(rows)} alarms stand, {calling} of them unacknowledged; {len(self.devices)} devices heard"
        table = Table(title=title, title_justify="left", expand=True)
        for name in ("severity", "device", "state", "since", "alarm"):
            table.add_column(name, no_wrap=name != "alarm")
        for row in rows[:MOST]:
            table.add_row(*map(escape, row), style=_COLOURS.get(row[0], "") if row[2] in _CALLS else "dim")
        return table


def _rank(severity: str) -> int:
    return _LOUDEST.index(severity) if severity in _LOUDEST else len(_LOUDEST)
