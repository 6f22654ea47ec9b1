"""What a signal is, what each family is shown of it, and which linear models look at it together.

| signal    | is                                            | t2           | the others        | panel                |
|-----------|-----------------------------------------------|--------------|-------------------|----------------------|
| slow      | process values                                | level_unrest | the signal itself | t2, pca, pca_short   |
| cycle     | windows in step with a machine's cycle        | level_unrest | the signal itself | t2, adjusted_limits  |
| vibration | 400 Hz or more                                | log_spectrum | log_spectrum      | t2                   |

The panel is the linear ensemble that ships unless a network is clearly better: its members see different things, and
each alone misses some. With one channel it is t2 alone: what PCA leaves over are broken relations between channels.
The constants come from the windows that a family is fitted on; those of cleaning from the training part.
"""

from dataclasses import dataclass

import numpy as np

from tocsin.core.preprocess import Limit, Preprocessor, Step
from tocsin.errors import DataError
from tocsin.records import Channel, Floats, Floats32
from tocsin_trainer.dataset import VIBRATION_HZ
from tocsin_trainer.features import chosen_features, feature_step
from tocsin_trainer.options import InputOptions
from tocsin_trainer.results import Choice
from tocsin_trainer.steps import cleaning_steps, scaling

PANELS = {"slow": ("t2", "pca", "pca_short"), "cycle": ("t2", "adjusted_limits"), "vibration": ("t2",)}
UNSUITED = {"slow": ("adjusted_limits",), "cycle": ("pca_short",), "vibration": ("pca_short", "adjusted_limits")}
WHY_UNSUITED = {
    "pca_short": "pca_short looks at the later half of a window",
    "adjusted_limits": "adjusted_limits look at each moment of a machine's cycle",
}
LIMIT = 1000.0  # scales: far outside of anything a model explains, yet its square is finite
CYCLE_PARTS, PART_ROWS = 12, 10  # of a window in step with a cycle, at most; rows a part, at least
CHUNK = 256  # windows transformed at once


@dataclass(frozen=True)
class Inputs:
    """What is common to all families: what the signal is, and how it is cleaned.

    Attributes:
        kind: `slow`, `cycle` or `vibration`.
        sample_rate_hz: of the grid.
        clean: steps before all else.
        options: what the user asked for.
    """

    kind: str
    sample_rate_hz: float
    clean: tuple[Step, ...] = ()
    options: InputOptions = InputOptions()

    @property
    def shows_time(self) -> bool:
        """Whether the rows that networks are shown follow one another in time."""
        asked = self.options.features
        return asked == ("signal",) if asked is not None else self.kind != "vibration"

    def fitted(self, family: str, windows: Floats) -> Preprocessor:
        """The family's steps: cleaning, features, standardisation, with constants from these windows.

        Args:
            family: name in `tocsin_trainer.models.FAMILIES`.
            windows: (N, T, C) that the family is fitted on, engineering units.

        Raises:
            DataError: the family has nothing to say of such a signal.
        """
        if family in UNSUITED.get(self.kind, ()):
            raise DataError(f"{WHY_UNSUITED[family]}, which means nothing for a {self.kind} signal")
        cleaned: Floats = windows
        for step in self.clean:
            cleaned = step.transform(cleaned)
        steps = (*self.clean, *self._features(family, cleaned))
        by_row = len(steps) > len(self.clean) or self.kind == "cycle"
        values: Floats = prepared(Preprocessor(steps), windows).astype(np.float64) if steps else windows
        return Preprocessor(
            (
                *steps,
                scaling(self.options.scaling, values if by_row else values.reshape(-1, values.shape[2])),
                Limit(LIMIT),
            )
        )

    def _features(self, family: str, windows: Floats) -> tuple[Step, ...]:
        """None where the signal itself is shown."""
        length = windows.shape[1]
        parts = max(1, min(CYCLE_PARTS, length // PART_ROWS)) if self.kind == "cycle" else 1
        chosen = chosen_features(self.options, windows, self.sample_rate_hz, parts)
        if chosen is not None:
            return chosen
        if self.kind == "vibration":
            return (feature_step("log_spectrum", windows, self.sample_rate_hz),)
        if family == "t2":
            return (feature_step("level_unrest", windows, self.sample_rate_hz, segments=parts),)
        return ()


def signal(sample_rate_hz: float, length: int, hop: int) -> str:
    """`slow`, `cycle` or `vibration`: windows that do not overlap follow a machine's cycle, one after the other."""
    if sample_rate_hz >= VIBRATION_HZ:
        return "vibration"
    return "cycle" if hop >= length else "slow"


def choose(
    windows: Floats, sample_rate_hz: float, hop: int, channels: tuple[Channel, ...], options: InputOptions
) -> tuple[Inputs, tuple[Choice, ...]]:
    """What the signal is, and its cleaning.

    Args:
        windows: (N, T, C) of the training part, engineering units.
        sample_rate_hz: of the grid.
        hop: rows from window to window.
        channels: in the order of the columns.
        options: what the user asked for.

    Raises:
        ConfigError: a step that was asked for does not fit the channels or the windows.
    """
    clean, choices = cleaning_steps(options, windows, sample_rate_hz, channels)
    return Inputs(signal(sample_rate_hz, windows.shape[1], hop), sample_rate_hz, clean, options), choices


def panel(kind: str, channels: int) -> tuple[str, ...]:
    """Families of the linear ensemble for a signal of this kind."""
    return PANELS[kind] if channels > 1 else ("t2",)


def standardised(windows: Floats) -> Preprocessor:
    """The signal itself by its channels' mean and standard deviation: made-up anomalies are measured in these."""
    return Preprocessor((scaling(None, windows.reshape(-1, windows.shape[2])), Limit(LIMIT)))


def prepared(preprocessor: Preprocessor, windows: Floats) -> Floats32:
    """(N, rows(T), C) as the model sees the windows, without all of the intermediate results at once."""
    out = np.empty((len(windows), preprocessor.rows(windows.shape[1]), windows.shape[2]), np.float32)
    for start in range(0, len(windows), CHUNK):
        out[start : start + CHUNK] = preprocessor.transform(windows[start : start + CHUNK])
    return out
