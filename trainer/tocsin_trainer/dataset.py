"""Recordings → unbroken stretches on a fixed grid, and their split by time.

Rules: train, calibration and test are three names, so that a reader would see a leak; nothing shuffles; a window
lies in one part only. A recording that is damaged stops the run with its place; `repair` goes on and says what it did.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tocsin.core.resample import Resampler
from tocsin.errors import DataError
from tocsin.recordings import Table, TableBlock, TableOptions, check_rate, open_table, read_table
from tocsin.records import Bools, Channel, Floats, Rows, SampleBlock
from tocsin_trainer.results import Choice

MAX_GAP_ROWS = 5
MIN_ROWS = 64
SPECTRUM_S = 0.1  # a window of vibration: several turns of most shafts
VIBRATION_HZ = 400.0  # from here on a window shows more in its spectrum than in its course
MIN_PERIOD_RISE = 0.2  # of the autocorrelation, for a period to count
PARTS = (0.70, 0.20, 0.10)  # train, calibration, test


@dataclass(frozen=True)
class Stretch:
    """Rows without a gap.

    Attributes:
        rows: on the grid.
        label: (m,) true where anomalous, or None.
        file: index of the file it came from.
    """

    rows: Rows
    label: Bools | None
    file: int

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def part(self, start: int, stop: int) -> "Stretch":
        """Rows [start, stop)."""
        rows, cut = self.rows, slice(start, stop)
        return Stretch(
            Rows(rows.time_s[cut], rows.values[cut], rows.sample[cut], True),
            None if self.label is None else self.label[cut],
            self.file,
        )


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
    """

    channels: tuple[Channel, ...]
    sample_rate_hz: float
    max_gap_s: float
    stretches: tuple[Stretch, ...]
    choices: tuple[Choice, ...]
    warnings: tuple[str, ...]

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
    for index, path in enumerate(files):
        table = open_table(path, options, channels)
        channels = channels or table.channels
        samples, stamps, lines, label = _read(table)
        if not repair:
            _stop_at_damage(path, samples, stamps, lines, channels)
        if sample_rate_hz is None:
            sample_rate_hz, choice = _rate(path, table, samples.time_s)
            choices.append(choice)
        check_rate(table, samples.time_s, sample_rate_hz)
        resampler = Resampler(sample_rate_hz, len(channels), MAX_GAP_ROWS / sample_rate_hz)
        found = [Stretch(r, None if label is None else label[r.sample], index) for r in resampler.push(samples)]
        stretches += found
        warnings += _mended(path, resampler, samples, channels)
    assert channels is not None and sample_rate_hz is not None
    if not stretches:
        raise DataError(
            f"{', '.join(path.name for path in files)}: no row in which every channel has a value, or one up to "
            f"{MAX_GAP_ROWS} rows old: leave the empty channel out with --columns"
        )
    gap = MAX_GAP_ROWS / sample_rate_hz
    return Dataset(channels, sample_rate_hz, gap, tuple(stretches), tuple(choices), tuple(warnings))


def _read(table: Table) -> tuple[SampleBlock, list[str], list[int], Bools | None]:
    parts: list[TableBlock] = list(read_table(table))
    labels = [part.label for part in parts if part.label is not None]
    return (
        SampleBlock(np.concatenate([p.block.time_s for p in parts]), np.concatenate([p.block.values for p in parts])),
        [stamp for part in parts for stamp in part.stamps],
        [line for part in parts for line in part.lines],
        np.concatenate(labels) if labels else None,
    )


def _rate(path: Path, table: Table, time_s: Floats) -> tuple[float, Choice]:
    if table.rate_hz is not None:
        return table.rate_hz, Choice("sample rate", f"{table.rate_hz:g} Hz", "given")
    steps = np.diff(time_s)
    steps = steps[steps > 0]
    if not len(steps):
        raise DataError(f"{path}: only one instant in the time column: expected rows at successive times, or --rate")
    step = float(np.median(steps))
    share = float(np.mean(np.abs(steps / step - 1) < 0.5))
    return 1 / step, Choice(
        "sample rate", f"{1 / step:.6g} Hz", f"the median step is {step:g} s; {share:.1%} of the steps are that"
    )


def _stop_at_damage(
    path: Path, samples: SampleBlock, stamps: list[str], lines: list[int], channels: tuple[Channel, ...]
) -> None:
    """Raises DataError at the first thing that would spoil a model."""
    mend = "or let --repair"
    if len(samples) < MIN_ROWS:
        plural = "s" * (len(samples) != 1)
        raise DataError(f"{path}: only {len(samples)} row{plural}: a model needs {MIN_ROWS} at the very least")
    step = np.diff(samples.time_s)
    if (step < 0).any():
        i = int(np.argmax(step < 0)) + 1
        raise DataError(
            f"{path}: line {lines[i]}: time goes back from {stamps[i - 1]} to {stamps[i]}: sort or cut the file there, "
            f"{mend} start a new stretch there"
        )
    if (step == 0).any():
        i = int(np.argmax(step == 0)) + 1
        raise DataError(
            f"{path}: line {lines[i]}: the time {stamps[i]} comes twice: remove the repeated rows, give --rate "
            f"if the stamps are too coarse, {mend} keep the first of them"
        )
    for c, channel in enumerate(channels):
        column = samples.values[:, c]
        missing = np.isnan(column)
        start, length = _longest_run(missing)
        if length == len(column):
            raise DataError(f"{path}: channel {channel.name!r} has no number at all: leave it out with --columns")
        if length > MAX_GAP_ROWS:
            raise DataError(
                f"{path}: line {lines[start]}: channel {channel.name!r} has no value in {length} rows in a row "
                f"(up to {MAX_GAP_ROWS} are filled): cut the file there, leave the channel out with --columns, "
                f"{mend} train around it"
            )
        if np.nanmin(column) == np.nanmax(column):
            raise DataError(
                f"{path}: channel {channel.name!r} is constant ({np.nanmin(column):g} in all rows): is the sensor "
                f"alive? Leave it out with --columns, {mend} keep it (any change of it will count)"
            )


def _mended(path: Path, resampler: Resampler, samples: SampleBlock, channels: tuple[Channel, ...]) -> Iterator[str]:
    for count, what in (
        (resampler.backwards, "times going back: a new stretch starts at each"),
        (resampler.repeated, "rows with a time that was there before: the first is kept"),
        (resampler.gaps, f"gaps longer than {resampler.limit_rows} rows: nothing is invented across them"),
        (resampler.held, "rows in which a missing value repeats the one before"),
    ):
        if count:
            yield f"{path.name}: {count} {what}"
    for channel, constant in zip(channels, np.ptp(np.nan_to_num(samples.values), axis=0) == 0, strict=True):
        if constant:
            yield f"{path.name}: channel {channel.name} is constant: any change of it will count as unusual"


def _longest_run(flags: Bools) -> tuple[int, int]:
    """(start, length) of the longest run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    if not len(edges):
        return 0, 0
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    longest = int(np.argmax(lengths))
    return int(starts[longest]), int(lengths[longest])


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
        period = _period(max(dataset.stretches, key=len).rows.values)
        if dataset.sample_rate_hz >= VIBRATION_HZ:
            length = min(2 ** round(np.log2(SPECTRUM_S * dataset.sample_rate_hz)), 4096, 2 ** int(np.log2(rows / 16)))
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
    n = min(len(values), 8192)
    signal = values[:n] - values[:n].mean(axis=0)
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
    views = [sliding_window_view(s.rows.values, length, axis=0)[::stride].transpose(0, 2, 1) for s in stretches]
    return np.concatenate(views)


def some_windows(stretches: tuple[Stretch, ...], length: int, stride: int, most: int, seed: int) -> Floats:
    """(N, T, C) at most `most` of the windows that `windows` gives, drawn evenly by seed, in order of time."""
    views = [sliding_window_view(s.rows.values, length, axis=0)[::stride].transpose(0, 2, 1) for s in stretches]
    first = np.cumsum([0, *map(len, views)])
    drawn = np.sort(np.random.default_rng(seed).permutation(first[-1])[:most])
    parts = [view[drawn[(drawn >= a) & (drawn < b)] - a] for view, (a, b) in zip(views, pairwise(first), strict=True)]
    return np.concatenate(parts)


def without_labels(dataset: Dataset) -> Dataset:
    """The same rows, labels forgotten."""
    return replace(dataset, stretches=tuple(replace(stretch, label=None) for stretch in dataset.stretches))
