"""The metrics of a running agent: names, meanings, and where each figure comes from.

```
Health ─┐
Statistics of publisher and desk ─┤
standing alarms, newest scores ───┴─► Facts ─► METRICS ─► exposition.page ─► /metrics
```
Rules: names begin with `tocsin_` and end with a base unit (`_seconds`, `_bytes`, `_celsius`, `_hertz`); counters end
with `_total` and begin at 0 with the process, where the meaning says nothing else. A figure that is not known has no
line. No text of an error is ever a label, as nobody knows what stands in it. `docs/reference/metrics.md` is made from
this table.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from tocsin.alarm_desk import DeskStatistics
from tocsin.alarms.alarm import Alarm, AlarmState, Severity
from tocsin.delivery.publisher import Statistics
from tocsin.delivery.wire import AssetHealth, Health, Info, RecordingHealth, Score, SourceHealth

MIB = 2**20
Line = tuple[tuple[str, ...], float]  # values of the labels, and the figure
STATUSES = get_args(Health.model_fields["status"].annotation)
STATES = get_args(SourceHealth.model_fields["state"].annotation)
SCORED = ("ok", "off_rate")  # states in which the newest score is of now
WAITS = (AlarmState.UNACKED, AlarmState.RTN_UNACKED)


@dataclass(frozen=True, slots=True)
class Facts:
    """What all metrics of one page are made from.

    Attributes:
        info: the birth document.
        health: as it is published, but for `cpu_percent`, which nothing is made from.
        cpu_s: processor time of this process.
        delivery: statistics of the publisher.
        desk: statistics of the alarm desk.
        alarms: those that are not `normal`, by id.
        scores: the newest of each asset.
    """

    info: Info
    health: Health
    cpu_s: float
    delivery: Statistics
    desk: DeskStatistics
    alarms: Mapping[str, Alarm]
    scores: Mapping[str, Score]

    def sources(self) -> Iterator[tuple[tuple[str, str], SourceHealth]]:
        """(asset, source) and how it fares; the sum of an asset's rate groups is left out."""
        several = {key.partition("/")[0] for key in self.health.sources if "/" in key}
        for key, source in self.health.sources.items():
            if key not in several:
                yield (key.partition("/")[0], key), source


@dataclass(frozen=True, slots=True)
class Metric:
    """One family of figures.

    Attributes:
        name: in full; that of a counter ends with `_total`.
        meaning: one line.
        labels: names of its labels.
        lines: its figures.
    """

    name: str
    meaning: str
    labels: tuple[str, ...]
    lines: Callable[[Facts], Iterable[Line]]

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        """Counters only grow, but for a restart."""
        return "counter" if self.name.endswith("_total") else "gauge"


def _one(name: str, meaning: str, figure: Callable[[Facts], float | None]) -> Metric:
    """Of the agent as a whole."""

    def lines(facts: Facts) -> Iterator[Line]:
        found = figure(facts)
        if found is not None:
            yield (), found

    return Metric(name, meaning, (), lines)


def _source(name: str, meaning: str, figure: Callable[[SourceHealth], float | None]) -> Metric:
    """Of each source."""

    def lines(facts: Facts) -> Iterator[Line]:
        for labels, source in facts.sources():
            found = figure(source)
            if found is not None:
                yield labels, found

    return Metric(name, meaning, ("asset", "source"), lines)


def _asset(name: str, meaning: str, figure: Callable[[AssetHealth], float | None]) -> Metric:
    """Of each asset's line."""

    def lines(facts: Facts) -> Iterator[Line]:
        for asset, line in facts.health.assets.items():
            found = figure(line)
            if found is not None:
                yield (asset,), found

    return Metric(name, meaning, ("asset",), lines)


def _recording(name: str, meaning: str, figure: Callable[[RecordingHealth], float]) -> Metric:
    """Of the recording, where there is one."""
    return _one(name, meaning, lambda facts: None if facts.health.recording is None else figure(facts.health.recording))


def _build(facts: Facts) -> Iterator[Line]:
    runtime = facts.info.runtime
    yield (facts.info.device, facts.info.agent.version, facts.info.agent.python, runtime.name if runtime else ""), 1


def _model(facts: Facts) -> Iterator[Line]:
    for asset in facts.info.assets:
        yield (asset.id, asset.model or "", asset.version or ""), 1


def _asset_states(facts: Facts) -> Iterator[Line]:
    for asset in facts.health.assets:
        for state in STATES:
            yield (asset, state), facts.health.sources[asset].state == state


def _source_states(facts: Facts) -> Iterator[Line]:
    for labels, source in facts.sources():
        for state in STATES:
            yield (*labels, state), source.state == state


def _bad(facts: Facts) -> Iterator[Line]:
    for labels, source in facts.sources():
        for reason, count in source.bad.items():
            yield (*labels, reason), count


def _alarms_on(facts: Facts) -> Iterator[Line]:
    for asset in _watched(facts):
        on = [one for one in facts.alarms.values() if one.latest.asset == asset and one.active and one.held is None]
        for severity in Severity:
            yield (asset, severity.value), sum(one.severity is severity for one in on)


def _alarms_unacked(facts: Facts) -> Iterator[Line]:
    for asset in _watched(facts):
        yield (asset,), sum(one.latest.asset == asset and one.state in WAITS for one in facts.alarms.values())


def _watched(facts: Facts) -> dict[str, None]:
    """All that may be in alarm: assets, and the device itself for its clock."""
    return dict.fromkeys((*facts.health.assets, facts.info.device))


def _ratios(facts: Facts) -> Iterator[Line]:
    for asset, score in facts.scores.items():
        if facts.health.sources[asset].state in SCORED:
            yield (asset,), score.ratio


def _inference(facts: Facts) -> Iterator[Line]:
    for asset, line in facts.health.assets.items():
        for percentile, found_ms in (("50", line.inference_ms_p50), ("99", line.inference_ms_p99)):
            if found_ms is not None:
                yield (asset, percentile), found_ms / 1e3


def _bytes(mib: float | None) -> float | None:
    return None if mib is None else mib * MIB


AGENT = (
    Metric("tocsin_build_info", "1, with what runs", ("device", "version", "python", "runtime"), _build),
    Metric("tocsin_model_info", "1, with the model in use", ("asset", "model", "version"), _model),
    Metric(
        "tocsin_status",
        "1 for what `health` says: ok, degraded or failing",
        ("status",),
        lambda facts: (((status,), facts.health.status == status) for status in STATUSES),
    ),
    _one("tocsin_uptime_seconds", "since the start of the process", lambda facts: facts.health.uptime_s),
    _one("tocsin_cpu_seconds_total", "processor time used", lambda facts: facts.cpu_s),
    _one("tocsin_memory_bytes", "resident memory", lambda facts: _bytes(facts.health.memory_mb)),
    _one("tocsin_cpu_temperature_celsius", "of the processor", lambda facts: facts.health.cpu_temp_c),
    _one("tocsin_disk_free_bytes", "on the disk of `state_dir`", lambda facts: _bytes(facts.health.disk_free_mb)),
    _one("tocsin_clock_synced", "1: the clock is kept by NTP", lambda facts: facts.health.clock_synced),
)

DELIVERY = (
    _one("tocsin_mqtt_connected", "1: a session with the broker is open", lambda facts: facts.delivery.connected),
    _one("tocsin_mqtt_connects_total", "sessions opened", lambda facts: facts.delivery.connects),
    _one("tocsin_mqtt_sent_total", "messages sent, scores too", lambda facts: facts.delivery.sent),
    _one(
        "tocsin_mqtt_acknowledged_total",
        "messages of the outbox that the broker took",
        lambda facts: facts.delivery.acknowledged,
    ),
    _one("tocsin_mqtt_refused_total", "messages that no broker would take", lambda facts: facts.delivery.refused),
    _one("tocsin_mqtt_held_topics", "topics that the broker does not take now", lambda facts: len(facts.delivery.held)),
    _one(
        "tocsin_scores_dropped_total", "scores dropped without a session", lambda facts: facts.delivery.scores_dropped
    ),
    _one("tocsin_outbox_messages", "messages that wait", lambda facts: facts.delivery.outbox_depth),
    _one("tocsin_outbox_oldest_seconds", "age of the oldest that waits", lambda facts: facts.delivery.outbox_oldest_s),
    _one(
        "tocsin_outbox_dropped_total",
        "messages dropped for want of room, since the outbox file was made",
        lambda facts: facts.delivery.dropped,
    ),
)

ALARMS = (
    Metric(
        "tocsin_alarms_on",
        "conditions that are on, and not shelved, suppressed or out of service",
        ("asset", "severity"),
        _alarms_on,
    ),
    Metric("tocsin_alarms_unacked", "alarms that wait for an acknowledgement", ("asset",), _alarms_unacked),
    _one("tocsin_alarms_raised_total", "conditions that began", lambda facts: facts.desk.raised),
    _one("tocsin_alarms_cleared_total", "conditions that ended", lambda facts: facts.desk.cleared),
    _one("tocsin_alarms_failed_total", "changes that could not be applied", lambda facts: facts.desk.failed),
    _one("tocsin_alarms_waiting_for_disk", "1: the disk takes no alarms", lambda facts: facts.desk.waiting_for_disk),
)

ASSETS = (
    Metric("tocsin_asset_state", "1 for the state of its sources together", ("asset", "state"), _asset_states),
    Metric(
        "tocsin_asset_errors_total",
        "failures of line and sources, and what could not be read",
        ("asset",),
        lambda facts: (((asset,), facts.health.sources[asset].errors_total) for asset in facts.health.assets),
    ),
    Metric("tocsin_score_ratio", "newest score / limit: 1 is the limit; none while nothing comes", ("asset",), _ratios),
    _asset("tocsin_windows_total", "windows scored", lambda line: line.windows_total),
    Metric("tocsin_inference_seconds", "time to score a window, of the last 256", ("asset", "percentile"), _inference),
    _asset("tocsin_windows_not_finite_total", "windows without a finite score", lambda line: line.not_finite_total),
    _asset(
        "tocsin_windows_unknown_mode_total",
        "windows of an operating mode that the model does not know",
        lambda line: line.unknown_mode_total,
    ),
    _asset(
        "tocsin_windows_held_back_total",
        "windows over the limit that rest on doubted channels",
        lambda line: line.held_back_total,
    ),
    _asset("tocsin_gaps_total", "stretches without samples, longer than are held", lambda line: line.gaps_total),
    _asset("tocsin_rows_late_total", "samples too late for the row of their time", lambda line: line.late_total),
    _asset(
        "tocsin_rows_left_out_total",
        "rows left out as a rate group had nothing young enough",
        lambda line: line.left_out_total,
    ),
    _asset(
        "tocsin_rows_dropped_total",
        "rows of rate groups dropped while the group that sets the grid was silent",
        lambda line: line.dropped_total,
    ),
    _asset("tocsin_bad_channels", "channels whose sensor or line is in alarm", lambda line: len(line.bad_channels)),
    _asset(
        "tocsin_model_alarms_total",
        "alarms of the model, counted over restarts until bundle or alarm settings change",
        lambda line: line.false_alarms.episodes if line.false_alarms else None,
    ),
    _asset(
        "tocsin_model_quiet_seconds_total",
        "running with no alarm of the model on, counted likewise",
        lambda line: 3600 * line.false_alarms.hours if line.false_alarms else None,
    ),
    _asset(
        "tocsin_model_promise_broken",
        "1: more alarms than the bundle promises; none without a promise",
        lambda line: line.false_alarms.broken if line.false_alarms else None,
    ),
)

SOURCES = (
    Metric("tocsin_source_state", "1 for its state", ("asset", "source", "state"), _source_states),
    _source("tocsin_source_samples_total", "samples read", lambda source: source.samples_total),
    _source("tocsin_source_last_sample_age_seconds", "since the last sample", lambda source: source.last_sample_age_s),
    _source("tocsin_source_rate_hertz", "samples a second over the last minute", lambda source: source.rate_hz),
    _source("tocsin_source_stated_rate_hertz", "by settings or bundle", lambda source: source.stated_rate_hz),
    Metric("tocsin_source_bad_total", "what could not be read, by reason", ("asset", "source", "reason"), _bad),
    _source("tocsin_source_lost_total", "samples missing by their numbers", lambda source: source.lost_total),
    _source("tocsin_source_late_total", "polls left out for want of time", lambda source: source.late_total),
    _source("tocsin_source_reconnects_total", "times it was opened again", lambda source: source.reconnects_total),
    _source("tocsin_source_clock_steps_total", "times its clock was set", lambda source: source.clock_steps_total),
)

RECORDING = (
    _recording("tocsin_recording_failing", "1: samples cannot be written", lambda one: one.last_error is not None),
    _recording("tocsin_recording_rows_total", "samples written", lambda one: one.rows_total),
    _recording("tocsin_recording_dropped_total", "samples that could not be written", lambda one: one.dropped_total),
    _recording("tocsin_recording_ring_bytes", "size of the ring", lambda one: one.ring_mb * MIB),
    _recording("tocsin_recording_evicted_total", "segments that left the ring", lambda one: one.evicted_total),
    _recording("tocsin_recording_snapshots", "snapshots around alarms", lambda one: one.snapshots),
    _recording("tocsin_recording_snapshots_bytes", "their size", lambda one: one.snapshots_mb * MIB),
)

GROUPS = {
    "The agent": AGENT,
    "Delivery": DELIVERY,
    "Alarms": ALARMS,
    "Each asset": ASSETS,
    "Each source": SOURCES,
    "Recording, where it is on": RECORDING,
}
METRICS = tuple(metric for group in GROUPS.values() for metric in group)
