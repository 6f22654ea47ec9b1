"""Cuts the demo's tables out of two public recordings; `agent/tocsin/demo_data/NOTICE.md` tells what they are.

    python benchmarks/make_demo_data.py HYDRAULIC NAB_CSV NAB_WINDOWS [OUT]

HYDRAULIC is the unpacked folder of UCI data set 447 (files may be gzipped), NAB_CSV and NAB_WINDOWS are NAB's
`machine_temperature_system_failure.csv` and `combined_windows.json`. Measured values are copied as they are written;
only the two 10 Hz flows are averaged to 1 Hz. The same input gives the same bytes.
"""

import gzip
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

OUT = Path(__file__).parent.parent / "agent/tocsin/demo_data"

COLUMNS = {
    "TS1": "°C",
    "TS2": "°C",
    "TS3": "°C",
    "TS4": "°C",
    "VS1": "mm/s",
    "SE": "%",
    "CE": "%",
    "CP": "kW",
    "FS1": "l/min",
    "FS2": "l/min",
}
SECONDS_A_CYCLE = 60

# Cycles [start, stop) with what profile.txt says of them: cooler %, valve %, pump leakage, accumulator bar.
# Healthy = cooler, valve and pump at their best, accumulator at 90 bar: the one setting with a long healthy stretch.
HEALTHY = (100, 100, 0, 90)
NORMAL = [(1478, 1600, HEALTHY)]
TEST = [
    (1600, 1616, HEALTHY),
    (2104, 2114, (100, 100, 2, 90)),  # severe internal leakage of the pump
    (1616, 1632, HEALTHY),
    (1454, 1464, (20, 100, 0, 90)),  # cooler at 20 %
    (1632, 1648, HEALTHY),
    (2074, 2084, (100, 73, 2, 90)),  # leakage, and a valve close to failure
    (1648, 1664, HEALTHY),
    (722, 732, (3, 100, 0, 90)),  # cooler close to failure
    (2186, 2205, HEALTHY),  # the recording's last cycles
]
NORMAL_START, TEST_START = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)

NAB_KEY = "realKnownCause/machine_temperature_system_failure.csv"
NAB_TRAIN_PART = 0.15

Table = list[list[str]]
Block = tuple[int, int, tuple[int, int, int, int]]


def read_lines(folder: Path, name: str) -> list[str]:
    """Lines of NAME or NAME.gz."""
    plain = folder / name
    if plain.exists():
        return plain.read_text("ascii").splitlines()
    return gzip.decompress((folder / f"{name}.gz").read_bytes()).decode("ascii").splitlines()


def one_hertz(line: str) -> list[str]:
    """A cycle's 60 values, as written; 600 become means of ten (exact with one more decimal)."""
    values = line.split()
    if len(values) == SECONDS_A_CYCLE:
        return values
    tens = [values[i : i + 10] for i in range(0, len(values), 10)]
    return [f"{sum(map(float, ten)) / 10:.4f}" for ten in tens]


def hydraulic(folder: Path, blocks: list[Block], start: datetime, label: bool) -> Table:
    """Blocks of cycles one after the other as one series of 1 Hz; the time column starts at `start` and never jumps."""
    profile = [tuple(map(int, line.split())) for line in read_lines(folder, "profile.txt")]
    sensors = [read_lines(folder, f"{name}.txt") for name in COLUMNS]
    table = [["time", *(f"{name.lower()} [{unit}]" for name, unit in COLUMNS.items()), *(["label"] if label else [])]]
    for first, stop, state in blocks:
        for cycle in range(first, stop):
            if profile[cycle][:4] != state:
                raise ValueError(f"cycle {cycle}: expected {state} in profile.txt, got {profile[cycle]}")
            for row in zip(*(one_hertz(sensor[cycle]) for sensor in sensors), strict=True):
                time = start + timedelta(seconds=len(table) - 1)
                mark = [str(int(state != HEALTHY))] if label else []
                table.append([time.strftime("%Y-%m-%dT%H:%M:%SZ"), *row, *mark])
    return table


def machine_temperature(csv: Path, windows_file: Path) -> tuple[Table, Table]:
    """Rows up to the first labelled window (15 % at most), and all rows after them with their label."""
    rows = [line.split(",") for line in csv.read_text("ascii").splitlines()[1:]]
    windows = [[str(edge)[:19] for edge in pair] for pair in json.loads(windows_file.read_text())[NAB_KEY]]
    before = sum(time < windows[0][0] for time, _ in rows)
    cut = min(before, int(NAB_TRAIN_PART * len(rows)))
    labels = [str(int(any(start <= time <= stop for start, stop in windows))) for time, _ in rows]
    normal = [["time", "temperature"], *rows[:cut]]
    test = [
        ["time", "temperature", "label"],
        *([*row, mark] for row, mark in zip(rows[cut:], labels[cut:], strict=True)),
    ]
    return normal, test


def tables(folder: Path, csv: Path, windows: Path) -> Iterator[tuple[str, Table]]:
    """Each file's name with its rows, header first."""
    yield "hydraulic_normal", hydraulic(folder, NORMAL, NORMAL_START, label=False)
    yield "hydraulic_test", hydraulic(folder, TEST, TEST_START, label=True)
    normal, test = machine_temperature(csv, windows)
    yield "machine_temperature_normal", normal
    yield "machine_temperature_test", test


def main(arguments: list[str]) -> None:
    """Writes the four files."""
    folder, csv, windows = map(Path, arguments[:3])
    out = Path(arguments[3]) if arguments[3:] else OUT
    for name, table in tables(folder, csv, windows):
        content = "".join(",".join(row) + "\n" for row in table).encode()
        (out / f"{name}.csv.gz").write_bytes(gzip.compress(content, mtime=0))
        print(f"{name}.csv.gz: {len(table) - 1} rows")


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(sys.argv[1:])
