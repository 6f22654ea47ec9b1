"""Where the course of a training run is kept, for those who keep many: TensorBoard, MLflow, Weights & Biases.

```
tracked("mlflow:URI", …) → start ─ log, log, … ─ file, … ─ end
```
Rules: the library is imported when its tracker is opened and never else; what the run is called and which options it
had is told at the start; a tracker is ended whatever happens.
"""

import importlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tocsin.errors import ConfigError, TocsinError
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.results import TrainingResult

Options = Mapping[str, str | int | float]


class Tracker(Protocol):
    """What a training run tells. Each of these is called in the order in which they stand here."""

    def start(self, run: str, options: Options) -> None:
        """A run of this name begins, with these options."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of one step, an epoch from 1 on; a name such as `conv_ae/loss` groups them."""

    def file(self, path: Path) -> None:
        """A picture, a report or a bundle that the run made."""

    def end(self, *, failed: bool = False) -> None:
        """Nothing more comes."""


class Untracked:
    """Keeps nothing."""

    def start(self, run: str, options: Options) -> None:
        """Nothing to do."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing to do."""

    def file(self, path: Path) -> None:
        """Nothing to do."""

    def end(self, *, failed: bool = False) -> None:
        """Nothing to do."""


class TensorBoard:
    """Event files in `FOLDER/run`; needs no TensorFlow. Files are copied beside them."""

    def __init__(self, place: str) -> None:
        self._summary = _library("tensorboard.summary", "TensorBoard")
        self._folder = Path(place)
        self._writer: Any = None

    def start(self, run: str, options: Options) -> None:
        """Makes the folder; options that are numbers are scalars of step 0."""
        self._folder /= run
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = self._summary.Writer(str(self._folder))
        self.log(0, {f"options/{k}": float(v) for k, v in options.items() if not isinstance(v, str)})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def file(self, path: Path) -> None:
        """A copy."""
        shutil.copy2(path, self._folder / path.name)

    def end(self, *, failed: bool = False) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()


class MLflow:
    """A run on a tracking server or in a local store; the experiment is `tocsin`."""

    def __init__(self, place: str) -> None:
        self._mlflow = _library("mlflow", "MLflow")
        self._place = place

    def start(self, run: str, options: Options) -> None:
        """Options are the run's parameters."""
        self._mlflow.set_tracking_uri(self._place)
        self._mlflow.set_experiment("tocsin")
        self._mlflow.start_run(run_name=run)
        self._mlflow.log_params(dict(options))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One metric each; of an ensemble `a+b` its name here is `a-b`, since MLflow takes no plus."""
        self._mlflow.log_metrics({name.replace("+", "-"): value for name, value in values.items()}, step=step)

    def file(self, path: Path) -> None:
        """An artifact."""
        self._mlflow.log_artifact(str(path))

    def end(self, *, failed: bool = False) -> None:
        """The run is finished, or failed."""
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class WeightsAndBiases:
    """A run of a project; `WANDB_MODE=offline` keeps it on this machine."""

    def __init__(self, place: str) -> None:
        self._wandb = _library("wandb", "Weights & Biases")
        self._project = place
        self._run: Any = None

    def start(self, run: str, options: Options) -> None:
        """Options are the run's configuration."""
        self._run = self._wandb.init(project=self._project, name=run, config=dict(options))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Each family has its own epochs, so the step is a value of its own: W&B's only ever grows."""
        self._run.log({**values, "epoch": step})

    def file(self, path: Path) -> None:
        """A copy in the run's files."""
        self._run.save(str(path), base_path=str(path.parent), policy="now")

    def end(self, *, failed: bool = False) -> None:
        """Waits until everything is away."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


TRACKERS: dict[str, Callable[[str], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}
PLACES = "tensorboard:FOLDER, mlflow:URI or wandb:PROJECT"


@contextmanager
def tracked(where: str | None, run: str, options: Options) -> Iterator[Tracker]:
    """A tracker that has been started, and is ended with the block.

    Args:
        where: `tensorboard:FOLDER`, `mlflow:URI`, `wandb:PROJECT`, or None for nowhere.
        run: what it is called there.
        options: what the user may want to find it by.

    Raises:
        ConfigError: not one of these.
        TocsinError: its library is not installed.
    """
    tracker = _opened(where)
    tracker.start(run, options)
    try:
        yield tracker
    except BaseException:
        tracker.end(failed=True)
        raise
    tracker.end()


def asked(options: TrainOptions) -> Options:
    """What a run is found by."""
    return {
        "asset": options.asset,
        "families": ",".join(options.families),
        "seed": options.seed,
        "data": ",".join(path.name for path in options.data),
        "window": options.window or "auto",
        "epochs": options.epochs or "auto",
        "augment": "auto" if options.fitting.augment is None else ",".join(options.fitting.augment) or "none",
        "prune": options.fitting.prune,
    }


def keep(tracker: Tracker, result: TrainingResult, files: Sequence[Path]) -> None:
    """What a run came to: a few figures of every candidate, and the files it made."""
    for c in result.candidates:
        key = f"{c.family}.{c.combination}" if c.combination else c.family  # no tracker takes every letter
        found = {
            "separation": c.separation,
            **({} if c.stability is None else {"stability": c.stability}),
            "kib": c.bytes / 1024,
            "window_us": c.latency_us,
            "seconds": c.seconds,
        }
        tracker.log(0, {f"{key}/{name}": value for name, value in {**found, **c.figures}.items()})
    for path in files:
        tracker.file(path)


def _opened(where: str | None) -> Tracker:
    if where is None:
        return Untracked()
    name, _, place = where.partition(":")
    if name not in TRACKERS or not place:
        raise ConfigError(f"--track: expected {PLACES}, got {where[:80]!r}")
    return TRACKERS[name](place)


def _library(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TocsinError(
            f"--track: {name} is not installed ({error.name} is missing): pip install '.[trackers]'"
        ) from error
