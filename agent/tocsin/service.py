"""The agent: which threads there are, and in what order they start and stop.

```
start   outbox ─► recording ─► alarm desk ─► publishers ─► one worker an asset ─► models, HTTP   (back to front)
stop    HTTP, models ─► workers ─► alarm desk ─► recording ─► publishers ─► outbox               (front to back)
```
"""

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from tocsin import system
from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms import device_clock
from tocsin.alarms.alarm import AlarmContext, Severity
from tocsin.alarms.commands import Answer, Command
from tocsin.alarms.device_clock import DeviceClock
from tocsin.alarms.quality import condition
from tocsin.chatter import RUNTIME, without_chatter
from tocsin.config import DETECTION_OFF, AgentSettings, AssetSettings
from tocsin.config_check import check_asset, warnings
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.delivery.clock import time_quality
from tocsin.delivery.data import DataStream, meta_of
from tocsin.delivery.outbox import Outbox
from tocsin.delivery.publisher import Publisher, Statistics
from tocsin.delivery.requests import Requests
from tocsin.delivery.sparkplug import Sparkplug
from tocsin.delivery.wire import EVERY_DEVICE, AssetInfo, Data, Health, Info, Score, data_topic, number, rfc3339
from tocsin.errors import BundleError, DataError, TocsinError
from tocsin.live_settings import LiveSettings
from tocsin.model_watch import ModelWatch, current_bundle
from tocsin.monitoring.answers import routes
from tocsin.monitoring.metrics import Facts
from tocsin.monitoring.server import Server
from tocsin.notify import Watchdog, notify
from tocsin.recording import Recording
from tocsin.records import Change, Channel, SampleBlock, Transition
from tocsin.update.slots import Slots
from tocsin.worker import AssetWorker

log = logging.getLogger(__name__)

LOOK_S = 0.2


class Agent:
    """All of the agent, for one set of settings.

    Args:
        settings: checked.

    Raises:
        BundleError: not one asset's bundle can be used.
        ConfigError: an asset's settings do not go with its bundle; a certificate, password file or extra is missing.
        TocsinError: the state folder cannot be used, or another agent uses it.
    """

    def __init__(self, settings: AgentSettings) -> None:
        models = settings.state_dir / "models"
        slots = {one.id: Slots(models / one.id, one.bundle) for one in settings.assets if one.product}
        settings = self._settings = _with_current(settings, slots)
        self._begin_s = time.monotonic()
        self._cpu = system.CpuShare()
        bundles = self._bundles = _load_bundles(settings.assets)
        self._learning, self._looking = threading.Lock(), threading.Lock()
        self._claim = _claim(settings.state_dir)
        self._outbox = _open_outbox(settings)
        self.recording = Recording(settings.recording, settings.state_dir)
        try:
            info = self._info = _info(settings, bundles)
            self._scores: dict[str, Score] = {}  # the newest of each asset
            requests = Requests(settings.device, settings.mqtt.commands, settings.mqtt.commands_per_min, self._order)
            allowed = settings.mqtt.settings
            self._live = LiveSettings(allowed, self._outbox, self._detect, self._be_sensitive)
            self.publisher = Publisher(
                settings.mqtt,
                settings.device,
                self._outbox,
                info,
                self._health,
                requests,
                self._live.take if allowed else None,
            )
            self._contexts = {
                asset.id: _context(asset, bundles[asset.id], settings.language) for asset in settings.assets
            }
            of_clock = AlarmContext(detector="quality", severity=Severity.WARNING, language=settings.language)
            self._contexts.setdefault(settings.device, of_clock)
            self._of_alarms: dict[str, AlarmContext] = {device_clock.ALARM: of_clock}
            for asset in settings.assets:
                self._of_alarms |= _contexts_of_alarms(asset, bundles[asset.id], settings.language)
            self.desk = AlarmDesk(
                self._outbox,
                settings.device,
                self._contexts,
                self._alarms_changed,
                snapshot=self._snapshot,
                of_alarms=self._of_alarms,
                plan=settings.plan(),
            )
            self._clock = DeviceClock(settings.device, self._is_active(device_clock.ALARM))
            self.sparkplug = self._sparkplug(info)
            self._server = None if settings.http is None else Server(settings.http, routes(self._facts, self._threads))
        except Exception:
            self.recording.stop()
            self._outbox.close()
            raise
        self.workers = [
            AssetWorker(
                asset,
                bundles[asset.id],
                self._learn,
                self._report,
                self._is_active,
                self._publish_score,
                self._outbox,
                self._sampled,
            )
            for asset in settings.assets
        ]

        every_s = settings.mqtt.data_interval
        say = partial(_say_data, self.publisher)
        self._data = None if every_s is None else DataStream(every_s, say)
        by_asset = {worker.asset: worker for worker in self.workers}
        watched = {asset: (by_asset[asset], own) for asset, own in slots.items()}
        self._models = ModelWatch(watched, self._tell_of_models) if watched else None

    def _detect(self, on: bool) -> None:
        """The models may raise alarms, or theirs are suppressed."""
        change, now_s = Change.CLEARED if on else Change.RAISED, time.time()
        device = self._settings.device
        self.desk.queue.put(Transition(device, DETECTION_OFF, change, now_s, "mode", None, None, None, now_s, now_s, 0))

    def _be_sensitive(self, sensitivity: float) -> None:
        for worker in self.workers:
            worker.be_sensitive(sensitivity)

    def _sampled(self, stream: str, channels: tuple[Channel, ...], block: SampleBlock) -> None:
        self.recording.put(stream, channels, block)
        if self._data is not None:
            self._data.take(stream, channels, block)

    def _say_meta(self, asset: str, bundle: Bundle) -> None:
        """What its samples on `data` are."""
        if self._data is not None:
            self._outbox.put(f"{data_topic(asset)}/meta", meta_of(bundle.manifest).encode(), retain=True)

    def _tell_of_models(self, topic: str, payload: bytes) -> None:
        self._outbox.put(topic, payload, retain=True)
        self.publisher.wake()

    def _sparkplug(self, info: Info) -> Sparkplug | None:
        settings = self._settings
        if settings.sparkplug is None:
            return None
        cpu = system.CpuShare()  # of its own looks
        return Sparkplug(
            settings.sparkplug,
            settings.mqtt,
            settings.device,
            settings.state_dir,
            info,
            tuple(asset.id for asset in settings.assets),
            settings.plan().conditions,
            self.desk.standing_alarms(),
            lambda: self._health(cpu),
        )

    def _alarms_changed(self) -> None:
        self.publisher.wake()
        if self.sparkplug is not None:
            self.sparkplug.tell_alarms(self.desk.standing_alarms())

    def _publish_score(self, asset: str, score: Score) -> None:
        self._scores[asset] = score
        self.publisher.publish_score(asset, score)
        if self.sparkplug is not None:
            self.sparkplug.publish_score(asset, score)

    def _learn(self, name: str, bundle: Bundle) -> None:
        """A bundle that could not be used at the start can be: alarms and `info` name it from now on."""
        with self._learning:
            self._bundles[name] = bundle
            asset = next(asset for asset in self._settings.assets if asset.id == name)
            self._contexts[name] = _context(asset, bundle, self._settings.language)
            self._of_alarms |= _contexts_of_alarms(asset, bundle, self._settings.language)
            self._say_meta(name, bundle)
            info = self._info = _info(self._settings, self._bundles)
            self.publisher.announce(info)
            if self.sparkplug is not None:
                self.sparkplug.announce(info)

    def _order(self, command: Command, reply: Callable[[Answer], object]) -> None:
        self.desk.order(command, reply)

    def _is_active(self, alarm: str) -> bool:
        return alarm in self.desk.active_alarms()

    def look(self) -> None:
        """Looks at the device's clock; often, from any thread."""
        with self._looking:
            for transition in self._clock.look(time.time(), time.monotonic()):
                self.desk.queue.put(transition)

    def _report(self, transition: Transition) -> None:
        """What a worker tells goes to the desk, but for a clock that is the device's, which tells that itself."""
        if transition.cause == "clock" and transition.change is Change.RAISED:
            self.look()
            if self._clock.explains(time.monotonic()):
                return
        self.desk.queue.put(transition)

    def _snapshot(self, asset: str, time_s: float) -> str | None:
        """Of what is recorded around an alarm; the device itself has no samples."""
        watched = any(asset == each.id for each in self._settings.assets)
        return self.recording.snapshot(asset, time_s) if watched else None

    def start(self) -> None:
        """Starts every thread and returns."""
        for line in self._begins():
            log.info("%s", line)
        self.recording.start()
        for asset, bundle in self._bundles.items():
            if bundle is not None:
                self._say_meta(asset, bundle)
        self.desk.start()
        self._live.start()
        self.publisher.start()
        if self.sparkplug is not None:
            self.sparkplug.start()
        for worker in self.workers:
            worker.start()
        if self._models is not None:
            self._models.start()
        if self._server is not None:
            self._server.start()

    def _begins(self) -> Iterator[str]:
        """What the log says at the start."""
        mqtt = self._settings.mqtt
        for asset, bundle in self._bundles.items():
            if bundle is not None:
                of, channels = bundle.manifest, len(bundle.manifest.channels)
                rates = " and ".join(f"{group.sample_rate_hz:.4g}" for group in of.groups.groups)
                yield (
                    f"{asset}: watching {channels} channel{'s' * (channels != 1)} at {rates} Hz, model {of.name} "
                    f"{of.version}, limit {of.threshold.value:.4g}; alarms to {mqtt.host}:{mqtt.port_used}"
                )
        on = sorted(self.desk.active_alarms())
        if on:
            yield f"still on from before: {', '.join(on)}"

    def stop(self) -> None:
        """Closes sources, applies and sends what can be sent, keeps the rest on disk."""
        if self._server is not None:
            self._server.stop()
        if self._models is not None:
            self._models.stop()
        for worker in self.workers:
            worker.ask_to_stop()
        for worker in self.workers:
            worker.stop()
        self.desk.stop()
        self.recording.stop()
        self.publisher.stop()
        if self.sparkplug is not None:
            self.sparkplug.stop()
        self._outbox.close()
        self._claim.close()

    def played_out(self) -> bool:
        """Every recording has ended and all is delivered, but for topics that the broker does not take."""
        if not all(w.finished.is_set() or w.refused is not None for w in self.workers) or not self.desk.queue.empty():
            return False
        found: Statistics = self.publisher.statistics
        return found.connected and found.settled and not self.desk.statistics.waiting_for_disk

    @property
    def broken_off(self) -> bool:
        """A recording ended in damage."""
        return any(worker.broken_off for worker in self.workers)

    @property
    def refused(self) -> TocsinError | None:
        """Why it cannot go on as it is configured: of every asset, or of one whose `startup` is `error`."""
        if not all(worker.refused is not None for worker in self.workers):
            return next((worker.refused for worker in self.workers if worker.fatal), None)
        return self.workers[0].refused

    def _threads(self) -> dict[str, bool]:
        """Whether each thread lives that alarms need, by its name; waits for nothing."""
        own = {"alarm-desk": self.desk.alive, "publisher": self.publisher.alive}
        return own | {f"asset-{worker.asset}": worker.alive for worker in self.workers}

    def answers(self) -> str:
        """What does not answer any more; empty where all does."""
        hung = [f"asset-{worker.asset}" for worker in self.workers if not worker.answers]
        return ", ".join([*(name for name, lives in self._threads().items() if not lives and name not in hung), *hung])

    def _facts(self) -> Facts:
        """What is told of this agent over HTTP; from any thread."""
        return Facts(
            info=self._info,
            health=self._health(system.CpuShare()),  # the share of a scrape says nothing
            cpu_s=time.process_time(),
            delivery=self.publisher.statistics,
            desk=self.desk.statistics,
            alarms=self.desk.standing_alarms(),
            scores=self._scores.copy(),
        )

    def _health(self, cpu: system.CpuShare | None = None) -> Health:
        health = {worker.asset: worker.health() for worker in self.workers}
        failing = sum(source.state == "failing" for source, _ in health.values())
        silent = any(source.state in ("silent", "off_rate") for source, _ in health.values())
        alarms = self.desk.statistics
        recording = self.recording.health()
        unrecorded = recording is not None and recording.last_error is not None
        worse = failing or silent or alarms.failed or alarms.waiting_for_disk or unrecorded
        synced = time_quality() == "ntp"
        return Health(
            time=rfc3339(time.time()),
            status="failing" if failing == len(self.workers) else "degraded" if worse else "ok",
            uptime_s=round(time.monotonic() - self._begin_s, 1),
            cpu_percent=(cpu or self._cpu).percent(),
            memory_mb=system.memory_mb(),
            cpu_temp_c=system.cpu_temp_c(),
            disk_free_mb=system.disk_free_mb(self._settings.state_dir),
            alarms_failed_total=alarms.failed,
            waiting_for_disk=alarms.waiting_for_disk,
            clock_synced=synced,
            sources={asset: source for asset, (source, _) in health.items()}
            | {f"{w.asset}/{group}": one for w in self.workers for group, one in w.health_by_group().items()},
            assets={asset: line for asset, (_, line) in health.items()},
            recording=recording,
        )


def run_agent(settings: AgentSettings) -> int:
    """Runs until SIGTERM or SIGINT, or until every recording has been played and delivered; gives the exit code."""
    stopping = threading.Event()
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    for warning in warnings(settings):
        log.warning("%s", warning)
    agent = Agent(settings)
    agent.start()
    feed = Watchdog(agent.answers)
    notify("READY=1", f"STATUS=watching {', '.join(asset.id for asset in settings.assets)}")
    try:
        while not stopping.wait(LOOK_S) and not agent.played_out() and not agent.refused:
            agent.look()
            feed.look(time.monotonic())
    finally:
        notify("STOPPING=1")
        agent.stop()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if received else handler)  # a second one changes nothing
    if received:
        return 130 if signal.SIGINT in received else 0
    refused = next((worker.refused for worker in agent.workers if worker.refused is not None), None)
    if refused is not None:
        return refused.exit_code
    return DataError.exit_code if agent.broken_off else 0


def _load_bundles(assets: tuple[AssetSettings, ...]) -> dict[str, Bundle | None]:
    """Every asset's bundle; None, and a line in the log, where it cannot be used.

    Raises:
        BundleError: not one of them can be used.
        ConfigError: an asset's settings do not go with its bundle.
    """
    bundles: dict[str, Bundle | None] = {}
    failed: BundleError | None = None
    for n, asset in enumerate(assets):
        try:
            bundle = bundles[asset.id] = load_bundle(asset.bundle)
            check_asset(f"assets[{n}]", asset, bundle.manifest)
        except BundleError as error:
            log.error("%s: %s", asset.id, error)
            bundles[asset.id], failed = None, error
    loaded = [bundle for bundle in bundles.values() if bundle is not None]
    if failed is not None and not loaded:
        raise failed
    _greet(loaded)
    return bundles


def _say_data(publisher: Publisher, asset: str, payload: Data) -> None:
    publisher.publish_now(data_topic(asset), payload)


def _with_current(settings: AgentSettings, slots: dict[str, Slots]) -> AgentSettings:
    """Settings whose assets have the models that updates made the current ones."""
    assets = tuple(
        asset.model_copy(update={"bundle": current_bundle(slots[asset.id])}) if asset.id in slots else asset
        for asset in settings.assets
    )
    return settings.model_copy(update={"assets": assets})


def _greet(bundles: list[Bundle]) -> None:
    """The runtime's word that it is there, which it writes once a process, is heard before any thread starts."""
    with without_chatter(*RUNTIME):
        for bundle in bundles[:1]:
            try:
                bundle.scorer()
            except Exception as error:  # noqa: BLE001 - its worker meets it again, and is supervised
                log.debug("told again by its worker: %s", error)


def _claim(folder: Path) -> IO[str]:
    """Keeps every other agent out of the folder until it is closed, or this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = (folder / "agent.lock").open("a+", encoding="ascii")
    except OSError as error:
        raise TocsinError(f"state_dir {folder} cannot be used: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.seek(0)
        owner = handle.readline(20).strip()
        handle.close()
        raise TocsinError(
            f"state_dir {folder} is in use by another agent (process {owner}): stop that, or give this one its own"
        ) from error
    handle.truncate(0)
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle


def _open_outbox(settings: AgentSettings) -> Outbox:
    folder = settings.state_dir
    try:
        return Outbox(folder / "outbox.db", max_mb=settings.mqtt.outbox_max_mb)
    except OSError as error:
        raise TocsinError(f"state_dir {folder} cannot be used: {error}") from error


def _context(asset: AssetSettings, bundle: Bundle | None, language: str) -> AlarmContext:
    severity = Severity(asset.severity)
    if bundle is None:
        return AlarmContext(severity=severity, advice=asset.advice, language=language)
    manifest = bundle.manifest
    return AlarmContext(
        model_name=manifest.name,
        model_version=manifest.version,
        model_digest=bundle.digest,
        rate_hz=manifest.sample_rate_hz,
        units={channel.name: channel.unit for channel in manifest.channels},
        severity=severity,
        advice=asset.advice,
        language=language,
    )


def _contexts_of_alarms(asset: AssetSettings, bundle: Bundle | None, language: str) -> dict[str, AlarmContext]:
    """What alarms of quality and rules say, by id."""
    of_model = _context(asset, bundle, language)
    quiet = AlarmContext(
        rate_hz=of_model.rate_hz, units=of_model.units, language=language
    )  # no model has a part in them
    checked = replace(quiet, detector="quality", severity=Severity(asset.quality.severity))
    of_checks = dict.fromkeys(asset.quality.alarm_ids(asset.id), checked)
    clock = condition(asset.id, "clock")
    if clock in of_checks:  # stamps are wrong for a while, samples and scores are not
        of_checks[clock] = replace(checked, severity=Severity.WARNING)
    return of_checks | {
        f"{asset.id}-{rule.id}": replace(
            quiet, detector="rules", severity=Severity(str(rule.severity)), advice=rule.advice, rule=rule.sentence()
        )
        for rule in asset.rules
        if not rule.is_mode
    }


def _budget(bundle: Bundle) -> float | None:
    """Alarms a day that the limit was set for."""
    promise = bundle.manifest.threshold.promise
    return None if promise is None else number(24.0 * promise.asked)


def _info(settings: AgentSettings, bundles: dict[str, Bundle | None]) -> Info:
    products = {asset.id: asset.product for asset in settings.assets}
    assets = [
        AssetInfo(
            id=asset,
            product=products[asset],
            channels=[channel.name for channel in bundle.manifest.channels],
            rate_hz=bundle.manifest.sample_rate_hz,
            model=bundle.manifest.name,
            version=bundle.manifest.version,
            digest=bundle.digest,
            window=bundle.manifest.length,
            threshold=bundle.manifest.threshold.value,
            false_alarm_budget=_budget(bundle),
        )
        for asset, bundle in bundles.items()
        if bundle is not None
    ]
    return Info(
        device=settings.device,
        agent=system.agent_info(),
        runtime=system.runtime_info(),
        hw=system.hardware_info(),
        os=system.os_name(),
        assets=assets,
        commands=list(settings.mqtt.commands),
        settings=list(settings.mqtt.settings),
        groups=[*settings.mqtt.groups, EVERY_DEVICE],
    )
