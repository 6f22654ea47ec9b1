"""Sources by name: built in, and from another package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tocsin.config import AgentSettings
from tocsin.config_file import load_settings
from tocsin.errors import ConfigError
from tocsin.records import Channel
from tocsin.sources import SOURCES, Source, SourceSettings, settings_class

PAGE = (Path(__file__).parents[2] / "docs/extend/source.md").read_text("utf-8")


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of the page, installed."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (project,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    point = re.search(r"^child = \"(.+)\"$", project, re.MULTILINE)[1]
    info = tmp_path / "site/tocsin_child-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tocsin-child\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[tocsin.sources]\nchild = {point}\nbroken = child:nothing\n")
    (info.parent / "child.py").write_text(code)
    monkeypatch.syspath_prepend(info.parent)
    yield tmp_path
    sys.modules.pop("child", None)


def configured(folder: Path, source: str) -> SourceSettings:
    path = folder / "tocsin.yaml"
    path.write_text(f"version: 1\nassets:\n  - id: a\n    bundle: a.tocsin\n    source: {source}\n")
    return load_settings(path, {}).assets[0].source


def opened(settings: SourceSettings) -> Source:
    source = settings.make(())
    source.open()
    return source


def test_the_example_of_the_page_gives_what_its_program_prints(plugin: Path) -> None:
    line = '{type: child, command: ["%s", "-u", "-c", "%s"], channels: [a, b], rate_hz: 100}'
    program = "import time; [(print(n, 2 * n), time.sleep(0.005)) for n in range(20)]"
    source = opened(configured(plugin, line % (sys.executable, program)))
    rows = []
    while len(rows) < 20:
        rows += source.read(1.0).values.tolist()
    source.close()
    source.close()
    assert rows == [[n, 2 * n] for n in range(20)]
    assert source.channels == (Channel("a"), Channel("b"))


def test_a_mistake_in_the_settings_of_another_package_is_told_with_its_place(plugin: Path) -> None:
    with pytest.raises(ConfigError, match=r"tocsin.yaml:5:\d+: assets\[0\].source.rate_hz: .*greater than 0, got -1"):
        configured(plugin, "{type: child, command: [x], channels: [a], rate_hz: -1}")


def test_the_names_of_other_packages_are_offered(plugin: Path) -> None:
    with pytest.raises(ConfigError, match=r"source.type: expected one of .*'child'.*'serial'.*, got 'chield'"):
        configured(plugin, "{type: chield}")


def test_an_entry_point_that_is_none_is_told(plugin: Path) -> None:
    with pytest.raises(ConfigError, match="the source 'broken' cannot be loaded"):
        configured(plugin, "{type: broken}")


@pytest.mark.parametrize("name", SOURCES)
def test_every_name_leads_to_settings_of_that_type(name: str) -> None:
    assert settings_class(name).model_fields["type"].annotation.__args__ == (name,)


def test_a_configuration_loads_only_the_module_that_it_names() -> None:
    code = (
        "import sys; from tocsin.sources import settings_class; settings_class('synthetic');"
        "print(*(name for name in sys.modules if name.startswith('tocsin.sources.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "tocsin.sources.synthetic" in done.stdout
    assert "modbus" not in done.stdout and "serial" not in done.stdout and "replay" not in done.stdout


def test_the_schema_of_the_file_knows_every_source() -> None:
    source = AgentSettings.model_json_schema()["$defs"]["AssetSettings"]["properties"]["source"]
    assert set(source["anyOf"][0]["discriminator"]["mapping"]) == set(SOURCES)


TWICE = {
    "can": "rate_hz: 1, dbc: a.dbc, channels: [{name: a, signal: S}, {name: a, signal: T}]",
    "iio": "rate_hz: 1, device: x, channels: [{name: a, element: in_temp}, {name: a, element: in_voltage0}]",
    "modbus": "rate_hz: 1, host: h, slaves: [{registers: [{name: a, address: 0}, {name: a, address: 1}]}]",
    "mqtt": "rate_hz: 1, topic: t, channels: [{name: a, path: x}, {name: a, path: y}]",
    "opcua": 'rate_hz: 1, url: "opc.tcp://h", channels: [{name: a, node: ns=2;s=A}, {name: a, node: ns=2;s=B}]',
    "serial": "port: p, channels: [a, a]",
    "synthetic": "channels: [a, a]",
}


@pytest.mark.parametrize("kind", sorted(set(SOURCES) - {"replay"}))
def test_a_channel_that_is_given_twice_is_refused_by_every_source(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ConfigError, match=r"tocsin.yaml:5:\d+: assets\[0\].source: the channel 'a' is given twice"):
        configured(tmp_path, f"{{type: {kind}, {TWICE[kind]}}}")
