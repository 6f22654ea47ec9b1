"""Facts with every figure, and what asks over HTTP."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tocsin.alarm_desk import DeskStatistics
from tocsin.alarms.alarm import Alarm, AlarmContext, AlarmState, Severity
from tocsin.delivery.publisher import Statistics
from tocsin.delivery.wire import (
    AgentInfo,
    AssetHealth,
    AssetInfo,
    FalseAlarms,
    HardwareInfo,
    Health,
    Info,
    RecordingHealth,
    RuntimeInfo,
    Score,
    SourceHealth,
    rfc3339,
)
from tocsin.monitoring.metrics import Facts
from tocsin.records import Change, Transition

INFO = Info(
    device="edge-1",
    agent=AgentInfo(version="1.2.3", python="3.11.7"),
    runtime=RuntimeInfo(name="ai_edge_litert"),
    hw=HardwareInfo(arch="aarch64", cpus=4),
    os="Debian",
    assets=[AssetInfo(id="pump-1", channels=["flow"], rate_hz=1.0, model="pump", version="4")],
)
DELIVERY = Statistics(True, "5", 30, 20, ("event/alarm: nobody listens",), 1, 2, 3, True, 4, 5.5, 6, "")

DESK = DeskStatistics(raised=8, cleared=7, failed=0, waiting_for_disk=False)


def a_source(**others: Any) -> SourceHealth:
    known: dict[str, Any] = {
        "samples_total": 100, "last_sample_age_s": 0.5, "errors_total": 7, "rate_hz": 9.9, "stated_rate_hz": 10.0,
        "bad_total": 5, "bad": {"crc": 4, 'a "quote"\n': 1}, "lost_total": 2, "late_total": 3, "reconnects_total": 4,
        "clock_steps_total": 1,
    }  # fmt: skip
    return SourceHealth(**{**known, **others})


def an_alarm(severity: Severity = Severity.MAJOR, **others: Any) -> Alarm:
    latest = Transition("pump-1", "pump-1-anomaly", Change.RAISED, 0.0, "model", 2.0, 1.0, 2.0, 0.0, 1.0, 8, ())
    context = AlarmContext(severity=severity)
    known = Alarm("01A", AlarmState.UNACKED, True, 0.0, None, 1, latest, (), "text", context)
    return Alarm(**{**{name: getattr(known, name) for name in Alarm.__slots__}, **others})


def some_facts(
    health: dict[str, Any] | None = None,
    sources: dict[str, SourceHealth] | None = None,
    alarms: dict[str, Alarm] | None = None,
    delivery: Statistics = DELIVERY,
    desk: DeskStatistics = DESK,
) -> Facts:
    """With every figure, where nothing else is said."""
    counted = FalseAlarms(episodes=3, hours=0.5, broken=False)
    line = AssetHealth(
        windows_total=50, inference_ms_p50=1.5, inference_ms_p99=2.5, bad_channels=["flow"], false_alarms=counted
    )
    known: dict[str, Any] = {
        "time": rfc3339(time.time()), "status": "degraded", "uptime_s": 12.5, "memory_mb": 2.0, "cpu_temp_c": 51.5,
        "disk_free_mb": 100.0, "clock_synced": True, "sources": sources or {"pump-1": a_source()},
        "assets": {"pump-1": line}, "recording": RecordingHealth(ring_mb=1.0, last_error="disk full"),
    }  # fmt: skip
    score = Score(time=rfc3339(0), score=2.0, threshold=1.0, ratio=2.0, anomaly=1, inference_ms=1.0, seq=1)
    return Facts(INFO, Health(**{**known, **(health or {})}), 3.25, delivery, desk, alarms or {}, {"pump-1": score})


@pytest.fixture
def facts() -> Callable[..., Facts]:
    """Makes facts."""
    return some_facts


@pytest.fixture
def source() -> Callable[..., SourceHealth]:
    """Makes the health of a source."""
    return a_source


@pytest.fixture
def alarm() -> Callable[..., Alarm]:
    """Makes alarms of `pump-1`."""
    return an_alarm


@pytest.fixture
def listens() -> Callable[[int], bool]:
    """Whether something listens at 127.0.0.1:PORT."""

    def look(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    return look


@pytest.fixture
def ask() -> Callable[..., tuple[int, str]]:
    """GET http://127.0.0.1:PORT/PATH: status and text."""

    def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return get
