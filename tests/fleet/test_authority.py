"""Certificates from the own authority, on a real mosquitto with the set-up that is shipped."""

import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tocsin.cli.doctor_config import broker as doctor_broker
from tocsin.config import MqttSettings
from tocsin.delivery.outbox import Outbox
from tocsin.delivery.publisher import Publisher
from tocsin.delivery.wire import AgentInfo, HardwareInfo, Health, Info, rfc3339
from tocsin.errors import ConfigError, TocsinError
from tocsin_fleet.authority import authority as module
from tocsin_fleet.authority.authority import Authority

SETUP = Path(__file__).parents[2] / "firmware_config/broker"


def fleet(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tocsin.cli.main", "fleet", *map(str, words)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def made(*words: object) -> str:
    done = fleet(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Secured:
    """A broker with the shipped set-up, and certificates for it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.ca = folder, port, folder / "ca"
        self._process: subprocess.Popen[bytes] | None = None
        made("broker", "--host", "127.0.0.1", "--ca", self.ca, "--out", folder / "broker")
        shutil.copy(SETUP / "acl", folder / "broker/acl")
        for path in (folder / "broker").iterdir():
            path.chmod(0o600)

    def enroll(self, device: str, ca: Path | None = None, days: int = 10) -> Path:
        out = self.folder / f"{device}-{time.monotonic_ns()}"
        made("enroll", device, "--ca", ca or self.ca, "--out", out, "--days", days)
        return out

    def start(self, until: Callable[..., None]) -> None:
        text = (SETUP / "mosquitto.conf").read_text().replace("/etc/mosquitto/tocsin", str(self.folder / "broker"))
        text = text.replace("listener 8883", f"listener {self.port} 127.0.0.1") + "user root\n"
        (self.folder / "mosquitto.conf").write_text(text)
        log = (self.folder / "broker.log").open("ab")
        binary = shutil.which("mosquitto") or "mosquitto"
        self._process = subprocess.Popen([binary, "-c", self.folder / "mosquitto.conf", "-v"], stdout=log, stderr=log)
        until(lambda: "running" in (self.folder / "broker.log").read_text())

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def settings(self, files: Path | None, ca: Path | None = None, host: str = "127.0.0.1") -> dict[str, Any]:
        tls = {"ca_file": str((ca or self.ca) / "ca.pem")}
        if files is not None:
            tls |= {"cert_file": str(files / "device.pem"), "key_file": str(files / "device.key")}
        return {"host": host, "port": self.port, "tls": tls}


@pytest.fixture
def secured(tmp_path: Path, unused_port: int, until: Callable[..., None]) -> Iterator[Secured]:
    found = Secured(tmp_path, unused_port)
    found.start(until)
    yield found
    found.stop()


@pytest.fixture
def deliver(tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    """Starts publishers with an outbox each."""
    started: list[tuple[Publisher, Outbox]] = []

    def start(settings: dict[str, Any], device: str) -> Publisher:
        box = Outbox(tmp_path / f"outbox-{len(started)}.db")
        box.put("event/alarm", b'{"a": 1}')
        box.put("alarm/a", b'{"a": 1}', retain=True)
        info = Info(device=device, agent=AgentInfo(version="0", python="3"), hw=HardwareInfo(arch="x", cpus=1), os="t")
        health = Health(time=rfc3339(0), status="ok", uptime_s=0, clock_synced=True)
        publisher = Publisher(MqttSettings.model_validate(settings), device, box, info, lambda: health)
        publisher.start()
        started.append((publisher, box))
        return publisher

    yield start
    for publisher, box in started:
        publisher.stop(1.0)
        box.close()


@pytest.mark.broker
def test_an_enrolled_device_delivers_under_its_own_name_and_nowhere_else(secured, deliver, until) -> None:
    files = secured.enroll("edge-1")
    own = deliver(secured.settings(files), "edge-1")
    until(lambda: own.statistics.connected and "alarm/a" not in " ".join(own.statistics.held))
    until(lambda: own.statistics.acknowledged >= 1)
    own.stop()
    other = deliver(secured.settings(files), "edge-2")
    until(lambda: len(other.statistics.held) == 2)
    assert all("0x87" in held for held in other.statistics.held) and other.statistics.outbox_depth == 2


def expired(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(module, "_BACK", timedelta(days=30))
    monkeypatch.setattr(module, "datetime", Past)
    pem, key = Authority(secured.ca, make=False).device("old", days=1)
    folder = secured.folder / "old"
    folder.mkdir()
    (folder / "device.pem").write_bytes(pem)
    module.write_key(folder / "device.key", key)
    return secured.settings(folder)


class Past(datetime):
    """Ten days ago."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) - timedelta(days=10)


def revoked(secured: Secured, until: Callable[..., None]) -> dict[str, Any]:
    files = secured.enroll("lost")
    made("revoke", "lost", "--ca", secured.ca)
    shutil.copy(secured.ca / "crl.pem", secured.folder / "broker/crl.pem")
    secured.stop()
    (secured.folder / "broker.log").write_text("")
    secured.start(until)
    return secured.settings(files)


@pytest.mark.broker
@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("revoked", "this device's certificate was revoked: enroll the device anew"),
        ("expired", "this device's certificate has expired: renew `mqtt.tls.cert_file`"),
        ("stranger", "does not know the authority of this device's certificate"),
        ("none", "the broker wants a certificate: give `mqtt.tls.cert_file`"),
        ("wrong ca", "another authority signed the broker's certificate: `mqtt.tls.ca_file`"),
        ("wrong name", "the broker's certificate is for another name"),
    ],
)
def test_each_certificate_that_does_not_do_has_its_own_error_and_costs_no_message(
    secured, deliver, until, monkeypatch, case: str, says: str
) -> None:
    if case == "revoked":
        settings = revoked(secured, until)
    elif case == "expired":
        settings = expired(secured, monkeypatch)
    elif case == "stranger":
        settings = secured.settings(secured.enroll("edge-1", ca=secured.folder / "other"))
    elif case == "none":
        settings = secured.settings(None)
    elif case == "wrong ca":
        secured.enroll("x", ca=secured.folder / "other")
        settings = secured.settings(secured.enroll("edge-1"), ca=secured.folder / "other")
    else:
        settings = secured.settings(secured.enroll("edge-1"), host="localhost")
    publisher = deliver(settings, "edge-1")
    until(lambda: publisher.statistics.last_error != "", 30)
    assert says in publisher.statistics.last_error
    assert publisher.statistics.outbox_depth == 2 and publisher.statistics.connects == 0
    findings = doctor_broker(MqttSettings.model_validate(settings))
    assert any(says in finding.found + finding.mend for finding in findings if finding.state == "bad"), findings


def test_keys_are_private_and_certificates_are_good_for_one_side(tmp_path: Path) -> None:
    made("enroll", "edge-1", "--ca", tmp_path / "ca", "--out", tmp_path / "d")
    made("broker", "--host", "broker.local", "--host", "10.0.0.1", "--ca", tmp_path / "ca", "--out", tmp_path / "b")
    for path in (tmp_path / "ca/ca.key", tmp_path / "d/device.key", tmp_path / "b/server.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    device, server = (
        x509.load_pem_x509_certificate((tmp_path / p).read_bytes()) for p in ("d/device.pem", "b/server.pem")
    )
    usages = [set(c.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) for c in (device, server)]
    assert usages == [{ExtendedKeyUsageOID.CLIENT_AUTH}, {ExtendedKeyUsageOID.SERVER_AUTH}]
    assert device.subject.rfc4514_string() == "CN=edge-1"
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.local"]
    assert device.not_valid_after_utc > datetime.now(UTC) + timedelta(days=800)
    listed = made("list", "--ca", tmp_path / "ca").splitlines()
    assert [line.split()[:2] for line in listed] == [["edge-1", "device"], ["broker.local", "broker"]]


def test_nothing_is_overwritten_and_each_mistake_is_told(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    made("enroll", "edge-1", "--ca", ca, "--out", tmp_path / "d")
    before = (ca / "ca.key").read_bytes(), (tmp_path / "d/device.key").read_bytes()
    twice = fleet("enroll", "edge-1", "--ca", ca, "--out", tmp_path / "e")
    assert twice.returncode == 3 and "revoke that first (tocsin fleet revoke edge-1)" in twice.stderr
    there = fleet("enroll", "edge-2", "--ca", ca, "--out", tmp_path / "d")
    assert there.returncode == 1 and "never overwritten" in there.stderr
    wrong = fleet("enroll", "Edge 1", "--ca", ca, "--out", tmp_path / "e")
    assert wrong.returncode == 3 and "expected a device id" in wrong.stderr
    assert (before[0], before[1]) == ((ca / "ca.key").read_bytes(), (tmp_path / "d/device.key").read_bytes())
    assert "no authority there" in fleet("revoke", "edge-1", "--ca", tmp_path / "none").stderr
    assert "has no certificate to revoke: there are devices edge-1" in fleet("revoke", "edge-9", "--ca", ca).stderr
    made("revoke", "edge-1", "--ca", ca)
    made("enroll", "edge-1", "--ca", ca, "--out", tmp_path / "again")
    with pytest.raises(ConfigError, match="expected a device id"):
        Authority(ca).device("../x")


def test_an_authority_that_expired_or_is_damaged_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CA_DAYS", 1)
    monkeypatch.setattr(module, "_BACK", timedelta(days=30))
    with monkeypatch.context() as past:
        past.setattr(module, "datetime", Past)
        Authority(tmp_path / "old")
    with pytest.raises(TocsinError, match="the authority expired on 20"):
        Authority(tmp_path / "old")
    Authority(tmp_path / "a")
    shutil.copy(tmp_path / "old/ca.key", tmp_path / "a/ca.key")
    with pytest.raises(ConfigError, match=r"ca\.key is not the key of ca\.pem"):
        Authority(tmp_path / "a")
    (tmp_path / "a/ca.pem").write_text("none")
    with pytest.raises(ConfigError, match="cannot be read"):
        Authority(tmp_path / "a")
