"""False alarms: how many were asked for, how many are promised, and how many there were.

Rules: a rate is alarm episodes an hour of normal running, as the detector counts them: after on-delay, off-delay and
hysteresis. People write and read `1/week`. The promise is an interval; what the recording cannot support is refused in
words, and the interval is then what has to be expected. What is counted is every alarm: whoever counts decides which
running was normal.
"""

import math
import re
from dataclasses import asdict, dataclass
from typing import Any, Self

from tocsin.errors import BundleError, ConfigError

HOURS = {"hour": 1.0, "day": 24.0, "week": 168.0, "month": 730.5, "year": 8766.0}
SURPRISE = 0.01  # so improbable has a count to be, even at the upper rate, for a promise to be broken
SHARP = 4.0  # times the upper rate: an interval that reaches further tells little
HARDLY_EVER = 0.1 / HOURS["year"]
NINE_IN_TEN = 1.645  # deviations of the normal law on each side


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


def estimate_text(low: float, high: float) -> str:
    """An estimated rate, from low to high times an hour: no more digits than an estimate has.

    >>> estimate_text(1.7 / 730.5, 5.1 / 168), estimate_text(1e-13, 450), estimate_text(0.0, 0.0)
    ('2/month to 5/week', 'up to 450/hour', 'less than one in ten years')
    """
    if high < HARDLY_EVER:
        return "less than one in ten years"
    if low < HARDLY_EVER:
        return f"up to {_rounded(high)}"
    digits = 1 if _rounded(low) != _rounded(high) else 2
    ends = dict.fromkeys((_rounded(low, digits), _rounded(high, digits)))
    return " to ".join(ends) if len(ends) > 1 else f"about {next(iter(ends))}"


def _rounded(per_hour: float, digits: int = 1) -> str:
    """In the first unit in which it is 1 or more, with so many digits; with two from ten on."""
    unit = next((unit for unit, hours in HOURS.items() if per_hour * hours >= 0.95), "year")
    count = per_hour * HOURS[unit]
    return f"{float(f'{count:.{digits if count < 10 else 2}g}'):.12g}/{unit}"


def hours_text(hours: float) -> str:
    """Hours as a person says them.

    >>> hours_text(0.3), hours_text(5), hours_text(100), hours_text(2000)
    ('18 minutes', '5 hours', '4.2 days', '12 weeks')
    """
    units = (("week", HOURS["week"]), ("day", HOURS["day"]), ("hour", 1.0), ("minute", 1 / 60))
    unit, size = next((u, size) for u, size in units if hours >= 3 * size or u == "minute")
    return f"{hours / size:.2g} {unit}s" if hours < 100 * size else f"{hours / size:.0f} {unit}s"


@dataclass(frozen=True)
class Tally:
    """Alarms counted in normal running.

    Attributes:
        episodes: that began.
        hours: of running in which no alarm was on.
    """

    episodes: int = 0
    hours: float = 0.0

    def between(self) -> tuple[float, float]:
        """The interval that holds the rate nine times in ten, an hour, as if no alarm made another one likelier.

        Byar's approximation of the exact limits of a Poisson mean (Breslow & Day, Statistical Methods in Cancer
        Research II, 1987).

        >>> [round(rate, 2) for rate in Tally(10, 1.0).between()], Tally().between()
        ([5.42, 16.96], (0.0, inf))
        """
        if self.hours <= 0:
            return 0.0, math.inf
        n = self.episodes
        low = n * max(0.0, 1 - 1 / (9 * n) - NINE_IN_TEN / (3 * math.sqrt(n))) ** 3 if n else 0.0
        high = (n + 1) * (1 - 1 / (9 * (n + 1)) + NINE_IN_TEN / (3 * math.sqrt(n + 1))) ** 3
        return low / self.hours, high / self.hours

    def sentence(self, of: str = "normal running") -> str:
        """The count and its rate, in words; `of` says what was counted in."""
        many = f"{self.episodes} alarm{'s' * (self.episodes != 1)} in {hours_text(self.hours)} of {of}"
        low, high = self.between()
        if not self.hours:
            return many
        return f"{many}, {estimate_text(low, high)}"


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
        between = estimate_text(self.low, self.high)
        if not self.refused:
            return (
                f"about {rate_text(self.expected)} false alarms, nine times in ten {between}, "
                f"from {hours_text(self.hours)} of normal running"
            )
        return (
            f"{rate_text(self.asked)} false alarms cannot be promised: {hours_text(self.hours)} of normal running are "
            f"too few to tell. Expect {between}. Record about {hours_text(self.needed_hours)} of normal running and "
            "train again"
        )

    def broken_by(self, episodes: int, hours: float) -> bool:
        """So many episodes in so many hours of normal running that even the upper rate hardly explains them.

        >>> Promise(1 / 168, 1 / 168, 0.003, 0.01, 2000, 12, 2000, False).broken_by(2, 168)
        False
        """
        mean = self.high * hours
        if hours <= 0 or episodes <= mean:
            return False
        return mean <= 0 or _surprising(episodes, mean)

    def measured(self, tally: Tally, of: str = "normal running") -> str:
        """What was counted, in running of that kind, beside what is promised, in words."""
        counted = tally.sentence(of)
        expected = f"expected {estimate_text(self.low, self.high)}"
        if self.broken_by(tally.episodes, tally.hours):
            return f"{counted}: more than {'expected' if self.refused else 'promised'} ({expected})"
        low, high = tally.between()
        if low > self.high or (tally.hours > 0 and high < self.low):
            return f"{counted}: {'more' if low > self.high else 'less'} than expected ({expected})"
        few = "" if high <= SHARP * self.high else ", too short to tell more"
        kept = "as expected, nothing was promised" if self.refused else "as promised"
        return f"{counted}: {kept} ({expected}){few}"

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


def _surprising(count: int, mean: float) -> bool:
    """Whether so many or more, of a Poisson law with a smaller mean, have a chance below `SURPRISE`.

    Each further term is a smaller part of the one before, so that a geometric series bounds the rest: one term or two
    decide, whatever the count, but where the chance is close to `SURPRISE`.
    """
    chance, k = 0.0, count
    term = math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
    while chance < SURPRISE:
        k += 1
        if chance + term / (1.0 - mean / k) < SURPRISE:
            return True
        chance += term
        term *= mean / k
    return False
