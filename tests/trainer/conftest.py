"""What tests of the trainer share: a converter, and bundles of other makes, put together from those in tests/data."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tocsin.core.bundle import Bundle, Golden, load_bundle, write_bundle
from tocsin.records import Floats
from tocsin_trainer.convert import Converter

DATA = Path(__file__).parent.parent / "data"
Remade = Callable[..., Bundle]


@pytest.fixture(scope="session")
def converter() -> Iterator[Converter]:
    """One for all: its child takes seconds to load tensorflow."""
    with Converter() as made:
        yield made


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> Remade:
    """Makes a bundle of `small` (and `small_lstm`) with other settings.

    Its parameters: combination of both members (None: the first alone); keys of the manifest's window; another
    preprocessing with golden windows that fit it; keys of the threshold.
    """

    def make(
        combination: str | None = None,
        window: dict[str, int] | None = None,
        steps: list[dict[str, Any]] | None = None,
        golden: Floats | None = None,
        threshold: float | None = None,
        smoothing: int | None = None,
    ) -> Bundle:
        small, lstm = (load_bundle(DATA / name) for name in ("small.tocsin", "small_lstm.tocsin"))
        parts = (small, lstm) if combination else (small,)
        raw = {k: v for k, v in small.manifest.raw.items() if k not in ("format", "golden", "files", "digest")}
        raw["window"] = {**raw["window"], **(window or {})}
        raw["members"] = [dict(part.manifest.raw["members"][0]) for part in parts]
        raw["score"] = {**raw["score"], "combination": combination or "mean"}
        if smoothing is not None:
            raw["score"]["smoothing"] = {**raw["score"]["smoothing"], "span": smoothing}
        if combination:
            for member, part in zip(raw["members"], parts, strict=True):
                member["normaliser"] = float(np.median(part.golden.scores))
            raw["threshold"] = {"method": "fixed", "value": 3.0}
        if steps is not None:
            raw["members"][0]["preprocess"] = steps
        if threshold is not None:
            raw["threshold"] = {"method": "fixed", "value": threshold}
        models = {name: body for part in parts for name, body in part.files.items() if name.endswith(".tflite")}
        windows = small.golden.windows if golden is None else golden
        path = tmp_path_factory.mktemp("bundle") / "remade.tocsin"
        made = write_bundle(path, raw, models, Golden(windows, np.zeros(len(windows)), "none"), "")
        scores = made.scorer().score(windows).value
        return write_bundle(path, raw, models, Golden(windows, scores, "none"), "")

    return make
