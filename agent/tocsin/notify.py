"""What the agent tells systemd: that it is ready, how it fares, that it is alive.

Source: sd_notify(3), sd_watchdog_enabled(3). Without systemd nothing is told, and nothing is missing.
"""

import logging
import os
import socket
from collections.abc import Callable

log = logging.getLogger(__name__)


def notify(*lines: str) -> bool:
    """Tells the service manager; whether there is one.

    Args:
        lines: such as `READY=1`, `STATUS=…`, `WATCHDOG=1`, `STOPPING=1`.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            to.sendall("\n".join(lines).encode())
    except OSError:  # the manager is being started anew
        return False
    return True


def watchdog_s() -> float | None:
    """How often the service manager wants to hear that this process is alive, seconds; None: not at all."""
    wanted, whose = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not wanted.isdecimal() or (whose and whose != str(os.getpid())):
        return None
    return int(wanted) / 1e6 / 3


class Watchdog:
    """Tells the service manager that the process is alive, as long as all of it answers.

    Args:
        silent: names what does not answer; empty where all does.
        every_s: how often to tell; None: never.
    """

    def __init__(self, silent: Callable[[], str], every_s: float | None = None) -> None:
        self._silent, self._every_s = silent, watchdog_s() if every_s is None else every_s
        self._next_s, self._said = 0.0, ""

    def look(self, now_s: float) -> None:
        """Often; tells when it is time to, logs once what does not answer.

        Args:
            now_s: monotonic.
        """
        silent = self._silent()
        if silent and silent != self._said:
            log.error("does not answer: %s; the service manager will start the agent anew", silent)
            notify(f"STATUS=does not answer: {silent}")
        self._said = silent
        if self._every_s is not None and not silent and now_s >= self._next_s:
            self._next_s = now_s + self._every_s
            notify("WATCHDOG=1")
