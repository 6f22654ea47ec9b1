"""Values → HTML: text, numbers, sizes, tables and figures.

Rules: everything that is given is escaped here and nowhere else; numbers stand right-aligned with the same few digits;
an absent value is a dash.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

DASH = "–"
SHORT, LONG = 28, 40  # letters of a cell that is never broken into lines, and of one that is kept wide


def text(value: object) -> str:
    """Escaped."""
    return escape(str(value), quote=True)


def number(value: float | None) -> str:
    """Four digits at most; a dash for what is absent or not finite.

    >>> number(1234567), number(0.00012345), number(3.0), number(None)
    ('1,234,567', '0.0001234', '3', '–')
    """
    if value is None or not math.isfinite(value):
        return DASH
    if float(value).is_integer() and abs(value) < 1e12:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10000 else f"{value:.4g}"


def size(count: int) -> str:
    """Bytes in a unit that suits.

    >>> size(812), size(11059), size(3 << 20)
    ('812 B', '10.8 KiB', '3.0 MiB')
    """
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def table(heads: Sequence[object], rows: Sequence[Sequence[Any]], marked: Sequence[bool] = ()) -> str:
    """A table whose first column names the row.

    Args:
        heads: of the columns.
        rows: texts, numbers or None, as many as heads.
        marked: columns that stand out, in a table that compares columns: all cells then keep to the right.
    """
    top = "".join(
        f'<th scope="col"{_kind(c > 0 and (bool(marked) or all(_is_number(row[c]) for row in rows)), c, marked)}>'
        f"{text(head)}</th>"
        for c, head in enumerate(heads)
    )
    return wide_table(f"<tr>{top}</tr>", rows, marked)


def wide_table(top: str, rows: Sequence[Sequence[Any]], marked: Sequence[bool] = ()) -> str:
    """`table` with the head's rows as HTML, for heads of more than one line."""
    body = []
    for row in rows:
        cells = "".join(
            f"<td{_kind(bool(marked) or _is_number(value), c, marked, value)}>{_cell(value)}</td>"
            for c, value in enumerate(row[1:], start=1)
        )
        head = f'<th scope="row"{_kind(False, 0, (), row[0])}>{_cell(row[0])}</th>'
        body.append(f"<tr>{head}{cells}</tr>\n")
    return framed(top, "".join(body))


def framed(top: str, body: str) -> str:
    """A table of rows that are HTML already; it scrolls sideways where the screen is narrow."""
    return f'<div class="wide" tabindex="0"><table><thead>{top}</thead>\n<tbody>\n{body}</tbody></table></div>\n'


def section(name: str, title: str, body: str) -> str:
    """A part of the page under its heading; `name` is where links lead."""
    return f'<section id="{name}">\n<h2>{text(title)}</h2>\n{body}</section>\n'


def figure(svg: str, caption: str, kind: str = "") -> str:
    """A picture with words under it; it scrolls sideways where the screen is narrow."""
    return (
        f'<figure class="{kind}"><div class="wide" tabindex="0">{svg}</div>'
        f"<figcaption>{text(caption)}</figcaption></figure>\n"
    )


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    return number(value) if _is_number(value) else text(value)


def _kind(right: bool, column: int, marked: Sequence[bool], value: object = None) -> str:
    """The cell's class attribute: how it is aligned, whether it stands out, and how it is broken into lines."""
    kinds = ["number"] * right + ["ships"] * (column < len(marked) and marked[column])
    if isinstance(value, str):
        kinds += ["short"] * (len(value) <= SHORT) + ["long"] * (len(value) > LONG)
    return f' class="{" ".join(kinds)}"' if kinds else ""


def part(share: float) -> str:
    """A part of a whole, in per cent; what is nearly all or nearly nothing keeps its digits.

    >>> part(0.25), part(0.0004), part(0.99958), part(1.0)
    ('25 %', '0.04 %', '99.95 %', '100 %')
    """
    if not math.isfinite(share):
        return DASH
    percent = 100 * share
    if 90 < percent < 100:
        return f"{math.floor(100 * percent + 1e-6) / 100:.4g} %"  # 99.999 % is not all
    return f"{percent:.2g} %" if percent < 10 else f"{percent:.0f} %"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "alarm"), plural(0, "alarm")
    ('1 alarm', '0 alarms')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """A span of time in the unit that suits.

    >>> duration(0.02), duration(75), duration(5400), duration(864000)
    ('20 ms', '75 s', '90 min', '10 days')
    """
    if not math.isfinite(seconds):
        return DASH
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{1000 * seconds:.3g} ms" if 0 < seconds < 1 else f"{seconds:.3g} s"


def moment(time_s: float, origin_s: float = 0.0) -> str:
    """A time stamp; where the recording has no calendar clock, the time since its start.

    >>> moment(1_735_787_771), moment(95, 20)
    ('2025-01-02 03:16:11', '75 s after the start')
    """
    if 1e8 < time_s < 1e11:
        return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M:%S}"
    return f"{duration(time_s - origin_s)} after the start"
