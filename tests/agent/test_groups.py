"""Rate groups on the device: a stream says what a recording says, and no source stalls another."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.config import AssetSettings
from tocsin.core.bundle import Bundle, GoldenJoin, load_bundle, write_bundle
from tocsin.core.groups import Group, RateGroups
from tocsin.core.join import Joiner
from tocsin.delivery.outbox import Outbox
from tocsin.errors import BundleError, ConfigError, DataError, SourceError
from tocsin.pipeline import AssetLine
from tocsin.recordings import TableOptions, open_groups, read_groups
from tocsin.recordings.segment import Header, SegmentWriter
from tocsin.records import Channel, Floats, SampleBlock, Transition
from tocsin.sources import SourceCounts, SourceSettings
from tocsin.worker import AssetWorker

DATA = Path(__file__).parent.parent / "data"
START_S = 1_773_043_200.0
FAST = 4.0  # samples of flow for each of pressure


def machine(phase: Floats) -> tuple[Floats, Floats]:
    """Pressure and flow of the machine that the bundle knows."""
    swing = 2 * np.pi * phase / 24
    return 5 + 0.4 * np.sin(swing), 21 + 2 * np.sin(swing - np.pi / 4)


def grouped(folder: Path, rate: float = 1.0, max_age_s: float = 5.0, join: GoldenJoin | None = None) -> Bundle:
    """The small bundle, with pressure in one group and flow, by its mean, in a faster one."""
    small = load_bundle(DATA / "small.tocsin")
    pressure, flow = small.manifest.channels
    gap_s = 5 / rate if join is None else max_age_s
    main = Group("main", (pressure,), rate, gap_s, max(max_age_s, 5 / rate), ("hold",))
    fast = Group("fast", (flow,), FAST * rate, 5 / (FAST * rate), max(max_age_s, 5 / (FAST * rate)), ("mean",))
    raw = {k: v for k, v in small.manifest.raw.items() if k not in ("format", "golden", "files", "digest")}
    raw |= RateGroups((main, fast), wait_s=0.5).to_json()
    models = {name: body for name, body in small.files.items() if name.endswith(".tflite")}
    return write_bundle(folder / "grouped.tocsin", raw, models, replace(small.golden, join=join), "")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return grouped(tmp_path_factory.mktemp("grouped"))


@pytest.mark.parametrize(
    ("golden", "said"),
    [
        ((np.arange(60) * 9e5, np.zeros((1, 2))), "golden.npz is damaged: samples that are joined from .* numbers"),
        ((np.arange(9.0), np.zeros((1, 3))), "golden.npz is damaged: joined rows have 3 columns, expected 2"),
    ],
)
def test_golden_samples_that_would_fill_the_devices_memory_are_refused(
    tmp_path: Path, golden: tuple[Floats, Floats], said: str
) -> None:
    times, rows = golden
    samples = SampleBlock(times, np.zeros((len(times), 1)))
    with pytest.raises(BundleError, match=said):
        grouped(tmp_path, max_age_s=1e6, join=GoldenJoin((samples, samples), rows))


def streams(seed: int, rows: int = 400) -> tuple[SampleBlock, SampleBlock]:
    """Both groups of one machine, with faults, holes, missing values and jitter."""
    rng = np.random.default_rng(seed)
    slow_at, fast_at = np.arange(rows) * 1.0, np.arange(rows * int(FAST)) / FAST
    pressure = machine(slow_at)[0] + rng.normal(0, 0.05, len(slow_at))
    flow = machine(fast_at)[1] + rng.normal(0, 0.2, len(fast_at))
    for begin in rng.integers(40, rows, 2):
        flow[int(begin * FAST) : int((begin + 30) * FAST)] -= rng.uniform(2, 8)
    out = []
    for at, values in ((slow_at, pressure), (fast_at, flow)):
        values[rng.random(len(values)) < 0.01] = np.nan
        kept = np.ones(len(at), bool)
        for begin in rng.uniform(0, rows, 2):
            kept &= (at < begin) | (at > begin + rng.choice([1.5, 4.0, 12.0]))
        out.append(SampleBlock(START_S + at[kept] + rng.uniform(-0.05, 0.05, kept.sum()), values[kept, None]))
    return out[0], out[1]


def heard(line: AssetLine, blocks: Iterator[tuple[int, SampleBlock]]) -> tuple[Floats, Floats, Floats, list[Any]]:
    """End times, scores, shares and transitions."""
    parts = [part for group, block in blocks for part in line.feed(block, group)] + line.finish()
    found = [part.transitions for part in parts]
    ends = np.concatenate([part.windows.end_s for part in parts])
    scores = np.concatenate([part.scores.value for part in parts])
    shares = np.concatenate([part.scores.share() for part in parts])
    return ends, scores, shares, [transition for each in found for transition in each]


def cut(block: SampleBlock, cuts: list[int]) -> list[SampleBlock]:
    edges = [0, *sorted({c % len(block) for c in cuts} - {0}), len(block)]
    return [SampleBlock(block.time_s[a:b], block.values[a:b]) for a, b in pairwise(edges)]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 400), max_size=10),
    st.lists(st.integers(0, 1600), max_size=10),
    st.randoms(use_true_random=False),
)
def test_scores_and_alarms_do_not_depend_on_how_groups_are_cut_and_interleaved(
    bundle: Bundle, seed: int, slow_cuts: list[int], fast_cuts: list[int], order: Any
) -> None:
    slow, fast = streams(seed)
    whole = heard(AssetLine("motor", bundle, None), iter(((0, slow), (1, fast))))
    queues = [cut(slow, slow_cuts), cut(fast, fast_cuts)]

    def mixed() -> Iterator[tuple[int, SampleBlock]]:
        while any(queues):
            n = order.choice([n for n, queue in enumerate(queues) if queue])
            yield n, queues[n].pop(0)

    pieces = heard(AssetLine("motor", bundle, None), mixed())
    np.testing.assert_array_equal(whole[0], pieces[0])
    np.testing.assert_allclose(whole[1], pieces[1], rtol=1e-6)
    np.testing.assert_allclose(whole[2], pieces[2], atol=1e-6)
    assert [(t.time_s, t.change) for t in whole[3]] == [(t.time_s, t.change) for t in pieces[3]]


def test_the_streams_of_that_test_raise_alarms_that_name_the_fast_channel(bundle: Bundle) -> None:
    raised: list[Transition] = []
    for seed in range(5):
        raised += heard(AssetLine("motor", bundle, None), enumerate(streams(seed)))[3]
    top = [t.contributions[0].channel for t in raised]
    assert len(top) > 6 and top.count("flow") > 0.6 * len(top)


class Scripted(SourceSettings):
    """A machine that runs as fast as its clock; deaf between two times after its start."""

    type: Literal["scripted"] = "scripted"
    channel: str
    deaf_s: tuple[float, float] = (0.0, 0.0)
    stuck_s: float = 0.0

    def make(self, wanted: tuple[Channel, ...]) -> "ScriptedSource":
        return ScriptedSource(self)


class ScriptedSource:
    def __init__(self, form: Scripted) -> None:
        self.channels, self.ended, self.counts = (Channel("other"), Channel(form.channel)), False, SourceCounts()
        self._form, self._begin, self._done = form, time.time(), 0

    def _deaf(self) -> bool:
        first, last = self._form.deaf_s
        return first <= time.time() - self._begin < last

    def open(self) -> None:
        if self._deaf():
            raise SourceError(f"{self._form.channel}: no answer")

    def read(self, timeout_s: float) -> SampleBlock:
        time.sleep(0.05 + self._form.stuck_s)
        if self._deaf():
            raise SourceError(f"{self._form.channel}: link lost")
        assert self._form.rate_hz is not None
        ready = int((time.time() - self._begin) * self._form.rate_hz)
        at = np.arange(max(self._done, ready - 20), ready) / self._form.rate_hz
        self._done = ready
        value = machine((self._begin + at) * 20)[self._form.channel == "flow"]
        return SampleBlock(self._begin + at, np.stack((np.full(len(at), 1e9), value), axis=1))

    def close(self) -> None:
        pass


def nothing(*_: object) -> None:
    return None


def worker(
    bundle: Bundle,
    outbox: Outbox,
    report: Callable[..., None] = nothing,
    record: Callable[..., None] = nothing,
    **sources: Any,
) -> AssetWorker:
    form = AssetSettings.model_validate({"id": "motor", "bundle": str(bundle.path), "sources": sources})
    return AssetWorker(form, bundle, nothing, report, lambda _: False, nothing, outbox, record)


def test_a_dead_source_stalls_no_other_makes_a_gap_and_comes_back(
    tmp_path: Path, outbox: Outbox, until: Callable[..., None]
) -> None:
    live = grouped(tmp_path, rate=20.0, max_age_s=0.25)
    main, fast = Scripted(channel="pressure", rate_hz=20), Scripted(channel="flow", rate_hz=80, deaf_s=(2.5, 4.0))
    motor = worker(live, outbox, main=main, fast=fast)
    motor.start()
    try:
        until(lambda: motor.health_by_group().get("fast") and motor.health_by_group()["fast"].state == "failing")
        before, windows = motor.health_by_group()["main"].samples_total, motor.health()[1].windows_total
        assert windows > 0 and "link lost" in str(motor.health()[0].last_error)
        until(lambda: motor.health_by_group()["main"].samples_total >= before + 20)  # while the other is dead
        assert motor.health()[0].state == "silent" and motor.health_by_group()["main"].state == "ok"
        until(lambda: motor.health_by_group()["fast"].state == "ok")
        stopped = motor.health()[1].windows_total
        until(lambda: motor.health()[1].windows_total > stopped + 10)
        source, line = motor.health()
        assert source.state == "ok" and source.last_error is None
        assert line.gaps_total == 1 and not motor.failing
    finally:
        motor.stop()
    assert motor.finished.wait(5)


class Foreign(ScriptedSource):
    def open(self) -> None:
        raise DataError("flow comes in psi")


def test_a_group_in_another_unit_makes_its_asset_fail_until_it_suits(
    tmp_path: Path, outbox: Outbox, until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "make", lambda form, _: (Foreign if form.channel == "flow" else ScriptedSource)(form))
    main, fast = Scripted(channel="pressure", rate_hz=20), Scripted(channel="flow", rate_hz=80)
    motor = worker(grouped(tmp_path, rate=20.0, max_age_s=0.25), outbox, main=main, fast=fast)
    motor.start()
    try:
        until(lambda: motor.health_by_group().get("main") and motor.health_by_group()["main"].samples_total > 0)
        until(lambda: motor.refused is not None)
        assert isinstance(motor.refused, ConfigError) and motor.health()[0].state == "failing"
        monkeypatch.setattr(Foreign, "open", ScriptedSource.open)
        until(lambda: motor.refused is None and motor.health()[1].windows_total > 0)
    finally:
        motor.stop()


def write(path: Path, name: str, samples: SampleBlock) -> dict[str, Any]:
    rows = zip(samples.time_s.tolist(), samples.values[:, 0].tolist(), strict=True)
    path.write_text(f"time,{name}\n" + "".join(f"{t:.3f},{'' if v != v else v}\n" for t, v in rows))
    return {"type": "replay", "files": [str(path)], "speed": 0}


def test_recordings_played_at_once_give_the_alarms_of_a_replay(bundle: Bundle, tmp_path: Path, outbox: Outbox) -> None:
    slow, fast = streams(1)
    rounded = [replace(block, time_s=np.round(block.time_s, 3)) for block in (slow, fast)]
    expected = heard(AssetLine("motor", bundle, None), enumerate(rounded))
    transitions: list[Transition] = []
    forms = {"main": write(tmp_path / "p.csv", "pressure", slow), "fast": write(tmp_path / "f.csv", "flow", fast)}
    recorded: dict[str, int] = {}

    def record(stream: str, channels: tuple[Channel, ...], block: SampleBlock) -> None:
        recorded[stream] = recorded.get(stream, 0) + len(block)

    motor = worker(bundle, outbox, transitions.append, record, **forms)
    motor.start()
    assert motor.finished.wait(20)
    assert recorded == {"motor.main": len(slow), "motor.fast": len(fast)}
    assert motor.health()[0].state == "ended" and motor.health()[1].windows_total == len(expected[0])
    found = [(t.time_s, t.change) for t in transitions if t.alarm == "motor-anomaly"]
    assert found == [(t.time_s, t.change) for t in expected[3]] != []


def test_a_recording_that_has_ended_beside_a_machine_is_held_and_missing_then(
    tmp_path: Path, outbox: Outbox, until: Callable[..., None]
) -> None:
    live = grouped(tmp_path, rate=20.0, max_age_s=0.25)
    begin = time.time()
    at = np.arange(-80.0, 80.0) / 80
    fast = write(tmp_path / "f.csv", "flow", SampleBlock(begin + at, machine((begin + at) * 20)[1][:, None]))
    motor = worker(live, outbox, main=Scripted(channel="pressure", rate_hz=20), fast=fast)
    motor.start()
    try:
        until(lambda: motor.health()[1].left_out_total > 10)
        assert motor.health_by_group()["fast"].state == "ended" and motor.health()[0].state == "silent"
    finally:
        motor.stop()


class Torrent(SourceSettings):
    """A machine that gives ten seconds at a time."""

    type: Literal["torrent"] = "torrent"
    channel: str

    def make(self, wanted: tuple[Channel, ...]) -> "TorrentSource":
        return TorrentSource(self)


class TorrentSource:
    def __init__(self, form: Torrent) -> None:
        self.channels, self.ended, self.counts = (Channel(form.channel),), False, SourceCounts()
        assert form.rate_hz is not None
        self._rows, self._begin, self._rate = int(10 * form.rate_hz), time.time(), form.rate_hz

    def open(self) -> None:
        pass

    def read(self, timeout_s: float) -> SampleBlock:
        time.sleep(0.05)
        at = self._begin + np.arange(self._rows) / self._rate
        self._begin += self._rows / self._rate
        return SampleBlock(at, np.ones((self._rows, 1)))

    def close(self) -> None:
        pass


def test_rows_let_go_of_while_the_base_is_dead_show_in_health(
    tmp_path: Path, outbox: Outbox, until: Callable[..., None]
) -> None:
    live = grouped(tmp_path, rate=5000.0, max_age_s=0.25)
    base = Scripted(channel="pressure", rate_hz=5000, deaf_s=(0.0, 600.0))
    motor = worker(live, outbox, main=base, fast=Torrent(channel="flow", rate_hz=20_000))
    motor.start()
    try:
        until(lambda: motor.health()[1].dropped_total > 100_000)
    finally:
        motor.stop()


def test_a_recording_that_goes_on_after_the_base_is_told_of_its_end(bundle: Bundle, tmp_path: Path) -> None:
    slow, fast = streams(2, 6000)
    write(tmp_path / "p.csv", "pressure", slow.part(slice(0, 50)))
    write(tmp_path / "f.csv", "flow", fast)
    groups = bundle.manifest.groups
    tables = open_groups({"main": tmp_path / "p.csv", "fast": tmp_path / "f.csv"}, groups, TableOptions())
    read = list(read_groups(tables, groups))
    ends = [n for n, part in read if part is None]
    assert ends == [0, 1] and [n for n, _ in read].count(0) == 2
    assert sum(len(part.block) for n, part in read if n == 1 and part is not None) == len(fast)


def recorded(path: Path, channel: Channel, samples: SampleBlock, set_at: int, step_s: float) -> Path:
    """A segment of ten blocks; the clock is set before one of them."""
    writer = SegmentWriter(path, Header("motor", (channel,), "float64"))
    size = len(samples) // 10
    for n in range(10):
        part = samples.part(slice(n * size, (n + 1) * size))
        by_s = step_s if n >= set_at else 0.0
        writer.append(replace(part, time_s=part.time_s + by_s, step_s=step_s if n == set_at else 0.0))
    writer.close()
    return path


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
@pytest.mark.parametrize("alone", [False, True])
def test_groups_whose_clocks_were_set_are_read_side_by_side_to_the_end(
    bundle: Bundle, tmp_path: Path, step_s: float, alone: bool
) -> None:
    groups = bundle.manifest.groups
    files = {
        group.name: recorded(tmp_path / f"{n}.seg", group.channels[0], samples, 5, 0.0 if alone and n else step_s)
        for n, (group, samples) in enumerate(zip(groups.groups, streams(2), strict=True))
    }
    read = [
        (n, part) for n, part in read_groups(open_groups(files, groups, TableOptions()), groups) if part is not None
    ]
    assert [sum(n == each for n, _ in read) for each in (0, 1)] == [10, 10]
    assert max(abs(2 * sum(n for n, _ in read[:k]) - k) for k in range(20)) <= 2  # neither runs ahead
    joiner = Joiner(groups, wait=False)
    rows = sum(len(made) for n, part in read for made in joiner.push(n, part.block))
    assert rows > (150 if alone else 350)


def test_a_bundle_and_sources_of_other_groups_are_told_apart() -> None:
    form = {"id": "motor", "bundle": "motor.tocsin"}
    one = {"type": "synthetic", "channels": ["pressure"]}
    with pytest.raises(ValueError, match="expected `source:`, or `sources:`"):
        AssetSettings.model_validate(form)
    with pytest.raises(ValueError, match="expected `source:`, or `sources:`"):
        AssetSettings.model_validate(form | {"source": one, "sources": {"main": one}})
    several = AssetSettings.model_validate(form | {"sources": {"main": one, "sound": one}})
    with pytest.raises(ConfigError, match="each of its groups main, fast, got main, sound"):
        several.by_group(("main", "fast"))
    with pytest.raises(ConfigError, match="one group of channels: write `source:`"):
        several.by_group(("",))
    alone = AssetSettings.model_validate(form | {"source": one})
    assert list(alone.by_group(("",))) == [""]
    with pytest.raises(ConfigError, match="main, fast, got `source:`"):
        alone.by_group(("main", "fast"))
