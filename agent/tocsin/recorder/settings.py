"""`recording:` in the agent's settings."""

from pydantic import Field

from tocsin.recorder.limits import RecorderLimits
from tocsin.recordings.segment import Precision
from tocsin.settings import FilePath, Seconds, Settings

_MB = 1 << 20


class RecordingSettings(Settings):
    """What is kept of the samples on this device's disk."""

    folder: FilePath | None = Field(None, description="`recordings` in `state_dir` when left out")
    max_mb: float = Field(1024.0, ge=1, description="of the ring; the oldest segments leave first")
    max_age_s: Seconds = Field(7 * 86400.0, ge=60, description="after which a segment leaves")
    keep_free_mb: float = Field(
        100.0, ge=0, description="left free on the disk, for alarms, whatever recordings it costs"
    )
    precision: Precision = Field("float32", description="of the values")
    before_s: Seconds = Field(60.0, ge=0, description="before an alarm, kept in its snapshot")
    after_s: Seconds = Field(60.0, ge=0, description="after an alarm, kept in its snapshot")
    snapshots_mb: float = Field(256.0, ge=1, description="of all snapshots; the oldest leave first")

    def limits(self) -> RecorderLimits:
        """As the recorder takes them."""
        return RecorderLimits(
            ring_bytes=round(self.max_mb * _MB),
            age_s=self.max_age_s,
            free_bytes=round(self.keep_free_mb * _MB),
            precision=self.precision,
            before_s=self.before_s,
            after_s=self.after_s,
            snapshot_bytes=round(self.snapshots_mb * _MB),
        )
