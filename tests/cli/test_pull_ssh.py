"""`tocsin record pull` over a real ssh to a real sshd, whose line can be cut."""

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tocsin.errors import SourceError
from tocsin.recorder import pull as pull_module
from tocsin.recorder.pull import pull
from tocsin.recordings.segment import Header, SegmentWriter
from tocsin.records import Channel, SampleBlock

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")
pytestmark = pytest.mark.skipif(
    None in (SSHD, shutil.which("ssh"), shutil.which("ssh-keygen")),
    reason="sshd is not installed: apt-get install openssh-server",
)
FRAME = 16_008


class Line:
    """Between ssh and sshd; after `budget` bytes from the device it is closed, or silent.

    Attributes:
        budget: bytes; None = without end.
        dead: it falls silent instead of closing.
    """

    def __init__(self, to: int) -> None:
        self.budget: int | None = None
        self.dead = False
        self._to = to
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open: list[socket.socket] = [self._server]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._open += [near, far]
                for pair in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(4096):
                if counted and self.budget is not None:
                    data, self.budget = data[: self.budget], max(0, self.budget - len(data))
                    if not self.budget and not self.dead:
                        break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for each in self._open:
            each.close()


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_port: int, until: Callable[..., None]
) -> Iterator[Line]:
    """To a device of its own: `ssh edge-1` goes there."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    server, client, program = tmp_path / "sshd_config", tmp_path / "ssh_config", tmp_path / "bin/ssh"
    server.write_text(
        f"Port {unused_port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nPidFile none\nStrictModes no\n"
        f"UsePAM no\nAuthorizedKeysFile {tmp_path}/user.pub\nPermitRootLogin prohibit-password\n"
    )
    with suppress(OSError):
        Path("/run/sshd").mkdir(exist_ok=True)  # Debian's sshd wants it; it is made when its service starts
    assert SSHD is not None
    sshd = subprocess.Popen([SSHD, "-D", "-f", server, "-E", tmp_path / "sshd.log"])
    line = Line(unused_port)
    client.write_text(
        f"Host edge-1\n HostName 127.0.0.1\n Port {line.port}\n IdentityFile {tmp_path}/user\n BatchMode yes\n"
        f" StrictHostKeyChecking no\n UserKnownHostsFile {tmp_path}/known\n LogLevel ERROR\n"
    )
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {client} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    def listens() -> bool:
        if sshd.poll() is not None:
            pytest.skip(f"sshd does not start here: {(tmp_path / 'sshd.log').read_text()[-200:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", unused_port)) == 0

    until(listens)
    yield line
    line.close()
    sshd.terminate()
    sshd.wait()


@pytest.fixture
def device(tmp_path: Path) -> Path:
    folder = tmp_path / "it's a device"
    random = np.random.default_rng(0)
    for name in ("ring/pump-1/00000001-x.seg", "ring/pump-1/00000002-x.seg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        writer = SegmentWriter(folder / name, Header("pump-1", (Channel("flow"),), "float64"))
        for n in range(20):
            writer.append(SampleBlock(np.arange(1000) + 1000.0 * n, random.normal(size=(1000, 1))))
        writer.close()
    return folder


def whole(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.seg")}


def test_recordings_come_over_ssh_and_nothing_comes_twice(line: Line, device: Path, tmp_path: Path) -> None:
    first = pull(f"edge-1:{device}", "", tmp_path / "here")
    assert whole(tmp_path / "here") == whole(device)
    assert (first.segments, first.bytes) == (2, sum(map(len, whole(device).values())))
    assert pull(f"edge-1:{device}", "", tmp_path / "here").bytes == 0


@pytest.mark.parametrize("dead", [False, True], ids=["closed", "silent"])
def test_a_transfer_whose_line_is_cut_is_told_and_goes_on_there(
    line: Line, device: Path, tmp_path: Path, dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "ALIVE_S", 1)
    line.budget, line.dead = 450_000, dead
    begin = time.monotonic()
    with pytest.raises(SourceError, match=r"edge-1: the connection was lost in ring/pump-1/00000002.* goes on"):
        pull(f"edge-1:{device}", "", tmp_path / "here")
    assert time.monotonic() - begin < 10
    line.budget = None
    total = sum(map(len, whole(device).values()))
    again = pull(f"edge-1:{device}", "", tmp_path / "here")
    assert whole(tmp_path / "here") == whole(device)
    assert 0 < again.bytes < total - 450_000 + 2 * FRAME + 100_000


def test_a_device_that_does_not_answer_is_told(line: Line, device: Path, tmp_path: Path) -> None:
    line.budget = 0
    with pytest.raises(SourceError, match="can you log in by ssh"):
        pull(f"edge-1:{device}", "", tmp_path / "here")
