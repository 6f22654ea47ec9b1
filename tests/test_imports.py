"""Who may import whom: read from the source, imports inside functions included, and then tried."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
AGENT, TRAINER = ROOT / "agent/tocsin", ROOT / "trainer/tocsin_trainer"

WORKSTATION = (
    "tocsin_trainer",
    "tocsin_fleet",
    "tensorflow",
    "keras",
    "jax",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
)
LAZY = (*WORKSTATION, "amqtt", "rich", "pymodbus", "asyncua", "can", "cantools", "tflite_runtime", "prometheus_client")
# The modules of `[project] dependencies`: all that the agent may count on.
DEVICE = {
    "ai-edge-litert": "ai_edge_litert",
    "click": "click",
    "numpy": "numpy",
    "paho-mqtt": "paho",
    "pydantic": "pydantic",
    "pyserial": "serial",
    "pyyaml": "yaml",
}
CLOCK_AND_IO = ("time", "datetime", "socket", "ssl", "sqlite3", "subprocess", "threading", "multiprocessing", "asyncio")
FILES = ("os", "io", "pathlib", "tempfile", "shutil", "zipfile", "csv", "logging")
BY_NAME = {  # what importlib may be asked for, by whom
    "core/interpreter.py": ("tensorflow",),  # the last resort
    "cli/main.py": ("tocsin_trainer", "tocsin_fleet"),
    "cli/doctor.py": ("tocsin_trainer",),  # with --trainer
    "cli/demo.py": ("tocsin_trainer", "tensorflow", "matplotlib"),  # looks whether the extras are there
}


def imports(tree: ast.AST) -> Iterator[str]:
    """Full name of every imported module or member, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_import(tree: ast.Module) -> Iterator[str]:
    """As `imports`, without those inside functions."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(node)
        todo.extend(ast.iter_child_nodes(node))


def is_within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def names_in_strings(tree: ast.AST) -> Iterator[str]:
    """Strings that are a module's name, such as importlib takes."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"[\w.]+(:\w+)?", node.value)
        ):
            yield node.value.partition(":")[0]


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"), str(file))


def files(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found, f"no Python files under {folder}"
    return found


def offences(folder: Path, forbidden: tuple[str, ...]) -> list[str]:
    return [f"{file}: {name}" for file in files(folder) for name in imports(parse(file)) if is_within(name, forbidden)]


def test_an_import_inside_a_function_is_seen():
    tree = ast.parse("def f():\n    if True:\n        from scipy.stats import norm\n")
    assert list(imports(tree)) == ["scipy.stats.norm"]
    assert list(at_import(tree)) == []
    assert is_within("scipy.stats.norm", WORKSTATION)
    assert not is_within("scipyx", WORKSTATION)


def test_an_import_in_a_class_or_a_try_is_one_at_import():
    assert (
        list(at_import(ast.parse("try:\n    import rich\nexcept ImportError:\n    class A:\n        import can\n")))
        != []
    )


def test_the_agent_never_imports_the_workstation():
    assert offences(AGENT, WORKSTATION) == []


def test_the_agent_names_workstation_packages_only_where_it_may():
    found = []
    for file in files(AGENT):
        place = file.relative_to(AGENT).as_posix()
        allowed = BY_NAME.get(place, ())
        for name in names_in_strings(parse(file)):
            if is_within(name, WORKSTATION) and not is_within(name, allowed):
                found.append(f"{place}: {name!r}")
    assert found == []


OF_AN_EXTRA = {"update/fetch.py": ("tuf", "urllib3"), "update/trust.py": ("tuf",)}  # a process of its own


def test_the_agent_imports_at_import_only_what_every_device_has():
    allowed = {*sys.stdlib_module_names, "tocsin", *DEVICE.values(), "pydantic_core"}
    found = [
        f"{file}: {name}"
        for file in files(AGENT)
        for name in at_import(parse(file))
        if name.split(".")[0] not in {*allowed, *OF_AN_EXTRA.get(file.relative_to(AGENT).as_posix(), ())}
    ]
    assert found == []


def test_only_the_updater_imports_what_needs_its_extra():
    needs = {f"tocsin.{place.removesuffix('.py').replace('/', '.')}" for place in OF_AN_EXTRA}
    found = {
        file.relative_to(AGENT).as_posix()
        for file in files(AGENT)
        for name in at_import(parse(file))
        if any(is_within(name, (module,)) for module in needs)
    }
    assert found == {"update/client.py", "update/trust.py"}


def test_the_device_modules_are_the_projects_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.match(r"[\w.-]+", requirement).group().lower() for requirement in project["dependencies"]}
    assert names == set(DEVICE)


def test_core_is_numpy_and_the_standard_library():
    allowed = {*sys.stdlib_module_names, "numpy"}
    for file in files(AGENT / "core"):
        for name in imports(parse(file)):
            ours = is_within(name, ("tocsin.core", "tocsin.records", "tocsin.errors"))
            assert ours or name.split(".")[0] in allowed, f"{file}: {name}"


def test_core_has_no_clock_and_only_the_bundle_reads_files():
    assert offences(AGENT / "core", CLOCK_AND_IO) == []
    found = {file.name for file in files(AGENT / "core") for name in imports(parse(file)) if is_within(name, FILES)}
    assert found <= {"bundle.py"}


def test_alarms_know_only_values():
    for file in files(AGENT / "alarms"):
        for name in imports(parse(file)):
            if name.split(".")[0] == "tocsin":
                assert is_within(name, ("tocsin.alarms", "tocsin.core", "tocsin.records", "tocsin.errors")), (
                    f"{file}: {name}"
                )
    assert offences(AGENT / "alarms", (*CLOCK_AND_IO, *FILES)) == []


def test_sources_import_their_own_library_only_when_they_open():
    allowed = {*sys.stdlib_module_names, "tocsin", "numpy", "pydantic", "pydantic_core"}
    found = [
        f"{file}: {name}"
        for file in files(AGENT / "sources")
        for name in at_import(parse(file))
        if name.split(".")[0] not in allowed
    ]
    assert found == []


def test_the_trainer_takes_only_the_shared_contract_from_the_agent():
    shared = "records errors core alarms config config_file settings recordings chatter __version__"
    allowed = tuple(f"tocsin.{name}" for name in shared.split())
    found = [
        f"{file}: {name}"
        for file in files(TRAINER)
        for name in imports(parse(file))
        if name.split(".")[0] == "tocsin" and not is_within(name, allowed)
    ]
    assert found == []


EVERY_MODULE = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is not on a device")

blocked = set(sys.argv[1:])
sys.meta_path.insert(0, Absent())
import tocsin
for module in pkgutil.walk_packages(tocsin.__path__, "tocsin."):
    importlib.import_module(module.name)
    print(module.name)
assert not blocked & {name.partition(".")[0] for name in sys.modules}
"""


def import_all(blocked: Iterable[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", EVERY_MODULE, *blocked]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_every_module_of_the_agent_imports_without_the_extras():
    done = import_all(LAZY)
    assert done.returncode == 0, done.stderr
    expected = {".".join(file.relative_to(AGENT.parent).with_suffix("").parts) for file in files(AGENT)}
    assert set(done.stdout.split()) == {name.removesuffix(".__init__") for name in expected} - {"tocsin"}


def test_a_blocked_package_is_not_importable_there():
    assert "numpy is not on a device" in import_all(["numpy"]).stderr
