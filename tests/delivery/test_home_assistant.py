"""Device discovery, against Home Assistant's published schema and its way with templates.

The models below say field by field what https://github.com/home-assistant/core demands of a device discovery payload:
homeassistant/components/mqtt/schemas.py (DEVICE_DISCOVERY_SCHEMA, MQTT_ENTITY_DEVICE_INFO_SCHEMA,
MQTT_ORIGIN_INFO_SCHEMA, MQTT_AVAILABILITY_SINGLE_SCHEMA, MQTT_ENTITY_COMMON_SCHEMA), abbreviations.py, and
binary_sensor.py, sensor.py, event.py, button.py, switch.py, number.py, update.py beside them. The newest
homeassistant package for Python 3.11 is older than device discovery, so it cannot be asked itself.
"""

import json
import re
from typing import Annotated, Any, Literal

import pytest
from jinja2.sandbox import SandboxedEnvironment
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tocsin.delivery.home_assistant import discovery, discovery_topic
from tocsin.delivery.told import alarm_body, alarm_change
from tocsin.delivery.wire import AgentInfo, AssetHealth, AssetInfo, HardwareInfo, Health, Info, Score, Topics

from .conftest import DEVICE, healthy
from .test_wire import step_of

INFO = Info(
    device=DEVICE,
    agent=AgentInfo(version="0.1.0", python="3.11"),
    hw=HardwareInfo(model="Raspberry Pi 5", arch="aarch64", cpus=4),
    os="Debian",
    settings=["detection", "sensitivity"],
    assets=[
        AssetInfo(id="pump-1", product="pump", channels=["pressure"], rate_hz=10),
        AssetInfo(id="fan", channels=["v"], rate_hz=1),
    ],
    commands=["ack", "shelve"],
)
TOPICS = Topics("acme/tocsin", DEVICE)


def _template(text: str) -> str:
    SandboxedEnvironment().parse(text)
    return text


def _topic(text: str) -> str:
    assert text and len(text.encode()) < 65536 and "\0" not in text and not set(text) & set("+#"), text
    return text


Template = Annotated[str, AfterValidator(_template)]
Topic = Annotated[str, AfterValidator(_topic)]
Category = Literal["config", "diagnostic"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Device(Strict):  # MQTT_ENTITY_DEVICE_INFO_SCHEMA
    identifiers: list[str] = Field(min_length=1)  # or connections: validate_device_has_at_least_one_identifier
    manufacturer: str | None = None
    model: str | None = None
    name: str | None = None
    hw_version: str | None = None
    serial_number: str | None = None
    sw_version: str | None = None


class Origin(Strict):  # MQTT_ORIGIN_INFO_SCHEMA
    name: str
    sw_version: str | None = None
    support_url: str | None = None


class Entity(Strict):  # MQTT_ENTITY_COMMON_SCHEMA, MQTT_RO_SCHEMA
    name: str | None = None
    unique_id: str  # without it there is no device
    entity_category: Category | None = None
    icon: str | None = Field(None, pattern=r"^[\w-]+:[\w-]+$")
    json_attributes_topic: Topic | None = None
    json_attributes_template: Template | None = None
    qos: Literal[0, 1, 2] = 0


class BinarySensor(Entity):
    platform: Literal["binary_sensor"]
    state_topic: Topic
    device_class: Literal["problem"] | None = None
    value_template: Template | None = None


class Sensor(Entity):
    platform: Literal["sensor"]
    state_topic: Topic
    device_class: Literal["temperature", "data_size"] | None = None
    state_class: Literal["measurement", "total", "total_increasing"] | None = None
    unit_of_measurement: Literal["°C", "MB"] | None = None
    suggested_display_precision: int | None = Field(None, ge=0)
    value_template: Template | None = None


class Event(Entity):
    platform: Literal["event"]
    state_topic: Topic
    event_types: list[str]
    value_template: Template | None = None


class Button(Entity):
    platform: Literal["button"]
    command_topic: Topic
    payload_press: str = "PRESS"


class Switch(Entity):
    platform: Literal["switch"]
    command_topic: Topic
    state_topic: Topic | None = None
    value_template: Template | None = None
    payload_on: str = "ON"
    payload_off: str = "OFF"


class Number(Entity):
    platform: Literal["number"]
    command_topic: Topic
    state_topic: Topic | None = None
    value_template: Template | None = None
    min: float = 1.0
    max: float = 100.0
    step: float = Field(1.0, ge=1e-3)
    mode: Literal["auto", "box", "slider"] = "auto"


class Update(Entity):
    platform: Literal["update"]
    state_topic: Topic | None = None
    value_template: Template | None = None
    command_topic: Topic | None = None
    payload_install: str | None = None


Component = Annotated[
    BinarySensor | Sensor | Event | Button | Switch | Number | Update, Field(discriminator="platform")
]


class Discovery(Strict):  # DEVICE_DISCOVERY_SCHEMA
    device: Device
    origin: Origin
    components: dict[Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]+$")], Component]
    availability_topic: Topic | None = None
    availability_template: Template | None = None


def unabbreviated(payload: bytes) -> dict[str, Any]:
    """As `replace_all_abbreviations` of discovery.py: abbreviations.py has these four among others."""
    found = json.loads(payload)
    names = {"dev": "device", "o": "origin", "cmps": "components"}
    found = {names.get(key, key): value for key, value in found.items()}
    for component in found["components"].values():
        component["platform"] = component.pop("p")
    return found


def rendered(template: str, payload: bytes) -> str:
    """As `render_with_possible_json_value`: without JSON there is no `value_json`."""
    text = payload.decode()
    variables: dict[str, Any] = {"value": text}
    try:
        variables["value_json"] = json.loads(text)
    except ValueError:
        assert "value_json" not in variables
    environment = SandboxedEnvironment()
    environment.filters["to_json"] = json.dumps
    return environment.from_string(template).render(variables).strip()


@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("commands", [["ack"], []])
def test_the_message_is_as_home_assistant_demands(scores: bool, commands: list[str]) -> None:
    payload = discovery(INFO.model_copy(update={"commands": commands}), TOPICS, scores)
    made = Discovery.model_validate(unabbreviated(payload))
    ids = [component.unique_id for component in made.components.values()]
    assert ids == [f"{DEVICE}_{name}" for name in made.components]
    names = [component.name for component in made.components.values()]
    assert len(set(names)) == len(names)
    assert ("acknowledge_all" in made.components) == bool(commands)
    assert ("pump-1_ratio" in made.components) == scores
    assert {"pump-1_anomaly", "fan_anomaly", "alarms"} <= made.components.keys()
    assert re.fullmatch(r"homeassistant/device/[\w-]+/config", discovery_topic("homeassistant", DEVICE))


def component(name: str, scores: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = unabbreviated(discovery(INFO, TOPICS, scores))["components"][name]
    return found


@pytest.mark.parametrize(("anomaly", "shown"), [(1, "ON"), (0, "OFF")])
def test_a_score_says_whether_the_asset_is_in_alarm(anomaly: Literal[0, 1], shown: str) -> None:
    score = Score(
        time="2025-03-09T14:05:59.250Z", score=2, threshold=1, ratio=2.5, anomaly=anomaly, inference_ms=1, seq=1
    ).encode()
    assert rendered(component("pump-1_anomaly")["value_template"], score) == shown
    assert rendered(component("pump-1_ratio")["value_template"], score) == "2.5"


def test_without_scores_the_retained_alarm_says_it_and_its_end_too(transition) -> None:
    alarm = component("pump-1_anomaly", scores=False)
    assert alarm["state_topic"] == f"acme/tocsin/{DEVICE}/alarm/pump-1-anomaly"
    body = alarm_body(step_of(transition).after, "ntp").encode()
    assert rendered(alarm["value_template"], body) == "ON"
    assert rendered(alarm["value_template"], b"") == "OFF"
    assert json.loads(rendered(alarm["json_attributes_template"], body))["asset"] == "pump-1"
    assert rendered(alarm["json_attributes_template"], b"") == "{}"


def test_an_event_has_its_type_and_the_operators_sentence(transition) -> None:
    change = alarm_change(step_of(transition), "ntp")
    event = json.loads(rendered(component("alarms")["value_template"], change.encode()))
    assert event.pop("event_type") in component("alarms")["event_types"]
    assert event["text"] == change.after.text and event["severity"] == "major"


def test_figures_of_health_are_read_also_where_there_are_none() -> None:
    health = healthy()
    bad = AssetHealth(windows_total=1, bad_channels=["pressure"])
    doubted: Health = health.model_copy(update={"assets": {"pump-1": bad}, "cpu_temp_c": 51.5})
    for one, sensors, temperature in ((health, "OFF", "None"), (doubted, "ON", "51.5")):
        assert rendered(component("pump-1_sensors")["value_template"], one.encode()) == sensors
        assert rendered(component("cpu_temperature")["value_template"], one.encode()) == temperature
        assert rendered(component("status")["value_template"], one.encode()) == one.status


@pytest.mark.parametrize(("status", "shown"), [("online", "online"), ("stopped", "offline"), ("offline", "offline")])
def test_a_device_that_is_not_online_is_not_available(status: str, shown: str) -> None:
    template = unabbreviated(discovery(INFO, TOPICS, True))["availability_template"]
    assert rendered(template, status.encode()) == shown


@pytest.mark.broker
def test_it_is_retained_and_said_again_when_home_assistant_has_started(broker, consume, publish, until) -> None:
    broker.start()
    hears = consume(broker.port, topics="homeassistant/#", name="ha")
    publisher = publish(broker.port, home_assistant=True)
    until(lambda: len(hears.messages) == 1)
    assert hears.messages[0].topic == f"homeassistant/device/tocsin-{DEVICE}/config"
    late = consume(broker.port, topics="homeassistant/device/#", name="late")
    until(lambda: len(late.messages) == 1)
    assert late.messages[0].retain
    assert Discovery.model_validate(unabbreviated(late.messages[0].payload)).device.name == DEVICE
    hears._client.publish("homeassistant/status", "online", 1)
    until(lambda: len(late.messages) == 2)
    until(lambda: publisher.statistics.connected)


@pytest.mark.broker
def test_nothing_is_said_to_home_assistant_unless_it_is_asked_for(broker, consume, publish, until) -> None:
    broker.start()
    hears = consume(broker.port, topics="#", name="all")
    publisher = publish(broker.port)
    until(lambda: publisher.statistics.connected and any(m.topic.endswith("/health") for m in hears.messages))
    assert not [message for message in hears.messages if message.topic.startswith("homeassistant")]
