"""Recording by the agent: what is kept beside alarms, and that it never costs one."""

import json
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tocsin import recording
from tocsin.config import AgentSettings
from tocsin.core.bundle import Bundle
from tocsin.delivery.wire import AlarmChange
from tocsin.recorder import Recorder
from tocsin.recorder.settings import RecordingSettings
from tocsin.recording import Recording
from tocsin.recordings import TableOptions, open_table, read_table
from tocsin.records import Channel, SampleBlock
from tocsin.service import Agent

DATA = Path(__file__).parent.parent / "data"


def agent(folder: Path, port: int, recording: dict[str, Any] | None) -> Agent:
    source = {"type": "replay", "files": [str(DATA / "faults.csv")], "speed": 0}
    document = {
        "version": 1,
        "device": "edge-1",
        "state_dir": str(folder / "state"),
        "mqtt": {"host": "127.0.0.1", "port": port},
        "recording": recording,
        "assets": [{"id": "pump-1", "bundle": str(DATA / "small.tocsin"), "source": source, "alarm": {"hold_off": 0}}],
    }
    return Agent(AgentSettings.model_validate(document))


def played(made: Agent, until: Callable[..., None]) -> list[dict[str, Any]]:
    """Runs until the recording has been played; gives the alarm events that wait on the disk."""
    made.start()
    until(lambda: made.workers[0].finished.is_set() and made.desk.queue.empty(), 60.0)
    made.stop()
    with sqlite3.connect(made._outbox.path) as db:
        rows = db.execute("SELECT payload FROM outbox WHERE topic = 'event/alarm' ORDER BY seq")
        return [json.loads(row[0]) for row in rows]


def rows(path: Path) -> np.ndarray:
    return np.concatenate([part.block.values for part in read_table(open_table(path, TableOptions()))])


def test_all_samples_are_recorded_and_each_alarm_names_a_snapshot_of_what_was_around_it(
    tmp_path: Path, unused_port: int, until: Callable[..., None]
) -> None:
    made = agent(tmp_path, unused_port, {"before_s": 30, "after_s": 10, "keep_free_mb": 0, "precision": "float64"})
    events = played(made, until)
    folder = tmp_path / "state/recordings"
    np.testing.assert_array_equal(rows(folder / "ring/pump-1"), rows(DATA / "faults.csv"))
    raised = [event["after"] for event in events if event["type"] == "new"]
    assert len(raised) == 3
    for body in raised:
        table = open_table(folder / "snapshots" / body["snapshot"], TableOptions())
        stamps = [stamp for part in read_table(table) for stamp in part.stamps]
        raised_at = body["raised"].replace(".000Z", ".000000Z")
        assert stamps.index(raised_at) == 30 and len(stamps) == 41
        assert table.channels[0].name == "pressure"
    ended = [event["after"]["snapshot"] for event in events if event["type"] == "end"]
    assert ended == [body["snapshot"] for body in raised]
    health = made._health().recording
    assert health is not None
    assert (health.rows_total, health.dropped_total, health.snapshots, health.last_error) == (600, 0, 3, None)


def test_without_recording_nothing_is_kept_and_health_says_nothing_of_it(
    tmp_path: Path, unused_port: int, until: Callable[..., None]
) -> None:
    made = agent(tmp_path, unused_port, None)
    events = played(made, until)
    assert [event["after"]["snapshot"] for event in events] == [None] * 6
    assert made._health().recording is None
    assert not (tmp_path / "state/recordings").exists()


@pytest.mark.parametrize("broken", ["folder_is_a_file", "no_room"])
def test_recordings_that_cannot_be_written_cost_no_alarm_and_are_told_in_health(
    broken: str, tmp_path: Path, unused_port: int, until: Callable[..., None]
) -> None:
    (tmp_path / "file").write_text("")
    recording = {
        "folder_is_a_file": {"folder": str(tmp_path / "file")},
        "no_room": {"folder": str(tmp_path / "rec"), "keep_free_mb": 1e12},
    }[broken]
    made = agent(tmp_path, unused_port, recording)
    events = played(made, until)
    assert [event["type"] for event in events] == ["new", "end"] * 3
    assert all(AlarmChange.model_validate({k: event[k] for k in ("type", "before", "after")}) for event in events)
    health = made._health()
    assert health.status != "ok" and health.recording is not None
    assert health.recording.last_error
    assert health.recording.dropped_total == (600 if broken == "no_room" else 0)


def test_a_folder_that_can_be_used_later_is_recorded_to_from_then_on(
    tmp_path: Path, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "FIRST_DELAY_S", 0.05)
    folder = tmp_path / "disk"
    folder.write_text("not mounted yet")
    made = Recording(RecordingSettings(folder=folder, keep_free_mb=0), tmp_path)
    made.start()
    health = made.health()
    assert health is not None and "cannot be used" in str(health.last_error)
    folder.unlink()

    def recorded() -> bool:
        made.put("pump-1", (Channel("flow"),), SampleBlock(np.array([1.0]), np.ones((1, 1))))
        return bool((now := made.health()) and now.rows_total)

    until(recorded)
    assert made.health().last_error is None
    made.stop()
    assert len(rows(folder / "ring/pump-1")) >= 1


def test_a_disk_that_does_not_answer_keeps_no_agent_from_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(recording, "STOP_S", 0.1)
    (tmp_path / "disk").write_text("")
    made = Recording(RecordingSettings(folder=tmp_path / "disk"), tmp_path)
    asked, answer = threading.Event(), threading.Event()

    def hang(_: object) -> None:
        asked.set()
        answer.wait(5)

    monkeypatch.setattr(made, "_made", hang)
    made.start()
    assert asked.wait(5)
    made.stop()
    assert made._retry.is_alive()
    answer.set()


def test_a_recorder_that_cannot_be_started_is_told_and_tried_again(
    tmp_path: Path, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "disk").write_text("")
    made = Recording(RecordingSettings(folder=tmp_path / "disk", keep_free_mb=0), tmp_path)
    (tmp_path / "disk").unlink()
    tries: list[Recorder] = []
    start = Recorder.start

    def fail(recorder: Recorder) -> None:
        tries.append(recorder)
        if len(tries) == 1:
            raise RuntimeError("can't start new thread")
        start(recorder)

    monkeypatch.setattr(Recorder, "start", fail)
    monkeypatch.setattr(recording, "FIRST_DELAY_S", 0.2)
    made.start()
    until(lambda: "can't start" in str((told := made.health()) and told.last_error))
    until(lambda: made._recorder is not None)
    assert len(tries) == 2 and "can't start" in caplog.text
    made.stop()


def test_a_folder_that_is_never_usable_keeps_no_agent_from_ending(tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("")
    made = Recording(RecordingSettings(folder=tmp_path / "disk"), tmp_path)
    made.start()
    made.stop()
    assert not made._retry.is_alive()


def test_a_runtime_that_fails_at_the_start_keeps_no_agent_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    monkeypatch.setattr(Bundle, "scorer", lambda _: 1 / 0)
    made = agent(tmp_path, unused_port, None)
    made.start()
    assert not made.workers[0].finished.wait(0.2)
    made.stop()
