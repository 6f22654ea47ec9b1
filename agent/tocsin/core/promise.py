"""False alarms: how many were asked for, and how many are promised.

Rules: a rate is alarm episodes an hour of normal running, as the detector counts them: after on-delay, off-delay and
hysteresis. People write and read `1/week`. The promise is an interval; what the recording cannot support is refused in
words, and the interval is then what has to be expected.
"""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Self

from tocsin.errors import BundleError, ConfigError

HOURS = {"hour": 1.0, "day": 24.0, "week": 168.0, "month": 730.5, "year": 8766.0}
SURPRISE = 0.01  # so improbable has a count to be, even at the upper rate, for a promise to be broken


def parse_rate(text: str) -> float:
    """`1/week`, `2/day`, `0.5/year` → times an hour.

    Raises:
        ConfigError: anything else.

    >>> parse_rate("7/week") == parse_rate("1/day")
    True
    """
    found = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*/\s*([a-z]+?)s?\s*", text.lower())
    if found is None or found[2] not in HOURS or float(found[1]) <= 0:
        raise ConfigError(
            f"false alarms {text[:40]!r}: expected a number above 0, a slash and one of {', '.join(HOURS)}, "
            "such as 1/week, 2/day or 0.5/year"
        )
    return float(found[1]) / HOURS[found[2]]


def rate_text(per_hour: float) -> str:
    """Times an hour → the first unit in which it is 1 or more.

    >>> rate_text(1 / 168), rate_text(3 / 24), rate_text(0.5 / 8766)
    ('1/week', '3/day', '0.5/year')
    """
    unit = next((unit for unit, hours in HOURS.items() if per_hour * hours >= 0.995), "year")
    return (
        f"{per_hour * HOURS[unit]:.2g}/{unit}"
        if per_hour * HOURS[unit] < 100
        else f"{per_hour * HOURS[unit]:.0f}/{unit}"
    )


def hours_text(hours: float) -> str:
    """Hours as a person says them.

    >>> hours_text(5), hours_text(100), hours_text(2000)
    ('5 hours', '4.2 days', '12 weeks')
    """
    unit, size = next((u, HOURS[u]) for u in ("week", "day", "hour") if hours >= 3 * HOURS[u] or u == "hour")
    return f"{hours / size:.2g} {unit}s" if hours < 100 * size else f"{hours / size:.0f} {unit}s"


@dataclass(frozen=True)
class Promise:
    """What a limit promises of false alarms in normal running; all rates in episodes an hour.

    Attributes:
        asked: by the user.
        expected: at the limit that ships.
        low: end of the interval that holds the rate nine times in ten.
        high: its other end.
        hours: of normal running that the limit comes from.
        episodes: that the limit's own detector finds in them.
        needed_hours: of normal running that would support what was asked; `hours` where they do.
        refused: the recording does not support what was asked.
    """

    asked: float
    expected: float
    low: float
    high: float
    hours: float
    episodes: int
    needed_hours: float
    refused: bool

    @property
    def promised(self) -> float:
        """The rate that is promised: what was asked, or, where that is refused, what has to be expected at most."""
        return self.high if self.refused else self.asked

    def sentence(self) -> str:
        """The promise, or the refusal, in words."""
        between = f"between {rate_text(self.low)} and {rate_text(self.high)}"
        if not self.refused:
            return (
                f"about {rate_text(self.expected)} false alarms, nine times in ten {between}, "
                f"from {hours_text(self.hours)} of normal running"
            )
        return (
            f"{rate_text(self.asked)} false alarms cannot be promised: {hours_text(self.hours)} of normal running do "
            f"not show it. The limit is the best guess, {rate_text(self.expected)}; expect {between}. About "
            f"{hours_text(self.needed_hours)} of normal running would support it"
        )

    def broken_by(self, episodes: int, hours: float) -> bool:
        """So many episodes in so many hours of normal running that even the upper rate hardly explains them.

        >>> Promise(1 / 168, 1 / 168, 0.003, 0.01, 2000, 12, 2000, False).broken_by(2, 168)
        False
        """
        mean = self.high * hours
        term, below = math.exp(-mean), 0.0
        for k in range(episodes):
            below += term
            term *= mean / (k + 1)
        return mean < 700 and 1.0 - below < SURPRISE

    def to_json(self) -> dict[str, Any]:
        """The manifest's form, with the sentence for who reads it."""
        return {**asdict(self), "promised": self.promised, "sentence": self.sentence()}

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form.

        Raises:
            BundleError: a rate is missing or cannot be.
        """
        names = ("asked", "expected", "low", "high", "hours", "needed_hours")
        try:
            values = {name: float(form[name]) for name in names}
            episodes, refused = int(form["episodes"]), bool(form["refused"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"the manifest's promise is damaged: {error}") from error
        ordered = 0 <= values["low"] <= values["high"] and episodes >= 0
        if not ordered or not all(0 <= value < math.inf for value in values.values()):
            raise BundleError("the manifest's promise is damaged: expected finite rates of 0 or more, low before high")
        return cls(episodes=episodes, refused=refused, **values)
