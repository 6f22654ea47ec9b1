"""A training that is killed goes on, and ends as if nothing had been."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tocsin.cli.main import main
from tocsin.records import Floats32
from tocsin_trainer import trackers
from tocsin_trainer.fit import fit
from tocsin_trainer.options import FitOptions
from tocsin_trainer.results import Fitted
from tocsin_trainer.trackers import Untracked


def windows(count: int, seed: int) -> Floats32:
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * rng.random((count, 1, 1))
    course = np.sin(phase + np.arange(16)[None, :, None] / 3 + np.arange(2))
    return (course + rng.normal(0, 0.1, (count, 16, 2))).astype(np.float32)


HOW = FitOptions(augment=("jitter", "mask"), prune=0.3)
CHILD = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from dataclasses import replace
from pathlib import Path
from test_checkpoint import HOW, run
run(Path(sys.argv[1]), progress=lambda *at: print(*at, flush=True))
"""


def run(
    work: Path | None, *, seed: int = 0, resume: bool = False, progress: object = None, **changed: object
) -> Fitted:
    keras.utils.clear_session()  # as a new process: layers are named by a counter, and sums go by their names
    how = FitOptions(**{**vars(HOW), "work": work, "resume": resume, **changed})
    return fit("conv_ae", windows(120, 0), windows(50, 1), seed, 5, progress, how=how)  # type: ignore[arg-type]


def killed_after(epochs: int, work: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, work], stdout=subprocess.PIPE, text=True, env=environment
    ) as child:
        assert child.stdout is not None
        for epoch in range(epochs):
            assert child.stdout.readline().startswith(f"{epoch + 1} 5 ")
        child.kill()
    assert child.returncode == -signal.SIGKILL


def same(first: Fitted, second: Fitted) -> bool:
    return all(map(np.array_equal, first.model.get_weights(), second.model.get_weights()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted]:
    work = tmp_path_factory.mktemp("work")
    return work, run(work)


def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    tmp_path: Path, finished: tuple[Path, Fitted]
) -> None:
    killed_after(2, tmp_path)
    done: list[int] = []
    resumed = run(tmp_path, resume=True, progress=lambda epoch, *_: done.append(epoch))
    assert 2 < done[0] <= 4 and done[-1] == 5  # the kill may come an epoch late
    straight = finished[1]
    np.testing.assert_array_equal(resumed.validation_loss, straight.validation_loss)
    np.testing.assert_array_equal(resumed.train_loss, straight.train_loss)
    assert same(resumed, straight)


def test_what_is_finished_is_not_trained_again(finished: tuple[Path, Fitted]) -> None:
    work, first = finished
    done: list[int] = []
    again = run(work, resume=True, progress=lambda epoch, *_: done.append(epoch))
    assert done == []
    assert same(first, again)
    np.testing.assert_array_equal(first.validation_loss, again.validation_loss)


class Begun(Exception):
    """The first epoch is over: it was trained anew."""


def stop(*_: object) -> None:
    raise Begun


@pytest.mark.parametrize("changed", [{"seed": 1}, {"augment": ()}, {"resume": False}])
def test_a_checkpoint_of_another_training_or_not_asked_for_is_not_taken(
    finished: tuple[Path, Fitted], changed: dict[str, object]
) -> None:
    with pytest.raises(Begun):
        run(finished[0], progress=stop, **{"resume": True, **changed})  # type: ignore[arg-type]


def test_noise_that_a_variational_model_draws_goes_on_where_it_was(tmp_path: Path) -> None:
    def go(work: Path | None, after: int, *, resume: bool = False) -> Fitted:
        def ends(epoch: int, *_: object) -> None:
            if epoch == after:
                raise Begun

        keras.utils.clear_session()
        how = FitOptions(work=work, resume=resume)
        return fit("dense_vae", windows(120, 0), windows(50, 1), 0, 3, ends, how=how)

    with pytest.raises(Begun):
        go(tmp_path, 1)
    resumed, straight = go(tmp_path, 9, resume=True), go(None, 9)
    np.testing.assert_array_equal(resumed.train_loss, straight.train_loss)
    assert same(resumed, straight)


def test_a_damaged_checkpoint_is_not_taken(finished: tuple[Path, Fitted], tmp_path: Path) -> None:
    for file in finished[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:-500])
    with pytest.raises(Begun):
        run(tmp_path, resume=True, progress=stop)


def test_a_run_that_ends_leaves_its_bundle_and_no_checkpoint(tmp_path: Path) -> None:
    recording = Path(__file__).parents[1] / "data/normal.csv"
    words = ["train", "--data", recording, "--families", "conv_ae", "--epochs", "1", "--precision", "int8", "--quiet"]
    left: list[bool] = []

    class Seen(Untracked):
        def file(self, path: Path) -> None:
            left.append(any((tmp_path / ".work").glob("conv_ae-*.npz")))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(trackers.TRACKERS, "tensorboard", lambda _: Seen())
        with pytest.raises(SystemExit) as ended:
            main([*map(str, words), "--out", str(tmp_path), "--track", "tensorboard:x"])
    assert ended.value.code == 0
    assert left == [True, True, True]  # while bundle, report and metrics were kept
    assert not (tmp_path / ".work").exists()
    assert len(list(tmp_path.glob("*.tocsin"))) == 1
