"""Records to send, and what sends them."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.alarm import AlarmContext
from tocsin.config import MqttSettings
from tocsin.delivery.outbox import Outbox
from tocsin.delivery.publisher import Publisher
from tocsin.delivery.requests import Requests
from tocsin.delivery.wire import AgentInfo, HardwareInfo, Health, Info, rfc3339
from tocsin.records import Change, Contribution, Transition

DEVICE = "edge-1"
_clock = itertools.count()
CONTEXTS = {
    "pump-1": AlarmContext(
        model_name="pump-1", model_version="1.0.0", model_digest="ab" * 32, units={"pressure": "bar"}
    )
}


def healthy() -> Health:
    return Health(time=rfc3339(time.time()), status="ok", uptime_s=1.0, clock_synced=True)


def a_transition(change: Change = Change.RAISED, alarm: str = "pump-1-model", **others: Any) -> Transition:
    time_s = 1741529159.25 + next(_clock)
    values: dict[str, Any] = {
        "asset": "pump-1", "alarm": alarm, "change": change, "time_s": time_s, "cause": "model", "score": 3.0,
        "threshold": 1.5, "ratio": 2.0, "window_start_s": time_s - 7, "window_end_s": time_s, "window_rows": 8,
        "contributions": (Contribution("pressure", 0.54, 2.31, 5.02), Contribution("flow", 0.46, 1.0, None)),
    }  # fmt: skip
    return Transition(**{**values, **others})


@pytest.fixture
def transition() -> Callable[..., Transition]:
    """Makes transitions, each a second after the last."""
    return a_transition


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.db") as opened:
        yield opened


@pytest.fixture
def publish(outbox: Outbox) -> Iterator[Callable[..., Publisher]]:
    """Starts publishers of the outbox, and stops them at the end."""
    made: list[Publisher] = []

    def start(port: int, box: Outbox = outbox, requests: Requests | None = None, **others: Any) -> Publisher:
        settings = MqttSettings.model_validate({"host": "127.0.0.1", "port": port, **others})
        info = Info(device=DEVICE, agent=AgentInfo(version="0", python="3"), hw=HardwareInfo(arch="x", cpus=1), os="t")
        made.append(Publisher(settings, DEVICE, box, info, healthy, requests))
        made[-1].start()
        return made[-1]

    yield start
    for publisher in made:
        publisher.stop(1.0)


@pytest.fixture
def desk_of(outbox: Outbox) -> Callable[..., AlarmDesk]:
    """Makes a desk for the outbox; not started."""

    def make(box: Outbox = outbox, wake: Callable[[], None] = lambda: None) -> AlarmDesk:
        return AlarmDesk(box, DEVICE, CONTEXTS, wake)

    return make
