"""What the user asked of a training run. Imports nothing heavy: the command line reads it before it knows the task."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tocsin.alarms.detector import AlarmRule
from tocsin.recordings import TableOptions
from tocsin_trainer.calibrate import ThresholdRule
from tocsin_trainer.input_settings import FeatureName, ScalingName, StepSettings

FAMILIES = ("t2", "pca", "conv_ae", "lstm_ae")  # trained unless others are named
ALL_FAMILIES = (
    "t2",
    "pca",
    "dense_ae",
    "conv_ae",
    "lstm_ae",
    "dense_vae",
    "conv_vae",
    "conv_predictor",
    "lstm_predictor",
    "latent_ae",
)


@dataclass(frozen=True)
class InputOptions:
    """What models are shown of the signals; None = chosen from the data.

    Attributes:
        clean: steps before all else, in order; () = none.
        features: shown side by side; `signal` alone is the signal itself.
        scaling: `robust`, `standard` or `minmax`.
        bands_hz: of `band_energies`, low and high; () = octaves.
        envelope_hz: band whose envelope `envelope_spectrum` shows; None = the upper half of what the rate allows.
    """

    clean: tuple[StepSettings, ...] | None = None
    features: tuple[FeatureName, ...] | None = None
    scaling: ScalingName | None = None
    bands_hz: tuple[tuple[float, float], ...] = ()
    envelope_hz: tuple[float, float] | None = None


@dataclass(frozen=True)
class TrainOptions:
    """What the user asked for; None = chosen from the data.

    Attributes:
        data: recordings of normal running.
        out: folder for bundle, report and figures.
        asset: id, the bundle's name.
        test: recordings with a label column, for figures.
        families: to train; of ALL_FAMILIES.
        seed: of everything random.
        table: how the files are written.
        window: rows.
        hop: rows.
        epochs: at most; None = as each family has it.
        threshold: how the limit is found.
        rule: when a score becomes an alarm.
        precision: `auto`: int8 where it decides as float does, else the next rung; `int8`: that, come what may.
        repair: mend damaged recordings and say so, instead of stopping.
        version: of the bundle; None = the time of day.
        inputs: what models are shown.
        channel_weights: of channels in the score, by name; 1 where not named, then all of them to a mean of 1.
    """

    data: tuple[Path, ...]
    out: Path
    asset: str
    test: tuple[Path, ...] = ()
    families: tuple[str, ...] = FAMILIES
    seed: int = 0
    table: TableOptions = TableOptions()
    window: int | None = None
    hop: int | None = None
    epochs: int | None = None
    threshold: ThresholdRule = ThresholdRule()
    rule: AlarmRule = AlarmRule()
    precision: str = "auto"
    repair: bool = False
    version: str | None = None
    inputs: InputOptions = InputOptions()
    channel_weights: Mapping[str, float] = field(default_factory=dict)
