"""The repository keeps its own rules: addresses, versions, locked requirements, demo data, wheel, documentation."""

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import tocsin

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
DEMO_DATA = ROOT / "agent/tocsin/demo_data"
REGISTRY = re.compile(
    r"https?://[a-z0-9.-]*(pypi|pythonhosted|npmjs|debian)[a-z0-9.-]*/|--(extra-)?index-url|--find-links"
)
OUTSIDE = re.compile(r"(?<![\w.~/-])/(root|work|home|Users)/\w[\w.-]*")
LOCKED = {
    "device": PROJECT["project"]["dependencies"],
    "trainer": ("trainer", "demo"),
    "test": (
        "trainer",
        "demo",
        "explain",
        "tune",
        "modbus",
        "opcua",
        "can",
        "fleet",
        "update",
        "metrics",
        "test",
    ),
    "docs": PROJECT["dependency-groups"]["docs"],
}


def tracked() -> list[Path]:
    """Files of the project: what git tracks, or, without git or its folder, all but what is hidden or built."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [file for name in listed.split("\0") if name and (file := ROOT / name).is_file()]
    built = {"__pycache__", "build", "dist", "site", "out"}
    return [
        file
        for file in ROOT.rglob("*")
        if file.is_file() and not any(p.startswith(".") or p in built for p in file.relative_to(ROOT).parts)
    ]


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """`file:line` of each match in text files but this one."""
    found = []
    for file in tracked():
        if file == Path(__file__) or b"\0" in (content := file.read_bytes()):
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    return found


def requirements(form: tuple[str, ...] | list[str]) -> list[Requirement]:
    """Those written out, or those of the dependencies and these extras."""
    if isinstance(form, list):
        return [Requirement(text) for text in form]
    extras = PROJECT["project"]["optional-dependencies"]
    texts = [*PROJECT["project"]["dependencies"], *(text for extra in form for text in extras[extra])]
    return [Requirement(text) for text in texts]


def name_of(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def locked(name: str) -> dict[str, list[Requirement]]:
    """name → its pins in requirements/NAME.txt (several where they depend on the Python version)."""
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / f"requirements/{name}.txt").read_text("ascii").splitlines():
        if re.match(r"[a-z0-9]", line):
            pin = Requirement(line.rstrip("\\ "))
            pins.setdefault(name_of(pin.name), []).append(pin)
    return pins


def test_the_patterns_find_what_they_are_for():
    assert REGISTRY.search("pip install --index-url=x")
    assert REGISTRY.search("see https://" + "files.pythonhosted" + ".org/packages/")
    assert OUTSIDE.search("run('/home/anna/tocsin')")
    assert not OUTSIDE.search("shared/home/anna/x")


def test_no_file_names_a_package_registry():
    assert lines_with(REGISTRY) == []


def test_no_file_names_a_path_of_a_developers_machine():
    assert lines_with(OUTSIDE) == []


def test_the_version_is_the_same_everywhere():
    assert PROJECT["project"]["version"] == tocsin.__version__


@pytest.mark.parametrize("name", LOCKED)
def test_locked_requirements_are_those_of_pyproject(name: str):
    pins, wanted = locked(name), requirements(LOCKED[name])
    for requirement in wanted:
        for pin in pins.get(name_of(requirement.name), []) or pytest.fail(
            f"{requirement}: not in {name}.txt: make lock"
        ):
            (version,) = pin.specifier
            assert requirement.specifier.contains(version.version), f"{requirement}: {name}.txt has {pin}: make lock"
    content = (ROOT / f"requirements/{name}.txt").read_text("ascii")
    asked = re.findall(r"^(\S+)==[^#]*((?:    #.*\n)+)", content, re.MULTILINE)
    direct = {package for package, because in asked if re.search(r"\(?pyproject\.toml(:\w+)?\)?", because)}
    assert direct == {name_of(requirement.name) for requirement in wanted}, f"{name}.txt has others: make lock"


def test_a_package_has_one_version_in_all_locked_files():
    pins = [{str(pin) for several in locked(name).values() for pin in several} for name in LOCKED]
    versions: dict[str, set[str]] = {}
    for pin in set().union(*pins):
        key = f"{Requirement(pin).name};{Requirement(pin).marker}"
        versions.setdefault(key, set()).add(str(Requirement(pin).specifier))
    assert {name: several for name, several in versions.items() if len(several) > 1} == {}


@pytest.mark.parametrize("name", LOCKED)
def test_every_locked_package_has_a_hash(name: str):
    content = (ROOT / f"requirements/{name}.txt").read_text("ascii")
    entries = re.split(r"\n(?=[a-z0-9])", content)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)


def test_demo_data_are_those_of_the_notice():
    notice = dict(
        re.findall(r"`(\w+\.csv\.gz)` \| [\d,]+ \| `([0-9a-f]{64})`", (DEMO_DATA / "NOTICE.md").read_text("utf-8"))
    )
    assert notice == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in DEMO_DATA.glob("*.csv.gz")}
    assert len(notice) == 4


def test_demo_data_are_attributed():
    notice = (DEMO_DATA / "NOTICE.md").read_text("utf-8")
    for words in (
        "CC BY 4.0",
        "ZeMA",
        "10.24432/C5CW21",
        "Changes made",
        "Copyright 2014-2024 Numenta Inc.",
        "WITHOUT WARRANTY",
    ):
        assert words in notice


def test_every_decision_record_is_in_the_navigation():
    configuration = (ROOT / "mkdocs.yml").read_text("utf-8")
    records = sorted(file.name for file in (ROOT / "docs/adr").glob("[0-9]*.md"))
    assert records
    assert [name for name in records if f"adr/{name}" not in configuration] == []
    assert [name[:4] for name in records] == [f"{number:04}" for number in range(1, len(records) + 1)]


def test_every_make_target_says_what_it_does():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split()
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^make ([\w-]+) +\S", told, re.MULTILINE) == phony


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel built here, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file).namelist()


@pytest.mark.parametrize("package", ["tocsin", "tocsin_trainer", "tocsin_fleet"])
def test_the_wheel_has_the_typed_package(wheel: list[str], package: str):
    assert f"{package}/__init__.py" in wheel
    assert f"{package}/py.typed" in wheel


def test_the_wheel_has_the_demo_data_with_their_notice(wheel: list[str]):
    assert {f"tocsin/demo_data/{file.name}" for file in DEMO_DATA.iterdir()} <= set(wheel)
    assert "tocsin/demo_data/NOTICE.md" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)


def test_the_wheel_has_nothing_but_the_packages(wheel: list[str]):
    assert {name.partition("/")[0] for name in wheel} == {
        "tocsin",
        "tocsin_trainer",
        "tocsin_fleet",
        f"tocsin-{tocsin.__version__}.dist-info",
    }
