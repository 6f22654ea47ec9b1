"""What a running agent serves, beside a real broker; and the shipped files for Prometheus and Grafana."""

import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from tocsin.config_file import load_settings
from tocsin.monitoring.metrics import METRICS
from tocsin.service import Agent

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
SHIPPED = ROOT / "firmware_config/prometheus"
SECRETS = ("hunter2", "anna", "mqtt-password")
NOT_HERE = {  # what this agent cannot tell
    "tocsin_cpu_temperature_celsius",  # of a machine without a sensor
    "tocsin_source_rate_hertz",  # before some time has passed
    "tocsin_model_promise_broken",  # of a bundle without a promise
}
NAME = re.compile(r"\btocsin_[a-z0-9_]+\b")
Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def agent(
    broker: Any, tmp_path: Path, unused_port: int, until: Callable[..., None], listens: Callable[[int], bool]
) -> Iterator[Agent]:
    """Plays a recording with faults at sixty times its speed, and listens to a topic; logs in by a password."""
    broker.start()
    (tmp_path / "mqtt-password").write_text("hunter2\n")
    access = {"host": "127.0.0.1", "port": broker.port, "username": "anna", "password_file": "mqtt-password"}
    played = {"type": "replay", "files": [str(DATA / "faults.csv")], "speed": 60}
    heard = {
        "type": "mqtt", "broker": {"host": "127.0.0.1", "port": broker.port}, "topic": "plant", "rate_hz": 20,
        "channels": [{"name": "pressure", "unit": "bar"}, {"name": "flow", "unit": "l/min"}],
    }  # fmt: skip
    document = {
        "version": 1, "device": "edge-1", "state_dir": "state", "mqtt": access, "recording": {},
        "http": {"port": unused_port},
        "assets": [
            {"id": "pump-1", "bundle": str(DATA / "small.tocsin"), "source": played},
            {"id": "pump-2", "bundle": str(DATA / "small.tocsin"), "source": heard | {"rate_hz": 1}},
        ],
    }  # fmt: skip
    path = tmp_path / "tocsin.yaml"
    path.write_text(yaml.safe_dump(document))
    made = Agent(load_settings(path, {}))
    made.start()
    try:
        until(lambda: listens(unused_port))
        yield made
    finally:
        made.stop()


@pytest.fixture
def spoil(broker: Any) -> Iterator[Callable[[], object]]:
    """Sends what the second asset's source cannot read."""
    client = paho.Client(CallbackAPIVersion.VERSION2, "peer")

    def send() -> None:
        if not client.is_connected():
            client.connect("127.0.0.1", broker.port)
            client.loop_start()
        client.publish("plant", b"\xff{", 1)

    yield send
    client.disconnect()
    client.loop_stop()


def names(page: str) -> set[str]:
    return set(re.findall(r"^(tocsin_\w+)[ {]", page, re.MULTILINE))


def named(text: str) -> set[str]:
    return set(NAME.findall(text))


@pytest.mark.broker
def test_it_serves_every_metric_and_never_a_secret(
    agent: Agent, spoil: Callable[[], object], ask: Ask, unused_port: int, until: Callable[..., None]
) -> None:
    seen: dict[str, str] = {}

    def all_of_it() -> bool:
        spoil()
        seen["page"] = ask(unused_port, "/metrics")[1]
        on = re.search(r'tocsin_alarms_on{asset="pump-1",severity="major"} 1', seen["page"])
        return names(seen["page"]) >= {metric.name for metric in METRICS} - NOT_HERE and on is not None

    until(lambda: ask(unused_port, "/healthz") == (200, '{"status": "ok"}\n'))
    until(all_of_it, 60)
    page = seen["page"]
    assert names(page) <= {metric.name for metric in METRICS}
    assert 'tocsin_build_info{device="edge-1"' in page and "tocsin_mqtt_connected 1.0" in page
    answers = page + "".join(ask(unused_port, path)[1] for path in ("/healthz", "/readyz", "/other"))
    assert [secret for secret in SECRETS if secret in answers] == []


@pytest.mark.broker
def test_readiness_names_what_is_missing(
    agent: Agent, broker: Any, ask: Ask, unused_port: int, until: Callable[..., None]
) -> None:
    until(lambda: ask(unused_port, "/readyz")[0] == 200)
    broker.kill()
    until(lambda: ask(unused_port, "/readyz")[0] == 503)
    assert json.loads(ask(unused_port, "/readyz")[1])["missing"]["mqtt"] == "not connected"
    assert ask(unused_port, "/healthz")[0] == 200


@pytest.mark.broker
def test_a_disk_that_does_not_answer_holds_up_figures_and_not_the_probe(
    agent: Agent, ask: Ask, unused_port: int
) -> None:
    answers: list[int] = []
    asker = threading.Thread(target=lambda: answers.append(ask(unused_port, "/metrics")[0]))
    with agent._outbox.transaction():  # as while the disk is being written
        asker.start()
        assert ask(unused_port, "/healthz")[0] == 200
    asker.join(10)
    assert answers == [200]


@pytest.mark.broker
def test_figures_are_asked_for_without_end_and_alarms_go_on(
    agent: Agent, ask: Ask, unused_port: int, until: Callable[..., None]
) -> None:
    stopping = threading.Event()

    def ask_again_and_again() -> None:
        while not stopping.is_set():
            try:
                ask(unused_port, "/metrics")
            except OSError:  # hung up on: others are being answered
                continue

    askers = [threading.Thread(target=ask_again_and_again) for _ in range(12)]
    for asker in askers:
        asker.start()
    try:
        until(lambda: agent.desk.statistics.cleared >= 1, 60)
    finally:
        stopping.set()
        for asker in askers:
            asker.join()
    assert not agent.workers[0].failing and agent.desk.statistics.failed == 0


def promtool(*words: str, page: str | None = None) -> str:
    done = subprocess.run(
        ["promtool", *words], cwd=SHIPPED, input=page, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.prometheus
def test_the_shipped_rules_and_scrape_are_as_prometheus_reads_them() -> None:
    assert "12 rules found" in promtool("check", "rules", "tocsin.rules.yml")
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


@pytest.mark.prometheus
def test_each_alert_comes_when_it_should() -> None:
    assert "SUCCESS" in promtool("test", "rules", "tocsin.tests.yml")
    tested = yaml.safe_load((SHIPPED / "tocsin.tests.yml").read_text())["tests"]
    expected = {one["alertname"] for test in tested for one in test["alert_rule_test"] if one["exp_alerts"]}
    quiet = {one["alertname"] for test in tested for one in test["alert_rule_test"] if not one["exp_alerts"]}
    (group,) = yaml.safe_load((SHIPPED / "tocsin.rules.yml").read_text())["groups"]
    assert {rule["alert"] for rule in group["rules"]} == expected == quiet


@pytest.mark.broker
@pytest.mark.prometheus
def test_prometheus_has_nothing_to_say_against_the_page(agent: Agent, ask: Ask, unused_port: int) -> None:
    assert promtool("check", "metrics", page=ask(unused_port, "/metrics")[1]) == ""


def test_rules_dashboard_and_page_name_metrics_that_there_are() -> None:
    known = {metric.name for metric in METRICS}
    used = {file.name: named(file.read_text("utf-8")) for file in SHIPPED.iterdir()}
    used["metrics.md"] = named((ROOT / "docs/operate/metrics.md").read_text("utf-8").partition("## Telegraf")[0])
    assert {name: sorted(found - known) for name, found in used.items() if found - known} == {}
    assert used["tocsin.rules.yml"] and used["grafana-dashboard.json"]


def test_labels_of_rules_and_dashboard_are_those_of_their_metrics() -> None:
    labels = {metric.name: {*metric.labels, "instance", "job", "site"} for metric in METRICS}
    texts = (SHIPPED / name for name in ("tocsin.rules.yml", "grafana-dashboard.json"))
    selectors = [
        found for file in texts for found in re.findall(r"\b(tocsin_\w+){(.+?)}", file.read_text().replace('\\"', '"'))
    ]
    assert len(selectors) > 20
    for name, matchers in selectors:
        assert set(re.findall(r"(\w+)=", matchers)) <= labels[name], f"{name}{{{matchers}}}"


def test_the_dashboard_is_whole() -> None:
    board = json.loads((SHIPPED / "grafana-dashboard.json").read_text())
    places = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places) and max(x for x, _ in places) < 24  # Grafana's grid; none over another
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(named(target["expr"]) for panel in board["panels"] for target in panel["targets"])
    variables = {one["name"] for one in board["templating"]["list"]}
    expressions = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    assert set(re.findall(r"\$(\w+)", expressions)) <= variables
