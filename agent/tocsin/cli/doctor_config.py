"""What `tocsin doctor` looks at in the agent's settings: broker, bundles, sources against bundles."""

import os
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tocsin.chatter import RUNTIME, without_chatter
from tocsin.cli.sources import kinds
from tocsin.config import AssetSettings, BrokerSettings
from tocsin.config_check import check_asset, check_recordings
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.delivery.connection import CONNECT_TIMEOUT_S, Access
from tocsin.errors import BrokerError, ConfigError, TocsinError
from tocsin.records import Finding

SOON_S = 30 * 86400.0


def broker(settings: BrokerSettings, key: str = "mqtt") -> Iterator[Finding]:
    """Whether the agent could deliver: it connects, says nothing, and leaves.

    Args:
        settings: of the broker.
        key: where they stand.
    """
    name = "broker" if key == "mqtt" else key
    try:
        access = Access.read(settings)
    except ConfigError as error:
        yield Finding(name, str(error), "bad", f"mend {key}: in the file")
        return
    try:
        connection = access.connect(f"tocsin-doctor-{os.urandom(6).hex()}", lambda _: None)
    except BrokerError as error:
        mend = f"start the broker, try tocsin mqtt sub --host {access.host} --port {access.port}, look at its log"
        yield Finding(name, str(error), "bad", mend)
        return
    connection.close()
    found = f"{access.host}:{access.port} takes this device, MQTT {connection.protocol}"
    if access.tls is not None:
        yield _certificate(name, access, access.tls, found)
    elif settings.on_this_machine:
        yield Finding(name, found)
    else:
        yield Finding(name, f"{found}, without TLS", "note", f"set {key}.tls: what is sent can be read and changed")


def _certificate(name: str, access: Access, tls: ssl.SSLContext, found: str) -> Finding:
    """How long the broker's certificate will do."""
    try:
        with (
            socket.create_connection((access.host, access.port), CONNECT_TIMEOUT_S) as raw,
            tls.wrap_socket(raw, server_hostname=access.host) as secured,
        ):
            version, certificate = secured.version(), secured.getpeercert() or {}
    except OSError as error:
        return Finding(name, f"{found}; its certificate cannot be read: {error}", "note", "look at the broker's log")
    until_s = float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))
    found = f"{found}, {version}, certificate until {datetime.fromtimestamp(until_s, UTC):%Y-%m-%d}"
    if until_s - time.time() < SOON_S:
        return Finding(name, found, "note", "renew the broker's certificate: then nothing is delivered any more")
    return Finding(name, found)


def assets(given: tuple[AssetSettings, ...]) -> Iterator[Finding]:
    """Every asset: its bundle's golden windows here, and whether its sources go with it."""
    usable = {kind.type: kind for kind in kinds()}
    for n, asset in enumerate(given):
        for source in asset.streams().values():
            kind = usable[source.type]
            if not kind.usable:
                yield Finding(f"source {source.type}", "what it needs is not installed", "bad", kind.mend)
        finding, bundle = tested(asset.bundle)
        yield finding
        if bundle is None:
            continue
        try:
            check_asset(f"assets[{n}]", asset, bundle.manifest)
            check_recordings(f"assets[{n}]", asset, bundle.manifest)
        except TocsinError as error:
            said, _, mend = str(error).rpartition(": ")
            yield Finding(f"asset {asset.id}", said, "bad", mend)
            continue
        yield Finding(f"asset {asset.id}", "channels, units and rate of its source are the bundle's")


def tested(path: Path) -> tuple[Finding, Bundle | None]:
    """Whether a bundle is whole and scores here as where it was made; the bundle, where it can be read."""
    try:
        bundle = load_bundle(path)
        with without_chatter(*RUNTIME):
            test = bundle.self_test()
    except TocsinError as error:
        return Finding("bundle", str(error), "bad", "copy it again, or train anew"), None
    found = f"{path.name}: {test.windows} golden windows, worst difference {test.worst:.2g}"
    if test.passed:
        return Finding("bundle", found), bundle
    return Finding("bundle", found, "bad", f"tocsin model verify {path}"), bundle
