"""How good each channel of a recording is: a grade from A to D with the reasons, in one pass over blocks of rows.

| grade | means                                   | what to do               |
|-------|-----------------------------------------|--------------------------|
| A     | nothing was found                       | nothing                  |
| B     | usable, and something to know           | look at it once          |
| C     | doubtful                                | mend it, or leave it out |
| D     | tells nothing                           | leave it out             |

| finding   | measured                                                                 | B from | C from | D from |
|-----------|--------------------------------------------------------------------------|--------|--------|--------|
| constant  | the same value in all rows                                               |        |        | always |
| missing   | part of the rows that have no value of their own                         | .5 %   | 5 %    | 50 %   |
| stuck     | part of the rows in runs of one value, far longer than its usual runs    | once   | 5 %    |        |
| saturated | part of the rows that lie exactly at the highest or the lowest value     | .1 %   | 2 %    |        |
| coarse    | distinct values; C only where it also hops between them                  | ≤ 32   | ≤ 8    |        |
| spikes    | part of the rows that leave the signal for one row and come back (over   | .01 %  | .2 %   |        |
|           | 2 % of the rows they are a course of its own, and B)                     |        |        |        |
| drift     | shift of the mean from the first to the last quarter, in their deviations | 2     | 6      |        |
| noise     | white noise (from second differences) as part of the spread              | .9     |        |        |
| duplicate | correlation with an earlier channel                                      |        | .999   |        |

Rules: a channel's grade is its worst finding; limits are constants here and the same for every recording; memory does
not grow with the rows. At vibration rates (400 Hz and more) noise and spikes are the signal and are not graded.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tocsin.alarms.normal import NormalCourse
from tocsin.records import Channel, Floats
from tocsin_trainer.dataset import VIBRATION_HZ, Dataset
from tocsin_trainer.markup import part
from tocsin_trainer.results import ChannelGrade, DataQuality, Finding

BLOCK = 65_536  # rows looked at together
LEVELS = 32  # distinct values up to which a channel counts as coarse
FEW_LEVELS = 8
HOPS = 0.1  # part of the rows at which a switch's state may change
STUCK_ROWS, STUCK_RATIO = 20, 10  # a run is stuck from so many rows, and so many times the usual run
PILE_ROWS, PILE_RATIO = 10, 5  # rows at the end of the range, and against the values next to it
SPIKE_NOISE, SPIKE_SPREAD = 8.0, 3.0
OFTEN = 0.02  # of the rows: spikes that often belong to the machine's own course
DUPLICATE = 0.999
CHUNKS = 256  # means kept for the drift; neighbours are merged when there are more
JITTER = 0.1  # of a step, 90th percentile, from which it is told
_LIMITS: dict[str, tuple[float, ...]] = {  # B, C, D from
    "missing": (0.005, 0.05, 0.5),
    "stuck": (1e-12, 0.05),
    "saturated": (0.001, 0.02),
    "spikes": (1e-4, 2e-3),
    "drift": (2.0, 6.0),
    "noise": (0.9,),
}


def quality(dataset: Dataset) -> DataQuality:
    """Grades of the channels, and what ails the recording as a whole; rows are read once, in pieces.

    Channels of several rates are graded group by group, as they were recorded; rows are then those of the grid.
    """
    if dataset.sources:
        each = [quality(source) for source in dataset.sources]
        grades = tuple(grade for one in each for grade in one.channels)
        findings = tuple(finding for one in each for finding in one.findings)
        jitter = max(one.jitter for one in each)
        return DataQuality(grades, len(dataset), len(dataset.stretches), jitter, findings, _sentence(grades, findings))
    grader, clock = Grader(dataset.channels, dataset.sample_rate_hz), _Clock(dataset.sample_rate_hz)
    course = NormalCourse(tuple(channel.name for channel in dataset.channels), dataset.sample_rate_hz)
    for stretch in dataset.stretches:
        clock.restart()
        course.restart()
        for rows in stretch.blocks():
            for start in range(0, len(rows), BLOCK):
                cut = slice(start, start + BLOCK)
                clock.push(rows.time_s[cut])
                grader.push(rows.values[cut])
                course.push(rows.time_s[cut], rows.values[cut])
    grades, findings = grader.grades(), clock.findings()
    sentence = _sentence(grades, findings)
    shown = grades, grader.rows, len(dataset.stretches), clock.jitter(), findings, sentence
    return DataQuality(*shown, normal=course.normal())


def grade(channels: tuple[Channel, ...], blocks: Iterable[Floats], rate_hz: float = 1.0) -> tuple[ChannelGrade, ...]:
    """A grade for each channel of (m, C) blocks; NaN is a missing value."""
    grader = Grader(channels, rate_hz)
    for block in blocks:
        grader.push(block)
    return grader.grades()


class Grader:
    """Takes (m, C) blocks in the order of time and grades the channels at the end."""

    def __init__(self, channels: tuple[Channel, ...], rate_hz: float) -> None:
        self.rows = 0
        self._channels, self._vibration = channels, rate_hz >= VIBRATION_HZ
        self._courses = tuple(_Course() for _ in channels)
        self._together = _Together(len(channels))

    def push(self, values: Floats) -> None:
        """The next rows."""
        self.rows += len(values)
        for course, column in zip(self._courses, values.T, strict=True):
            course.push(column)
        self._together.push(values)

    def grades(self) -> tuple[ChannelGrade, ...]:
        """Of all that was pushed, in the order of the channels."""
        twins = self._together.twins()
        return tuple(self._grade(c, channel, twins.get(c)) for c, channel in enumerate(self._channels))

    def _grade(self, c: int, channel: Channel, twin: tuple[int, float] | None) -> ChannelGrade:
        course = self._courses[c]
        figures = course.figures(self.rows)
        findings = tuple(self._findings(course, figures))
        if twin is not None and not any(finding.kind == "constant" for finding in findings):
            other, r = twin
            name = self._channels[other].name
            findings += (Finding("duplicate", "C", f"the same as {name} (correlation {r:.5f}): one of them is enough"),)
            figures["correlation"] = r
        return ChannelGrade(channel.name, max((f.grade for f in findings), default="A"), findings, figures)

    def _findings(self, course: "_Course", figures: dict[str, float]) -> Iterator[Finding]:
        if not figures.get("spread"):
            yield Finding("constant", "D", "the same value in all rows: a dead sensor, or nothing to learn from")
            return
        rail, at_rail = course.rail()
        if at_rail * course.count >= sum(course.stuck()):  # one cause, told once
            figures["stuck"] = 0.0
        longest = max(course.stuck(), default=0)
        words = {
            "missing": f"{part(figures['missing'])} of the rows have no value of their own",
            "stuck": f"{part(figures['stuck'])} of the rows stand still at one value, {longest:,} rows at the longest",
            "saturated": f"{part(at_rail)} of the rows lie exactly at {rail:.6g}, the end of its range: saturated, "
            "or at rest",
            "spikes": f"{part(figures['spikes'])} of the rows are lone spikes: "
            + (
                "so often that they may be its course" if figures["spikes"] > OFTEN else "interference, a loose contact"
            ),
            "drift": f"its level moves by {figures['drift']:.1f} deviations from the first quarter to the last: "
            "is all of it normal running?",
            "noise": f"{part(figures['noise'])} of its spread is noise from row to row: it hardly shows a course",
        }
        for kind, said in words.items():
            letter = "ABCD"[int(np.searchsorted(_LIMITS[kind], figures[kind], side="right"))]
            if (kind == "saturated" and rail == 0) or (kind == "spikes" and figures[kind] > OFTEN):
                letter = min(letter, "B")  # standing still is normal for machines, and so is what comes so often
            if letter > "A" and not (self._vibration and kind in {"spikes", "noise"}):
                yield Finding(kind, letter, said)
        if course.levels is not None:
            few = len(course.levels) <= FEW_LEVELS and figures["changes"] > HOPS
            what = "a coarse sensor" if figures["changes"] > HOPS else "a switch, a set value, or a coarse sensor"
            yield Finding("coarse", "C" if few else "B", f"only {len(course.levels)} distinct values: {what}")


@dataclass
class _Course:
    """One channel as it goes by."""

    count: int = 0
    levels: Floats | None = field(default_factory=lambda: np.empty(0))
    ends: dict[bool, Counter[float]] = field(default_factory=lambda: {False: Counter(), True: Counter()})
    runs: Counter[int] = field(default_factory=Counter)
    chunks: list[tuple[float, float, float]] = field(default_factory=list)
    width: int = 16
    spikes: int = 0
    wobble: float = 0.0
    before: Floats = field(default_factory=lambda: np.empty(0))
    last: float = np.nan
    run: int = 0

    def push(self, column: Floats) -> None:
        x = column[np.isfinite(column)]
        if not len(x):
            return
        self.count += len(x)
        values, counts = np.unique(x, return_counts=True)
        if self.levels is not None:
            merged = np.union1d(self.levels, values[: LEVELS + 1])
            self.levels = merged if len(merged) <= LEVELS and len(values) <= LEVELS else None
        for high, pile in self.ends.items():
            cut = slice(-8, None) if high else slice(8)
            pile.update(dict(zip(values[cut].tolist(), counts[cut].tolist(), strict=True)))
            for value in sorted(pile, reverse=high)[8:]:
                del pile[value]
        self._push_runs(x)
        self._push_chunks(x)
        self._push_differences(np.concatenate((self.before, x)))
        self.before = x[-2:].copy()

    def _push_runs(self, x: Floats) -> None:
        """Lengths of runs of one value; the last one is still open."""
        starts = np.concatenate(([0], np.flatnonzero(np.diff(x)) + 1))
        lengths = np.diff(np.append(starts, len(x))).tolist()
        if x[0] == self.last:
            lengths[0] += self.run
        elif self.run:
            self.runs[self.run] += 1
        self.run, self.last = lengths.pop(), float(x[-1])
        self.runs.update(lengths)

    def _push_chunks(self, x: Floats) -> None:
        starts = np.arange(0, len(x), self.width)
        n = np.diff(np.append(starts, len(x)))
        mean = np.add.reduceat(x, starts) / n
        square = np.add.reduceat((x - np.repeat(mean, n)) ** 2, starts)
        self.chunks += zip(n.tolist(), mean.tolist(), square.tolist(), strict=True)
        while len(self.chunks) > CHUNKS:
            pairs = [_merged(self.chunks[i : i + 2]) for i in range(0, len(self.chunks), 2)]
            self.chunks, self.width = pairs, 2 * self.width

    def _push_differences(self, x: Floats) -> None:
        """Noise, and rows that leave the signal and come back, after the two rows before."""
        if len(x) < 16:
            return
        away = x[1:-1] - (x[:-2] + x[2:]) / 2
        scale = 1.4826 * float(np.median(np.abs(away - np.median(away))))
        low, high = np.percentile(x, (25, 75))
        spread = (high - low) / 1.349 or float(x.std())
        back = np.abs(x[2:] - x[:-2]) < 0.5 * np.abs(away)
        lone = back & (np.abs(away) > max(SPIKE_NOISE * scale, SPIKE_SPREAD * spread))
        self.spikes += int(np.count_nonzero(lone))
        self.wobble += float(np.square(away[~lone]).sum()) * len(x) / max(int(np.count_nonzero(~lone)), 1)

    def stuck(self) -> list[int]:
        """Lengths of the runs that are far longer than this channel's usual ones."""
        runs = self.runs + Counter([self.run])
        lengths = np.array(sorted(runs))
        share = np.cumsum([runs[length] for length in lengths]) / runs.total()
        usual = int(lengths[np.searchsorted(share, 0.95)])
        return [n for n in runs.elements() if n >= max(STUCK_ROWS, STUCK_RATIO * usual)]

    def rail(self) -> tuple[float, float]:
        """The end of the range at which rows pile up, and the part of them; 0 where they do not."""
        found = 0.0, 0.0
        for high, pile in self.ends.items():
            ends = sorted(pile, reverse=high)
            rows, beside = pile[ends[0]], [pile[value] for value in ends[1:]]
            piled = rows >= PILE_ROWS and rows > PILE_RATIO * max(beside, default=0)
            if self.levels is None and piled and rows / self.count > found[1]:
                found = ends[0], rows / self.count
        return found

    def figures(self, rows: int) -> dict[str, float]:
        """What is measured, by the names of the findings; `spread` is the standard deviation."""
        if not self.count:
            return {"missing": 1.0, "spread": 0.0}
        n, mean, square = _merged(self.chunks)
        spread = float(np.sqrt(square / n)) if min(self.ends[False]) < max(self.ends[True]) else 0.0
        out = {"missing": 1 - self.count / max(rows, 1), "mean": mean, "spread": spread}
        if spread:
            noise = np.sqrt(self.wobble / self.count / 1.5)  # of white noise the second difference has 1.5 σ²
            out |= {
                "stuck": sum(self.stuck()) / self.count,
                "saturated": self.rail()[1],
                "changes": self.runs.total() / self.count,
                "spikes": self.spikes / self.count,
                "drift": self._drift(),
                "noise": float(min(noise / spread, 1.0)),
            }
        if self.levels is not None:
            out["levels"] = float(len(self.levels))
        return out

    def _drift(self) -> float:
        """Shift from the first to the last quarter, in their pooled standard deviations."""
        quarter = len(self.chunks) // 4
        if not quarter:
            return 0.0
        parts = [_merged(self.chunks[i * quarter : (i + 1) * quarter or None]) for i in range(3)]
        parts.append(_merged(self.chunks[-quarter:]))
        within = np.sqrt(sum(chunk[2] for chunk in parts) / sum(chunk[0] for chunk in parts))
        return float(abs(parts[3][1] - parts[0][1]) / within) if within > 0 else 0.0


def _merged(chunks: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Number, mean and sum of squares about it, of several such (Chan, Golub and LeVeque, 1979)."""
    n, mean, square = np.array(chunks, np.float64).T
    total = float(n.sum())
    middle = float(n @ mean) / total
    return total, middle, float(square.sum() + n @ (mean - middle) ** 2)


class _Together:
    """Correlations between channels, from rows in which all have a value."""

    def __init__(self, channels: int) -> None:
        self._shift: Floats | None = None
        self._count, self._sum, self._cross = 0, np.zeros(channels), np.zeros((channels, channels))

    def push(self, values: Floats) -> None:
        whole = values[np.isfinite(values).all(axis=1)]
        if not len(whole):
            return
        if self._shift is None:
            self._shift = whole.mean(axis=0)  # keeps the sums small beside a large level
        centred = whole - self._shift
        self._count += len(whole)
        self._sum += centred.sum(axis=0)
        self._cross += centred.T @ centred

    def twins(self) -> dict[int, tuple[int, float]]:
        """Column → the earlier column that it repeats, with their correlation."""
        if self._count < 3:
            return {}
        covariance = self._cross / self._count - np.outer(self._sum, self._sum) / self._count**2
        deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
        scale = np.outer(deviation, deviation)
        r = np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)
        near = np.argwhere(np.tril(np.abs(r) > DUPLICATE, -1)).tolist()
        return {c: (other, float(r[c, other])) for c, other in reversed(near)}


class _Clock:
    """Time stamps of rows against the grid."""

    def __init__(self, rate_hz: float) -> None:
        self._rate, self._last = rate_hz, np.nan
        self._rows = self._held = 0
        self._deviation = np.zeros(101, np.int64)  # steps by their deviation, in hundredths of a row

    def restart(self) -> None:
        self._last = np.nan

    def push(self, time_s: Floats) -> None:
        step = np.diff(time_s, prepend=self._last) * self._rate
        step = step[np.isfinite(step)]
        self._rows += len(time_s)
        self._held += int(np.count_nonzero(step == 0))
        off = np.minimum(np.abs(step[step != 0] - 1), 1.0)
        self._deviation += np.bincount(np.round(100 * off).astype(int), minlength=101)
        self._last = float(time_s[-1])

    def jitter(self) -> float:
        """90th percentile of |step − 1|, in rows, 0 to 1."""
        total = self._deviation.sum()
        return float(np.searchsorted(np.cumsum(self._deviation), 0.9 * total)) / 100 if total else 0.0

    def findings(self) -> tuple[Finding, ...]:
        held = self._held / max(self._rows, 1)
        letter = "ABCD"[int(np.searchsorted(_LIMITS["missing"], held, side="right"))]
        found = []
        if letter > "A":
            found.append(
                Finding("missing", letter, f"{part(held)} of the rows were not recorded and repeat older ones")
            )
        if self.jitter() >= JITTER:
            words = (
                f"the time from row to row wanders by {part(self.jitter())} of a step: let one clock time all sensors"
            )
            found.append(Finding("jitter", "B", words))
        return tuple(found)


def _sentence(grades: tuple[ChannelGrade, ...], findings: tuple[Finding, ...]) -> str:
    """What to do, all in all."""
    good = sum(each.grade == "A" for each in grades)
    if good == len(grades) and not findings:
        return f"All {len(grades)} channels are clean: nothing to do." if good != 1 else "The channel is clean."
    said = [f"{good} of {len(grades)} channels are clean."]
    for letter, form in (
        ("D", "Leave out {} with --columns: nothing can be learnt from it."),
        ("C", "Mend {}, or leave it out with --columns, and train again."),
        ("B", "Look once at {}; training can go on."),
    ):
        some = [f"{each.name} ({', '.join(f.kind for f in each.findings)})" for each in grades if each.grade == letter]
        if some:
            said.append(form.format(", ".join(some[:6]) + (f" and {len(some) - 6} more" if len(some) > 6 else "")))
    return " ".join([*said, *(f"{finding.words[:1].upper()}{finding.words[1:]}." for finding in findings)])
