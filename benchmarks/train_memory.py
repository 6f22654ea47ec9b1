"""What `tocsin train` costs the workstation as recordings grow: seconds and memory.

    python benchmarks/train_memory.py [--hours 1,10,100] [--channels 8] [--rate 10] [--recordings 1]
                                      [--families t2,pca] [--out FOLDER]

Recordings of a machine with a cycle of four seconds and a load that wanders are made up, and each length is trained on
by the command itself, with its defaults. A table on stdout, train_memory.json in --out; exit code 1 when a training
failed.

Rules: memory is resident, in MB of 10^6 bytes; `process` is the peak of the largest process as the kernel counts it,
`together` the peak of all of the command's processes, looked at five times a second: what each has of its own, and the
files that they share once. Seconds are of the whole command. The recordings are removed at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

START = np.datetime64("2026-03-09T00:00:00", "us")
CYCLE_S, WANDER_S, NOISE = 4.0, 1800.0, 0.2
BLOCK = 1 << 16  # rows made at once
LOOK_S = 0.2


def write(path: Path, hours: float, channels: int, rate: float, first_row: int = 0, seed: int = 0) -> None:
    """A CSV of so many hours."""
    rng, rows = np.random.default_rng(seed), round(hours * 3600 * rate)
    line = "%s" + ",%.3f" * channels + "\n"
    with path.open("w") as stream:
        stream.write("time," + ",".join(f"sensor_{c + 1}" for c in range(channels)) + "\n")
        for start in range(0, rows, BLOCK):
            at_s = (first_row + np.arange(start, min(rows, start + BLOCK))) / rate
            cycle = np.sin(2 * np.pi * at_s / CYCLE_S)[:, None] * (1 + np.arange(channels))
            load = 0.3 * np.sin(2 * np.pi * at_s / WANDER_S)[:, None]
            values = 20 + cycle + load + rng.normal(0, NOISE, (len(at_s), channels))
            stamps = np.datetime_as_string(START + (at_s * 1e6).round().astype("timedelta64[us]"))
            stream.writelines(line % (s, *row) for s, row in zip(stamps.tolist(), values.tolist(), strict=True))


def measure(command: list[str]) -> dict[str, Any]:
    """Seconds and memory of a command and of all that it starts."""
    begin, together = time.perf_counter(), 0.0
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while True:
        done, status, used = os.wait4(running.pid, os.WNOHANG)
        if done:
            break
        together = max(together, resident_mb(running.pid))
        time.sleep(LOOK_S)
    running.returncode = os.waitstatus_to_exitcode(status)
    return {
        "exit": running.returncode,
        "seconds": round(time.perf_counter() - begin, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "process_mb": round(used.ru_maxrss * 1024 / 1e6),
        "together_mb": round(together),
    }


def resident_mb(root: int) -> float:
    """Of a process and all below it; of the files that they have in memory, the largest set counts."""
    children: dict[int, list[int]] = defaultdict(list)
    kib: dict[int, dict[str, int]] = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
        except OSError:  # it has just ended
            continue
        children[int(lines["PPid"])].append(int(path.parent.name))
        kib[int(path.parent.name)] = {key: int(lines.get(key, "0").split()[0]) for key in ("RssAnon", "RssFile")}
    todo, own, shared = [root], 0, 0
    while todo:
        process = todo.pop()
        todo += children[process]
        if process in kib:
            own, shared = own + kib[process]["RssAnon"], max(shared, kib[process]["RssFile"])
    return (own + shared) * 1024 / 1e6


def trained(folder: Path, hours: float, chosen: argparse.Namespace) -> dict[str, Any]:
    """Makes recordings of so many hours together, and trains on them."""
    each = hours / chosen.recordings
    paths = [folder / f"{n}.csv" for n in range(chosen.recordings)]
    for n, path in enumerate(paths):
        write(path, each, chosen.channels, chosen.rate, round(n * (each + 1) * 3600 * chosen.rate), n)
    size_mb = sum(path.stat().st_size for path in paths) / 1e6
    command = [sys.executable, "-m", "tocsin.cli.main", "train", "--quiet", "--out", str(folder / "out")]
    command += ["--families", chosen.families] if chosen.families else []
    found = measure([*command, "--data", *map(str, paths)])
    metrics = folder / "out/metrics.json"
    if found["exit"] == 0:
        about = json.loads(metrics.read_text())
        found |= {"chosen": about["chosen"], "rows": sum(about["rows"].values()), "window": about["window"]}
        found["families"] = {c["family"]: round(c["seconds"], 1) for c in about["candidates"]}
    for path in (*paths, metrics):
        path.unlink(missing_ok=True)
    return {"hours": hours, "csv_mb": round(size_mb), **found}


def main(arguments: list[str]) -> int:
    """Makes recordings, measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", default="1,10,100", help="comma-separated  [%(default)s]")
    parser.add_argument("--channels", type=int, default=8, help="[%(default)s]")
    parser.add_argument("--rate", type=float, default=10.0, help="rows a second  [%(default)s]")
    parser.add_argument("--recordings", type=int, default=1, help="files that share the hours  [%(default)s]")
    parser.add_argument("--families", help="comma-separated; the command's own choice when left out")
    parser.add_argument("--out", type=Path, default=Path("out/train_memory"), help="[%(default)s]")
    chosen = parser.parse_args(arguments)
    found: list[dict[str, Any]] = []
    print(f"{'hours':>7}{'CSV MB':>8}{'seconds':>9}{'CPU s':>8}{'process MB':>12}{'together MB':>13}{'× first':>9}")
    for hours in map(float, chosen.hours.split(",")):
        with tempfile.TemporaryDirectory(prefix="tocsin-memory-", dir=os.environ.get("TMPDIR")) as folder:
            one = trained(Path(folder), hours, chosen)
        found.append(one)
        times = one["together_mb"] / found[0]["together_mb"]
        print(
            f"{hours:>7g}{one['csv_mb']:>8}{one['seconds']:>9}{one['cpu_seconds']:>8}{one['process_mb']:>12}"
            f"{one['together_mb']:>13}{times:>9.2f}" + ("" if one["exit"] == 0 else f"   exit code {one['exit']}"),
            flush=True,
        )
    chosen.out.mkdir(parents=True, exist_ok=True)
    about = {"channels": chosen.channels, "rate_hz": chosen.rate, "recordings": chosen.recordings, "found": found}
    (chosen.out / "train_memory.json").write_text(json.dumps(about, indent=1) + "\n")
    return 1 if any(one["exit"] for one in found) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
