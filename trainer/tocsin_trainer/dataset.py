"""Recordings → unbroken stretches on a fixed grid, and their split by time.

Rules: train, calibration and test are three names, so that a reader would see a leak; nothing shuffles; a window
lies in one part only. A recording that is damaged stops the run with its place; `repair` goes on and says what it did.
Files are read once, in blocks, and rows are stored: memory does not grow with the recordings.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tocsin.core.groups import RateGroups
from tocsin.core.resample import Resampler
from tocsin.errors import DataError
from tocsin.recordings import AnyTable, CoarseClock, TableBlock, TableOptions, check_rate, open_table, read_table
from tocsin.records import Bools, Channel, Floats, Ints
from tocsin_trainer.damage import MAX_GAP_ROWS, Damage
from tocsin_trainer.results import Choice
from tocsin_trainer.stretch import RowStore, StoredRows, Stretch

SPECTRUM_S = 0.1  # a window of vibration: several turns of most shafts
VIBRATION_HZ = 400.0  # from here on a window shows more in its spectrum than in its course
MIN_PERIOD_RISE = 0.2  # of the autocorrelation, for a period to count
PERIOD_ROWS = 8192  # a period is looked for in so many
PARTS = (0.70, 0.20, 0.10)  # train, calibration, test
COARSE = 1e-4  # of a step, from which rounded time stamps spoil the median
RATE_ROWS = 1 << 17  # the rate is found by the first so many rows of a recording
READ_ROWS = 1 << 14  # windows that begin within so many rows are read together
WINDOW_BYTES = 1 << 28  # that raw windows may take; what is made of them takes a few times that
FEWEST_WINDOWS = 100
PIECES = 64  # that stand for a recording too long to be scored whole


@dataclass(frozen=True)
class Dataset:
    """Recordings of one asset on one grid.

    Attributes:
        channels: in the order of the columns.
        sample_rate_hz: of the grid.
        max_gap_s: longest stretch over which values were held.
        stretches: in the order of files and time.
        choices: what was found out.
        warnings: what was mended.
        groups: of which the columns are made, where the channels come at several rates.
        sources: the recordings of each group as they were given.
    """

    channels: tuple[Channel, ...]
    sample_rate_hz: float
    max_gap_s: float
    stretches: tuple[Stretch, ...]
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]
    groups: RateGroups | None = None
    sources: tuple["Dataset", ...] = ()

    def __len__(self) -> int:
        """Number of rows."""
        return sum(len(stretch) for stretch in self.stretches)


@dataclass(frozen=True)
class Split:
    """The three parts of recordings of normal running."""

    train: tuple[Stretch, ...]
    calibration: tuple[Stretch, ...]
    test: tuple[Stretch, ...]

    def rows(self) -> dict[str, int]:
        """Rows of each part."""
        return {name: sum(map(len, getattr(self, name))) for name in ("train", "calibration", "test")}


def load(
    files: tuple[Path, ...],
    options: TableOptions,
    channels: tuple[Channel, ...] | None = None,
    sample_rate_hz: float | None = None,
    repair: bool = False,
) -> Dataset:
    """Reads the files and puts them on one grid.

    Args:
        files: CSV tables of the same columns.
        options: how they are written, where that cannot be found out.
        channels: read exactly these (test data for a model); None = all columns of the first file.
        sample_rate_hz: of the grid; None = found from the time stamps.
        repair: mend what would otherwise stop the run, and say so.

    Raises:
        DataError: names file, line and column, and what to do.
    """
    warnings: list[str] = []
    stretches: list[Stretch] = []
    choices: list[Choice] = []
    store: RowStore | None = None
    for index, path in enumerate(files):
        table = open_table(path, options, channels)
        channels = channels or table.channels
        store = store or RowStore(len(channels))
        damage = Damage(path, channels)
        blocks = _watched(table, damage, repair)
        first = list(_up_to(blocks, RATE_ROWS))
        time_s = np.concatenate([part.block.time_s for part in first])
        if sample_rate_hz is None:
            sample_rate_hz, found = _rate(path, table, time_s, first[0].clock)
            choices += found
        check_rate(table, time_s, sample_rate_hz)
        resampler = Resampler(sample_rate_hz, len(channels), MAX_GAP_ROWS / sample_rate_hz)
        stretches += _stored(chain(_emptied(first), blocks), resampler, store, index)
        warnings += _mended(path, resampler, damage)
    assert channels is not None and sample_rate_hz is not None
    if not stretches:
        raise DataError(
            f"{', '.join(path.name for path in files)}: no row in which every channel has a value, or one up to "
            f"{MAX_GAP_ROWS} rows old: leave the empty channel out with --columns"
        )
    gap = MAX_GAP_ROWS / sample_rate_hz
    return Dataset(channels, sample_rate_hz, gap, tuple(stretches), tuple(choices), tuple(warnings))


def _watched(table: AnyTable, damage: Damage, repair: bool) -> Iterator[TableBlock]:
    """The table's blocks; damage stops them."""
    for part in read_table(table):
        damage.look(part)
        if not repair:
            damage.stop_at_times()
        yield replace(part, stamps=[], lines=[])  # nobody asks for them from here on
    if not repair:
        damage.stop()


def _up_to(blocks: Iterator[TableBlock], rows: int) -> Iterator[TableBlock]:
    """The next blocks, until so many rows have come."""
    for part in blocks:
        yield part
        rows -= len(part.block)
        if rows <= 0:
            return


def _emptied(parts: list[TableBlock]) -> Iterator[TableBlock]:
    """The blocks, let go of one by one."""
    while parts:
        yield parts.pop(0)


def _stored(blocks: Iterable[TableBlock], resampler: Resampler, store: RowStore, file: int) -> list[Stretch]:
    """Puts one file's blocks on the grid and into the store."""
    spans: list[tuple[int, int]] = []
    labels: list[Bools] = []
    for part in blocks:
        for rows in resampler.push(part.block):
            start = len(store) if rows.after_gap else spans.pop()[0]
            store.append(rows)
            spans.append((start, len(store)))
        if part.label is not None:
            labels.append(part.label)
    stretches = [Stretch(StoredRows(store, start, stop), None, file) for start, stop in spans]
    if not labels:
        return stretches
    label = np.concatenate(labels)
    return [replace(stretch, label=label[stretch.rows.sample]) for stretch in stretches]


def _rate(path: Path, table: AnyTable, time_s: Floats, clock: CoarseClock | None) -> tuple[float, tuple[Choice, ...]]:
    """Rows a second, as the first rows of the file have them."""
    if table.rate_hz is not None:
        return table.rate_hz, (Choice("sample rate", f"{table.rate_hz:g} Hz", "given"),)
    if clock is not None:
        return 1 / clock.period_s, _evened(clock)
    steps = np.diff(time_s)
    steps = steps[steps > 0]
    if not len(steps):
        raise DataError(f"{path}: only one instant in the time column: expected rows at successive times, or --rate")
    step = float(np.median(steps))
    if np.spacing(time_s[0]) > COARSE * step:  # stamps since 1970 hold a quarter of a microsecond: their errors add up
        step = float(np.mean(steps[np.abs(steps / step - 1) < 0.5]))
    share = float(np.mean(np.abs(steps / step - 1) < 0.5))
    first = f"first {len(steps):,} steps" if len(time_s) >= RATE_ROWS else "steps"
    why = f"the median step is {step:.4g} s; {share:.1%} of the {first} are that"
    return 1 / step, (Choice("sample rate", f"{1 / step:.6g} Hz", why),)


def _evened(clock: CoarseClock) -> tuple[Choice, ...]:
    """What was made of a coarse clock, and what to do where it is none: the stamps alone cannot tell."""
    usual_s = max(1, round(clock.period_s / clock.unit_s)) * clock.unit_s
    why = (
        f"steps other than {usual_s:g} s come regularly, as stamps in units of {clock.unit_s:g} s have them; if "
        f"samples are lost or written twice in a rhythm instead, give --rate {1 / usual_s:g}"
    )
    return (
        Choice("sample rate", f"{1 / clock.period_s:.6g} Hz", f"a row every {clock.period_s:.4g} s, by its stamps"),
        Choice("stamps", "made even", why),
    )


def _mended(path: Path, resampler: Resampler, damage: Damage) -> Iterator[str]:
    for count, what in (
        (resampler.backwards, "times going back: a new stretch starts at each"),
        (resampler.repeated, "rows with a time that was there before: the first is kept"),
        (resampler.gaps, f"gaps longer than {resampler.limit_rows} rows: nothing is invented across them"),
        (resampler.held, "rows in which a missing value repeats the one before"),
    ):
        if count:
            yield f"{path.name}: {count} {what}"
    for channel in damage.constant():
        yield f"{path.name}: channel {channel.name} is constant: any change of it will count as unusual"


def choose_window(dataset: Dataset, length: int | None, hop: int | None) -> tuple[int, int, tuple[Choice, ...]]:
    """Window length and hop, in rows, where the user did not say.

    The length is the period of the machine's cycle where its autocorrelation shows one, else 48 rows; at most a twelfth
    of the recording, so that there are windows enough to learn from. Vibration gets about a tenth of a second.

    Raises:
        DataError: the recording is too short for the window that was asked for.
    """
    choices = []
    rows = max(len(stretch) for stretch in dataset.stretches)
    most = max(8, len(dataset) // 12)
    if length is None:
        period = _period(max(dataset.stretches, key=len).read(0, PERIOD_ROWS).values)
        if dataset.sample_rate_hz >= VIBRATION_HZ:
            length = min(2 ** round(np.log2(SPECTRUM_S * dataset.sample_rate_hz)), 4096, 2 ** int(np.log2(rows / 8)))
            length = max(8, int(length))  # of bursts too short for that the rows are counted below
            why = f"vibration is looked at by its spectrum: about {SPECTRUM_S:g} s, a power of two"
        elif period is not None and 8 <= period <= min(most, 128):
            length, why = period, "the signals repeat themselves at this period (autocorrelation)"
        else:
            length, why = min(48, most), "no period shows between 8 and 128 rows; short windows learn from little data"
        choices.append(Choice("window", f"{length} rows ({length / dataset.sample_rate_hz:.4g} s)", why))
    if hop is None:
        hop = max(1, min(round(dataset.sample_rate_hz), length // 2))
        if hop == length // 2:
            why = "half a window: each sample is looked at twice"
        else:
            why = "a score a second, or one a row where rows are slower"
        choices.append(Choice("hop", f"{hop} rows ({hop / dataset.sample_rate_hz:.4g} s)", why))
    if rows < length or len(dataset) < 4 * max(length, hop):
        raise DataError(
            f"{len(dataset)} rows (longest stretch {rows}) are too few for windows of {length} rows: "
            "record for longer, or choose a shorter --window"
        )
    return length, hop, tuple(choices)


def _period(values: Floats) -> int | None:
    """Rows of the strongest period of the channels together, or None where none stands out."""
    n = len(values)
    signal = values - values.mean(axis=0)
    scale = signal.std(axis=0)
    signal = signal[:, scale > 0] / scale[scale > 0]
    if n < 64 or not signal.shape[1]:
        return None
    power = np.abs(np.fft.rfft(signal, 2 * n, axis=0)) ** 2
    correlation = np.fft.irfft(power, axis=0)[: n // 3] / (n - np.arange(n // 3))[:, None]
    mean = correlation.mean(axis=1)
    rise = mean - np.minimum.accumulate(mean)  # above the lowest before: a slow drift lifts all of the curve
    peaks = np.flatnonzero((rise[1:-1] > rise[:-2]) & (rise[1:-1] >= rise[2:])) + 1
    if not len(peaks) or rise[peaks].max() < MIN_PERIOD_RISE:
        return None
    return int(peaks[rise[peaks] >= 0.8 * rise[peaks].max()][0])


def split(dataset: Dataset, length: int, hop: int) -> Split:
    """Train, calibration and test, in this order of time, in each file where it is long enough, else over all.

    Cuts lie at multiples of the hop from a stretch's start, so that windows in step with a machine's cycle stay so.
    """
    files = sorted({stretch.file for stretch in dataset.stretches})
    groups = [[s for s in dataset.stretches if s.file == index] for index in files]
    if any(sum(map(len, group)) * PARTS[2] < 2 * max(length, hop) for group in groups):
        groups = [list(dataset.stretches)]
    parts: tuple[list[Stretch], ...] = ([], [], [])
    for group in groups:
        total = sum(map(len, group))
        edges = np.round(np.concatenate(([0], np.cumsum(PARTS))) * total, 6)
        done = 0
        for stretch in group:
            at = [min(len(stretch), max(0, int((edge - done) // hop) * hop)) for edge in edges[:3]] + [len(stretch)]
            for part, (start, stop) in zip(parts, pairwise(at), strict=True):
                if stop - start >= length:
                    part.append(stretch.part(start, stop))
            done += len(stretch)
    chosen = Split(*(tuple(part) for part in parts))
    for name, rows in chosen.rows().items():
        if not rows:
            raise DataError(
                f"no unbroken stretch of {length} rows is left for the {name} part of {len(dataset)} rows: "
                "record for longer, or choose a shorter --window"
            )
    return chosen


def windows(stretches: tuple[Stretch, ...], length: int, stride: int) -> Floats:
    """(N, T, C) windows of all stretches, one every `stride` rows."""
    return _windows(stretches, length, [np.arange(0, len(s) - length + 1, stride) for s in stretches])


def most_windows(length: int, channels: int, most: int) -> int:
    """At most `most`, and only as many (T, C) windows as a quarter of a gigabyte holds; a hundred at the least."""
    return min(most, max(FEWEST_WINDOWS, WINDOW_BYTES // (8 * length * channels)))


def some_windows(stretches: tuple[Stretch, ...], length: int, stride: int, most: int, seed: int) -> Floats:
    """(N, T, C) at most `most` of the windows that `windows` gives, drawn evenly by seed, in order of time."""
    counts = [max(0, (len(s) - length) // stride + 1) for s in stretches]
    first = np.cumsum([0, *counts])
    drawn = np.sort(np.random.default_rng(seed).permutation(first[-1])[:most])
    starts = [(drawn[(drawn >= a) & (drawn < b)] - a) * stride for a, b in pairwise(first)]
    return _windows(stretches, length, starts)


def _windows(stretches: tuple[Stretch, ...], length: int, starts: list[Ints]) -> Floats:
    """(N, T, C) the windows that begin at these rows of each stretch, ascending; no other rows are kept."""
    channels = stretches[0].read(0, 1).values.shape[1]
    out = np.empty((sum(map(len, starts)), length, channels))
    done = 0
    for stretch, own in zip(stretches, starts, strict=True):
        apart = (np.diff(own) > length) | (np.diff(own // READ_ROWS) > 0)  # else one read serves both
        for group in np.split(own, np.flatnonzero(apart) + 1):
            if len(group):
                values = stretch.read(int(group[0]), int(group[-1]) + length).values
                views = sliding_window_view(values, length, axis=0).transpose(0, 2, 1)
                out[done : done + len(group)] = views[group - group[0]]
                done += len(group)
    return out


def pieces(stretches: tuple[Stretch, ...], most: int, length: int) -> tuple[Stretch, ...]:
    """At most about `most` rows of long recordings, in unbroken pieces that lie evenly over them.

    What is short enough is given as it is. Scores of the pieces bound the time that a huge recording takes.

    Args:
        stretches: in order.
        most: rows.
        length: rows of the shortest piece that is of use.
    """
    total = sum(map(len, stretches))
    if total <= most:
        return stretches
    size = max(length, most // PIECES)
    step = max(size, -(-total * size // most))
    cut = (stretch.part(start, start + size) for stretch in stretches for start in range(0, len(stretch), step))
    return tuple(piece for piece in cut if len(piece) >= length)


def without_labels(dataset: Dataset) -> Dataset:
    """The same rows, labels forgotten."""
    return replace(dataset, stretches=tuple(replace(stretch, label=None) for stretch in dataset.stretches))
