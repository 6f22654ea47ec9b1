"""One asset's thread: reads its source, feeds its line, hands on what comes out.

Rules: nothing that happens here reaches another asset. A lost source is opened again after a wait that grows, with
jitter; any other failure also builds the line anew. A bundle scores nothing before it has reproduced its golden vectors
here. What went wrong is counted and told in `health`.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np

from tocsin.alarm_count import AlarmCount
from tocsin.alarms.alarm import Severity
from tocsin.alarms.detector import AlarmRule
from tocsin.alarms.escalation import Escalation
from tocsin.alarms.hold_off import HoldOff
from tocsin.alarms.stale import Staleness
from tocsin.beside import Beside
from tocsin.config import AssetSettings
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.delivery.outbox import Outbox
from tocsin.delivery.wire import AssetHealth, Score, SourceHealth, number, rfc3339
from tocsin.errors import BundleError, SourceError, TocsinError
from tocsin.feeds import Feed, Feeds
from tocsin.pipeline import AssetLine, Scored
from tocsin.records import Change, Channel, SampleBlock, Transition
from tocsin.sources import MeteredSource, SourceSettings, make_source
from tocsin.sources.reader import Start
from tocsin.update.trial import Fared, Offer, Verdict

log = logging.getLogger(__name__)

READ_TIMEOUT_S = 0.5
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 30.0
LONGEST_SOURCE_DELAY_S = 4.0  # a sensor that is plugged in again is read within five seconds
ANSWERS_S = 15.0  # longest between two signs of life, but for waits that it announces: longer is a hang
OPENS_S = 30.0  # longest that a source may take to open
CALM_S = 60.0  # after so long without a failure the next wait is short again
SILENT_HOPS, SILENT_S = 10, 10.0  # without a sample for the longer of the two, a source is silent


class AssetWorker:
    """Runs one asset until stopped, or until its recording ends.

    Args:
        settings: of the asset.
        bundle: its model, when that could be loaded at the start; else it is tried again here.
        loaded: called with asset and model when it was loaded here.
        report: called with each transition; must not block.
        is_active: tells whether a condition is active (at a restart, or after a failure).
        publish_score: called with asset and payload for each window.
        record: called with the stream's name, channels and samples, before they are scored; must not block.
        outbox: holds the count of alarms over restarts.
        seed: of the jitter.

    Attributes:
        failing: it could not read, score or load its bundle, and no sample came since.
        broken_off: its recording ended in damage.
        finished: nothing will come any more.
    """

    def __init__(
        self,
        settings: AssetSettings,
        bundle: Bundle | None,
        loaded: Callable[[str, Bundle], None],
        report: Callable[[Transition], None],
        is_active: Callable[[str], bool],
        publish_score: Callable[[str, Score], None],
        outbox: Outbox,
        record: Callable[[str, tuple[Channel, ...], SampleBlock], None] = lambda *_: None,
        seed: int | None = None,
    ) -> None:
        self.asset = settings.id
        self._settings, self._bundle, self._desk = settings, bundle, report
        self._hold_off = HoldOff(settings.alarm.hold_off)
        self._escalation = Escalation(settings.alarm.escalation(), Severity(settings.severity))
        self._loaded, self._is_active, self._publish_score = loaded, is_active, publish_score
        self._outbox, self._record = outbox, record
        self._count: AlarmCount | None = None
        self._proved = False
        self._jitter = random.Random(seed)  # noqa: S311 - jitter
        self._source: MeteredSource | None = None
        self._begun: Start | None = None
        self._feeds: Feeds | None = None
        self._line: AssetLine | None = None
        self._channels: tuple[Channel, ...] | None = None
        self._beside: Beside | None = None
        self._sensitivity = 1.0
        self._broke = ("", "")  # digest of the model whose line failed last, and how
        self._wanted: Bundle | None = None  # that is to decide, as soon as it has a window
        self._offered: Bundle | None = None  # that is to be tried beside
        self._due_s = float("inf")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"asset-{settings.id}", daemon=True)
        self._samples = self._windows = self._errors = self._not_finite = self._unknown_mode = self._gaps = 0
        self._held_back = self._late = self._left_out = self._dropped = 0
        self._stale: tuple[Staleness, ...] = ()
        self._silent = 0  # sources that are
        self._begin_s = time.monotonic()
        self._last_sample_s: float | None = None
        self._last_error: str | None = None
        self._inference_ms: deque[float] = deque(maxlen=256)
        self.failing, self.broken_off = bundle is None, False
        self.finished = threading.Event()

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Lets the thread end; at once, from any thread."""
        self._stopping.set()
        if self._feeds is not None:
            self._feeds.ask_to_stop()

    def stop(self) -> None:
        """Closes the source and ends the thread."""
        self.ask_to_stop()
        if self._thread.is_alive():
            self._thread.join(10 * READ_TIMEOUT_S)

    def _show(self, within_s: float = 0.0) -> None:
        """It lives, and shows again soon, or within that time where it is longer."""
        self._due_s = time.monotonic() + max(ANSWERS_S, within_s)

    @property
    def answers(self) -> bool:
        """Its thread showed within the time that it said, or has ended as it should; from any thread."""
        return self.alive and (not self._thread.is_alive() or time.monotonic() < self._due_s)

    @property
    def alive(self) -> bool:
        """Its thread runs, or has nothing left to do; from any thread."""
        return self._thread.is_alive() or self.finished.is_set() or self.refused is not None

    def _starts(self) -> list[Start]:
        """How each source fared at its start."""
        if self._feeds is not None:
            return [feed.begun for feed in self._feeds.each]
        return [] if self._begun is None else [self._begun]

    @property
    def refused(self) -> TocsinError | None:
        """Why it cannot run as it is configured: a source has to be there and is not, or does not suit the bundle."""
        return next((start.refused for start in self._starts() if start.refused is not None), None)

    @property
    def fatal(self) -> bool:
        """The agent has to end for that, whatever else runs."""
        return any(start.fatal for start in self._starts())

    def health_by_group(self) -> dict[str, SourceHealth]:
        """How each source fares, where there are several; from any thread."""
        feeds = self._feeds
        return {feed.group.name: _fares(feed) for feed in feeds.each} if feeds else {}

    def health(self) -> tuple[SourceHealth, AssetHealth]:
        """How it fares; from any thread."""
        times = sorted(self._inference_ms.copy())
        age = None if self._last_sample_s is None else round(time.monotonic() - self._last_sample_s, 3)
        source, line, count, feeds = self._source, self._line, self._count, self._feeds
        return (
            SourceHealth(
                state=self._state(),
                samples_total=self._samples,
                last_sample_age_s=age,
                errors_total=self._errors
                + (source.counts.bad if source else 0)
                + sum(feed.errors + feed.source.counts.bad for feed in (feeds.each if feeds else ())),
                last_error=self._last_error or next(iter(_errors(feeds)), None),
                **(_meters(source) if source else {}),
            ),
            AssetHealth(
                windows_total=self._windows,
                inference_ms_p50=round(float(np.percentile(times, 50)), 4) if times else None,
                inference_ms_p99=round(float(np.percentile(times, 99)), 4) if times else None,
                not_finite_total=self._not_finite + (line.not_finite if line else 0),
                unknown_mode_total=self._unknown_mode + (line.unknown_mode if line else 0),
                gaps_total=self._gaps + (line.joiner.gaps if line else 0),
                held_back_total=self._held_back + (line.watch.held_back if line else 0),
                bad_channels=list(line.watch.bad_channels()) if line else [],
                late_total=self._late + (int(line.joiner.late.sum()) if line else 0),
                left_out_total=self._left_out + (line.joiner.left_out if line else 0),
                dropped_total=self._dropped + (int(line.joiner.dropped.sum()) if line else 0),
                false_alarms=count.report() if count else None,
            ),
        )

    def _state(self) -> Literal["ok", "off_rate", "silent", "failing", "ended"]:
        if self.failing or self.refused is not None:
            return "failing"
        if self.finished.is_set():
            return "ended"
        since_s = self._begin_s if self._last_sample_s is None else self._last_sample_s
        if time.monotonic() - since_s > self._patience_s:
            return "silent"
        states = [feed.state for feed in (self._feeds.each if self._feeds else ())]
        if {"failing", "silent", "ended"} & set(states):
            return "silent"  # of one group; the asset is not scored meanwhile
        return "off_rate" if self._source is not None and self._source.off_rate else "ok"

    @property
    def _patience_s(self) -> float:
        if self._bundle is None:
            return SILENT_S
        manifest = self._bundle.manifest
        return max(SILENT_S, SILENT_HOPS * manifest.hop / manifest.sample_rate_hz)

    def _run(self) -> None:
        try:
            self._serve_again_and_again()
        finally:
            if not self._stopping.is_set():  # a condition that ended before a restart ends again after it
                for told in self._hold_off.finish():
                    self._desk(told)
            if self._feeds is not None:
                self._feeds.stop()
            if self._count is not None:
                self._count.keep()
            self.finished.set()

    def _serve_again_and_again(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopping.is_set():
            begin, longest_s = time.monotonic(), LONGEST_DELAY_S
            self._show(OPENS_S)
            try:
                self._serve()
                break
            except TocsinError as error:
                self._note(str(error))
                if self._source is not None and self._source.ended:
                    self.broken_off = True
                    break
                if self._begun is not None and self._begun.gives_up(error):
                    break
                if isinstance(error, SourceError):
                    longest_s = LONGEST_SOURCE_DELAY_S
            except Exception as error:  # the supervisor's: another asset must not notice
                log.exception("%s: its line failed and is built anew", self.asset)
                self._broke = (self._bundle.digest if self._bundle else "", f"{type(error).__name__}: {error}")
                self._forget_line()
                self._note(f"{type(error).__name__}: {error}")
            if time.monotonic() - begin > CALM_S:
                delay_s = FIRST_DELAY_S
            self._show(delay_s + OPENS_S)
            self._close()
            self._stopping.wait(delay_s * self._jitter.uniform(0.5, 1.0))
            self._wait()
            delay_s = min(2 * delay_s, longest_s)
        self._close()

    def _note(self, what: str) -> None:
        """Logs a failure once, counts it always."""
        if what != self._last_error:
            log.error("%s: %s", self.asset, what)
        self._errors += 1
        self._last_error, self.failing = what, True

    def _close(self) -> None:
        try:
            if self._source is not None:
                self._source.close()
        except Exception:  # a driver's; the thread goes on
            log.exception("%s: its source cannot be closed", self.asset)

    def _forget_line(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._not_finite += line.not_finite
            self._unknown_mode += line.unknown_mode
            self._gaps += line.joiner.gaps
            self._late += int(line.joiner.late.sum())
            self._left_out += line.joiner.left_out
            self._dropped += int(line.joiner.dropped.sum())
            self._held_back += line.watch.held_back

    def _proved_bundle(self) -> Bundle:
        """The bundle, once it has reproduced its golden vectors on this machine; else it is read anew next time."""
        bundle = self._bundle or load_bundle(self._settings.bundle)
        if self._proved:
            return bundle
        known, self._bundle = self._bundle is not None, None
        test = bundle.self_test()
        if not test.passed:
            raise BundleError(
                f"{bundle.path}: does not give its golden scores on this machine with {test.runtime}: worst difference "
                f"{test.worst:.3g}, allowed {test.tolerance:.3g}, {test.flipped} decisions changed: "
                "see tocsin model verify, train or copy it again"
            )
        self._bundle, self._proved = bundle, True
        if not known:
            self._loaded(self.asset, bundle)
        return bundle

    def _serve(self) -> None:
        """Reads until told to stop, the recording ends, or something fails."""
        bundle = self._proved_bundle()
        groups = bundle.manifest.groups.groups
        settings = self._settings.by_group(tuple(group.name for group in groups))
        if len(groups) > 1:
            self._serve_groups(bundle, settings)
            return
        given = settings[groups[0].name]
        if self._source is None:
            self._source = make_source(given, groups[0].channels, groups[0].sample_rate_hz)
            self._begun = Start(self.asset, self._source, given.startup)
        self._watch_sources(bundle, given.type != "replay")
        source = self._source
        source.open()
        self._channels = source.channels
        self._line = self._line or self._new_line(bundle, source.channels)
        while not self._stopping.is_set():
            self._show()
            block = source.read(READ_TIMEOUT_S)
            if len(block):
                self._record(self.asset, source.channels, block)
                self._take(block, self._line)
                self._mind_models()
            else:
                self._wait()
            if source.ended:
                log.info("%s: the recording has ended", self.asset)
                return

    def _report(self, transition: Transition) -> None:
        """Tells the desk, once an end has lasted."""
        for told in self._hold_off.take(transition):
            self._desk(told)

    def _pass_time(self, time_s: float) -> None:
        for told in self._hold_off.advance(time_s):
            self._desk(told)

    def _active(self) -> frozenset[str]:
        """Conditions of the asset that are on, from before a restart or a failure."""
        return frozenset(alarm for alarm in self._settings.alarm_ids() if self._is_active(alarm))

    def _watch_sources(self, bundle: Bundle, live: bool) -> None:
        """Looks out for silence of each source."""
        if not self._stale and self._settings.quality.enabled:
            patience_s, active = self._settings.quality.stale_after, self._active()
            self._stale = tuple(
                Staleness(self.asset, group.sample_rate_hz, live, active, patience_s)
                for group in bundle.manifest.groups.groups
            )
            self._silent = sum(stale.active for stale in self._stale)

    def _wait(self) -> None:
        """Nothing came, or not from every source."""
        for stale in self._stale:
            self._hear(stale.wait(time.monotonic(), time.time()))

    def _hear(self, transitions: tuple[Transition, ...]) -> None:
        """One condition for all sources of the asset: on while any of them is silent."""
        for transition in transitions:
            raised = transition.change is Change.RAISED
            self._silent += 1 if raised else -1
            if self._silent == (1 if raised else 0):
                self._report(transition)

    def _serve_groups(self, bundle: Bundle, settings: dict[str, SourceSettings]) -> None:
        """As `_serve`, from the threads that read the groups' sources."""
        feeds = self._feeds or Feeds(self.asset, bundle.manifest.groups.groups, settings)
        self._feeds = feeds
        self._watch_sources(bundle, feeds.live)
        self._line = self._line or self._new_line(bundle, None, feeds.live)
        over: frozenset[int] = frozenset()
        while not self._stopping.is_set():
            self._show()
            got = feeds.read(READ_TIMEOUT_S)
            self._wait()
            if got is not None:
                group = feeds.each[got[0]].group
                self._record(f"{self.asset}.{group.name}", group.channels, got[1])
                self._take(got[1], self._line, got[0])
                self._mind_models()
            elif all(feed.failing for feed in feeds.each):
                self.failing = True
            before, over, line = over, feeds.ended, self._line
            for n in sorted(over - before):
                self._tell_all(line.end(n), line, 0.0)
            if len(over) == len(feeds.each):
                self._tell_all(line.finish(), line, 0.0)
                self.broken_off = any(feed.broken_off for feed in feeds.each)
                return

    def _new_line(self, bundle: Bundle, channels: tuple[Channel, ...] | None, live: bool = False) -> AssetLine:
        self._line = self._made_line(bundle, channels, live)
        self._count = self._count or AlarmCount(self.asset, bundle, self._rule(bundle), self._outbox)
        return self._line

    def _rule(self, bundle: Bundle) -> AlarmRule:
        return self._settings.alarm.rule(AlarmRule.from_json(bundle.manifest.alarm))

    def _made_line(self, bundle: Bundle, channels: tuple[Channel, ...] | None, live: bool) -> AssetLine:
        prior = self._settings.prior()
        line = AssetLine(self.asset, bundle, channels, self._rule(bundle), self._active(), live, prior)
        line.sensitivity = self._sensitivity
        return line

    def be_sensitive(self, sensitivity: float) -> None:
        """From the next window on: above 1 the limit is lower by that factor, below 1 higher; from any thread."""
        self._sensitivity = sensitivity
        beside = self._beside
        for line in (self._line, beside.line if beside else None):
            if line is not None:
                line.sensitivity = sensitivity

    def want(self, bundle: Bundle) -> None:
        """A model that is to decide from now on, once it has seen enough; from any thread."""
        self._wanted = bundle

    def try_beside(self, bundle: Bundle | None) -> None:
        """A model that is to be tried beside the one that decides, or none; from any thread."""
        self._offered = bundle

    def bundles(self) -> tuple[Bundle, ...]:
        """Those in use; from any thread."""
        beside = self._beside
        return tuple(one for one in (self._bundle, beside.bundle if beside else None) if one is not None)

    def verdict(self, offer: Offer, failed: str | None, time_s: float) -> Verdict | None:
        """How an offered model fares beside the other; from any thread.

        Args:
            offer: which, and in what stage.
            failed: why it could not be loaded.
            time_s: epoch seconds.
        """
        beside, deciding = self._beside, self._bundle
        new, old, hop_s, agreement = Fared(), Fared(), 1.0, None
        if deciding is not None:
            hop_s = deciding.manifest.hop / deciding.manifest.sample_rate_hz
            if self._broke[0] == offer.sha256:
                failed = failed or self._broke[1]
        if beside is not None and deciding is not None:
            own, other = beside.own.fared(), beside.other.fared()
            of_shadow = offer.stage == "shadow" and beside.bundle.digest == offer.sha256
            of_trial = offer.stage == "trial" and deciding.digest == offer.sha256
            if of_shadow or of_trial:
                new, old, agreement = (own, other, beside.agreement) if of_shadow else (other, own, beside.agreement)
            failed = failed or (beside.failed if of_shadow else None)
        return Verdict(job=offer.job, sha256=offer.sha256, stage=offer.stage, time_s=time_s, hop_s=hop_s, new=new,
                       old=old, agreement=agreement, failed=failed)  # fmt: skip

    def _mind_models(self) -> None:
        """Between two blocks: who decides, and who is tried beside."""
        wanted, offered, deciding = self._wanted, self._offered, self._bundle
        if deciding is None or self._line is None:
            return
        if wanted is not None and wanted.digest == deciding.digest:
            wanted = self._wanted = None
        other = wanted or (offered if offered is not None and offered.digest != deciding.digest else None)
        if other is None:
            self._beside = None
        elif self._beside is None or self._beside.bundle.digest != other.digest:
            self._begin_beside(other)
        elif wanted is not None and self._beside.own.windows:
            self._change_places(deciding, self._line, self._beside)

    def _begin_beside(self, bundle: Bundle) -> None:
        live = self._feeds.live if self._feeds is not None else False
        try:
            self._beside = Beside(bundle, self._made_line(bundle, self._channels, live))
        except TocsinError as error:
            self._beside = Beside(bundle, self._line)  # type: ignore[arg-type]
            self._beside.failed = str(error)
            log.error("%s: model %s cannot be used here: %s", self.asset, bundle.manifest.version, error)

    def _change_places(self, before: Bundle, line: AssetLine, beside: Beside) -> None:
        beside.line.go_on_from(line)
        self._forget_line()
        self._line, self._bundle, self._wanted = beside.line, beside.bundle, None
        if self._count is not None:
            self._count.keep()
        self._count = AlarmCount(self.asset, beside.bundle, self._rule(beside.bundle), self._outbox)
        self._beside = Beside(before, line)
        was, now = before.manifest.version, beside.bundle.manifest.version
        log.info("%s: model %s decides from here on, %s is beside it", self.asset, now, was)
        self._loaded(self.asset, beside.bundle)

    def _take(self, block: SampleBlock, line: AssetLine, group: int = 0) -> None:
        if self.failing:
            log.info("%s: samples flow", self.asset)
            self.failing, self._last_error = False, None
        self._samples += len(block)
        self._last_sample_s = time.monotonic()
        if self._stale:
            self._hear(self._stale[group].take(block))
        begin = time.perf_counter()
        parts = line.feed(block, group)
        taken_ms = (time.perf_counter() - begin) * 1e3
        windows = sum(len(part.windows) for part in parts)
        if windows:
            self._inference_ms.append(taken_ms / windows)
        if self._beside is not None:
            self._beside.feed(block, group, line, parts, taken_ms / 1e3)
        self._tell_all(parts, line, taken_ms / max(1, windows))
        if len(block) and (self._feeds is None or self._feeds.live):  # recordings of groups run apart until joined
            self._pass_time(float(block.time_s[-1]))

    def _tell_all(self, parts: list[Scored], line: AssetLine, inference_ms: float) -> None:
        assert self._count is not None
        for transition in line.watch.told():
            self._report(transition)
        for part in parts:
            self._count.take(part)
            ratio = np.where(part.held, np.nan, part.scores.ratio)
            for transition in self._escalation.take(
                part.windows.end_s, ratio, part.transitions, self.asset, line.alarm
            ):
                self._report(transition)
            if len(part.windows):
                self._pass_time(float(part.windows.end_s[-1]))
            self._tell(part, inference_ms)

    def _tell(self, part: Scored, inference_ms: float) -> None:
        scores = part.scores
        assert self._line is not None
        limits = self._line.limits(scores)
        columns = (part.windows.end_s, scores.value, limits, scores.ratio, part.anomaly, part.held)
        for end_s, value, threshold, ratio, on, held in zip(*(column.tolist() for column in columns), strict=True):
            self._windows += 1
            score, relative = number(value), number(ratio)
            if score is None or relative is None:
                continue  # counted by the line as not finite
            self._publish_score(
                self.asset,
                Score(
                    time=rfc3339(end_s),
                    score=score,
                    threshold=threshold,
                    ratio=relative,
                    anomaly=1 if on else 0,
                    quality=0 if held else 192,
                    inference_ms=round(inference_ms, 4),
                    seq=self._windows,
                ),
            )


def _fares(feed: Feed) -> SourceHealth:
    """One group's source."""
    since_s = feed.last_sample_s
    return SourceHealth(
        state=feed.state,
        samples_total=feed.source.samples,
        last_sample_age_s=None if since_s is None else round(time.monotonic() - since_s, 3),
        errors_total=feed.errors + feed.source.counts.bad,
        last_error=feed.last_error,
        **_meters(feed.source),
    )


def _errors(feeds: Feeds | None) -> Iterator[str]:
    """What ails the groups' sources."""
    for feed in feeds.each if feeds else ():
        if feed.last_error is not None:
            yield f"group {feed.group.name}: {feed.last_error}"


def _meters(source: MeteredSource) -> dict[str, Any]:
    """What a source's meters say, as keys of `SourceHealth`."""
    counts = source.counts
    return {
        "rate_hz": None if source.rate_hz is None else round(source.rate_hz, 3),
        "stated_rate_hz": source.stated_hz,
        "bad_total": counts.bad,
        "bad": dict(counts.reasons),
        "lost_total": counts.lost,
        "late_total": counts.late,
        "reconnects_total": source.reconnects,
        "clock_steps_total": counts.clock_steps,
    }
