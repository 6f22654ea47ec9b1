"""A repository of signed bundles: a plain folder, served by any web server or carried on a stick.

```
repository/metadata/   1.root.json …   N.targets.json N.models.json N.rollout.json N.snapshot.json   timestamp.json
repository/targets/    models/<product>/<sha256>.<bundle>.tocsin        assign/<sha256>.<product>.json

root (2 of 3, offline) ─► targets (offline) ─┬─► models   only models/*, signs bundles
        │                                    └─► rollout  only assign/*, says who gets which of them
        └─► snapshot, timestamp (online)
```
Rules: The Update Framework 1.0.31, with consistent snapshots. A bundle that does not pass its own golden vectors is not
signed. `release_counter` of a product only rises, and stands in the signed metadata, not in the bundle. What is
published last is the timestamp: a crash leaves a whole repository.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from tocsin.core.bundle import Bundle, load_bundle
from tocsin.errors import BundleError, TocsinError
from tocsin_fleet.release.keys import Keys, SigningError

ROOT, TARGETS, SNAPSHOT, TIMESTAMP, MODELS, ROLLOUT = "root", "targets", "snapshot", "timestamp", "models", "rollout"
ROLES = (ROOT, TARGETS, MODELS, ROLLOUT, SNAPSHOT, TIMESTAMP)  # in the order in which they are published
DAYS = {ROOT: 730, TARGETS: 730, MODELS: 365, ROLLOUT: 365, SNAPSHOT: 90, TIMESTAMP: 30}
ROOT_KEYS, ROOT_THRESHOLD = 3, 2
_SOON = 0.25  # of its life left: time to sign anew
_COMPACT = JSONSerializer(compact=True)


class ReleaseError(TocsinError):
    """A repository cannot be read or changed."""


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """How a role fares.

    Attributes:
        role: its name.
        version: of its newest metadata.
        expires: when devices stop believing it.
        days_left: until then.
        soon: time to sign it anew.
        keys: names its metadata may be signed by, and how many have to.
    """

    role: str
    version: int
    expires: datetime
    days_left: float
    soon: bool
    keys: str


class Release:
    """One repository.

    Args:
        folder: of the repository.
        keys: what it is signed with.
        now: time of signing.
    """

    def __init__(self, folder: Path, keys: Keys, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.folder, self._keys, self._now = folder, keys, now
        self._metadata, self._targets = folder / "metadata", folder / "targets"

    def init(self) -> None:
        """Makes all keys and an empty repository.

        Raises:
            ReleaseError: there is one already.
        """
        if self._metadata.exists():
            raise ReleaseError(f"{self.folder} is a repository already: name another folder, or remove it")
        expires = self._expires(ROOT)
        root = Root(expires=expires, consistent_snapshot=True)
        for n in range(ROOT_KEYS):
            root.add_key(self._keys.make(f"root-{n + 1}").public_key, ROOT)
        root.roles[ROOT].threshold = ROOT_THRESHOLD
        for role in (TARGETS, SNAPSHOT, TIMESTAMP):
            root.add_key(self._keys.make(role).public_key, role)
        delegated = {role: self._keys.make(role).public_key for role in (MODELS, ROLLOUT)}
        keys = {key.keyid: key for key in delegated.values()}
        paths = {MODELS: "models/*/*", ROLLOUT: "assign/*"}
        roles = {role: DelegatedRole(role, [key.keyid], 1, True, [paths[role]]) for role, key in delegated.items()}
        self._metadata.mkdir(parents=True)
        self._targets.mkdir()
        self._store(ROOT, Metadata(root), bump=False)
        self._store(TARGETS, Metadata(Targets(delegations=Delegations(keys, roles))), bump=False)
        for role in (MODELS, ROLLOUT):
            self._store(role, Metadata(Targets()), bump=False)
        self._store(SNAPSHOT, Metadata(Snapshot()), bump=False)
        self._store(TIMESTAMP, Metadata(Timestamp()), bump=False)
        self._publish()

    def root(self) -> bytes:
        """The newest root metadata: what a device is given to trust."""
        return self._path(ROOT, self._open(ROOT).signed.version).read_bytes()

    def publish(self, bundle: Path, product: str, notes: str = "") -> tuple[str, int]:
        """Signs a bundle for a product; the same bundle again gets a higher counter.

        Args:
            bundle: a .tocsin file.
            product: the kind of machine that it is for.
            notes: what is new, for people.

        Returns:
            Its path in the repository, and its release counter.

        Raises:
            BundleError: it is damaged, or fails its golden vectors here.
            ReleaseError: another bundle of that name was published.
        """
        loaded = load_bundle(bundle)
        if not loaded.self_test().passed:
            raise BundleError(f"{bundle}: fails its golden vectors on this machine: it is not signed")
        with self._alone():
            return self._published(bundle, product, notes, loaded)

    def _published(self, bundle: Path, product: str, notes: str, loaded: Bundle) -> tuple[str, int]:
        metadata = self._open(MODELS)
        models = cast(Targets, metadata.signed)
        path = f"models/{product}/{bundle.name}"
        known = models.targets.get(path)
        if known is not None and known.hashes["sha256"] != loaded.digest:
            raise ReleaseError(f"{path}: another bundle of that name was published: give this one another version")
        counter = 1 + max((counter_of(one) for name, one in models.targets.items() if _of(name, product)), default=0)
        target = TargetFile.from_file(path, str(bundle), ["sha256"])
        target.unrecognized_fields["custom"] = {
            "release_counter": counter,
            "name": loaded.manifest.name,
            "version": loaded.manifest.version,
            "notes": notes,
        }
        self._lay_down(target, bundle.read_bytes())
        models.targets[path] = target
        self._store(MODELS, metadata)
        self._publish()
        return path, counter

    def assign(self, product: str, document: dict[str, Any]) -> None:
        """Says which devices of a product get which signed bundle.

        Args:
            product: the kind of machine.
            document: see `tocsin.update.assignment`.

        Raises:
            ReleaseError: it names a bundle that was not published.
        """
        models = cast(Targets, self._open(MODELS).signed)
        if document["target"] not in models.targets:
            raise ReleaseError(f"{document['target']}: not published: run tocsin fleet publish first")
        with self._alone():
            self._assigned(product, document)

    def _assigned(self, product: str, document: dict[str, Any]) -> None:
        content = json.dumps(document, indent=1, sort_keys=True).encode()
        metadata = self._open(ROLLOUT)
        path = f"assign/{product}.json"
        target = TargetFile.from_data(path, content, ["sha256"])
        self._lay_down(target, content)
        cast(Targets, metadata.signed).targets[path] = target
        self._store(ROLLOUT, metadata)
        self._publish()

    def assignment(self, product: str) -> dict[str, Any] | None:
        """The newest one of a product."""
        path = f"assign/{product}.json"
        target = cast(Targets, self._open(ROLLOUT).signed).targets.get(path)
        if target is None:
            return None
        found: dict[str, Any] = json.loads(self._laid(target).read_bytes())
        return found

    def bundles(self) -> dict[str, TargetFile]:
        """All that is published, by path, newest last."""
        models = cast(Targets, self._open(MODELS).signed)
        return dict(sorted(models.targets.items(), key=lambda item: counter_of(item[1])))

    def sign(self, everything: bool = False) -> list[str]:
        """Signs anew what would expire soon, as far as keys are here.

        Args:
            everything: also what would not.

        Returns:
            The roles that were signed.
        """
        with self._alone():
            return self._signed(everything)

    def _signed(self, everything: bool) -> list[str]:
        due = [one.role for one in self.status() if one.soon or everything]
        done = [role for role in due if role not in (SNAPSHOT, TIMESTAMP) and self._can(role)]
        for role in done:
            self._store(role, self._open(role))
        if due:
            done += self._publish(force=tuple(role for role in due if role in (SNAPSHOT, TIMESTAMP)))
        return done

    def rotate(self, role: str) -> None:
        """Gives a role a new key in place of its old one; of the three of root, in place of one that is not here.

        Args:
            role: whose.

        Raises:
            SigningError: the keys that have to agree are not here.
        """
        with self._alone():
            self._rotated(role)

    def _rotated(self, role: str) -> None:
        holder = TARGETS if role in (MODELS, ROLLOUT) else ROOT
        metadata = self._open(holder)
        signed = cast(Root | Targets, metadata.signed)
        old = list(signed.get_delegated_role(role).keyids)
        if role == ROOT:
            kept = {signer.public_key.keyid for signer in self._keys.signers(old)}
            old = [keyid for keyid in old if keyid not in kept][:1] or old[:1]
        name = f"{role}-v{signed.version + 1}"
        signed.add_key(self._keys.make(name).public_key, role)
        for keyid in old:
            signed.revoke_key(keyid, role)
        self._store(holder, metadata, also=old)
        if role not in (ROOT, SNAPSHOT, TIMESTAMP):
            self._store(role, self._open(role))
        self._publish(force=(SNAPSHOT, TIMESTAMP))

    def status(self) -> list[RoleStatus]:
        """How each role fares."""
        found = []
        for role in ROLES:
            signed = self._open(role).signed
            left = (signed.expires - self._now()) / timedelta(days=1)
            delegated = self._delegator(role).get_delegated_role(role)
            keys = f"{delegated.threshold} of {len(delegated.keyids)}"
            soon = left < _SOON * DAYS[role]
            found.append(RoleStatus(role, signed.version, signed.expires, left, soon, keys))
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other tool changes the repository meanwhile; waits for it."""
        with (self.folder.parent / ".tocsin-release.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _publish(self, force: tuple[str, ...] = ()) -> list[str]:
        """A snapshot of what there is, and a timestamp of that."""
        done = []
        metadata = self._open(SNAPSHOT)
        snapshot = cast(Snapshot, metadata.signed)
        meta = {f"{role}.json": MetaFile(self._open(role).signed.version) for role in (TARGETS, MODELS, ROLLOUT)}
        if meta != snapshot.meta or SNAPSHOT in force:
            snapshot.meta = meta
            self._store(SNAPSHOT, metadata)
            done.append(SNAPSHOT)
        metadata = self._open(TIMESTAMP)
        newest = self._open(SNAPSHOT).signed.version
        timestamp = cast(Timestamp, metadata.signed)
        if timestamp.snapshot_meta.version != newest or force:
            timestamp.snapshot_meta = MetaFile(newest)
            self._store(TIMESTAMP, metadata)
            done.append(TIMESTAMP)
        return done

    def _delegator(self, role: str) -> Root | Targets:
        return cast(Root | Targets, self._open(TARGETS if role in (MODELS, ROLLOUT) else ROOT).signed)

    def _can(self, role: str) -> bool:
        delegated = self._delegator(role).get_delegated_role(role)
        return len(list(self._keys.signers(delegated.keyids))) >= delegated.threshold

    def _store(self, role: str, metadata: Metadata[Any], bump: bool = True, also: list[str] | None = None) -> None:
        """Signs a role's metadata by all of its keys that are here, and writes the next version.

        Raises:
            SigningError: too few of them.
        """
        signed = metadata.signed
        signed.version += bump
        signed.expires = self._expires(role)
        delegated = (signed if role == ROOT else self._delegator(role)).get_delegated_role(role)
        metadata.signatures.clear()
        signers = list(self._keys.signers([*delegated.keyids, *(also or ())]))
        by_role = [signer for signer in signers if signer.public_key.keyid in delegated.keyids]
        if len(by_role) < delegated.threshold:
            raise SigningError(
                f"{role}: expected {delegated.threshold} of its {len(delegated.keyids)} keys, {len(by_role)} are in "
                f"{', '.join(map(str, self._keys.folders))}: bring the others with --keys"
            )
        for signer in signers if role == ROOT else by_role:
            metadata.sign(signer, append=True)
        _write(self._path(role, signed.version), metadata.to_bytes(_COMPACT))

    def _open(self, role: str) -> Metadata[Any]:
        newest = self._metadata / "timestamp.json"
        if role != TIMESTAMP:
            versions = sorted(self._versions(role))
            if not versions:
                raise ReleaseError(f"{self.folder}: no repository: make one with tocsin fleet init")
            newest = self._path(role, versions[-1])
        try:
            return Metadata.from_file(str(newest))
        except (DeserializationError, OSError) as error:
            raise ReleaseError(f"{newest}: cannot be read: {error}") from error

    def _versions(self, role: str) -> Iterator[int]:
        for path in self._metadata.glob(f"*.{role}.json"):
            version = path.name.partition(".")[0]
            if version.isdecimal():
                yield int(version)

    def _path(self, role: str, version: int) -> Path:
        return self._metadata / ("timestamp.json" if role == TIMESTAMP else f"{version}.{role}.json")

    def _laid(self, target: TargetFile) -> Path:
        folder, _, name = target.path.rpartition("/")
        return self._targets / folder / f"{target.hashes['sha256']}.{name}"

    def _lay_down(self, target: TargetFile, content: bytes) -> None:
        path = self._laid(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write(path, content)

    def _expires(self, role: str) -> datetime:
        return self._now().replace(microsecond=0) + timedelta(days=DAYS[role])


def counter_of(target: TargetFile) -> int:
    """The release counter of a published bundle; 0 where it has none."""
    found = target.custom.get("release_counter") if isinstance(target.custom, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0


def _of(path: str, product: str) -> bool:
    return path.startswith(f"models/{product}/")


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
