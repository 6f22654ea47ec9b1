"""A repository, a device that takes updates from it, and an agent that says what it is told to say."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tocsin.core.bundle import Bundle, load_bundle, write_bundle
from tocsin.update.client import OFFER, VERDICT, Line, UpdateClient, UpdatePolicy
from tocsin.update.fetch import Fetcher
from tocsin.update.slots import Slots
from tocsin.update.smoke import smoke
from tocsin.update.trial import Fared, Offer, Verdict
from tocsin_fleet.release.keys import Keys
from tocsin_fleet.release.release import Release

SMALL = Path(__file__).parent.parent / "data/small.tocsin"
PRODUCT, ASSET, DEVICE = "pump", "pump-1", "edge-1"
FINE = Fared(windows=1000, ratio_max=0.9, ratio_min=0.1, ms_p99=0.1)


def variant(path: Path, card: str, change: Callable[[dict[str, Any]], None] = lambda _: None, **golden: Any) -> Bundle:
    """Another bundle of the same models."""
    of = load_bundle(SMALL)
    raw = json.loads(json.dumps(of.manifest.raw))
    for key in ("format", "golden", "files", "digest"):
        raw.pop(key, None)
    change(raw)
    models = {name: content for name, content in of.files.items() if name.endswith(".tflite")}
    return write_bundle(path, raw, models, replace(of.golden, **golden), card)


class Device:
    """What a device has on its disk, and the agent beside it."""

    def __init__(self, folder: Path, release: Release, url: str | None = None) -> None:
        self.folder, self.release = folder, release
        self.slots = Slots(folder / "models" / ASSET, SMALL)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "root.json").write_bytes((release.folder / "metadata/1.root.json").read_bytes())
        self.policy = UpdatePolicy(
            url or str(release.folder), folder / "root.json", shadow_windows=10, trial_windows=10
        )
        self.now_s: float | None = None
        self.fetcher: Fetcher | None = None
        self.smoke = smoke

    def client(self) -> UpdateClient:
        more: dict[str, Any] = {} if self.now_s is None else {"now": lambda: self.now_s}
        line = Line(ASSET, PRODUCT, self.slots)
        return UpdateClient(
            self.folder / "update", DEVICE, self.policy, (line,), fetcher=self.fetcher, smoke=self.smoke, **more
        )

    def run(self, fared: Fared = FINE, failed: str | None = None, times: int = 6) -> str:
        """The updater, and the agent between its runs, until the job is over; gives its state."""
        for n in range(times):
            if n:
                self.agent(fared, failed)
            client = self.client()
            try:
                client.check()
                client.apply()
                job = client.job(ASSET)
            finally:
                client.close()
            if job is None or job.over:
                break
        return str(job.state if job else "none")

    def agent(self, fared: Fared = FINE, failed: str | None = None) -> None:
        """Says how the offered model fared."""
        offer = Offer.read(self.slots.folder / OFFER)
        if offer is not None:
            verdict = Verdict(job=offer.job, sha256=offer.sha256, stage=offer.stage, time_s=0.0, hop_s=1.0, new=fared,
                              old=FINE, failed=failed)  # fmt: skip
            verdict.write(self.slots.folder / VERDICT)

    @property
    def reason(self) -> str:
        client = self.client()
        job = client.job(ASSET)
        client.close()
        return "" if job is None else job.reason


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with its keys, made once."""
    folder = tmp_path_factory.mktemp("release")
    Release(folder / "repository", Keys([folder / "keys"], lambda: "correct horse")).init()
    return folder


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Release:
    import shutil

    shutil.copytree(made, tmp_path / "release")
    at = tmp_path / "release"
    return Release(at / "repository", Keys([at / "keys"], lambda: "correct horse"))


@pytest.fixture
def device(release: Release, tmp_path: Path) -> Device:
    return Device(tmp_path / "device", release)


@pytest.fixture
def offer(release: Release, tmp_path: Path) -> Callable[..., Bundle]:
    """Publishes a bundle and assigns it to every device."""

    def make(name: str = "pump-2", share: int = 10_000, rollout: str = "r1", **others: Any) -> Bundle:
        path = tmp_path / f"{name}.tocsin"
        bundle = load_bundle(path) if path.exists() else variant(path, name, **others)
        target, _ = release.publish(path, PRODUCT)
        release.assign(PRODUCT, {"format": 1, "rollout": rollout, "target": target, "share": share})
        return bundle

    return make


@pytest.fixture
def bundle_of() -> Callable[..., Path]:
    """Writes another bundle of the same models; `harm` changes each model's bytes before they are signed."""

    def make(path: Path, harm: Callable[[str, bytes], bytes] | None = None) -> Path:
        of = load_bundle(SMALL)
        raw = json.loads(json.dumps(of.manifest.raw))
        for key in ("format", "golden", "files", "digest"):
            raw.pop(key, None)
        models = {name: content for name, content in of.files.items() if name.endswith(".tflite")}
        if harm is not None:
            models = {name: harm(name, content) for name, content in models.items()}
        return write_bundle(path, raw, models, of.golden, "card").path

    return make
