"""Tables of recorded samples: CSV files, plain or gzipped, and segments of the recorder, read in blocks.

How a file is written is found by looking at its first lines: separator, header, units (`flow [l/min]`), time column,
form of the time, decimal comma. Whatever is found can be overridden. Rules: a file is read once, front to back, a
block at a time, so that its length does not matter; every complaint names file, line and column and what to do.

```
path ─ open_table (sniff, segment) ─► AnyTable ─ read_table (read: text → cells; segment) ─► TableBlock …
```
"""

from tocsin.recordings.clock import CoarseClock
from tocsin.recordings.forms import open_table, read_table
from tocsin.recordings.read import check_rate
from tocsin.recordings.table import AnyTable, Table, TableBlock, TableOptions, channel_key, split_unit
from tocsin.recordings.together import MAIN, check_overlap, mended, open_groups, paired, read_groups

__all__ = [
    "MAIN",
    "AnyTable",
    "CoarseClock",
    "Table",
    "TableBlock",
    "TableOptions",
    "channel_key",
    "check_overlap",
    "check_rate",
    "mended",
    "open_groups",
    "open_table",
    "paired",
    "read_groups",
    "read_table",
    "split_unit",
]
