"""What is searched: one choice of each knob, as words that a study can keep, and the options that they stand for.

Rules: what the user gave stays as given and is not searched; the first choice of each knob is what `tocsin train` does
by itself. No family has a knob of its own for its size: its window decides that.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

from tocsin.errors import ConfigError
from tocsin_trainer import dataset as ds
from tocsin_trainer import inputs
from tocsin_trainer.input_settings import DespikeSettings, FeatureName, MedianSettings, ScalingName, StepSettings
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.options import TrainOptions

PANEL, AUTO, GIVEN, NONE = "panel", "auto", "given", "none"
FEATURES: dict[str, tuple[FeatureName, ...]] = {
    "slow": ("signal", "level_unrest", "window_statistics", "log_spectrum"),
    "cycle": ("signal", "level_unrest", "window_statistics", "log_spectrum"),
    "vibration": ("log_spectrum", "log_mel", "envelope_spectrum", "band_energies"),
}
CLEAN: dict[str, tuple[StepSettings, ...] | None] = {
    AUTO: None,
    NONE: (),
    "despike": (DespikeSettings(step="despike"),),
    "median": (MedianSettings(step="median"),),
}
SCALING: tuple[str, ...] = (AUTO, "robust", "standard", "minmax")
AUGMENT: dict[str, tuple[str, ...] | None] = {
    AUTO: None,
    NONE: (),
    "jitter,mask": ("jitter", "mask"),
    "mask,drop": ("mask", "drop"),
}
SPANS = (0.5, 2.0)  # of the default window, that are tried too
LEAST, MOST = 8, 4096  # rows a window
WINDOWS_IN_ALL = 24  # of the longest kind, end to end: eight a block

Choice = dict[str, str | int]
"""A value of each knob: `model`, `window`, `features`, `scaling`, `clean`, and `augment` of a network."""


@dataclass(frozen=True)
class Space:
    """Values of each knob, the default first.

    Attributes:
        models: families, or `panel` for the linear ensemble of such a signal.
        windows: rows.
        features: names, `auto`, or `given`.
        scaling: names, `auto`, or `given`.
        clean: keys of CLEAN, or `given`.
        augment: keys of AUGMENT, or `given`; of networks alone.
        panel: families of the linear ensemble.
        hop: rows between windows.
        base: what the user asked for.
    """

    models: tuple[str, ...]
    windows: tuple[int, ...]
    features: tuple[str, ...]
    scaling: tuple[str, ...]
    clean: tuple[str, ...]
    augment: tuple[str, ...]
    panel: tuple[str, ...]
    hop: int
    base: TrainOptions

    @property
    def knobs(self) -> dict[str, list[str | int]]:
        """Values by knob, for a study to remember."""
        return {
            "model": [*self.models],
            "window": [*self.windows],
            "features": [*self.features],
            "scaling": [*self.scaling],
            "clean": [*self.clean],
            "augment": [*self.augment],
        }

    @property
    def default(self) -> Choice:
        """What `tocsin train` does by itself."""
        return {name: values[0] for name, values in self.knobs.items() if self._has(self.models[0], name)}

    def suggested(self, trial: Any) -> Choice:
        """A choice by an optuna trial."""
        choice: Choice = {}
        for name, values in self.knobs.items():
            if self._has(str(choice.get("model")), name):
                choice[name] = trial.suggest_categorical(name, values)
        return choice

    def options(self, choice: Choice) -> TrainOptions:
        """The options that the words stand for."""
        base, model, length = self.base, str(choice["model"]), int(choice["window"])
        shown, how = base.inputs, base.fitting
        if choice["features"] != GIVEN:
            features = None if choice["features"] == AUTO else (cast(FeatureName, choice["features"]),)
            shown = replace(shown, features=features)
        if choice["scaling"] != GIVEN:
            scaling = None if choice["scaling"] == AUTO else cast(ScalingName, choice["scaling"])
            shown = replace(shown, scaling=scaling)
        if choice["clean"] != GIVEN:
            shown = replace(shown, clean=CLEAN[str(choice["clean"])])
        if choice.get("augment", GIVEN) != GIVEN:
            how = replace(how, augment=AUGMENT[str(choice["augment"])])
        families = self.panel if model == PANEL else (model,)
        hop = self.hop if base.hop or self.hop >= length else min(self.hop, length // 2)
        return replace(base, families=families, window=length, hop=hop, inputs=shown, fitting=how)

    @staticmethod
    def _has(model: str, knob: str) -> bool:
        """Whether the model has this knob: linear ones are not augmented."""
        return knob != "augment" or (model != PANEL and FAMILIES[model].epochs > 0)


def space(data: ds.Dataset, base: TrainOptions) -> Space:
    """What can be searched for such recordings.

    Args:
        data: normal running, without labels.
        base: what the user asked for; `families` bounds the models.

    Raises:
        DataError: the recordings are too short for the window that was asked for.
        ConfigError: none of the families is for such a signal.
    """
    length, hop, _ = ds.choose_window(data, base.window, base.hop)
    kind = inputs.signal(data.sample_rate_hz, length, hop)
    suited = tuple(name for name in base.families if name not in inputs.UNSUITED.get(kind, ()))
    if not suited:
        raise ConfigError(f"families: {', '.join(base.families)} say nothing of a {kind} signal: name others")
    panel = inputs.panel(kind, len(data.channels))
    models = (*panel, *(name for name in suited if name not in panel)) if set(panel) <= set(suited) else suited
    if len(panel) > 1 and set(panel) <= set(suited):
        models = (PANEL, *models)
    given, how = base.inputs, base.fitting
    return Space(
        models=models,
        windows=(length,) if base.window or kind == "cycle" else (length, *_other_windows(data, length, hop)),
        features=(AUTO, *FEATURES[kind]) if given.features is None else (GIVEN,),
        scaling=SCALING if given.scaling is None else (GIVEN,),
        clean=tuple(CLEAN) if given.clean is None else (GIVEN,),
        augment=tuple(AUGMENT) if how.augment is None else (GIVEN,),
        panel=panel,
        hop=hop,
        base=base,
    )


def _other_windows(data: ds.Dataset, length: int, hop: int) -> tuple[int, ...]:
    """Shorter and longer ones, as far as windows enough remain, and each overlaps the next."""
    longest = max(map(len, data.stretches))
    tried = (int(length * part) for part in SPANS)
    fits = min(longest, len(data) // WINDOWS_IN_ALL)
    return tuple(each for each in tried if LEAST <= each <= min(MOST, fits) and (each > length or hop < each))
