"""The same bundle on both TFLite runtimes: do the golden vectors hold, and how long does a window take?

    python benchmarks/runtimes.py BUNDLE [PYTHON3.11]

LiteRT in this environment against tflite-runtime 2.14 with numpy 1 in one made for it, which needs Python 3.11.
A table on stderr, JSON on stdout; exit code 1 when one of them fails the golden vectors.
"""

import json
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import environments


def other_packages() -> list[str]:
    """The extra `tflite-runtime`, and the dependencies that stay as they are."""
    project = tomllib.loads((environments.ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    kept = [text for text in project["dependencies"] if not text.startswith(("ai-edge-litert", "numpy"))]
    return [*kept, *project["optional-dependencies"]["tflite-runtime"]]


def try_out(python: Path | str, bundle: Path) -> dict[str, Any]:
    """What `tocsin model` says of the bundle there."""
    model = ["-m", "tocsin.cli.main", "model"]
    verified = environments.ask(python, [*model, "verify", str(bundle), "--json"])
    timed = environments.ask(python, [*model, "bench", str(bundle), "--json"])
    return {key: verified[key] for key in ("runtime", "passed", "worst", "tolerance", "flipped")} | {
        key: timed[key] for key in ("window_us_p50", "window_us_block", "load_to_first_score_ms", "rss_mb")
    }


def main(bundle: Path, python: str) -> int:
    """Tries both, prints both."""
    with tempfile.TemporaryDirectory() as folder:
        other = environments.make(Path(folder) / "tflite-runtime", python, other_packages())
        found = [try_out(sys.executable, bundle), try_out(other, bundle)]
    print(f"{'runtime':<18}{'golden':>8}{'worst':>10}{'µs':>8}{'µs, block':>11}{'RSS MB':>8}", file=sys.stderr)
    for row in found:
        golden, worst = "pass" if row["passed"] else "FAIL", f"{row['worst']:.1e}" if row["worst"] is not None else "–"
        times = f"{row['window_us_p50']:>8.1f}{row['window_us_block']:>11.1f}{row['rss_mb']:>8.0f}"
        print(f"{row['runtime']:<18}{golden:>8}{worst:>10}{times}", file=sys.stderr)
    print(json.dumps(found, indent=1))
    return 0 if all(row["passed"] for row in found) else 1


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2] if sys.argv[2:] else "python3.11"))
