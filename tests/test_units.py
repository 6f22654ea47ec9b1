"""The units: what systemd itself says of them."""

import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[1] / "systemd"
SERVICES = sorted(UNITS.glob("*.service"))
pytestmark = pytest.mark.systemd


def analyze(*words: object) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def verified(folder: Path, change: str = "", into: str = "") -> str:
    """What `systemd-analyze verify` has to say of all units; their program is another one, as ours is not installed."""
    for path in (path for path in UNITS.iterdir() if path.suffix in (".service", ".timer", ".path")):
        text = path.read_text().replace("/opt/tocsin/bin/tocsin", "/bin/true").replace("man:tocsin(1)", "man:true(1)")
        (folder / path.name).write_text(text.replace(change, into) if change else text)
    done = analyze("verify", "--man=no", "--recursive-errors=no", *sorted(folder.glob("tocsin-*")))
    return done.stderr + ("" if done.returncode == 0 else f"ended with {done.returncode}")


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    said = [line for line in verified(tmp_path).splitlines() if "tocsin" in line]
    assert said == []


@pytest.mark.parametrize(
    ("change", "into"),
    [("WatchdogSec=20s", "WatchdogSecs=20s"), ("Type=notify", "Type=notifies"), ("OnBootSec=2min", "OnBootSec=soon"),
     ("ProtectSystem=strict", "ProtectSystem=very")],
)  # fmt: skip
def test_a_slip_of_the_pen_is_found(change: str, into: str, tmp_path: Path) -> None:
    assert "tocsin-" in verified(tmp_path, change, into)


@pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.name)
def test_a_service_may_little(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--threshold=20", unit)
    assert done.returncode == 0, done.stdout
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None and float(found[1]) <= 2.0
