"""The agent's settings: where they come from, and how a mistake is told."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tocsin.alarms.detector import AlarmRule
from tocsin.alarms.limits import ChannelOverride
from tocsin.alarms.rules import Rule
from tocsin.config import AgentSettings
from tocsin.config_check import warnings
from tocsin.config_file import SAMPLE, load_settings
from tocsin.errors import ConfigError

MINIMAL = """\
version: 1
mqtt: {host: file}
assets:
  - id: pump-1
    bundle: pump.tocsin
    source: {type: replay, files: [a.csv]}
"""


def written(folder: Path, text: str, name: str = "tocsin.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def load(folder: Path, text: str, environment: dict[str, str] | None = None) -> AgentSettings:
    return load_settings(written(folder, text), environment or {})


def test_the_environment_wins_over_conf_d_and_that_over_the_file(tmp_path: Path) -> None:
    written(tmp_path, "mqtt: {port: 1}\n", "conf.d/10.yaml")
    written(tmp_path, "mqtt: {port: 2, keepalive_s: 20}\n", "conf.d/20.yaml")
    text = MINIMAL.replace("host: file", "host: file, port: 9, keepalive_s: 30, username: anna")
    mqtt = load(tmp_path, text).mqtt
    assert (mqtt.host, mqtt.port, mqtt.keepalive_s, mqtt.username) == ("file", 2, 20, "anna")
    mqtt = load(tmp_path, text, {"TOCSIN__MQTT__HOST": "env", "TOCSIN__MQTT__KEEPALIVE_S": "40"}).mqtt
    assert (mqtt.host, mqtt.port, mqtt.keepalive_s, mqtt.username) == ("env", 2, 40, "anna")


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL.replace("mqtt: {host: file}\n", ""))
    assert (settings.mqtt.host, settings.mqtt.prefix, settings.mqtt.scores) == ("localhost", "tocsin", True)
    assert re.fullmatch(r"[a-z0-9-]+", settings.device)


def test_variables_in_values_are_replaced_and_may_have_a_default(tmp_path: Path) -> None:
    given = 'mqtt:\n  host: ${HOST}\n  port: ${PORT:-1884}\n  username: "u${NOTHING:-}"\n'
    text = MINIMAL.replace("mqtt: {host: file}\n", given)
    mqtt = load(tmp_path, text, {"HOST": "broker.local"}).mqtt
    assert (mqtt.host, mqtt.port, mqtt.username) == ("broker.local", 1884, "u")
    assert load(tmp_path, text, {"HOST": "x", "PORT": "7"}).mqtt.port == 7


def test_a_variable_that_is_not_set_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tocsin\.yaml:2:\d+: the environment has no HOST"):
        load(tmp_path, MINIMAL.replace("host: file", 'host: "${HOST}"'))


def test_a_quoted_value_stays_text(tmp_path: Path) -> None:
    text = MINIMAL.replace("host: file", 'host: file, username: "${N:-0123}"')
    assert load(tmp_path, text).mqtt.username == "0123"


def test_a_relative_path_starts_at_the_file_it_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path.parent)
    settings = load(tmp_path, MINIMAL + "state_dir: state\n")
    assert settings.assets[0].bundle == tmp_path / "pump.tocsin"
    assert settings.assets[0].source.files == (tmp_path / "a.csv",)
    assert settings.state_dir == tmp_path / "state"
    relative = load_settings(Path(tmp_path.name) / "tocsin.yaml", {})
    assert relative.assets[0].bundle == tmp_path / "pump.tocsin"
    absolute = load(tmp_path, MINIMAL.replace("pump.tocsin", "/srv/pump.tocsin"))
    assert absolute.assets[0].bundle == Path("/srv/pump.tocsin")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("host: file", "hots: file", r"yaml:2:8: mqtt.hots is not a key: did you mean 'host'\?"),
        ("    bundle", "    bundel", r"yaml:5:5: assets\[0\].bundel is not a key: did you mean 'bundle'\? .*1 more"),
        ("files: [a.csv]", "file: [a.csv]", r"assets\[0\].source.file is not a key: did you mean 'files'"),
        ("type: replay", "type: reply", r"source.type: expected one of .*'replay'.*, got 'reply'"),
        ("type: replay, ", "", r"source.type is missing: expected one of .*replay, serial, synthetic"),
        (
            "version: 1",
            "version: 1\nhttp: {listen: plant}",
            r"http.listen: expected an address such as .*, got 'plant'",
        ),
        ("version: 1", "version: 1\nhttp: {port: 0}", r"http.port: .*1, got 0"),
        ("version: 1", "version: 2", r"yaml:1:1: version: .*1.*, got 2"),
        ("    bundle: pump.tocsin\n", "", r"assets\[0\].bundle is missing"),
        ("host: file", "host: file, port: 70000", r"mqtt.port: .*65535, got 70000"),
        ("host: file", "host: file, port: x", r"mqtt.port: .*integer.*, got 'x'"),
        ("host: file", "host: file, health_interval_s: soon", r"mqtt.health_interval_s: expected seconds.*got 'soon'"),
        ("host: file", "host: file, prefix: a/#", r"mqtt.prefix: .*got 'a/#'"),
        ("version: 1", "version: 1\nsparkplug: {group: a/b}", r"sparkplug.group: .*got 'a/b'"),
        ("version: 1", "version: 1\nsparkplug: {host: scada}", r"sparkplug.group is missing"),
        ("version: 1", "version: 1\nsparkplug: {group: a, host: 's/#'}", r"sparkplug.host: .*got 's/#'"),
        (
            "version: 1",
            "version: 1\nsparkplug: {group: a, deadbnad: 1}",
            r"deadbnad is not a key: did you mean 'deadband'",
        ),
        ("id: pump-1", "id: Pump 1", r"assets\[0\].id: .*got 'Pump 1'"),
        ("files: [a.csv]", "files: [a.csv], speed: -1", r"source.speed: .*got -1"),
        ("version: 1", "version: 1\nversion: 1", r"yaml:2:1: version is given twice"),
        ("version: 1", "version: 1\nmqtt: {host: a, host: b}", r"yaml:2:17: mqtt.host is given twice"),
        ("host: file", "host: [a", r"yaml:\d+:\d+: not valid YAML"),
        (
            "{type: replay, files: [a.csv]}",
            "{type: serial, port: x, rate_hz: 1, channels: [{nmae: a}]}",
            r"channels\[0\].nmae is not a key: did you mean 'name'",
        ),
        ("files: [a.csv]", "files: []", r"source.files: .*at least 1"),
        ("files: [a.csv]", "files: [a.csv], speed: .inf", r"source.speed: expected a finite number, got inf"),
        ("files: [a.csv]", "files: [a.csv], rate_hz: .nan", r"source.rate_hz: expected a finite number, got nan"),
        ("host: file", "host: file, health_interval_s: .inf", r"mqtt.health_interval_s: expected a finite number"),
        ("{type: replay, files: [a.csv]}", "{type: synthetic, channels: [time]}", r"channels\[0\].name: .*'time'"),
        (
            "    source: {type: replay, files: [a.csv]}",
            "    sources: {../../x: {type: replay, files: [a.csv]}}",
            r"yaml:6:5: assets\[0\].sources: expected the name of a rate group .*'../../x'",
        ),
        (
            "pump.tocsin",
            "p.tocsin\n    quality: {channels: [{name: a}, {name: a, min: 1}]}",
            r"channels: .*'a' .*twice",
        ),
        ("id: pump-1", f"id: {'a' * 60}", r"assets\[0\]: id: .* at most 64 characters, got 'a{60}-.*shorten the id"),
        (
            "pump.tocsin",
            f"p.tocsin\n    rules: [{{id: {'r' * 60}, when: a > 1}}]",
            r"assets\[0\]: rules: .*at most 64 .*'pump-1-r{60}' \(67\).* or of the rule",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_is_expected(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in MINIMAL
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, MINIMAL.replace(old, new))


def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"environment variable TOCSIN__MQTT__PORT: mqtt.port: .*got 'x'"):
        load(tmp_path, MINIMAL, {"TOCSIN__MQTT__PORT": "x"})


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"TOCSIN__DEVICE": "0b_"}, r"environment variable TOCSIN__DEVICE: .*quotes"),
        ({"TOCSIN__DEVICE": "2026-02-30"}, r"environment variable TOCSIN__DEVICE: .*quotes"),
        ({"TOCSIN__MQTT": "5", "TOCSIN__MQTT__HOST": "x"}, r"TOCSIN__MQTT__HOST: mqtt is no mapping"),
        ({"TOCSIN__MQTT": "", "TOCSIN__MQTT__HOST": "x"}, r"TOCSIN__MQTT__HOST: mqtt is no mapping"),
    ],
)
def test_a_variable_that_is_no_value_is_told_by_its_name(
    tmp_path: Path, environment: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, MINIMAL, environment)


@pytest.mark.parametrize(
    "value",
    ["2026-02-30", "0x_", "0b_", "!!int x", "!!bool maybe", "!!timestamp x", "!!int ''", "!!float x", "${DATE}"],
)
def test_a_value_that_only_looks_like_one_is_told_with_its_place(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"tocsin\.yaml:3:9: .*quotes"):
        load(tmp_path, MINIMAL.replace("mqtt: {host: file}", f"mqtt:\n  host: {value}"), {"DATE": "2026-02-30"})


def test_anchors_are_refused_so_that_a_small_file_stays_small(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    with pytest.raises(ConfigError, match=r"tocsin\.yaml:1:5: anchors and aliases .* not taken"):
        load(tmp_path, bomb)
    with pytest.raises(ConfigError, match=r"tocsin\.yaml:2:14: anchors and aliases .* not taken"):
        load(tmp_path, MINIMAL.replace("host: file", "host: *h"))


def test_a_file_without_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: larger"):
        load_settings(Path("/dev/zero"), {})


@pytest.mark.parametrize("text", ["*anna", "&anna", "@anna", "a: b: c", "[a"])
def test_a_variable_that_is_no_yaml_is_text(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, MINIMAL, {"TOCSIN__MQTT__USERNAME": text}).mqtt.username == text


def test_a_mistake_in_conf_d_names_that_file(tmp_path: Path) -> None:
    written(tmp_path, "mqtt:\n  prot: 1\n", "conf.d/10.yaml")
    with pytest.raises(ConfigError, match=r"10\.yaml:2:3: mqtt.prot is not a key: did you mean 'port'"):
        load(tmp_path, MINIMAL)


def test_two_assets_of_one_id_are_refused(tmp_path: Path) -> None:
    again = MINIMAL + MINIMAL[MINIMAL.index("  - id") :]
    with pytest.raises(ConfigError, match="the id 'pump-1' is given twice"):
        load(tmp_path, again)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"# nothing\n", "empty"),
        (b"- 1\n", "expected keys and values"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a" * (1 << 20) + b"a", "larger"),
        (b"[" * 5000, "not valid YAML"),
        (b"a: &a [*a]\n", "anchors"),
        (b"a: !!python/object/apply:os.system [id]\n", "yaml"),
        (b"a: 2026-03-09\n? [x]\n: 1\n", "word for a key"),
        (b"a: {<<: {b: 1}}\n", "yaml"),
        (b"a: \x00\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "tocsin.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=says):
        load_settings(path, {})


def test_the_sample_loads_as_it_is_and_with_every_default_written_out(tmp_path: Path) -> None:
    plain = load(tmp_path, SAMPLE)
    whole = load(tmp_path, re.sub(r"^( *)# (?=\S| )", r"\1", SAMPLE, flags=re.MULTILINE))
    assert whole.mqtt.tls is not None and whole.assets[0].alarm.on_n == 3
    for key in ("prefix", "protocol", "keepalive_s", "scores", "health_interval_s"):
        assert getattr(whole.mqtt, key) == getattr(plain.mqtt, key), key
    assert whole.assets[0].severity == plain.assets[0].severity
    assert whole.assets[0].source == plain.assets[0].source


RULE = {"id": "dry", "when": "pressure > 4 and flow < 1"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"rules": [{**RULE, "when": "pressure >"}]},
            "rules[0].when: expected a number, a channel or a function at col",
        ),
        ({"rules": [{**RULE, "id": "stuck"}]}, "rules[0].id: expected another name: anomaly, stale, missing"),
        ({"rules": [RULE, {**RULE}]}, "two alarms would have the id 'a-dry'"),
        ({"rules": [{**RULE, "form": "10s"}]}, "rules[0].form is not a key: did you mean 'for'?"),
        ({"quality": {"channels": [{"name": "flow", "min": 3, "max": 2}]}}, "min: expected less than max, 2, got 3"),
        ({"quality": {"channels": [{"name": "flow", "stuck_after": "always"}]}}, "quality.channels[0].stuck_after"),
        ({"quality": {"channels": [{"name": "flow", "stuck": 3}]}}, "did you mean 'stuck_after'?"),
    ],
)
def test_mistakes_in_rules_and_quality_are_told_with_their_place(
    tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    asset = {"id": "a", "bundle": "a.tocsin", "source": {"type": "replay", "files": ["a.csv"]}, **more}
    with pytest.raises(ConfigError) as error:
        load(tmp_path, yaml.safe_dump({"version": 1, "assets": [asset]}))
    assert said in str(error.value) and "tocsin.yaml:" in str(error.value)


def test_rules_and_quality_reach_the_line_as_they_are_written(tmp_path: Path) -> None:
    asset = {
        "id": "a",
        "bundle": "a.tocsin",
        "source": {"type": "replay", "files": ["a.csv"]},
        "rules": [{**RULE, "for": "1min", "clear_when": "flow > 2"}],
        "quality": {
            "channels": [{"name": "flow", "min": 0, "stuck_after": "never"}, {"name": "spare", "watch": False}]
        },
    }
    (one,) = load(tmp_path, yaml.safe_dump({"version": 1, "assets": [asset]})).assets
    prior = one.prior()
    assert prior.rules == (Rule("dry", RULE["when"], "flow > 2", 60.0),)
    assert prior.overrides["flow"] == ChannelOverride(low=0.0, stuck_after_s=float("inf"))
    assert not prior.overrides["spare"].watched
    assert one.alarm_ids()[0] == "a-anomaly" and "a-stuck" in one.alarm_ids() and one.alarm_ids()[-1] == "a-dry"


def test_the_sample_names_every_setting_of_agent_and_broker() -> None:
    schema = AgentSettings.model_json_schema()
    named = set(re.findall(r"^[ #-]*([a-z_]+):", SAMPLE, re.MULTILINE))
    kinds = ("MqttSettings", "TlsSettings", "SparkplugSettings", "AssetSettings", "AlarmSettings", "QualitySettings")
    for kind in (*kinds, "RuleSettings", "HttpSettings", "UpdateSettings"):
        assert set(schema["$defs"][kind]["properties"]) <= named, kind
    assert set(schema["properties"]) <= named


@pytest.mark.parametrize(
    ("http", "warned"),
    [
        ("", False),
        ("http: {}", False),
        ("http: {listen: 127.0.0.7}", False),
        ('http: {listen: "::1"}', False),
        ("http: {listen: 0.0.0.0}", True),
        ('http: {listen: "::"}', True),
        ("http: {listen: 192.0.2.7, port: 80}", True),
    ],
)
def test_figures_that_a_network_can_read_are_warned_of(tmp_path: Path, http: str, warned: bool) -> None:
    told = warnings(load(tmp_path, f"{MINIMAL}{http}\n"))
    assert [each.partition(": ")[0] for each in told] == ["http.listen"] * warned


def test_how_alarms_are_dealt_with_is_asked_of_every_condition_and_a_rule_may_latch_alone(tmp_path: Path) -> None:
    text = """
version: 1
alarms: {shelve_limit: 8h}
assets:
  - id: pump-1
    bundle: a.tocsin
    source: {type: replay, files: [a.csv]}
    alarm: {auto_ack: false, re_alarm_after: 1h, suppressed_by: [pump-1-standstill], on_n: 2}
    rules: [{id: standstill, when: flow < 1}, {id: dry, when: flow < 2, latching: true}]
"""
    settings = load(tmp_path, text)
    plan = settings.plan()
    assert set(plan.conditions) == {*settings.assets[0].alarm_ids(), "clock"} and plan.shelf_limit_s == 8 * 3600
    assert [name for name, one in plan.conditions.items() if one.handling.latching] == ["pump-1-dry"]
    assert [name for name, one in plan.conditions.items() if one.handling.auto_ack] == ["clock"]
    causes = {name: one.cause for name, one in plan.conditions.items()}
    assert (
        causes["pump-1-anomaly"] == "model" and causes["pump-1-stale"] == "data_gap" and causes["pump-1-dry"] == "rule"
    )
    assert "pump-1-standstill" not in plan.suppressed_by("pump-1-standstill")
    assert settings.assets[0].alarm.rule(AlarmRule()).on_n == 2
    with pytest.raises(ConfigError, match="suppressed_by: no alarm 'pump-9-x', there are pump-1-anomaly"):
        load(tmp_path, text.replace("[pump-1-standstill]", "[pump-9-x]"))


def test_a_rule_without_a_severity_is_a_mode_that_has_to_suppress_something(tmp_path: Path) -> None:
    text = """
version: 1
assets:
  - id: pump-1
    bundle: a.tocsin
    source: {type: replay, files: [a.csv]}
    alarm: {suppressed_by: [pump-1-standstill]}
    rules: [{id: standstill, when: flow < 1, severity: none}, {id: dry, when: flow < 2}]
"""
    plan = load(tmp_path, text).plan()
    assert plan.modes == {"pump-1-standstill"} and plan.modes.isdisjoint(plan.conditions)
    assert {"pump-1-anomaly", "pump-1-dry"} <= set(plan.suppressed_by("pump-1-standstill"))
    with pytest.raises(ConfigError, match="pump-1-standstill has `severity: none` and suppresses nothing"):
        load(tmp_path, text.replace("alarm: {suppressed_by: [pump-1-standstill]}", "alarm: {on_n: 1}"))


def test_settings_hold_no_password(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n")
    settings = load(tmp_path, MINIMAL.replace("host: file", "host: file, password_file: secret"))
    assert "hunter2" not in settings.model_dump_json()
    with pytest.raises(ConfigError, match=r"mqtt\.password is not a key: did you mean 'password_file'"):
        load(tmp_path, MINIMAL.replace("host: file", "host: file, password: hunter2"))


def test_a_password_given_by_mistake_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        load(tmp_path, MINIMAL.replace("host: file", "host: file, password: hunter2"))
    assert "hunter2" not in str(told.value)
    with pytest.raises(ConfigError) as told:
        load(tmp_path, MINIMAL, {"TOCSIN__MQTT__PASSWORD": "hunter2"})
    assert "hunter2" not in str(told.value)


def test_durations_have_units(tmp_path: Path) -> None:
    for text, seconds in (("90", 90), ("90s", 90), ("1.5min", 90), ("2h", 7200), ("1500ms", 1.5)):
        assert (
            load(tmp_path, MINIMAL.replace("host: file", f"health_interval_s: {text}")).mqtt.health_interval_s
            == seconds
        )


def test_the_alarm_rule_is_the_bundles_with_changes(tmp_path: Path) -> None:
    settings = load(tmp_path, MINIMAL + "    alarm: {on_n: 2}\n")
    assert settings.assets[0].alarm.rule(AlarmRule(4, 6, 7, 0.5)) == AlarmRule(2, 6, 7, 0.5)
