"""Tables for the terminal: plain text in columns, the first to the left, numbers to the right."""

from collections.abc import Sequence

from tocsin_trainer.markup import number


def aligned(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lines of a table; numbers with four digits, a dash for None.

    >>> print(aligned(("file", "f1"), [("a.csv", 0.51234), ("b.csv", None)]))
    file       f1
    a.csv  0.5123
    b.csv       –
    """
    cells = [tuple(heads), *(tuple(map(_cell, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = [c == 0 or any(isinstance(row[c], str) for row in rows) for c in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if to_left else cell.rjust(width)
            for cell, width, to_left in zip(row, widths, left, strict=True)
        ).rstrip()
        for row in cells
    )


def _cell(value: object) -> str:
    return number(value) if value is None or isinstance(value, int | float) else str(value)
