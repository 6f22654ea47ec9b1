"""Industrial I/O: a fake sysfs tree, and a pipe for the device file."""

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin.errors import SourceError
from tocsin.records import Channel, SampleBlock
from tocsin.sources import iio
from tocsin.sources.iio import IioSettings, IioSource
from tocsin.sources.scan import ElementType, ScanLayout

CHANNELS = [{"name": f"a{axis}", "unit": "m/s2", "element": f"in_accel_{axis}"} for axis in "xyz"]
SCAN = np.dtype({"names": ["x", "y", "z", "t"], "formats": ["<i2", "<i2", "<i2", "<i8"],
                 "offsets": [0, 2, 4, 8], "itemsize": 16})  # fmt: skip
SCALE = 0.0383


def the_settings(of: Any, **others: Any) -> IioSettings:
    known = {"type": "iio", "device": "adxl355", "rate_hz": 1000, "channels": CHANNELS}
    return IioSettings.model_validate({**known, "sysfs": str(of.sysfs), "dev": str(of.dev), **others})


def scans(n: int, begin_s: float = 1_780_000_000.0, rate_hz: float = 1000.0) -> np.ndarray:
    made = np.zeros(n, SCAN)
    for shift, axis in enumerate("xyz"):
        made[axis] = (((np.arange(n) + shift) % 4000 - 2000) << 4) | 0b1010  # padding is noise
    made["t"] = np.round((begin_s + np.arange(n) / rate_hz) * 1e9).astype(np.int64)
    return made


def read_rows(source: IioSource, rows: int, timeout_s: float = 10.0) -> SampleBlock:
    blocks, end = [], time.monotonic() + timeout_s
    while sum(map(len, blocks)) < rows and time.monotonic() < end:
        blocks.append(source.read(0.05))
    return SampleBlock(np.concatenate([b.time_s for b in blocks]), np.concatenate([b.values for b in blocks]))


@pytest.mark.parametrize(
    ("text", "words", "values"),
    [
        ("le:s12/16>>4", "8000ff7f00001000", [0x80 >> 4, 2047, 0, 1]),
        ("le:s12/16>>4", "00800080f0ff", [-2048, -2048, -1]),
        ("be:s16/16>>0", "8000fffe7fff", [-32768, -2, 32767]),
        ("be:u16/16>>0", "8000fffe", [32768, 65534]),
        ("le:s24/32>>8", "000000800100008000ffff7f", [-8388608, -8388608, 8388607]),
        ("be:s18/32>>14", "ffffc00000004000", [-1, 1]),
        ("le:u8/8>>0", "00ff", [0, 255]),
        ("le:s64/64>>0", "ffffffffffffffff", [-1]),
        ("le:u64/64>>0", "ffffffffffffffff", [2**64 - 1]),
        ("le:s16/16X1>>0", "0100", [1]),
    ],
)
def test_words_are_read_as_their_type_says(text: str, words: str, values: list[int]):
    element = ElementType.parse(text)
    assert element.values(np.frombuffer(bytes.fromhex(words), element.word)).tolist() == values


@pytest.mark.parametrize(
    "text", ["", "le:s16/16", "le:x16/16>>0", "s16/16>>0", "le:s17/16>>0", "le:s16/16>>1", "le:s24/24>>0",
             "le:s0/16>>0", "le:s16/16X4>>0", "le:s16/16>>0" * 20],
)  # fmt: skip
def test_a_type_that_is_none_or_not_supported_is_refused(text: str):
    with pytest.raises(ValueError, match="element type"):
        ElementType.parse(text)


@given(st.data())
def test_what_is_packed_as_a_type_says_is_unpacked(data: st.DataObject):
    storage = data.draw(st.sampled_from([8, 16, 32, 64]))
    shift = data.draw(st.integers(0, storage - 1))
    bits = data.draw(st.integers(1, storage - shift))
    sign, endian = data.draw(st.sampled_from("su")), data.draw(st.sampled_from(["le", "be"]))
    lowest = -(1 << (bits - 1)) if sign == "s" else 0
    value = data.draw(st.integers(lowest, lowest + (1 << bits) - 1))
    padding = data.draw(st.integers(0, (1 << storage) - 1)) & ~(((1 << bits) - 1) << shift)
    word = ((value & ((1 << bits) - 1)) << shift) | padding
    element = ElementType.parse(f"{endian}:{sign}{bits}/{storage}>>{shift}")
    packed = word.to_bytes(storage // 8, "little" if endian == "le" else "big")
    assert element.values(np.frombuffer(packed, element.word)).tolist() == [value]


@pytest.mark.parametrize(
    ("words", "offsets", "size"),
    [([16, 16, 16, 64], [0, 2, 4, 8], 16), ([16], [0], 2), ([8, 32, 8], [0, 4, 8], 12), ([32, 64, 8], [0, 8, 16], 24)],
)
def test_words_are_aligned_to_their_own_size_and_the_scan_to_its_largest(words, offsets, size):
    layout = ScanLayout(tuple(ElementType.parse(f"le:u{bits}/{bits}>>0") for bits in words))
    assert [layout.dtype.fields[name][1] for name in layout.dtype.names] == offsets
    assert layout.dtype.itemsize == size


def test_scans_are_in_the_unit_of_sysfs_with_the_kernels_stamps_however_they_are_cut(device):
    source = IioSource(the_settings(device))
    source.open()
    device.start()
    sent = scans(500)
    data = sent.tobytes()
    blocks = []
    for start, stop in ((0, 7), (7, 100), (100, 1601), (1601, 8000)):
        device.send(data[start:stop])
        blocks.append(source.read(0.5))
    block = SampleBlock(np.concatenate([b.time_s for b in blocks]), np.concatenate([b.values for b in blocks]))
    assert source.channels == tuple(Channel(f"a{axis}", "m/s2") for axis in "xyz")
    n = np.arange(500) - 2000
    np.testing.assert_allclose(block.values, np.stack([n, n + 1, n + 2 - 3], axis=1) * SCALE)
    np.testing.assert_allclose(block.time_s, 1_780_000_000 + np.arange(500) / 1000, atol=1e-6)
    source.close()


def test_only_the_wanted_elements_are_enabled_and_the_buffer_is_off_again_after_close(device):
    source = IioSource(the_settings(device, trigger="hrtimer0", buffer="500ms", device="iio:device0"))
    device.write("trigger/current_trigger", "")
    source.open()
    on = {name: device.read(f"scan_elements/{name}_en") for name in ("in_accel_x", "in_temp", "in_timestamp")}
    assert on == {"in_accel_x": "1", "in_temp": "0", "in_timestamp": "1"}
    assert device.read("buffer/enable") == "1" and device.read("buffer/length") == "500"
    assert device.read("buffer/watermark") == "50"
    assert device.read("in_accel_sampling_frequency") == "1000"
    assert device.read("trigger/current_trigger") == "hrtimer0"
    assert device.read("current_timestamp_clock") == "realtime"
    source.close()
    source.close()
    assert device.read("buffer/enable") == "0"


def test_without_a_time_stamp_samples_are_stamped_on_arrival(device):
    for end in ("en", "index", "type"):
        (device.folder / f"scan_elements/in_timestamp_{end}").unlink()
    source = IioSource(the_settings(device, channels=CHANNELS[:1]))
    source.open()
    device.start()
    device.send(np.arange(100, dtype="<i2") << 4)
    block = read_rows(source, 100)
    source.close()
    np.testing.assert_allclose(block.values[:, 0], np.arange(100) * SCALE)
    np.testing.assert_allclose(np.diff(block.time_s), 1e-3, rtol=0.3)
    assert abs(block.time_s[-1] - time.time()) < 2


def test_stamps_that_go_back_begin_a_new_block_that_says_so(device):
    source = IioSource(the_settings(device))
    source.open()
    device.start()
    device.send(scans(50).tobytes() + scans(50, 1_780_000_000 - 3600).tobytes())
    first, second = source.read(0.5), source.read(0.5)
    source.close()
    assert (len(first), len(second), first.step_s) == (50, 50, 0.0)
    assert second.step_s == pytest.approx(-3600, abs=1)


def test_a_device_that_goes_away_is_told_and_found_again_under_another_number(device, tmp_path):
    source = IioSource(the_settings(device))
    source.open()
    device.start()
    device.send(scans(10))
    read_rows(source, 10)
    device.unplug()
    with pytest.raises(SourceError, match="adxl355 was lost"):
        source.read(0.5)
    source.close()
    device.file.unlink()
    device.folder.rename(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"no devices 'adxl355': there are none"):
        source.open()
    again = type(device)(tmp_path, number=3)
    source.open()
    again.start()
    again.send(scans(10))
    assert len(read_rows(source, 10)) == 10
    source.close()
    again.unplug()


def test_what_cannot_be_opened_says_why(device, tmp_path):
    with pytest.raises(SourceError, match=r"no devices 'bmi160': there are iio:device0 \(adxl355\)"):
        IioSource(the_settings(device, device="bmi160")).open()
    for channel, said in (("in_magn_x", "no buffered channel in_magn_x: it has in_accel_x, in_accel_y"),):
        with pytest.raises(SourceError, match=said):
            IioSource(the_settings(device, channels=[{"name": "m", "element": channel}])).open()
    device.write("scan_elements/in_accel_y_type", "le:s16/16X4>>0")
    with pytest.raises(SourceError, match="several numbers in one element"):
        IioSource(the_settings(device)).open()
    type(device)(tmp_path, number=1)
    with pytest.raises(SourceError, match="2 devices 'adxl355'"):
        IioSource(the_settings(device)).open()
    with pytest.raises(SourceError, match="not open"):
        IioSource(the_settings(device)).read(0.01)


def test_slow_sensors_are_polled_and_one_that_fails_is_marked(device):
    channels = [*CHANNELS[1:], {"name": "temperature", "unit": "°C", "element": "in_temp", "scale": 0.001, "offset": 1}]
    source = IioSource(the_settings(device, mode="poll", rate_hz=50, channels=channels))
    source.open()
    block = read_rows(source, 10)
    np.testing.assert_allclose(block.values, [[10 * SCALE, 17 * SCALE, 22.5]] * 10)
    np.testing.assert_allclose(np.diff(block.time_s).mean(), 0.02, rtol=0.2)
    device.write("in_accel_y_raw", "")
    while (bad := source.read(0.1)).bad is None:
        pass
    assert bad.bad.tolist() == [[True, False, False]] and np.isnan(bad.values[0, 0])
    assert source.counts.reasons["in_accel_y cannot be read"] >= 1
    for name in ("in_accel_z_raw", "in_temp_input"):
        (device.folder / name).unlink()
    with pytest.raises(SourceError, match="no channel can be read"):
        read_rows(source, 5)
    source.close()


def test_three_axes_at_25_6_khz_lose_nothing(device):
    rate, seconds = 25_600, 4
    source = IioSource(the_settings(device, rate_hz=rate))
    source.open()
    sent = scans(rate * seconds, rate_hz=rate)
    device.start()
    sending = threading.Thread(target=device.send, args=(sent,))  # as fast as the pipe takes it
    sending.start()
    block = read_rows(source, len(sent), 20)
    sending.join()
    source.close()
    assert len(block) == rate * seconds
    expected = (np.arange(len(sent)) % 4000 - 2000) * SCALE
    np.testing.assert_allclose(block.values[:, 0], expected)
    assert (np.diff(block.time_s) > 0).all()


def test_stamps_that_go_back_by_less_than_a_step_cut_nothing_and_all_steps_are_given_one_by_one(device):
    source = IioSource(the_settings(device))
    source.open()
    device.start()
    jittering = scans(50)
    jittering["t"][10::10] -= 1_100_000
    device.send(jittering.tobytes())
    assert len(source.read(0.5)) == 50
    device.send(b"".join(scans(10, 1_780_000_000 - 3600 * n).tobytes() for n in range(1, 6)))
    assert [len(source.read(0.5)) for _ in range(5)] == [10] * 5
    assert len(source.read(0.01)) == 0 and source.counts.clock_steps == 5
    source.close()


def test_a_fixed_rate_is_fine_if_it_is_the_one_asked_for(tmp_path, monkeypatch):
    (tmp_path / "sampling_frequency").write_text("1000.000000\n")

    def refuse(file, value):
        raise OSError(f"{file.name} = {value}: Permission denied")

    monkeypatch.setattr(iio, "_write", refuse)  # root may write to any file
    iio._set_rate(tmp_path, [], 1000.0)
    with pytest.raises(OSError, match=r"samples at 1000.000000 Hz: set rate_hz"):
        iio._set_rate(tmp_path, [], 500.0)


def test_polls_that_come_too_late_are_counted(device):
    source = IioSource(the_settings(device, mode="poll", rate_hz=100))
    source.open()
    source.read(0.1)
    time.sleep(0.1)
    source.read(0.1)
    source.close()
    assert source.counts.late >= 8
