"""Rules that the user knows to hold: conditions over channels, with a delay, an end of their own, and advice.

```
when         ▁▁▁▔▔▁▔▔▔▔▔▔▔▔▔▔▔▔▁▁▁▁▁▁      raised: true for `for_s`
clear_when   ▔▔▔▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▔▔▔▔▔      cleared: true for as long; without one, it is the contrary of `when`
```
Rules: looked at on the grid of the bundle; while nothing can be said (a mean over more than there was since a gap, a
value that is out of range, a lone spike, or bad as its source says) the state stays as it is. A value that stands still
is believed: a flow that is cut off at 0 may be just what the rule is for. Blocks may be cut anywhere.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from tocsin.alarms.expression import ExpressionError, Node, parse
from tocsin.alarms.rolling import Delayed, Rolling
from tocsin.errors import ConfigError
from tocsin.records import Bools, Change, Channel, Contribution, Floats, Ints, Rows, Transition

MOST_ROWS = 10_000_000  # that a function over time looks back: 80 MB
_Stream = Callable[[Floats], Floats]


def _comparison(join: np.ufunc) -> Callable[[Floats, Floats], Floats]:
    return lambda left, right: np.where(np.isnan(left) | np.isnan(right), np.nan, join(left, right))


def _and(left: Floats, right: Floats) -> Floats:
    """Kleene's `and`: false where either is false, unknown where the other is."""
    return np.where((left == 0) | (right == 0), 0.0, left * right)


_JOIN: dict[str, Callable[..., Floats]] = {
    "sign": np.negative,
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "abs": np.abs,
    "min": lambda *parts: np.minimum.reduce(parts),
    "max": lambda *parts: np.maximum.reduce(parts),
    "<": _comparison(np.less),
    "<=": _comparison(np.less_equal),
    ">": _comparison(np.greater),
    ">=": _comparison(np.greater_equal),
    "==": _comparison(np.equal),
    "!=": _comparison(np.not_equal),
    "not": lambda truth: 1 - truth,
    "and": _and,
    "or": lambda left, right: 1 - _and(1 - left, 1 - right),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition.

    Attributes:
        id: of the alarm, after the asset's.
        when: what raises it.
        clear_when: what clears it; None = the contrary.
        for_s: how long each has to hold, seconds.
        mode: it is a mode of the plant, in which other alarms are suppressed, and no alarm.
    """

    id: str
    when: str
    clear_when: str | None = None
    for_s: float = 0.0
    mode: bool = False


class RuleSet:
    """The rules of one asset; belongs to one thread.

    Args:
        asset: its id.
        channels: columns of the rows.
        rate_hz: rows a second.
        rules: in the order of the settings.
        active: ids of conditions that are on already (a restart).

    Raises:
        ConfigError: a rule that cannot be read, or names a channel that there is not.
    """

    def __init__(
        self,
        asset: str,
        channels: tuple[Channel, ...],
        rate_hz: float,
        rules: tuple[Rule, ...],
        active: Container[str] = (),
    ) -> None:
        self._watches = tuple(_Watch(asset, channels, rate_hz, rule, active) for rule in rules)

    def check(self, rows: Rows, doubted: Bools | None = None) -> tuple[Transition, ...]:
        """What the next rows begin and end.

        Args:
            rows: on the grid.
            doubted: (m, C) channels whose values are none of the machine; None = none.
        """
        found = [pair for watch in self._watches for pair in watch.check(rows, doubted)]
        return tuple(transition for _, transition in sorted(found, key=lambda pair: (pair[0], pair[1].alarm)))


class _Watch:
    """One rule and its state."""

    def __init__(
        self, asset: str, channels: tuple[Channel, ...], rate_hz: float, rule: Rule, active: Container[str]
    ) -> None:
        self._asset, self._alarm, self._channels = asset, f"{asset}-{rule.id}", channels
        self._cause = "mode" if rule.mode else "rule"
        self._on = self._alarm in active
        self._hold_rows = max(1, round(rule.for_s * rate_hz))
        self._runs = [0, 0]
        self._memories: list[Rolling | Delayed] = []
        raises = self._read(rule, rule.when, rate_hz)
        clears = Node("not", (raises,)) if rule.clear_when is None else self._read(rule, rule.clear_when, rate_hz)
        names = [channel.name for channel in channels]
        self._columns = list(dict.fromkeys(names.index(m.name) for node in (raises, clears) for m in node.channels()))
        self._streams = tuple(self._stream(node, names, rate_hz) for node in (raises, clears))

    def _read(self, rule: Rule, text: str, rate_hz: float) -> Node:
        names = [channel.name for channel in self._channels]
        try:
            node = parse(text)
            for mention in node.channels():
                if mention.name not in names:
                    said = f"no channel {mention.name!r}, there are {', '.join(names)}"
                    raise ExpressionError(said, text, mention.column)
            for over in node.over_time():
                if over.value * rate_hz > MOST_ROWS:
                    said = (
                        f"expected {MOST_ROWS / rate_hz:g}s at the most, which is {MOST_ROWS} rows, got {over.value:g}s"
                    )
                    raise ExpressionError(said, text, over.column)
            return node
        except ExpressionError as error:
            raise ConfigError(f"asset {self._asset}: rule {rule.id}: {error}") from error

    def _stream(self, node: Node, names: list[str], rate_hz: float) -> _Stream:
        """(m, C) rows → (m,) numbers; truth is 1 and 0, and NaN where nothing can be said."""
        parts = [self._stream(part, names, rate_hz) for part in node.parts]
        match node.kind:
            case "number":
                return lambda rows: np.full(len(rows), node.value)
            case "channel":
                column = names.index(node.name)
                return lambda rows: rows[:, column]
            case "over":
                return self._over(node, parts[0], max(1, round(node.value * rate_hz)))
        join = _JOIN[node.name or node.kind]
        return lambda rows: join(*(part(rows) for part in parts))

    def _over(self, node: Node, inner: _Stream, length: int) -> _Stream:
        if node.name == "delta":
            delayed = Delayed(length)
            self._memories.append(delayed)

            def delta(rows: Floats) -> Floats:
                values = inner(rows)
                return values - delayed.push(values)

            return delta
        rolling = Rolling("min" if node.name == "min" else "max" if node.name == "max" else "sum", length)
        self._memories.append(rolling)
        divisor = length if node.name == "mean" else 1
        return lambda rows: rolling.push(inner(rows)) / divisor

    def check(self, rows: Rows, doubted: Bools | None) -> list[tuple[int, Transition]]:
        """(row, transition) of each change."""
        if rows.after_gap:
            self._runs = [0, 0]
            for memory in self._memories:
                memory.reset()
        with np.errstate(all="ignore"):
            truth = [stream(rows.values) for stream in self._streams]
        blind = None if doubted is None else doubted[:, self._columns].any(axis=1)
        held = []
        for n, said in enumerate(truth):
            run = _run(said == 1 if blind is None else (said == 1) & ~blind, self._runs[n])
            self._runs[n] = int(run[-1]) if len(run) else self._runs[n]
            held.append(run >= self._hold_rows)
        index = np.maximum.accumulate(np.where(held[0] | held[1], np.arange(len(rows)), -1))
        state = np.where(index < 0, self._on, held[0][np.maximum(index, 0)])
        changes = np.flatnonzero(np.diff(np.concatenate(([self._on], state)).astype(np.int8)))
        self._on = bool(state[-1]) if len(state) else self._on
        return [(k, self._transition(rows, k, bool(state[k]))) for k in changes.tolist()]

    def _transition(self, rows: Rows, row: int, on: bool) -> Transition:
        time_s = float(rows.time_s[row])
        seen = [(c, float(rows.values[row, c])) for c in self._columns]
        return Transition(
            asset=self._asset,
            alarm=self._alarm,
            change=Change.RAISED if on else Change.CLEARED,
            time_s=time_s,
            cause=self._cause,
            score=None,
            threshold=None,
            ratio=None,
            window_start_s=time_s,
            window_end_s=time_s,
            window_rows=1,
            contributions=tuple(Contribution(self._channels[c].name, 1 / len(seen), v, None) for c, v in seen),
        )


def _run(true: Bools, before: int) -> Ints:
    """(m,) rows for which it has been true, up to here."""
    at = np.arange(1, len(true) + 1)
    broken = np.maximum.accumulate(np.where(true, -before, at)) if len(true) else at
    run: Ints = at - broken
    return run
