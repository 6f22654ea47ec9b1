"""A source in a thread of its own: opened, read, and opened again when it is lost.

Rules: whatever a source raises, its thread goes on: it is opened again after a wait that grows, with jitter. `startup`
of the settings counts until it gave a sample. What went wrong is logged once, counted always, and kept for `health`.
"""

import logging
import random
import threading
import time
from typing import Literal

from tocsin.errors import ConfigError, DataError, SourceError, TocsinError
from tocsin.records import SampleBlock
from tocsin.sources.metered import MeteredSource

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 0.5
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 4.0  # a sensor that is plugged in again is read within five seconds
CALM_S = 60.0  # after so long without a failure the next wait is short again


class Start:
    """What becomes of a source that is not there, or gives what cannot be taken, until its first sample.

    Args:
        name: for the log.
        source: as it is read.
        startup: of its settings.
    """

    def __init__(self, name: str, source: MeteredSource, startup: Literal["retry", "error", "ignore"]) -> None:
        self._name, self._source, self._startup = name, source, startup
        self._reason: TocsinError | None = None

    @property
    def refused(self) -> TocsinError | None:
        """Why it cannot be used as it is configured; None once it can, and where it may be missing."""
        return None if self._source.samples else self._reason

    @property
    def fatal(self) -> bool:
        """All has to end for that, whatever else runs."""
        return self._startup == "error" and self.refused is not None

    def gives_up(self, error: TocsinError) -> bool:
        """Whether it is not tried again after a failure."""
        wrong = isinstance(error, DataError) and not self._source.samples  # a channel or a unit
        absent = isinstance(error, SourceError) and not self._source.opened
        self._reason = ConfigError(str(error)) if wrong else error if absent and self._startup == "error" else None
        if self._startup == "retry" or not (wrong or absent):
            return False
        if self._startup == "ignore":
            self._reason = None
        log.error("%s: given up at the start, as startup: %s says", self._name, self._startup)
        return True


class SourceReader:
    """Reads a source until stopped, or until its recording ends; who derives from it says what becomes of the samples.

    Args:
        name: for the log, and of the thread.
        source: not opened yet; closed at the end.
        startup: of its settings.

    Attributes:
        name: as given.
        source: with its meters.
        failing: it could not be opened or read, and no sample came since.
        errors: failures since the start.
        last_error: of them; None while it is well.
        last_sample_s: monotonic time of the newest sample.
        ended: nothing will come any more.
        broken_off: its recording ended in damage.
        begun: how it fared at its start.
    """

    def __init__(self, name: str, source: MeteredSource, startup: Literal["retry", "error", "ignore"]) -> None:
        self.name, self.source = name, source
        self.failing = self.ended = self.broken_off = False
        self.begun = Start(name, source, startup)
        self.errors = 0
        self.last_error: str | None = None
        self.last_sample_s: float | None = None
        self._jitter = random.Random(name)  # noqa: S311 - jitter
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"source-{name}", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Lets the thread end; at once."""
        self._stopping.set()

    def stop(self) -> None:
        """Closes the source and ends the thread."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join(10 * READ_TIMEOUT_S)

    def _opened(self) -> None:
        """The source is open, and its channels are known."""

    def _take(self, block: SampleBlock) -> None:
        """Samples came."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self._read_again_and_again()
        finally:
            self.ended = True

    def _read_again_and_again(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            begin = time.monotonic()
            try:
                self._read()
                break
            except TocsinError as error:
                self._note(str(error))
                if self.source.ended:
                    self.broken_off = True
                    break
                if self.begun.gives_up(error):
                    break
            except Exception as error:  # a driver's; the other sources go on
                log.exception("%s: its source failed", self.name)
                self._note(f"{type(error).__name__}: {error}")
            if time.monotonic() - begin > CALM_S:
                delay_s = FIRST_DELAY_S
            self._close()
            self._stopping.wait(delay_s * self._jitter.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)
        self._close()

    def _read(self) -> None:
        """Reads until told to stop, the recording ends, or the link is lost."""
        source = self.source
        source.open()
        self._opened()
        while not self._stopping.is_set():
            block = source.read(READ_TIMEOUT_S)
            if len(block):
                if self.failing:
                    log.info("%s: samples flow", self.name)
                    self.failing, self.last_error = False, None
                self.last_sample_s = time.monotonic()
                self._take(block)
            if source.ended:
                log.info("%s: the recording has ended", self.name)
                return

    def _note(self, what: str) -> None:
        """Logs a failure once, counts it always."""
        if what != self.last_error:
            log.error("%s: %s", self.name, what)
        self.errors += 1
        self.last_error, self.failing = what, True

    def _close(self) -> None:
        try:
            self.source.close()
        except Exception:  # a driver's; the thread goes on
            log.exception("%s: its source cannot be closed", self.name)
