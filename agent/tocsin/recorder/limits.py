"""How much a recorder may keep."""

from dataclasses import dataclass

from tocsin.recordings.segment import Precision


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """Bounds of ring and snapshots.

    Attributes:
        ring_bytes: that the ring may hold.
        age_s: after which a segment goes.
        free_bytes: left free on the disk, for alarms.
        precision: of the values.
        before_s: of a snapshot, by the samples' times.
        after_s: of a snapshot, by the samples' times.
        snapshot_bytes: that snapshots may hold together.
        segment_s: after which a new segment begins.
    """

    ring_bytes: int = 1 << 30
    age_s: float = 7 * 86400.0
    free_bytes: int = 100 << 20
    precision: Precision = "float32"
    before_s: float = 60.0
    after_s: float = 60.0
    snapshot_bytes: int = 256 << 20
    segment_s: float = 3600.0

    @property
    def segment_bytes(self) -> int:
        """After which a new segment begins: the ring loses a sixteenth at a time."""
        return max(4096, min(self.ring_bytes // 16, 64 << 20))
