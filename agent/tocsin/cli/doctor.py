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
from tocsin.config_file import load_settings
from tocsin.core.bundle import load_bundle
from tocsin.core.interpreter import runtime_id
from tocsin.errors import TocsinError
from tocsin.records import Finding
from tocsin.system import disk_free_mb

LITTLE_DISK_MB = 200.0
TRAINER = "tocsin_trainer.doctor"
MARKS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


@click.command()
@click.option("--trainer", is_flag=True, help="What a workstation needs for training, too; takes some seconds.")
@click.option(
    "-c", "--config", type=click.Path(path_type=Path, dir_okay=False), help="The agent's YAML: tests its bundles."
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
    free = disk_free_mb(Path.cwd())
    if free is not None:
        little = free < LITTLE_DISK_MB
        mend = f"free {LITTLE_DISK_MB:.0f} MB: the outbox needs room" if little else ""
        yield Finding("disk", f"{free / 1024:.1f} GiB free in this folder", "bad" if little else "ok", mend)
    if shutil.which("tocsin") is None:
        yield Finding("command", "`tocsin` is not on PATH", "note", f"add {Path(sys.executable).parent} to PATH")


def _configured(config: Path | None, bundles: tuple[Path, ...]) -> Iterator[Finding]:
    """The agent's settings, and the self-test of every bundle."""
    paths = list(bundles)
    if config is not None:
        try:
            paths += [asset.bundle for asset in load_settings(config).assets]
        except TocsinError as error:
            yield Finding("config", str(error), "bad", f"tocsin config check -c {config}")
        else:
            yield Finding("config", f"{config} is valid")
    for path in paths:
        yield _tested(path)


def _tested(path: Path) -> Finding:
    try:
        bundle = load_bundle(path)
        with without_chatter(*RUNTIME):
            test = bundle.self_test()
    except TocsinError as error:
        return Finding("bundle", str(error), "bad", "copy it again, or train anew")
    found = f"{path.name}: {test.windows} golden windows, worst difference {test.worst:.2g}"
    if test.passed:
        return Finding("bundle", found)
    return Finding("bundle", found, "bad", f"tocsin model verify {path}")
