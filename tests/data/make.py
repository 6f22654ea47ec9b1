"""Writes the data and bundles that agent tests use: `python tests/data/make.py` (needs the extra `trainer`).

```
normal.csv           1200 rows, 1 Hz, pressure and flow: a machine that swings with a period of 24 s
faults.csv           the same machine with three faults, one after the other
small.tocsin         conv_ae, int8, with a batch file; window 32, hop 1
small_lstm.tocsin    lstm_ae; window 32, hop 1
```
The data come out the same to the last digit everywhere; the bundles need not be made again for that.
"""

import sys
from pathlib import Path

import numpy as np

from tocsin.cli.main import main

HERE = Path(__file__).parent
START = np.datetime64("2026-03-09T08:00:00")
FAULTS = ((150, 210), (300, 360), (450, 510))  # rows [first, last)


def machine(rows: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(rows, 2) pressure and flow of normal running."""
    at, noise = np.arange(rows), np.random.default_rng(seed).normal(0, 1, (rows, 2))
    swing = np.sin(2 * np.pi * at / 24)
    pressure = 5 + 0.4 * swing + 0.05 * noise[:, 0]
    flow = 21 + 2 * np.roll(swing, 3) + 0.2 * noise[:, 1]
    return np.stack((pressure, flow), axis=1)


def faulty(rows: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """The same with FAULTS: pressure falls, flow stays away, both drift up."""
    values = machine(rows, seed)
    fall, away, drift = (slice(*fault) for fault in FAULTS)
    values[fall, 0] -= 2.0
    values[away, 1] = 12.0
    values[drift] += np.linspace(0, 1, drift.stop - drift.start)[:, None] * (3.0, 12.0)
    return values


def write(path: Path, values: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
    stamps = np.datetime_as_string(START + np.arange(len(values)).astype("timedelta64[s]"))
    rows = (f"{stamp.replace('T', ' ')},{p:.3f},{f:.3f}\n" for stamp, (p, f) in zip(stamps, values, strict=True))
    path.write_text("time,pressure [bar],flow [l/min]\n" + "".join(rows), "ascii")


def train(family: str, name: str, epochs: int) -> None:
    command = ["train", "--data", str(HERE / "normal.csv"), "--out", str(HERE / "out"), "--asset", "small"]
    command += ["--families", family, "--window", "32", "--hop", "1", "--epochs", str(epochs), "--version", "1"]
    try:
        main([*command, "--quiet"])
    except SystemExit as ended:
        if ended.code:
            raise
    (HERE / "out/small-1.tocsin").replace(HERE / name)


if __name__ == "__main__":
    write(HERE / "normal.csv", machine(1200, 0))
    write(HERE / "faults.csv", faulty(600, 1))
    if "--data-only" not in sys.argv:
        train("conv_ae", "small.tocsin", 40)
        train("lstm_ae", "small_lstm.tocsin", 20)
