"""Operating modes: which of a machine's ways of running a window shows, from that window alone.

| method    | mode of a window                                                                    | unknown         |
|-----------|-------------------------------------------------------------------------------------|-----------------|
| centroids | the nearest centroid to its channels' means, standardised                           | never           |
| ranges    | the range, ends included, that the mean of one channel (a set-point) lies in        | in none of them |

Rules: constants are frozen in the bundle; nothing is remembered from window to window, so that a stream says what a
recording says. A window of an unknown mode gets the largest limit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tocsin.errors import BundleError
from tocsin.records import Floats, Ints

UNKNOWN = -1
MAX_MODES = 64


@dataclass(frozen=True)
class Centroids:
    """Modes that were found by clustering.

    Attributes:
        center: (C,) of the windows' means, engineering units.
        scale: (C,) their deviation, > 0.
        centroids: (M, C) standardised.
    """

    center: Floats
    scale: Floats
    centroids: Floats

    def __len__(self) -> int:
        """Number of modes, M."""
        return len(self.centroids)

    def of(self, windows: Floats) -> Ints:
        """(K,) the mode of each (T, C) window of (K, T, C)."""
        at = (windows.mean(axis=1) - self.center) / self.scale
        # |a − c|² without |a|², which is the same for all: nothing of size K × M × C
        far = (self.centroids**2).sum(axis=1) - 2.0 * at @ self.centroids.T
        nearest: Ints = far.argmin(axis=1)
        return nearest

    def to_json(self, _: tuple[str, ...]) -> dict[str, Any]:
        """The manifest's form."""
        return {
            "method": "centroids",
            "center": self.center.tolist(),
            "scale": self.scale.tolist(),
            "centroids": self.centroids.tolist(),
        }


@dataclass(frozen=True)
class Ranges:
    """Modes that one channel tells.

    Attributes:
        channel: its column.
        low: (M,) ascending, engineering units.
        high: (M,) ≥ low, each below the next low.
    """

    channel: int
    low: Floats
    high: Floats

    def __len__(self) -> int:
        """Number of modes, M."""
        return len(self.low)

    def of(self, windows: Floats) -> Ints:
        """(K,) the mode of each (T, C) window of (K, T, C), UNKNOWN where no range holds its mean."""
        value = windows[:, :, self.channel].mean(axis=1)
        found = np.searchsorted(self.low, value, side="right") - 1
        inside: Ints = np.where((found >= 0) & (value <= self.high[found]), found, UNKNOWN)
        return inside

    def to_json(self, channels: tuple[str, ...]) -> dict[str, Any]:
        """The manifest's form."""
        ranges = np.stack((self.low, self.high), axis=1).tolist()
        return {"method": "ranges", "channel": channels[self.channel], "ranges": ranges}


Modes = Centroids | Ranges


def modes_from_json(form: dict[str, Any], channels: tuple[str, ...]) -> Modes:
    """From the manifest's form.

    Raises:
        BundleError: an unknown method, or constants that cannot be.
    """
    try:
        method = form["method"]
        if method == "centroids":
            center, scale, centroids = (np.asarray(form[key], np.float64) for key in ("center", "scale", "centroids"))
            flat = centroids.ndim == 2 and center.shape == scale.shape == centroids.shape[1:] == (len(channels),)
            if flat and _sane(len(centroids), center, scale, centroids) and (scale > 0).all():
                return Centroids(center, scale, centroids)
        elif method == "ranges":
            ranges = np.asarray(form["ranges"], np.float64)
            flat = ranges.ndim == 2 and ranges.shape[1] == 2
            if flat and _sane(len(ranges), ranges) and (ranges[:, 0] <= ranges[:, 1]).all():
                low, high = np.ascontiguousarray(ranges[:, 0]), np.ascontiguousarray(ranges[:, 1])
                if (high[:-1] < low[1:]).all():
                    return Ranges(channels.index(form["channel"]), low, high)
        else:
            raise BundleError(f"modes are to be told by {method!r}, this agent knows centroids, ranges: update it")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BundleError(f"the manifest's modes are damaged at {error}") from error
    raise BundleError(
        f"the manifest's modes are damaged: expected 1 to {MAX_MODES} modes, finite numbers for {len(channels)} "
        "channels, scales above 0, and ranges in order that do not overlap"
    )


def _sane(count: int, *constants: Floats) -> bool:
    return 1 <= count <= MAX_MODES and all(bool(np.isfinite(each).all()) for each in constants)
