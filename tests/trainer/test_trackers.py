"""Runs are kept where the user asks: by the library itself where it is installed, and told by name where it is not."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from tocsin.errors import ConfigError, TocsinError
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.trackers import asked, tracked

OPTIONS = TrainOptions((Path("normal.csv"),), Path("out"), "pump-1", epochs=7)
LOSSES = (0.5, 0.25, 0.125)


def needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: pip install '.[trackers]'")


def kept(where: str, report: Path) -> None:
    report.write_text("<p>report")
    with tracked(where, "pump-1", asked(OPTIONS)) as tracker:
        for epoch, loss in enumerate(LOSSES, 1):
            tracker.log(epoch, {"conv_ae/loss": loss})
        tracker.log(0, {"pca+conv_ae/separation": 0.9})
        tracker.file(report)


def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    kept(f"tensorboard:{tmp_path / 'runs'}", tmp_path / "report.html")
    folder = tmp_path / "runs/pump-1"
    events = EventAccumulator(str(folder))
    events.Reload()
    series = [(event.step, event.tensor_proto.float_val[0]) for event in events.Tensors("conv_ae/loss")]
    assert series == [(epoch, loss) for epoch, loss in enumerate(LOSSES, 1)]
    assert {"options/epochs", "options/seed", "pca+conv_ae/separation"} <= set(events.Tags()["tensors"])
    assert (folder / "report.html").read_text() == "<p>report"


def test_mlflow_reads_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = (tmp_path / "store").as_uri()
    kept(f"mlflow:{store}", tmp_path / "report.html")
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("tocsin").experiment_id])
    assert run.info.run_name == "pump-1" and run.info.status == "FINISHED"
    assert run.data.params["epochs"] == "7"
    assert [each.value for each in client.get_metric_history(run.info.run_id, "conv_ae/loss")] == list(LOSSES)
    assert run.data.metrics["pca-conv_ae/separation"] == 0.9
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


def test_weights_and_biases_keeps_a_run_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    kept("wandb:tocsin", tmp_path / "report.html")
    (run,) = tmp_path.glob("wandb/offline-run-*")
    (log,) = run.glob("run-*.wandb")
    assert b"conv_ae/loss" in log.read_bytes()
    assert (run / "files/report.html").read_text() == "<p>report"


def test_a_run_that_breaks_off_is_ended_too(tmp_path: Path) -> None:
    needs("tensorboard")
    with pytest.raises(KeyboardInterrupt), tracked(f"tensorboard:{tmp_path}", "pump-1", {}) as tracker:
        tracker.log(1, {"loss": 1.0})
        raise KeyboardInterrupt
    assert sum(file.stat().st_size for file in (tmp_path / "pump-1").iterdir()) > 0


def test_a_tracker_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(TocsinError, match=r"Weights & Biases is not installed.*\.\[trackers\]"),
        tracked("wandb:x", "a", {}),
    ):
        pass


@pytest.mark.parametrize("where", ["neptune:x", "mlflow", "tensorboard:"])
def test_what_is_no_tracker_is_told_what_there_is(where: str) -> None:
    with (
        pytest.raises(ConfigError, match="expected tensorboard:FOLDER, mlflow:URI or wandb:PROJECT"),
        tracked(where, "a", {}),
    ):
        pass


def test_nowhere_is_nothing() -> None:
    before = set(sys.modules)
    with tracked(None, "pump-1", asked(OPTIONS)) as tracker:
        tracker.log(1, {"loss": 1.0})
        tracker.file(Path(os.devnull))
    assert not {"wandb", "mlflow", "tensorboard"} & (set(sys.modules) - before)
