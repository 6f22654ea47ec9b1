"""What a search shows in the terminal: a line a trial, and the front at the end."""

import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tocsin_trainer.markup import number
from tocsin_trainer.tune.outcome import Outcome, Trial
from tocsin_trainer.tune.page import HEADS, HONEST, row

FILE_WIDTH = 160  # letters, where there is no terminal


def line(trial: Trial) -> None:
    """A trial that ended, on standard error."""
    found = f"{trial.detection:.4f}  {trial.cost}" if trial.complete else trial.why
    sys.stderr.write(f"trial {trial.number:<3} {trial.seconds:5.1f} s  {trial.words}: {found}\n")
    sys.stderr.flush()


def summary(outcome: Outcome, folder: Path, groups: Iterable[str] = ()) -> None:
    """The front, what to take and why, and the next command, with a file of each rate group."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    table = Table(box=None, pad_edge=False)
    for head in HEADS:
        table.add_column(head, justify="left" if head in ("settings", "ships as", "remark") else "right")
    default = [each for each in (outcome.default,) if each is not None and each not in outcome.front]
    for trial in (*outcome.front, *default):
        cells = row(trial, outcome)
        table.add_row(*(number(cell) if isinstance(cell, float) or cell is None else str(cell) for cell in cells))
    console.print("What no other trial beats in detection, size and time together:\n")
    console.print(table)
    console.print(f"\ntake trial {outcome.chosen.number}, {outcome.chosen.words}", soft_wrap=True, markup=False)
    console.print(f"{outcome.why}.\n\n{HONEST}\n", soft_wrap=True, markup=False)
    console.print(f"report  {folder / 'tune.html'}", soft_wrap=True, markup=False)
    data = " ".join(["--data …", *(f"--group {name}=…" for name in groups)])
    console.print(f"next    tocsin train --config {folder / 'asset.yaml'} {data}", soft_wrap=True, markup=False)
