"""`tocsin init`: what it finds by listening, asks, and writes."""

import json
import os
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tocsin.cli.ask_source import plain_rate
from tocsin.cli.heard import name_of
from tocsin.cli.main import cli
from tocsin.config_file import load_settings
from tocsin.sources.frames import encode_frame

DATA = Path(__file__).parents[1] / "data"
SMALL = DATA / "small.tocsin"
Tocsin = Callable[..., tuple[int, str, str]]


@contextmanager
def node(link: Path, message: Callable[[int], bytes], rate_hz: float = 50.0) -> Iterator[Path]:
    """A serial port at which a message comes `rate_hz` times a second."""
    far, near = os.openpty()
    tty.setraw(near)
    os.set_blocking(far, False)
    link.symlink_to(os.ttyname(near))
    stopping = threading.Event()

    def send() -> None:
        begin_s = time.monotonic()
        for n in range(1 << 20):
            if stopping.wait(max(0.0, begin_s + n / rate_hz - time.monotonic())):
                return
            with suppress(BlockingIOError):
                os.write(far, message(n))

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield link
    stopping.set()
    thread.join()
    os.close(far)
    os.close(near)


@pytest.mark.parametrize(
    ("rate_hz", "plain"),
    [(10.000009536752259, 10), (62.5003, 62.5), (4095.99, 4096), (0.1, 0.1), (3.14159265, 3.14159)],
)
def test_a_rate_that_was_measured_is_written_as_the_number_it_stands_for(rate_hz: float, plain: float) -> None:
    assert plain_rate(rate_hz) == plain


def source_of(path: Path) -> dict[str, Any]:
    load_settings(path)
    found: dict[str, Any] = yaml.safe_load(path.read_text())["assets"][0]["source"]
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


FORMS = {
    "csv": (lambda n: f"{n % 7},{n}\n".encode(), ["c1", "c2"]),
    "json": (lambda n: json.dumps({"t": n, "flow": n, "Motor Temp": 1, "text": "x"}).encode() + b"\n", ["flow"]),
    "binary": (lambda n: encode_frame(np.ones((1, 3)), n), ["c1", "c2", "c3"]),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_channels_and_rate_of_a_serial_port_are_heard(form: str, folder: Path, tocsin: Tocsin) -> None:
    message, channels = FORMS[form]
    with node(folder / "ttyNODE", message):
        code, _, said = tocsin("init", "--no-input", "--source", "serial", "--port", "ttyNODE", "--seconds", "1.5")
    assert code == 0, said
    source = source_of(folder / "tocsin.yaml")
    assert (source["format"], source["channels"], source["port"]) == (form, channels, str(folder / "ttyNODE"))
    assert source["rate_hz"] == pytest.approx(50, rel=0.1)
    assert "tocsin sources test" in said and "tocsin record" in said


def test_with_a_bundle_the_file_passes_config_check_and_the_source_can_be_watched(folder: Path, tocsin: Tocsin) -> None:
    with node(folder / "ttyNODE", lambda n: b"%d,%d\n" % (n % 7, n), 10):
        words = ("--bundle", SMALL, "--port", "ttyNODE", "--channel", "pressure [bar], flow [l/min]", "--rate", "1")
        assert tocsin("init", "--no-input", *words, "--broker", "broker.local:8883", "--device", "edge-9")[0] == 0
        assert tocsin("config", "check")[0] == 0
        code, out, _ = tocsin("sources", "test", "--seconds", "3")
    assert code == 5 and "1 are stated" in out  # what we said is not what comes
    settings = load_settings(folder / "tocsin.yaml")
    assert (settings.device, settings.mqtt.host, settings.mqtt.port) == ("edge-9", "broker.local", 8883)
    assert settings.mqtt.tls is not None
    assert settings.assets[0].id == "small" and (settings.assets[0].bundle).samefile(SMALL)
    assert (folder / "tocsin.yaml").read_text().count("#") > 10


def test_more_numbers_than_the_bundle_has_channels_are_refused_and_nothing_is_written(
    folder: Path, tocsin: Tocsin
) -> None:
    with node(folder / "ttyNODE", lambda n: b"1,2,3\n"):
        words = ("init", "--no-input", "--bundle", SMALL, "--port", "ttyNODE", "--seconds", "1")
        code, _, said = tocsin(*words)
    assert code == 5 and "lines of 3 numbers" in said and "2 channels are wanted (pressure, flow)" in said
    assert [path.name for path in folder.iterdir()] == ["ttyNODE"]


def test_a_rate_that_is_not_the_bundles_is_refused(folder: Path, tocsin: Tocsin) -> None:
    with node(folder / "ttyNODE", lambda n: b"1,2\n"):
        code, _, said = tocsin("init", "--no-input", "--bundle", SMALL, "--port", "ttyNODE", "--seconds", "1")
    assert code == 3 and "tocsin.yaml: assets[0].source.rate_hz: 50 is not the bundle's 1" in said
    assert not (folder / "tocsin.yaml").exists()


def test_a_file_that_is_there_stays_unless_forced(folder: Path, tocsin: Tocsin) -> None:
    (folder / "tocsin.yaml").write_text("mine")
    words = ("init", "--no-input", "--source", "synthetic", "--channel", "pressure")
    code, _, said = tocsin(*words)
    assert code == 3 and "--force" in said and (folder / "tocsin.yaml").read_text() == "mine"
    assert tocsin(*words, "--force")[0] == 0
    assert source_of(folder / "tocsin.yaml") == {"type": "synthetic", "rate_hz": 10, "channels": ["pressure"]}


def test_a_modbus_map_is_written_as_given(folder: Path, tocsin: Tocsin) -> None:
    registers = ("--register", "pressure [bar]=0:float32:CDAB", "--register", "flow=4")
    words = ("--source", "modbus", "--host", "10.0.0.7:5020", "--rate", "0.5", *registers)
    assert tocsin("init", "--no-input", *words, "-c", "etc/agent.yaml")[0] == 0
    assert source_of(folder / "etc/agent.yaml") == {
        "type": "modbus", "host": "10.0.0.7", "tcp_port": 5020, "rate_hz": 0.5,
        "slaves": [{"id": 1, "registers": [
            {"name": "pressure", "unit": "bar", "address": 0, "type": "float32", "order": "CDAB"},
            {"name": "flow", "address": 4},
        ]}],
    }  # fmt: skip


def test_a_recording_is_named_from_where_the_file_stands(folder: Path, tocsin: Tocsin) -> None:
    words = ("--bundle", SMALL, "--source", "replay", "--file", DATA / "faults.csv", "-c", "etc/tocsin.yaml")
    assert tocsin("init", "--no-input", *words)[0] == 0
    (file,) = source_of(folder / "etc/tocsin.yaml")["files"]
    assert (folder / "etc" / file).samefile(DATA / "faults.csv")


@pytest.mark.broker
def test_numbers_on_mqtt_topics_become_channels(broker: Any, folder: Path, tocsin: Tocsin) -> None:
    broker.start()
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    stopping = threading.Event()

    def publish() -> None:
        while not stopping.wait(0.05):
            client.publish("plant/a", json.dumps({"ts": time.time(), "pump": {"pressure": 4.1}, "flow rate": [7]}))
            client.publish("plant/b/temp", "21.5")
            client.publish("plant/b/name", "pump")

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    place = f"127.0.0.1:{broker.port}"
    words = ("init", "--no-input", "--source", "mqtt", "--host", place, "--topic", "plant/#", "--seconds", "1.5")
    assert tocsin(*words)[0] == 0
    bundled = tocsin(*words, "--force", "--bundle", SMALL)
    stopping.set()
    thread.join()
    client.disconnect()
    client.loop_stop()
    source = source_of(folder / "tocsin.yaml")
    assert source["broker"] == {"host": "127.0.0.1", "port": broker.port}
    assert source["rate_hz"] == pytest.approx(20, rel=0.2)
    assert source["time"] == "ts"
    assert source["channels"] == [
        {"name": "pressure", "topic": "plant/a", "path": "pump.pressure"},
        {"name": "flow_rate_0", "topic": "plant/a", "path": '$["flow rate"][0]'},
        {"name": "temp", "topic": "plant/b/temp"},
    ]
    assert bundled[0] == 5 and "flow did not come: there are flow_rate_0, pressure, temp" in bundled[2]


def test_variables_of_an_opc_ua_server_are_found_by_browsing(folder: Path, tocsin: Tocsin, unused_port: int) -> None:
    pytest.importorskip("asyncua")
    from tocsin.simulate.outlets import OpcUa
    from tocsin.simulate.plant import NAMES

    server = OpcUa(unused_port)
    url = f"opc.tcp://127.0.0.1:{unused_port}/plant"
    try:
        code, _, said = tocsin("init", "--no-input", "--source", "opcua", "--url", url, "--rate", "2")
    finally:
        server.close()
    assert code == 0, said
    source = source_of(folder / "tocsin.yaml")
    assert {each["name"] for each in source["channels"]} == set(NAMES)
    assert all(each["node"].endswith(f"s={each['name']}") for each in source["channels"])


def test_questions_are_asked_for_what_no_flag_says(folder: Path) -> None:
    with node(folder / "ttyNODE", lambda n: b"%d,%d\n" % (n % 7, n)):
        answers = ["", "serial", str(folder / "ttyNODE"), "pressure [bar], flow", "broker.local"]
        given = "\n".join([answers[0], "pump-7", *answers[1:]]) + "\n"
        done = CliRunner().invoke(cli, ["init", "--seconds", "1"], input=given)
    assert done.exit_code == 0, done.output
    settings = load_settings(folder / "tocsin.yaml")
    assert (settings.mqtt.host, settings.assets[0].id) == ("broker.local", "pump-7")
    assert source_of(folder / "tocsin.yaml")["channels"] == ["pressure [bar]", "flow"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "--no-input needs --source"),
        (("--source", "opcua"), 2, "--no-input needs --url"),
        (("--source", "mqtt"), 2, "--no-input needs --topic"),
        (("--source", "modbus", "--host", "plc", "--rate", "1"), 2, "a Modbus map is needed"),
        (("--source", "modbus", "--host", "plc", "--rate", "1", "--register", "x"), 2, "expected NAME [UNIT]=ADDRESS"),
        (("--source", "synthetic", "--channel", "Pressure!"), 2, "'Pressure!': expected a name"),
        (("--source", "serial", "--port", "/dev/ttyNOWHERE"), 5, "it is not there: is it plugged in"),
        (("--source", "replay", "--file", "nowhere.csv"), 2, "nowhere.csv is not there"),
        (("--source", "synthetic", "--bundle", "nowhere.tocsin"), 7, "nowhere.tocsin"),
        (("--source", "synthetic", "--channel", "a", "--broker", "x:y"), 2, "expected HOST or HOST:PORT"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    words: tuple[str, ...], code: int, says: str, folder: Path, tocsin: Tocsin
) -> None:
    found, _, said = tocsin("init", "--no-input", *words)
    assert found == code and says in said and not list(folder.iterdir())


def test_a_port_at_which_nothing_comes_or_nothing_known_is_said(folder: Path, tocsin: Tocsin) -> None:
    words = ("init", "--no-input", "--port", "ttyNODE", "--seconds", "0.5")
    with node(folder / "ttyNODE", lambda n: b""):
        code, _, said = tocsin(*words)
    assert code == 5 and "nothing came in 0.5 s" in said
    (folder / "ttyNODE").unlink()
    with node(folder / "ttyNODE", lambda n: b"hello world\n"):
        code, _, said = tocsin(*words, "--baud", "9600")
    assert code == 5 and "no lines of numbers, no JSON and no frames at 9600 baud" in said


def test_names_are_made_of_what_a_sender_calls_its_values() -> None:
    assert [name_of(text) for text in ("Motor Temp.°C", "3rd axis", "§")] == ["motor_temp_c", "c_3rd_axis", "c"]
