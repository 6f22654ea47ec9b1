"""Tables of recorded samples: what is read, and what is refused, with its line."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from tocsin.errors import DataError
from tocsin.recordings import TableBlock, TableOptions, open_table, read_table, text

BY_TIME, BY_RATE = TableOptions(), TableOptions(rate_hz=1)


def read(path: Path, options: TableOptions = BY_TIME, block_lines: int = 50) -> list[TableBlock]:
    return list(read_table(open_table(path, options), block_lines))


def written(folder: Path, header: str, rows: list[str]) -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *rows, ""]))
    return path


def rows(count: int, at: int, instead: str) -> list[str]:
    """Rows `0,1,2` … with another one in line `at`, the header's being line 1."""
    made = [f"{n},{n % 7},{n % 5}" for n in range(count)]
    made[at - 2] = instead
    return made


@pytest.mark.parametrize("at", [5, 100, 200])
@pytest.mark.parametrize(
    ("options", "instead", "says"),
    [
        (BY_TIME, '3,"1\n2",3', "quoted cell"),
        (BY_TIME, '3,1,"2', "quoted cell"),
        (BY_RATE, '3,"1\n2",3', "quoted cell"),
        (BY_TIME, ",1,2", "time column: expected a time"),
        (BY_TIME, "nan,1,2", "time column: expected a time"),
        (BY_TIME, "1_0,1,2", "time"),
        (BY_TIME, "3,1_0,2", "expected a number, got '1_0'"),
        (BY_TIME, '3,"1_0",2', "expected a number, got '1_0'"),
        (BY_RATE, "3,1,1_0", "expected a number, got '1_0'"),
        (BY_TIME, "3,1,2,4", "4 fields, expected 3"),
        (BY_RATE, "3,1,2,4", "4 fields, expected 3"),
        (BY_RATE, "3,1", "2 fields, expected 3"),
        (BY_TIME, "3,1," + "2" * 1000, "longer than 1000 characters"),
    ],
)
def test_a_row_that_cannot_be_read_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, options: TableOptions, instead: str, says: str
) -> None:
    monkeypatch.setattr(text, "MAX_LINE", 1000)
    header = "x,a,b" if options is BY_RATE else "time,a,b"
    with pytest.raises(DataError, match=rf"data\.csv: line {at}\b.*{says}"):
        read(written(tmp_path, header, rows(300, at, instead)), options)


def test_an_endless_line_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "data.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as handle:
        handle.write(b"1" * (8 << 20))
    before_the_end = path.read_bytes()[:-8]  # its end is damaged: who reads on, finds that
    path.write_bytes(before_the_end)
    with pytest.raises(DataError, match="line 1 is longer than 1048576 characters"):
        open_table(path, TableOptions())


def test_a_header_field_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "time," + "a" * 200_000, ["0,1", "1,2"])
    with pytest.raises(DataError, match=r"data\.csv"):
        open_table(path, TableOptions())


def test_a_time_with_a_decimal_comma_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "time;a", [f"{n},5;{n % 3},25" for n in range(100)])
    blocks = read(path)
    assert np.concatenate([part.block.time_s for part in blocks]).tolist() == [n + 0.5 for n in range(100)]


def test_line_breaks_of_any_system_and_empty_lines_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    for end in (b"\n", b"\r\n", b"\r"):
        path.write_bytes(end.join([b"time,a", b"", *(b"%d,%d" % (n, n % 3) for n in range(80))]))
        blocks = read(path)
        assert sum(len(part.block) for part in blocks) == 80
        assert blocks[0].lines[0] == 3
