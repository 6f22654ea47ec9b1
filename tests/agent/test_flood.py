"""Many alarms at once are told in one message; words are there in every language."""

import string

import pytest

from tocsin.alarms.alarm import Alarm, AlarmContext, AlarmState
from tocsin.alarms.flood import Flood, FloodWatch
from tocsin.alarms.lifecycle import Event
from tocsin.alarms.sentence import ended, flood_sentence, sentence
from tocsin.alarms.words import EN, LANGUAGES
from tocsin.records import Change, Contribution, Transition

WALL_S = 1.7e9


def alarm(n: int, time_s: float, language: str = "en") -> Alarm:
    context = AlarmContext(language=language)
    latest = Transition(f"press-{n}", f"press-{n}-anomaly", Change.RAISED, time_s, "model", 2, 1, 2, time_s, time_s, 1)
    return Alarm(f"ID{n}", AlarmState.UNACKED, True, time_s, None, 1, latest, (), "", context)


def looks(watch: FloodWatch, since_s: float, seconds: int) -> list[Flood]:
    told = [watch.look(since_s + n) for n in range(seconds)]
    return [flood for flood in told if flood is not None]


def test_a_trip_of_twelve_assets_is_one_flood_with_the_first_alarm_first() -> None:
    watch = FloodWatch()
    times = [WALL_S + n / 4 for n in range(12)]
    told = []
    for n in (5, *range(5), *range(6, 12)):  # an asset's thread may be late
        watch.new(alarm(n, times[n]), times[-1])
        told += looks(watch, times[-1], 1)
    assert told == [], "it waits until no more come"
    (flood,) = looks(watch, times[-1], 590)
    assert [one.latest.asset for one in flood.alarms] == [f"press-{n}" for n in range(12)]
    assert (flood.count, flood.id, flood.over) == (12, "ID0", False)
    assert flood_sentence(flood) == (
        "12 new alarms within 3 s at press-0, press-1, press-2, press-3, press-4, 7 more; the first is press-0-anomaly"
    )
    (end,) = looks(watch, times[-1] + 600, 10)
    assert (end.over, end.id, end.count) == (True, "ID0", 12)
    assert flood_sentence(end) == "the flood of 12 alarms is over"
    assert not watch.waits_for_time


def test_nine_in_ten_minutes_and_ten_in_eleven_are_no_flood() -> None:
    watch = FloodWatch()
    for n in range(9):
        watch.new(alarm(n, WALL_S + n), WALL_S + n)
    watch.new(alarm(9, WALL_S + 601), WALL_S + 601)
    assert looks(watch, WALL_S + 601, 60) == [] and not watch.waits_for_time


def test_a_flood_that_never_settles_is_told_after_half_a_minute() -> None:
    watch, told = FloodWatch(), []
    for n in range(60):
        watch.new(alarm(n, WALL_S + n), WALL_S + n)
        told += looks(watch, WALL_S + n, 1)
    assert [flood.count for flood in told] == [40]


def test_one_alarm_of_another_year_hides_no_flood() -> None:
    watch = FloodWatch()
    watch.new(alarm(99, WALL_S + 1e9), WALL_S)
    for n in range(10):
        watch.new(alarm(n, WALL_S + n), WALL_S + n)
    (flood,) = looks(watch, WALL_S + 10, 30)
    assert flood.count == 10 and flood.alarms[0].latest.asset == "press-0"


def test_a_clock_that_is_set_ends_no_wait() -> None:
    watch = FloodWatch()
    for n in range(10):
        watch.new(alarm(n, WALL_S), WALL_S)
    assert len(looks(watch, WALL_S - 3600, 1)) == 1, "told at once rather than an hour later"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_sentence_with_its_places(language: str) -> None:
    def places(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    assert {key: places(text) for key, text in LANGUAGES[language].items()} == {k: places(t) for k, t in EN.items()}


def test_an_alarm_speaks_chinese() -> None:
    part = Contribution("oil_pressure", 0.54, 2.31, 5.02)
    latest = Transition("泵", "p-anomaly", Change.RAISED, 0, "model", 2, 1, 2, 0, 1, 8, (part,))
    context = AlarmContext(units={"oil_pressure": "bar"}, language="zh", rule="流量 < 1")
    assert sentence(latest, context) == "泵 的运行状态偏离正常（流量 < 1）：Oil pressure（54 %） 2.31 bar，预期 5.02"
    assert ended("泵", "stuck", "zh") == "泵 的数值恢复可信"
    flood = Flood("A", tuple(alarm(n, n, "zh") for n in range(10)), 10)
    assert "首个报警：press-0-anomaly" in flood_sentence(flood)
    assert {Event.SHELVE, Event.SUPPRESS, Event.SUPPRESSOR_ON, Event.OUT_OF_SERVICE} <= EN.keys()
