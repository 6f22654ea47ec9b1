"""Rules: what may be written, what a mistake is told like, and that what they say does not depend on blocks."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.alarms.expression import ExpressionError, parse
from tocsin.alarms.rolling import Rolling
from tocsin.alarms.rules import Rule, RuleSet
from tocsin.errors import ConfigError
from tocsin.records import Bools, Channel, Floats, Rows, Transition

START_S = 1_773_043_200.0
CHANNELS = (Channel("pressure", "bar"), Channel("flow", "l/min"))


def rows(values: Floats, start: int = 0, after_gap: bool = False) -> Rows:
    at = np.arange(start, start + len(values))
    return Rows(START_S + at, np.asarray(values, np.float64), at, after_gap)


def told(rule: Rule, values: Floats, doubted: Bools | None = None) -> list[tuple[int, str]]:
    """(row, change) at 1 Hz."""
    found = RuleSet("pump-1", CHANNELS, 1.0, (rule,)).check(rows(values, after_gap=True), doubted)
    return [(round(t.time_s - START_S), t.change.value) for t in found]


def truth(text: str, pressure: Floats, flow: Floats) -> list[bool]:
    """Whether it is true at each row, as its alarm says."""
    values, state, out = np.stack((pressure, flow), axis=1), False, []
    changes = dict(told(Rule("r", text), values))
    for row in range(len(values)):
        state = {"raised": True, "cleared": False}.get(changes.get(row, ""), state)
        out.append(state)
    return out


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("pressure > 4 and flow < 1", lambda p, f: (p > 4) & (f < 1)),
        ("pressure > 4 or flow < 1 and pressure < 2", lambda p, f: (p > 4) | ((f < 1) & (p < 2))),
        ("(pressure > 4 or flow < 1) and pressure < 2", lambda p, f: ((p > 4) | (f < 1)) & (p < 2)),
        ("not pressure > 4", lambda p, f: ~(p > 4)),
        ("not not (pressure >= 4)", lambda p, f: p >= 4),
        ("pressure - flow - 1 <= 2 * -3 / 4", lambda p, f: p - f - 1 <= 2 * -3 / 4),
        ("abs(pressure - flow) != .5e1", lambda p, f: np.abs(p - f) != 5),
        ("max(pressure, flow, 3) == min(4, pressure)", lambda p, f: np.fmax(np.fmax(p, f), 3) == np.fmin(4, p)),
        ("1 / (flow - flow) > 3", lambda p, f: np.full(len(p), True)),
    ],
)  # fmt: skip
def test_an_expression_means_what_it_says(text: str, meant: object) -> None:
    pressure, flow = np.random.default_rng(0).integers(0, 7, (2, 300)).astype(float)
    assert truth(text, pressure, flow) == meant(pressure, flow).tolist()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "said", "column"),
    [
        ("pressure >", "expected a number, a channel or a function", 11),
        ("pressure > 4 and", "expected a number, a channel or a function", 17),
        ("pressure", "expected a comparison such as `flow < 1`, got a number", 1),
        ("pressure > 4 and flow", "expected a comparison", 18),
        ("(pressure > 4) + 1 > 2", "expected a number, got a comparison", 2),
        ("1 < pressure < 4", "one comparison at a time", 14),
        ("pressure > 4 & flow < 1", "'&' has no meaning here", 14),
        ("pressure > 4 bar", "expected and, or, or the end, got 'bar'", 14),
        ("pressure > 10s", "a time stands only in mean, min, max or delta", 12),
        ("median(pressure, 10s) > 1", "no function 'median', there are abs, delta, max, mean, min", 1),
        ("mean(pressure) > 1", "expected mean(x, 10s)", 1),
        ("abs(pressure, flow) > 1", "expected abs(x)", 1),
        ("abs(pressure > 1", "expected a number, got a comparison", 5),
        ("(pressure > 1", "expected ')'", 14),
        ("__import__(1)", "no function '__import__'", 1),
        ("pressure.real > 1", "'.' has no meaning here", 9),
        ("", "expected a number", 1),
        ("(" * 40 + "1", "nested deeper than 30 levels", 31),
        ("1e999 < flow", "too large a number", 1),
    ],
)
def test_a_mistake_is_told_with_its_column(text: str, said: str, column: int) -> None:
    with pytest.raises(ExpressionError) as error:
        parse(text)
    assert said in str(error.value)
    assert error.value.column + 1 == column


@settings(max_examples=100, deadline=None)
@given(st.text("pressurflow 0123456789.<>=!+-*/(),anotdmi\n\x00é", max_size=60))
def test_any_text_is_a_condition_or_a_mistake(text: str) -> None:
    try:
        assert parse(text).is_truth
    except ExpressionError as error:
        assert "at column" in str(error)


def test_an_unknown_channel_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"rule dry: no channel 'flw', there are pressure, flow at column 18"):
        RuleSet("pump-1", CHANNELS, 1.0, (Rule("dry", "pressure > 4 and flw < 1"),))


def test_a_condition_has_to_hold_and_so_has_its_end() -> None:
    flow = np.array([5, 0, 0, 5, 0, 0, 0, 0, 5, 5, 0, 5, 5, 5, 5, 0])
    assert told(Rule("dry", "flow < 1", for_s=3), np.stack((flow, flow), axis=1)) == [(6, "raised"), (13, "cleared")]


def test_hysteresis_is_an_end_of_its_own() -> None:
    pressure = np.array([3, 5, 3.9, 4.1, 3.5, 2.9, 4.5])
    rule = Rule("high", "pressure > 4", clear_when="pressure < 3")
    assert told(rule, np.stack((pressure, pressure), axis=1)) == [(1, "raised"), (5, "cleared"), (6, "raised")]


def test_functions_over_time_look_back_from_each_row_and_say_nothing_before() -> None:
    rng = np.random.default_rng(1)
    pressure, flow = rng.normal(5, 1, (2, 200))
    for name, of in (("mean", np.mean), ("min", np.min), ("max", np.max)):
        past = np.array([of(pressure[max(0, k - 9) : k + 1]) for k in range(200)])
        expected = (past > 5) & (np.arange(200) >= 9)
        assert truth(f"{name}(pressure, 10s) > 5", pressure, flow) == expected.tolist()
    step = np.append(np.zeros(10), pressure[10:] - pressure[:-10])
    assert truth("delta(pressure, 10s) > 0.5", pressure, flow) == (step > 0.5).tolist()


def test_a_wild_value_is_forgotten_when_it_leaves_the_window() -> None:
    values = np.full(60, 0.1)
    values[20] = 1e30
    rolling = Rolling("sum", 10)
    np.testing.assert_allclose(rolling.push(values)[40:], 1.0)


def test_after_a_gap_nothing_is_said_until_there_is_enough() -> None:
    rules = RuleSet("pump-1", CHANNELS, 1.0, (Rule("high", "mean(pressure, 5s) > 4", for_s=2),))
    high = np.full((4, 2), 9.0)
    assert rules.check(rows(high, after_gap=True)) == () == rules.check(rows(high, 10, after_gap=True))
    (raised,) = rules.check(rows(high, 14))
    assert raised.time_s == START_S + 15


@pytest.mark.parametrize(
    ("time", "said"), [("1e308h", "24h at the most"), ("99999999h", "24h at the most"), ("24h", "rows")]
)
def test_a_time_too_long_to_remember_is_refused_with_its_column(time: str, said: str) -> None:
    rule = Rule("dry", f"mean(flow, {time}) < 1")
    with pytest.raises(ConfigError, match=rf"{said}.* at column"):
        RuleSet("pump-1", CHANNELS, 1000.0, (rule,))


def test_a_rule_of_the_greatest_length_and_depth_can_be_looked_at() -> None:
    long, deep = "flow < 1".ljust(500), "(" * 29 + "flow < 1" + ")" * 29
    assert told(Rule("dry", long), np.zeros((3, 2))) == told(Rule("dry", deep), np.zeros((3, 2))) == [(0, "raised")]


def test_a_rule_waits_while_a_channel_of_its_is_doubted() -> None:
    values = np.tile((5.0, 0.0), (10, 1))
    doubted = np.zeros((10, 2), np.bool_)
    doubted[:6, 1] = True
    assert told(Rule("dry", "flow < 1"), values, doubted) == [(6, "raised")]
    assert told(Rule("high", "pressure > 4"), values, doubted) == [(0, "raised")]


def test_an_alarm_names_the_channels_of_its_rule_and_what_they_were() -> None:
    (raised,) = RuleSet("pump-1", CHANNELS, 1.0, (Rule("dry", "flow < 1 and pressure > 4"),)).check(rows([[5.0, 0.5]]))
    assert (raised.alarm, raised.cause, raised.score) == ("pump-1-dry", "rule", None)
    assert [(part.channel, part.seen) for part in raised.contributions] == [("flow", 0.5), ("pressure", 5.0)]


def test_a_rule_that_was_on_before_a_restart_is_cleared_when_its_end_has_held() -> None:
    rules = RuleSet("pump-1", CHANNELS, 1.0, (Rule("dry", "flow < 1", for_s=3),), active={"pump-1-dry"})
    (cleared,) = rules.check(rows(np.full((5, 2), 7.0)))
    assert (cleared.time_s, cleared.change.value) == (START_S + 2, "cleared")


RULES = (
    Rule("a", "mean(pressure, 7s) > 5 and not flow > 5", for_s=3),
    Rule("b", "delta(flow, 3s) > 1 or max(pressure, 4s) - min(pressure, 4s) > 3", clear_when="flow < 4", for_s=2),
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 299), max_size=12))
def test_what_rules_say_does_not_depend_on_how_the_stream_is_cut(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(5, 1, (300, 2))
    doubted = np.repeat(rng.random((30, 2)) < 0.1, 10, axis=0)

    def play(edges: list[int]) -> list[Transition]:
        rules = RuleSet("pump-1", CHANNELS, 1.0, RULES)
        pieces = pairwise(sorted({0, 100, 300, *edges}))  # a gap at row 100
        return [t for a, b in pieces for t in rules.check(rows(values[a:b], a, a in (0, 100)), doubted[a:b])]

    assert play(cuts) == play([])


def test_nor_when_rows_come_one_by_one() -> None:
    values = np.random.default_rng(0).normal(5, 1, (300, 2))
    single, whole = (RuleSet("pump-1", CHANNELS, 1.0, RULES) for _ in range(2))
    one_by_one = [t for k in range(300) for t in single.check(rows(values[k : k + 1], k))]
    assert one_by_one == list(whole.check(rows(values))) and len(one_by_one) > 10
