"""Recording as the agent has it: whatever becomes of it, alarms go on.

Rules: where nothing is to be recorded, all this does nothing. A folder that cannot be used is told in the log and in
`health`, and tried again at the next start.
"""

import logging
from pathlib import Path

from tocsin.delivery.wire import RecordingHealth
from tocsin.errors import TocsinError
from tocsin.recorder import Recorder
from tocsin.recorder.settings import RecordingSettings
from tocsin.records import Channel, SampleBlock

log = logging.getLogger(__name__)


class Recording:
    """The agent's recorder, or its absence.

    Args:
        settings: None = nothing is recorded.
        state_dir: holds `recordings` where the settings name no folder.
    """

    def __init__(self, settings: RecordingSettings | None, state_dir: Path) -> None:
        self._recorder: Recorder | None = None
        self._failed: str | None = None
        if settings is None:
            return
        try:
            self._recorder = Recorder(settings.folder or state_dir / "recordings", settings.limits())
        except TocsinError as error:
            log.error("%s; nothing is recorded, alarms go on", error)
            self._failed = str(error)

    def start(self) -> None:
        """Begins to write."""
        if self._recorder is not None:
            self._recorder.start()

    def stop(self) -> None:
        """Writes all that waits."""
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
        if self._recorder is None:
            return None if self._failed is None else RecordingHealth(last_error=self._failed)
        found = self._recorder.statistics
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
