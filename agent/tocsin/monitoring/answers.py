"""What each path answers.

```
/metrics   figures for Prometheus                       200
/healthz   do the threads live that alarms need?        200, or 503 with the names of those that do not
/readyz    is every asset watched, and can it be told?  200, or 503 with what is missing
```
Rules: no answer has the text of an error, which may name hosts and users. What is costly is made at most once a
second, however many ask; `/healthz` waits for no lock.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tocsin.monitoring.exposition import CONTENT_TYPE, page
from tocsin.monitoring.metrics import Facts

KEPT_S = 1.0
WATCHED = ("ok", "off_rate", "ended")  # states of an asset that nothing has to be done about

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer over HTTP."""

    status: int
    content_type: str
    body: bytes


class Kept(Generic[T]):
    """A value that is made anew only when it is older than a second; from any thread.

    Args:
        make: makes it.
        now: monotonic seconds.
    """

    def __init__(self, make: Callable[[], T], now: Callable[[], float] = time.monotonic) -> None:
        self._make, self._now = make, now
        self._lock = threading.Lock()
        self._kept: tuple[float, T] | None = None

    def __call__(self) -> T:
        """The value, kept or made."""
        with self._lock:
            if self._kept is None or self._now() - self._kept[0] > KEPT_S:
                self._kept = (self._now(), self._make())
            return self._kept[1]


def routes(facts: Callable[[], Facts], threads: Callable[[], Mapping[str, bool]]) -> dict[str, Callable[[], Reply]]:
    """Every path with what answers it.

    Args:
        facts: of the running agent; from any thread.
        threads: whether each thread lives, by its name; must not wait.

    Raises:
        ConfigError: the extra `metrics` is not installed.
    """
    text = page(facts)
    return {
        "/metrics": Kept(lambda: Reply(200, CONTENT_TYPE, text())),
        "/healthz": lambda: alive(threads()),
        "/readyz": Kept(lambda: ready(facts())),
    }


def alive(threads: Mapping[str, bool]) -> Reply:
    """Whether all threads live: one that ended needs a restart of the agent."""
    ended = [name for name, lives in threads.items() if not lives]
    return _json(503, {"status": "failing", "ended": ended}) if ended else _json(200, {"status": "ok"})


def ready(facts: Facts) -> Reply:
    """Whether all assets are watched and alarms reach the disk and the broker."""
    missing: dict[str, str] = {
        asset: facts.health.sources[asset].state
        for asset in facts.health.assets
        if facts.health.sources[asset].state not in WATCHED
    }
    if not facts.delivery.connected:
        missing["mqtt"] = "not connected"
    if facts.desk.waiting_for_disk:
        missing["state_dir"] = "alarms cannot be written"
    return _json(503, {"status": "waiting", "missing": missing}) if missing else _json(200, {"status": "ok"})


def _json(status: int, document: dict[str, Any]) -> Reply:
    return Reply(status, "application/json", json.dumps(document).encode() + b"\n")
