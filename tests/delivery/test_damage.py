"""Files of the state folder that something damaged: the agent starts, sets aside what cannot be used, and says so."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.alarm import AlarmContext
from tocsin.config_file import SAMPLE, load_settings
from tocsin.delivery.drain import Drain
from tocsin.delivery.outbox import Outbox, Priority
from tocsin.errors import ConfigError
from tocsin.recorder import Recorder
from tocsin.recorder.settings import RecordingSettings
from tocsin.records import Channel, SampleBlock

DAMAGES = int(os.environ.get("CHAOS_DAMAGES") or 150)
BLOCK = 4096


def flip(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 8, 64))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def overwrite(data: bytearray, dice: random.Random) -> None:
    at, length = dice.randrange(len(data)), dice.choice((1, 16, 512, BLOCK))
    data[at : at + length] = dice.randbytes(len(data[at : at + length]))


def zero(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(0, len(data), BLOCK)
    data[at : at + BLOCK] = bytes(len(data[at : at + BLOCK]))


def cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def swap(data: bytearray, dice: random.Random) -> None:
    one, other = (dice.randrange(0, max(1, len(data) - BLOCK), BLOCK) for _ in range(2))
    data[one : one + BLOCK], data[other : other + BLOCK] = data[other : other + BLOCK], data[one : one + BLOCK]


def lengthen(data: bytearray, dice: random.Random) -> None:
    data += dice.randbytes(dice.choice((1, 100, BLOCK)))


HARMS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, overwrite, zero, cut, swap, lengthen)


@pytest.fixture
def whole(tmp_path: Path, transition: Callable[..., Any]) -> Path:
    """A folder with an outbox that was in use: part of it in the main file, part in the log."""
    folder = tmp_path / "whole"
    folder.mkdir()
    for part in range(2):
        with Outbox(tmp_path / "outbox.db") as box:  # its end moves the log into the main file
            desk = AlarmDesk(box, "edge-1", {"pump-1": AlarmContext()}, lambda: None)
            desk.start()
            for n in range(60):
                desk.queue.put(transition(alarm=f"pump-1-r{part}-{n}"))
                box.put("event/source", b'{"n": %d}' % n, priority=Priority.EVENT)
            desk.stop()
            box.keep_tally("pump-1", "s", 3, 1.0)
            box.delivered([row.seq for row in box.pending(20)])
            if part == 1:
                for path in tmp_path.glob("outbox.db*"):
                    shutil.copy(path, folder)
    return folder


def everything(box: Outbox) -> Iterator[object]:
    """All that the agent ever asks of it."""
    drain = Drain(box)
    drain.connected(0.0, 40)
    for row, _ in drain.due(0.0):
        drain.sent(row, row.seq)
    yield from (box.pending(10_000), box.alarms(), box.audit(), box.tally("pump-1", "s"), box.oldest_age())
    drain.lost()
    box.redeliver(0.0)


@pytest.mark.timeout(1200)
def test_an_agent_starts_and_tells_alarms_whatever_happened_to_its_outbox(
    whole: Path, tmp_path: Path, transition: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    dice, set_aside, unsaid = random.Random(20), 0, 0
    for n in range(DAMAGES):
        folder = tmp_path / f"damaged-{n}"
        shutil.copytree(whole, folder)
        victim = folder / dice.choice(("outbox.db", "outbox.db", "outbox.db-wal"))
        data = bytearray(victim.read_bytes())
        dice.choice(HARMS)(data, dice)
        victim.write_bytes(data)
        caplog.clear()
        with Outbox(folder / "outbox.db") as box:
            desk = AlarmDesk(box, "edge-1", {"pump-1": AlarmContext()}, lambda: None)
            desk.start()
            list(everything(box))
            desk.queue.put(transition(alarm="pump-1-new"))
            desk.stop()
            told = [row for row in box.pending(10_000) if row.topic == "event/alarm"]
            assert any(json.loads(row.payload)["after"]["alarm"] == "pump-1-new" for row in told[-2:]), n
        if box.set_aside is not None:
            set_aside += 1
            unsaid += not any("set aside" in record.message for record in caplog.records)
        shutil.rmtree(folder)
    print(f"{DAMAGES} damaged outboxes: all start, {set_aside} set aside, {unsaid} of them without a word")
    assert unsaid == 0 and 0 < set_aside < DAMAGES


def test_damaged_settings_are_refused_with_a_word_or_are_settings(tmp_path: Path) -> None:
    dice, refused = random.Random(21), 0
    for _ in range(DAMAGES):
        data = bytearray(SAMPLE.encode())
        for _ in range(dice.choice((1, 3))):
            dice.choice((flip, overwrite, cut, lengthen))(data, dice)
        path = tmp_path / "tocsin.yaml"
        path.write_bytes(data)
        try:
            load_settings(path)
        except ConfigError as error:
            refused += 1
            assert str(error).startswith(str(path))
    print(f"{DAMAGES} damaged settings: {refused} refused, each by its file's name")
    assert refused > 0


def test_a_recorder_goes_on_whatever_happened_to_its_recordings(tmp_path: Path) -> None:
    channels = (Channel("pressure", "bar"),)
    limits = RecordingSettings().limits()

    def put(recorder: Recorder, begin_s: float) -> None:
        time_s = begin_s + np.arange(200) / 10
        recorder.put("pump-1", channels, SampleBlock(time_s, np.ones((200, 1))))

    whole = tmp_path / "whole"
    recorder = Recorder(whole, limits)
    recorder.start()
    put(recorder, 1.7e9)
    recorder.snapshot("pump-1", 1.7e9 + 5)
    recorder.stop()
    dice, files = random.Random(22), [path for path in whole.rglob("*") if path.is_file() and path.stat().st_size]
    for n in range(DAMAGES // 5):
        folder = tmp_path / f"damaged-{n}"
        shutil.copytree(whole, folder)
        victim = folder / dice.choice(files).relative_to(whole)
        data = bytearray(victim.read_bytes())
        dice.choice(HARMS)(data, dice)
        victim.write_bytes(data)
        recorder = Recorder(folder, limits)
        recorder.start()
        put(recorder, 1.7e9 + 100)
        recorder.stop()
        assert recorder.statistics.rows == 200, victim
        shutil.rmtree(folder)
    print(f"{DAMAGES // 5} damaged recordings: each recorder goes on")
