"""The shipped flow in a real Node-RED, beside a real broker and a running agent."""

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tocsin.config_file import load_settings
from tocsin.service import Agent

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
FLOW = ROOT / "firmware_config/node-red/tocsin-flow.json"
VERSION = "4"  # Node-RED's
SETTINGS = """
module.exports = {
    flowFile: "flows.json", credentialSecret: false, uiHost: "127.0.0.1", uiPort: %d,
    editorTheme: {tours: false}, telemetry: {enabled: false}, diagnostics: {enabled: false},
};
"""

AWAY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ERR_SOCKET_TIMEOUT", "E403", "E407",
        "SELF_SIGNED_CERT_IN_CHAIN", "UNABLE_TO_GET_ISSUER_CERT_LOCALLY")  # fmt: skip
pytestmark = [pytest.mark.npm, pytest.mark.broker]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Node-RED from npm."""
    folder = tmp_path_factory.mktemp("node-red")
    quiet = ("--no-audit", "--no-fund", "--omit=optional", "--loglevel=error", "--fetch-retries=1")
    command = ["npm", "install", *quiet, "--prefix", str(folder), f"node-red@{VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm's registry cannot be reached from here: it does not answer")
    away = re.search(rf"npm error (?:code|errno) ({'|'.join(AWAY)})", done.stderr)
    if away is not None:  # a machine without that network; nothing on it can be installed
        pytest.skip(f"npm's registry cannot be reached from here: {away[1]}")
    assert done.returncode == 0, done.stderr
    return folder / "node_modules/node-red/red.js"


class NodeRed:
    """A running Node-RED and what it says."""

    def __init__(self, program: Path, folder: Path, port: int) -> None:
        self._port, self._log = port, folder / "log"
        (folder / "settings.js").write_text(SETTINGS % port)
        command = ["node", str(program), "--userDir", str(folder), "--settings", str(folder / "settings.js")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)

    @property
    def said(self) -> str:
        return self._log.read_text("utf-8")

    def heard(self, debug: str) -> list[str]:
        """What a debug node wrote, line by line."""
        return re.findall(rf"\[debug:{re.escape(debug)}\]\s*(.+)$", self.said, re.MULTILINE)

    def started(self) -> bool:
        assert self._process.poll() is None, self.said
        return "Started flows" in self.said

    def post(self, path: str, document: Any) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/{path}",
            json.dumps(document).encode(),
            {"Content-Type": "application/json", "Node-RED-Deployment-Type": "full"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def node_red(installed: Path, tmp_path: Path, unused_port: int, until: Callable[..., None]) -> Iterator[NodeRed]:
    """Without a flow."""
    folder = tmp_path / "user"
    folder.mkdir()
    running = NodeRed(installed, folder, unused_port)
    try:
        until(running.started, 60)
        yield running
    finally:
        running.stop()


@pytest.fixture
def agent(broker: Any, tmp_path: Path) -> Iterator[Agent]:
    """Plays a recording with faults at once; not started."""
    source = {"type": "replay", "files": [str(DATA / "faults.csv")], "speed": 0}
    alarm = {"hold_off": 0, "auto_ack": False}
    document = {
        "version": 1, "device": "edge-1", "state_dir": "state", "mqtt": {"host": "127.0.0.1", "port": broker.port},
        "assets": [{"id": "pump-1", "bundle": str(DATA / "small.tocsin"), "source": source, "alarm": alarm}],
    }  # fmt: skip
    path = tmp_path / "tocsin.yaml"
    path.write_text(yaml.safe_dump(document))
    made = Agent(load_settings(path, {}))
    yield made
    made.stop()


def the_flow(port: int) -> list[dict[str, Any]]:
    """As shipped, with the broker's address set."""
    nodes: list[dict[str, Any]] = json.loads(FLOW.read_text("utf-8"))
    (broker,) = (node for node in nodes if node["type"] == "mqtt-broker")
    broker |= {"broker": "127.0.0.1", "port": str(port)}
    return nodes


def test_it_hears_alarms_and_acknowledges_them(
    node_red: NodeRed, broker: Any, agent: Agent, until: Callable[..., None]
) -> None:
    broker.start()
    assert node_red.post("flows", the_flow(broker.port)) in (200, 204)
    until(lambda: "Connected to broker" in node_red.said, 30)
    assert "missing" not in node_red.said  # kinds of nodes that are not there
    agent.start()
    until(lambda: all(map(node_red.heard, ("sentence", "new alarm", "changed alarm"))), 30)
    assert node_red.heard("sentence")[0].startswith("pump-1 behaves unlike its normal running: ")
    assert node_red.heard("new alarm")[0] == "pump-1-anomaly"
    assert node_red.heard("changed alarm")[0] == "pump-1-anomaly"
    until(lambda: agent.desk.statistics.cleared == agent.desk.statistics.raised > 0)
    assert node_red.post("inject/tocsin-button", {}) == 200
    until(lambda: node_red.heard("reply") == ["ok"])
    until(lambda: node_red.heard("ended alarm")[-1:] == ["pump-1-anomaly"])
    assert agent.desk.standing_alarms() == {}
