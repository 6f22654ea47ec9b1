"""Commands over MQTT: what is taken, what is refused, and what the one who asked is told."""

import json
import time
from typing import Any

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.alarm import AlarmState
from tocsin.alarms.commands import Answer, Refusal
from tocsin.alarms.lifecycle import Handling
from tocsin.alarms.plan import Condition, Plan
from tocsin.delivery.requests import MAX_REQUEST, NOT_YET, REQUESTS, RequestError, Requests, decode
from tocsin.records import Change

from .conftest import CONTEXTS, DEVICE

ALARM = "pump-1-model"


class Asked:
    """Requests without a desk; what was ordered waits until it is answered."""

    def __init__(self, allowed: Any = tuple(REQUESTS), per_minute: int = 60) -> None:
        self.orders: list[tuple[Any, Any]] = []
        self.said: list[dict[str, Any]] = []
        self._requests = Requests(DEVICE, allowed, per_minute, lambda *order: self.orders.append(order))

    def ask(self, command: str, form: Any, retained: bool = False, now_s: float = 0.0) -> None:
        payload = form if isinstance(form, bytes) else json.dumps(form).encode()
        self._requests.take(command, payload, retained, now_s, lambda said: self.said.append(json.loads(said)))

    def code(self) -> str | None:
        """Of the last error reply, which came with no order."""
        assert self.orders == [] and self.said[-1]["status"] == "error"
        return str(self.said[-1]["error"]["code"])


@pytest.mark.parametrize(
    ("command", "payload", "code", "says"),
    [
        ("ack", b"", "bad_request", "alarm: Field required; its keys are transaction, by, alarm, id, comment"),
        ("ack", b"[1]", "bad_request", "expected a JSON object, or an alarm's id, got '[1]'"),
        ("ack", b"{", "bad_request", "expected a JSON object, or an alarm's id, got b'{'"),
        ("ack", b"\xff\xfe", "bad_request", "expected a JSON object"),
        ("ack", b'{"alarm": "a", "who": "me"}', "bad_request", "who: Extra inputs are not permitted"),
        ("ack", b'{"alarm": 7}', "bad_request", "alarm: Input should be a valid string"),
        ("shelve", b"pump-1-model", "bad_request", "for: Field required"),
        ("shelve", b'{"alarm": "a", "for": "soon"}', "bad_request", "expected seconds, or a number with ms, s, min"),
        ("shelve", b'{"alarm": "a", "for": -1}', "bad_request", "for: Input should be greater than 0"),
        ("ack", b"x" * (MAX_REQUEST + 1), "too_large", f"{MAX_REQUEST + 1} bytes came: a request has at most"),
        ("explode", b"{}", "unknown_command", "no command 'explode': there are ack, shelve"),
        *((command, b"{}", "not_supported", f"{command} is not in this version") for command in NOT_YET),
    ],
)
def test_what_is_no_request_is_refused_with_what_was_expected(command, payload, code, says) -> None:
    with pytest.raises(RequestError) as told:
        decode(command, payload)
    assert told.value.code == code and says in told.value.text
    assert json.loads(told.value.reply())["error"] == {"code": code, "text": told.value.text}


@given(st.sampled_from([*REQUESTS, *NOT_YET, "", "x"]), st.binary(max_size=200) | st.text(max_size=200))
def test_whatever_comes_is_a_request_or_an_error_that_can_be_sent(command: str, payload: bytes | str) -> None:
    asked = Asked()
    asked.ask(command, payload.encode("utf-8", "replace") if isinstance(payload, str) else payload)
    assert len(asked.orders) + len(asked.said) == 1


def test_deep_nesting_is_refused() -> None:
    asked = Asked()
    asked.ask("ack", b'{"a":' * 800)
    assert asked.code() == "bad_request"


def test_what_cannot_be_said_again_is_refused() -> None:
    for form in (b'{"transaction": "\\ud800", "alarm": "a"}', b'{"alarm": "a", "comment": "\\udfff"}'):
        asked = Asked()
        asked.ask("ack", form)
        assert asked.code() == "bad_request" and asked.said[-1]["transaction"] is None
    for for_ in (b"1" * 4000, b"1e999", b"NaN", b"-Infinity"):
        asked = Asked()
        asked.ask("shelve", b'{"alarm": "a", "for": ' + for_ + b"}")
        assert asked.code() == "bad_request"


def test_a_refusal_carries_the_transaction_where_there_is_one() -> None:
    asked = Asked()
    asked.ask("shelve", {"transaction": "t-1", "alarm": ALARM})
    assert asked.code() == "bad_request" and asked.said[-1]["transaction"] == "t-1"


def test_only_what_the_settings_allow_is_done_and_a_retained_request_never() -> None:
    asked = Asked(allowed=("ack",))
    asked.ask("suppress", {"alarm": ALARM})
    assert asked.code() == "not_allowed" and "`mqtt.commands` allows ack" in asked.said[-1]["error"]["text"]
    asked.ask("ack", {"alarm": ALARM}, retained=True)
    assert asked.code() == "retained"
    asked.ask("ack", {"alarm": ALARM})
    assert len(asked.orders) == 1


def test_requests_beyond_the_rate_are_refused_until_time_has_passed() -> None:
    asked = Asked(per_minute=3)
    for _ in range(4):
        asked.ask("identify", b"", now_s=5.0)
    assert [said["status"] for said in asked.said] == ["ok", "ok", "ok", "error"] and asked.code() == "rate_limited"
    asked.ask("identify", {"transaction": "9"}, now_s=24.9)
    assert asked.code() == "rate_limited" and asked.said[-1]["transaction"] == "9"
    asked.ask("identify", b"", now_s=46.0)
    assert asked.said[-1]["data"] == {"alarms": {}, "changed": 0, "device": DEVICE, "commands": list(REQUESTS)}


def test_a_transaction_is_done_once_and_answered_each_time() -> None:
    asked, form = Asked(), {"transaction": "7", "alarm": ALARM, "by": "ann"}
    asked.ask("ack", form)
    asked.ask("ack", form)  # before the first is done
    ((command, reply),) = asked.orders
    assert (command.event, command.alarm, command.by) == ("ack", ALARM, "ann") and asked.said == []
    reply(Answer(None, {ALARM: AlarmState.ACKED}, 1))
    asked.ask("ack", form)
    assert len(asked.orders) == 1 and len(asked.said) == 3
    assert asked.said[0] == asked.said[1] == asked.said[2]
    assert asked.said[0]["transaction"] == "7" and asked.said[0]["data"]["alarms"] == {ALARM: "acked"}
    asked.ask("unshelve", form)  # the same number under another command
    assert len(asked.orders) == 2


def test_what_the_desk_refuses_is_an_error_reply() -> None:
    asked = Asked()
    asked.ask("ack", ALARM.encode())
    asked.orders.pop()[1](Answer(Refusal("over", "it is over"), {ALARM: AlarmState.NORMAL}))
    assert asked.code() == "over" and asked.said[-1]["data"]["alarms"] == {ALARM: "normal"}


@pytest.fixture
def desk(outbox, transition):
    """Unacknowledged alarms stay; one stands."""
    plan = Plan({ALARM: Condition("pump-1", "model", Handling(auto_ack=False))})
    made = AlarmDesk(outbox, DEVICE, CONTEXTS, lambda: None, plan=plan)
    made.start()
    made.queue.put(transition(Change.RAISED, ALARM))
    yield made
    made.stop()


class Operator:
    """Somebody else's MQTT client."""

    def __init__(self, port: int, version: MQTTProtocolVersion) -> None:
        self.got: list[paho.MQTTMessage] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, "operator", protocol=version)
        self.client.on_message = lambda _client, _data, message: self.got.append(message)
        self.client.connect("127.0.0.1", port)
        self.client.subscribe([(f"tocsin/{DEVICE}/cmd/+/result", 1), ("answers/#", 1), (f"tocsin/{DEVICE}/alarm/+", 1)])
        self.client.loop_start()

    def ask(self, command: str, form: Any, retain: bool = False, **properties: Any) -> None:
        found = None
        if properties:
            found = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(found, name, value)
        self.client.publish(f"tocsin/{DEVICE}/cmd/{command}", json.dumps(form), 1, retain, found)

    def replies(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(message.payload) for message in list(self.got) if message.topic == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture(params=[MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5], ids=["3.1.1", "5"])
def operator(request, broker):
    broker.start()
    made = Operator(broker.port, request.param)
    yield made
    made.close()


def requests_to(desk: AlarmDesk) -> Requests:
    return Requests(DEVICE, ("ack", "identify"), 6000, desk.order)


@pytest.mark.broker
@pytest.mark.parametrize("protocol", ["3.1.1", "5"])
def test_an_alarm_is_acknowledged_over_a_broker(operator, broker, publish, desk, until, protocol) -> None:
    publisher = publish(broker.port, protocol=protocol, requests=requests_to(desk))
    until(lambda: publisher.statistics.connected and desk.standing_alarms())
    result = f"tocsin/{DEVICE}/cmd/ack/result"
    until(
        lambda: not operator.ask("ack", {"transaction": "1", "alarm": ALARM, "by": "ann"}) and operator.replies(result)
    )
    reply = operator.replies(result)[0]
    assert (reply["transaction"], reply["status"], reply["error"]) == ("1", "ok", None)
    assert reply["data"]["alarms"] == {ALARM: "acked"} and reply["data"]["changed"] == 1
    assert desk.standing_alarms()[ALARM].acked_by == "ann"
    publisher.wake()
    states = f"tocsin/{DEVICE}/alarm/{ALARM}"
    until(lambda: operator.replies(states) and operator.replies(states)[-1]["state"] == "acked")


@pytest.mark.broker
@pytest.mark.parametrize("operator", [MQTTProtocolVersion.MQTTv5], indirect=True)
def test_the_reply_goes_where_mqtt_5_asks_but_not_among_the_devices_topics(
    operator, broker, publish, desk, until
) -> None:
    publisher = publish(broker.port, requests=requests_to(desk))
    until(lambda: publisher.statistics.connected)
    until(lambda: not operator.ask("identify", {}, ResponseTopic="answers/me", CorrelationData=b"\x07")
          and any(message.topic == "answers/me" for message in list(operator.got)))  # fmt: skip
    told = next(message for message in operator.got if message.topic == "answers/me")
    assert told.properties.CorrelationData == b"\x07" and json.loads(told.payload)["data"]["device"] == DEVICE
    operator.ask("identify", {"transaction": "forged"}, ResponseTopic=f"tocsin/{DEVICE}/alarm/x")
    result = f"tocsin/{DEVICE}/cmd/identify/result"
    until(lambda: any(reply["transaction"] == "forged" for reply in operator.replies(result)))
    time.sleep(0.2)
    assert operator.replies(f"tocsin/{DEVICE}/alarm/x") == []


@pytest.mark.broker
@pytest.mark.parametrize("operator", [MQTTProtocolVersion.MQTTv311], indirect=True)
def test_a_retained_request_is_refused_at_every_connect(operator, broker, publish, desk, until) -> None:
    operator.ask("ack", {"alarm": ALARM}, retain=True)
    until(desk.standing_alarms)
    for n in (1, 2):
        publisher = publish(broker.port, requests=requests_to(desk))
        until(lambda n=n: len(operator.replies(f"tocsin/{DEVICE}/cmd/ack/result")) == n)
        publisher.stop()
    codes = [reply["error"]["code"] for reply in operator.replies(f"tocsin/{DEVICE}/cmd/ack/result")]
    assert codes == ["retained"] * 2 and desk.standing_alarms()[ALARM].state is AlarmState.UNACKED
