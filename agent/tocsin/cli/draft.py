"""The YAML that `tocsin init` writes: what was found, with a comment where one helps."""

from dataclasses import dataclass
from typing import Any

import yaml

NOTES = {  # of keys of a source
    "port": "the same after every start where it is a /dev/serial/by-id name",
    "baud": "bits a second",
    "format": "csv, json or binary",
    "rate_hz": "samples a second",
    "topic": "+ and # are wildcards",
    "time": "path of the time stamp in the payload",
    "url": "security and log-in: docs/configure/opcua.md",
    "speed": "recorded seconds in a second; 0: as fast as possible",
}
PLAIN: dict[str, Any] = {"allow_unicode": True, "sort_keys": False, "width": 1 << 16}
HEAD = """\
# What the agent reads, watches and reports. Written by `tocsin init`.
# Check it: tocsin config check. All keys: docs/configure/settings.md, tocsin config sample.
version: 1
"""
DEVICE = "# device: edge-1           # this box in topics; the host's name when left out"
STATE = "# state_dir: /var/lib/tocsin # outbox and alarms; systemd's, or ~/.local/state/tocsin, when left out\n"
TLS = "  # tls: {ca_file: /etc/tocsin/ca.pem}   # for any broker that is not on this machine\n"
RECORDING = "# recording: {max_mb: 1024, max_age_s: 7d}   # keep samples on this disk, and those around each alarm\n"
BUNDLE = "# from `tocsin train`; a relative path starts at this file"
TAIL = """\
    # severity: major          # warning, minor, major or critical
    # advice: Check the suction strainer, then call 4711.   # sent with each alarm
    # quality:                 # of the sensors; limits come from normal running
    #   channels:
    #     - {name: pressure, min: 0, max: 16, stuck_after: 10min}
    # rules:                   # conditions with alarms of their own
    #   - {id: dry-running, when: pressure > 4 and flow < 1, for: 10s, severity: critical}
"""


@dataclass(frozen=True, slots=True)
class Draft:
    """What the file says.

    Attributes:
        device: this box in topics; empty = the host's name.
        mqtt: keys of the broker.
        asset: id of the machine.
        bundle: path, relative to the file.
        source: keys of the source, `type` first.
    """

    device: str
    mqtt: dict[str, Any]
    asset: str
    bundle: str
    source: dict[str, Any]


def render(draft: Draft) -> str:
    """The file's text."""
    device = f"device: {_scalar(draft.device)}" if draft.device else DEVICE
    tls = "" if "tls" in draft.mqtt else TLS
    asset = f"  - id: {_scalar(draft.asset)}\n    bundle: {_scalar(draft.bundle)}      {BUNDLE}\n"
    source = f"    source:\n{_block(draft.source, '      ', NOTES)}"
    head = f"{HEAD}{device}\n{STATE}\nmqtt:\n{_block(draft.mqtt, '  ', {})}{tls}\n{RECORDING}\n"
    return f"{head}assets:\n{asset}{source}{TAIL}"


def _scalar(value: object) -> str:
    return str(yaml.safe_dump(value, allow_unicode=True, width=1 << 16)).removesuffix("...\n").strip()


def _block(document: dict[str, Any], indent: str, notes: dict[str, str]) -> str:
    """Keys one below the other, each entry of a list on a line of its own; with their notes."""
    lines: list[str] = []
    for key, value in document.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(row for entry in value for row in _entry(entry))]
            continue
        flow = isinstance(value, dict)
        text = f"{key}: {yaml.safe_dump(value, default_flow_style=True, **PLAIN).strip() if flow else _scalar(value)}"
        lines.append(f"{text:<24} # {notes[key]}" if key in notes else text)
    return "".join(f"{indent}{line}\n" for line in lines)


def _entry(value: object) -> list[str]:
    """An entry of a list: what it has in lists below it, the rest on its line."""
    if not isinstance(value, dict):
        return [f"  - {_scalar(value)}"]
    rows = yaml.safe_dump(value, default_flow_style=None, **PLAIN).rstrip("\n").split("\n")
    return [("    " if n else "  - ") + row for n, row in enumerate(rows)]
