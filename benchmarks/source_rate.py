"""The serial source at a high rate: samples lost, CPU share and memory.

    python benchmarks/source_rate.py [--seconds 60] [--rate 25600] [--channels 3] [--format binary]

A process of its own plays the sensor node over a pseudo terminal, in real time; this one reads as the agent does.
"""

import argparse
import multiprocessing
import os
import resource
import time
import tty

import numpy as np

from tocsin.records import Channel
from tocsin.sources.frames import encode_frame
from tocsin.sources.serial_port import SerialSettings, SerialSource

FRAME = 128  # samples


def play(far: int, rate: float, channels: int, seconds: float, form: str) -> None:
    """Sends a ramp that numbers the samples, so that a loss is seen in the values."""
    begin, sent, total = time.monotonic(), 0, int(rate * seconds)
    while sent < total:
        due = min(total, int((time.monotonic() - begin) * rate))
        while due - sent >= FRAME or (due == total and sent < total):
            count = np.arange(sent, min(sent + FRAME, total))
            rows = (count % 30_000)[:, None] + np.zeros(channels)
            data = encode_frame(rows, sent) if form == "binary" else text(rows)
            while data:
                data = data[os.write(far, data) :]
            sent += len(count)
        time.sleep(0.002)


def text(rows: np.ndarray) -> bytes:
    return b"".join(b",".join(b"%d" % value for value in row) + b"\n" for row in rows.astype(int).tolist())


def measure(seconds: float, rate: float, channels: int, form: str = "binary") -> dict[str, float]:
    """Plays, reads, counts.

    Returns:
        samples, lost, bad, uneven (stamps further than half a period from their place), cpu_percent, rss_mb.
    """
    far, near = os.openpty()
    tty.setraw(near)
    names = tuple(Channel(f"c{n}") for n in range(channels))
    settings = SerialSettings.model_validate(
        {"type": "serial", "port": os.ttyname(near), "format": form, "rate_hz": rate}
        | {"channels": [channel.name for channel in names]}
    )
    source = SerialSource(settings, names, names)
    source.open()
    node = multiprocessing.get_context("fork").Process(target=play, args=(far, rate, channels, seconds, form))
    node.start()
    total, got, breaks, uneven = int(rate * seconds), 0, 0, 0
    cpu, begin, last_value, last_s = time.thread_time(), time.monotonic(), -1.0, None
    while got < total and time.monotonic() - begin < 1.5 * seconds + 10:
        block = source.read(0.5)
        if not len(block):
            continue
        column = np.concatenate(([last_value], block.values[:, 0]))
        breaks += int(np.count_nonzero(np.diff(column) % 30_000 != 1))
        if last_s is not None:
            spacing = np.diff(np.concatenate(([last_s], block.time_s))) * rate
            uneven += int(np.count_nonzero(np.abs(spacing - 1) >= 0.5))
        last_value, last_s, got = block.values[-1, 0], block.time_s[-1], got + len(block)
    cpu, wall = time.thread_time() - cpu, time.monotonic() - begin
    node.join(10)
    source.close()
    os.close(far)
    os.close(near)
    return {
        "samples": got,
        "lost": total - got + source.counts.lost + breaks,
        "bad": source.counts.bad,
        "uneven": uneven,
        "cpu_percent": round(100 * cpu / wall, 2),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rate", type=float, default=25_600)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--format", choices=("binary", "csv"), default="binary")
    given = parser.parse_args()
    found = measure(given.seconds, given.rate, given.channels, given.format)
    print(f"serial {given.format}, {given.channels} × {given.rate:g} Hz, {given.seconds:g} s: ", end="")
    print(", ".join(f"{key} {value:g}" for key, value in found.items()))


if __name__ == "__main__":
    main()
