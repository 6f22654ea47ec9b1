"""The shipped configuration of Telegraf, by its documented rules: inputs.mqtt_consumer, formats `json` and `value`."""

import fnmatch
import json
import re
import tomllib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
from paho.mqtt.client import topic_matches_sub
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tocsin.delivery.wire import AssetHealth, Health, Score, SourceHealth, Topics, rfc3339

CONFIGURATION = Path(__file__).parents[2] / "firmware_config/telegraf/tocsin.conf"
SAMPLE = Path(__file__).parents[2] / "README.md"
GO_RFC3339 = "2006-01-02T15:04:05Z07:00"  # as Go writes it; a fraction of the second may follow unasked


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TopicParsing(Strict):
    """What is taken from the levels of a topic; `_` is left out."""

    topic: str
    measurement: str = ""
    tags: str = ""
    fields: str = ""

    @model_validator(mode="after")
    def _lengths_agree(self) -> "TopicParsing":
        length = self.topic.count("/")
        assert all(text.count("/") == length for text in (self.measurement, self.tags, self.fields) if text)
        return self

    def of(self, topic: str) -> dict[str, str]:
        if not topic_matches_sub(self.topic, topic):
            return {}
        return {key: level for key, level in zip(self.tags.split("/"), topic.split("/"), strict=True) if key != "_"}


class Consumer(Strict):
    """The options of the plugin and its parser that are used or proposed here."""

    servers: list[str] = Field(min_length=1)
    topics: list[str] = Field(min_length=1)
    topic_tag: str = "topic"
    qos: Literal[0, 1, 2] = 0
    persistent_session: bool = False
    client_id: str = ""
    username: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    name_override: str = "mqtt_consumer"
    fieldexclude: list[str] = []
    data_format: Literal["json", "value"]
    data_type: Literal["integer", "float", "string", "boolean"] | None = None
    json_time_key: str = ""
    json_time_format: str = ""
    tag_keys: list[str] = []
    json_string_fields: list[str] = []
    topic_parsing: list[TopicParsing] = []

    @model_validator(mode="after")
    def _goes_together(self) -> "Consumer":
        assert all(re.fullmatch(r"(tcp|ssl|ws|wss)://[\w.-]+:\d+", server) for server in self.servers)
        assert not self.persistent_session or (self.client_id and self.qos)  # or nothing is kept
        assert bool(self.json_time_key) == bool(self.json_time_format)
        assert (self.data_format == "value") == (self.data_type is not None)
        return self

    def parse(self, topic: str, payload: bytes) -> "Metric":
        fields: dict[str, Any] = {"value": payload.decode()}
        tags: dict[str, str] = {self.topic_tag: topic} if self.topic_tag else {}
        time_s = None
        if self.data_format == "json":
            fields = flattened("", json.loads(payload))
            if self.json_time_key:
                assert self.json_time_format == GO_RFC3339
                time_s = datetime.fromisoformat(fields.pop(self.json_time_key)).timestamp()
            tags |= {key: str(value) for key, value in fields.items() if matches(key, self.tag_keys)}
            fields = {
                key: value
                for key, value in fields.items()
                if key not in tags and (isinstance(value, float) or matches(key, self.json_string_fields))
            }
        for parsing in self.topic_parsing:
            tags |= parsing.of(topic)
        kept = {key: value for key, value in fields.items() if not matches(key, self.fieldexclude)}
        return Metric(self.name_override, tags, kept, time_s)


class Metric(NamedTuple):
    """A line of Telegraf's."""

    name: str
    tags: dict[str, str]
    fields: dict[str, Any]
    time_s: float | None


def matches(key: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns)


def flattened(name: str, value: object) -> dict[str, Any]:
    """Names joined by `_`; null is left out; every number is a float."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, one in parts for k, v in flattened(f"{name}_{key}".strip("_"), one).items()}
    if value is None:
        return {}
    return {name: value if isinstance(value, str | bool) else float(value)}


@pytest.fixture(scope="module")
def telegraf() -> Callable[[str, bytes], Metric]:
    """What Telegraf makes of a message of `edge-1`, by the tail of its topic."""
    document = tomllib.loads(CONFIGURATION.read_text("utf-8"))
    assert set(document) == {"inputs"} and set(document["inputs"]) == {"mqtt_consumer"}
    consumers = [Consumer.model_validate(one) for one in document["inputs"]["mqtt_consumer"]]

    def take(tail: str, payload: bytes) -> Metric:
        topic = Topics("tocsin", "edge-1").under(tail)
        (one,) = (c for c in consumers if any(topic_matches_sub(each, topic) for each in c.topics))
        return one.parse(topic, payload)

    return take


def test_the_reading_is_that_of_the_documentations_example() -> None:
    consumer = Consumer(
        servers=["tcp://a:1"], topics=["x"], topic_tag="", data_format="json", name_override="my_json",
        tag_keys=["my_tag_1"], json_string_fields=["b_my_field"],
    )  # fmt: skip
    document = {"a": 5, "b": {"c": 6, "my_field": "description"}, "my_tag_1": "foo", "name": "my_json", "no": True}
    found = consumer.parse("x", json.dumps(document).encode())
    assert found == ("my_json", {"my_tag_1": "foo"}, {"a": 5.0, "b_c": 6.0, "b_my_field": "description"}, None)


def test_a_score_becomes_numbers_with_the_time_of_its_window(telegraf: Callable[[str, bytes], Metric]) -> None:
    score = Score(time=rfc3339(1.25), score=2.0, threshold=1.0, ratio=2.0, anomaly=1, inference_ms=0.5, seq=7)
    fields = {
        "score": 2.0, "threshold": 1.0, "ratio": 2.0, "anomaly": 1.0, "quality": 192.0, "inference_ms": 0.5, "seq": 7.0,
    }  # fmt: skip
    expected = ("tocsin_score", {"device": "edge-1", "asset": "pump-1"}, fields, 1.25)
    assert telegraf("score/pump-1", score.encode()) == expected


def test_an_alarm_becomes_one_line_with_its_sentence(telegraf: Callable[[str, bytes], Metric]) -> None:
    text = re.search(r"```json\n(.*?)```", SAMPLE.read_text("utf-8"), re.DOTALL)[1]
    event = json.loads(text)
    event["before"] = event["after"]  # as at an update
    name, tags, fields, time_s = telegraf("event/alarm", json.dumps(event).encode())
    after = event["after"]
    assert (name, time_s) == ("tocsin_alarm", datetime.fromisoformat(after["time"]).timestamp())
    assert tags == {
        "device": "edge-1",
        "type": event["type"],
        **{f"after_{key}": after[key] for key in ("alarm", "asset", "severity", "state")},
    }
    assert (fields["after_text"], fields["after_ratio"]) == (after["text"], after["ratio"])
    assert fields["after_severity_code"] == after["severity_code"]
    assert (fields["boot"], fields["seq"]) == (event["boot"], event["seq"])  # to drop duplicates by
    assert not [key for key in fields if key.startswith(("before_", "after_contributions_", "after_window_"))]


def test_health_becomes_one_line_a_device(telegraf: Callable[[str, bytes], Metric]) -> None:
    health = Health(
        time=rfc3339(2.0), status="degraded", uptime_s=3.0, clock_synced=True, outbox_depth=4,
        sources={"pump-1": SourceHealth(samples_total=5, state="silent")},
        assets={"pump-1": AssetHealth(windows_total=6)},
    )  # fmt: skip
    name, tags, fields, time_s = telegraf("health", health.encode())
    assert (name, tags, time_s) == ("tocsin_health", {"device": "edge-1", "status": "degraded"}, 2.0)
    assert (fields["outbox_depth"], fields["sources_pump-1_samples_total"]) == (4.0, 5.0)
    assert (fields["sources_pump-1_state"], fields["assets_pump-1_windows_total"]) == ("silent", 6.0)


@pytest.mark.parametrize("status", ["online", "stopped", "offline"])
def test_status_is_text(telegraf: Callable[[str, bytes], Metric], status: str) -> None:
    assert telegraf("status", status.encode()) == ("tocsin_status", {"device": "edge-1"}, {"value": status}, None)
