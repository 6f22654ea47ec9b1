"""`tocsin doctor`: whether this machine has what it needs, and how to mend what it lacks."""

import importlib
import json
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
import numpy as np

from tocsin import __version__
from tocsin.chatter import RUNTIME, TENSORFLOW, without_chatter
from tocsin.cli.doctor_config import assets, broker, tested
from tocsin.cli.doctor_machine import clock, configured_disks, disk, ports
from tocsin.config import AgentSettings
from tocsin.config_check import warnings
from tocsin.config_file import load_settings
from tocsin.core.interpreter import runtime_id
from tocsin.errors import TocsinError
from tocsin.records import Finding

TRAINER = "tocsin_trainer.doctor"
MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@click.command()
@click.option("--trainer", is_flag=True, help="What a workstation needs for training, too; takes some seconds.")
@click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The agent's YAML: its broker, disks, ports, bundles.",
)
@click.option(
    "-b", "--bundle", "bundles", multiple=True, type=click.Path(path_type=Path, dir_okay=False), help="Test a bundle."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(trainer: bool, config: Path | None, bundles: tuple[Path, ...], as_json: bool) -> int:
    """Look whether this machine has what it needs, and say how to mend it.

    \b
    Exit code 1 when something has to be mended.
    Examples:
      tocsin doctor -c tocsin.yaml
      tocsin doctor --bundle pump-1.tocsin
      tocsin doctor --trainer
    """
    findings = [*_device(), *_configured(config, bundles)]
    if trainer:
        with without_chatter(*TENSORFLOW):
            findings += importlib.import_module(TRAINER).examine()
    good = all(finding.state != "bad" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": good, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        for finding in findings:
            click.echo(f"{MARKS[finding.state]}  {finding.what:<18}{finding.found}")
            if finding.mend:
                click.echo(f"      {'':<18}→ {finding.mend}")
    return 0 if good else 1


def _device() -> Iterator[Finding]:
    """What the agent runs on."""
    yield Finding("tocsin", f"{__version__}, Python {platform.python_version()} on {platform.machine()}")
    yield Finding("numpy", np.__version__)
    try:
        with without_chatter(*RUNTIME):
            yield Finding("runtime", runtime_id())
    except TocsinError as error:
        said, _, mend = str(error).partition(": ")
        yield Finding("runtime", said, "bad", mend)
    if shutil.which("tocsin") is None:
        yield Finding("command", "`tocsin` is not on PATH", "note", f"add {Path(sys.executable).parent} to PATH")


def _configured(config: Path | None, bundles: tuple[Path, ...]) -> Iterator[Finding]:
    """Clock, disks and ports; the agent's settings with their broker and bundles; the bundles that are named alone."""
    settings: AgentSettings | None = None
    if config is not None:
        try:
            settings = load_settings(config)
        except TocsinError as error:
            yield Finding("config", str(error), "bad", f"tocsin config check -c {config}")
        else:
            yield Finding("config", f"{config} is valid")
    yield clock()
    if settings is None:
        yield disk("disk", Path.cwd())
    else:
        yield from configured_disks(settings)
    yield from ports(settings)
    for path in bundles:
        yield tested(path)[0]
    if settings is not None:
        yield from assets(settings.assets)
        yield from broker(settings.mqtt)
        if settings.sparkplug is not None and settings.sparkplug.broker is not None:
            yield from broker(settings.sparkplug.broker, "sparkplug.broker")
        for warning in warnings(settings):
            said, _, mend = warning.rpartition(": ")
            yield Finding("password", said, "note", mend)
