"""`tocsin evaluate`: what a bundle finds, misses and rings for on recordings that somebody has labelled."""

import json
from collections.abc import Callable
from pathlib import Path

import click

from tocsin.chatter import RUNTIME, without_chatter
from tocsin.errors import GateError, TocsinError
from tocsin.recordings import MAIN, TableOptions, paired
from tocsin.recordings.group_option import group_option
from tocsin_trainer.figure_names import HIGHER, LOWER


def _bounds(names: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], dict[str, float]]:
    """A callback that reads NAME=VALUE."""

    def read(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
        bounds = {}
        for text in values:
            name, _, value = text.partition("=")
            try:
                bounds[name.strip()] = float(value)
            except ValueError:
                raise click.BadParameter(f"{text!r}: expected NAME=VALUE, such as {names[0]}=0.8") from None
            if name.strip() not in names:
                raise click.BadParameter(f"{name.strip()!r} is not one of {', '.join(names)}")
        return bounds

    return read


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("more", nargs=-1, type=click.Path(path_type=Path), metavar="[MORE_DATA]...")
@click.option(
    "--data", "-d", "data", required=True, multiple=True, type=click.Path(path_type=Path),
    help="CSV table, plain or .gz, a .seg or a folder of them; give it again for each further one.",
)  # fmt: skip
@group_option("--data")
@click.option(
    "--labels", type=click.Path(path_type=Path, dir_okay=False),
    help="CSV of intervals, start,end[,kind][,file]; a label column in the data when left out.",
)  # fmt: skip
@click.option("--time", help="Name of the time column, when it is not found.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Rows a second: instead of a time column.")
@click.option("--separator", help="Between fields, when it is not found.")
@click.option("--label", help="Name of the label column, when it is not found.")
@click.option("--seed", default=0, show_default=True, help="Of the random scores that stand beside.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with pictures here, whole in itself."
)
@click.option(
    "--fail-under", multiple=True, metavar="NAME=VALUE", callback=_bounds(HIGHER),
    help=f"Exit with 9 when the mean is below: {', '.join(HIGHER)}.",
)  # fmt: skip
@click.option(
    "--fail-over", multiple=True, metavar="NAME=VALUE", callback=_bounds(LOWER),
    help=f"Exit with 9 when the mean is above: {', '.join(LOWER)}.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print all figures as one JSON object.")
def evaluate(
    bundle: Path,
    more: tuple[Path, ...],
    data: tuple[Path, ...],
    group: dict[str, tuple[Path, ...]],
    labels: Path | None,
    time: str | None,
    rate: float | None,
    separator: str | None,
    label: str | None,
    seed: int,
    html: Path | None,
    fail_under: dict[str, float],
    fail_over: dict[str, float],
    as_json: bool,
) -> None:
    """What a bundle finds, misses and rings for on labelled recordings.

    Plays the recordings through the bundle by the device's own code and compares with the labels, at the threshold that
    ships and without point adjustment: a row that was not over it counts as missed, whatever its neighbours did. An
    alarm that is always on and random scores stand beside. Without labels only rates can be told.

    \b
    VUS-PR, AP, ROC-AUC   how well the score ranks rows, whatever the threshold
    F1, FAR, MAR          rows at the threshold: false alarm rate, missed alarm rate
    events                labelled events with a row over the threshold, of all
    false/day             runs of rows over the threshold that touch no label, a day of normal running
    delay                 median seconds from an event's first row to the first over the threshold

    \b
    Examples:
      tocsin evaluate pump-1.tocsin --data monday.csv
      tocsin evaluate pump-1.tocsin --data monday.csv --labels windows.csv --html monday.html
      tocsin evaluate pump-1.tocsin --data mon.csv tue.csv --json --fail-under vus_pr=0.8 --fail-over far=0.1
    """
    from tocsin.core.bundle import load_bundle  # noqa: PLC0415 - `--help` needs none of it

    try:
        from tocsin_trainer import evaluation as made  # noqa: PLC0415
        from tocsin_trainer.evaluation_text import shown  # noqa: PLC0415
    except ImportError as error:
        raise TocsinError(
            f"evaluating needs the extra `trainer` ({error.name} is missing): pip install '.[trainer]'"
        ) from error
    from tocsin_trainer.labels import labelled, read_labels, untouched  # noqa: PLC0415
    from tocsin_trainer.recorded import read_recorded  # noqa: PLC0415

    loaded = load_bundle(bundle)
    options = TableOptions(time=time, rate_hz=rate, separator=separator, label=label)
    recordings = tuple(
        read_recorded(files.pop(MAIN), loaded.manifest, options, files) for files in paired((*data, *more), group)
    )
    intervals = () if labels is None else read_labels(labels)
    if intervals:
        recordings = labelled(recordings, intervals)
    with without_chatter(*RUNTIME):
        found = made.evaluate(loaded, recordings, intervals, seed)
    for warning in found.warnings:
        click.echo(f"tocsin: warning: {warning}", err=True)
    outside = untouched(recordings, intervals)
    if outside:
        click.echo(f"tocsin: warning: {outside} of {len(intervals)} labels touch no row of the data", err=True)
    if html is not None:
        from tocsin_trainer.evaluation_page import page  # noqa: PLC0415
        from tocsin_trainer.sheet import write_page  # noqa: PLC0415

        write_page(html, page(found))
    click.echo(json.dumps(made.evaluation_json(found), indent=1, allow_nan=False) if as_json else shown(found))
    if html is not None:
        click.echo(f"page: {html}", err=True)
    _judge(found.mean(), fail_under, fail_over)


def _judge(mean: dict[str, float], under: dict[str, float], over: dict[str, float]) -> None:
    """Raises GateError where a bound does not hold, or cannot be checked."""
    failed = [f"{name} is not defined on these data" for name in (*under, *over) if name not in mean]
    bounds = [(name, bound, 1, "more") for name, bound in under.items()]
    bounds += [(name, bound, -1, "less") for name, bound in over.items()]
    for name, bound, sign, words in bounds:
        if sign * mean.get(name, bound) < sign * bound:
            failed.append(f"{name} is {mean[name]:.4g}, expected {bound:g} or {words}")
    if failed:
        raise GateError("; ".join(failed))
