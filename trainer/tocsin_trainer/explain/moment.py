"""Which window of a recording is meant: by time, by row, or the worst."""

import re
from dataclasses import dataclass

import numpy as np

from tocsin.core.bundle import Bundle
from tocsin.core.scoring import Smoother
from tocsin.core.windowing import SlidingWindow
from tocsin.errors import DataError
from tocsin.records import Floats, Ints
from tocsin_trainer.recorded import Recorded, clock, instant

WORST = "worst"
CALENDAR_S = 1e8  # of an epoch; below it, seconds from the start of the recording


@dataclass(frozen=True)
class Moment:
    """One window of a recording.

    Attributes:
        window: (T, C) in engineering units.
        time_s: (T,) of its rows.
        row: index of the last row in the file, from 0.
        smoothed: score / threshold after smoothing: what the alarm looks at.
        late_s: how long before the time that was asked for it ends.
    """

    window: Floats
    time_s: Floats
    row: int
    smoothed: float
    late_s: float


@dataclass(frozen=True)
class _Scored:
    """Where windows end, and how they score."""

    stretch: Ints
    end: Ints  # row within the stretch
    time_s: Floats
    row: Ints
    bare: Floats
    smoothed: Floats


def find_moment(bundle: Bundle, recorded: Recorded, at: str) -> Moment:
    """The window that ends at, or last before, a moment.

    Args:
        bundle: whose windows they are.
        recorded: a file.
        at: `worst` (highest score by itself), `row:N` (of the file, from 0), or a time, in any form that a
            table may have; a small number is seconds from the start of the recording.

    Raises:
        DataError: there is no such time, or no window before it.
    """
    scored = _score(bundle, recorded)
    wanted_s: float | None = None
    if at == WORST:
        k = int(np.argmax(scored.bare))
    elif match := re.fullmatch(r"row:([0-9]{1,18})", at):
        wanted = int(match[1])
        last = int(max(stretch.rows.sample.max() for stretch in recorded.stretches))
        if not scored.row[0] <= wanted <= last:
            raise DataError(f"--at {at}: expected a row from {scored.row[0]} (the first window's last) to {last}")
        k = int(np.flatnonzero(scored.row <= wanted)[-1])
    else:
        begin_s, last_s = recorded.span_s
        runs = f"{recorded.path.name} runs from {clock(begin_s)} to {clock(last_s)}"
        try:
            wanted_s = instant(at)
        except ValueError as error:
            raise DataError(f"--at: {error}; or `worst`, or `row:N`; {runs}") from error
        if 0 <= wanted_s < CALENDAR_S < begin_s:
            wanted_s += begin_s  # nobody means 1970
        first_s = float(scored.time_s.min())
        if not first_s <= wanted_s <= last_s:
            raise DataError(
                f"--at {at}: expected a time from {clock(first_s)}, when the first window ends, to {clock(last_s)}: "
                f"{runs}"
            )
        before = np.where(scored.time_s <= wanted_s, scored.time_s, -np.inf)
        k = len(before) - 1 - int(np.argmax(before[::-1]))
    end = int(scored.end[k]) + 1
    rows = recorded.stretches[scored.stretch[k]].read(end - bundle.manifest.length, end)
    late = 0.0 if wanted_s is None else wanted_s - float(scored.time_s[k])
    ratio = float(scored.smoothed[k])
    return Moment(rows.values, rows.time_s, int(scored.row[k]), ratio, late)


def _score(bundle: Bundle, recorded: Recorded) -> _Scored:
    manifest, scorer = bundle.manifest, bundle.scorer()
    smoother = Smoother(manifest.smoothing, manifest.threshold)
    sliding = SlidingWindow(manifest.length, manifest.hop, len(manifest.columns))
    parts = []
    for index, stretch in enumerate(recorded.stretches):
        smoother.reset()
        done = 0
        for block in stretch.blocks():
            windows = sliding.push(block)
            scores = scorer.score(windows.values)
            end = (done + np.arange(len(windows))) * manifest.hop + manifest.length - 1
            done += len(windows)
            bare, smoothed = scores.ratio.copy(), smoother.update(scores).ratio
            parts.append(_Scored(np.full(len(end), index), end, windows.end_s, windows.sample, bare, smoothed))
    return _Scored(*(np.concatenate([getattr(part, name) for part in parts]) for name in _Scored.__annotations__))
