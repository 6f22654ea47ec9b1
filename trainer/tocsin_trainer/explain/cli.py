"""`tocsin explain`: why one window of a recording scores as it does."""

import json
from pathlib import Path

import click

from tocsin.chatter import RUNTIME, without_chatter
from tocsin.errors import TocsinError
from tocsin.recordings import MAIN, TableOptions, paired
from tocsin.recordings.group_option import group_option

METHODS = ("exact", "shap", "lime")


def _methods(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    asked = tuple(part.strip() for part in value.split(",") if part.strip())
    unknown = [name for name in asked if name not in METHODS]
    if unknown or not asked:
        raise click.BadParameter(f"{value!r}: expected some of {', '.join(METHODS)}, separated by commas")
    return asked


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("data", type=click.Path(path_type=Path, dir_okay=False))
@group_option("DATA")
@click.option("--at", default="worst", show_default=True, metavar="TIME|row:N|worst",
              help="The window that ends there, or last before: a time as the recording has it (ISO 8601, UTC where it "
              "does not say, DD.MM.YYYY, an epoch), or seconds from its start; `worst` scores highest.")  # fmt: skip
@click.option("--method", "methods", default="exact,lime", show_default=True, callback=_methods,
              help="Comma-separated, of exact, shap, lime. shap needs the extra `explain`.")  # fmt: skip
@click.option("--out", "-o", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with pictures here.")
@click.option("--time", help="Name of the time column, when it is not found.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Rows a second: instead of a time column.")
@click.option("--separator", help="Between fields, when it is not found.")
@click.option("--seed", default=0, show_default=True, help="Of what is drawn.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def explain(
    bundle: Path,
    data: Path,
    group: dict[str, tuple[Path, ...]],
    at: str,
    methods: tuple[str, ...],
    out: Path | None,
    time: str | None,
    rate: float | None,
    separator: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Why one window of a recording scores as it does.

    \b
    exact   what each row and channel gives to the score: the split that every alarm carries
    shap    Shapley values of parts of the window: what the score loses without each
    lime    a linear model of the score around the window; R² says how far to trust it

    Amounts are in units of the threshold: all of `exact` together is the ratio. Parts that shap and lime take away are
    replaced by those of the nearest normal window in the bundle.

    \b
    Examples:
      tocsin explain pump-1.tocsin monday.csv
      tocsin explain pump-1.tocsin monday.csv --at 2026-03-09T08:02:53 --method exact,shap,lime --out why.html
    """
    from tocsin.core.bundle import load_bundle  # noqa: PLC0415 - `--help` needs none of it

    try:
        from tocsin_trainer.explain import explanation as made  # noqa: PLC0415
        from tocsin_trainer.explain.moment import find_moment  # noqa: PLC0415
        from tocsin_trainer.explain.text import shown  # noqa: PLC0415
        from tocsin_trainer.recorded import read_recorded  # noqa: PLC0415
    except ImportError as error:
        raise TocsinError(
            f"explaining needs the extra `trainer` ({error.name} is missing): pip install '.[trainer]'"
        ) from error
    loaded = load_bundle(bundle)
    (files,) = paired((data,), group)
    options = TableOptions(time=time, rate_hz=rate, separator=separator)
    recorded = read_recorded(files.pop(MAIN), loaded.manifest, options, files)
    with without_chatter(*RUNTIME):
        moment = find_moment(loaded, recorded, at)
        found = made.explain(loaded, moment, methods, seed)
    for warning in recorded.warnings:
        click.echo(f"tocsin: warning: {warning}", err=True)
    if moment.late_s > loaded.manifest.max_gap_s + loaded.manifest.hop / loaded.manifest.sample_rate_hz:
        click.echo(f"tocsin: warning: no window ends near {at}: the last one before is shown", err=True)
    if out is not None:
        from tocsin_trainer.explain.page import page  # noqa: PLC0415
        from tocsin_trainer.sheet import write_page  # noqa: PLC0415

        write_page(out, page(found))
    click.echo(json.dumps(made.explanation_json(found), indent=1, allow_nan=False) if as_json else shown(found))
    if out is not None:
        click.echo(f"page: {out}", err=True)
