"""`tocsin update`: take signed models from a repository, let them prove themselves, or go back."""

import fcntl
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tocsin.cli.duration import positive_seconds
from tocsin.config import AgentSettings
from tocsin.config_file import load_settings
from tocsin.errors import ConfigError, TocsinError
from tocsin.update.slots import Slots

if TYPE_CHECKING:
    from tocsin.update.client import UpdateClient

CONFIG = click.option("-c", "--config", "path", type=click.Path(path_type=Path, dir_okay=False), required=True,
                      help="The agent's settings.")  # fmt: skip


@click.group()
def update() -> None:
    """Models over the air: signed, tried beside the current one, rolled back by themselves."""


def lines_of(settings: AgentSettings) -> dict[str, tuple[str, Slots]]:
    """Assets that take updates: product, and where their models are."""
    folder = settings.state_dir / "models"
    return {
        asset.id: (asset.product, Slots(folder / asset.id, asset.bundle)) for asset in settings.assets if asset.product
    }


@contextmanager
def opened(path: Path) -> Iterator["UpdateClient"]:
    """The updater of a device, and no other meanwhile.

    Raises:
        ConfigError: no asset takes updates.
        TocsinError: another updater runs, or the extra is missing.
    """
    try:
        from tocsin.update.client import Line, UpdateClient, UpdatePolicy  # noqa: PLC0415 - its library is an extra
    except ModuleNotFoundError as error:
        raise TocsinError(f"updates need {error.name}, which is not here: pip install '.[update]'") from error
    settings = load_settings(path)
    found = lines_of(settings)
    if settings.update is None or not found:
        raise ConfigError(f"{path}: no asset takes updates: expected `update:`, and `product:` of an asset")
    wanted = settings.update
    policy = UpdatePolicy(
        repository=wanted.repository,
        trusted_root=wanted.trusted_root,
        ca_file=wanted.ca_file,
        shadow_windows=wanted.shadow_windows,
        trial_windows=wanted.trial_windows,
        patience_s=wanted.patience,
        keep_free_mb=wanted.keep_free_mb,
    )
    folder = settings.state_dir / "update"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise TocsinError(f"state_dir {settings.state_dir} cannot be used: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TocsinError(f"another updater runs on {folder}: wait for its end") from error
        lines = tuple(Line(asset, product, slots) for asset, (product, slots) in found.items())
        client = UpdateClient(folder, settings.device, policy, lines)
        try:
            yield client
        finally:
            client.close()


@update.command()
@CONFIG
def check(path: Path) -> None:
    """Look whether a roll-out wants another model here.

    \b
    Example:
      tocsin update check -c tocsin.yaml
    """
    with opened(path) as client:
        client.check()
        _show(client, as_json=False)


@update.command()
@CONFIG
@click.option("--wait", "wait_s", callback=positive_seconds, help="Wait so long for the agent's word, such as 10min.")
def apply(path: Path, wait_s: float | None) -> None:
    """Look, and go on with what is under way, as far as it goes: download, verify, try, keep or go back.

    The agent does the trying; run this again, by a timer or with --wait, until the update is over. Ends with 0 also
    where an update was rolled back: see tocsin update status.

    \b
    Example:
      tocsin update apply -c tocsin.yaml --wait 10min
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with opened(path) as client:
        refused: TocsinError | None = None
        try:
            client.check()
        except TocsinError as error:  # what is under way goes on all the same
            refused = error
        end_s = time.monotonic() + (wait_s or 0.0)
        while client.apply() and time.monotonic() < end_s:
            time.sleep(0.5)
        _show(client, as_json=False)
        if refused is not None:
            raise refused


@update.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(path: Path, as_json: bool) -> None:
    """What each asset runs, and how its newest update stands.

    \b
    Example:
      tocsin update status -c tocsin.yaml
    """
    with opened(path) as client:
        _show(client, as_json)


def _show(client: "UpdateClient", as_json: bool) -> None:
    found = {}
    for asset, line in client.lines.items():
        job = client.job(asset)
        found[asset] = {
            "current": line.slots.current() or "factory",
            "job": None if job is None else job.id,
            "state": None if job is None else str(job.state),
            "version": None if job is None else job.version,
            "reason": None if job is None else job.reason,
        }
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for asset, one in found.items():
        current = str(one["current"])[:12]
        newest = "nothing was ever wanted" if one["job"] is None else f"{one['version']} {one['state']}"
        click.echo(f"{asset}: model {current}; {newest}" + (f": {one['reason']}" if one["reason"] else ""))
