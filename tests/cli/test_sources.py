"""`tocsin sources`: what there is, and what a source gives right now."""

import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tocsin.cli.readings import Readings, sparkline
from tocsin.cli.sources import NEEDS, kinds
from tocsin.records import Channel, SampleBlock
from tocsin.sources import SOURCES

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "tests/data/small.tocsin"
Tocsin = Callable[..., tuple[int, str, str]]
PLUGIN = '''
from typing import Literal
from tocsin.sources import SourceSettings
class ThermoSettings(SourceSettings):
    """A thermometer of a shop around the corner."""
    type: Literal["thermo"]
'''


def test_every_type_has_a_line_a_page_that_is_there_and_an_extra_that_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(NEEDS) <= set(extras)
    found = [kind for kind in kinds() if kind.package == "tocsin"]
    assert {kind.type for kind in found} == set(SOURCES)
    for kind in found:
        page, _, anchor = kind.page.partition("#")
        assert kind.text and (ROOT / page).is_file()
        assert not anchor or f"## {anchor.title()}" in (ROOT / page).read_text()


@pytest.mark.parametrize(("code", "says"), [(PLUGIN, "around the corner"), ("import nowhere_to_be_found", "cannot be")])
def test_a_source_of_another_package_is_listed_whole_or_broken(
    code: str, says: str, tocsin: Tocsin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "thermo_shop-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: thermo-shop\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tocsin.sources]\nthermo = thermo_shop:ThermoSettings\n")
    (tmp_path / "thermo_shop.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "thermo_shop", raising=False)
    _, out, _ = tocsin("sources", "list", "--json")
    (thermo,) = [kind for kind in json.loads(out) if kind["type"] == "thermo"]
    assert says in thermo["text"] and thermo["package"] == "thermo-shop"
    assert thermo["usable"] == (says == "around the corner")
    shown = next(line for line in tocsin("sources", "list")[1].splitlines() if line[2:].startswith("thermo "))
    assert says in shown and shown[0] == ("✓" if thermo["usable"] else "✗")


def test_a_source_that_is_well_shows_its_values_rate_and_a_sparkline(tocsin: Tocsin) -> None:
    words = ("synthetic", "--set", "channels=[pressure, flow]", "--set", "rate_hz=50", "--seconds", "1.5")
    code, out, _ = tocsin("sources", "test", *words)
    assert code == 0
    rate = re.search(r"samples, ([\d.]+) a second \(50 stated\), jitter [\d.]+ ms", out)
    assert rate and float(rate[1]) == pytest.approx(50, rel=0.1)
    assert re.search(r"pressure( +-?[\d.]+){4}  .*[▁-█]{3}", out)
    code, out, _ = tocsin("sources", "test", *words, "--json")
    report = json.loads(out)["sources"]["synthetic"]
    pressure = report["channels"][0]
    assert pressure["min"] < pressure["mean"] < pressure["max"] and pressure["missing"] == 0
    assert report["problems"] == [] and report["rate_hz"] == pytest.approx(50, rel=0.1)


def test_the_sources_of_a_file_are_compared_with_the_bundle(tocsin: Tocsin, tmp_path: Path) -> None:
    config = tmp_path / "tocsin.yaml"
    asset = f"- {{id: a, bundle: {SMALL}, source: {{type: synthetic, channels: [pressure], rate_hz: 40}}}}"
    other = asset.replace("id: a", "id: b").replace("[pressure]", "[pressure, flow]")
    config.write_text(f"version: 1\nassets:\n  {asset}\n  {other}\n")
    code, out, _ = tocsin("sources", "test", "-c", config, "--seconds", "1", "--json")
    found = json.loads(out)["sources"]
    assert code == 5 and not json.loads(out)["ok"]
    assert found["a"]["problems"] == ["the bundle needs flow: name it in channels"]
    assert tocsin("sources", "test", "-c", config, "--asset", "b", "--seconds", "1")[0] == 0
    code, _, said = tocsin("sources", "test", "-c", config, "--asset", "c")
    assert code == 2 and "there are a, b" in said


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("serial", "--set", "port=/dev/ttyNOWHERE"), 5, "cannot be opened: it is not there: is it plugged in"),
        (("serial",), 3, "port: Field required: see docs/configure/serial.md"),
        (("serial", "--set", "port"), 2, "expected KEY=VALUE"),
        (("seriel",), 3, "'seriel' is no type of source: did you mean 'serial'? there are can, iio"),
        (("--set", "port=x"), 2, "needs a TYPE"),
        (("serial", "--asset", "a"), 2, "taken for a type"),
        (("-c", "nowhere.yaml"), 3, "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_exit_code(words: tuple[str, ...], code: int, says: str, tocsin: Tocsin) -> None:
    found, out, said = tocsin("sources", "test", *words, "--seconds", "1")
    assert found == code and says in out + said and "Traceback" not in said


def test_missing_still_and_bad_values_are_counted_by_channel() -> None:
    readings = Readings((Channel("a"), Channel("b"), Channel("c")), 1.0, None)
    for start in (0.0, 20.0):
        time_s = start + np.arange(20.0)
        values = np.stack([time_s, np.full(20, 7.0), np.full(20, np.nan)], axis=1)
        values[3, 0] = np.nan
        readings.take(SampleBlock(time_s, values, arrived_s=start, bad=np.isnan(values)))
    a, b, c = (readings.channel(n) for n in range(3))
    assert (a["last"], a["min"], a["max"], a["missing"], a["bad"], a["problem"]) == (39.0, 0.0, 39.0, 2, 2, "")
    assert (b["mean"], b["problem"], c["last"], c["problem"]) == (7.0, "stands still", None, "no value")
    assert readings.rate_hz == pytest.approx(1.0)
    assert readings.jitter_s == pytest.approx(0.0)


def test_a_sparkline_of_one_value_is_flat_and_of_none_blank() -> None:
    assert sparkline(np.array([2.0, 2.0])) == "▁▁"
    assert sparkline(np.array([np.nan, np.nan])) == "  "
