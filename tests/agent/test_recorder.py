"""The recorder: what is kept, what leaves, and what a kill or a full disk costs."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tocsin.errors import TocsinError
from tocsin.recorder import Recorder, RecorderLimits
from tocsin.recorder.ring import Ring
from tocsin.recordings import TableOptions, open_table, read_table, segment
from tocsin.recordings.segment import find_segments, read_header
from tocsin.records import Channel, SampleBlock

CHANNELS = (Channel("pressure", "bar"), Channel("flow", "l/min"))
FAR = RecorderLimits(free_bytes=0)
KILLS = 2 * int(os.environ.get("CHAOS_ROUNDS", "1"))


def block(first: int, rows: int) -> SampleBlock:
    """Rows of a 10 Hz stream, the first being number `first`."""
    at = np.arange(first, first + rows)
    return SampleBlock(1000.0 + at / 10, np.stack((at, -at), axis=1).astype(float))


def numbers(folder: Path) -> list[int]:
    """Which rows a folder of segments holds."""
    parts = read_table(open_table(folder, TableOptions()))
    return np.concatenate([part.block.values[:, 0] for part in parts]).astype(int).tolist()


def test_all_that_was_put_is_on_the_disk_after_stop(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, FAR)
    recorder.start()
    for n in range(50):
        recorder.put("pump-1", CHANNELS, block(10 * n, 10))
        recorder.put("fan-2", CHANNELS, block(n, 1))
    recorder.stop()
    assert numbers(tmp_path / "ring/pump-1") == list(range(500))
    assert numbers(tmp_path / "ring/fan-2") == list(range(50))
    (file,) = find_segments(tmp_path / "ring/fan-2")
    assert read_header(file).channels == CHANNELS
    assert (recorder.statistics.rows, recorder.statistics.dropped, recorder.statistics.last_error) == (550, 0, None)


def test_a_step_of_the_clock_begins_a_frame_so_that_both_sides_of_it_are_known(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, FAR)
    bad = np.zeros((10, 2), np.bool_)
    bad[3, 1] = True
    recorder.put("pump-1", CHANNELS, block(0, 10))
    holed = block(10, 10)
    holed.values[bad] = np.nan
    recorder.put("pump-1", CHANNELS, replace(holed, bad=bad))
    recorder.put("pump-1", CHANNELS, replace(block(20, 10), step_s=86400.0))
    recorder.put("pump-1", CHANNELS, block(30, 10))
    recorder.start()
    recorder.stop()
    (file,) = find_segments(tmp_path / "ring/pump-1")
    frames = list(segment.read_blocks(file))
    assert [(len(frame), frame.step_s) for frame in frames] == [(20, 0.0), (20, 86400.0)]
    assert frames[0].bad is not None and np.argwhere(frames[0].bad).tolist() == [[13, 1]]
    assert frames[1].bad is None


def test_a_second_recorder_refuses_the_folder_until_the_first_has_stopped(tmp_path: Path) -> None:
    first = Recorder(tmp_path, FAR)
    with pytest.raises(TocsinError, match="being recorded to by another process"):
        Recorder(tmp_path, FAR)
    first.stop()
    Recorder(tmp_path, FAR).stop()


def test_the_ring_keeps_to_its_size_and_the_oldest_leave_first(tmp_path: Path) -> None:
    limits = RecorderLimits(ring_bytes=65_536, free_bytes=0)
    ring = Ring(tmp_path, limits, 0.0)
    for n in range(400):
        ring.append("pump-1", CHANNELS, block(50 * n, 50), n / 10)
        ring.trim(n / 10)
        assert ring.size <= limits.ring_bytes
    on_disk = sum(file.stat().st_size for file in find_segments(tmp_path / "pump-1"))
    assert limits.ring_bytes * 0.8 < on_disk == ring.size
    kept = numbers(tmp_path / "pump-1")
    assert kept == list(range(kept[0], 20_000)) and kept[0] > 0
    assert ring.evicted > 0
    ring.close()


def test_old_segments_leave_by_the_monotonic_clock(tmp_path: Path) -> None:
    ring = Ring(tmp_path, RecorderLimits(age_s=100.0, segment_s=10.0, free_bytes=0), 0.0)
    for n in range(30):
        ring.append("pump-1", CHANNELS, block(n, 1), 10.0 * n)
    ring.trim(290.0)
    assert numbers(tmp_path / "pump-1")[0] == 18  # ended at 190 s
    ring.close()


def test_the_next_run_begins_a_new_segment_and_cuts_the_torn_one(tmp_path: Path) -> None:
    for n in range(3):
        ring = Ring(tmp_path, FAR, 0.0)
        ring.append("pump-1", CHANNELS, block(10 * n, 10), 0.0)
        ring.close()
        newest = find_segments(tmp_path / "pump-1")[-1]
        newest.write_bytes(newest.read_bytes() + b"torn")
    Ring(tmp_path, FAR, 0.0).close()
    assert [file.name[:8] for file in find_segments(tmp_path / "pump-1")] == ["00000001", "00000002", "00000003"]
    assert numbers(tmp_path / "pump-1") == list(range(30))
    assert not newest.read_bytes().endswith(b"torn")


def test_other_channels_begin_another_segment(tmp_path: Path) -> None:
    ring = Ring(tmp_path, FAR, 0.0)
    ring.append("pump-1", CHANNELS, block(0, 5), 0.0)
    ring.append("pump-1", CHANNELS[::-1], block(5, 5), 0.0)
    ring.close()
    assert [read_header(file).channels for file in find_segments(tmp_path / "pump-1")] == [CHANNELS, CHANNELS[::-1]]


def test_a_snapshot_holds_what_was_before_and_after_an_alarm(tmp_path: Path) -> None:
    limits = RecorderLimits(before_s=5.0, after_s=2.0, free_bytes=0)
    recorder = Recorder(tmp_path, limits)
    recorder.start()
    recorder.put("pump-1", CHANNELS, block(0, 200))
    recorder.put("fan-2", CHANNELS, block(0, 200))
    snapshot = recorder.snapshot("pump-1", 1020.0)
    for n in range(20, 40):
        recorder.put("pump-1", CHANNELS, block(10 * n, 10))
    recorder.stop()
    (file,) = (tmp_path / "snapshots" / snapshot).iterdir()
    assert numbers(file) == list(range(150, 221))
    assert (file.name, read_header(file).snapshot) == ("pump-1.seg", snapshot)
    assert recorder.statistics.snapshots == 1
    assert snapshot == "19700101T001700-pump-1"


def test_alarms_close_together_share_a_snapshot_and_lengthen_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RecorderLimits(before_s=1.0, after_s=3.0, free_bytes=0))
    recorder.start()
    recorder.put("pump-1", CHANNELS, block(0, 100))
    one = recorder.snapshot("pump-1", 1010.0)
    recorder.put("pump-1", CHANNELS, block(100, 20))
    two = recorder.snapshot("pump-1", 1012.0)
    recorder.put("pump-1", CHANNELS, block(120, 200))
    later = recorder.snapshot("pump-1", 1030.0)
    recorder.stop()
    assert one == two != later
    assert numbers(tmp_path / "snapshots" / one / "pump-1.seg") == list(range(90, 151))


def test_snapshots_outlive_the_ring_up_to_a_bound_of_their_own(tmp_path: Path) -> None:
    limits = RecorderLimits(ring_bytes=65_536, snapshot_bytes=20_000, before_s=10.0, after_s=0.1, free_bytes=0)
    recorder = Recorder(tmp_path, limits)
    ids = []
    for n in range(20):
        recorder.put("pump-1", CHANNELS, block(1000 * n, 1000))
        ids.append(recorder.snapshot("pump-1", 1000.0 + 100 * (n + 1)))
        recorder.put("pump-1", CHANNELS, block(1000 * n + 1000, 2))
        recorder._flush()
    recorder.start()
    recorder.stop()
    kept = sorted(path.name for path in (tmp_path / "snapshots").iterdir())
    assert kept == ids[-len(kept) :] and 2 < len(kept) < 20
    assert recorder.statistics.snapshot_bytes <= 20_000
    assert recorder.statistics.snapshots_evicted == 20 - len(kept)
    first_in_ring = numbers(tmp_path / "ring/pump-1")[0]
    assert numbers(tmp_path / "snapshots" / kept[0] / "pump-1.seg")[0] < first_in_ring


WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from tocsin.recorder import Recorder, RecorderLimits
from tocsin.records import Channel, SampleBlock
recorder = Recorder(Path(sys.argv[1]), RecorderLimits(free_bytes=0))
recorder.start()
channels = (Channel("wall"),)
while True:
    now = time.time()
    recorder.put("pump-1", channels, SampleBlock(np.array([now]), np.array([[now]])))
    time.sleep(0.01)
"""


@pytest.mark.alone
def test_a_kill_costs_at_most_the_last_second(tmp_path: Path, until: Callable[..., None]) -> None:
    random, kept = np.random.default_rng(0), np.empty(0)
    for run in range(1, KILLS + 1):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
        name = f"{run:08}-*.seg"
        until(lambda name=name: any(f.stat().st_size > 1500 for f in (tmp_path / "ring").rglob(name)))
        time.sleep(random.uniform(0.0, 1.0))  # anywhere between two syncs
        writer.send_signal(signal.SIGKILL)
        killed_s = time.time()
        writer.wait()
        files = find_segments(tmp_path / "ring/pump-1")
        parts = [part for file in files for part in read_table(open_table(file, TableOptions()))]
        times = np.concatenate([part.block.time_s for part in parts])
        assert 0 <= killed_s - times[-1] < 1.0
        assert len(files) == run and len(times) > len(kept) + 50
        np.testing.assert_array_equal(times[: len(kept)], kept)  # nothing that was there is gone
        kept = times
    Recorder(tmp_path, FAR).stop()  # and the next run takes the folder


SMALL_DISK = """
import resource, signal, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import test_recorder as t
from tocsin.recorder import Recorder, RecorderLimits
recorder = Recorder(Path(sys.argv[1]), RecorderLimits(free_bytes=0))
recorder.put("pump-1", t.CHANNELS, t.block(0, 500)); recorder._flush()
recorder.put("pump-1", t.CHANNELS, t.block(500, 500)); recorder._flush()
recorder.put("pump-1", t.CHANNELS, t.block(1000, 5000)); recorder._flush()
assert recorder.statistics.dropped == 5000, recorder.statistics
assert "too large" in recorder.statistics.last_error, recorder.statistics
recorder.put("pump-1", t.CHANNELS, t.block(6000, 500)); recorder._flush()
assert (recorder.statistics.dropped, recorder.statistics.last_error) == (5000, None), recorder.statistics
recorder.start(); recorder.stop()
"""


def test_what_the_disk_does_not_take_is_dropped_and_counted_and_recording_goes_on(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", SMALL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path / "ring/pump-1")[-1] == 6499


def test_a_full_disk_costs_the_oldest_and_leaves_no_torn_frame_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, size = os.write, 50_000

    def to_a_small_disk(handle: int, data: bytes) -> int:
        free = size - sum(file.stat().st_size for file in tmp_path.rglob("*.seg"))
        if not free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[:free])

    monkeypatch.setattr(segment.os, "write", to_a_small_disk)
    ring = Ring(tmp_path, RecorderLimits(segment_s=5.0, free_bytes=0), 0.0)
    for n in range(200):
        ring.append("pump-1", CHANNELS, block(50 * n, 50), float(n))
    ring.close()
    kept = numbers(tmp_path / "pump-1")
    assert kept == list(range(kept[0], 10_000)) and len(kept) > 1000
    assert all(segment.whole_length(file) == file.stat().st_size for file in tmp_path.rglob("*.seg"))


def test_room_for_alarms_is_left_on_the_disk_whatever_recordings_it_costs(tmp_path: Path) -> None:
    roomy = Recorder(tmp_path, FAR)
    roomy.put("pump-1", CHANNELS, block(0, 10))
    roomy._flush()
    roomy.start()
    roomy.stop()
    tight = Recorder(tmp_path, RecorderLimits(free_bytes=1 << 60))
    tight.put("pump-1", CHANNELS, block(10, 10))
    tight._flush()
    found = tight.statistics
    assert (found.dropped, found.ring_bytes, found.evicted) == (10, 0, 1)
    assert "are left for alarms" in str(found.last_error)
    tight.start()
    tight.stop()


def test_values_that_do_not_fit_their_channels_are_dropped_and_the_next_are_recorded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, FAR)
    recorder.put("pump-1", CHANNELS[:1], block(0, 7))
    recorder._flush()
    assert recorder.statistics.dropped == 7 and "shape (7, 2) for 1 channels" in str(recorder.statistics.last_error)
    recorder.put("pump-1", CHANNELS, block(7, 3))
    recorder.start()
    recorder.stop()
    assert numbers(tmp_path / "ring/pump-1") == [7, 8, 9]


def test_what_waits_in_memory_is_bounded(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, FAR)
    big = SampleBlock(np.zeros(1 << 20), np.zeros((1 << 20, 2)))
    for _ in range(5):
        recorder.put("pump-1", CHANNELS, big)
    with recorder._lock:
        assert recorder._waiting_bytes <= 64 << 20
        assert recorder._dropped == 3 << 20


def test_a_mark_of_the_wrong_shape_costs_its_block_and_not_the_recording(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, FAR)
    recorder.start()
    recorder.put("pump-1", CHANNELS, replace(block(0, 5), bad=np.zeros(5, np.bool_)))
    recorder.put("pump-1", CHANNELS, block(5, 5))
    recorder.stop()
    assert numbers(tmp_path / "ring/pump-1") == list(range(5, 10))
    assert recorder.statistics.dropped == 5 and "`bad` of shape (5,)" in str(recorder.statistics.last_error)


def test_the_error_of_a_stream_stands_until_that_stream_is_written_again(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, FAR)
    recorder.put("pump-1", CHANNELS[:1], block(0, 7))
    recorder._flush()
    recorder.put("fan-2", CHANNELS, block(0, 7))
    recorder._flush()
    assert "pump-1" in str(recorder.statistics.last_error)
    recorder.put("pump-1", CHANNELS, block(0, 7))
    recorder._flush()
    assert recorder.statistics.last_error is None
    recorder.stop()


def test_what_does_not_fit_in_memory_is_told(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, FAR)
    many = 1 << 20
    big = SampleBlock(np.arange(many, dtype=float), np.zeros((many, 6)))
    for _ in range(2):
        recorder.put("pump-1", tuple(Channel(f"c{n}") for n in range(6)), big)
    recorder._flush()
    assert recorder.statistics.dropped == many and "wait to be written" in str(recorder.statistics.last_error)
    recorder.stop()


def test_the_id_of_a_snapshot_is_new_and_no_disk_is_asked_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snapshots/19700101T001700-pump-1").mkdir(parents=True)
    recorder = Recorder(tmp_path, RecorderLimits(after_s=0.1, free_bytes=0))

    def hang(*_: object, **__: object) -> None:
        raise AssertionError("the disk is asked")

    with monkeypatch.context() as hanging:
        hanging.setattr(os, "stat", hang)
        found = [recorder.snapshot("pump-1", 1020.0 + n) for n in (0.0, 0.3, 0.6)]
    assert found == [f"19700101T001700-pump-1-{n}" for n in (2, 3, 4)]
    recorder.stop()


def test_an_alarm_is_close_to_the_newest_one_before_or_after_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, RecorderLimits(after_s=3.0, free_bytes=0))
    assert len({recorder.snapshot("pump-1", time_s) for time_s in (100.0, 99.5, 102.5, 105.0)}) == 1
    recorder.stop()


def test_what_an_earlier_run_wrote_while_the_clock_stood_in_1970_is_kept_and_leaves_in_order(tmp_path: Path) -> None:
    for n, written_s in enumerate((1.7e9, 100.0)):
        ring = Ring(tmp_path, FAR, 0.0)
        ring.append("pump-1", CHANNELS, block(10 * n, 10), 0.0)
        ring.close()
        os.utime(find_segments(tmp_path / "pump-1")[-1], (written_s, written_s))
    ring = Ring(tmp_path, RecorderLimits(age_s=3600.0, free_bytes=0), 50.0)
    ring.trim(60.0)
    assert numbers(tmp_path / "pump-1") == list(range(20))
    ring.trim(3700.0)
    assert find_segments(tmp_path / "pump-1") == []


def test_a_snapshot_keeps_to_its_bound_and_leaves_room_on_the_disk(tmp_path: Path) -> None:
    roomy = Recorder(tmp_path, RecorderLimits(snapshot_bytes=20_000, before_s=1e6, free_bytes=0))
    for n in range(100):
        roomy.put("pump-1", CHANNELS, block(100 * n, 100))
        roomy._flush()
    roomy.snapshot("pump-1", 2000.0)
    roomy._flush()
    assert 10_000 < roomy.statistics.snapshot_bytes <= 20_000
    roomy._snapshots._limits = replace(roomy._limits, free_bytes=1 << 60)
    before = roomy.statistics.snapshot_bytes
    roomy.snapshot("pump-1", 5000.0)
    roomy._flush()
    assert roomy.statistics.snapshot_bytes == before and "left for alarms" in str(roomy.statistics.last_error)
    roomy.put("pump-1", CHANNELS, block(10_000, 100))
    roomy._flush()
    assert (roomy.statistics.dropped, roomy.statistics.rows) == (0, 10_100)
    roomy.start()
    roomy.stop()
