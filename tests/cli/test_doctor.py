"""`tocsin doctor` on the device side: every finding that is bad says what mends it."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tocsin.cli import doctor_machine
from tocsin.records import Finding

SMALL = Path(__file__).parents[1] / "data/small.tocsin"
Findings = dict[str, dict[str, str]]
CHANNELS = ["pressure [bar]", "flow [l/min]"]


@pytest.fixture
def examined(tocsin: Callable[..., tuple[int, str, str]], tmp_path: Path) -> Callable[..., tuple[int, Findings]]:
    """Exit code and findings, of settings with these changes."""

    def run(port: int, source: dict[str, Any] | None = None, **others: Any) -> tuple[int, Findings]:
        source = source or {"type": "synthetic", "channels": CHANNELS, "rate_hz": 1}
        document = {
            "version": 1, "device": "edge-1", "state_dir": "state", "mqtt": {"host": "127.0.0.1", "port": port},
            "assets": [{"id": "pump-1", "bundle": str(SMALL), "source": source}],
        } | others  # fmt: skip
        (tmp_path / "tocsin.yaml").write_text(yaml.safe_dump(document))
        code, out, _ = tocsin("doctor", "-c", tmp_path / "tocsin.yaml", "--json")
        found = json.loads(out)
        assert found["ok"] == (code == 0) == all(each["state"] != "bad" for each in found["findings"])
        assert all(each["mend"] for each in found["findings"] if each["state"] != "ok")
        return code, {each["what"]: each for each in found["findings"]}

    return run


@pytest.mark.broker
def test_all_is_well_with_a_broker_a_bundle_and_a_source_that_goes_with_it(
    broker: Any, examined: Callable[..., tuple[int, Findings]]
) -> None:
    broker.start()
    code, found = examined(broker.port)
    assert code == 0
    assert {found[name]["state"] for name in ("config", "state_dir", "bundle", "asset pump-1", "broker")} == {"ok"}
    assert found["broker"]["found"] == f"127.0.0.1:{broker.port} takes this device, MQTT 5"
    assert found["clock"]["state"] in ("ok", "note") and "serial ports" in found


def test_a_broker_that_is_not_there_is_bad(unused_port: int, examined: Callable[..., tuple[int, Findings]]) -> None:
    code, found = examined(unused_port)
    assert code == 1 and found["broker"]["state"] == "bad"
    assert "Connection refused" in found["broker"]["found"] and str(unused_port) in found["broker"]["mend"]


def test_a_broker_of_sparkplug_that_is_not_there_is_bad(
    unused_port: int, examined: Callable[..., tuple[int, Findings]]
) -> None:
    own = {"group": "press-shop", "broker": {"host": "127.0.0.1", "port": unused_port}}
    code, found = examined(1, sparkplug=own)
    assert code == 1 and found["sparkplug.broker"]["state"] == "bad"
    assert f"127.0.0.1:{unused_port}" in found["sparkplug.broker"]["found"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"type": "synthetic", "channels": ["pressure [kPa]", "flow"], "rate_hz": 1}, "'pressure' comes in kPa"),
        ({"type": "synthetic", "channels": ["pressure"], "rate_hz": 1}, "no channel 'flow'"),
        ({"type": "synthetic", "channels": CHANNELS, "rate_hz": 2}, "2 is not the bundle's 1"),
    ],
)
def test_a_source_that_does_not_go_with_the_bundle_is_bad(
    source: dict[str, Any], says: str, unused_port: int, examined: Callable[..., tuple[int, Findings]]
) -> None:
    _, found = examined(unused_port, source)
    assert found["bundle"]["state"] == "ok"
    assert found["asset pump-1"]["state"] == "bad"
    assert says in found["asset pump-1"]["found"] + found["asset pump-1"]["mend"]


def test_a_port_that_is_not_plugged_in_is_bad_and_one_that_is_there_can_be_used(
    unused_port: int, tmp_path: Path, examined: Callable[..., tuple[int, Findings]]
) -> None:
    far, near = os.openpty()
    name = os.ttyname(near)
    for port, state in ((name, "ok"), ("/dev/ttyNOWHERE", "bad")):
        _, found = examined(unused_port, {"type": "serial", "port": port, "channels": CHANNELS, "rate_hz": 1})
        assert found["port of pump-1"]["state"] == state
    os.close(far)
    os.close(near)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")
def test_a_port_and_a_folder_of_others_name_the_command_that_mends_them() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        port = Path(folder) / "ttyUSB0"
        port.touch(mode=0o600)
        os.setresuid(65534, 65534, 0)
        try:
            of_port = doctor_machine.port_of("port", str(port), [])
            of_disk = doctor_machine.disk("state_dir", Path(folder) / "state")
        finally:
            os.setresuid(0, 0, 0)
    assert of_port.state == "bad" and of_port.mend.startswith("sudo usermod -aG root ")
    assert of_disk.state == "bad" and "Permission denied" in of_disk.found and "sudo install -d -o " in of_disk.mend


def test_a_clock_that_was_never_set_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine.time, "time", lambda: 3600.0)
    finding = doctor_machine.clock()
    assert isinstance(finding, Finding) and finding.state == "bad" and "1970-01-01T01:00:00Z" in finding.found


def test_looking_at_a_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    finding = doctor_machine.disk("state_dir", tmp_path / "not/there/yet")
    assert finding.state == "ok" and "a write takes" in finding.found and not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    assert doctor_machine.disk("state_dir", tmp_path / "file").state == "bad"


def test_settings_that_cannot_be_read_do_not_hide_the_rest(
    tocsin: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "tocsin.yaml").write_text("version: 7\n")
    code, out, _ = tocsin("doctor", "-c", tmp_path / "tocsin.yaml")
    assert code == 1 and "BAD   config" in out and "clock" in out and "disk" in out
