"""The updater: does what a job's state says, keeps the next state, and so on until the agent's word is needed.

```
 check: repository ─► assignment ─► wanted? ─► Job          (ledger)
 apply: Job.state ─► its work ─► outcome ─► advance ─► Job  (ledger) … until it is over, or waits
```
Rules: the ledger has a state before its work begins. What cannot be had is tried again at the next run; what is not to
be believed ends the job. A report that fails changes nothing.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tocsin.core.bundle import Bundle, load_bundle
from tocsin.errors import BundleError, TocsinError, TrustError
from tocsin.update.assignment import Assignment
from tocsin.update.fetch import Fetcher, FetchError
from tocsin.update.ledger import Ledger
from tocsin.update.slots import Slots
from tocsin.update.smoke import smoke
from tocsin.update.story import SWAPPED, Job, Outcome, State, advance
from tocsin.update.trial import Offer, Verdict, judge
from tocsin.update.trust import Offered, Repository

log = logging.getLogger(__name__)

OFFER, VERDICT, REPORT = "offer.json", "verdict.json", "report.json"
_TOLD = 5  # jobs in a report
LONGEST_DOWNLOAD_S = 7 * 86_400.0
Found = tuple[Outcome, str]


@dataclass(frozen=True, slots=True)
class UpdatePolicy:
    """How updates are taken.

    Attributes:
        repository: URL or folder.
        trusted_root: file with root metadata.
        ca_file: of the server; None: the system's.
        shadow_windows: that both models score before the new one may become the current.
        trial_windows: that it scores as the current before it stays.
        patience_s: within which the agent has to say so, in each stage.
        keep_free_mb: left on the disk by downloads.
    """

    repository: str
    trusted_root: Path
    ca_file: Path | None = None
    shadow_windows: int = 200
    trial_windows: int = 200
    patience_s: float = 3600.0
    keep_free_mb: float = 50.0


@dataclass(frozen=True, slots=True)
class Line:
    """An asset that takes updates.

    Attributes:
        asset: id.
        product: kind of machine.
        slots: its models.
    """

    asset: str
    product: str
    slots: Slots


class UpdateClient:
    """The updater of one device; one process at a time (the caller holds a lock).

    Args:
        folder: `update` in the state folder.
        device: id.
        policy: how updates are taken.
        lines: assets that take them.
        now: epoch seconds.
        fetcher: reads files.
        smoke: first load of a bundle.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        policy: UpdatePolicy,
        lines: tuple[Line, ...],
        now: Callable[[], float] = time.time,
        fetcher: Fetcher | None = None,
        smoke: Callable[[Path], dict[str, Any]] = smoke,
    ) -> None:
        self._first_load = smoke
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._device, self._policy, self._now = folder, device, policy, now
        self.lines = {line.asset: line for line in lines}
        self._fetcher = fetcher or Fetcher(policy.ca_file)
        self._ledger = Ledger(folder / "ledger.db")
        self._repository: Repository | None = None

    def close(self) -> None:
        """Closes the ledger."""
        self._ledger.close()

    def job(self, asset: str) -> Job | None:
        """The newest job of an asset."""
        return self._ledger.job(asset)

    def check(self) -> None:
        """Looks for what is wanted, and makes jobs of it.

        Raises:
            TrustError: what the repository says is not to be believed.
            FetchError: it cannot be had.
        """
        failed: TocsinError | None = None
        for line in self.lines.values():
            try:
                assignment = self._looked().assignment(line.product)
                if assignment is not None:
                    self._consider(line, assignment)
            except (TrustError, FetchError) as error:  # of one product; the others' are looked at all the same
                failed = failed or error
        if failed is not None:
            raise failed

    def _looked(self) -> Repository:
        """The repository, once a run."""
        if self._repository is None:
            try:
                trusted = self._policy.trusted_root.read_bytes()
            except OSError as error:
                raise TrustError(f"update.trusted_root: {self._policy.trusted_root}: {error.strerror}") from error
            latest_s = self._ledger.latest(self._now())
            where = self._policy.repository
            repository = Repository(where, self._folder / "metadata", trusted, latest_s, self._fetcher)
            repository.refresh()
            self._repository = repository
        return self._repository

    def _consider(self, line: Line, assignment: Assignment) -> None:
        job, now_s = self._ledger.job(line.asset), self._now()
        of_this = job is not None and job.rollout == assignment.rollout and job.target == assignment.target
        if assignment.state == "rolled_back":
            if job is not None and of_this and job.state is State.SUCCEEDED and line.slots.current() == job.sha256:
                self._keep(replace(job, state=State.ROLLING_BACK, reason="the roll-out was rolled back", since_s=now_s))
            return
        if not assignment.includes(self._device):
            return
        since_s = self._ledger.seen_since(assignment.rollout, now_s)
        if of_this or not assignment.may_start(self._device, since_s, now_s):
            return
        offered = self._looked().offered(assignment.target, self._ledger.floor(line.product))
        if job is not None and not job.over:
            if job.state in SWAPPED:
                return  # it ends by its own deadline
            self._keep(advance(job, Outcome.CANCEL, f"{assignment.rollout} is wanted instead", now_s))
        self._begin(line, offered, assignment.rollout)

    def _begin(self, line: Line, offered: Offered, rollout: str) -> Job:
        now_s, before = self._now(), line.slots.current()
        job_id = f"{line.asset}-{offered.counter}-{int(now_s)}"
        job = Job(job_id, line.asset, line.product, rollout, offered.target, offered.sha256, offered.length,
                  offered.counter, offered.version, offered.notes, before=before, since_s=now_s)  # fmt: skip
        if offered.sha256 == load_bundle(line.slots.path(before)).digest:  # under a higher counter: nothing to try
            job = replace(job, state=State.COMMITTING)
        self._keep(job)
        return job

    def install(self, asset: str, target: str) -> Job:
        """An operator's wish, roll-out or none.

        Raises:
            TocsinError: another job is past its swap, or nobody signed that target.
        """
        line, job = self.lines[asset], self._ledger.job(asset)
        if job is not None and job.state in SWAPPED:
            raise TocsinError(f"{asset}: {job.id} is in its {job.state}: wait for its end")
        offered = self._looked().offered(target, self._ledger.floor(line.product))
        if job is not None and not job.over:
            self._keep(advance(job, Outcome.CANCEL, "an operator wants another", self._now()))
        return self._begin(line, offered, "")

    def apply(self) -> bool:
        """Goes on with every job as far as it goes; tells whether any waits for the agent."""
        waits = False
        for line in self.lines.values():
            newest = self._ledger.job(line.asset)
            if newest is not None and newest.over:  # also where a kill came between its end and this
                self._clean(line, newest)
            while (job := self._ledger.job(line.asset)) is not None and not job.over:
                outcome, reason = self._work(line, job)
                if outcome is Outcome.WAIT:
                    waits = True
                    break
                after = advance(job, outcome, reason, self._now())
                self._keep(after)
                if after.over:
                    self._clean(line, after)
                if outcome is Outcome.AGAIN:
                    waits = True
                    break
        return waits

    def _keep(self, job: Job) -> None:
        self._ledger.keep(job)
        try:
            self._report(self.lines[job.asset])
        except (OSError, TocsinError) as error:
            log.warning("%s: nobody is told: %s", job.asset, error)
        log.info(
            "%s: %s %s%s", job.asset, job.version or job.target, job.state, f": {job.reason}" if job.reason else ""
        )

    def _report(self, line: Line) -> None:
        """What the agent tells of this asset's updates; the first keys are those of Home Assistant."""
        jobs = [job for _, job in zip(range(_TOLD), self._ledger.jobs(line.asset), strict=False)]
        newest = jobs[0]
        installed = load_bundle(line.slots.path(line.slots.current())).manifest.version
        under_way = not newest.over and newest.state is not State.AVAILABLE
        report = {
            "installed_version": installed,
            "latest_version": installed if newest.over else newest.version,
            "title": line.product,
            "release_summary": newest.notes[:255] or None,
            "release_url": None,
            "in_progress": under_way,
            "update_percentage": None,
            "jobs": [
                {
                    "id": job.id,
                    "asset": job.asset,
                    "state": str(job.state),
                    "version": job.version,
                    "release_counter": job.counter,
                    "rollout": job.rollout,
                    "reason": job.reason,
                    "time": datetime.fromtimestamp(job.since_s, UTC).isoformat(timespec="seconds"),
                }
                for job in jobs
            ],
        }
        path = line.slots.folder / REPORT
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps(report), encoding="utf-8")
        part.replace(path)

    def _work(self, line: Line, job: Job) -> Found:
        """What a state asks for; each may be done again."""
        work: Callable[[Line, Job], Found] = getattr(self, f"_{job.state}")
        try:
            return work(line, job)
        except FetchError as error:
            return Outcome.AGAIN, str(error)
        except (TrustError, BundleError) as error:
            return Outcome.REFUSED, str(error)

    def _available(self, _line: Line, _job: Job) -> Found:
        return Outcome.DONE, ""

    def _downloading(self, line: Line, job: Job) -> Found:
        stage = line.slots.stage(job.sha256)
        if not 0 <= self._now() - job.since_s < LONGEST_DOWNLOAD_S:
            raise TrustError(f"could not be had for {LONGEST_DOWNLOAD_S / 86_400:g} days: {job.reason}")
        if not line.slots.path(job.sha256).exists():
            there = stage.stat().st_size if stage.exists() else 0
            needed, free = job.length - there, shutil.disk_usage(stage.parent).free
            if free - needed < self._policy.keep_free_mb * (1 << 20):
                raise FetchError(f"no room: {needed} bytes are to come, {free} are free")
            offered = Offered(job.target, job.sha256, job.length, job.counter, job.version, job.notes)
            self._looked().download(offered, stage)
        return Outcome.DONE, ""

    def _verifying(self, line: Line, job: Job) -> Found:
        """By the signed hash, and by what this asset has."""
        stage, slot = line.slots.stage(job.sha256), line.slots.path(job.sha256)
        path = slot if slot.exists() else stage
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FetchError(f"{path}: {error.strerror}") from error
        if digest != job.sha256:
            path.unlink()
            raise FetchError(f"{path.name}: was changed on this disk")
        if job.counter < self._ledger.floor(job.product):
            raise TrustError(
                f"release {job.counter} is below release {self._ledger.floor(job.product)} (roll-back attack)"
            )
        misfit = _misfit(load_bundle(line.slots.path(line.slots.current())), load_bundle(path))
        if misfit:
            raise TrustError(f"{job.target}: does not fit {job.asset}: {misfit}")
        line.slots.keep(job.sha256)
        return Outcome.DONE, ""

    def _smoke(self, line: Line, job: Job) -> Found:
        path = line.slots.path(job.sha256)
        found = self._first_load(path)
        manifest = load_bundle(path).manifest
        hop_ms = 1e3 * manifest.hop / manifest.sample_rate_hz
        if not found["passed"]:
            return Outcome.REFUSED, f"fails its golden vectors on this machine: worst difference {found['worst']:.3g}"
        if found["ms_p99"] > hop_ms / 2:
            return Outcome.REFUSED, f"too slow here: {found['ms_p99']:.3g} ms a window, one is due each {hop_ms:.3g} ms"
        return Outcome.DONE, ""

    def _shadow(self, line: Line, job: Job) -> Found:
        return self._tried(line, job, "shadow", self._policy.shadow_windows)

    def _swapping(self, line: Line, job: Job) -> Found:
        (line.slots.folder / VERDICT).unlink(missing_ok=True)
        line.slots.activate(job.sha256)
        return Outcome.DONE, ""

    def _trial(self, line: Line, job: Job) -> Found:
        return self._tried(line, job, "trial", self._policy.trial_windows)

    def _tried(self, line: Line, job: Job, stage: str, windows: int) -> Found:
        """What the agent says of it; silence until the deadline is a no."""
        offer = Offer.model_validate({"job": job.id, "sha256": job.sha256, "stage": stage, "windows": windows})
        if Offer.read(line.slots.folder / OFFER) != offer:
            offer.write(line.slots.folder / OFFER)
        verdict = Verdict.read(line.slots.folder / VERDICT)
        of_this = verdict is not None and (verdict.job, verdict.stage, verdict.sha256) == (job.id, stage, job.sha256)
        wrong = judge(verdict, windows) if verdict is not None and of_this else None
        if wrong:
            return Outcome.REFUSED, f"in its {stage}: {wrong}"
        if wrong == "":
            return Outcome.DONE, ""
        if not 0 <= self._now() - job.since_s < self._policy.patience_s:
            return Outcome.REFUSED, f"the agent said nothing of its {stage} for {self._policy.patience_s:g} s"
        return Outcome.WAIT, ""

    def _committing(self, line: Line, job: Job) -> Found:
        self._ledger.raise_floor(job.product, job.counter)
        self._clean(line, job)
        return Outcome.DONE, ""

    def _rolling_back(self, line: Line, job: Job) -> Found:
        line.slots.activate(job.before, back=True)
        self._clean(line, job)
        return Outcome.DONE, ""

    def _clean(self, line: Line, job: Job) -> None:
        for name in (OFFER, VERDICT):
            (line.slots.folder / name).unlink(missing_ok=True)
        line.slots.prune({line.slots.current(), line.slots.previous(), job.before} - {""})

    def roll_back(self, asset: str) -> str:
        """An operator's wish: the model before becomes the current one; gives its sha256, empty for the factory's.

        Raises:
            TocsinError: there is none before, or a job is under way.
        """
        line, job = self.lines[asset], self._ledger.job(asset)
        if job is not None and not job.over:
            raise TocsinError(f"{asset}: {job.id} is in its {job.state}: wait for its end")
        if line.slots.current() in ("", line.slots.previous()):
            raise TocsinError(f"{asset}: there is no model before the one that it runs")
        line.slots.activate(line.slots.previous())
        return line.slots.current()


def _misfit(old: Bundle, new: Bundle) -> str:
    """What a bundle asks for that the asset's sources do not give; empty where nothing."""
    had = {group.name: group for group in old.manifest.groups.groups}
    wants = new.manifest.groups.groups
    if {group.name for group in wants} != set(had):
        names = (", ".join(group.name or "one" for group in each) for each in (wants, old.manifest.groups.groups))
        return "it has the groups {}, this asset {}".format(*names)
    for group in wants:
        given = {channel.name: channel.unit for channel in had[group.name].channels}
        for channel in group.channels:
            if channel.name not in given:
                return f"it needs the channel {channel.name}, there are {', '.join(given)}"
            if channel.unit != given[channel.name]:
                return f"{channel.name} is to come in {channel.unit or 'no unit'}, it comes in {given[channel.name]}"
        if group.sample_rate_hz != had[group.name].sample_rate_hz:
            return f"it is for {group.sample_rate_hz:g} Hz, the samples come at {had[group.name].sample_rate_hz:g} Hz"
    return ""
