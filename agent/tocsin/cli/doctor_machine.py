"""What `tocsin doctor` looks at on the machine itself: clock, disk, serial ports.

Rules: nothing is left behind; the clock's state is the kernel's (adjtimex), which is what `timedatectl` shows, too.
"""

import getpass
import grp
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from tocsin.cli.hear_serial import BY_ID, serial_ports
from tocsin.config import AgentSettings
from tocsin.delivery.clock import time_quality
from tocsin.records import Finding
from tocsin.sources.clock import EPOCH_S
from tocsin.sources.port_holder import port_holders
from tocsin.system import disk_free_mb

LITTLE_DISK_MB = 200.0
SLOW_S, TRIES, BLOCK_BYTES = 0.2, 5, 4096  # of a write that has to be on the disk


def clock() -> Finding:
    """Whether the time is right, as far as the machine can know."""
    now_s = time.time()
    at = datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    tool = shutil.which("timedatectl") is not None
    mend = "timedatectl set-ntp true" if tool else "apt-get install chrony, or let the host of this container do it"
    if now_s < EPOCH_S:
        return Finding("clock", f"{at}: it was never set", "bad", f"{mend}; a battery-backed clock keeps it over a cut")
    if time_quality() == "ntp":
        return Finding("clock", f"{at}, disciplined by a time server")
    return Finding("clock", f"{at}, no time server: alarms say time_quality unsynced", "note", mend)


def disk(what: str, folder: Path) -> Finding:
    """Whether there is room in a folder that may not be there yet, and a write reaches the disk in good time."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.access(path, os.F_OK))
    user = getpass.getuser()
    if not there.is_dir():
        return Finding(what, f"{there} is no folder", "bad", "name another one, or move that file away")
    try:
        took_s = _sync_s(there)
    except OSError as error:
        mend = f"sudo install -d -o {user} {folder}, or run as the user of the service"
        return Finding(what, f"{there}: {user} cannot write: {error.strerror or error}", "bad", mend)
    free = disk_free_mb(there)
    found = f"{folder}: {'?' if free is None else f'{free / 1024:.1f}'} GiB free, a write takes {1e3 * took_s:.1f} ms"
    if free is not None and free < LITTLE_DISK_MB:
        return Finding(what, found, "bad", f"free {LITTLE_DISK_MB:.0f} MB: the outbox and recordings need room")
    if took_s > SLOW_S:
        return Finding(
            what, found, "note", "a slow or worn card: each alarm waits for it; take an industrial one, or SSD"
        )
    return Finding(what, found)


def _sync_s(folder: Path) -> float:
    """Median seconds of a small write that has reached the disk."""
    took = []
    with tempfile.TemporaryFile(dir=folder) as handle:
        for _ in range(TRIES):
            begin_s = time.perf_counter()
            handle.write(os.urandom(BLOCK_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
            took.append(time.perf_counter() - begin_s)
    return median(took)


def configured_disks(settings: AgentSettings) -> Iterator[Finding]:
    """The folders that the agent writes to."""
    yield disk("state_dir", settings.state_dir)
    if settings.recording is not None and settings.recording.folder is not None:
        yield disk("recordings", settings.recording.folder)


def ports(settings: AgentSettings | None) -> Iterator[Finding]:
    """The serial ports that there are, and each that the settings name."""
    there = [path for path, _ in serial_ports()]
    closed = [path for path in there if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        yield Finding("serial ports", f"{getpass.getuser()} may not use {', '.join(closed)}", "note", _join(closed[0]))
    else:
        yield Finding("serial ports", ", ".join(there) or "none")
    for asset in () if settings is None else settings.assets:
        for stream, source in asset.streams().items():
            port = getattr(source, "port", None)
            if source.type in ("serial", "modbus") and port and "://" not in port:
                yield port_of(f"port of {stream}", port, there)


def port_of(what: str, port: str, there: list[str]) -> Finding:
    """One port that the settings name.

    Args:
        what: of the finding.
        port: its path.
        there: paths of all ports.
    """
    path = Path(port)
    if not os.access(path, os.F_OK):  # no error where this user may not look
        others = f"; there are {', '.join(there)}" if there else ""
        return Finding(what, f"{port} is not there", "bad", f"plug it in, or name the right one{others}")
    if not os.access(path, os.R_OK | os.W_OK):
        return Finding(what, f"{getpass.getuser()} may not use {port}", "bad", _join(port))
    names = [str(link) for link in BY_ID.glob("*") if link.resolve() == path.resolve()] if BY_ID.is_dir() else []
    if names and not port.startswith(str(BY_ID)):
        return Finding(what, f"{port}: the name may change at the next start", "note", f"write {names[0]}")
    holders = port_holders(port)
    if holders:
        return Finding(
            what, f"{port} is held by {', '.join(holders)}", "note", "right if that is the agent; else end it"
        )
    return Finding(what, f"{port} can be used")


def _join(port: str) -> str:
    """What lets this user use a port."""
    try:
        group = grp.getgrgid(Path(port).stat().st_gid).gr_name
    except (OSError, KeyError):
        group = "dialout"
    return (
        f"sudo usermod -aG {group} {getpass.getuser()}, then log in again; for the service: SupplementaryGroups={group}"
    )
