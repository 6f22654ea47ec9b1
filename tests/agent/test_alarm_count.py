"""Alarms counted against what the limit promises."""

import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tocsin.alarm_count import AlarmCount
from tocsin.alarms.detector import AlarmRule
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.core.promise import Promise, Tally
from tocsin.delivery.outbox import Outbox
from tocsin.pipeline import AssetLine, Scored
from tocsin.recordings import TableOptions, open_table, read_table

DATA = Path(__file__).parent.parent / "data"
FAULTS = 3  # in faults.csv
RULE = AlarmRule()
WEEKLY = Promise(1 / 168, 1 / 168, 0.5 / 168, 3 / 168, 2000.0, 11, 2000.0, False)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """`small`, whose limit promises one false alarm a week."""
    plain = load_bundle(DATA / "small.tocsin")
    threshold = replace(plain.manifest.threshold, promise=WEEKLY)
    return replace(plain, manifest=replace(plain.manifest, threshold=threshold))


@pytest.fixture(scope="module")
def played(bundle: Bundle) -> list[Scored]:
    table = open_table(DATA / "faults.csv", TableOptions(), bundle.manifest.channels)
    line = AssetLine("pump-1", bundle, bundle.manifest.channels)
    return [scored for part in read_table(table) for scored in line.feed(part.block)]


def counted(played: list[Scored], bundle: Bundle, outbox: Outbox, rule: AlarmRule = RULE) -> AlarmCount:
    count = AlarmCount("pump-1", bundle, rule, outbox)
    for part in played:
        count.take(part)
    return count


def test_every_alarm_counts_and_time_counts_while_none_is_on(
    played: list[Scored], bundle: Bundle, outbox: Outbox
) -> None:
    found = counted(played, bundle, outbox).report()
    quiet = sum(int(np.count_nonzero(~part.anomaly)) for part in played)
    assert 0 < quiet < sum(len(part.anomaly) for part in played)
    assert found.episodes == FAULTS
    assert found.hours == pytest.approx(quiet * bundle.manifest.hop / bundle.manifest.sample_rate_hz / 3600, abs=1e-4)
    assert found.low_per_day < 24 * FAULTS / found.hours < found.high_per_day
    assert (found.asked_per_day, found.promised_high_per_day) == pytest.approx((1 / 7, 3 / 7), rel=1e-5)


def test_the_count_goes_on_after_a_restart(played: list[Scored], bundle: Bundle, outbox: Outbox) -> None:
    first = counted(played, bundle, outbox)
    first.keep()
    assert AlarmCount("pump-1", bundle, RULE, outbox).tally == first.tally
    again = counted(played, bundle, outbox)
    assert again.tally.episodes == 2 * FAULTS and again.tally.hours == pytest.approx(2 * first.tally.hours)


def test_a_power_cut_costs_no_alarm(played: list[Scored], bundle: Bundle, outbox: Outbox) -> None:
    lost = counted(played, bundle, outbox)
    found = AlarmCount("pump-1", bundle, RULE, outbox).tally
    assert found.episodes == FAULTS and lost.tally.hours - found.hours < 1 / 6


def test_another_bundle_and_other_alarm_settings_begin_at_nothing(
    played: list[Scored], bundle: Bundle, outbox: Outbox
) -> None:
    counted(played, bundle, outbox).keep()
    other = replace(bundle, digest="0" * 64)
    assert AlarmCount("pump-1", other, RULE, outbox).tally == Tally()
    assert AlarmCount("pump-2", bundle, RULE, outbox).tally == Tally()
    wary = AlarmCount("pump-1", bundle, AlarmRule(1, 1, 1, 1.0), outbox)
    assert wary.tally == Tally() and wary.promise is None and wary.report().broken is None


def test_more_alarms_than_were_promised_break_the_promise_and_are_logged_once(
    played: list[Scored], bundle: Bundle, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = counted(played, bundle, outbox).report()
    assert found.broken and not found.refused
    assert len(caplog.messages) == 1 and "more than promised (expected 2/month to 3/week)" in caplog.messages[0]


def test_a_disk_that_fails_costs_the_count_and_nothing_else(
    played: list[Scored], bundle: Bundle, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path / "o.db")
    count = AlarmCount("pump-1", bundle, RULE, outbox)
    outbox.close()
    with pytest.raises(sqlite3.Error):
        outbox.tally("pump-1", "")
    for part in played:
        count.take(part)
    count.keep()
    assert count.tally.episodes == FAULTS
    assert AlarmCount("pump-1", bundle, RULE, outbox).tally == Tally()
