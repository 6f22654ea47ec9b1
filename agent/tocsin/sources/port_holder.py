"""Which other program has a serial port open, from /proc, without opening it: that would restart many a board."""

import os
from contextlib import suppress
from pathlib import Path


def port_holders(port: str) -> list[str]:
    """Each as `minicom (812)`; of other users' programs only those that locked the port, unless this user is root."""
    try:
        about = Path(port).stat()
    except OSError:
        return []
    found = {int(folder.name) for folder in Path("/proc").glob("[0-9]*") if _has_open(folder, about)}
    with suppress(OSError):
        device = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
        locks = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        found |= {int(words[4]) for words in locks if len(words) > 5 and words[5] == device and words[4].isdigit()}
    return [f"{_name(pid)} ({pid})" if pid else "another program" for pid in sorted(found - {os.getpid()})]


def _has_open(folder: Path, about: os.stat_result) -> bool:
    with suppress(OSError):  # another user's, or it has ended
        for link in (folder / "fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(link.stat(), about):
                    return True
    return False


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "a program"
