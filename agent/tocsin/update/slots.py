"""The models of one asset on the disk, and which one is current.

```
models/<asset>/slots/<sha256>.tocsin      each bundle that was verified
models/<asset>/current -> slots/…         swapped in one step; none: the factory's, which is the bundle in the settings
models/<asset>/previous -> slots/…        for an operator who wants to go back
models/<asset>/stage/<sha256>.part        a download
```
Rules: what is named is on the disk first, file and folder; the factory's bundle is never touched. Every operation can
be done again after a kill.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")
SUFFIX = ".tocsin"


class Slots:
    """Those of one asset.

    Args:
        folder: `models/<asset>` in the state folder.
        factory: the bundle in the settings.
    """

    def __init__(self, folder: Path, factory: Path) -> None:
        self.folder, self.factory = folder, factory

    def current(self) -> str:
        """sha256 of the current model; empty: the factory's."""
        return self._linked("current")

    def previous(self) -> str:
        """sha256 of the one before; empty: the factory's, or nothing was ever installed."""
        return self._linked("previous")

    def path(self, sha256: str) -> Path:
        """Where a model is; the factory's for an empty one."""
        return self.folder / "slots" / f"{sha256}{SUFFIX}" if sha256 else self.factory

    def stage(self, sha256: str) -> Path:
        """Where its download goes."""
        path = self.folder / "stage" / f"{sha256}.part"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def keep(self, sha256: str) -> None:
        """Makes a slot of a download that was verified."""
        staged, slot = self.stage(sha256), self.path(sha256)
        if staged.exists():
            slot.parent.mkdir(parents=True, exist_ok=True)
            _sync(staged)
            staged.replace(slot)
            _sync(slot.parent)
            _sync(self.folder)

    def activate(self, sha256: str, back: bool = False) -> None:
        """Makes a model the current one; the factory's for an empty one.

        Args:
            sha256: of its bundle.
            back: the one that is current now did not do: nobody should go back to it.
        """
        now = self.current()
        if now == sha256:
            return
        self._link("previous", sha256 if back else now)
        self._link("current", sha256)

    def installed(self) -> list[str]:
        """sha256 of every slot."""
        return sorted(path.stem for path in (self.folder / "slots").glob(f"*{SUFFIX}") if _SHA256.fullmatch(path.stem))

    def prune(self, keep: Collection[str]) -> None:
        """Removes slots and downloads but those."""
        kept = {*keep, self.current()}
        for sha256 in self.installed():
            if sha256 not in kept:
                self.path(sha256).unlink(missing_ok=True)
        for part in (self.folder / "stage").glob("*"):
            if part.stem not in kept:
                part.unlink(missing_ok=True)

    def _linked(self, name: str) -> str:
        try:
            found = (self.folder / name).readlink().name.removesuffix(SUFFIX)
        except OSError:
            return ""
        return found if _SHA256.fullmatch(found) and self.path(found).is_file() else ""

    def _link(self, name: str, sha256: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        link = self.folder / name
        if sha256:
            part = self.folder / f".{name}.part"
            part.unlink(missing_ok=True)
            part.symlink_to(Path("slots") / f"{sha256}{SUFFIX}")
            part.replace(link)
        else:
            link.unlink(missing_ok=True)
        _sync(self.folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
