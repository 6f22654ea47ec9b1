"""`tocsin tune`: a search for better settings than those chosen from the data, within what a device can carry."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from tocsin.chatter import TENSORFLOW, without_chatter
from tocsin.config_file import read_settings
from tocsin.errors import TocsinError
from tocsin_trainer.cli import TrainSettings, checked, make_folder, train, train_options

FROM_TRAIN = (  # flags that mean the same here
    *(
        "data",
        "group",
        "more",
        "config",
        "asset",
        "families",
        "seed",
        "window",
        "hop",
        "time",
        "columns",
        "rate",
        "separator",
    ),
    *("epochs", "max_kib", "max_ms", "repair", "quiet"),
)
IN_FILE = {  # of those, key in ASSET.yaml
    **{name: name for name in ("asset", "time", "columns", "separator", "epochs", "max_kib", "max_ms")},
    "rate": "rate_hz",
}
STARTED_BY = "import sys; from tocsin.cli.main import main; sys.argv[0] = 'tocsin'; main()"


@click.command(params=[option for option in train.params if option.name in FROM_TRAIN])
@click.option(
    "--out", "-o", type=click.Path(path_type=Path, file_okay=False), default=Path("out"), show_default=True,
    help="Folder for asset.yaml, tune.html, tune.json and the study.",
)  # fmt: skip
@click.option(
    "--trials", type=click.IntRange(1), default=30, show_default=True, help="That the study holds at the end."
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Begin no trial after so long.")
@click.option(
    "--study", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.log",
    help="Where trials are kept; goes on where the file is there.  [default: tune.log in --out]",
)  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes side by side.")
@click.option("--json", "as_json", is_flag=True, help="Print tune.json instead of the table.")
@click.option("--worker", is_flag=True, hidden=True)
def tune(
    data: tuple[Path, ...],
    more: tuple[Path, ...],
    out: Path,
    config: Path | None,
    trials: int,
    minutes: float | None,
    study: Path | None,
    jobs: int,
    quiet: bool,
    as_json: bool,
    worker: bool,
    **flags: Any,
) -> None:
    """Searches settings: which models, which window, what they are shown of the signal.

    Tries settings on recordings of normal running: fits on two blocks of time, converts, and counts on the third how
    many made-up anomalies stand out; each block in turn. Weighs that against size and time. The settings that
    `tocsin train` would choose by itself are the first trial, and stay unless others are clearly better: made-up
    anomalies are not real faults, and small differences mean nothing. What is given by flag or --config stays so.

    A search that was stopped goes on with the same command, and several may share a --study at once.

    \b
    Leaves in --out:
      asset.yaml   the settings to take: `tocsin train --config asset.yaml`
      tune.html    all trials, and a picture of those that no other beats
      tune.json    the same as numbers

    \b
    Examples:
      tocsin tune --data normal.csv
      tocsin tune --data normal.csv --minutes 30 --jobs 2 --max-kib 64 --max-ms 5
      tocsin tune --data normal.csv --families t2,pca,conv_ae --study /mnt/shared/pump-1.log
      tocsin tune --data process.csv --group vibration=vibration.csv
    """
    begin = time.monotonic()
    unset = train.make_context("train", ["--data", "-"]).params  # what nobody gave
    options = train_options((*data, *more), out, config, {**unset, **flags})
    recordings = checked(options)
    make_folder(out)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    run, show = _loaded()
    deadline = None if minutes is None else begin + 60 * minutes
    search = run.Search(options, recordings, study or out / "tune.log")
    with ExitStack() as stack:
        helpers = [] if worker else [_helper(stack) for _ in range(jobs - 1)]
        search.look(trials, deadline, (lambda _: None) if quiet else show.line)
        for helper in helpers:
            helper.wait()
    if worker:
        return
    made = search.outcome()
    run.write(out, made, search.space, _kept(config, flags))
    if as_json:
        click.echo((out / "tune.json").read_text(), nl=False)
        return
    show.summary(made, out, options.groups)


def _loaded() -> Any:
    """What needs the extras; the lighter one is looked for first."""
    extra = "tune"
    try:
        import optuna  # noqa: F401, PLC0415

        extra = "trainer"
        with without_chatter(*TENSORFLOW):
            from tocsin_trainer.tune import run, shown  # noqa: PLC0415
    except ImportError as error:
        raise TocsinError(
            f"searching needs the extra `{extra}` ({error.name} is missing): pip install '.[trainer,tune]'"
        ) from error
    return run, shown


def _helper(stack: ExitStack) -> "subprocess.Popen[bytes]":
    """A process that takes part in the same study; it ends with this one."""
    child = subprocess.Popen([sys.executable, "-c", STARTED_BY, "tune", "--worker", *sys.argv[2:]])
    stack.callback(child.terminate)  # nothing happens where it has ended
    return child


def _kept(config: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """What the user gave, as it stands in a training file."""
    file = TrainSettings() if config is None else read_settings(config, TrainSettings)
    kept: dict[str, Any] = json.loads(file.model_dump_json(exclude_unset=True))
    for flag, key in IN_FILE.items():
        if flags.get(flag) is not None:
            value = flags[flag]
            kept[key] = list(value) if isinstance(value, tuple) else value
    return kept
