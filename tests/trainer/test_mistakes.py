"""Events, false alarms and the worst errors are what the recording shows, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from tocsin.records import Channel
from tocsin_trainer.mistakes import cut, false_alarms, labelled_events, normal_peaks
from tocsin_trainer.results import Played

CHANNELS = (Channel("pressure"), Channel("flow"))
LIMIT = 2.0


@pytest.fixture
def played() -> Played:
    """400 s at 1 Hz, a score a second from 9 s on; faults at 100–149 and 300–319 s, the second is missed."""
    rows = 400
    time_s = np.arange(rows, dtype=float)
    label = np.zeros(rows, np.bool_)
    label[100:150] = label[300:320] = True
    score = np.ones(rows - 9)
    score[103 - 9 : 150 - 9] = 6.0  # found: first over 3 s after its start, alarm 5 s after
    score[150 - 9 : 160 - 9] = 3.0  # its tail
    score[220 - 9 : 224 - 9] = 2.4  # a false alarm
    score[310 - 9] = 1.8  # the missed one
    share = np.full((rows - 9, 2), 0.5)
    share[220 - 9 : 224 - 9] = (0.1, 0.9)
    return Played(
        "day", time_s, np.zeros((rows, 2)), time_s[9:], score, score >= LIMIT, share, label, label[9:], None,
        ((105.0, 165.0), (222.0, 229.0)),
    )  # fmt: skip


def test_an_event_is_found_by_an_alarm_that_overlaps_it_and_missed_without(played: Played) -> None:
    first, second = labelled_events(played, CHANNELS, LIMIT)
    assert (first.start_s, first.end_s, first.found) == (100, 149, True)
    assert (first.over_after_s, first.alarm_after_s, first.ratio) == (3, 5, 3.0)
    assert (second.found, second.over_after_s, second.alarm_after_s, second.ratio) == (False, None, None, 0.9)
    assert second.kind == "missed event"


def test_an_alarm_that_was_on_before_an_event_finds_it_at_once(played: Played) -> None:
    early = replace(played, alarms=((80.0, 165.0),))
    assert labelled_events(early, CHANNELS, LIMIT)[0].alarm_after_s == 0


def test_the_largest_normal_score_is_the_false_alarm_and_not_a_fault_s_tail(played: Played) -> None:
    peaks = normal_peaks(played, CHANNELS, LIMIT, window_s=10)
    assert (peaks[0].at_s, peaks[0].ratio, peaks[0].alarm) == (220, 1.2, False)
    assert peaks[0].channels == (("flow", 0.9), ("pressure", 0.1))
    assert all(peak.ratio == 0.5 for peak in peaks[1:])
    assert all(abs(a.at_s - b.at_s) >= 40 for a in peaks for b in peaks if a is not b)


def test_without_labels_all_is_normal_running(played: Played) -> None:
    bare = replace(played, row_label=None)
    assert labelled_events(bare, CHANNELS, LIMIT) == ()
    assert normal_peaks(bare, CHANNELS, LIMIT, window_s=10)[0].ratio == 3.0
    assert false_alarms(bare) == (2, 2 * 86400 / 400)


def test_alarms_that_touch_no_label_are_false_and_counted_on_unlabelled_running(played: Played) -> None:
    assert false_alarms(played) == (1, 86400 / 330)


def test_a_part_keeps_rows_windows_labels_and_alarms_in_step(played: Played) -> None:
    part = cut(played, 140, 225, "part")
    assert (part.row_time_s[0], part.row_time_s[-1], len(part.rows)) == (140, 225, 86)
    assert (part.end_s[0], part.end_s[-1], len(part.score), len(part.share)) == (140, 225, 86, 86)
    assert part.alarms == ((140, 165), (222, 225))
    assert part.row_label is not None and part.row_label.sum() == 10
