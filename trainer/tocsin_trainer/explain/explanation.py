"""All that is said about one window: each method's amounts, how far they agree, and the same in words."""

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from tocsin.alarms.normal import Normal, NormalChannel
from tocsin.core.bundle import Bundle
from tocsin.records import Channel, Contribution, Floats
from tocsin_trainer.explain.exact import Exact, MemberPart, take_apart
from tocsin_trainer.explain.game import Game, Player, players_of, typical_window
from tocsin_trainer.explain.lime import Lime, lime
from tocsin_trainer.explain.moment import Moment
from tocsin_trainer.explain.rows import Row, column_labels
from tocsin_trainer.explain.shapley import Shapley, shapley
from tocsin_trainer.recorded import clock

METHODS = ("exact", "shap", "lime")
NAMED = 3  # channels in the words
WORTH_NAMING = 0.1  # of the score


@dataclass(frozen=True)
class Explanation:
    """Why a window scores as it does.

    Attributes:
        bundle: that scored it.
        moment: the window.
        exact: the score taken apart; it is always there, others are compared with it.
        contributions: channels by share, with seen and expected, as an alarm tells them.
        players: parts of the window that the methods `shap` and `lime` take away.
        shap: None where it was not asked for.
        lime: None where it was not asked for.
        asked: how many scores `shap` and `lime` took.
    """

    bundle: Bundle
    moment: Moment
    exact: Exact
    contributions: tuple[Contribution, ...]
    players: tuple[Player, ...]
    shap: Shapley | None
    lime: Lime | None
    asked: int

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The bundle's."""
        return self.bundle.manifest.columns

    @cached_property
    def normal(self) -> Normal:
        """What normal running showed of the channels."""
        return Normal.from_json(self.bundle.manifest.raw.get("quality"))

    @cached_property
    def labels(self) -> dict[str, str]:
        """Column → as people read it, with the frequencies of a band."""
        return {channel.name: channel.name for channel in self.channels} | column_labels(self.bundle.manifest.groups)

    def amounts(self) -> dict[str, Floats]:
        """Method → (C,) amounts of the channels, in units of the threshold; NaN for channels that are one part."""
        by_part = {name: values for name, values in self.by_part().items() if name != "exact"}
        split = {name: _by_channel(self.players, values, len(self.channels)) for name, values in by_part.items()}
        return {"exact": self.exact.per_channel, **split}

    def agreement(self) -> dict[str, float]:
        """`exact, shap` → Spearman's rank correlation, over the parts where all members see time, else over channels.

        A pair is left out where there is no rank: one channel, or all amounts equal.
        """
        values = self.by_part()
        if "exact" not in values or len(self.players) <= len(self.channels):
            values = self.amounts()
        known = np.isfinite(list(values.values())).all(axis=0)
        pairs = {f"{a}, {b}": spearman(values[a][known], values[b][known]) for a, b in combinations(values, 2)}
        return {name: value for name, value in pairs.items() if value is not None}

    def part_name(self, player: Player) -> str:
        """`bearing_temperature, 08:12:00 to 08:12:30` as people read it."""
        several = len(player.channels) > 1
        channel = (
            f"{len(player.channels)} other channels" if several else self.labels[self.channels[player.channels[0]].name]
        )
        if player.stop - player.start == len(self.moment.window):
            return channel
        first, last = (clock(float(self.moment.time_s[row])) for row in (player.start, player.stop - 1))
        return f"{channel}, {first} to {last[11:] if last[:10] == first[:10] and len(last) > 11 else last}"

    def by_part(self) -> dict[str, Floats]:
        """Method → (M,) amounts of the players; of `exact` only where all members see instants."""
        found = {}
        if self.players and all(member.of_time for member in self.exact.members):
            over_time = self.exact.over_time(len(self.moment.window))
            sums = [over_time[p.start : p.stop, list(p.channels)].sum() for p in self.players]
            found["exact"] = np.array(sums, np.float64)
        if self.shap is not None:
            found["shap"] = self.shap.amount
        if self.lime is not None:
            found["lime"] = self.lime.amount
        return found


def explain(bundle: Bundle, moment: Moment, methods: tuple[str, ...] = METHODS, seed: int = 0) -> Explanation:
    """Explains a window's score.

    Args:
        bundle: the model and its limit.
        moment: the window.
        methods: of METHODS; `exact` is always there.
        seed: of what is drawn.

    Raises:
        TocsinError: a method's extra is missing, or the bundle has no normal golden window.
    """
    scorer, window = bundle.scorer(), moment.window
    exact = take_apart(bundle, scorer, window)
    players: tuple[Player, ...] = ()
    by_shap, by_lime, asked = None, None, 0
    if {"shap", "lime"} & set(methods):
        players = players_of(len(window), window.shape[1], exact.per_channel)
        game = Game(scorer, window, typical_window(bundle, window), players)
        by_shap = shapley(game, seed) if "shap" in methods else None
        by_lime = lime(game, seed) if "lime" in methods else None
        asked = game.asked
    normal = Normal.from_json(bundle.manifest.raw.get("quality"))
    contributions = normal.possible(scorer.explain(window, bundle.manifest.columns))
    return Explanation(bundle, moment, exact, contributions, players, by_shap, by_lime, asked)


def spearman(a: Floats, b: Floats) -> float | None:
    """Rank correlation, ties sharing their mean rank; None where either has no order.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    ranks = []
    for values in (a, b):
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    if min(np.ptp(rank) if len(rank) else 0.0 for rank in ranks) == 0:
        return None
    return round(float(np.corrcoef(ranks[0], ranks[1])[0, 1]), 12)


def _by_channel(players: tuple[Player, ...], amount: Floats, channels: int) -> Floats:
    """(C,) sums over the parts of each channel; NaN for channels that are one player together."""
    total = np.zeros(channels)
    for player, value in zip(players, amount.tolist(), strict=True):
        if len(player.channels) > 1:
            total[list(player.channels)] = np.nan
        else:
            total[player.channels[0]] += value
    return total


def words(explanation: Explanation) -> tuple[str, ...]:
    """What ails the window, a sentence a channel; those that give a tenth of the score or more, three at most."""
    told = [c for c in explanation.contributions[:NAMED] if c.share >= WORTH_NAMING]
    names = [channel.name for channel in explanation.channels]
    return tuple(_sentence(explanation, each, names.index(each.channel)) for each in told)


def _sentence(explanation: Explanation, contribution: Contribution, c: int) -> str:
    """Where the channel's largest part lies, and how far that is from what was expected."""
    members = explanation.exact.members
    member = max(members, key=lambda each: float(each.amount[:, c].sum()))
    r = int(np.argmax(member.amount[:, c]))
    share = f"{contribution.share:.0%} of the score"
    said = _difference(member, r, c, explanation.channels[c].unit, explanation.normal.of(contribution.channel))
    if member.of_time:
        row = len(explanation.moment.window) - len(member.amount) + r
        said += f" at {clock(float(explanation.moment.time_s[row]))}"
    return f"{explanation.labels[contribution.channel]} {said}; {share}"


def _difference(member: MemberPart, r: int, c: int, unit: str, known: NormalChannel | None) -> str:
    """`is 14.2 °C above expected`, at one row of a member's input."""
    row = member.rows[r]
    if member.seen is None or member.expected is None:
        return f"differs most in the model's {row.name}"
    seen, expected = float(member.seen[r, c]), float(member.expected[r, c])
    unit = f" {unit}" if unit else ""
    if member.of_time and known is not None:  # in the channel's unit: as an alarm tells it
        possible = known.possible(seen, expected)
        if possible is None:
            return f"is not as expected ({seen:.4g}{unit})"
        expected = possible
    return _reads(row, seen, expected, unit)


def _reads(row: Row, seen: float, expected: float, unit: str) -> str:
    side = "above" if seen >= expected else "below"
    if row.base == 0:
        where = f" in its {row}" if row.name else ""
        return f"is {abs(seen - expected):.3g}{unit} {side} expected{where} ({seen:.4g}, expected {expected:.4g})"
    if row.base is not None:
        factor = float(row.base ** np.clip(seen - expected, -30, 30))
        return f"has {factor:.3g} times the expected {row}"
    return f"is {side} expected in its {row}"


def explanation_json(explanation: Explanation) -> dict[str, Any]:
    """Everything as plain values.

    Keys: bundle, window {start, end, rows, row}, ratio, smoothed_ratio, threshold, score, words, channels [{channel,
    label, unit, share, seen, expected, exact, shap, lime}], members [{name, rows, amount}], parts [{part, shap, lime}],
    shap {base, error, exact}, lime {r2}, agreement, asked.
    """
    manifest, moment, exact = explanation.bundle.manifest, explanation.moment, explanation.exact
    amounts = explanation.amounts()
    names = [channel.name for channel in explanation.channels]
    by_shap, by_lime = explanation.shap, explanation.lime
    return {
        "bundle": f"{manifest.name}-{manifest.version}",
        "window": {
            "start": clock(float(moment.time_s[0])),
            "end": clock(float(moment.time_s[-1])),
            "rows": len(moment.window),
            "row": moment.row,
        },
        "threshold": manifest.threshold.value,
        "score": exact.ratio * manifest.threshold.value,
        "ratio": exact.ratio,
        "smoothed_ratio": moment.smoothed,
        "words": list(words(explanation)),
        "channels": [
            {
                "channel": each.channel,
                "label": explanation.labels[each.channel],
                "unit": explanation.channels[names.index(each.channel)].unit,
                "share": each.share,
                "seen": each.seen,
                "expected": each.expected,
                **{name: _finite(float(values[names.index(each.channel)])) for name, values in amounts.items()},
            }
            for each in explanation.contributions
        ],
        "members": [
            {"name": member.name, "rows": [row.name for row in member.rows], "amount": member.amount.tolist()}
            for member in exact.members
        ],
        "parts": [
            {
                "part": explanation.part_name(player),
                "rows": [player.start, player.stop],
                **({} if by_shap is None else {"shap": float(by_shap.amount[n])}),
                **({} if by_lime is None else {"lime": float(by_lime.amount[n])}),
            }
            for n, player in enumerate(explanation.players)
        ],
        "shap": None if by_shap is None else {"base": by_shap.base, "error": by_shap.error, "exact": by_shap.exact},
        "lime": None if by_lime is None else {"r2": by_lime.r2},
        "agreement": explanation.agreement(),
        "asked": explanation.asked,
    }


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
