"""Durations on the command line: seconds, or 500ms, 10min, 8h."""

import click
from pydantic import TypeAdapter, ValidationError

from tocsin.settings import Seconds

_SECONDS: TypeAdapter[float] = TypeAdapter(Seconds)


def positive_seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Callback of an option; None where it was not given."""
    if value is None:
        return None
    try:
        found = float(value)
    except ValueError:
        try:
            found = _SECONDS.validate_python(value)
        except ValidationError as error:
            raise click.BadParameter(f"{value!r}: expected seconds, or a number with ms, s, min, h or d") from error
    if not 0 < found < float("inf"):
        raise click.BadParameter(f"{value!r}: expected more than nothing, and an end")
    return found
