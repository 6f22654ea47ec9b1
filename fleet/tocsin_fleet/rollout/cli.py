"""`tocsin rollout`: a signed bundle reaches the fleet in rings."""

import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from tocsin.cli.duration import positive_seconds
from tocsin.cli.mqtt import BROKER, broker_settings
from tocsin.config import TOPIC_ID
from tocsin.delivery.connection import Access
from tocsin.errors import GateError, TocsinError
from tocsin.update.assignment import WHOLE, Assignment
from tocsin_fleet.release.cli import opened as opened_release
from tocsin_fleet.release.cli import product_name, release_options
from tocsin_fleet.rollout.plan import Counts, Plan, Run, widened
from tocsin_fleet.rollout.tool import Rollouts, known_devices, watch

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def rollout() -> None:
    """Bring a signed bundle to the fleet in rings; it halts by itself."""


def _rings(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """`1%,5%,25%,100%` in ten-thousandths."""
    found = []
    for word in value.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", word)
        if match is None or not 0 < float(match[1]) <= 100:
            raise click.BadParameter(f"{word!r}: expected parts of the fleet that rise, such as 1%,5%,25%,100%")
        found.append(round(float(match[1]) / 100 * WHOLE))
    if sorted(set(found)) != found:
        raise click.BadParameter(f"{value!r}: expected parts of the fleet that rise, such as 1%,5%,25%,100%")
    return tuple(found)


def _abort(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)
    if match is None or float(match[1]) > 100:
        raise click.BadParameter(f"{value!r}: expected a part of the devices, such as 5%")
    return float(match[1]) / 100


@rollout.command()
@click.option("--product", required=True, callback=product_name, help="Kind of machine.")
@click.option("--target", help="Path of the bundle in the repository.  [default: the newest of the product]")
@click.option("--id", "name", help="Of the roll-out.  [default: product, version and time]")
@click.option("--rings", default="1%,5%,25%,100%", show_default=True, callback=_rings, help="Parts of the fleet.")
@click.option("--canary", multiple=True, metavar="DEVICE", help="In from the first ring on; may be given again.")
@click.option("--bake", "bake_s", default="1h", show_default=True, callback=positive_seconds, help="Between two rings.")
@click.option("--minimum", default=1, show_default=True, type=click.IntRange(1), help="Devices that have to succeed.")
@click.option(
    "--patience",
    "patience_s",
    default="3h",
    show_default=True,
    callback=positive_seconds,
    help="After so long a device without an end has timed out, or is silent.",
)
@click.option("--abort", default="5%", show_default=True, callback=_abort, help="More that go wrong halt it.")
@click.option("--jitter", "jitter_s", callback=positive_seconds, help="Devices start within this time.")
@click.option("--window", help="Local time in which devices start, such as 22:00-05:00.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say which devices each ring has.")
@click.option("--detach", is_flag=True, help="Open the first ring, and do not watch; tocsin rollout resume does.")
@release_options
@BROKER
def start(
    product: str,
    target: str | None,
    name: str | None,
    rings: tuple[int, ...],
    canary: tuple[str, ...],
    bake_s: float,
    minimum: int,
    patience_s: float,
    abort: float,
    jitter_s: float | None,
    window: str | None,
    dry_run: bool,
    detach: bool,
    repository: Path,
    keys: tuple[Path, ...],
    passphrase_file: Path | None,
    path: Path | None,
    host: str | None,
    port: int | None,
) -> None:
    """Open the first ring, watch, and open the next when all went well; halt when not.

    Halts when more than --abort of the devices so far failed, rolled back, timed out or fell silent, or when devices
    with the new model raise more alarms than those without. Ends with 0 when it is done, with 9 when it was halted.
    Ctrl-C ends the watching, not the roll-out.

    \b
    Example:
      tocsin rollout start --product pump --rings 1%,10%,100% --bake 24h --host broker.local
    """  # fmt: skip
    release = opened_release(repository, keys, passphrase_file)
    known = [one for one in release.bundles() if one.startswith(f"models/{product}/")]
    if not known:
        raise TocsinError(f"nothing was published for {product}: run tocsin fleet publish first")
    target = target or known[-1]
    if target not in known:
        raise TocsinError(f"{target}: not published for {product}: there are {', '.join(known)}")
    stem = re.sub(r"[^a-z0-9]+", "-", Path(target).stem.lower()).strip("-")
    name = name or f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"[-64:].strip("-")
    if not re.fullmatch(TOPIC_ID, name):
        raise click.BadParameter(f"{name!r}: expected lower-case letters, digits and hyphens", param_hint="--id")
    plan = Plan(name, product, target, rings, canary, bake_s, minimum, patience_s, abort, jitter_s or 0.0, window)
    settings, _ = broker_settings(path, host, port)
    access = Access.read(settings)
    if dry_run or not detach:
        devices = [one.name for one in known_devices(access, settings.prefix, product, time.time())]
        if not devices:
            raise TocsinError(f"the broker knows no device of {product}: expected `product: {product}` of their assets")
        _say_rings(plan, devices)
        if dry_run:
            return
        first = Assignment.model_validate(Run(plan).assignment())
        if sum(map(first.includes, devices)) < minimum:
            raise TocsinError(f"ring 1 has fewer devices than --minimum, {minimum}: name a --canary, or a larger part")
    rollouts = Rollouts(release)
    rollouts.start(plan)
    click.echo(f"{name}: {target}, ring 1 of {len(rings)} is open")
    if detach:
        click.echo(f"next: tocsin rollout resume {name}", err=True)
        return
    _follow(rollouts, name, access, settings.prefix)


def _say_rings(plan: Plan, devices: list[str]) -> None:
    click.echo(f"{len(devices)} devices of {plan.product} are known to the broker")
    for n in range(len(plan.rings)):
        wanted = Assignment.model_validate(Run(plan, n).assignment())
        included = sorted(device for device in devices if wanted.includes(device))
        shown = ", ".join(included[:10]) + (f", {len(included) - 10} more" if len(included) > 10 else "")
        click.echo(f"ring {n + 1}: {len(included)} devices: {shown or 'none: name a --canary, or a larger part'}")


def _follow(rollouts: Rollouts, name: str, access: Access, prefix: str) -> None:
    stopping, told = threading.Event(), [""]

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    def show(run: Run, counts: Counts) -> None:
        line = _line(run, counts)
        if line != told[0]:
            click.echo(line)
        told[0] = line

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with rollouts.watching(name):
        run = watch(rollouts, name, access, prefix, show, stopping)
    if run.state == "halted":
        raise GateError(f"{name} was halted: {run.reason}")
    click.echo(f"{name}: {run.state}" if run.state != "running" else f"{name} goes on: tocsin rollout resume {name}")


def _line(run: Run, counts: Counts) -> str:
    done = counts.succeeded / counts.included if counts.included else 0.0
    bar = "█" * round(20 * done) + "░" * (20 - round(20 * done))
    words = [f"{counts.succeeded} of {counts.included} succeeded"]
    for kind in ("failed", "rolled_back", "timed_out", "silent", "pending"):
        number = getattr(counts, kind)
        words += [f"{number} {kind.replace('_', ' ')}"] if number else []
    return f"ring {run.ring + 1} of {len(run.plan.rings)} {bar} {', '.join(words)}"


def _one(command: F) -> F:
    return click.argument("name", metavar="ID")(release_options(command))


@rollout.command()
@_one
@BROKER
def resume(
    name: str,
    repository: Path,
    keys: tuple[Path, ...],
    passphrase_file: Path | None,
    path: Path | None,
    host: str | None,
    port: int | None,
) -> None:
    """Go on with a roll-out: watch it, also after a crash of the tool, or after a halt.

    \b
    Example:
      tocsin rollout resume pump-2-20260309-140500 --host broker.local
    """  # fmt: skip
    rollouts = Rollouts(opened_release(repository, keys, passphrase_file))
    settings, _ = broker_settings(path, host, port)
    run = rollouts.change(name, _resumed) if rollouts.get(name).state == "halted" else rollouts.get(name)
    if run.state != "running":
        raise TocsinError(f"{name} is {run.state}: there is nothing to go on with")
    _follow(rollouts, name, Access.read(settings), settings.prefix)


def _resumed(run: Run) -> Run:
    """What went wrong so far was looked at: as much again may go wrong."""
    now_s, abort = time.time(), min(1.0, 2 * run.plan.abort)
    wider = replace(run.plan, abort=abort)
    return run.noted(now_s, f"resumed, {abort:.0%} may go wrong", state="running", reason="", since_s=now_s, plan=wider)


@rollout.command()
@_one
def halt(name: str, **where: Any) -> None:
    """Let no more devices begin; those that have begun end by themselves.

    \b
    Example:
      tocsin rollout halt pump-2-20260309-140500
    """
    rollouts = Rollouts(opened_release(**where))

    def halted(run: Run) -> Run:
        if run.state != "running":
            raise TocsinError(f"{name} is {run.state} already")
        return run.noted(time.time(), "halted by an operator", state="halted", reason="an operator halted it")

    rollouts.change(name, halted)
    click.echo(f"{name} is halted; next: tocsin rollout resume {name}, or tocsin rollout rollback {name}")


@rollout.command()
@_one
def promote(name: str, **where: Any) -> None:
    """Open the next ring now, whatever is still to bake.

    \b
    Example:
      tocsin rollout promote pump-2-20260309-140500
    """
    rollouts = Rollouts(opened_release(**where))

    def promoted(run: Run) -> Run:
        if run.state != "running":
            raise TocsinError(f"{name} is {run.state}: there is nothing to promote")
        return widened(run, time.time())

    after = rollouts.change(name, promoted)
    click.echo(f"{name}: {after.history[-1][1]}")


@rollout.command()
@_one
def rollback(name: str, **where: Any) -> None:
    """Send every device that has the bundle back to the one that it had before.

    \b
    Example:
      tocsin rollout rollback pump-2-20260309-140500
    """
    rollouts = Rollouts(opened_release(**where))
    rollouts.change(name, lambda run: run.noted(time.time(), "rolled back by an operator", state="rolled_back"))
    click.echo(f"{name}: devices go back at their next look")


@rollout.command()
@click.argument("name", metavar="[ID]", required=False)
@release_options
def status(name: str | None, **where: Any) -> None:
    """Every roll-out, or the history of one.

    \b
    Examples:
      tocsin rollout status
      tocsin rollout status pump-2-20260309-140500
    """
    rollouts = Rollouts(opened_release(**where))
    runs = rollouts.all() if name is None else [rollouts.get(name)]
    if not runs:
        click.echo("no roll-out was ever started", err=True)
    for run in runs:
        why = f": {run.reason}" if run.reason else ""
        click.echo(f"{run.plan.id}  {run.plan.target}  ring {run.ring + 1} of {len(run.plan.rings)}  {run.state}{why}")
        if name is not None:
            for at, what in run.history:
                click.echo(f"  {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z  {what}")
