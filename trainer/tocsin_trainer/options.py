"""What the user asked of a training run. Imports nothing heavy: the command line reads it before it knows the task."""

from dataclasses import dataclass
from pathlib import Path

from tocsin.alarms.detector import AlarmRule
from tocsin.recordings import TableOptions
from tocsin_trainer.calibrate import ThresholdRule

FAMILIES = ("t2", "pca", "conv_ae", "lstm_ae")


@dataclass(frozen=True)
class TrainOptions:
    """What the user asked for; None = chosen from the data.

    Attributes:
        data: recordings of normal running.
        out: folder for bundle, report and figures.
        asset: id, the bundle's name.
        test: recordings with a label column, for figures.
        families: to train; of FAMILIES.
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
