"""`tocsin doctor`: what it finds on this machine, and what it says of a broken one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tocsin.cli.main import main
from tocsin_trainer import doctor

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "tests/data/small.tocsin"
Doctor = Callable[..., tuple[int, dict[str, dict[str, str]]]]


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Exit code and findings by name."""

    def run(*words: object) -> tuple[int, dict[str, dict[str, str]]]:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", "--json", *map(str, words)])
        document = json.loads(capsys.readouterr().out)
        assert document["ok"] == (ended.value.code == 0)
        return int(ended.value.code or 0), {finding["what"]: finding for finding in document["findings"]}

    return run


def test_the_device_side_is_well_here(examined: Doctor) -> None:
    code, found = examined("--bundle", BUNDLE)
    assert code == 0
    assert {"tocsin", "numpy", "runtime", "disk", "bundle"} <= set(found)
    assert "golden windows" in found["bundle"]["found"]
    assert not any(name.startswith("extra") for name in found)


def test_a_damaged_bundle_is_bad_and_the_exit_code_says_so(examined: Doctor, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tocsin"
    broken.write_bytes(BUNDLE.read_bytes()[:-100])
    code, found = examined("--bundle", broken)
    assert code == 1
    assert found["bundle"]["state"] == "bad" and found["bundle"]["mend"]


def test_settings_are_read_and_their_bundles_tested(examined: Doctor, tmp_path: Path) -> None:
    config = tmp_path / "tocsin.yaml"
    config.write_text("assets: 7\n")
    code, found = examined("--config", config)
    assert code == 1 and found["config"]["mend"] == f"tocsin config check -c {config}"


def test_the_trainer_side_names_backend_extras_and_a_real_conversion(examined: Doctor) -> None:
    code, found = examined("--trainer")
    assert code == 0
    assert found["keras"]["found"].partition(" on ")[2].split()[0] in ("tensorflow", "jax")
    assert "became int8" in found["conversion"]["found"]
    assert {"memory", "gpu", "mixed precision", "other backend", "extra trainer", "extra trackers"} <= set(found)
    for name in ("extra demo", "extra trackers"):
        assert (found[name]["state"] == "ok") == (found[name]["mend"] == "")


def test_a_missing_extra_is_named_with_the_line_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", {"trainer": (("no_such_module",), "training"), "x": (("nor_this",), "more")})
    needed, optional = doctor._extras()
    assert (needed.state, needed.mend) == ("bad", "pip install '.[trainer]'")
    assert "no_such_module not installed" in needed.found
    assert (optional.state, optional.mend) == ("note", "pip install '.[x]'")
