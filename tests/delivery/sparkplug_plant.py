"""What tells Sparkplug: two assets with their alarms, a health that a test can set, an edge node of them."""

import time
from pathlib import Path
from typing import Any

from tocsin.alarm_desk import AlarmDesk
from tocsin.alarms.plan import Condition, Plan
from tocsin.config import BrokerSettings, SparkplugSettings
from tocsin.delivery.outbox import Outbox
from tocsin.delivery.sparkplug import Sparkplug
from tocsin.delivery.wire import (
    AgentInfo,
    AssetHealth,
    AssetInfo,
    HardwareInfo,
    Health,
    Info,
    Score,
    SourceHealth,
    rfc3339,
)

from .conftest import CONTEXTS, DEVICE
from .sparkplug_host import GROUP

ASSETS = ("pump-1", "fan")
CONDITIONS = {
    "pump-1-anomaly": Condition("pump-1", "model"),
    "pump-1-stale": Condition("pump-1", "data_gap"),
    "fan-anomaly": Condition("fan", "model"),
    "clock": Condition(DEVICE, "clock"),
}
INFO = Info(
    device=DEVICE,
    agent=AgentInfo(version="0.1.0", python="3.11"),
    hw=HardwareInfo(model="Raspberry Pi 5", arch="aarch64", cpus=4),
    os="Debian",
    assets=[
        AssetInfo(id="pump-1", channels=["pressure", "flow"], rate_hz=10, model="pump", version="1.0.0"),
        AssetInfo(id="fan", channels=["v"], rate_hz=1, model="fan", version="2.0.0"),
    ],
)


class Plant:
    """Makes edge nodes; the desk and health are the same for all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states: dict[str, Any] = dict.fromkeys(ASSETS, "ok")
        self.temperature_c = 40.0
        self.outbox = Outbox(folder / "outbox.db")
        self.nodes: list[Sparkplug] = []
        self._windows = 0
        self.desk = AlarmDesk(self.outbox, DEVICE, CONTEXTS, self._changed, plan=Plan(CONDITIONS))
        self.desk.start()

    def _changed(self) -> None:
        for node in self.nodes:
            node.tell_alarms(self.desk.standing_alarms())

    def health(self) -> Health:
        sources = {name: SourceHealth(state=state, samples_total=1) for name, state in self.states.items()}
        return Health(
            time=rfc3339(time.time()), status="ok", uptime_s=1.0, cpu_temp_c=self.temperature_c, clock_synced=True,
            sources=sources, assets={name: AssetHealth(windows_total=1) for name in sources},
        )  # fmt: skip

    def start(self, port: int, protocol: str = "auto", username: str | None = None, **others: Any) -> Sparkplug:
        settings = SparkplugSettings.model_validate({"group": GROUP, **others})
        reached = {"host": "127.0.0.1", "port": port, "protocol": protocol, "username": username}
        broker = BrokerSettings.model_validate(reached)
        standing = self.desk.standing_alarms()
        made = Sparkplug(
            settings, broker, DEVICE, self.folder, INFO, ASSETS, CONDITIONS, standing, self.health, look_s=0.05
        )
        self.nodes.append(made)
        made.start()
        return made

    def score(self, ratio: float, asset: str = "pump-1", time_s: float | None = None, quality: Any = 192) -> None:
        self._windows += 1
        score = Score(
            time=rfc3339(time.time() if time_s is None else time_s), score=ratio, threshold=1.0, ratio=ratio,
            anomaly=0, quality=quality, inference_ms=0.2, seq=self._windows,
        )  # fmt: skip
        for node in self.nodes:
            node.publish_score(asset, score)

    def stop(self) -> None:
        """All nodes; the desk goes on."""
        for node in self.nodes:
            node.stop()
        self.nodes.clear()

    def close(self) -> None:
        self.stop()
        self.desk.stop()
        self.outbox.close()
