"""Segments: what is written comes back, and a cut costs the cut frame only."""

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.errors import DataError
from tocsin.recordings import TableOptions, open_table, read_table
from tocsin.recordings.segment import (
    MAGIC,
    MAX_FRAME,
    Header,
    SegmentWriter,
    cut_tail,
    read_blocks,
    read_header,
    whole_length,
)
from tocsin.records import Channel, SampleBlock

CHANNELS = (Channel("pressure", "bar"), Channel("temp", "°C"))
START_S = 1_773_043_200.0


def block(rows: int, first: int = 0) -> SampleBlock:
    at = np.arange(first, first + rows)
    return SampleBlock(START_S + at / 10, np.stack((np.sin(at), at + 0.123456789), axis=1))


def written(path: Path, *blocks: SampleBlock, precision: str = "float64") -> list[int]:
    """Writes a segment; the lengths at which it is whole."""
    writer = SegmentWriter(path, Header("pump-1", CHANNELS, precision))
    lengths = [writer.size]
    for each in blocks:
        writer.append(each)
        lengths.append(writer.size)
    writer.close()
    assert path.stat().st_size == lengths[-1]
    return lengths


def rows_of(path: Path) -> int:
    return sum(len(each) for each in read_blocks(path))


@pytest.mark.parametrize(("precision", "kind"), [("float64", np.float64), ("float32", np.float32)])
def test_what_was_written_comes_back(tmp_path: Path, precision: str, kind: type) -> None:
    path = tmp_path / "a.seg"
    missing = block(20)
    missing.values[3, 1] = np.nan
    written(path, missing, block(30, 20), precision=precision)
    assert read_header(path) == Header("pump-1", CHANNELS, precision)
    back = list(read_blocks(path))
    for sent, got in zip((missing, block(30, 20)), back, strict=True):
        np.testing.assert_array_equal(got.time_s, sent.time_s)
        np.testing.assert_array_equal(got.values, sent.values.astype(kind).astype(np.float64))


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_a_step_of_the_clock_and_what_the_source_called_bad_come_back(tmp_path: Path, precision: str) -> None:
    sent = block(40)
    other_nan = np.array([0x7FC00001], "<u4").view("<f4").astype(np.float64)[0]  # as a register may hold
    sent.values[5:8, 0], sent.values[20, 1] = np.nan, other_nan
    bad = np.zeros(sent.values.shape, np.bool_)
    bad[6:8, 0] = True
    written(tmp_path / "a.seg", replace(sent, step_s=-3600.5, bad=bad), block(5, 40), precision=precision)
    stepped, plain = read_blocks(tmp_path / "a.seg")
    assert (stepped.step_s, plain.step_s, plain.bad) == (-3600.5, 0.0, None)
    np.testing.assert_array_equal(stepped.bad, bad)
    np.testing.assert_array_equal(np.isnan(stepped.values), np.isnan(sent.values))
    table = open_table(tmp_path / "a.seg", TableOptions(columns=("temp", "pressure")))
    read = next(iter(read_table(table))).block
    np.testing.assert_array_equal(read.bad, bad[:, ::-1])
    assert read.step_s == -3600.5


def test_a_cut_at_any_byte_of_the_tail_leaves_the_frames_before(tmp_path: Path) -> None:
    path, cut = tmp_path / "a.seg", tmp_path / "cut.seg"
    lengths = written(path, block(7), block(5, 7), block(3, 12))
    content = path.read_bytes()
    for end in range(lengths[1], lengths[3]):
        cut.write_bytes(content[:end])
        whole = sum(length <= end for length in lengths) - 1
        assert rows_of(cut) == (0, 7, 12, 15)[whole]
        assert cut_tail(cut) == end - lengths[whole]
        assert cut.stat().st_size == lengths[whole] == whole_length(cut)


def test_a_changed_byte_anywhere_in_the_tail_ends_the_segment_before_its_frame(tmp_path: Path) -> None:
    path, bad = tmp_path / "a.seg", tmp_path / "bad.seg"
    lengths = written(path, block(7), block(5, 7))
    content = bytearray(path.read_bytes())
    for place in range(lengths[1], lengths[2]):
        for flip in (0x01, 0xFF):
            content[place] ^= flip
            bad.write_bytes(content)
            content[place] ^= flip
            assert rows_of(bad) == 7


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_a_tail_of_zeros_as_some_disks_leave_it_is_no_frame(tmp_path: Path, filling: bytes) -> None:
    path = tmp_path / "a.seg"
    lengths = written(path, block(7))
    path.write_bytes(path.read_bytes() + 4096 * filling)
    assert rows_of(path) == 7
    assert cut_tail(path) == 4096 and path.stat().st_size == lengths[-1]


def test_a_segment_without_a_whole_header_is_taken_away(tmp_path: Path) -> None:
    path, cut = tmp_path / "a.seg", tmp_path / "cut.seg"
    header = written(path)[0]
    for end in range(header):
        cut.write_bytes(path.read_bytes()[:end])
        with pytest.raises(DataError, match=r"cut\.seg"):
            read_header(cut)
        cut_tail(cut)
        assert not cut.exists()


def test_a_frame_that_says_it_is_huge_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.seg"
    written(path, block(7))
    length = (MAX_FRAME + 1).to_bytes(4, "little")
    path.write_bytes(path.read_bytes() + length + zlib.crc32(length).to_bytes(4, "little"))
    assert rows_of(path) == 7


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_raise_anything_but_a_data_error(tmp_path_factory: pytest.TempPathFactory, tail: bytes, sealed: bool):
    path = tmp_path_factory.mktemp("fuzz") / "a.seg"
    frame = len(tail).to_bytes(4, "little") + zlib.crc32(tail, zlib.crc32(len(tail).to_bytes(4, "little"))).to_bytes(
        4, "little"
    )
    path.write_bytes(MAGIC + (frame if sealed else b"") + tail)
    try:
        rows_of(path)
    except DataError as error:
        assert "a.seg" in str(error)


def test_a_folder_of_segments_is_read_as_one_recording_with_the_channels_that_are_asked_for(tmp_path: Path) -> None:
    written(tmp_path / "000001-x.seg", block(7))
    written(tmp_path / "000002-x.seg", block(5, 7))
    table = open_table(tmp_path, TableOptions(), (Channel("temp", "°C"),))
    parts = list(read_table(table))
    values = np.concatenate([part.block.values for part in parts])
    np.testing.assert_array_equal(values, block(12).values[:, 1:])
    assert parts[0].stamps[1] == "2026-03-09T08:00:00.100000Z"
    assert list(parts[1].lines) == [8, 9, 10, 11, 12]
    only = open_table(tmp_path / "000002-x.seg", TableOptions(columns=("pressure",)))
    assert only.channels == CHANNELS[:1]


@pytest.mark.parametrize("left", [b"", b"TOC", MAGIC, MAGIC + b"\x40\0\0\0half of a header"])
def test_a_torn_header_costs_its_segment_alone_and_is_named(
    tmp_path: Path, left: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path / "1.seg", block(20))
    written(tmp_path / "2.seg", block(30, 20))
    (tmp_path / "0.seg").write_bytes(left)
    (tmp_path / "3.seg").write_bytes(left)
    table = open_table(tmp_path, TableOptions())
    assert sum(len(part.block) for part in read_table(table)) == 50
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "3.seg" in caplog.text and "left out" in caplog.text
    with pytest.raises(DataError, match=r"3\.seg"):
        open_table(tmp_path / "3.seg", TableOptions())
    for name in ("1.seg", "2.seg"):
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match="no segment in it has a whole header"):
        open_table(tmp_path, TableOptions())


def test_a_folder_without_segments_names_those_that_have_some(tmp_path: Path) -> None:
    (tmp_path / "ring/pump-1").mkdir(parents=True)
    written(tmp_path / "ring/pump-1/000001-x.seg", block(7))
    with pytest.raises(DataError, match=r"no \.seg file in this folder: name .*ring/pump-1"):
        open_table(tmp_path, TableOptions())


def test_a_channel_in_another_unit_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.seg", block(7))
    with pytest.raises(DataError, match="'pressure' is in bar, expected kPa"):
        open_table(tmp_path / "a.seg", TableOptions(), (Channel("pressure", "kPa"),))


def test_where_the_user_says_the_rate_stamps_count_no_more_and_no_clock_was_set(tmp_path: Path) -> None:
    written(tmp_path / "a.seg", block(20), replace(block(30, 20), step_s=-3600.0))
    for rate_hz, steps in ((None, [0.0, -3600.0]), (10.0, [0.0, 0.0])):
        table = open_table(tmp_path / "a.seg", TableOptions(rate_hz=rate_hz))
        assert [part.block.step_s for part in read_table(table)] == steps
