"""Virtual environments for measuring, made beside the project's own and thrown away."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def make(folder: Path, python: str, packages: list[str]) -> Path:
    """An environment with these packages (pip's arguments) and this project's wheel; gives its interpreter."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    inside = folder / "bin/python"
    pip = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *packages], check=True, cwd=ROOT)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    return inside


def ask(python: Path | str, code: list[str]) -> Any:
    """The JSON that a fresh interpreter prints, whatever it exits with."""
    done = subprocess.run([str(python), *code], capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.exit(f"{' '.join(code)[:80]}: expected JSON, got {done.stdout!r}\n{done.stderr}")
