"""Fetches segments from a device, going on where it stopped.

```
find, wc          which segments, how long        ┐ over `ssh`, or a shell here where the
tail -c +OFFSET   what is not here yet, of each   ┘ recordings lie on a disk that is mounted
```
Rules: segments are only ever appended to, so what is here up to the last whole frame is never fetched again; what a
broken connection tore is cut off first. Names from the other side are taken only in the recorder's own form.
"""

import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tocsin.errors import DataError, SourceError, TocsinError
from tocsin.recordings.segment import cut_tail

CHUNK = 1 << 18
CONNECT_TIMEOUT_S = 15
ALIVE_S, ALIVE_COUNT = 10, 3  # a link that is silent for so long, so often, is dead
LIST_TIMEOUT_S = 120.0
MOST_LINES = 1_000_000
_LINE = re.compile(r"\s*(\d{1,15}) \./((?:ring|snapshots)/[A-Za-z0-9][\w.-]{0,127}/[A-Za-z0-9][\w.-]{0,127}\.seg)")
_LIST = r"cd {folder} && find . -type f -name '*.seg' -exec wc -c {{}} \;"


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was fetched.

    Attributes:
        segments: that are here now and there.
        bytes: that came now.
        gone: segments that left the device's ring meanwhile.
    """

    segments: int
    bytes: int
    gone: int


class Shell:
    """Runs commands on the device: over ssh, one connection for all; or here.

    Args:
        host: `[user@]host`, or None for this machine.
        control: folder for the connection's socket.
    """

    def __init__(self, host: str | None, control: Path) -> None:
        if host is not None and (not host or host.startswith("-") or re.search(r"\s", host)):
            raise TocsinError(f"{host!r}: expected [user@]host, a folder here, or [user@]host:folder")
        options = {
            "ConnectTimeout": CONNECT_TIMEOUT_S,
            "ServerAliveInterval": ALIVE_S,
            "ServerAliveCountMax": ALIVE_COUNT,
            "ControlMaster": "auto",
            "ControlPath": f"{control}/%C",
            "ControlPersist": 15,
        }
        given = (word for name, value in options.items() for word in ("-o", f"{name}={value}"))
        self._before = ["sh", "-c"] if host is None else ["ssh", "-T", *given, "--", host]
        self.name = host or "this machine"

    def start(self, command: str) -> "subprocess.Popen[bytes]":
        """Begins a POSIX shell command; its output is to be read."""
        try:
            return subprocess.Popen([*self._before, command], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        except OSError as error:
            raise TocsinError(
                f"{self._before[0]} cannot be run: {error.strerror or error}: is it installed?"
            ) from error


def split_device(device: str, folder: str) -> tuple[str | None, str]:
    """Host and folder of `[user@]host[:folder]`; no host for a path, which begins with `.` or `/`.

    >>> split_device("edge-1", "rec"), split_device("pi@edge-1:/data", "rec"), split_device("./usb", "rec")
    (('edge-1', 'rec'), ('pi@edge-1', '/data'), (None, './usb'))
    """
    if device.startswith(("/", ".")):
        return None, device
    host, _, given = device.partition(":")
    return host, given or folder


def pull(device: str, folder: str, into: Path, told: Callable[[str], None] = lambda _: None) -> Pulled:
    """Fetches what is not here yet of a device's recordings.

    Args:
        device: `[user@]host[:folder]`, or a folder here.
        folder: of the recordings there, where the device does not say.
        into: made when missing; gets `ring/…` and `snapshots/…` as they lie there.
        told: called with the name of each segment that came.

    Raises:
        SourceError: the connection was lost; another call goes on.
        TocsinError: it cannot be written here, or there are no recordings there.
    """
    host, there = split_device(device, folder)
    with tempfile.TemporaryDirectory(prefix="tocsin-") as control:
        shell = Shell(host, Path(control))
        sizes = _listed(shell, there)
        count = total = gone = 0
        for name, size in sorted(sizes.items()):
            try:
                came = _fetch(shell, there, name, size, into / name)
            except FileNotFoundError:
                gone += 1
                continue
            except OSError as error:
                raise TocsinError(f"{into / name}: cannot be written: {error.strerror or error}") from error
            count, total = count + 1, total + came
            if came:
                told(f"{name}, {came:,} bytes")
    return Pulled(count, total, gone)


def _listed(shell: Shell, folder: str) -> dict[str, int]:
    """Length of each segment by its name."""
    process = shell.start(_LIST.format(folder=_quoted(folder)))
    try:
        out, _ = process.communicate(timeout=LIST_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise SourceError(f"{shell.name}: no list of recordings within {LIST_TIMEOUT_S:g} s") from error
    if process.returncode:
        raise SourceError(
            f"{shell.name}: the recordings in {folder} cannot be listed (exit code {process.returncode}): can you "
            "log in by ssh, and is the folder right?"
        )
    lines = out.decode("utf-8", "replace").splitlines()[:MOST_LINES]
    return {match[2]: int(match[1]) for line in lines if (match := _LINE.fullmatch(line)) and ".." not in match[2]}


def _fetch(shell: Shell, folder: str, name: str, size: int, path: Path) -> int:
    """Appends what is missing of one segment; gives how many bytes came."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.exists():
            cut_tail(path)
    except DataError as error:
        raise TocsinError(str(error)) from error
    have = path.stat().st_size if path.exists() else 0
    if have >= size:
        return 0
    process = shell.start(f"cd {_quoted(folder)} && exec tail -c +{have + 1} {shlex.quote(name)}")
    assert process.stdout is not None
    came = 0
    with process.stdout as stream, path.open("ab") as handle:
        while came < size - have and (chunk := stream.read(min(CHUNK, size - have - came))):
            handle.write(chunk)
            came += len(chunk)
    process.terminate()
    code = process.wait()
    if came < size - have:
        if not have and not came:
            path.unlink()
        if code == 255:
            raise SourceError(f"{shell.name}: the connection was lost in {name}: the same command goes on from there")
        raise FileNotFoundError(name)
    cut_tail(path)
    return came


def _quoted(folder: str) -> str:
    """For a shell; `~/` stays the home there."""
    return f"~/{shlex.quote(folder[2:])}" if folder.startswith("~/") else shlex.quote(folder)
