"""Many devices in one process, for tests and for planning: the real updater, the real broker, no machines.

What is real: each device's metadata, download, verification, ledger, slots and job, over its own folder; every message.
What is not: the first load in a process of its own (`smoke`), the agent's verdicts, which come from the device's kind,
and one connection to the broker instead of one a device.

| kind   | its agent says                          | it ends as        |
|--------|-----------------------------------------|-------------------|
| good   | that the new model fares as the old one | succeeded         |
| bad    | that it is in alarm all the time        | failed            |
| silent | nothing, for the updater never runs     | (nobody hears it) |
"""

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tocsin.delivery.connection import Access, Connection
from tocsin.delivery.wire import ONLINE, AgentInfo, AssetInfo, HardwareInfo, Info, Topics
from tocsin.errors import TocsinError
from tocsin.update.client import OFFER, REPORT, VERDICT, Line, UpdateClient, UpdatePolicy
from tocsin.update.slots import Slots
from tocsin.update.trial import Fared, Offer, Verdict

Kind = Literal["good", "bad", "silent"]
ASSET = "machine"
_FARED = {
    "good": Fared(windows=1000, ratio_max=0.9, ratio_min=0.1, ms_p99=0.1),
    "bad": Fared(windows=1000, in_alarm=999),
}
_OLD = Fared(windows=1000, ratio_max=0.9, ratio_min=0.1, ms_p99=0.1)


def fine(_path: Path) -> dict[str, Any]:
    """In place of the first load in a process of its own."""
    return {"passed": True, "worst": 0.0, "ms_p99": 0.1}


class VirtualFleet:
    """The devices; a thread of its own takes them in turn.

    Args:
        folder: one below it for each device.
        policy: how they take updates.
        product: that all of them are.
        factory: bundle that they begin with.
        kinds: of each device, by its id.
        access: to the broker.
        prefix: first levels of every topic.
    """

    def __init__(
        self,
        folder: Path,
        policy: UpdatePolicy,
        product: str,
        factory: Path,
        kinds: Mapping[str, Kind],
        access: Access,
        prefix: str,
    ) -> None:
        self._folder, self._policy, self._product, self._factory = folder, policy, product, factory
        self.kinds, self._prefix = dict(kinds), prefix
        self._connection: Connection = access.connect("tocsin-virtual-fleet", lambda _: None)
        self._told: dict[str, bytes] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="virtual-fleet", daemon=True)

    def start(self) -> None:
        """Every device says that it is there, then looks for updates again and again."""
        for name in self.kinds:
            asset = AssetInfo(id=ASSET, product=self._product, channels=[], rate_hz=1.0)
            info = Info(device=name, agent=AgentInfo(version="0", python="3"), hw=HardwareInfo(arch="x", cpus=1),
                        os="none", assets=[asset])  # fmt: skip
            self._say(name, "status", ONLINE.encode())
            self._say(name, "info", info.encode())
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopping.set()
        self._thread.join(60)
        self._connection.close()

    def current(self, name: str) -> str:
        """sha256 of what a device runs; empty: what it began with."""
        return self._slots(name).current()

    def _slots(self, name: str) -> Slots:
        return Slots(self._folder / name / "models" / ASSET, self._factory)

    def _run(self) -> None:
        while not self._stopping.is_set():
            for name, kind in self.kinds.items():
                if self._stopping.is_set():
                    return
                if kind != "silent":
                    self._look(name, kind)
            time.sleep(0.05)

    def _look(self, name: str, kind: Kind) -> None:
        slots = self._slots(name)
        offer = Offer.read(slots.folder / OFFER)
        if offer is not None:
            said = Verdict(job=offer.job, sha256=offer.sha256, stage=offer.stage, time_s=0.0, hop_s=1.0,
                           new=_FARED[kind], old=_OLD)  # fmt: skip
            said.write(slots.folder / VERDICT)
        line = Line(ASSET, self._product, slots)
        client = UpdateClient(self._folder / name / "update", name, self._policy, (line,), smoke=fine)
        try:
            client.check()
            client.apply()
        except TocsinError:
            return
        finally:
            client.close()
        report = slots.folder / REPORT
        if report.exists():
            newest = json.loads(report.read_bytes())["jobs"][0]
            self._say(name, f"job/{newest['id']}", json.dumps(newest).encode())

    def _say(self, name: str, tail: str, payload: bytes) -> None:
        topic = Topics(self._prefix, name).under(tail)
        if self._told.get(topic) != payload:
            self._told[topic] = payload
            self._connection.publish(topic, payload, 1, True)
