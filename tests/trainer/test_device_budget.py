"""What a device has room and time for decides what ships."""

import json
from pathlib import Path

import numpy as np
import pytest

from tocsin.errors import GateError
from tocsin_trainer.device_budget import Cost, DeviceBudget
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.train import train

SMALL, LARGE = Cost("t2", 2048, 400.0), Cost("conv_ae", 16384, 20.0)


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = np.arange(500)
    swing = np.sin(2 * np.pi * at / 16)
    values = np.stack((5 + swing, 20 - 3 * swing), axis=1) + np.random.default_rng(0).normal(0, 0.1, (500, 2))
    path = tmp_path_factory.mktemp("budget") / "normal.csv"
    rows = (f"{n},{a:.4f},{b:.4f}\n" for n, (a, b) in enumerate(values))
    path.write_text("time,pressure,flow\n" + "".join(rows))
    return path


def options(normal: Path, out: Path, **others: object) -> TrainOptions:
    fast = {"families": ("t2", "pca"), "window": 8, "hop": 1, "version": "1"}
    return TrainOptions((normal,), out, "pump-1", **{**fast, **others})


def test_without_a_bound_all_fits() -> None:
    assert DeviceBudget().over(LARGE) == "" and DeviceBudget(max_kib=16, max_ms=0.02).over(LARGE) == ""


def test_a_reason_names_what_came_and_what_is_allowed() -> None:
    assert DeviceBudget(max_kib=4).over(LARGE) == "over budget: 16 KiB, at most 4 are allowed"
    assert DeviceBudget(4, 0.01).over(LARGE).endswith("and 0.02 ms a window, at most 0.01 are allowed")


def test_nearest_is_what_is_over_by_the_least_factor() -> None:
    assert "nearest comes t2 with 2 KiB and 0.4 ms" in DeviceBudget(max_kib=1).none_fits((LARGE, SMALL))
    assert "nearest comes conv_ae" in DeviceBudget(max_kib=15, max_ms=0.1).none_fits((SMALL, LARGE))


def test_what_is_over_the_budget_does_not_ship_and_the_figures_say_why(normal: Path, tmp_path: Path) -> None:
    made = train(options(normal, tmp_path / "out", max_kib=4.0))
    found = json.loads(made.metrics.read_text())["candidates"]
    sizes = {each["family"]: each["bytes"] for each in found}
    assert sizes["t2+pca"] > 4096 >= max(sizes["t2"], sizes["pca"])  # else this test shows nothing
    assert made.result.chosen.family in ("t2", "pca") and made.result.chosen.bytes <= 4096
    together = [each["why_not"] for each in found if each["family"] == "t2+pca"]
    assert len(together) == 3 and all("at most 4 are allowed" in why for why in together)  # a way to combine them each
    assert "at most 4 are allowed" in made.report.read_text()


def test_where_nothing_fits_the_nearest_is_named(normal: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"no model fits --max-kib 0\.5: nearest comes limits with"):
        train(options(normal, tmp_path / "out", families=("limits",), max_kib=0.5))
