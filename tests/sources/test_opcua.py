"""Values of an OPC UA server: a real one, in this process."""

import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asyncua import ua
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.user_managers import UserManager
from cryptography.x509.oid import ExtendedKeyUsageOID
from pydantic import ValidationError

from tocsin.core.bundle import load_bundle
from tocsin.errors import SourceError
from tocsin.pipeline import AssetLine
from tocsin.recordings import TableOptions, open_table, read_table
from tocsin.records import Change, Channel, SampleBlock
from tocsin.sources import opcua
from tocsin.sources.opcua import OpcuaSettings, OpcuaSource

DATA = Path(__file__).parents[1] / "data"
CHANNELS = [
    {"name": "pressure", "unit": "bar", "node": "nsu=http://plant/;s=pressure"},
    {"name": "flow", "unit": "l/min", "node": "ns=2;s=flow", "scale": 60.0, "offset": 1.0},
]
SECURE = [ua.SecurityPolicyType.Basic256Sha256_Sign, ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt]


@pytest.fixture
def plc(opcua_server: Any) -> Any:
    for node in ("pressure", "flow"):
        opcua_server.write(node, 1.0)
    return opcua_server


def the_settings(url: str, **others: Any) -> OpcuaSettings:
    known = {"type": "opcua", "url": url, "rate_hz": 20, "publishing": "50ms", "channels": CHANNELS}
    return OpcuaSettings.model_validate({**known, **others})


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Iterator[Callable[..., OpcuaSource]]:
    made: list[OpcuaSource] = []

    def make(url: str, **others: Any) -> OpcuaSource:
        made.append(OpcuaSource(the_settings(url, **others)))
        made[-1].open()
        return made[-1]

    yield make
    for source in made:
        source.close()


def read_for(source: OpcuaSource, seconds: float) -> SampleBlock:
    blocks, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        blocks.append(source.read(0.05))
    bad = [np.zeros(b.values.shape, bool) if b.bad is None else b.bad for b in blocks]
    return SampleBlock(
        np.concatenate([b.time_s for b in blocks]),
        np.concatenate([b.values for b in blocks]),
        bad=np.concatenate(bad),
        step_s=sum(b.step_s for b in blocks),
    )


def read_until(source: OpcuaSource, fact: Callable[[SampleBlock], bool], timeout_s: float = 10.0) -> SampleBlock:
    end = time.monotonic() + timeout_s
    while True:
        block = source.read(0.05)
        if len(block) and fact(block):
            return block
        assert time.monotonic() < end, "it did not come in time"


def test_values_have_their_scale_and_what_does_not_change_is_held(plc, opened):
    source = opened(plc.url)
    block = read_for(source, 1.0)
    assert source.channels == (Channel("pressure", "bar"), Channel("flow", "l/min"))
    assert len(block) >= 10 and (block.values == [1.0, 61.0]).all()
    np.testing.assert_allclose(np.diff(block.time_s), 0.05, atol=0.011)
    assert abs(block.time_s[-1] - time.time()) < 1.5


def test_the_source_stamps_are_those_of_the_rows(plc, opened):
    begin = 1_780_000_000.0  # the clock of the sensor, far from ours
    source = opened(plc.url, rate_hz=10)
    read_for(source, 0.2)
    sent = begin + np.arange(12) / 10
    for n, at_s in enumerate(sent):
        plc.write("pressure", 10.0 + n, at_s)
        plc.write("flow", 10.0 + n, at_s + 0.01)
        time.sleep(0.1)
    block = read_for(source, 0.8)
    of = {value: at_s for at_s, value in zip(block.time_s, block.values[:, 0], strict=True) if value >= 10}
    told = np.array([of[10.0 + n] for n in range(3, 11)])
    np.testing.assert_allclose(told, sent[3:11] + 0.01, atol=0.03)
    assert source.counts.clock_steps >= 1


def test_the_stamps_survive_to_the_alarm(plc, opened):
    """The recording, 20 times as fast as it was made, by a bundle that is told so."""
    bundle = load_bundle(DATA / "small.tocsin")
    (group,) = bundle.manifest.groups.groups
    faster = 20 * group.sample_rate_hz
    group = dataclasses.replace(group, sample_rate_hz=faster, max_gap_s=1.0, max_age_s=1.0)
    groups = dataclasses.replace(bundle.manifest.groups, groups=(group,))
    bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, groups=groups))
    table = open_table(DATA / "faults.csv", TableOptions(), bundle.manifest.channels)
    rows = next(read_table(table)).block.values[90:190]
    channels = [{**c, "scale": 1, "offset": 0} for c in CHANNELS]
    for node in ("pressure", "flow"):
        plc.write(node, 0.0, status=ua.StatusCodes.BadWaitingForInitialData)
    source = opened(plc.url, rate_hz=faster, sampling="1ms", publishing="400ms", channels=channels)
    line, scored = AssetLine("pump-1", bundle, source.channels), []
    sent = SampleBlock(round(time.time(), 3) + np.arange(len(rows)) / faster, rows)
    for at_s, (pressure, flow) in zip(sent.time_s.tolist(), sent.values.tolist(), strict=True):
        while time.time() < at_s:
            scored += line.feed(source.read(0.01))
        plc.write("pressure", pressure, at_s)
        plc.write("flow", flow, at_s)
    scored += line.feed(read_for(source, 1.5))
    (alarm,) = (transition for part in scored for transition in part.transitions)
    file_line = AssetLine("pump-1", bundle, bundle.manifest.channels)
    (expected,) = (transition for part in file_line.feed(sent) for transition in part.transitions)
    assert alarm.change == expected.change == Change.RAISED
    assert alarm.time_s == pytest.approx(expected.time_s, abs=1e-5)
    assert alarm.window_start_s == pytest.approx(expected.window_start_s, abs=1e-5)


def test_a_bad_status_is_no_value_is_marked_and_counted_by_name(plc, opened):
    source = opened(plc.url)
    read_until(source, lambda b: b.values[-1, 0] == 1.0)
    plc.write("pressure", 99.0, status=ua.StatusCodes.BadSensorFailure)
    block = read_until(source, lambda b: bool(np.isnan(b.values[-1, 0])))
    assert block.bad is not None and block.bad[-1].tolist() == [True, False] and block.values[-1, 1] == 61.0
    plc.write("pressure", 5.0, status=ua.StatusCodes.UncertainLastUsableValue)
    read_until(source, lambda b: b.values[-1, 0] == 5.0)
    assert dict(source.counts.reasons) == {"BadSensorFailure": 1} and source.counts.bad == 1


@pytest.mark.parametrize("node", ["text", "array", "nothing", "nan", "infinite", "moment"])
def test_a_value_that_is_no_number_is_none_and_counted(plc, opened, node):
    source = opened(plc.url, channels=[{"name": "x", "node": f"ns=2;s={node}"}])
    block = read_until(source, lambda b: bool(np.isnan(b.values[-1, 0])))
    assert block.bad is not None and block.bad[-1, 0] and dict(source.counts.reasons) == {"no number": 1}


def test_numbers_of_all_kinds_and_truth_are_read(plc, opened):
    nodes = ["true", "integer", "large", "flow"]
    source = opened(plc.url, channels=[{"name": node, "node": f"ns=2;s={node}"} for node in nodes])
    block = read_until(source, lambda b: bool(np.isfinite(b.values[-1]).all()))
    assert block.values[-1].tolist() == [1.0, -7.0, 2.0**63, 1.0]


def test_a_server_that_starts_again_is_followed_within_five_seconds(plc, opened):
    source = opened(plc.url)
    read_until(source, lambda b: b.values[-1, 0] == 1.0)
    plc.stop()
    with pytest.raises(SourceError, match=r"OPC UA server opc\.tcp://127"):
        read_for(source, 5.0)
    source.close()
    with pytest.raises(SourceError, match="is it running"):
        source.open()
    plc.start_again()
    begin = time.monotonic()
    source.open()
    plc.write("pressure", 8.0)
    block = read_until(source, lambda b: b.values[-1, 0] == 8.0)
    assert time.monotonic() - begin < 5
    assert abs(block.time_s[-1] - time.time()) < 1.5


def test_the_end_of_a_session_is_told_however_much_came_before_it(plc, opened, until, monkeypatch):
    monkeypatch.setattr(opcua, "_MOST_WAITING", 1)  # as many values wait as are read at once
    source = opened(plc.url)
    waiting = source._session.events

    def a_value_waits() -> bool:
        plc.write("pressure", time.monotonic())
        return waiting.qsize() == 1

    until(a_value_waits)
    plc.stop()
    until(lambda: waiting.qsize() == 2)
    with pytest.raises(SourceError, match=r"OPC UA server opc\.tcp://127"):
        read_for(source, 0.5)
    plc.start_again()


def test_a_node_or_namespace_that_is_not_there_is_told(plc):
    for node, said in (
        ("ns=2;s=absent", "node ns=2;s=absent: BadNodeIdUnknown"),
        ("nsu=http://other/;s=flow", "no namespace http://other/"),
        ("flow", "expected a node id such as"),
    ):
        with pytest.raises(SourceError, match=said):
            OpcuaSource(the_settings(plc.url, channels=[{"name": "x", "node": node}])).open()


def test_a_server_that_does_not_answer_is_told_within_the_time(unused_port):
    import socket

    with socket.create_server(("127.0.0.1", unused_port)):
        begin = time.monotonic()
        with pytest.raises(SourceError, match=r"no answer within 0\.5 s"):
            OpcuaSource(the_settings(f"opc.tcp://127.0.0.1:{unused_port}", timeout_s=0.5)).open()
        assert time.monotonic() - begin < 4


def test_noise_in_place_of_an_answer_is_a_source_error(unused_port):
    import socket

    rng = np.random.default_rng(0)
    with socket.create_server(("127.0.0.1", unused_port)) as server:

        def answer() -> None:
            for n in range(10):
                peer, _ = server.accept()
                with peer:
                    head = [b"", b"ACKF\x1c\0\0\0", b"ERRF\x10\0\0\0", b"MSGF\xff\0\0\0"][n % 4]
                    peer.recv(100)
                    peer.sendall(head + rng.bytes(200))

        noisy = threading.Thread(target=answer)
        noisy.start()
        for _ in range(10):
            with pytest.raises(SourceError):
                OpcuaSource(the_settings(f"opc.tcp://127.0.0.1:{unused_port}", timeout_s=0.3)).open()
        noisy.join()


class Users(UserManager):
    """Anna with her password, and who has the certificate."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate

    def get_user(self, _server: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:
        known = (username, password) == ("anna", "right") or (username is None and certificate == self._certificate)
        return User(UserRole.User) if known else None


@pytest.fixture(scope="module")
def certificates(opcua_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of server, client and user, self-signed."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, use in (
        ("server", ExtendedKeyUsageOID.SERVER_AUTH),
        ("client", ExtendedKeyUsageOID.CLIENT_AUTH),
        ("other", ExtendedKeyUsageOID.SERVER_AUTH),
        ("user", ExtendedKeyUsageOID.CLIENT_AUTH),
    ):
        uri = "urn:tocsin:test" if name != "client" else "urn:tocsin:edge-1"
        opcua_server.run(
            setup_self_signed_certificate(folder / f"{name}.pem", folder / f"{name}.der", uri, "localhost", [use], {})
        )
    return folder


@pytest.fixture(scope="module")
def secured(opcua_server: Any, certificates: Path) -> Iterator[Any]:
    """Signs, or signs and encrypts; lets in who has a password."""
    server = opcua_server.another()
    server.policies, server.certificates = SECURE, certificates
    server.users = Users((certificates / "user.der").read_bytes())
    yield server.start()
    server.stop()


def files(certificates: Path, server: str = "server") -> dict[str, str]:
    return {
        "certificate": str(certificates / "client.der"),
        "private_key": str(certificates / "client.pem"),
        "server_certificate": str(certificates / f"{server}.der"),
    }


@pytest.mark.parametrize("security", ["sign", "sign_and_encrypt"])
def test_it_signs_or_encrypts_and_logs_in_with_a_password_from_a_file(
    secured, certificates, tmp_path, opened, security
):
    secret = tmp_path / "secret"
    secret.write_text("right\n")
    access = {"security": security, **files(certificates), "username": "anna", "password_file": str(secret)}
    source = opened(secured.url, **access)
    secured.write("pressure", 3.0)
    read_until(source, lambda b: b.values[-1, 0] == 3.0)
    secret.write_text("wrong\n")
    with pytest.raises(SourceError, match="OPC UA server"):
        OpcuaSource(the_settings(secured.url, **access)).open()


def test_a_server_with_another_certificate_is_refused(secured, certificates, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("right\n")
    access = {"username": "anna", "password_file": str(secret)}
    settings = the_settings(
        secured.url, security="sign_and_encrypt", **files(certificates, "other"), **access, timeout_s=1
    )
    with pytest.raises(SourceError, match="OPC UA server"):
        OpcuaSource(settings).open()


def test_a_server_that_wants_security_is_not_read_without(secured):
    with pytest.raises(SourceError, match="OPC UA server"):
        OpcuaSource(the_settings(secured.url)).open()


def test_it_logs_in_with_a_certificate(secured, certificates, opened):
    access = {"security": "sign", **files(certificates)}
    user = {"user_certificate": str(certificates / "user.der"), "user_private_key": str(certificates / "user.pem")}
    source = opened(secured.url, **access, **user)
    secured.write("pressure", 4.0)
    read_until(source, lambda b: b.values[-1, 0] == 4.0)
    stranger = {name: file.replace("/user.", "/client.") for name, file in user.items()}
    with pytest.raises(SourceError, match="OPC UA server"):
        OpcuaSource(the_settings(secured.url, **access, **stranger)).open()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"security": "sign"}, "security: sign needs certificate, private_key and server_certificate"),
        ({"username": "anna"}, "username and password_file belong together"),
        ({"user_certificate": "x"}, "user_certificate and user_private_key belong together"),
        ({"url": "opc.tcp://anna:secret@plc:4840"}, "url"),
        ({"url": "http://plc"}, "url"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(wrong, said):
    with pytest.raises(ValidationError, match=said):
        the_settings(**{"url": "opc.tcp://plc:4840", **wrong})


def test_a_session_ends_with_its_source_and_leaves_no_thread(plc):
    before = threading.active_count()
    for _ in range(3):
        source = OpcuaSource(the_settings(plc.url))
        source.open()
        source.close()
        source.close()
    assert threading.active_count() == before
    with pytest.raises(SourceError, match="not connected"):
        source.read(0.01)


def test_without_the_extra_it_says_which_one_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "asyncua", None)
    with pytest.raises(SourceError, match=r"pip install '\.\[opcua\]'"):
        OpcuaSource(the_settings("opc.tcp://plc:4840")).open()
