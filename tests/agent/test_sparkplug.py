"""The agent tells Sparkplug what it tells by JSON, and JSON never waits for it."""

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tocsin.config import AgentSettings
from tocsin.service import Agent

from ..delivery.sparkplug_host import GROUP, HOST, Host

DATA = Path(__file__).parent.parent / "data"
FAULTS = 3  # in faults.csv
pytestmark = pytest.mark.broker


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Callable[..., Agent]]:
    made: list[Agent] = []

    def start(port: int, speed: float = 0, **sparkplug: Any) -> Agent:
        source = {"type": "replay", "files": [str(DATA / "faults.csv")], "speed": speed}
        asset = {"id": "pump-1", "bundle": str(DATA / "small.tocsin"), "source": source, "alarm": {"hold_off": 0}}
        document = {
            "version": 1, "device": "edge-1", "state_dir": str(tmp_path / "state"), "assets": [asset],
            "mqtt": {"host": "127.0.0.1", "port": port}, "sparkplug": {"group": GROUP, **sparkplug},
        }  # fmt: skip
        made.append(Agent(AgentSettings.model_validate(document)))
        made[-1].start()
        return made[-1]

    yield start
    for agent in made:
        agent.stop()


def test_a_host_is_told_of_scores_alarms_and_the_asset_that_ended(
    broker: Any, play: Callable[..., Agent], until: Callable[..., None]
) -> None:
    broker.start()
    host = Host(broker.port)
    host.state(True, 1)
    agent = play(broker.port, speed=150, host=HOST)

    def told(name: str) -> list[Any]:
        metrics = [one for said in list(host.said) for one in said.payload.metrics]
        return [one for one in metrics if host.names.get(one.alias) == name]

    until(lambda: [one.boolean_value for one in told("Alarm/pump-1-anomaly/Active")].count(True) >= FAULTS, 60)
    until(lambda: len(host.of("DDEATH", "pump-1")) == 1, 60)
    assert max(one.double_value for one in told("Score/Ratio")) > 1
    birth = host.of("NBIRTH")[0]
    assert birth.metric("Properties/Version").string_value
    assert birth.metric("Alarm/clock/Active").boolean_value is False
    agent.stop()
    until(lambda: len(host.of("NDEATH")) > 0)
    host.close()


def every_event(consumer: Any) -> bool:
    types = [json.loads(message.payload)["type"] for message in consumer.on("event/alarm")]
    return types == ["new", "end"] * FAULTS


def test_a_broker_of_sparkplug_that_is_not_there_holds_up_nothing(
    broker: Any, play: Callable[..., Agent], consume: Callable[..., Any], until: Callable[..., None], unused_port: int
) -> None:
    broker.start()
    consumer = consume(broker.port)
    agent = play(broker.port, broker={"host": "127.0.0.1", "port": unused_port})
    until(lambda: every_event(consumer), 60)
    until(agent.played_out)
    assert agent.sparkplug is not None and agent.sparkplug.statistics.sessions == 0
    agent.stop()
    until(lambda: [message.payload for message in consumer.on("status")] == [b"online", b"stopped"])


def test_a_broker_of_sparkplug_that_never_answers_holds_up_nothing(
    broker: Any, play: Callable[..., Agent], consume: Callable[..., Any], until: Callable[..., None]
) -> None:
    broker.start()
    consumer = consume(broker.port)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        agent = play(broker.port, broker={"host": "127.0.0.1", "port": mute.getsockname()[1], "protocol": "5"})
        until(lambda: every_event(consumer), 60)
        until(agent.played_out)
        agent.stop()
        until(lambda: [message.payload for message in consumer.on("status")] == [b"online", b"stopped"])
