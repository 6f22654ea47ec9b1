"""What the updater says to the agent, and the agent to the updater: a thread that looks at files.

```
 current -> slots/…  ─┐                             ┌─► verdict.json
 offer.json          ─┴─► load, prove ─► worker ────┴─► update/<asset>, job/<id> (from report.json)
```
Rules: a model that cannot be loaded, or fails its golden vectors, is answered with a verdict, and what scores goes on
scoring. Loading happens here, never in an asset's thread.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tocsin.core.bundle import Bundle, load_bundle
from tocsin.delivery.wire import JobState, UpdateState, job_topic, update_topic
from tocsin.errors import BundleError
from tocsin.update.slots import Slots
from tocsin.update.trial import Offer, Verdict
from tocsin.worker import AssetWorker

log = logging.getLogger(__name__)

LOOK_S = 1.0
OFFER, VERDICT, REPORT = "offer.json", "verdict.json", "report.json"


def current_bundle(slots: Slots) -> Path:
    """The file of the current model; what came before it, or the factory's, where that one cannot be read."""
    for sha256 in (slots.current(), slots.previous()):
        if sha256:
            try:
                return load_bundle(slots.path(sha256)).path
            except BundleError as error:
                log.error("%s; the one before it is used", error)
    return slots.factory


class ModelWatch:
    """Looks for the models of all assets that take updates.

    Args:
        workers: by asset, with where their models are.
        say: called with topic and payload of what is to be told, retained.
    """

    def __init__(self, workers: dict[str, tuple[AssetWorker, Slots]], say: Callable[[str, bytes], None]) -> None:
        self._workers, self._say = workers, say
        self._told: dict[str, bytes] = {}
        self._bad: dict[tuple[str, str], str] = {}  # (asset, sha256) → why it cannot be used
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-watch", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            for asset, (worker, slots) in self._workers.items():
                try:
                    self._look(asset, worker, slots)
                except Exception:  # of one asset; the thread goes on
                    log.exception("%s: its models cannot be looked at", asset)

    def _look(self, asset: str, worker: AssetWorker, slots: Slots) -> None:
        current, offer = slots.path(slots.current()), Offer.read(slots.folder / OFFER)
        wanted = self._loaded(asset, worker, slots.current(), current)
        if wanted is not None:
            worker.want(wanted)
        beside = None if offer is None else self._beside(asset, worker, slots, offer)
        worker.try_beside(beside)
        if offer is not None:
            self._answer(asset, worker, slots, offer)
        self._publish(asset, slots)

    def _beside(self, asset: str, worker: AssetWorker, slots: Slots, offer: Offer) -> Bundle | None:
        """In the shadow the new one, in its trial the one before."""
        if offer.stage == "shadow":
            return self._loaded(asset, worker, offer.sha256, slots.path(offer.sha256))
        return self._loaded(asset, worker, slots.previous(), slots.path(slots.previous()))

    def _loaded(self, asset: str, worker: AssetWorker, sha256: str, path: Path) -> Bundle | None:
        """The bundle, once it has reproduced its golden vectors; None where it cannot be used."""
        known = next((one for one in worker.bundles() if one.path == path), None)
        if known is not None or (asset, sha256) in self._bad:
            return known
        try:
            bundle = load_bundle(path)
            if not bundle.self_test().passed:
                raise BundleError(f"{path.name}: does not give its golden scores on this machine")
        except BundleError as error:
            log.error("%s: %s", asset, error)
            self._bad[asset, sha256] = str(error)
            return None
        return bundle

    def _answer(self, asset: str, worker: AssetWorker, slots: Slots, offer: Offer) -> None:
        verdict = worker.verdict(offer, self._bad.get((asset, offer.sha256)), time.time())
        if verdict is not None and (verdict.failed or verdict.new.windows):
            known = Verdict.read(slots.folder / VERDICT)
            due = known is None or known.job != offer.job or known.stage != offer.stage
            ripe = verdict.failed is not None or verdict.new.windows >= offer.windows
            if due or (ripe and known is not None and known.new.windows < offer.windows and not known.failed):
                verdict.write(slots.folder / VERDICT)

    def _publish(self, asset: str, slots: Slots) -> None:
        """What the updater reports, where it changed."""
        try:
            report = json.loads((slots.folder / REPORT).read_bytes())
            jobs = [JobState.model_validate(job) for job in report.pop("jobs")]
            update = UpdateState.model_validate(report)
        except (OSError, ValueError, KeyError, AttributeError):
            return
        for topic, body in ((update_topic(asset), update), *((job_topic(job.id), job) for job in reversed(jobs))):
            payload = body.encode()
            if self._told.get(topic) != payload:
                self._told[topic] = payload
                self._say(topic, payload)
