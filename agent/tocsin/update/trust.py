"""What a repository says, as far as it can be believed: The Update Framework's client, with its gaps closed.

```
 root.json (given) ─► root ─► timestamp ─► snapshot ─► targets ─┬─► models/<product>/…   which are signed
                                                                └─► assign/<product>     who gets which
```
Rules: errors of the framework and of the network become `TrustError` and `FetchError`, by name. Expiry is looked at
with the latest time that was ever seen. What was written is on the disk before it is believed. A release counter below
the floor is refused whatever the metadata say.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import TargetFile
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.updater import Updater

from tocsin.errors import TrustError
from tocsin.update.assignment import Assignment
from tocsin.update.fetch import Fetcher, FetchError, download

MOST_BYTES = 64 << 20  # of a bundle
_LIMITS = UpdaterConfig(
    max_root_rotations=64,
    root_max_length=64_000,
    timestamp_max_length=4_096,
    snapshot_max_length=64_000,
    targets_max_length=4 << 20,
)
_NAMES = (  # of what was refused; the first that fits
    (ExpiredMetadataError, "it has expired: nobody signed it anew, or somebody keeps newer ones back (freeze attack)"),
    (BadVersionNumberError, "it is older than what was seen before (roll-back attack)"),
    (UnsignedMetadataError, "it is not signed by enough of the keys that are trusted"),
    (LengthOrHashMismatchError, "its length or hash is another than was signed"),
)


@dataclass(frozen=True, slots=True)
class Offered:
    """A signed bundle.

    Attributes:
        target: path in the repository.
        sha256: of the file.
        length: bytes.
        counter: release counter of its product.
        version: for people.
        notes: for people.
    """

    target: str
    sha256: str
    length: int
    counter: int
    version: str
    notes: str


class Repository:
    """One look at a repository.

    Args:
        url: https://…, http://…, or a folder.
        metadata: folder for what was seen; made when missing.
        trusted_root: root metadata that were given to this device.
        now_s: epoch seconds, never less than was seen before.
        fetcher: reads files.
        metadata_url: of the metadata, where they are not in `metadata/`.
        targets_url: of the targets, where they are not in `targets/`.

    Raises:
        TrustError: the root metadata cannot be read.
    """

    def __init__(
        self,
        url: str,
        metadata: Path,
        trusted_root: bytes,
        now_s: float,
        fetcher: Fetcher,
        metadata_url: str | None = None,
        targets_url: str | None = None,
    ) -> None:
        at = url.rstrip("/") if urlsplit(url).scheme else f"file://{Path(url).absolute()}"
        self._targets = (targets_url or f"{at}/targets").rstrip("/")
        self._metadata, self._fetcher = metadata, fetcher
        metadata.mkdir(parents=True, exist_ok=True)
        with _named("the trusted root"):
            self._client = Updater(
                str(metadata),
                metadata_url or f"{at}/metadata/",
                None,
                None,
                fetcher,
                _LIMITS,
                bootstrap=trusted_root,
            )
        self._client._trusted_set.reference_time = datetime.fromtimestamp(now_s, UTC)

    def refresh(self) -> None:
        """Takes in what is new, onto the disk; once.

        Raises:
            TrustError: it is not to be believed.
            FetchError: it cannot be had.
        """
        with _named("metadata"):
            self._client.refresh()
        self._sync()

    def assignment(self, product: str) -> Assignment | None:
        """Who gets which bundle of a product; None where nobody said.

        Raises:
            TrustError: it is not to be believed.
            FetchError: it cannot be had.
        """
        target = self.info(f"assign/{product}.json")
        if target is None:
            return None
        if target.length > 64_000:
            raise TrustError(f"assign/{product}.json: larger than an assignment may be, {target.length} bytes")
        path = self._metadata / f"assignment-{product}-{_sha256(target)}.json"
        if not path.exists():
            for old in self._metadata.glob(f"assignment-{product}-*"):
                old.unlink()
            self.download(target, path)
        content = path.read_bytes()
        with _named(path.name):
            target.verify_length_and_hashes(content)
        return Assignment.read(content)

    def offered(self, path: str, floor: int) -> Offered:
        """A signed bundle.

        Args:
            path: in the repository.
            floor: lowest release counter that is believed.

        Raises:
            TrustError: there is none of that path, or it is below the floor.
            FetchError: metadata cannot be had.
        """
        target = self.info(path)
        if target is None:
            raise TrustError(f"{path}: nobody signed a bundle of that name")
        custom = target.custom if isinstance(target.custom, dict) else {}
        counter = custom.get("release_counter")
        if not isinstance(counter, int) or isinstance(counter, bool) or counter < 1:
            raise TrustError(f"{path}: it has no release counter")
        if counter < floor:
            raise TrustError(
                f"{path}: release {counter} is older than release {floor}, which was installed (roll-back attack): to "
                "go back, publish the old bundle again under a higher counter"
            )
        if target.length > MOST_BYTES:
            raise TrustError(f"{path}: larger than a bundle may be, {target.length} bytes")
        version, notes = str(custom.get("version", ""))[:64], str(custom.get("notes", ""))[:1000]
        return Offered(path, _sha256(target), target.length, counter, version, notes)

    def download(self, target: "TargetFile | Offered", path: Path) -> None:
        """A target's file, going on with what is there.

        Raises:
            TrustError: it is another than was signed.
            FetchError: it cannot be had just now.
        """
        name = target.path if isinstance(target, TargetFile) else target.target
        sha256 = _sha256(target) if isinstance(target, TargetFile) else target.sha256
        folder, slash, file = name.rpartition("/")
        if self._client._trusted_set.root.consistent_snapshot:
            file = f"{sha256}.{file}"
        download(self._fetcher, f"{self._targets}/{folder}{slash}{file}", path, target.length, sha256)

    def info(self, path: str) -> TargetFile | None:
        """What was signed of a path; None where nothing was.

        Raises:
            TrustError: metadata are not to be believed.
            FetchError: they cannot be had.
        """
        with _named("metadata"):
            found = self._client.get_targetinfo(path)
        self._sync()
        return found

    def _sync(self) -> None:
        """The framework writes files whole, but does not wait for the disk."""
        for path in (*self._metadata.glob("*.json"), self._metadata):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _sha256(target: TargetFile) -> str:
    found = target.hashes.get("sha256", "")
    if len(found) != 64:
        raise TrustError(f"{target.path}: signed without sha256")
    return found


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except DownloadLengthMismatchError as error:
        raise TrustError(f"{what}: longer than it may be (endless data): {error}") from error
    except DownloadError as error:
        raise FetchError(f"{what} cannot be had: {error}") from error
    except RepositoryError as error:
        said = next((text for kind, text in _NAMES if isinstance(error, kind)), "it is damaged or forged")
        raise TrustError(f"{what} refused: {said}: {error}") from error
    except OSError as error:
        raise FetchError(f"{what} cannot be kept: {error}") from error
