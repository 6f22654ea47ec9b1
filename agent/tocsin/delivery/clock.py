"""How far the wall clock can be trusted."""

import ctypes
from typing import Literal

TimeQuality = Literal["ntp", "floor", "unsynced"]

_TIME_ERROR = 5
_TIMEX_BYTES = 512  # struct timex has 208; modes = 0 in its first word only asks


def time_quality() -> TimeQuality:
    """`ntp` when the kernel says that something disciplines its clock, else `unsynced`."""
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (AttributeError, OSError):
        return "unsynced"
    return "ntp" if 0 <= state < _TIME_ERROR else "unsynced"
