"""The score taken apart, exactly: what each row and channel of each member's input gives to it.

Rule: amounts are in units of the threshold and sum to the window's ratio, whatever the members.
"""

from dataclasses import dataclass

import numpy as np

from tocsin.core.bundle import Bundle
from tocsin.core.preprocess import Preprocessor
from tocsin.core.scoring import Member, Scorer
from tocsin.records import Floats, Floats32
from tocsin_trainer.explain.rows import Row, rows_of


@dataclass(frozen=True)
class MemberPart:
    """What one member gives to the ratio.

    Attributes:
        name: of the member.
        rows: R of them, what they are.
        amount: (R, C) part of the ratio.
        seen: (R, C) what the model was shown, in the unit of its rows; None where rows are the model's own.
        expected: (R, C) what it made of it, or what is usual where it does not rebuild.
    """

    name: str
    rows: tuple[Row, ...]
    amount: Floats
    seen: Floats | None
    expected: Floats | None

    @property
    def of_time(self) -> bool:
        """Its rows are instants: the last R of the window."""
        return not any(row.name for row in self.rows)


@dataclass(frozen=True)
class Exact:
    """The whole of it.

    Attributes:
        ratio: score / threshold of the window by itself, before smoothing.
        per_channel: (C,) part of the ratio.
        members: one each.
        rebuilt: (n, C) what the members make of the last n rows, engineering units; None where none rebuilds.
    """

    ratio: float
    per_channel: Floats
    members: tuple[MemberPart, ...]
    rebuilt: Floats | None

    def share(self) -> Floats:
        """(C,) part of the whole, sums to 1."""
        return self.per_channel / self.ratio if self.ratio > 0 else np.zeros_like(self.per_channel)

    def over_time(self, length: int) -> Floats:
        """(T, C) part of the ratio that members give to instants of the window; features belong to none."""
        total = np.zeros((length, len(self.per_channel)))
        for member in self.members:
            if member.of_time:
                total[length - len(member.amount) :] += member.amount
        return total


def take_apart(bundle: Bundle, scorer: Scorer, window: Floats) -> Exact:
    """Takes the score of one (T, C) window in engineering units apart."""
    manifest, limit = bundle.manifest, bundle.manifest.threshold.value
    amounts = [amount / limit for amount in scorer.attribution(window)]
    parts = tuple(
        _part(file.name, member, amount, window, manifest.sample_rate_hz)
        for file, member, amount in zip(manifest.members, scorer.members, amounts, strict=True)
    )
    per_channel = np.sum([amount.sum(axis=0) for amount in amounts], axis=0)
    return Exact(float(per_channel.sum()), per_channel, parts, scorer.rebuilt(window))


def _part(name: str, member: Member, amount: Floats, window: Floats, rate: float) -> MemberPart:
    rows = rows_of(member.preprocessor, len(window), rate)
    prepared = member.preprocessor.transform(window[None])
    if member.kind in ("whiten", "limits"):
        made = np.zeros_like(prepared) if len(amount) == len(rows) else None
    else:  # means first, where it also tells deviations
        made = member.model.predict(prepared)[:, : len(amount)]
    if made is None:
        own = tuple(Row(f"component {n + 1}", None) for n in range(len(amount)))
        return MemberPart(name, own, amount, None, None)
    whole = prepared.copy()
    whole[:, -len(amount) :] = made
    seen, expected = (_unscaled(member.preprocessor, values)[-len(amount) :] for values in (prepared, whole))
    return MemberPart(name, rows[-len(amount) :], amount, seen, expected)


def _unscaled(preprocessor: Preprocessor, prepared: Floats32) -> Floats:
    """(R, C) what the model sees, back to the unit of its rows: as far as the steps can be undone."""
    values: Floats = prepared.astype(np.float64)
    for step in reversed(preprocessor.steps):
        before = step.inverse(values)
        if before is None:
            break
        values = before
    shown: Floats = values[0]
    return shown
