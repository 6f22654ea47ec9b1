"""Where a model was right and wrong: labelled events one by one, and the normal windows most likely to ring falsely.

Rules: an event is a run of labelled rows; it is found if an alarm (with on-delay and hysteresis, as on the device)
overlaps it; a window counts as normal if neither it nor the window's length before it holds a labelled row, and no
alarm or run over the limit ties it to one. Without labels all of a recording is taken for normal.
"""

from dataclasses import dataclass, replace

import numpy as np

from tocsin.records import Bools, Channel, Floats
from tocsin_trainer.markup import duration
from tocsin_trainer.metrics import runs
from tocsin_trainer.results import Played, TrainingResult

TOP = 3  # channels that are named
WORST = 8


@dataclass(frozen=True)
class LabelledEvent:
    """A run of labelled rows, and what the device would have said.

    Attributes:
        part: title of the recording.
        start_s: of the first labelled row.
        end_s: of the last.
        over_after_s: from the start to the first window at the limit or above; None if there is none.
        alarm_after_s: from the start to the alarm, 0 if it was on already; None if there is none: the event is missed.
        ratio: largest score / limit inside; NaN where no window ends inside.
        channels: the largest parts of that score, (name, share).
    """

    part: str
    start_s: float
    end_s: float
    over_after_s: float | None
    alarm_after_s: float | None
    ratio: float
    channels: tuple[tuple[str, float], ...]

    @property
    def found(self) -> bool:
        """An alarm overlaps it."""
        return self.alarm_after_s is not None

    @property
    def at_s(self) -> float:
        """When it began."""
        return self.start_s

    @property
    def kind(self) -> str:
        """What is wrong with it, in words."""
        return "missed event" if self.alarm_after_s is None else f"alarm after {duration(self.alarm_after_s)}"


@dataclass(frozen=True)
class NormalPeak:
    """A window of normal running with a large score: a false alarm, or the nearest to one.

    Attributes:
        part: title of the recording.
        at_s: end of the window.
        ratio: score / limit.
        alarm: an alarm was on.
        channels: the largest parts of the score, (name, share).
    """

    part: str
    at_s: float
    ratio: float
    alarm: bool
    channels: tuple[tuple[str, float], ...]

    @property
    def kind(self) -> str:
        """What is wrong with it, in words."""
        if self.alarm:
            return "alarm in normal running"
        return "over the threshold, no alarm" if self.ratio >= 1 else "below the threshold"


def labelled_events(played: Played, channels: tuple[Channel, ...], limit: float) -> tuple[LabelledEvent, ...]:
    """Every labelled event of a recording, in order of time; empty without labels."""
    if played.row_label is None:
        return ()
    found = []
    starts, stops = runs(played.row_label)
    for start, stop in zip(played.row_time_s[starts].tolist(), played.row_time_s[stops - 1].tolist(), strict=True):
        inside = np.flatnonzero((played.end_s >= start) & (played.end_s <= stop))
        over = inside[played.score[inside] >= limit]
        alarms = [begin for begin, end in played.alarms if begin <= stop and end >= start]
        best = int(inside[np.argmax(played.score[inside])]) if len(inside) else None
        found.append(
            LabelledEvent(
                part=played.title,
                start_s=start,
                end_s=stop,
                over_after_s=float(played.end_s[over[0]]) - start if len(over) else None,
                alarm_after_s=max(0.0, alarms[0] - start) if alarms else None,
                ratio=float("nan") if best is None else float(played.score[best]) / limit,
                channels=() if best is None else _top(played, channels, best),
            )
        )
    return tuple(found)


def normal_peaks(
    played: Played, channels: tuple[Channel, ...], limit: float, window_s: float, most: int = 5
) -> tuple[NormalPeak, ...]:
    """The largest scores of normal running, largest first, each at least four windows from the others.

    Args:
        played: a recording; its labelled part is left out.
        channels: C of them.
        limit: on the score.
        window_s: length of a window.
        most: so many at most.
    """
    score = np.where(_tied_to_label(played, limit, window_s), -np.inf, played.score)
    found: list[NormalPeak] = []
    while len(found) < most and len(score) and np.max(score) > 0:
        k = int(np.argmax(score))
        time_s = float(played.end_s[k])
        alarm = any(begin <= time_s <= end for begin, end in played.alarms)
        found.append(NormalPeak(played.title, time_s, float(score[k]) / limit, alarm, _top(played, channels, k)))
        score[np.abs(played.end_s - time_s) < 4 * window_s] = -np.inf
    return tuple(found)


def shown_parts(result: TrainingResult) -> list[Played]:
    """Recordings that hold a window, labelled ones first."""
    parts = [played for played in result.chosen.played if len(played.score) and len(played.row_time_s)]
    return sorted(parts, key=lambda played: (played.row_label is None, played.title == "calibration"))


def all_events(result: TrainingResult) -> list[LabelledEvent]:
    """Labelled events of every part."""
    limit = result.chosen.threshold.value
    return [event for played in shown_parts(result) for event in labelled_events(played, result.channels, limit)]


def worst_errors(result: TrainingResult) -> list[LabelledEvent | NormalPeak]:
    """Missed events, windows of normal running over the limit, the latest alarms, and the highest below; at most 8."""
    limit, window_s = result.chosen.threshold.value, result.length / result.sample_rate_hz
    found = all_events(result)
    missed = [event for event in found if not event.found]
    late = [event for event in found if event.alarm_after_s is not None and event.alarm_after_s > window_s]
    peaks = [p for played in shown_parts(result) for p in normal_peaks(played, result.channels, limit, window_s)]
    peaks.sort(key=lambda peak: -peak.ratio)
    over = [peak for peak in peaks if peak.ratio >= 1]
    late.sort(key=lambda event: -(event.alarm_after_s or 0))
    below = [peak for peak in peaks if peak.ratio < 1]
    errors: list[LabelledEvent | NormalPeak] = [*missed[:WORST], *over, *late[:3], *below[:3]]
    return errors[:WORST]


def false_alarms(played: Played) -> tuple[int, float | None]:
    """Alarms that touch no labelled row, and how many that is a day of unlabelled running."""
    label = played.row_label if played.row_label is not None else np.zeros(len(played.row_time_s), np.bool_)
    bad = played.row_time_s[label]
    false = sum(not np.any((bad >= start) & (bad <= stop)) for start, stop in played.alarms)
    return false, false * 86400 / played.running_s if played.running_s > 0 else None


def cut(played: Played, start_s: float, stop_s: float, title: str) -> Played:
    """The part of a recording between two times."""
    rows = slice(*np.searchsorted(played.row_time_s, (start_s, np.nextafter(stop_s, np.inf))).tolist())
    windows = slice(*np.searchsorted(played.end_s, (start_s, np.nextafter(stop_s, np.inf))).tolist())
    return replace(
        played,
        title=title,
        row_time_s=played.row_time_s[rows],
        rows=played.rows[rows],
        end_s=played.end_s[windows],
        score=played.score[windows],
        anomaly=played.anomaly[windows],
        share=played.share[windows],
        row_label=None if played.row_label is None else played.row_label[rows],
        window_label=None if played.window_label is None else played.window_label[windows],
        row_score=None if played.row_score is None else played.row_score[rows],
        row_count=0,
        alarms=tuple((max(a, start_s), min(b, stop_s)) for a, b in played.alarms if a <= stop_s and b >= start_s),
    )


def _tied_to_label(played: Played, limit: float, window_s: float) -> Bools:
    """(K,) windows that a labelled event may have raised."""
    if played.row_label is None:
        return np.zeros(len(played.score), np.bool_)
    bad = np.sort(played.row_time_s[played.row_label])
    tied: Bools = _reaches(bad, played.end_s - 2 * window_s, played.end_s)
    for start, stop in zip(*(edge.tolist() for edge in runs(played.score >= limit)), strict=True):
        if tied[start:stop].any():
            tied[start:stop] = True
    for begin, end in played.alarms:
        if _reaches(bad, np.array([begin]), np.array([end]))[0]:
            tied |= (played.end_s >= begin) & (played.end_s <= end)
    return tied


def _reaches(times: Floats, start: Floats, stop: Floats) -> Bools:
    """(K,) whether one of the sorted times lies in [start, stop]."""
    found: Bools = np.searchsorted(times, stop, side="right") > np.searchsorted(times, start)
    return found


def _top(played: Played, channels: tuple[Channel, ...], k: int) -> tuple[tuple[str, float], ...]:
    share = np.nan_to_num(played.share[k])
    return tuple((channels[c].name, float(share[c])) for c in np.argsort(-share, kind="stable")[:TOP] if share[c] > 0)
