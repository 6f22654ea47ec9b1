"""The option `--group NAME=FILE`, the same for every command that reads recordings."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tocsin.core.groups import GROUP_NAME
from tocsin.recordings.together import MAIN

Command = TypeVar("Command", bound=Callable[..., Any])


def _by_name(_: Any, __: Any, values: tuple[str, ...]) -> dict[str, tuple[Path, ...]]:
    groups: dict[str, tuple[Path, ...]] = {}
    for value in values:
        name, equals, file = value.partition("=")
        if not equals or not file or not re.fullmatch(GROUP_NAME, name) or name == MAIN:
            raise click.BadParameter(
                f"{value[:80]!r}: expected NAME=FILE such as vibration=vibration.csv; the name in lower-case letters, "
                f"digits, hyphens and underscores, other than {MAIN}"
            )
        groups[name] = (*groups.get(name, ()), Path(file).expanduser())
    return groups


def group_option(goes_with: str, name: str = "--group") -> Callable[[Command], Command]:
    """The option, for files that go with those of another option."""
    return click.option(
        name, multiple=True, metavar="NAME=FILE", callback=_by_name,
        help=f"Channels of another rate, recorded at the same time: a CSV table of a group beside that of {goes_with}; "
        "again for each group, and each further file.",
    )  # fmt: skip
