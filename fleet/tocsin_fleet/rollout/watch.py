"""What devices tell over MQTT, as the roll-out needs it.

```
 status, info, job/+ (retained), event/alarm ──► Fleet.take ──► DeviceSaid of every device of the product
```
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from tocsin.delivery.connection import Received
from tocsin.delivery.wire import ONLINE
from tocsin.update.story import State
from tocsin_fleet.rollout.plan import DeviceSaid

FILTERS = ("status", "info", "job/+", "event/alarm")


@dataclass
class _Known:
    online: bool = False
    assets: frozenset[str] = frozenset()
    jobs: dict[str, tuple[State, float, str]] = field(default_factory=dict)  # asset → of this roll-out
    alarms: int = 0
    watched_s: float = 0.0  # before it last came online
    since_s: float | None = None  # online


class Fleet:
    """The devices that have assets of a product.

    Args:
        prefix: first levels of every topic.
        product: kind of machine.
        rollout: whose jobs count.
    """

    def __init__(self, prefix: str, product: str, rollout: str) -> None:
        self._prefix, self._product, self._rollout = prefix, product, rollout
        self._known: dict[str, _Known] = {}

    def filters(self) -> list[str]:
        """To subscribe."""
        return [f"{self._prefix}/+/{tail}" for tail in FILTERS]

    def take(self, message: Received, now_s: float) -> None:
        """A message; what cannot be read is left out."""
        name, _, tail = message.topic.removeprefix(f"{self._prefix}/").partition("/")
        one = self._known.setdefault(name, _Known())
        try:
            if tail == "status":
                if one.since_s is not None:
                    one.watched_s += max(0.0, now_s - one.since_s)
                one.online = message.payload == ONLINE.encode()
                one.since_s = now_s if one.online else None
                return
            body = json.loads(message.payload)
            if tail == "info":
                one.assets = frozenset(str(a["id"]) for a in body["assets"] if a.get("product") == self._product)
            elif tail.startswith("job/") and body["rollout"] == self._rollout:
                since_s = datetime.fromisoformat(body["time"]).timestamp()
                one.jobs[str(body["asset"])] = (State(body["state"]), since_s, str(body.get("reason", "")))
            elif tail == "event/alarm" and not message.retain:
                one.alarms += body["type"] == "new" and body["after"]["asset"] in one.assets
        except (ValueError, KeyError, TypeError, AttributeError):
            return

    def devices(self, now_s: float) -> Iterator[DeviceSaid]:
        """All that are known to have the product, each by the asset that fares worst."""
        for name, one in self._known.items():
            if not one.assets and not one.jobs:
                continue
            watched_s = one.watched_s + (0.0 if one.since_s is None else max(0.0, now_s - one.since_s))
            if not one.jobs:
                yield DeviceSaid(name, one.online, alarms=one.alarms, watched_s=watched_s)
                continue
            state, since_s, reason = min(one.jobs.values(), key=lambda job: _ORDER.get(job[0], 1))
            yield DeviceSaid(name, one.online, state, since_s, reason, one.alarms, watched_s)


_ORDER = {State.FAILED: 0, State.REJECTED: 0, State.ROLLED_BACK: 0, State.SUCCEEDED: 2}
