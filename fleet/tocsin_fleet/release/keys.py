"""The keys of a repository: Ed25519, one encrypted file each.

```
keys/root-1.pem root-2.pem root-3.pem targets.pem        offline: two of the root keys change who is trusted
keys/models.pem                                          signs bundles
keys/snapshot.pem timestamp.pem rollout.pem              online: keep it fresh, and choose among signed bundles
```
Rules: no key is ever written unencrypted; a passphrase comes from a file or a question, never from the command line.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

from tocsin.errors import TocsinError

SHORTEST = 8  # characters of a passphrase


class SigningError(TocsinError):
    """A key is missing, or cannot be read with this passphrase."""

    exit_code = 7


class Keys:
    """Folders of keys.

    Args:
        folders: where to look, the first one is where new keys are written.
        passphrase: asked once, when the first key is used.
    """

    def __init__(self, folders: Iterable[Path], passphrase: Callable[[], str]) -> None:
        self.folders, self._ask = tuple(folders), passphrase
        self._passphrase: bytes | None = None
        self._known: dict[str, Signer] = {}

    def _secret(self) -> bytes:
        if self._passphrase is None:
            said = self._ask()
            if len(said) < SHORTEST:
                raise SigningError(f"passphrase: expected {SHORTEST} characters at least, got {len(said)}")
            self._passphrase = said.encode()
        return self._passphrase

    def make(self, name: str) -> Signer:
        """A new key, in a file of its own.

        Raises:
            SigningError: there is a key of that name.
        """
        folder = self.folders[0]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        private = Ed25519PrivateKey.generate()
        content = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(self._secret()))
        try:
            handle = os.open(folder / f"{name}.pem", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise SigningError(f"{folder / name}.pem is there already: move it away to make another") from error
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        signer = CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))
        self._known[signer.public_key.keyid] = signer
        return signer

    def signers(self, keyids: Iterable[str]) -> Iterator[Signer]:
        """Those of some keys that are here."""
        wanted = set(keyids)
        if not wanted <= set(self._known):
            self._load()
        yield from (signer for keyid, signer in self._known.items() if keyid in wanted)

    def _load(self) -> None:
        for path in sorted(path for folder in self.folders for path in folder.glob("*.pem")):
            try:
                private = load_pem_private_key(path.read_bytes(), self._secret())
            except (ValueError, TypeError) as error:
                raise SigningError(
                    f"{path}: cannot be read with this passphrase, or is no key of a repository"
                ) from error
            if isinstance(private, Ed25519PrivateKey):
                signer = CryptoSigner(private, SSlibKey.from_crypto(private.public_key()))
                self._known.setdefault(signer.public_key.keyid, signer)
