"""Cells → numbers and times.

Rules: what Python or numpy would take beside plain numbers and plain dates is refused; a missing value is one of a few
words.
"""

import re
from datetime import UTC, datetime

import numpy as np

from tocsin.records import Floats

MISSING = {"", "nan", "na", "n/a", "null", "none", "-", "?"}
PLAIN_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?$")


def to_number(cell: str, decimal_comma: bool) -> float:
    """A cell as a number; `nan` and `inf` count as numbers.

    Raises:
        ValueError: it is none.
    """
    if "_" in cell:
        raise ValueError("Python reads 1_0 as 10; a table means something else")
    return float(cell.replace(",", ".") if decimal_comma else cell)


def is_number(cell: str, decimal_comma: bool) -> bool:
    """Whether a cell is a number or says that there is none."""
    if cell.strip().lower() in MISSING:
        return True
    try:
        to_number(cell, decimal_comma)
    except ValueError:
        return False
    return True


def is_time(cell: str) -> bool:
    """Whether a cell begins with a date."""
    return re.match(r"\s*(\d{4}[-/]\d{1,2}[-/]\d{1,2}|\d{1,2}\.\d{1,2}\.\d{4})([ T]|\s*$)", cell) is not None


def to_times(stamps: list[str], kind: str) -> Floats:
    """(n,) epoch seconds of ISO 8601 (`iso`) or DD.MM.YYYY (`dmy`) stamps; UTC where they name no zone.

    Raises:
        ValueError: one of them cannot be read.
    """
    if kind == "dmy":
        stamps = [f"{s[6:10]}-{s[3:5]}-{s[0:2]}{s[10:]}" for s in stamps]
    if any("/" in s for s in stamps[:1]):
        stamps = [s.replace("/", "-") for s in stamps]
    if all(s[-1:] in "Zz" for s in stamps):
        stamps = [s[:-1] for s in stamps]
    if all(map(PLAIN_ISO.match, stamps)):  # numpy alone would also take "", "NaT", "now" and "20260309" for times
        return np.asarray(stamps, "datetime64[us]").astype(np.int64) / 1e6
    parsed = (datetime.fromisoformat(s) for s in stamps)
    return np.asarray([(p if p.tzinfo else p.replace(tzinfo=UTC)).timestamp() for p in parsed])
