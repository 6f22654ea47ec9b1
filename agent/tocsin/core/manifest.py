"""The manifest of a bundle: its form, read and checked.

Rules: unknown keys are kept in `raw`; an unknown `format`, and a way to make scores that this agent does not know, are
refused; what is out of the ordinary is a BundleError that names it.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tocsin.core.groups import RateGroups
from tocsin.core.modes import Modes, modes_from_json
from tocsin.core.preprocess import Preprocessor
from tocsin.core.scoring import COMBINATIONS, KINDS
from tocsin.core.threshold import Threshold
from tocsin.errors import BundleError
from tocsin.records import Channel, Floats

FORMAT = 1
MAX_MEMBERS = 32
MAX_VALUES = 1 << 22  # of a window, all channels together
SCORING = {
    "reduction": ("mean_square",),
    "combination": COMBINATIONS,
    "smoothing": ("geometric_ewma", "geometric_ewma_by_mode"),
}
SUM_OF_WEIGHTS = 1e-6  # part by which it may miss the number of members: they are written in decimals


def _check_scoring(score: dict[str, Any]) -> None:
    """Refuses a way to make scores that this agent does not know."""
    asked = {**{key: score[key] for key in ("reduction", "combination")}, "smoothing": score["smoothing"]["method"]}
    for key, known in SCORING.items():
        if asked[key] not in known:
            raise BundleError(
                f"scores are to be made by {key} {asked[key]!r}, this agent knows {', '.join(known)}: update it"
            )


@dataclass(frozen=True)
class MemberFile:
    """One model of the bundle, as the manifest tells of it.

    Attributes:
        name: unique in the bundle, usually the family.
        family: `conv_ae`, `lstm_ae`, `pca`, …
        file: its .tflite, one window a call.
        batch_file: the same for many windows a call, or None.
        precision: `int8`, `dynamic` or `float32`.
        kind: how its output becomes a residual, see `scoring`.
        preprocessor: engineering units → its input.
        normaliser: its typical score in normal running.
        weight: in the combination; all of them have mean 1.
        input_range: of a linear model: lowest and highest number that its int8 form can tell from others.
    """

    name: str
    family: str
    file: str
    batch_file: str | None
    precision: str
    kind: str
    preprocessor: Preprocessor
    normaliser: float
    weight: float = 1.0
    input_range: tuple[float, float] | None = None

    @classmethod
    def from_json(cls, form: dict[str, Any]) -> Self:
        """From the manifest's form."""
        batch_file = form.get("batch_file")
        return cls(
            name=str(form["name"]),
            family=str(form["family"]),
            file=str(form["file"]),
            batch_file=None if batch_file is None else str(batch_file),
            precision=str(form["precision"]),
            kind=str(form["kind"]),
            preprocessor=Preprocessor.from_json(form["preprocess"]),
            normaliser=float(form["normaliser"]),
            weight=float(form.get("weight", 1.0)),
            input_range=_range(form.get("input_range")),
        )


@dataclass(frozen=True)
class Manifest:
    """What the agent reads of manifest.json; `raw` keeps all of it.

    Attributes:
        name: of the model line, usually the asset's id.
        version: of this bundle.
        groups: the channels by their rates, and the grid that they are joined on.
        length: rows a window.
        hop: rows from one window to the next.
        members: models, each with its preprocessing.
        channel_weights: (C,) of the columns, mean 1.
        combination: of the members' scores, one of `scoring.COMBINATIONS`.
        smoothing: span of the exponentially weighted geometric mean of the scores, windows; 1 = none.
        threshold: the limit on the score.
        modes: what tells a window's operating mode, where there is a limit for each, or None.
        alarm: defaults of the detector, as written.
        raw: the whole document.
    """

    name: str
    version: str
    groups: RateGroups
    length: int
    hop: int
    members: tuple[MemberFile, ...]
    channel_weights: Floats
    combination: str
    smoothing: int
    threshold: Threshold
    modes: Modes | None
    alarm: dict[str, Any]
    raw: dict[str, Any]

    @property
    def channels(self) -> tuple[Channel, ...]:
        """What sensors give and alarms name."""
        return self.groups.channels

    @property
    def columns(self) -> tuple[Channel, ...]:
        """(C,) what models see: the channels, where there is one group."""
        return self.groups.columns

    @property
    def sample_rate_hz(self) -> float:
        """Rows a second of the grid."""
        return self.groups.sample_rate_hz

    @property
    def max_gap_s(self) -> float:
        """Longest stretch over which values are held on the grid."""
        return self.groups.max_gap_s

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Checks and reads the document.

        Raises:
            BundleError: an unknown format, or a key that is missing or of the wrong kind.
        """
        if raw.get("format") != FORMAT:
            raise BundleError(
                f"the bundle has format {raw.get('format')!r}, this agent reads format {FORMAT}: "
                "update the agent, or train again with its version"
            )
        try:
            groups, score = RateGroups.from_json(raw), raw["score"]
            _check_scoring(score)
            members = tuple(MemberFile.from_json(form) for form in raw["members"])
            manifest = cls(
                name=str(raw["name"]),
                version=str(raw["version"]),
                groups=groups,
                length=int(raw["window"]["length"]),
                hop=int(raw["window"]["hop"]),
                members=members,
                channel_weights=np.asarray(score["channel_weights"], np.float64),
                combination=str(score["combination"]),
                smoothing=int(score["smoothing"]["span"]),
                threshold=Threshold.from_json(raw["threshold"]),
                modes=_modes(raw, tuple(c.name for c in groups.columns)),
                alarm=dict(raw["alarm"]),
                raw=raw,
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise BundleError(f"manifest.json is damaged at {error}: build the bundle again") from error
        wrong = manifest._first_wrong()
        if wrong:
            raise BundleError(f"manifest.json is damaged: {wrong}")
        return manifest

    def _first_wrong(self) -> str | None:
        """The first value outside of what can be, as a sentence."""
        weights = self.channel_weights
        fits = 1 <= self.length <= 1 << 20 and self.length * len(self.columns) <= MAX_VALUES
        few = len(self.members) <= MAX_MEMBERS
        checks = (
            (
                bool(self.columns and self.members) and weights.shape == (len(self.columns),),
                "it needs at least one channel, one member, and one weight a channel",
            ),
            (few, f"{len(self.members)} members, at most {MAX_MEMBERS} are taken"),
            (bool((np.isfinite(weights) & (weights >= 0)).all()), "channel weights must be 0 or more"),
            (
                fits and 1 <= self.hop <= 1 << 20 and 1 <= self.smoothing <= 1 << 20,
                f"window of {self.length} rows of {len(self.columns)} channels, hop of {self.hop}, "
                f"smoothing over {self.smoothing} windows",
            ),
            (
                all(0 < member.normaliser < np.inf and member.kind in KINDS for member in self.members),
                f"a member's normaliser must be above 0 and its kind one of {', '.join(KINDS)}",
            ),
            (
                all(member.weight >= 0 for member in self.members)
                and abs(sum(member.weight for member in self.members) / max(1, len(self.members)) - 1) < SUM_OF_WEIGHTS,
                "the weights of the members must be 0 or more and have mean 1",
            ),
            (
                len(self.threshold.limits) == (0 if self.modes is None else len(self.modes)),
                f"{len(self.threshold.limits)} limits for {0 if self.modes is None else len(self.modes)} modes",
            ),
            (
                fits and few and all(self._takes_its_channels(member) for member in self.members),
                f"a preprocessing that is not for {self.length} rows of {len(self.columns)} channels",
            ),
        )
        return next((text for good, text in checks if not good), None)

    def _takes_its_channels(self, member: MemberFile) -> bool:
        if not member.preprocessor.takes(len(self.columns)):
            return False  # numpy would spread the window over them
        window = np.zeros((1, self.length, len(self.columns)))
        try:
            expected = (1, member.preprocessor.rows(self.length), len(self.columns))
            return member.preprocessor.transform(window).shape == expected
        except (ValueError, ArithmeticError):
            return False


def _modes(raw: dict[str, Any], channels: tuple[str, ...]) -> Modes | None:
    """Both the block and the smoothing name the modes: an agent that does not know them refuses the smoothing."""
    by_mode = raw["score"]["smoothing"]["method"] == "geometric_ewma_by_mode"
    if by_mode != ("modes" in raw):
        raise BundleError("manifest.json is damaged: `modes` and the smoothing `geometric_ewma_by_mode` go together")
    return modes_from_json(raw["modes"], channels) if by_mode else None


def _range(form: Any) -> tuple[float, float] | None:
    if form is None:
        return None
    low, high = (float(value) for value in form)
    if not -np.inf < low < 0 < high < np.inf:
        raise ValueError("input_range: expected a finite number below 0 and one above")
    return low, high
