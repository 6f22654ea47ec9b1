"""What the user asked of a training run. Imports nothing heavy: the command line reads it before it knows the task."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from tocsin.alarms.detector import AlarmRule
from tocsin.core.groups import Align
from tocsin.recordings import TableOptions
from tocsin_trainer.calibrate import ThresholdRule
from tocsin_trainer.input_settings import FeatureName, ScalingName, StepSettings

AUGMENTATIONS = ("jitter", "scale", "bend", "warp", "noise", "mask", "drop")
NEED_TIME = ("warp",)  # of no sense where the rows of a window are frequencies
FAMILIES = (
    "t2",
    "pca",
    "pca_short",
    "limits",
    "adjusted_limits",
    "conv_ae",
    "lstm_ae",
)  # trained unless others are named
COMBINE = ("auto", "weighted", "mean", "max", "stacked")  # the scores of an ensemble's members, see judge.mix
ALL_FAMILIES = (
    "t2",
    "pca",
    "pca_short",
    "limits",
    "adjusted_limits",
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
class FitOptions:
    """How networks are trained.

    Attributes:
        augment: what is done to training windows, of AUGMENTATIONS; None = as each family has it.
        schedule: of the learning rate: `plateau`, a smaller step where nothing is gained, and an early end; `cosine`,
            a warm-up and a cosine down to nothing, over all epochs.
        mixed_precision: float16 arithmetic: `auto`, on a GPU; `on`; `off`.
        prune: part of the weights of a network that ends at zero, below 1.
        work: folder of the checkpoints; None = none are written.
        resume: go on from the checkpoint in `work`, where there is one of the same training.
        devices: TensorFlow's names of those that train together; empty = all GPUs.
        track: where losses and figures are kept, `tensorboard:FOLDER` and the like; None = nowhere.
    """

    augment: tuple[str, ...] | None = None
    schedule: Literal["plateau", "cosine"] = "plateau"
    mixed_precision: Literal["auto", "on", "off"] = "auto"
    prune: float = 0.0
    work: Path | None = None
    resume: bool = False
    devices: tuple[str, ...] = ()
    track: str | None = None

    def without_time(self) -> "FitOptions":
        """The same for windows whose rows are frequencies; a family's own augmentation is for signals in time."""
        return replace(self, augment=tuple(name for name in self.augment or () if name not in NEED_TIME))


@dataclass(frozen=True)
class GroupOptions:
    """How a rate group is shown on the grid; None = chosen from the rates.

    Attributes:
        features: of frames of its rows, side by side; `signal` alone is its channels themselves.
        align: of a channel that is shown itself, by name.
        frame_s: seconds that the features look at.
        max_age_s: oldest value that a row of the grid may show.
        table: how its files are written.
    """

    features: tuple[FeatureName, ...] | None = None
    align: Mapping[str, Align] = field(default_factory=dict)
    frame_s: float | None = None
    max_age_s: float | None = None
    table: TableOptions = TableOptions()


@dataclass(frozen=True)
class TrainOptions:
    """What the user asked for; None = chosen from the data.

    Attributes:
        data: recordings of normal running.
        out: folder for bundle, report and figures.
        asset: id, the bundle's name.
        test: recordings with a label column, for figures.
        groups: files of channels of another rate, as many each as in `data`, by group.
        test_groups: the same beside `test`.
        group_options: how groups are shown, by name.
        join: name of the group that sets the grid; None = the slowest that is fast enough to tell of a fault in time.
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
        command: that asked, for report and model card; empty where there was none.
        mode_column: channel whose levels are the machine's operating modes; None = found by clustering.
        channel_weights: of channels in the score, by name; 1 where not named, then all of them to a mean of 1.
        fitting: how networks are trained.
        combine: how the scores of an ensemble's members become one, of COMBINE.
        max_kib: size of the converted models that the device has room for; None = any.
        max_ms: time of a window, as this machine takes it, that the device has; None = any.
    """

    data: tuple[Path, ...]
    out: Path
    asset: str
    test: tuple[Path, ...] = ()
    groups: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    test_groups: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    group_options: Mapping[str, GroupOptions] = field(default_factory=dict)
    join: str | None = None
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
    command: str = ""
    mode_column: str | None = None
    channel_weights: Mapping[str, float] = field(default_factory=dict)
    fitting: FitOptions = FitOptions()
    combine: str = "auto"
    max_kib: float | None = None
    max_ms: float | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All recordings of normal running, of every group."""
        return (*self.data, *(path for files in self.groups.values() for path in files))
