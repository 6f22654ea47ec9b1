"""What a training run shows in the terminal: one line that moves, and a table at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tocsin_trainer.reasons import named
from tocsin_trainer.results import Progress as Report
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
    result, console = trained.result, Console(highlight=False)
    for choice in result.choices:
        console.print(f"{choice.what:<12} {choice.value:<24} {choice.why}", soft_wrap=True, markup=False)
    table = Table(box=None, pad_edge=False)
    for name in (
        "family",
        "ships as",
        "KiB",
        "µs a window",
        "separation",
        "stability",
        "decisions as float",
        "limit",
        "trained in",
    ):
        table.add_column(name, justify="left" if name in ("family", "ships as") else "right")
    for c in result.candidates:
        table.add_row(
            ("→ " if c.chosen else "  ") + named(c),
            c.precision,
            f"{c.bytes / 1024:.1f}",
            f"{c.latency_us:.1f}",
            f"{c.separation:.4f}",
            f"{c.stability:.2f}",
            f"{c.gate.agreement:.2%}",
            f"{c.threshold.value:.4g}",
            f"{c.seconds:.1f} s",
        )
    console.print(table)
    for c in result.candidates:
        if c.gate.reason:
            console.print(f"{named(c)}: {c.gate.reason}", soft_wrap=True, markup=False)
    found = verdict(result)
    console.print(f"\n{found.headline}:", markup=False)
    for check in found.checks:
        console.print(f"{'✓' if check.good else '!'} {check.words}", soft_wrap=True, markup=False)
    console.print()
    console.print(f"bundle  {trained.bundle.path}", soft_wrap=True, markup=False)
    console.print(f"report  {trained.report}", soft_wrap=True, markup=False)
    console.print(f"next    tocsin replay --bundle {trained.bundle.path} --input NEW.csv", soft_wrap=True, markup=False)
