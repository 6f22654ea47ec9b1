"""A disk that is full, fails or cannot be written, under a running agent: it scores on, and no alarm is lost.

The agent runs in a mount namespace of its own, where its state folder is a small tmpfs.
"""

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent.parent / "data"
FAULTS = 3  # in faults.csv
IN_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """Asks the kernel for what the tests need."""
    found = subprocess.run([*IN_NAMESPACE, "mount -t tmpfs none /mnt"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"no mount namespaces of users here: {found.stderr.strip()}")


class Box:
    """An agent whose state folder is a disk of 8 MB."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        (folder / "state").mkdir()
        source = {"type": "replay", "files": [str(DATA / "faults.csv")], "speed": 40}
        asset = {"id": "pump-1", "bundle": str(DATA / "small.tocsin"), "source": source, "alarm": {"hold_off": 0}}
        idle = {**asset, "id": "pump-2", "source": {**source, "speed": 0.1}}
        mqtt = {"host": "127.0.0.1", "port": port, "health_interval_s": 1}
        document = {"version": 1, "device": "edge-1", "state_dir": "state", "mqtt": mqtt, "assets": [asset, idle]}
        (folder / "tocsin.yaml").write_text(json.dumps(document))
        self._process: subprocess.Popen[str] | None = None

    def start(self, options: str = "size=8m") -> "subprocess.Popen[str]":
        run = f"mount -t tmpfs -o {options} none state && exec {sys.executable} -m tocsin.cli.main run -c tocsin.yaml"
        self._process = subprocess.Popen([*IN_NAMESPACE, run], cwd=self.folder, stderr=subprocess.PIPE, text=True)
        return self._process

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @contextmanager
    def full(self) -> Iterator[None]:
        """Somebody else fills the disk to its last byte."""
        ballast = Path(f"/proc/{self.pid}/root{self.folder}/state/ballast")
        with ballast.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        yield
        ballast.unlink()

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Every write to a file is an input/output error for SQLite."""
        before = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (0, before[1]))
        yield
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, before)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def box(tmp_path: Path, broker: Any) -> Iterator[Box]:
    broker.start()
    made = Box(tmp_path, broker.port)
    yield made
    made.end()


def news(consumer: Any) -> list[str]:
    found = [json.loads(message.payload) for message in consumer.on("event/alarm")]
    return [event["after"]["id"] for event in found if event["type"] == "new"]


def healths(consumer: Any) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in consumer.on("health")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["full", "failing"])
def test_alarms_wait_for_a_bad_disk_and_scores_go_on(
    fault: str, box: Box, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    consumer = consume(broker.port)
    process = box.start()
    until(lambda: len(consumer.on("score/pump-1")) > 0, 30)
    assert news(consumer) == []
    with getattr(box, fault)():
        until(lambda: any(health["waiting_for_disk"] for health in healths(consumer)), 60)
        scored = len(consumer.on("score/pump-1"))
        until(lambda: len(consumer.on("score/pump-1")) > scored + 20, 60)
        assert news(consumer) == []
        assert healths(consumer)[-1]["status"] == "degraded"
        begin_s = time.monotonic()
    until(lambda: len(news(consumer)) >= 1, 60)
    delay_s = time.monotonic() - begin_s
    until(lambda: len(news(consumer)) == FAULTS, 60)
    until(lambda: not healths(consumer)[-1]["waiting_for_disk"], 60)
    twice = len(news(consumer)) - len(set(news(consumer)))
    print(f"disk {fault}: 0 lost, {twice} twice, told {delay_s:.1f} s after it could be written again")
    assert twice == 0
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 0 and "Traceback" not in said and "alarms cannot be written" in said


def test_what_is_delivered_on_a_full_disk_goes_out_once_and_the_session_holds(
    box: Box, broker: Any, consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    consumer = consume(broker.port)
    box.start()
    until(lambda: len(news(consumer)) == 1, 60)
    with box.full():
        time.sleep(7)  # longer than what was delivered lingers
        assert [message.payload for message in consumer.on("status")][-1] == b"online"
        assert len(consumer.on("status")) == 1 and len(news(consumer)) == 1
    until(lambda: len(news(consumer)) == FAULTS, 60)


def test_a_state_folder_that_cannot_be_written_is_named_at_the_start(box: Box) -> None:
    process = box.start("size=8m,ro")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "state_dir" in said and "Read-only file system" in said and "Traceback" not in said
