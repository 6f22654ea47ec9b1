"""`tocsin train`: recordings of normal running → a bundle and a report."""

import os
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from pydantic import Field

from tocsin.alarms.detector import AlarmRule
from tocsin.chatter import TENSORFLOW, without_chatter
from tocsin.config import TOPIC_ID, AlarmSettings
from tocsin.config_file import read_settings
from tocsin.core.groups import Align
from tocsin.core.promise import parse_rate
from tocsin.errors import ConfigError, TocsinError
from tocsin.recordings import TableOptions, channel_key
from tocsin.recordings.group_option import group_option
from tocsin.settings import Seconds, Settings
from tocsin_trainer.calibrate import ThresholdRule
from tocsin_trainer.dataset import Dataset, choose_window, split
from tocsin_trainer.input_settings import FeatureName, PreprocessSettings
from tocsin_trainer.options import (
    ALL_FAMILIES,
    AUGMENTATIONS,
    COMBINE,
    FAMILIES,
    FitOptions,
    GroupOptions,
    InputOptions,
    TrainOptions,
)
from tocsin_trainer.rate_groups import load
from tocsin_trainer.steps import check_names

PLACES = "tensorboard:FOLDER, mlflow:URI or wandb:PROJECT"
VERSION = r"[A-Za-z0-9._-]{1,64}"  # it stands in the bundle's file name


class GroupSettings(Settings):
    """A rate group; what is left out is chosen from the rates."""

    features: tuple[FeatureName, ...] | None = Field(None, min_length=1, description="of frames of its rows, or signal")
    align: dict[str, Align] = Field({}, description="hold, interpolate or mean, by channel that is shown itself")
    frame_s: Seconds | None = Field(None, gt=0, description="that the features look at")
    max_age_s: Seconds | None = Field(None, gt=0, description="oldest value that a row of the grid may show")
    time: str | None = None
    columns: tuple[str, ...] | None = None
    separator: str | None = None
    rate_hz: float | None = Field(None, gt=0)


class TrainSettings(Settings):
    """ASSET.yaml: the flags of `tocsin train`, kept in a file."""

    version: int = Field(1, ge=1, le=1)
    asset: str | None = Field(None, pattern=TOPIC_ID)
    time: str | None = None
    columns: tuple[str, ...] | None = None
    separator: str | None = None
    rate_hz: float | None = Field(None, gt=0)
    label: str | None = None
    window: int | None = Field(None, ge=8, le=4096)
    hop: int | None = Field(None, ge=1)
    families: tuple[str, ...] | None = None
    epochs: int | None = Field(None, ge=1)
    threshold: Literal["highest", "mu_sigma", "quantile", "pot"] | None = None
    false_alarms: str | None = None
    mode_column: str | None = None
    k: float | None = Field(None, gt=0)
    quantile: float | None = Field(None, gt=0, le=1)
    alarm: AlarmSettings = AlarmSettings()
    augment: tuple[Literal["jitter", "scale", "bend", "warp", "noise", "mask", "drop"], ...] | None = None
    combine: Literal["auto", "weighted", "mean", "max", "stacked"] | None = None
    max_kib: float | None = Field(None, gt=0)
    max_ms: float | None = Field(None, gt=0)
    preprocess: PreprocessSettings = PreprocessSettings()
    channel_weights: dict[str, Annotated[float, Field(ge=0, le=1e6)]] = Field({})
    groups: dict[str, GroupSettings] = Field({}, description="how rate groups are shown, by name; `main` is --data's")
    join: str | None = Field(None, description="the group that sets the grid")


def _split(_: Any, __: Any, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def _augmentations(_: Any, __: Any, value: str | None) -> tuple[str, ...] | None:
    names = _split(_, __, value)
    if names == ("none",):
        return ()
    for name in names or ():
        if name not in AUGMENTATIONS:
            raise click.BadParameter(f"{name!r}: expected some of {', '.join(AUGMENTATIONS)}, or none")
    return names


def _place(_: Any, __: Any, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"(tensorboard|mlflow|wandb):.+", value):
        raise click.BadParameter(f"{value[:80]!r}: expected {PLACES}")
    return value


def _version(_: Any, __: Any, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(VERSION, value):
        raise click.BadParameter(f"{value[:80]!r}: expected 1 to 64 letters, digits, dots, underscores and hyphens")
    return value


@click.command()
@click.option(
    "--data", "-d", "data", required=True, multiple=True, type=click.Path(path_type=Path),
    help="Normal running: a CSV table, plain or .gz, a .seg or a folder of them; give it again for each further one.",
)  # fmt: skip
@group_option("--data")
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="[MORE_DATA]...")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("out"),
    show_default=True,
    help="Folder for bundle, report.html and metrics.json.",
)
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path, dir_okay=False),
    help="ASSET.yaml: these flags in a file; flags win.",
)
@click.option("--asset", help="Name of the asset and its bundle; the first file's name when left out.")
@click.option(
    "--test",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV with a label column: adds figures against labels.",
)
@group_option("--test", "--test-group")
@click.option(
    "--families",
    callback=_split,
    help=f"Comma-separated, of {', '.join(ALL_FAMILIES)}.  [default: {','.join(FAMILIES)}]",
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same model.")
@click.option("--window", type=click.IntRange(8, 4096), help="Rows a window; chosen from the data when left out.")
@click.option("--hop", type=click.IntRange(1), help="Rows from one window to the next.")
@click.option("--time", help="Name of the time column, when it is not found.")
@click.option("--columns", callback=_split, help="Comma-separated names of the channels; all columns when left out.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Rows a second: instead of a time column.")
@click.option("--separator", help="Between fields, when it is not found.")
@click.option("--label", help="Name of the label column in --test, when it is not found.")
@click.option(
    "--threshold",
    type=click.Choice(["highest", "mu_sigma", "quantile", "pot"]),
    help="How the limit is found.  [default: highest]",
)
@click.option("--mode-column", help="Channel whose levels are the operating modes; found by clustering when left out.")
@click.option(
    "--false-alarms",
    metavar="RATE",
    help="The limit at which normal running raises so many alarms: 1/week, 2/day, 0.5/year; instead of --threshold.",
)
@click.option(
    "--k",
    type=click.FloatRange(min=0, min_open=True),
    help="Standard deviations above the mean (mu_sigma).  [default: 5]",
)
@click.option(
    "--quantile",
    type=click.FloatRange(0, 1, min_open=True),
    help="Part of normal windows below (quantile, pot).  [default: 0.999]",
)
@click.option("--epochs", type=click.IntRange(1), help="At most so many.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "int8"]),
    default="auto",
    show_default=True,
    help="auto: int8 where it decides as float does, else what does; int8: that, come what may.",
)
@click.option(
    "--combine",
    type=click.Choice(COMBINE),
    help="How the scores of models that ship together become one; stacked: weights from labels, of the first half of "
    "--test, and figures from the rest.  [default: auto]",
)
@click.option(
    "--augment",
    callback=_augmentations,
    help=f"What is done to a network's training windows: some of {', '.join(AUGMENTATIONS)}, or none; as each family "
    "has it when left out.",
)
@click.option(
    "--schedule",
    type=click.Choice(["plateau", "cosine"]),
    default="plateau",
    show_default=True,
    help="Learning rate: smaller where nothing is gained, with an early end; or a warm-up and a cosine, all epochs.",
)
@click.option(
    "--prune", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="Part of a network's weights set to zero."
)
@click.option(
    "--mixed-precision",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="float16 arithmetic; auto: on a GPU.",
)
@click.option(
    "--max-kib",
    type=click.FloatRange(min=0, min_open=True),
    help="The device has room for so much: larger models do not ship.",
)
@click.option(
    "--max-ms",
    type=click.FloatRange(min=0, min_open=True),
    help="Models that take longer a window do not ship; measured here, and a device is some times slower.",
)
@click.option("--resume", is_flag=True, help="Go on where a training of the same data and flags was killed.")
@click.option("--track", callback=_place, help=f"Keep the curves: {PLACES}.  [extra: trackers]")
@click.option("--repair", is_flag=True, help="Mend damaged recordings and say so, instead of stopping.")
@click.option("--version", "model_version", callback=_version, help="Of the bundle; date and time when left out.")
@click.option("--json", "as_json", is_flag=True, help="Print metrics.json instead of the table.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def train(
    data: tuple[Path, ...],
    more: tuple[Path, ...],
    out: Path,
    config: Path | None,
    as_json: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Recordings of normal running → a bundle and a report.

    Needs nothing but the recordings: channels, rate, window and hop are chosen from the data and explained. Trains
    every family, converts each to int8, sets the limit on the converted model's scores of data that it has not seen,
    and ships the linear models that see different things, together; a network ships only where it is clearly better.

    \b
    Leaves in --out:
      <asset>-<version>.tocsin   for the device: `tocsin replay`, `tocsin run`
      report.html                pictures and the table of all candidates
      metrics.json               the same as numbers

    \b
    Examples:
      tocsin train --data normal.csv
      tocsin train --data mon.csv tue.csv --test labelled.csv --out pump-1 --asset pump-1
      tocsin train --data march.csv --false-alarms 1/week
      tocsin train --data process.csv --group vibration=vibration.csv
    """
    options = train_options((*data, *more), out, config, flags)
    recordings = checked(options)
    make_folder(out)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with without_chatter(*TENSORFLOW):
            from tocsin_trainer.checkpoint import discard  # noqa: PLC0415
            from tocsin_trainer.progress import print_summary, shown  # noqa: PLC0415
            from tocsin_trainer.trackers import asked, keep, tracked  # noqa: PLC0415
            from tocsin_trainer.train import train as run  # noqa: PLC0415
    except ImportError as error:
        raise TocsinError(
            f"training needs the extra `trainer` ({error.name} is missing): pip install '.[trainer]'"
        ) from error
    with shown(sys.stderr, quiet) as progress, tracked(options.fitting.track, options.asset, asked(options)) as tracker:
        trained = run(options, progress, recordings, tracker)
        keep(tracker, trained.result, (trained.bundle.path, trained.report, trained.metrics))
    discard(options.fitting.work)
    for warning in trained.result.warnings:
        click.echo(f"tocsin: warning: {warning}", err=True)
    if as_json:
        click.echo(trained.metrics.read_text(), nl=False)
        return
    print_summary(trained)


def checked(options: TrainOptions) -> Dataset:
    """The recordings, read before anything heavy is loaded: what ails them is told at once."""
    recorded = load(options)
    check_names(options, recorded.channels, recorded.groups)
    length, hop, _ = choose_window(recorded, options.window, options.hop)
    split(recorded, length, hop)
    return recorded


def make_folder(out: Path) -> None:
    """Makes the folder of `--out`, before the long work.

    Raises:
        TocsinError: nothing can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise TocsinError(f"--out {out}: cannot be written to: {error.strerror or error}") from error


def train_options(data: tuple[Path, ...], out: Path, config: Path | None, flags: dict[str, Any]) -> TrainOptions:
    """Flags over ASSET.yaml over defaults."""
    file = TrainSettings() if config is None else read_settings(config, TrainSettings)
    asset = flags["asset"] or file.asset or _asset_id(data[0])
    if not re.fullmatch(TOPIC_ID, asset):
        raise click.BadParameter(f"{asset!r}: expected lower-case letters, digits and hyphens", param_hint="--asset")
    families = flags["families"] or file.families or FAMILIES
    unknown = [name for name in families if name not in ALL_FAMILIES]
    if unknown:
        raise ConfigError(f"families: {unknown[0]!r} is not known: expected some of {', '.join(ALL_FAMILIES)}")
    return TrainOptions(
        data=data,
        out=out,
        asset=asset,
        test=flags["test"],
        groups=flags["group"],
        test_groups=flags["test_group"],
        group_options={name: _group(settings) for name, settings in file.groups.items()},
        join=file.join,
        families=tuple(families),
        seed=flags["seed"],
        table=TableOptions(
            time=flags["time"] or file.time,
            columns=flags["columns"] or file.columns,
            separator=flags["separator"] or file.separator,
            rate_hz=flags["rate"] or file.rate_hz,
            label=flags["label"] or file.label,
        ),
        window=flags["window"] or file.window,
        hop=flags["hop"] or file.hop,
        epochs=flags["epochs"] or file.epochs,
        threshold=_threshold(file, flags),
        mode_column=flags["mode_column"] or file.mode_column,
        command=shlex.join(["tocsin", *sys.argv[1:]]),
        rule=file.alarm.rule(AlarmRule()),
        precision=flags["precision"],
        combine=flags["combine"] or file.combine or "auto",
        repair=flags["repair"],
        version=flags["model_version"],
        inputs=_inputs(file.preprocess),
        channel_weights=file.channel_weights,
        fitting=FitOptions(
            augment=file.augment if flags["augment"] is None else flags["augment"],
            schedule=flags["schedule"],
            mixed_precision=flags["mixed_precision"],
            prune=flags["prune"],
            work=out / ".work",
            resume=flags["resume"],
            track=flags["track"],
        ),
        max_kib=flags["max_kib"] or file.max_kib,
        max_ms=flags["max_ms"] or file.max_ms,
    )


def _group(file: GroupSettings) -> GroupOptions:
    table = TableOptions(time=file.time, columns=file.columns, separator=file.separator, rate_hz=file.rate_hz)
    return GroupOptions(file.features, file.align, file.frame_s, file.max_age_s, table)


def _inputs(file: PreprocessSettings) -> InputOptions:
    return InputOptions(file.clean, file.features, file.scaling, file.bands_hz, file.envelope_hz)


def _threshold(file: TrainSettings, flags: dict[str, Any]) -> ThresholdRule:
    """A flag wins over the file; a rate and a method in the same place contradict each other."""
    for rate, method in ((flags["false_alarms"], flags["threshold"]), (file.false_alarms, file.threshold)):
        if rate and method:
            raise ConfigError(f"false alarms {rate} and threshold {method}: each sets the limit; give one of them")
    default = ThresholdRule()
    rate = flags["false_alarms"] or (None if flags["threshold"] else file.false_alarms)
    return ThresholdRule(
        method="budget" if rate else flags["threshold"] or file.threshold or default.method,
        k=flags["k"] or file.k or default.k,
        q=flags["quantile"] or file.quantile or default.q,
        false_alarms=parse_rate(rate) if rate else None,
    )


def _asset_id(path: Path) -> str:
    """`Pump 1_normal.csv.gz` → `pump-1-normal`."""
    return channel_key(path.name.split(".")[0]).replace("_", "-")[:63].strip("-") or "asset"
