"""What the agent costs a device: disk, import time and memory, in an environment with the device's packages only.

    python benchmarks/device_footprint.py BUNDLE [RUNS]

A table on stderr, JSON on stdout. Times are medians of RUNS fresh interpreters (9), files being in the page cache.
Memory is VmRSS, in MB of 10^6 bytes.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import environments

NEVER = {"tensorflow", "tensorflow-cpu", "keras", "scipy", "pandas", "scikit-learn", "matplotlib", "jax"}
STEPS = {
    "interpreter": "",
    "numpy": "import numpy",
    "tflite runtime": "from tocsin.core.interpreter import runtime; runtime()",
    "scoring": "import tocsin.core.bundle",
    "agent": "import tocsin.service",
    "agent, scoring": """
import numpy
import tocsin.service
from tocsin.core.bundle import load_bundle
bundle = load_bundle(Path(sys.argv[1]))
scorer = bundle.scorer()
for _ in range(50):
    scorer.score(bundle.golden.windows)
""",
}
MEASURE = """
import json, sys, time
from pathlib import Path
begin = time.perf_counter()
{step}
ms = (time.perf_counter() - begin) * 1e3
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({{"ms": ms, "rss_mb": int(status["VmRSS"].split()[0]) * 1024 / 1e6}}))
"""


def installed(python: Path) -> dict[str, str]:
    """name → version, without pip and setuptools."""
    packages = environments.ask(python, ["-m", "pip", "list", "--format", "json", "--disable-pip-version-check"])
    return {p["name"]: p["version"] for p in packages if p["name"] not in ("pip", "setuptools")}


def disk_mb(python: Path) -> float:
    """Size of all that was installed, byte code included, without pip and setuptools."""
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    mine = [file for file in packages.rglob("*") if file.is_file() and not file.is_symlink()]
    tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence.pth")
    return sum(f.stat().st_size for f in mine if not f.relative_to(packages).parts[0].startswith(tools)) / 1e6


def measure(python: Path, step: str, bundle: Path, runs: int) -> dict[str, float]:
    """Median time and memory of one step in fresh interpreters; one more before them warms the cache."""
    found = [environments.ask(python, ["-c", MEASURE.format(step=step), str(bundle)]) for _ in range(runs + 1)][1:]
    return {key: round(statistics.median(one[key] for one in found), 1) for key in ("ms", "rss_mb")}


def main(bundle: Path, runs: int) -> None:
    """Makes the environment, measures, prints."""
    with tempfile.TemporaryDirectory() as folder:
        python = environments.make(
            Path(folder) / "device", sys.executable, ["--require-hashes", "-r", "requirements/device.txt"]
        )
        packages = installed(python)
        if heavy := NEVER & set(packages):
            sys.exit(f"a device must not have {', '.join(sorted(heavy))}")
        found: dict[str, Any] = {
            "packages": packages,
            "disk_mb": round(disk_mb(python), 1),
            "steps": {name: measure(python, step, bundle.resolve(), runs) for name, step in STEPS.items()},
        }
    print(f"{'':<16}{'import ms':>10}{'RSS MB':>10}", file=sys.stderr)
    for name, row in found["steps"].items():
        print(f"{name:<16}{row['ms']:>10.0f}{row['rss_mb']:>10.1f}", file=sys.stderr)
    print(f"{len(packages)} packages, {found['disk_mb']:.0f} MB on disk", file=sys.stderr)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 9)
