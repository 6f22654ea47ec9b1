"""The first load of a new bundle, in a process of its own: a damaged model may crash the runtime, or never end.

`python -m tocsin.update.smoke FILE` prints one JSON object. Rules: limits of memory, time, files and processes are set
before anything of the bundle is read; nothing is written.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tocsin.errors import BundleError

MEMORY = 3 << 30  # of addresses, which the runtime maps in plenty
CPU_S, WALL_S = 60, 120.0
ROUNDS = 50


def smoke(path: Path, wall_s: float = WALL_S) -> dict[str, Any]:
    """What a bundle does on this machine.

    Returns:
        `passed`, `worst`, `ms_p99` of a window, `rss_mb`, `digest`.

    Raises:
        BundleError: it crashed, took for ever, or is damaged; says which.
    """
    command = [sys.executable, "-m", "tocsin.update.smoke", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=wall_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"{path.name}: did not end within {wall_s:g} s") from error
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError) as error:
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise BundleError(f"{path.name}: crashed when it was loaded ({ended})") from error
    if "error" in found:
        raise BundleError(str(found["error"]))
    return found


def _run(path: Path) -> dict[str, Any]:
    from tocsin.core.bundle import load_bundle  # noqa: PLC0415 - after the limits are set

    try:
        bundle = load_bundle(path)
        test = bundle.self_test()
    except BundleError as error:
        return {"error": str(error)}
    scorer, window = bundle.scorer(), bundle.golden.windows[:1]
    times = []
    for _ in range(ROUNDS):
        begin_s = time.perf_counter()
        scorer.score(window)
        times.append(1e3 * (time.perf_counter() - begin_s))
    times.sort()
    return {
        "passed": test.passed,
        "worst": test.worst,
        "ms_p99": times[int(0.99 * (len(times) - 1))],
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "digest": bundle.digest,
    }


def _limit() -> None:
    for what, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, CPU_S), (resource.RLIMIT_FSIZE, 0)):
        _, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    _limit()
    found = json.dumps(_run(Path(sys.argv[1])))
    sys.stdout.write(found + "\n")
