"""Recording as the agent has it: whatever becomes of it, alarms go on.

Rules: where nothing is to be recorded, all this does nothing. A folder that cannot be used is told in the log and in
`health`, and tried again after a wait that grows, from a thread of its own: the disk may be slow.
"""

import logging
import threading
from pathlib import Path

from tocsin.delivery.wire import RecordingHealth
from tocsin.errors import TocsinError
from tocsin.recorder import Recorder
from tocsin.recorder.settings import RecordingSettings
from tocsin.records import Channel, SampleBlock

log = logging.getLogger(__name__)

FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 60.0
STOP_S = 10.0  # longest wait for a disk that does not answer


class Recording:
    """The agent's recorder, or its absence.

    Args:
        settings: None = nothing is recorded.
        state_dir: holds `recordings` where the settings name no folder.
    """

    def __init__(self, settings: RecordingSettings | None, state_dir: Path) -> None:
        self._settings, self._folder = settings, state_dir / "recordings"
        self._recorder: Recorder | None = None
        self._failed: str | None = None
        self._stopping = threading.Event()
        self._retry = threading.Thread(target=self._try_again_and_again, name="recording", daemon=True)
        if settings is not None:
            self._folder = settings.folder or self._folder
            self._recorder = self._made(settings)

    def _made(self, settings: RecordingSettings) -> Recorder | None:
        try:
            recorder = Recorder(self._folder, settings.limits())
        except TocsinError as error:
            if str(error) != self._failed:
                log.error("%s; nothing is recorded, alarms go on", error)
            self._failed = str(error)
            return None
        self._failed = None
        return recorder

    def start(self) -> None:
        """Begins to write."""
        if self._recorder is not None:
            self._recorder.start()
        elif self._settings is not None:
            self._retry.start()

    def _try_again_and_again(self) -> None:
        assert self._settings is not None
        delay_s = FIRST_DELAY_S
        while not self._stopping.wait(delay_s):
            recorder = None
            try:
                recorder = self._made(self._settings)
                if recorder is not None:
                    recorder.start()
            except Exception as error:  # of the system; told, and tried again
                log.exception("recordings in %s: they cannot be written; alarms go on", self._folder)
                self._failed = f"{type(error).__name__}: {error}"
                if recorder is not None:
                    recorder.stop()  # lets go of the folder
                    recorder = None
            if recorder is not None:
                log.info("recordings in %s: they can be written now", self._folder)
                self._recorder = recorder
                return
            delay_s = min(2 * delay_s, LONGEST_DELAY_S)

    def stop(self) -> None:
        """Writes all that waits."""
        self._stopping.set()
        if self._retry.is_alive():
            self._retry.join(STOP_S)
        if self._recorder is not None:
            self._recorder.stop()

    def put(self, stream: str, channels: tuple[Channel, ...], block: SampleBlock) -> None:
        """Samples of an asset, `<asset>`, or of one of its groups, `<asset>.<group>`; never waits."""
        if self._recorder is not None:
            self._recorder.put(stream, channels, block)

    def snapshot(self, asset: str, time_s: float) -> str | None:
        """Keeps what is around an alarm; the id of that, or None."""
        return None if self._recorder is None else self._recorder.snapshot(asset, time_s)

    def health(self) -> RecordingHealth | None:
        """For `health`; None where nothing is to be recorded."""
        recorder = self._recorder
        if recorder is None:
            return None if self._settings is None else RecordingHealth(last_error=self._failed)
        found = recorder.statistics
        return RecordingHealth(
            rows_total=found.rows,
            dropped_total=found.dropped,
            ring_mb=round(found.ring_bytes / 2**20, 1),
            segments=found.segments,
            evicted_total=found.evicted,
            snapshots_mb=round(found.snapshot_bytes / 2**20, 1),
            snapshots=found.snapshots,
            snapshots_evicted_total=found.snapshots_evicted,
            last_error=found.last_error,
        )
