"""Delivery to a real mosquitto."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tocsin.delivery.outbox import Outbox, read_audit
from tocsin.delivery.wire import AgentInfo, AlarmEvent, HardwareInfo, Info, Score, rfc3339
from tocsin.records import Change

pytestmark = pytest.mark.broker

KILLS = int(os.environ.get("CHAOS_KILLS") or 3)
PER_KILL = 100 if KILLS > 3 else 10  # alarms before each


def events(consumer) -> list[dict]:
    return [json.loads(message.payload) for message in consumer.on("event/alarm")]


def names(consumer) -> set[str]:
    return {event["after"]["alarm"] for event in events(consumer)}


def raise_all(desk, transition, numbers) -> set[str]:
    alarms = [f"pump-1-{n}" for n in numbers]
    for alarm in alarms:
        desk.queue.put(transition(alarm=alarm))
    return set(alarms)


def test_an_alarm_arrives_as_event_and_as_retained_state_and_goes_again(
    broker, consume, publish, desk_of, outbox, transition, until
):
    broker.start()
    consumer = consume(broker.port)
    publisher = publish(broker.port)
    until(lambda: publisher.statistics.connected)
    desk = desk_of(wake=publisher.wake)
    desk.start()
    desk.queue.put(transition())
    until(lambda: len(consumer.on("alarm/pump-1-model")) == 1)
    late = consume(broker.port, topics="tocsin/+/alarm/#", name="late")
    until(lambda: len(late.messages) == 1)
    assert late.messages[0].retain and json.loads(late.messages[0].payload)["active"]
    desk.queue.put(transition(Change.CLEARED))
    desk.stop()
    until(lambda: len(consumer.on("alarm/pump-1-model")) == 2)
    assert consumer.on("alarm/pump-1-model")[1].payload == b""
    new, end = (AlarmEvent.model_validate(event) for event in events(consumer))
    assert (new.type, end.type, new.replayed, end.seq > new.seq) == ("new", "end", False, True)
    assert publisher.statistics.protocol == "5" and publisher.statistics.outbox_depth == 0


def test_alarms_raised_while_the_broker_is_down_arrive_once_it_is_back_marked_as_replayed(
    broker, consume, publish, desk_of, transition, until
):
    publisher = publish(broker.port)
    desk = desk_of(wake=publisher.wake)
    desk.start()
    raised = raise_all(desk, transition, range(20))
    desk.stop()
    until(lambda: "refused" in publisher.statistics.last_error.lower())
    assert not publisher.statistics.connected and publisher.statistics.outbox_depth == 40
    broker.start()
    consumer = consume(broker.port)
    until(lambda: names(consumer) == raised)
    assert all(event["replayed"] for event in events(consumer))


def test_every_alarm_arrives_although_the_broker_is_killed_again_and_again(
    broker, consume, publish, desk_of, transition, until
):
    broker.start()
    consumer = consume(broker.port)
    publisher = publish(broker.port)
    desk = desk_of(wake=publisher.wake)
    desk.start()
    raised = set()
    for round_ in range(4):
        before = len(consumer.messages)
        raised |= raise_all(desk, transition, range(100 * round_, 100 * round_ + 100))
        until(lambda: len(consumer.messages) > before + 20)  # noqa: B023 - called at once
        broker.kill()
        broker.start()
    desk.stop()
    until(lambda: names(consumer) == raised, 30.0)
    assert len(raised) == 400
    identity = {(event["boot"], event["seq"]): event["after"]["alarm"] for event in events(consumer)}
    assert all(identity[event["boot"], event["seq"]] == event["after"]["alarm"] for event in events(consumer))


AGENT = """
import sys
import time
from pathlib import Path
from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.alarm import AlarmContext
from tocsin.config import MqttSettings
from tocsin.delivery.outbox import Outbox, read_audit
from tocsin.delivery.publisher import Publisher
from tocsin.delivery.wire import AgentInfo, HardwareInfo, Health, Info
from tocsin.records import Change, Transition
path, port, run = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
outbox = Outbox(path)
info = Info(device="edge-1", agent=AgentInfo(version="0", python="3"), hw=HardwareInfo(arch="x", cpus=1), os="test")
health = lambda: Health(time="2025-03-09T14:05:59.250Z", status="ok", uptime_s=0, clock_synced=True)
publisher = Publisher(MqttSettings(host="127.0.0.1", port=port), "edge-1", outbox, info, health)
desk = AlarmDesk(outbox, "edge-1", {"a": AlarmContext()}, publisher.wake)
publisher.start()
desk.start()
for n in range(100000):
    for change in (Change.RAISED, Change.CLEARED):
        desk.queue.put(Transition("a", f"a-{run}-{n}", change, 1.7e9 + n, "model", 2.0, 1.0, 2.0, 0.0, 1.0, 8))
    while desk.queue.qsize() > 5 or outbox.depth() > 400:
        time.sleep(0.001)
"""


@pytest.mark.timeout(3600)
def test_every_committed_alarm_arrives_although_the_agent_is_killed(broker, consume, publish, tmp_path: Path, until):
    broker.start()
    consumer = consume(broker.port, topics="tocsin/+/event/alarm")
    path, committed, slowest_s = tmp_path / "killed.db", set(), 0.0
    for run in range(KILLS):
        process = subprocess.Popen([sys.executable, "-c", AGENT, path, str(broker.port), str(run)])
        try:
            until(lambda: newest(consumer, run) >= PER_KILL, 60)  # noqa: B023 - at once
        finally:
            process.kill()
            process.wait()
        trail = [json.loads(body) for body in read_audit(path)]
        committed |= {(one["id"], one["action"] == "raise") for one in trail}
    with Outbox(path) as outbox:
        begin_s = time.monotonic()
        publisher = publish(broker.port, outbox)
        until(lambda: publisher.statistics.connected and publisher.statistics.settled, 60)
        slowest_s = time.monotonic() - begin_s
        publisher.stop()
    time.sleep(1.0)  # what the broker took is on its way
    identity: dict[tuple[int, int], tuple[str, bool]] = {}
    came = events(consumer)
    for event in came:
        found = event["after"]["id"], event["type"] == "new"
        assert identity.setdefault((event["boot"], event["seq"]), found) == found
    lost, twice = committed - set(identity.values()), len(came) - len(identity)
    told = f"{len(committed)} changes of alarms, {KILLS} kills of the agent: {len(lost)} lost, {twice} twice and known"
    print(f"{told} by (boot, seq), the last within {slowest_s:.1f} s of its next start")
    assert lost == set() and len(committed) > KILLS * PER_KILL and len(set(identity.values())) == len(identity)
    assert len({boot for boot, _ in identity}) == KILLS


def newest(consumer, run: int) -> int:
    """The highest number of a run's alarms among the newest messages."""
    text = b"".join(message.payload for message in list(consumer.messages)[-50:])
    return max((int(n) for n in re.findall(rb'"alarm":"a-%d-(\d+)"' % run, text)), default=-1)


def test_an_event_sent_while_nobody_listens_arrives_when_somebody_does(
    broker, consume, publish, desk_of, transition, until
):
    broker.start()
    publisher = publish(broker.port)
    until(lambda: publisher.statistics.connected)
    desk = desk_of(wake=publisher.wake)
    desk.start()
    raised = raise_all(desk, transition, range(5))
    desk.stop()
    until(lambda: publisher.statistics.held != ())
    assert publisher.statistics.held == ("event/alarm: 0x10 No matching subscribers",)
    until(lambda: publisher.statistics.outbox_depth == 5)
    consumer = consume(broker.port)
    until(lambda: names(consumer) == raised)
    until(lambda: publisher.statistics.held == ())


def test_what_the_broker_denies_is_held_and_named_and_arrives_once_it_is_allowed(
    broker, consume, publish, desk_of, transition, until
):
    broker.acl = "topic read #\ntopic write tocsin/edge-1/status\n"
    broker.start()
    consumer = consume(broker.port)
    publisher = publish(broker.port)
    desk = desk_of(wake=publisher.wake)
    desk.start()
    desk.queue.put(transition())
    desk.stop()
    until(lambda: len(publisher.statistics.held) == 2)
    assert sorted(publisher.statistics.held) == [
        "alarm/pump-1-model: 0x87 Not authorized",
        "event/alarm: 0x87 Not authorized",
    ]
    assert events(consumer) == []
    broker.reload("topic readwrite #\n")
    begin_s = time.monotonic()
    until(lambda: names(consumer) == {"pump-1-model"})
    until(lambda: publisher.statistics.outbox_depth == 0)
    lost, twice = len({"pump-1-model"} - names(consumer)), len(events(consumer)) - 1
    print(f"denied by ACL: {lost} lost, {twice} twice, there {time.monotonic() - begin_s:.1f} s after it was allowed")


def statuses(consumer) -> list[bytes]:
    return [message.payload for message in consumer.on("status")]


def test_a_clean_stop_says_stopped_and_a_broken_connection_says_offline(broker, consume, publish, tmp_path, until):
    broker.start()
    consumer = consume(broker.port)
    publisher = publish(broker.port)
    until(lambda: len(consumer.on("health")) == 1)
    publisher.stop()
    until(lambda: statuses(consumer) == [b"online", b"stopped"])
    assert json.loads(consumer.on("info")[0].payload)["mqtt"] == {"protocol": "5", "delivery": "puback"}
    process = subprocess.Popen([sys.executable, "-c", AGENT, tmp_path / "o.db", str(broker.port), "0"])
    until(lambda: statuses(consumer)[2:] == [b"online"])
    process.kill()
    process.wait()
    until(lambda: statuses(consumer)[3:] == [b"offline"])


def test_a_stop_while_the_broker_is_slow_to_answer_is_still_a_clean_one(broker, consume, publish, until):
    agent = AgentInfo(version="1", python="3")
    broker.start()
    consumer = consume(broker.port)
    publisher = publish(broker.port)
    until(lambda: len(consumer.on("health")) == 1)
    with broker.paused():
        publisher.announce(Info(device="edge-1", agent=agent, hw=HardwareInfo(arch="x", cpus=1), os="t"))
        stopping = threading.Thread(target=publisher.stop)
        stopping.start()
        time.sleep(1.5)
    stopping.join()
    until(lambda: statuses(consumer) == [b"online", b"stopped"])


def test_retained_states_that_a_killed_broker_forgot_are_said_again(
    broker, consume, publish, desk_of, transition, until
):
    broker.start()
    consumer = consume(broker.port)
    publisher = publish(broker.port)
    desk = desk_of(wake=publisher.wake)
    desk.start()
    desk.queue.put(transition())
    desk.stop()
    until(lambda: len(consumer.on("alarm/pump-1-model")) == 1)
    publisher.stop()
    consumer.close()
    assert publisher.statistics.outbox_depth == 0
    broker.kill()
    broker.start()
    publish(broker.port)
    late = consume(broker.port, name="late")
    until(lambda: len(late.on("alarm/pump-1-model")) == 1)


def test_scores_go_out_while_connected_and_are_dropped_and_counted_otherwise(broker, consume, publish, until):
    score = Score(time=rfc3339(0), score=1.0, threshold=2.0, ratio=0.5, anomaly=0, inference_ms=0.2, seq=1)
    publisher = publish(broker.port)
    publisher.publish_score("pump-1", score)
    assert publisher.statistics.scores_dropped == 1
    broker.start()
    consumer = consume(broker.port)
    until(lambda: publisher.statistics.connected)
    publisher.publish_score("pump-1", score)
    until(lambda: len(consumer.on("score/pump-1")) == 1)
    assert Score.model_validate_json(consumer.on("score/pump-1")[0].payload) == score


def test_a_thousand_waiting_alarms_drain_within_seconds(broker, consume, publish, desk_of, outbox, until):
    with outbox.transaction():
        for n in range(1000):
            outbox.put("event/alarm", b'{"n":%d}' % n)
    broker.start()
    consumer = consume(broker.port)
    began = time.monotonic()
    publish(broker.port)
    until(lambda: len(consumer.on("event/alarm")) == 1000)
    assert time.monotonic() - began < 10
    assert [json.loads(message.payload)["n"] for message in consumer.on("event/alarm")] == list(range(1000))
