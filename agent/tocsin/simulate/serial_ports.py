"""Serial ports of the virtual plant: pseudo-terminals that print what a sensor node would.

Rules: nobody needs to listen; what a full port does not take is dropped, lines and frames as a whole.
"""

import os
import select
import threading
import tty
from collections import deque
from contextlib import suppress
from pathlib import Path

from tocsin.errors import TocsinError
from tocsin.simulate.plant import FAST_CHANNELS, NAMES, Step
from tocsin.sources.frames import MOST_BYTES, encode_frame

FLOAT32 = 3  # kind of a frame's values
FRAME_ROWS = min(128, MOST_BYTES // (4 * len(FAST_CHANNELS)))
WAITING_FRAMES = 256
LOOK_S = 0.2


class _Port:
    """Both ends of a pseudo-terminal, and a link to the one that is read.

    Args:
        link: made; an older link is replaced.

    Raises:
        TocsinError: something else is at that path.
    """

    def __init__(self, link: Path) -> None:
        if link.exists() and not link.is_symlink():
            raise TocsinError(f"{link}: there is a file already: expected a free path for the serial port")
        self.far, self._near = os.openpty()
        tty.setraw(self._near)
        os.set_blocking(self.far, False)
        self._link = link
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(os.ttyname(self._near))
        except OSError as error:
            raise TocsinError(f"{link}: cannot be made: {error.strerror or error}") from error

    def write(self, data: bytes) -> bytes:
        """What the port did not take."""
        with suppress(BlockingIOError):
            data = data[os.write(self.far, data) :]
        return data

    def close(self) -> None:
        """Takes the link away."""
        self._link.unlink(missing_ok=True)
        os.close(self.far)
        os.close(self._near)


class SerialLines:
    """Prints a line of numbers a step, in the order of the slow channels.

    Args:
        link: see `_Port`.
    """

    def __init__(self, link: Path) -> None:
        self._port, self._rest = _Port(link), b""
        self.told = f"serial   {link}, {len(NAMES)} numbers a line, 10 lines a second"

    def send(self, step: Step) -> None:
        """One line, or the rest of the one that was cut."""
        if not self._rest:
            self._rest = (",".join(f"{value:.6g}" for value in step.values.tolist()) + "\r\n").encode("ascii")
        self._rest = self._port.write(self._rest)

    def close(self) -> None:
        """Takes the link away."""
        self._port.close()


class SerialFrames:
    """Sends the vibration as binary frames of float32, from a thread of its own: a port holds less than a step.

    Args:
        link: see `_Port`.
        rate_hz: of the vibration.

    Attributes:
        dropped: frames that nobody took; their samples are missing in the sequence.
    """

    def __init__(self, link: Path, rate_hz: float) -> None:
        self._port, self.dropped = _Port(link), 0
        self._frames: deque[bytes] = deque()
        self._sequence = 0
        self._ready, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="serial-frames", daemon=True)
        self._thread.start()
        self.told = f"serial   {link}, binary frames of {len(FAST_CHANNELS)} channels, {rate_hz:g} samples a second"

    def send(self, step: Step) -> None:
        """Some frames; none waits for a reader."""
        for start in range(0, len(step.fast), FRAME_ROWS):
            rows = step.fast[start : start + FRAME_ROWS]
            if len(self._frames) < WAITING_FRAMES:
                self._frames.append(encode_frame(rows, self._sequence, FLOAT32))
            else:
                self.dropped += 1
            self._sequence += len(rows)
        self._ready.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._ready.wait(LOOK_S)
            self._ready.clear()
            while self._frames and not self._stopping.is_set():
                rest = self._frames.popleft()
                while rest and not self._stopping.is_set():
                    select.select([], [self._port.far], [], LOOK_S)
                    rest = self._port.write(rest)

    def close(self) -> None:
        """Ends the thread and takes the link away."""
        self._stopping.set()
        self._ready.set()
        self._thread.join()
        self._port.close()
