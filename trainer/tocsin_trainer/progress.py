"""What a training run shows in the terminal: one line that moves, and a table at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tocsin_trainer.markup import number, part
from tocsin_trainer.reasons import RULE
from tocsin_trainer.results import Progress as Report
from tocsin_trainer.results import TrainingResult
from tocsin_trainer.terminal import aligned
from tocsin_trainer.train import Trained
from tocsin_trainer.verdict import verdict

STAGES = {
    "load": "reading the recordings",
    "fit": "training",
    "epoch": "training",
    "convert": "converting",
    "judge": "calibrating and judging",
    "cross-fit": "fitting on all rows",
    "export": "writing bundle and report",
}


@contextmanager
def shown(stream: TextIO, quiet: bool) -> Iterator[Report]:
    """A progress line on a terminal, a line a stage elsewhere, nothing when quiet."""
    console = Console(file=stream)
    if quiet:
        yield lambda *_: None
    elif not console.is_terminal:
        seen: set[str] = set()

        def line(stage: str, _: int, __: int, words: str) -> None:
            text = f"{STAGES[stage]} {words}".rstrip()
            if stage != "epoch" and text not in seen:
                seen.add(text)
                stream.write(f"{text}\n")
                stream.flush()

        yield line
    else:
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bars:
            task = bars.add_task("", words="", total=1)
            yield lambda stage, done, total, words: bars.update(
                task, description=STAGES[stage], completed=done, total=total, words=words
            )


def print_summary(trained: Trained) -> None:
    """What was chosen, the table of candidates, what it comes to, and the next command."""
    result = trained.result
    for choice in result.choices:
        click.echo(f"{choice.what:<15} {choice.value:<27} {choice.why}")
    click.echo(f"\n{candidate_table(result)}")
    click.echo(f"→ ships. {RULE}")
    for c in result.candidates:
        if c.gate.reason:
            click.echo(f"{c.title}: {c.gate.reason}")
    for family, why in result.left_out:
        click.echo(f"{family} was not fitted: {why}")
    found = verdict(result)
    click.echo(f"\n{found.headline}:")
    for check in found.checks:
        click.echo(f"{check.mark} {check.words}")
    click.echo(f"\nbundle  {trained.bundle.path}")
    click.echo(f"report  {trained.report}")
    click.echo(f"next    tocsin replay --bundle {trained.bundle.path} --input NEW.csv")


def candidate_table(result: TrainingResult) -> str:
    """What ships first, then the others by worth, then those that were not fitted."""
    heads = (
        "  candidate",
        "ships as",
        "KiB",
        "µs",
        "worth",
        "separation",
        "stability",
        "as float",
        "limit",
        "fitted in",
    )
    ranked = sorted(result.candidates, key=lambda c: (not c.chosen, not c.gate.passed, -c.worth))
    rows: list[tuple[object, ...]] = [
        (
            ("→ " if c.chosen else "  ") + c.title, c.precision, f"{c.bytes / 1024:.1f}", f"{c.latency_us:.0f}",
            f"{c.worth:.3f}", f"{c.separation:.3f}", number(c.stability), part(c.gate.agreement),
            c.threshold.value, f"{c.seconds:.1f} s",
        )
        for c in ranked
    ]  # fmt: skip
    return aligned(heads, [*rows, *(("  " + family, "–", *[None] * 8) for family, _ in result.left_out)])
