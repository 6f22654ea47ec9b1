"""Tests in several processes: what is missing is named, CI takes no skip for it, and what is alone is alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NEEDS_A_BROKER = """
import pytest

@pytest.mark.broker
def test_it_needs_a_broker():
    pass
"""
TELLS_WHEN = """
import time
from pathlib import Path
import pytest

def tell(name, seconds):
    begin_s = time.monotonic()
    time.sleep(seconds)
    with (Path(__file__).parent / "told").open("a") as told:
        told.write(f"{begin_s} {time.monotonic()} {name}\\n")

"""
ALONE = "@pytest.mark.alone\ndef test_alone():\n    tell('alone', 0.5)\n"
BESIDE = "@pytest.mark.parametrize('n', range(20))\ndef test_beside(n):\n    tell('beside', 0.05)\n"


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A suite with the rules of this one."""
    (folder / "conftest.py").write_text((HERE / "conftest.py").read_text())
    settings = ["-c", str(HERE.parent / "pyproject.toml"), f"--rootdir={folder}", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", *settings, *words, str(folder)]
    hidden = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CI"))}
    return subprocess.run(command, env={**hidden, **environment}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("ci", "code", "told"),
    [("", 0, r"SKIPPED \[1\] .*mosquitto is not installed"), ("true", 1, r"ERROR .*mosquitto is not installed")],
)
def test_what_needs_a_missing_program_is_named_and_fails_where_ci_promised_it(
    tmp_path: Path, ci: str, code: int, told: str
) -> None:
    (tmp_path / "test_one.py").write_text(NEEDS_A_BROKER)
    done = run(tmp_path, CI=ci, PATH="")
    assert done.returncode == code, done.stdout + done.stderr
    assert re.search(told, done.stdout.partition("short test summary")[2]), done.stdout


def test_no_other_test_runs_beside_one_that_is_alone(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(TELLS_WHEN + ALONE + BESIDE)
    (tmp_path / "test_two.py").write_text(TELLS_WHEN + BESIDE + ALONE)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line.split() for line in (tmp_path / "told").read_text().splitlines()]
    spans = sorted((float(begin), float(end), name) for begin, end, name in told)
    overlaps = [(a[2], b[2]) for n, a in enumerate(spans) for b in spans[n + 1 :] if b[0] < a[1]]
    assert len(spans) == 42 and ("beside", "beside") in overlaps  # else this test shows nothing
    assert not any("alone" in pair for pair in overlaps)
