"""The meters of a source: rate, samples, reconnects."""

import logging

import numpy as np
import pytest

from tocsin.records import Channel, SampleBlock
from tocsin.sources import MeteredSource, SourceCounts, make_source
from tocsin.sources.metered import RateMeter
from tocsin.sources.replay import ReplaySettings
from tocsin.sources.synthetic import SyntheticSettings, SyntheticSource

BEGIN_S = 1_790_000_000.0


class Sequence:
    """Gives the blocks that it was made with."""

    def __init__(self, times: list[np.ndarray]) -> None:
        self.channels, self.ended, self.counts = (Channel("a"),), False, SourceCounts()
        self.times = iter(times)

    def open(self) -> None: ...

    def read(self, timeout_s: float) -> SampleBlock:
        times = next(self.times)
        return SampleBlock(times, np.zeros((len(times), 1)))

    def close(self) -> None: ...


def blocks(rate_hz: float, seconds: float, begin_s: float = BEGIN_S) -> list[np.ndarray]:
    times = begin_s + np.arange(int(rate_hz * seconds)) / rate_hz
    return np.array_split(times, max(1, len(times) // 7))


def metered(times: list[np.ndarray], stated_hz: float | None) -> MeteredSource:
    source = MeteredSource(Sequence(times), "pump", stated_hz)
    source.open()
    for _ in times:
        source.read(0)
    return source


@pytest.mark.parametrize("rate_hz", [0.5, 10.0, 100.0])
def test_the_rate_is_measured_over_the_last_minute(rate_hz: float) -> None:
    source = metered(blocks(rate_hz, 150), rate_hz)
    assert source.rate_hz == pytest.approx(rate_hz, rel=0.02) and not source.off_rate
    assert source.samples == int(rate_hz * 150)


@pytest.mark.parametrize("real_hz", [8.0, 12.5, 50.0])
def test_a_rate_that_differs_clearly_from_the_stated_one_is_told_once(
    real_hz: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        source = metered(blocks(real_hz, 150), 10.0)
    assert source.off_rate and len(caplog.records) == 1
    assert f"pump: {real_hz:.4g} samples a second come, 10 are stated" in caplog.text


def test_a_pause_is_no_rate() -> None:
    times = blocks(10, 30) + blocks(10, 30, BEGIN_S + 3000) + blocks(10, 30, BEGIN_S - 3000)
    source = metered(times, 10.0)
    assert source.rate_hz == pytest.approx(10, rel=0.02)


def test_a_clock_that_is_set_is_no_rate() -> None:
    meter = RateMeter()
    for n, step_s in enumerate([0.0] * 20 + [5.0] + [0.0] * 20):
        times = BEGIN_S + n + np.arange(10) / 10 + (5.0 if n >= 20 else 0.0)
        meter.took(SampleBlock(times, np.zeros((10, 1)), 0.0, step_s))
    assert meter.rate_hz == pytest.approx(10, rel=0.02)


def test_every_opening_after_the_first_is_a_reconnect() -> None:
    source = MeteredSource(SyntheticSource((Channel("a"),), speed=0), "a", None)
    assert source.reconnects == 0
    for _ in range(3):
        source.open()
    assert source.reconnects == 2


def test_the_bundles_rate_counts_where_none_is_stated_and_a_recording_has_none() -> None:
    made_up = SyntheticSettings(type="synthetic", channels=["a"], rate_hz=5)
    assert make_source(made_up, (), 10.0).stated_hz == 5
    assert make_source(ReplaySettings(type="replay", files=["a.csv"]), (), 10.0).stated_hz is None


def test_reasons_are_bounded() -> None:
    counts = SourceCounts()
    for n in range(100):
        counts.count_bad(f"reason {n}")
    assert counts.bad == 100 and len(counts.reasons) == 33 and counts.reasons["other"] == 68
