"""Values → HTML: text, numbers, sizes, tables and figures.

Rules: everything that is given is escaped here and nowhere else; numbers stand right-aligned with the same few digits;
an absent value is a dash.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

DASH = "–"


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
            f"<td{_kind(bool(marked) or _is_number(value), c, marked)}>{_cell(value)}</td>"
            for c, value in enumerate(row[1:], start=1)
        )
        body.append(f'<tr><th scope="row">{_cell(row[0])}</th>{cells}</tr>\n')
    return (
        f'<div class="wide" tabindex="0"><table><thead>{top}</thead>\n<tbody>\n{"".join(body)}</tbody></table></div>\n'
    )


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


def _kind(right: bool, column: int, marked: Sequence[bool]) -> str:
    """The cell's class attribute."""
    kinds = ["number"] * right + ["ships"] * (column < len(marked) and marked[column])
    return f' class="{" ".join(kinds)}"' if kinds else ""
