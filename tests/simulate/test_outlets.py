"""A plant served over each protocol, read by another library's client."""

import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import serial
import yaml

from tocsin.config import AgentSettings, MqttSettings
from tocsin.errors import TocsinError
from tocsin.simulate.live import run_live
from tocsin.simulate.outlets import Modbus, Mqtt, OpcUa
from tocsin.simulate.plant import CHANNELS, FAST_CHANNELS, NAMES, Plant, Step
from tocsin.simulate.serial_ports import SerialFrames, SerialLines
from tocsin.sources.serial_port import SerialSettings


def a_step(missing: str = "") -> Step:
    plant = Plant(4, start_s=1_773_043_200.0, always_load=True)
    step = plant.step()
    if missing:
        step.values[NAMES.index(missing)] = math.nan
    return step


def test_modbus_registers_hold_each_channel_as_a_float(unused_port: int) -> None:
    client_module = pytest.importorskip("pymodbus.client")
    outlet, step = Modbus(unused_port), a_step("flow")
    outlet.send(step)
    client = client_module.ModbusTcpClient("127.0.0.1", port=unused_port)
    assert client.connect()
    for read in (client.read_input_registers, client.read_holding_registers):
        registers = read(0, count=2 * len(CHANNELS)).registers
        values = client.convert_from_registers(registers, client.DATATYPE.FLOAT32)
        np.testing.assert_array_equal(np.float32(values), step.values.astype(np.float32))
    with pytest.raises(TocsinError, match="choose another port"):
        Modbus(unused_port)
    client.close()
    outlet.close()


def test_opc_ua_variables_have_the_samples_time_and_say_when_a_value_is_missing(unused_port: int) -> None:
    sync = pytest.importorskip("asyncua.sync")
    outlet, step = OpcUa(unused_port), a_step("flow")
    outlet.send(step)
    with sync.Client(f"opc.tcp://127.0.0.1:{unused_port}/plant") as client:
        found = {name: client.get_node(f"ns=2;s={name}").read_data_value(raise_on_bad_status=False) for name in NAMES}
    outlet.close()
    assert found["speed"].Value.Value == step.values[NAMES.index("speed")]
    assert found["speed"].SourceTimestamp.timestamp() == pytest.approx(step.time_s)
    assert found["speed"].StatusCode.is_good()
    assert found["flow"].StatusCode.name == "BadNoCommunication"


def test_a_serial_port_prints_a_line_a_step_and_nobody_needs_to_listen(tmp_path: Path) -> None:
    link = tmp_path / "ttyPLANT"
    outlet, step = SerialLines(link), a_step()
    for _ in range(300):
        outlet.send(step)  # more than the port holds
    with serial.Serial(str(link), timeout=2) as port:
        outlet.send(step)  # the rest of the line that was cut
        outlet.send(step)
        port.readline()
        line = port.readline()
    outlet.close()
    np.testing.assert_allclose([float(cell) for cell in line.split(b",")], step.values, rtol=1e-5)
    assert line.endswith(b"\r\n") and not link.is_symlink()


def test_vibration_comes_through_the_serial_source_without_loss(tmp_path: Path) -> None:
    plant = Plant(4, vibration_hz=8192.0, always_load=True)
    outlet = SerialFrames(tmp_path / "ttyFAST", 8192.0)
    channels = [f"{channel.name} [{channel.unit}]" for channel in FAST_CHANNELS]
    given = {"port": str(tmp_path / "ttyFAST"), "format": "binary", "rate_hz": 8192.0, "channels": channels}
    source = SerialSettings.model_validate({"type": "serial", **given}).make(())
    source.open()
    steps = [plant.step() for _ in range(12)]
    got: list[np.ndarray] = []
    for step in steps:
        outlet.send(step)
        got.append(source.read(0.05).values)
    end = time.monotonic() + 10
    sent = np.concatenate([step.fast for step in steps])
    while sum(map(len, got)) < len(sent) and time.monotonic() < end:
        got.append(source.read(0.05).values)
    source.close()
    outlet.close()
    np.testing.assert_array_equal(np.concatenate(got), np.float32(sent))
    assert (outlet.dropped, source.counts.lost, source.counts.bad) == (0, 0, 0)


def test_vibration_that_nobody_reads_is_dropped_by_the_frame_and_the_port_closes(tmp_path: Path) -> None:
    plant = Plant(4, vibration_hz=8192.0, always_load=True)
    outlet = SerialFrames(tmp_path / "ttyFAST", 8192.0)
    for _ in range(60):
        outlet.send(plant.step())
    assert outlet.dropped > 0
    outlet.close()
    assert not (tmp_path / "ttyFAST").is_symlink()


def test_the_configuration_of_the_documentation_reads_the_plant_over_modbus(unused_port: int) -> None:
    pytest.importorskip("pymodbus")
    page = (Path(__file__).parent.parent.parent / "docs/start/plant.md").read_text("utf-8")
    sample = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    sample["assets"][0]["source"]["tcp_port"] = unused_port
    source = AgentSettings.model_validate(sample).assets[0].source.make(())
    outlet, step = Modbus(unused_port), a_step()
    outlet.send(step)
    source.open()
    end = time.monotonic() + 10
    while not len(block := source.read(0.5)):
        assert time.monotonic() < end
    source.close()
    outlet.close()
    assert source.channels == CHANNELS
    np.testing.assert_array_equal(np.float32(block.values[0]), np.float32(step.values))


def test_a_file_where_the_serial_port_should_be_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(TocsinError, match="there is a file already"):
        SerialLines(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "x"


@pytest.mark.broker
def test_mqtt_carries_the_samples_and_takes_faults(broker: Any, until: Callable[..., None]) -> None:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion

    broker.start()
    heard: list[dict[str, Any]] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe("plant/p/#")
    client.on_message = lambda _client, _data, message: heard.append(json.loads(message.payload))
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    commands: SimpleQueue[str] = SimpleQueue()
    outlet = Mqtt(MqttSettings(host="127.0.0.1", port=broker.port), "plant/p", commands.put)
    step = a_step("flow")

    def sent_and_heard() -> bool:
        outlet.send(step)
        return bool(heard)

    until(sent_and_heard)
    assert heard[0]["time"] == "2026-03-09T08:00:00.000000Z" and heard[0]["flow"] is None
    assert heard[0]["speed"] == pytest.approx(step.values[NAMES.index("speed")], rel=1e-5)
    client.on_message = None
    client.publish("plant/p/fault", "bearing:0.5", qos=1)
    assert commands.get(timeout=5) == "bearing:0.5"
    client.disconnect()
    client.loop_stop()
    outlet.close()


@pytest.mark.broker
def test_mqtt_goes_on_when_the_broker_is_back(broker: Any, until: Callable[..., None], consume: Any) -> None:
    broker.start()
    commands: SimpleQueue[str] = SimpleQueue()
    outlet, step = Mqtt(MqttSettings(host="127.0.0.1", port=broker.port), "plant/p", commands.put), a_step()
    broker.kill()
    outlet.send(step)
    broker.start()
    consumer = consume(broker.port, topics="plant/p")

    def heard() -> bool:
        outlet.send(step)
        return bool(consumer.messages)

    until(heard)
    consumer._client.publish("plant/p/fault", "bearing:0.5", qos=1)
    assert commands.get(timeout=5) == "bearing:0.5"
    outlet.close()
    assert not outlet._thread.is_alive()


@pytest.mark.parametrize("broker", ["host:99999", "host:0", "host:x", ":1883", "host:1883:1"])
def test_a_broker_that_is_no_address_is_a_usage_error(broker: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tocsin.cli.main", "simulate", "--mqtt", broker],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2 and "expected HOST or HOST:PORT" in done.stderr and "Traceback" not in done.stderr


class Kept:
    """An outlet that keeps what it gets."""

    told = ""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def send(self, step: Step) -> None:
        self.steps.append(step)

    def close(self) -> None:
        pass


@pytest.mark.alone
def test_a_live_run_keeps_its_pace_and_takes_commands() -> None:
    plant, kept, commands, answers = Plant(1, always_load=True), Kept(), SimpleQueue[str](), []
    for line in ("leakage:0.5", "nonsense", ""):
        commands.put(line)
    begin = time.monotonic()
    run_live(plant, [kept], commands, answers.append, threading.Event(), duration_s=5.0, speed=10.0)
    assert 0.45 <= time.monotonic() - begin < 2
    assert len(kept.steps) == 50 and all(step.faults == {"leakage": 0.5} for step in kept.steps)
    assert answers[0].startswith("leakage with severity 0.5")
    assert "no kind 'nonsense'" in answers[1] and answers[2] == "leakage 0.50"


def test_the_command_serves_takes_faults_from_standard_input_and_ends(
    tmp_path: Path, until: Callable[..., None]
) -> None:
    link = tmp_path / "ttyPLANT"
    command = [sys.executable, "-m", "tocsin.cli.main", "simulate", "--serial", str(link), "--always-load"]
    process = subprocess.Popen(
        [*command, "--speed", "50"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until(link.is_symlink)
    port = os.open(link, os.O_RDONLY | os.O_NOCTTY)
    process.stdin.write("stuck.flow\n")
    process.stdin.flush()
    flows: list[bytes] = []

    def stuck() -> bool:
        flows.extend(line.split(b",")[NAMES.index("flow")] for line in os.read(port, 8192).splitlines()[1:-1])
        return len(flows) > 20 and len(set(flows[-20:])) == 1

    until(stuck)
    process.terminate()
    out, said = process.communicate(timeout=10)
    os.close(port)
    assert process.returncode == 0 and "Traceback" not in said
    assert "channels suction_pressure [bar]" in out and f"serial   {link}" in out
    assert "stuck.flow with severity 1" in said
    assert not link.is_symlink()


def test_a_run_that_would_serve_nothing_is_a_usage_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tocsin.cli.main", "simulate"], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 2 and "nothing to do" in done.stderr
