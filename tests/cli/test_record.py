"""`tocsin record`: from a source to the disk, to a file, to another machine."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from tocsin.errors import SourceError
from tocsin.recorder import Recorder
from tocsin.recorder.limits import RecorderLimits
from tocsin.recorder.pull import pull, split_device
from tocsin.recorder.source import RecordedSource
from tocsin.recordings import TableOptions, open_table, read_table
from tocsin.recordings.segment import Header, SegmentWriter
from tocsin.records import Channel, SampleBlock
from tocsin.sources import SourceCounts, SourceSettings
from tocsin_trainer.dataset import load

DATA = Path(__file__).parent.parent / "data"
Tocsin = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    source = {"type": "replay", "files": [str(DATA / "normal.csv")], "speed": 0}
    path = tmp_path / "tocsin.yaml"
    path.write_text(
        yaml.safe_dump({"version": 1, "assets": [{"id": "pump-1", "bundle": "later.tocsin", "source": source}]})
    )
    return path


@pytest.fixture
def recorded(tocsin: Tocsin, config: Path, tmp_path: Path) -> Path:
    """A folder that was recorded to."""
    code, out, _ = tocsin("record", "-c", config, "--out", tmp_path / "rec")
    assert (code, "1200 samples recorded, 0 dropped" in out) == (0, True)
    return tmp_path / "rec"


def values(path: Path) -> np.ndarray:
    return np.concatenate([part.block.values for part in read_table(open_table(path, TableOptions()))])


def test_a_source_is_recorded_without_its_bundle_and_trained_on_as_the_table_would_be(recorded: Path) -> None:
    from_ring = load((recorded / "ring/pump-1",), TableOptions())
    from_table = load((DATA / "normal.csv",), TableOptions())
    assert (from_ring.channels, from_ring.sample_rate_hz) == (from_table.channels, from_table.sample_rate_hz)
    (one,), (other,) = from_ring.stretches, from_table.stretches
    np.testing.assert_array_equal(one.read(0, 1200).values, np.float32(other.read(0, 1200).values))
    np.testing.assert_array_equal(one.read(0, 1200).time_s, other.read(0, 1200).time_s)


def test_what_is_recorded_is_listed(tocsin: Tocsin, recorded: Path) -> None:
    code, out, _ = tocsin("record", "list", recorded, "--json")
    (found,) = json.loads(out)
    assert code == 0
    assert (found["stream"], found["rows"], found["segments"]) == ("pump-1", 1200, 1)
    assert (found["from"], found["to"]) == ("2026-03-09T08:00:00.000Z", "2026-03-09T08:19:59.000Z")
    code, out, _ = tocsin("record", "list", recorded)
    assert code == 0 and "1,200 samples" in out and "pressure" in out


def test_a_folder_without_recordings_or_that_is_not_there_is_told_as_such(tocsin: Tocsin, tmp_path: Path) -> None:
    code, _, err = tocsin("record", "list", tmp_path / "nowhere")
    assert code == 4 and "nowhere: no such folder: expected what `tocsin record start --out`" in err
    code, _, err = tocsin("record", "list", tmp_path)
    assert code == 4 and f"no recordings in it: make one with tocsin record start --out {tmp_path}" in err


def test_an_export_to_csv_reads_back_the_same(tocsin: Tocsin, recorded: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert tocsin("record", "export", recorded / "ring/pump-1", "--out", out)[0] == 0
    np.testing.assert_array_equal(np.float32(values(out)), np.float32(values(recorded / "ring/pump-1")))
    told = tocsin("record", "export", recorded / "ring/pump-1", "-o", out, "--from", "2026-03-09T08:01", "--to",
                  "2026-03-09T09:02:00+01:00")  # fmt: skip
    assert told[:2] == (0, f"61 samples in {out}\n")
    assert tocsin("record", "export", recorded / "ring/pump-1", "-o", out, "--from", "2030-01-01")[0] == 4
    assert tocsin("record", "export", recorded / "ring/pump-1", "-o", tmp_path / "out.xlsx")[0] == 1
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.csv"]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_an_export_to_csv_keeps_every_digit_and_any_unit(tocsin: Tocsin, tmp_path: Path, precision: str) -> None:
    random = np.random.default_rng(0)
    sent = np.concatenate(
        [10.0 ** random.uniform(-30, 14, (200, 2)), [[0.1, 1 / 3], [np.nan, -0.0], [1e-45, 2**49 + 1]]]
    )
    channels = (Channel("speed", "m, s"), Channel("flow", 'l "net", min'))
    (tmp_path / "rec").mkdir()
    writer = SegmentWriter(tmp_path / "rec/1.seg", Header("pump-1", channels, precision))
    writer.append(SampleBlock(1.7e9 + np.arange(len(sent)), sent))
    writer.close()
    assert tocsin("record", "export", tmp_path / "rec", "-o", tmp_path / "out.csv")[0] == 0
    table = open_table(tmp_path / "out.csv", TableOptions())
    assert table.channels == channels
    np.testing.assert_array_equal(values(tmp_path / "out.csv").astype(precision), sent.astype(precision))
    assert "0.1," in (tmp_path / "out.csv").read_text()


def test_a_segment_that_is_torn_is_named_and_the_others_listed(
    tocsin: Tocsin, recorded: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for torn in ("ring/pump-1/00000009-x.seg", "ring/fan-2/00000001-x.seg"):
        (recorded / torn).parent.mkdir(exist_ok=True)
        (recorded / torn).write_bytes(b"TOC")
    code, out, _ = tocsin("record", "list", recorded, "--json")
    (found,) = json.loads(out)
    assert (code, found["stream"], found["segments"]) == (0, "pump-1", 1)
    assert "00000009-x.seg" in caplog.text and "fan-2" in caplog.text


def test_an_export_to_parquet_reads_back_the_same_or_says_what_is_missing(
    tocsin: Tocsin, recorded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.parquet"
    code, _, said = tocsin("record", "export", recorded / "ring/pump-1", "--out", out)
    try:
        import pyarrow.parquet as pq
    except ImportError:
        assert code == 1 and "pip install '.[parquet]'" in said and not out.exists()
        return
    table = pq.read_table(out)
    assert code == 0 and table.column_names == ["time", "pressure", "flow"]
    np.testing.assert_array_equal(table["pressure"].to_numpy(), values(recorded / "ring/pump-1")[:, 0])
    assert table["time"][0].as_py().isoformat() == "2026-03-09T08:00:00+00:00"


def test_an_asset_that_is_not_configured_is_a_usage_error(tocsin: Tocsin, config: Path, tmp_path: Path) -> None:
    code, _, said = tocsin("record", "-c", config, "--asset", "pump-9", "--out", tmp_path / "rec")
    assert code == 2 and "there are pump-1" in said


def with_source(config: Path, **source: object) -> Path:
    document = yaml.safe_load(config.read_text())
    document["assets"][0]["source"] = source
    config.write_text(yaml.safe_dump(document))
    return config


@pytest.mark.parametrize("startup", ["retry", "error", "ignore"])
def test_a_source_that_gives_nothing_is_an_error_of_the_source(
    tocsin: Tocsin, config: Path, tmp_path: Path, startup: str
) -> None:
    port = {"port": str(tmp_path / "ttyNONE"), "channels": ["flow"], "rate_hz": 10, "startup": startup}
    begin = time.monotonic()
    limit = ("--duration", "1") if startup == "retry" else ()
    path = with_source(config, type="serial", **port)
    code, out, said = tocsin("record", "-c", path, "--out", tmp_path / "rec", *limit)
    assert code == 5 and "0 samples recorded" in out and "ttyNONE cannot be opened" in said.splitlines()[-1]
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("duration", ["0", "-1", "0min", "nan", "inf", "soon"])
def test_a_duration_that_is_no_length_of_time_is_a_usage_error(
    tocsin: Tocsin, config: Path, tmp_path: Path, duration: str
) -> None:
    code, _, said = tocsin("record", "-c", config, "--out", tmp_path / "rec", "--duration", duration)
    assert code == 2 and "expected" in said and not (tmp_path / "rec").exists()


class Driver:
    """Of somebody else: its first read fails in a way that no contract knows."""

    channels, ended = (Channel("flow"),), False

    def __init__(self) -> None:
        self.counts, self.reads = SourceCounts(), 0

    def open(self) -> None: ...

    def read(self, timeout_s: float) -> SampleBlock:
        self.reads += 1
        if self.reads == 1:
            raise ZeroDivisionError("of the driver")
        return SampleBlock(np.array([float(self.reads)]), np.ones((1, 1)))

    def close(self) -> None: ...


class DriverSettings(SourceSettings):
    def make(self, wanted: tuple[Channel, ...]) -> Driver:
        return Driver()


def test_whatever_a_driver_raises_its_source_is_opened_again(tmp_path: Path, until: Callable[..., None]) -> None:
    recorder = Recorder(tmp_path, RecorderLimits(free_bytes=0))
    source = RecordedSource("pump-1", DriverSettings(type="driver"), recorder)
    recorder.start()
    source.start()
    until(lambda: source.source.samples > 0)
    source.stop()
    recorder.stop()
    assert (source.errors, source.failing, source.source.reconnects) == (1, False, 1)
    assert recorder.statistics.rows == source.source.samples


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """What a recorder has left on a device: two streams of the ring, a snapshot, and a torn tail."""
    folder = tmp_path / "device"
    for name in ("ring/pump-1/00000001-x.seg", "ring/pump-1/00000002-x.seg", "ring/fan-2/00000001-x.seg",
                 "snapshots/20260309T080000-pump-1/pump-1.seg"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        grown(folder / name, 5)
    with (folder / "ring/pump-1/00000002-x.seg").open("ab") as handle:
        handle.write(b"half a frame")
    return folder


def grown(path: Path, frames: int) -> None:
    writer = SegmentWriter(path, Header("pump-1", (Channel("flow"),), "float64"))
    for n in range(frames):
        at = np.arange(1000) + 1000.0 * n
        writer.append(SampleBlock(at, at[:, None]))
    writer.close()


def whole(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.seg")}


def expected(device: Path) -> dict[str, bytes]:
    return {name: content.removesuffix(b"half a frame") for name, content in whole(device).items()}


def test_a_pull_brings_all_whole_frames_and_a_second_one_nothing(device: Path, tmp_path: Path) -> None:
    first = pull(str(device), "", tmp_path / "here")
    assert whole(tmp_path / "here") == expected(device)
    assert (first.segments, first.gone) == (4, 0)
    again = pull(str(device), "", tmp_path / "here")
    assert again.bytes == len(b"half a frame")  # it may have become whole meanwhile
    assert whole(tmp_path / "here") == expected(device)


def test_what_was_appended_meanwhile_is_all_that_comes(device: Path, tmp_path: Path) -> None:
    pull(str(device), "", tmp_path / "here")
    path = device / "ring/pump-1/00000002-x.seg"
    before = len(path.read_bytes()) - len(b"half a frame")
    path.unlink()
    grown(path, 9)
    again = pull(str(device), "", tmp_path / "here")
    assert again.bytes == path.stat().st_size - before
    assert whole(tmp_path / "here") == whole(device)


SSH = """#!/bin/sh
while [ "$1" != "--" ]; do shift; done
echo "$2" >> "$SSH_LOG"
shift 2
case "$*" in
  *tail*) if [ -s "$SSH_CUT" ]; then sh -c "$*" | head -c "$(cat "$SSH_CUT")"; : > "$SSH_CUT"; exit 255; fi ;;
esac
exec sh -c "$*"
"""


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ssh` that runs the command here; a number in the file that it gives cuts the next transfer after so much."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(SSH)
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SSH_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("SSH_CUT", str(tmp_path / "cut"))
    return tmp_path / "cut"


@pytest.mark.parametrize("cut", [1, 9, 20_000, 79_000])
def test_a_pull_goes_on_where_the_connection_was_lost(cut: int, device: Path, ssh: Path, tmp_path: Path) -> None:
    ssh.write_text(str(cut))
    with pytest.raises(SourceError, match=r"pi@edge-1: the connection was lost in .*fan-2.* goes on from there"):
        pull(f"pi@edge-1:{device}", "", tmp_path / "here")
    again = pull(f"pi@edge-1:{device}", "", tmp_path / "here")
    total = sum(map(len, whole(device).values()))
    frame = 16_008
    assert whole(tmp_path / "here") == expected(device)
    assert total - cut <= again.bytes <= total - cut + frame
    assert set((tmp_path / "log").read_text().split()) == {"pi@edge-1"}


def test_a_folder_with_a_space_and_quotes_in_its_name_is_fetched(device: Path, ssh: Path, tmp_path: Path) -> None:
    odd = tmp_path / "it's $(odd); x"
    shutil.move(device, odd)
    pull(f"edge-1:{odd}", "", tmp_path / "here")
    assert whole(tmp_path / "here") == expected(odd)


def test_names_that_the_recorder_does_not_give_are_left_alone(device: Path, tmp_path: Path) -> None:
    for name in ("evil.seg", "ring/pump-1/a b.seg", "ring/pump-1/-x.seg", "ring/.hidden/x.seg"):
        (device / name).parent.mkdir(exist_ok=True)
        grown(device / name, 1)
    pull(str(device), "", tmp_path / "here")
    assert len(whole(tmp_path / "here")) == 4


def test_a_host_that_looks_like_an_option_is_refused(tocsin: Tocsin, tmp_path: Path) -> None:
    code, _, said = tocsin("record", "pull", "--out", tmp_path, "--", "-oProxyCommand=x")
    assert code == 1 and "expected [user@]host" in said


def test_a_folder_without_recordings_is_told(tocsin: Tocsin, tmp_path: Path) -> None:
    code, _, said = tocsin("record", "pull", f"{tmp_path}/nothing", "--out", tmp_path / "here")
    assert code == 5 and "cannot be listed" in said


def test_a_device_is_a_host_or_a_folder() -> None:
    assert split_device("edge-1:~/rec", "x") == ("edge-1", "~/rec")
    assert split_device("/mnt/usb", "x") == (None, "/mnt/usb")
