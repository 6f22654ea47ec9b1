"""The authority: a key, a certificate, and a list of what it issued, in one folder.

```
ca.pem  ca.key (0600)  issued.json  crl.pem
```
Rules: P-256 keys; nothing is ever overwritten but the lists; a key leaves the folder never, or, of a device, once. A
device's certificate has its id as common name and is good for clients only, a broker's for servers only.
"""

import ipaddress
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tocsin.config import TOPIC_ID
from tocsin.errors import ConfigError, TocsinError

CA_DAYS, DAYS = 3650, 825
_BACK = timedelta(hours=1)  # clocks of devices may be behind


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate.

    Attributes:
        serial: number, hexadecimal.
        name: device id, or first host of a broker.
        kind: `device` or `broker`.
        until: last day, ISO 8601.
        revoked: when, ISO 8601, or None.
    """

    serial: str
    name: str
    kind: str
    until: str
    revoked: str | None = None


class Authority:
    """An authority in a folder; made when the folder has none.

    Args:
        folder: made, for its owner only, when missing.
        make: make one where there is none.

    Raises:
        ConfigError: there is none and none is to be made; what is there is damaged.
        TocsinError: the folder cannot be written; the authority has expired.
    """

    def __init__(self, folder: Path, make: bool = True) -> None:
        self.folder = folder
        if not (folder / "ca.key").exists():
            if not make:
                raise ConfigError(f"{folder}: no authority there (ca.pem, ca.key): tocsin fleet enroll makes one")
            self._make()
        try:
            self.certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
            lines = json.loads((folder / "issued.json").read_text("utf-8"))
            self.issued = [Issued(**line) for line in lines]
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(f"{folder}: the authority cannot be read: {error}: take it from your backup") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self.certificate.public_key():
            raise ConfigError(f"{folder}: ca.key is not the key of ca.pem: take both from your backup")
        self._key = key
        if self.certificate.not_valid_after_utc < datetime.now(UTC):
            until = f"{self.certificate.not_valid_after_utc:%Y-%m-%d}"
            raise TocsinError(
                f"{folder}: the authority expired on {until}: enroll all devices with another, in a new folder"
            )

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            key = ec.generate_private_key(ec.SECP256R1())
            name = _name(f"Tocsin authority {os.urandom(4).hex()}")  # two of one name would be taken for each other
            usage = _usage(certificates=True)
            builder = _builder(name, name, key.public_key(), CA_DAYS)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            certificate = builder.add_extension(usage, critical=True).sign(key, SHA256())
            write_key(self.folder / "ca.key", key)
            (self.folder / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
            (self.folder / "issued.json").write_text("[]\n", "utf-8")
        except OSError as error:
            raise TocsinError(f"{self.folder}: no authority can be made there: {error}") from error
        self._write_crl(key, certificate, [])

    def device(self, device: str, days: int = DAYS) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
        """A certificate and its key for a device.

        Raises:
            ConfigError: not an id, or one that has a certificate already.
        """
        if not re.fullmatch(TOPIC_ID, device):
            raise ConfigError(f"expected a device id: lower-case letters, digits and hyphens, 1 to 64; got {device!r}")
        has = next((one for one in self.issued if (one.kind, one.name, one.revoked) == ("device", device, None)), None)
        if has is not None:
            raise ConfigError(
                f"{device} has a certificate until {has.until}: revoke that first (tocsin fleet revoke {device}), so "
                "that a lost one cannot speak for it"
            )
        return self._issue(device, "device", ExtendedKeyUsageOID.CLIENT_AUTH, [], days)

    def broker(self, hosts: Sequence[str], days: int = DAYS) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
        """A certificate and its key for a broker that devices reach by these names or addresses."""
        return self._issue(hosts[0], "broker", ExtendedKeyUsageOID.SERVER_AUTH, [_host(host) for host in hosts], days)

    def _issue(
        self, name: str, kind: str, usage: x509.ObjectIdentifier, hosts: list[x509.GeneralName], days: int
    ) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(name), self.certificate.subject, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        made = builder.sign(self._key, SHA256())
        until = f"{made.not_valid_after_utc:%Y-%m-%d}"
        self.issued.append(Issued(f"{made.serial_number:x}", name, kind, until))
        self._keep()
        return made.public_bytes(Encoding.PEM), key

    def revoke(self, device: str) -> int:
        """Takes back all certificates of a device; how many.

        Raises:
            ConfigError: it has none.
        """
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S+00:00}"
        mine = [one for one in self.issued if (one.kind, one.name, one.revoked) == ("device", device, None)]
        if not mine:
            known = ", ".join(sorted({one.name for one in self.issued if one.kind == "device"})) or "none"
            raise ConfigError(f"{device!r} has no certificate to revoke: there are devices {known}")
        self.issued = [
            Issued(one.serial, one.name, one.kind, one.until, now) if one in mine else one for one in self.issued
        ]
        self._keep()
        self._write_crl(self._key, self.certificate, self.issued)
        return len(mine)

    def _keep(self) -> None:
        lines = json.dumps([asdict(one) for one in self.issued], indent=1)
        _replace(self.folder / "issued.json", lines.encode() + b"\n")

    def _write_crl(
        self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, issued: Sequence[Issued]
    ) -> None:
        """Good as long as the authority: a broker refuses everybody by a list that has expired."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(certificate.subject)
        builder = builder.last_update(now - _BACK).next_update(certificate.not_valid_after_utc)
        for one in issued:
            if one.revoked is not None:
                entry = x509.RevokedCertificateBuilder().serial_number(int(one.serial, 16))
                builder = builder.add_revoked_certificate(
                    entry.revocation_date(datetime.fromisoformat(one.revoked)).build()
                )
        _replace(self.folder / "crl.pem", builder.sign(key, SHA256()).public_bytes(Encoding.PEM))


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """A private key, for its owner only; a file that is there is never overwritten.

    Raises:
        OSError: it is there, or cannot be written.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(content)
    fresh.replace(path)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - _BACK)
    return builder.not_valid_after(now + timedelta(days=days))


def _usage(certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
