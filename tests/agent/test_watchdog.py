"""What the service manager hears: that the agent is ready, lives, hangs, ends."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tocsin import service, worker
from tocsin.config_file import load_settings
from tocsin.notify import Watchdog, notify, watchdog_s
from tocsin.service import Agent
from tocsin.sources.synthetic import SyntheticSource

DATA = Path(__file__).parent.parent / "data"


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        while True:
            try:
                self.heard += self._socket.recv(65_536).decode().splitlines()
            except BlockingIOError:
                return self.heard

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    made = Manager(address)
    yield made
    made.close()


def test_without_a_service_manager_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    assert not notify("READY=1")


def test_how_often_is_a_third_of_what_the_manager_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_s() == 10.0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    assert watchdog_s() is None


def test_it_is_fed_only_while_all_answers(manager: Manager) -> None:
    silent = [""]
    feed = Watchdog(lambda: silent[0], every_s=10.0)
    for now_s in (0.0, 5.0, 10.0, 12.0):
        feed.look(now_s)
    assert manager.listen() == ["WATCHDOG=1", "WATCHDOG=1"]
    silent[0] = "asset-pump-1"
    feed.look(30.0)
    assert manager.listen()[2:] == ["STATUS=does not answer: asset-pump-1"]
    silent[0] = ""
    feed.look(31.0)
    assert manager.listen()[3:] == ["WATCHDOG=1"]


def settings(folder: Path, port: int) -> Any:
    path = folder / "tocsin.yaml"
    path.write_text(f"""
version: 1
device: edge-1
state_dir: state
mqtt: {{host: 127.0.0.1, port: {port}}}
assets:
  - id: pump-1
    bundle: {DATA}/small.tocsin
    source: {{type: synthetic, rate_hz: 1, channels: ["pressure [bar]", "flow [l/min]"]}}
""")
    return load_settings(path)


def test_a_source_that_never_comes_back_is_a_hang_and_one_without_samples_is_none(
    tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    hangs = threading.Event()
    release = threading.Event()
    read = SyntheticSource.read

    def stuck(self: SyntheticSource, timeout_s: float) -> Any:
        if hangs.is_set():
            release.wait(30)
        return read(self, timeout_s)

    monkeypatch.setattr(SyntheticSource, "read", stuck)
    monkeypatch.setattr(worker, "ANSWERS_S", 2.0)
    agent = Agent(settings(tmp_path, unused_port))
    agent.start()
    try:
        end_s = time.monotonic() + 4
        while time.monotonic() < end_s:
            assert agent.answers() == ""
            time.sleep(0.1)
        hangs.set()
        until(lambda: agent.answers() == "asset-pump-1", 10)
    finally:
        release.set()
        agent.stop()


def test_the_manager_hears_that_the_agent_is_ready_lives_and_ends(
    tmp_path: Path, unused_port: int, manager: Manager, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    import subprocess
    import sys

    settings(tmp_path, unused_port)
    command = [sys.executable, "-m", "tocsin.cli.main", "run", "-q", "-c", "tocsin.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "WATCHDOG_USEC": "600000"})
    until(lambda: manager.listen().count("WATCHDOG=1") >= 3, 30)
    assert manager.heard[:2] == ["READY=1", "STATUS=watching pump-1"]
    process.terminate()
    assert process.wait(20) == 0
    assert manager.listen()[-1] == "STOPPING=1"
    assert service.LOOK_S < worker.ANSWERS_S
