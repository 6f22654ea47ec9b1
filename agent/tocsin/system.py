"""Figures of this machine and process, from /proc and /sys; None where a machine does not tell."""

import os
import platform
import resource
import shutil
import time
from importlib import metadata
from pathlib import Path

from tocsin import __version__
from tocsin.core.interpreter import runtime_name
from tocsin.delivery.wire import AgentInfo, HardwareInfo, RuntimeInfo


def memory_mb() -> float | None:
    """Resident memory of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return round(pages * resource.getpagesize() / 2**20, 1)


def disk_free_mb(folder: Path) -> float | None:
    """Room on the disk that holds the folder."""
    try:
        return round(shutil.disk_usage(folder).free / 2**20, 1)
    except OSError:
        return None


def cpu_temp_c() -> float | None:
    """Of the processor."""
    try:
        return int(Path("/sys/class/thermal/thermal_zone0/temp").read_text()) / 1000
    except (OSError, ValueError):
        return None


class CpuShare:
    """Percent of one core that this process has used since the last call."""

    def __init__(self) -> None:
        self._last = (time.monotonic(), time.process_time())

    def percent(self) -> float:
        """0 to 100 times the number of cores."""
        now = (time.monotonic(), time.process_time())
        (before, used_before), self._last = self._last, now
        return round(100 * (now[1] - used_before) / max(now[0] - before, 1e-6), 1)


def agent_info() -> AgentInfo:
    """The software."""
    return AgentInfo(version=__version__, python=platform.python_version())


def runtime_info() -> RuntimeInfo:
    """What runs the models."""
    name = runtime_name()
    try:
        version = metadata.version(name.replace("_", "-"))
    except metadata.PackageNotFoundError:
        version = None
    return RuntimeInfo(name=name, version=version)


def hardware_info() -> HardwareInfo:
    """The box."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return HardwareInfo(
        model=_device_tree("model"),
        serial=_device_tree("serial-number"),
        arch=platform.machine(),
        cpus=os.cpu_count() or 1,
        memory_mb=total,
    )


def os_name() -> str:
    """As /etc/os-release calls it."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform()


def _device_tree(name: str) -> str | None:
    try:
        return Path("/proc/device-tree", name).read_text().strip("\x00\n") or None
    except (OSError, UnicodeDecodeError):
        return None
