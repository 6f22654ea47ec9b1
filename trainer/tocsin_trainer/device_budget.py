"""What a device has room and time for: `--max-kib` and `--max-ms`.

Rules: the size is that of the converted models' files, the time that of one window on the machine that measures, which
is not the device: leave room for that.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        name: of the family, or of the ensemble's.
        bytes: of the converted files.
        latency_us: of one window, on this machine.
    """

    name: str
    bytes: int
    latency_us: float

    def __str__(self) -> str:
        """As errors and reports name it."""
        return f"{self.bytes / 1024:.3g} KiB and {self.latency_us / 1000:.3g} ms a window"


@dataclass(frozen=True)
class DeviceBudget:
    """Bounds; None = none.

    Attributes:
        max_kib: of the converted files together.
        max_ms: of one window, as this machine takes it.
    """

    max_kib: float | None = None
    max_ms: float | None = None

    def over(self, cost: Cost) -> str:
        """Why it does not fit; empty where it does.

        >>> DeviceBudget(max_kib=8).over(Cost("conv_ae", 15360, 40.0))
        'over budget: 15 KiB, at most 8 are allowed'
        """
        found = []
        if self.max_kib is not None and cost.bytes > 1024 * self.max_kib:
            found.append(f"{cost.bytes / 1024:.3g} KiB, at most {self.max_kib:g} are allowed")
        if self.max_ms is not None and cost.latency_us > 1000 * self.max_ms:
            found.append(f"{cost.latency_us / 1000:.3g} ms a window, at most {self.max_ms:g} are allowed")
        return f"over budget: {' and '.join(found)}" if found else ""

    def none_fits(self, costs: Iterable[Cost]) -> str:
        """What to say where all are over budget; names the one that comes nearest."""
        nearest = min(costs, key=self._excess)
        flags = {"--max-kib": self.max_kib, "--max-ms": self.max_ms}
        asked = " ".join(f"{flag} {value:g}" for flag, value in flags.items() if value is not None)
        return (
            f"no model fits {asked}: nearest comes {nearest.name} with {nearest}; allow more, choose a shorter "
            "--window, or leave channels out with --columns"
        )

    def _excess(self, cost: Cost) -> float:
        """How many times over the tighter bound it is."""
        sizes = cost.bytes / 1024 / self.max_kib if self.max_kib else 0.0
        times = cost.latency_us / 1000 / self.max_ms if self.max_ms else 0.0
        return max(sizes, times)
