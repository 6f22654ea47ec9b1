"""What all tests share: their order and turns, a real broker and a consumer.

A test that needs a program (`PROGRAMS`) skips where there is none, and fails under CI. Several processes may
run the tests (pytest-xdist): each file in one, files that train first, as they take longest. A test marked `alone`
measures time: no other runs meanwhile.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

DEVICE = "edge-1"
PROGRAMS = {  # marker → what its tests need, and Debian's package
    "broker": ("mosquitto", "mosquitto"),
    "tls": ("openssl", "openssl"),
    "postgres": ("initdb", "postgresql"),
    "systemd": ("systemd-analyze", "systemd"),
    "prometheus": ("promtool", "prometheus"),
    "npm": ("npm", "npm"),
}
WHERE = os.pathsep.join([os.environ["PATH"], *map(str, Path("/usr/lib/postgresql").glob("*/bin"))])
TRAINS_FIRST = ("trainer", "simulate")  # folders

if "PYTEST_XDIST_WORKER" in os.environ:  # processes enough: none takes a core from another
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(folder in item.path.parts for folder in TRAINS_FIRST))


@contextmanager
def turn(path: Path, alone: bool) -> Iterator[None]:
    """Waits until no test runs that is alone, or none at all; the first byte is a gate: none passes one that waits."""
    with path.open("w+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 0)
        fcntl.lockf(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, 1, 1)
        fcntl.lockf(file, fcntl.LOCK_UN, 1, 0)
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test takes its turn with those of other processes; waiting does not count as its time."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    run = Path(item.config.getoption("basetemp")).parent  # the folder of all its processes
    with turn(run / "turn", item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    needed = [needs for marker, needs in PROGRAMS.items() if item.get_closest_marker(marker)]
    missing = [needs for needs in needed if shutil.which(needs[0], path=WHERE) is None]
    if not missing:
        return
    reason = f"{missing[0][0]} is not installed: apt-get install {missing[0][1]}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def wait_until(fact: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Polls what another process or thread brings about; fails when it does not."""
    end = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """One broker process on a port and a persistence folder that outlive it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._binary = shutil.which("mosquitto") or "mosquitto"
        self._process: subprocess.Popen[bytes] | None = None
        self.acl: str | None = None
        self.extra: list[str] = []

    def start(self) -> None:
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {self.folder}/",
            f"user {os.environ.get('USER') or 'root'}",
            *self.extra,
        ]
        if self.acl is not None:
            (self.folder / "acl").write_text(self.acl)
            (self.folder / "acl").chmod(0o600)
            lines.append(f"acl_file {self.folder}/acl")
        config = self.folder / "mosquitto.conf"
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self._binary, "-c", config], stdout=log, stderr=log)
        wait_until(self._listens)

    def _listens(self) -> bool:
        assert self._process is not None and self._process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """SIGKILL: nothing is saved."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """SIGSTOP: connections stay, nothing is read or answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def reload(self, acl: str) -> None:
        """New rules, read by the running process."""
        assert self._process is not None
        (self.folder / "acl").write_text(acl)
        self._process.send_signal(1)


class Consumer:
    """An ordinary subscriber with a persistent session; subscribes again at each connect."""

    def __init__(self, port: int, topics: str = "tocsin/#", name: str = "consumer") -> None:
        self.messages: list[paho.MQTTMessage] = []
        self.ready = threading.Event()
        self._topics = topics
        self._client = paho.Client(CallbackAPIVersion.VERSION2, name, clean_session=False)
        self._client.reconnect_delay_set(0.05, 0.2)
        self._client.on_connect = lambda client, *_: client.subscribe(self._topics, 1)
        self._client.on_subscribe = lambda *_: self.ready.set()
        self._client.on_message = lambda _client, _data, message: self.messages.append(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.ready.wait(10)

    def on(self, tail: str) -> list[paho.MQTTMessage]:
        return [message for message in list(self.messages) if message.topic.endswith(f"/{DEVICE}/{tail}")]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    mosquitto = Mosquitto(folder)
    yield mosquitto
    mosquitto.kill()


@pytest.fixture
def consume() -> Iterator[Callable[..., Consumer]]:
    made: list[Consumer] = []

    def make(port: int, **options: Any) -> Consumer:
        made.append(Consumer(port, **options))
        return made[-1]

    yield make
    for consumer in made:
        consumer.close()


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for a fact that another process or thread brings about."""
    return wait_until


@pytest.fixture
def unused_port() -> int:
    return free_port()
