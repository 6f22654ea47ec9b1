"""The TFLite runtime as the scorer sees it."""

from pathlib import Path

import numpy as np
import pytest

from tocsin.core.bundle import load_bundle
from tocsin.core.interpreter import TfliteModel
from tocsin.errors import BundleError
from tocsin.records import Floats32

DATA = Path(__file__).parent.parent / "data"
SMALL, LSTM = (load_bundle(DATA / f"{name}.tocsin").files for name in ("small", "small_lstm"))


def windows(count: int, seed: int = 0) -> Floats32:
    return np.random.default_rng(seed).normal(0, 1, (count, 32, 2)).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_windows_at_once_come_out_as_one_by_one(count: int) -> None:
    both = TfliteModel(SMALL["conv_ae.tflite"], SMALL["conv_ae.batch.tflite"])
    single = TfliteModel(SMALL["conv_ae.tflite"])
    given = windows(count)
    np.testing.assert_allclose(both.predict(given), single.predict(given), atol=1e-6)


def test_the_batch_file_is_used() -> None:
    """With another model's batch file the full batches differ, the rest does not."""
    given, model = windows(70), TfliteModel(SMALL["conv_ae.tflite"], SMALL["conv_ae.batch.tflite"])
    swapped = TfliteModel(LSTM["lstm_ae.tflite"], SMALL["conv_ae.batch.tflite"])
    np.testing.assert_array_equal(swapped.predict(given)[:64], model.predict(given)[:64])
    assert not np.allclose(swapped.predict(given)[64:], model.predict(given)[64:])


def test_a_recurrent_model_starts_each_window_anew() -> None:
    given, model = windows(12), TfliteModel(LSTM["lstm_ae.tflite"])
    forth, back = model.predict(given), model.predict(given[::-1].copy())
    np.testing.assert_array_equal(forth, back[::-1])


@pytest.mark.parametrize("content", [b"", b"TFL3", b"x" * 1000, SMALL["conv_ae.tflite"][:5000]])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match="refuses the model file"):
        TfliteModel(content)
