"""Tables of recorded samples: CSV files, plain or gzipped, read in blocks.

How a file is written is found by looking at its first lines: separator, header, units (`flow [l/min]`), time column,
form of the time, decimal comma. Whatever is found can be overridden. Rules: a file is read once, front to back, a
block at a time, so that its length does not matter; every complaint names file, line and column and what to do.

```
path ─ open_table (sniff) ─► Table ─ read_table (read: text → cells) ─► TableBlock …
```
"""

from tocsin.recordings.read import check_rate, read_table
from tocsin.recordings.sniff import open_table
from tocsin.recordings.table import Table, TableBlock, TableOptions, channel_key, split_unit

__all__ = [
    "Table",
    "TableBlock",
    "TableOptions",
    "channel_key",
    "check_rate",
    "open_table",
    "read_table",
    "split_unit",
]
