"""A repository of signed bundles, as a device's client sees it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import ExpiredMetadataError
from tuf.api.metadata import Metadata, TargetFile
from tuf.ngclient import FetcherInterface, Updater

from tocsin.core.bundle import load_bundle, write_bundle
from tocsin.errors import BundleError
from tocsin_fleet.release.keys import Keys, SigningError
from tocsin_fleet.release.release import ROLES, Release, ReleaseError

SMALL = Path(__file__).parent.parent / "data/small.tocsin"
SECRET = "correct horse"
PATH = "models/pump/small.tocsin"


class Files(FetcherInterface):
    """A folder instead of a server."""

    def _fetch(self, url: str) -> Any:
        from tuf.api.exceptions import DownloadHTTPError

        try:
            return iter([Path(url).read_bytes()])
        except OSError as error:
            raise DownloadHTTPError("not there", 404) from error


@pytest.fixture
def release(tmp_path: Path) -> Release:
    made = Release(tmp_path / "repository", Keys([tmp_path / "keys"], lambda: SECRET))
    made.init()
    return made


@pytest.fixture
def device(release: Release, tmp_path: Path) -> Callable[..., Updater]:
    """Makes clients that remember what they saw."""
    trusted = release.root()
    (tmp_path / "metadata").mkdir()

    def make() -> Updater:
        at = release.folder
        return Updater(str(tmp_path / "metadata"), f"{at}/metadata", str(tmp_path), f"{at}/targets", Files(),
                       bootstrap=trusted)  # fmt: skip

    return make


def info(found: TargetFile | None) -> dict[str, Any]:
    assert found is not None and isinstance(found.custom, dict)
    return found.custom


def test_a_published_bundle_comes_whole_with_a_counter_that_rises(release: Release, device: Any) -> None:
    assert release.publish(SMALL, "pump") == (PATH, 1)
    assert release.publish(SMALL, "fan") == ("models/fan/small.tocsin", 1)
    target = device().get_targetinfo(PATH)
    assert info(target) == {"release_counter": 1, "name": "small", "version": "1", "notes": ""}
    assert Path(device().download_target(target)).read_bytes() == SMALL.read_bytes()
    assert release.publish(SMALL, "pump", "again") == (PATH, 2)
    assert info(device().get_targetinfo(PATH))["release_counter"] == 2
    assert list(release.bundles()) == ["models/fan/small.tocsin", PATH]


def test_what_fails_its_golden_vectors_or_takes_another_ones_name_is_not_signed(
    release: Release, tmp_path: Path
) -> None:
    loaded = load_bundle(SMALL)
    raw = {
        key: value for key, value in loaded.manifest.raw.items() if key not in ("format", "golden", "files", "digest")
    }
    models = {name: content for name, content in loaded.files.items() if name.endswith(".tflite")}
    golden = loaded.golden
    other_scores = replace(golden, scores=golden.scores * 9 + 1)
    wrong = write_bundle(tmp_path / "wrong.tocsin", raw, models, other_scores, "")
    with pytest.raises(BundleError, match="fails its golden vectors"):
        release.publish(wrong.path, "pump")
    (tmp_path / "other").mkdir()
    other = write_bundle(tmp_path / "other/small.tocsin", raw, models, golden, "another card")
    release.publish(SMALL, "pump")
    with pytest.raises(ReleaseError, match="give this one another version"):
        release.publish(other.path, "pump")


def test_an_assignment_names_a_published_bundle(release: Release, device: Any) -> None:
    with pytest.raises(ReleaseError, match="not published"):
        release.assign("pump", {"target": PATH})
    release.publish(SMALL, "pump")
    assert release.assignment("pump") is None
    release.assign("pump", {"target": PATH, "share": 1})
    release.assign("pump", {"target": PATH, "share": 2})
    assert release.assignment("pump") == {"target": PATH, "share": 2}
    assert device().get_targetinfo("assign/pump.json") is not None


@pytest.mark.parametrize("role", ROLES)
def test_devices_follow_a_rotated_key_and_the_old_one_signs_nothing_any_more(
    role: str, release: Release, device: Any, tmp_path: Path
) -> None:
    release.publish(SMALL, "pump")
    device().refresh()
    before = release._delegator(role).get_delegated_role(role).keyids
    release.rotate(role)
    after = release._delegator(role).get_delegated_role(role).keyids
    assert len(after) == len(before) and len(set(before) - set(after)) == 1
    release.publish(SMALL, "pump")
    assert info(device().get_targetinfo(PATH))["release_counter"] == 2
    (tmp_path / "fresh").mkdir()
    first = (release.folder / "metadata/1.root.json").read_bytes()
    fresh = Updater(str(tmp_path / "fresh"), f"{release.folder}/metadata", None, None, Files(), bootstrap=first)
    assert info(fresh.get_targetinfo(PATH))["release_counter"] == 2


def test_a_root_key_that_is_lost_is_replaced_by_the_two_others(release: Release, device: Any, tmp_path: Path) -> None:
    (tmp_path / "keys/root-2.pem").unlink()
    again = Release(release.folder, Keys([tmp_path / "keys"], lambda: SECRET))
    lost = Metadata.from_bytes(release.root()).signed
    again.rotate("root")
    root = again._open("root").signed
    assert len(set(lost.roles["root"].keyids) & set(root.roles["root"].keyids)) == 2
    device().refresh()
    (tmp_path / "keys/root-1.pem").unlink()
    (tmp_path / "keys/root-3.pem").unlink()
    with pytest.raises(SigningError, match="expected 2 of its 3 keys, 1 are in"):
        Release(release.folder, Keys([tmp_path / "keys"], lambda: SECRET)).rotate("timestamp")


def test_what_expires_soon_is_told_and_signed_anew_by_the_keys_of_each_day(tmp_path: Path) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    release = Release(tmp_path / "repository", Keys([tmp_path / "keys"], lambda: SECRET), lambda: now[0])
    release.init()
    for offline in ("root-1", "root-2", "root-3", "targets"):
        (tmp_path / f"keys/{offline}.pem").unlink()
    release = Release(tmp_path / "repository", Keys([tmp_path / "keys"], lambda: SECRET), lambda: now[0])
    assert release.sign() == [] and not any(one.soon for one in release.status())
    now[0] += timedelta(days=25)
    assert [one.role for one in release.status() if one.soon] == ["timestamp"]
    assert release.sign() == ["timestamp"]
    now[0] += timedelta(days=60)
    assert release.sign() == ["snapshot", "timestamp"]
    now[0] += timedelta(days=540)
    assert {one.role for one in release.status() if one.soon} == set(ROLES)
    assert release.sign() == ["models", "rollout", "snapshot", "timestamp"], "the others' keys are elsewhere"


def test_a_repository_that_nobody_signs_is_refused_as_frozen(tmp_path: Path) -> None:
    past = datetime.now(UTC) - timedelta(days=31)
    release = Release(tmp_path / "repository", Keys([tmp_path / "keys"], lambda: SECRET), lambda: past)
    release.init()
    (tmp_path / "metadata").mkdir()
    client = Updater(
        str(tmp_path / "metadata"), f"{release.folder}/metadata", None, None, Files(), bootstrap=release.root()
    )
    with pytest.raises(ExpiredMetadataError):
        client.refresh()


def test_keys_are_encrypted_owned_alone_and_need_their_passphrase(release: Release, tmp_path: Path) -> None:
    for path in (tmp_path / "keys").iterdir():
        assert path.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(SigningError, match="cannot be read with this passphrase"):
        Release(release.folder, Keys([tmp_path / "keys"], lambda: "wrong horse")).publish(SMALL, "pump")
    with pytest.raises(SigningError, match="expected 8 characters"):
        Keys([tmp_path / "new"], lambda: "short").make("root-1")
    assert release.bundles() == {}, "nothing was published"


def test_the_commands_do_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text(f"{SECRET}\n")

    def fleet(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "tocsin.cli.main", "fleet", *words]
        if words[0] != "serve":
            command += ["--passphrase-file", "passphrase"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    assert "next: move root-*.pem" in fleet("init")
    assert (tmp_path / "release/root.json").is_file()
    assert "is a repository already" in fleet("init", code=1)
    shutil.copy(SMALL, tmp_path / "small.tocsin")
    assert "release 1 of pump" in fleet("publish", "small.tocsin", "--product", "pump")
    assert "lower-case letters" in fleet("publish", "small.tocsin", "--product", "../x", code=2)
    assert "nothing expires soon" in fleet("sign")
    assert "models has a new key" in fleet("rotate", "models")
    shown = fleet("status")
    assert "2 of 3 keys" in shown and PATH in shown
    (tmp_path / "passphrase").write_text("another one\n")
    assert "cannot be read with this passphrase" in fleet("sign", "--all", code=7)
