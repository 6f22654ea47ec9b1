"""`tocsin fleet`: certificates for devices and their broker, from a small own authority."""

from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from tocsin.errors import TocsinError
from tocsin_fleet.authority.authority import DAYS, Authority, write_key

CA = click.option("--ca", "folder", type=click.Path(path_type=Path, file_okay=False), default="tocsin-ca",
                  show_default=True, help="Folder of the authority: keep it off the network.")  # fmt: skip
VALID = click.option("--days", type=click.IntRange(1, 3650), default=DAYS, show_default=True, help="It is good for.")


def _out(name: str) -> Path:
    return Path("certificates") / name


@click.command()
@click.argument("device")
@CA
@VALID
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the device's files.  [default: certificates/DEVICE]",
)
def enroll(device: str, folder: Path, days: int, out: Path | None) -> None:
    """Make a certificate for DEVICE; the first time also the authority.

    Copy the three files to the device and delete the key here: it is needed nowhere else. People and programs get
    theirs the same way: `operator` may command devices, `inbox` acknowledge events (see firmware_config/broker/acl).

    \b
    Example:
      tocsin fleet enroll edge-1 --ca tocsin-ca
    """  # fmt: skip
    where = out or _out(device)
    authority = Authority(folder)
    _refuse_to_overwrite(where, "device")
    _write(authority, where, "device", *authority.device(device, days))
    click.echo(f"written to {where}: ca.pem device.pem device.key; in tocsin.yaml of {device}:", err=True)
    lines = (
        "mqtt:",
        "  host: NAME-OF-THE-BROKER",
        "  tls:",
        "    ca_file: /etc/tocsin/ca.pem",
        "    cert_file: /etc/tocsin/device.pem",
        "    key_file: /etc/tocsin/device.key",
    )
    click.echo(f"device: {device}\n" + "\n".join(lines))


@click.command()
@click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    help="Name or address by which devices reach it; may be given again.",
)
@CA
@VALID
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the broker's files.  [default: certificates/broker]",
)
def broker(hosts: tuple[str, ...], folder: Path, days: int, out: Path | None) -> None:
    """Make a certificate for the broker, with the list of revoked ones.

    \b
    Example:
      tocsin fleet broker --host broker.local --host 192.168.1.10
    """  # fmt: skip
    where = out or _out("broker")
    authority = Authority(folder)
    _refuse_to_overwrite(where, "server")
    _write(authority, where, "server", *authority.broker(hosts, days))
    (where / "crl.pem").write_bytes((folder / "crl.pem").read_bytes())
    click.echo(f"written to {where}: ca.pem crl.pem server.pem server.key", err=True)


@click.command()
@click.argument("device")
@CA
def revoke(device: str, folder: Path) -> None:
    """Take back the certificate of DEVICE: it was lost, stolen or sold.

    \b
    Example:
      tocsin fleet revoke edge-1 --ca tocsin-ca
    """
    count = Authority(folder, make=False).revoke(device)
    click.echo(f"{count} revoked: copy {folder / 'crl.pem'} to the broker and restart it", err=True)


@click.command(name="list")
@CA
def list_(folder: Path) -> None:
    """Every certificate: of whom, until when, and whether it was revoked.

    \b
    Example:
      tocsin fleet list --ca tocsin-ca
    """
    for one in Authority(folder, make=False).issued:
        click.echo(
            f"{one.name:<24} {one.kind:<8} until {one.until}" + (f"  revoked {one.revoked}" if one.revoked else "")
        )


def _refuse_to_overwrite(where: Path, stem: str) -> None:
    """Before anything is issued."""
    if (where / f"{stem}.key").exists():
        raise TocsinError(f"{where / stem}.key is there, and never overwritten: move it away, or give --out")


def _write(authority: Authority, where: Path, stem: str, certificate: bytes, key: EllipticCurvePrivateKey) -> None:
    try:
        where.mkdir(parents=True, mode=0o700, exist_ok=True)
        write_key(where / f"{stem}.key", key)
        (where / f"{stem}.pem").write_bytes(certificate)
        (where / "ca.pem").write_bytes((authority.folder / "ca.pem").read_bytes())
    except OSError as error:
        raise TocsinError(f"{where}: cannot be written: {error}") from error


COMMANDS = (enroll, broker, revoke, list_)
