"""TLS with certificates of both sides, on a real mosquitto."""

import subprocess
from pathlib import Path

import pytest

from tocsin.cli.doctor_config import broker as doctor_broker
from tocsin.config import MqttSettings

pytestmark = [pytest.mark.broker, pytest.mark.tls]  # openssl makes the certificates


def openssl(folder: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> None:
    openssl(
        folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem",
    )  # fmt: skip


def certificate(folder: Path, name: str, signer: str) -> None:
    openssl(
        folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
        "-keyout", f"{name}.key", "-out", f"{name}.csr",
    )  # fmt: skip
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{signer}.pem", "-CAkey", f"{signer}.key",
        "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", f"{name}.pem",
    )  # fmt: skip


@pytest.fixture
def secured(broker, tmp_path):
    for name in ("ca", "other"):
        authority(tmp_path, name)
    certificate(tmp_path, "server", "ca")
    certificate(tmp_path, "edge-1", "ca")
    broker.extra = [
        f"cafile {tmp_path}/ca.pem",
        f"certfile {tmp_path}/server.pem",
        f"keyfile {tmp_path}/server.key",
        "require_certificate true",
        "use_identity_as_username true",
    ]
    broker.start()
    return tmp_path


def test_a_device_with_a_certificate_delivers_and_one_without_says_why_it_cannot(
    secured, broker, publish, outbox, until
):
    own = {"cert_file": str(secured / "edge-1.pem"), "key_file": str(secured / "edge-1.key")}
    outbox.put("alarm/a", b'{"a":1}', retain=True)
    stranger = publish(broker.port, tls={"ca_file": str(secured / "ca.pem")})
    until(lambda: stranger.statistics.last_error != "")
    stranger.stop()
    assert not stranger.statistics.connected and stranger.statistics.outbox_depth == 1
    device = publish(broker.port, tls={"ca_file": str(secured / "ca.pem"), **own})
    until(lambda: device.statistics.acknowledged == 1)


def test_a_broker_of_another_authority_is_not_trusted(secured, broker, publish, until):
    publisher = publish(broker.port, tls={"ca_file": str(secured / "other.pem")})
    until(lambda: "certificate verify failed" in publisher.statistics.last_error.lower())
    assert publisher.statistics.connects == 0


def test_doctor_says_how_long_the_brokers_certificate_will_do(secured, broker):
    own = {"cert_file": str(secured / "edge-1.pem"), "key_file": str(secured / "edge-1.key")}
    mqtt = {"host": "127.0.0.1", "port": broker.port}
    (good,) = doctor_broker(MqttSettings.model_validate(mqtt | {"tls": {"ca_file": str(secured / "ca.pem"), **own}}))
    assert good.state == "note" and "TLSv1.3, certificate until 20" in good.found and good.mend.startswith("renew")
    (other,) = doctor_broker(
        MqttSettings.model_validate(mqtt | {"tls": {"ca_file": str(secured / "other.pem"), **own}})
    )
    assert other.state == "bad" and "certificate" in other.found.lower()
    (missing,) = doctor_broker(MqttSettings.model_validate(mqtt | {"tls": {"ca_file": "/nowhere.pem"}}))
    assert missing.state == "bad" and "mqtt.tls.ca_file" in missing.found
