"""`tocsin model`: what a bundle is, whether it is whole, and what it costs here."""

import json
import resource
import statistics
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
import numpy as np

from tocsin.chatter import RUNTIME, without_chatter
from tocsin.cli.update import CONFIG, lines_of, opened
from tocsin.config_file import load_settings
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.core.interpreter import runtime_name
from tocsin.errors import BundleError, ConfigError

BUNDLE = click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False))
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def model() -> None:
    """Look into a bundle, verify it, time it; list, install and roll back those of a device."""


@model.command()
@BUNDLE
@JSON
def info(bundle: Path, as_json: bool) -> None:
    """What the bundle was trained on, and where its limit comes from.

    \b
    Example:
      tocsin model info pump-1-20260309.tocsin
    """
    loaded = load_bundle(bundle)
    raw = loaded.manifest.raw
    if as_json:
        click.echo(json.dumps({**raw, "sha256": loaded.digest, "bytes": bundle.stat().st_size}, indent=1))
        return
    for name, text in _facts(loaded):
        click.echo(f"{name:<14}{text}")
    click.echo("next: tocsin model verify " + str(bundle), err=True)


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    manifest = bundle.manifest
    threshold, rule = manifest.threshold, manifest.alarm
    step = 1 / manifest.sample_rate_hz
    facts = [
        ("model", f"{manifest.name} {manifest.version}, created {manifest.raw.get('created', 'at an unknown time')}"),
        ("sha256", bundle.digest),
        ("channels", ", ".join(f"{c.name} [{c.unit}]" if c.unit else c.name for c in manifest.channels)),
        ("sample rate", f"{manifest.sample_rate_hz:g} Hz; values are held over gaps up to {manifest.max_gap_s:g} s"),
        (
            "window",
            f"{manifest.length} rows = {manifest.length * step:g} s, one every {manifest.hop * step:g} s",
        ),
    ]
    facts += [
        ("member", f"{m.name}: {m.family}, {m.precision}, {len(bundle.files[m.file]):,} bytes")
        for m in manifest.members
    ]
    facts += [
        ("limit", f"score {threshold.value:.6g} is ratio 1.0; {_origin(threshold.method, threshold.parameters)}"),
        *([("promise", threshold.promise.sentence())] if threshold.promise else []),
        *([("modes", f"{len(manifest.modes)}, with limits {', '.join(f'{limit:.4g}' for limit in threshold.limits)}")]
          if manifest.modes else []),
        ("alarm", f"raised by {rule.get('on_n', 3)} of {rule.get('on_m', 5)} windows over the limit, cleared by "
                  f"{rule.get('off_delay', 5)} in a row below {rule.get('clear_ratio', 0.8)} of it"),
        ("golden", f"{len(bundle.golden.scores)} windows, some with made-up anomalies, by {bundle.golden.runtime}"),
    ]  # fmt: skip
    return facts


def _origin(method: str, parameters: dict[str, float]) -> str:
    p = parameters
    if method == "mu_sigma":
        return f"mean {p['mean']:.4g} + {p['k']:g} × deviation {p['sigma']:.4g} of the calibration scores (mu_sigma)"
    if method == "quantile":
        return f"{p['q']:.2%} of the calibration scores lie below it / {p['margin']:g} (quantile)"
    if method == "pot":
        return f"by the tail of the calibration scores, {1 - p['q']:.2g} of the windows reach it (pot)"
    if method == "budget":
        return f"set for a rate of false alarms, by {p['episodes']:.0f} episodes over {p['base']:.4g} (budget)"
    return f"method {method}"


@model.command()
@BUNDLE
@JSON
def verify(bundle: Path, as_json: bool) -> None:
    """Check every hash, load every model, and replay the golden vectors on this machine.

    \b
    Exit code 7 when anything differs.
    Example:
      tocsin model verify pump-1-20260309.tocsin
    """
    loaded = load_bundle(bundle)
    with without_chatter(*RUNTIME):
        test = loaded.self_test()
    if as_json:
        document = {
            "bundle": str(bundle),
            "sha256": loaded.digest,
            "passed": test.passed,
            "windows": test.windows,
            "worst": test.worst if np.isfinite(test.worst) else None,
            "tolerance": test.tolerance,
            "flipped": test.flipped,
            "runtime": test.runtime,
            "members": [
                {"name": m.name, "family": m.family, "precision": m.precision} for m in loaded.manifest.members
            ],
        }
        click.echo(json.dumps(document, indent=1))
    if not test.passed:
        raise BundleError(
            f"{bundle}: golden vectors fail on {test.runtime}: worst score differs by {test.worst:.2%} "
            f"(allowed {test.tolerance:.2%}), {test.flipped} decisions changed: do not use it on this machine"
        )
    if not as_json:
        click.echo(
            f"{bundle.name}: whole; {test.windows} golden windows within {test.worst:.2g} "
            f"(allowed {test.tolerance:g}) on {test.runtime}"
        )


@model.command()
@BUNDLE
@JSON
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.05, 60), help="How long to measure.")
def bench(bundle: Path, as_json: bool, seconds: float) -> None:
    """Time a window through preprocessing, model and score on this machine.

    \b
    Example:
      tocsin model bench pump-1-20260309.tocsin
    """
    begin = time.perf_counter()
    loaded = load_bundle(bundle)
    with without_chatter(*RUNTIME):
        scorer = loaded.scorer()
    window = loaded.golden.windows[:1]
    scorer.score(window)
    first_ms = (time.perf_counter() - begin) * 1e3
    one = _times(lambda: scorer.score(window), seconds / 2)
    many = np.repeat(window, 256, axis=0)
    block = [t / 256 for t in _times(lambda: scorer.score(many), seconds / 2)]
    manifest = loaded.manifest
    hop_us = manifest.hop / manifest.sample_rate_hz * 1e6
    found: dict[str, Any] = {
        "bundle": str(bundle),
        "runtime": runtime_name(),
        "window_us_p50": statistics.median(one),
        "window_us_p99": float(np.percentile(one, 99)),
        "window_us_block": statistics.median(block),
        "load_to_first_score_ms": first_ms,
        "cpu_share_of_one_core": statistics.median(one) / hop_us,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "model_bytes": sum(len(loaded.files[m.file]) for m in manifest.members),
    }
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(f"one window        {found['window_us_p50']:.1f} µs (median), {found['window_us_p99']:.1f} µs (99 %)")
    click.echo(f"in blocks of 256  {found['window_us_block']:.1f} µs a window")
    click.echo(f"load to first     {first_ms:.1f} ms")
    click.echo(f"live load         {found['cpu_share_of_one_core']:.3%} of one core at a hop of {hop_us / 1e6:g} s")
    click.echo(f"memory            {found['rss_mb']:.0f} MB resident, all of the process; runtime {found['runtime']}")


def _times(call: Any, seconds: float) -> list[float]:
    """Microseconds of each call, for about so long."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - begin) / 1e3)
    return times


@model.command(name="list")
@CONFIG
@JSON
def list_(path: Path, as_json: bool) -> None:
    """The models on this device: which one each asset runs, and which it could go back to.

    \b
    Example:
      tocsin model list -c tocsin.yaml
    """
    found = []
    for asset, (product, slots) in lines_of(load_settings(path)).items():
        current, previous = slots.current(), slots.previous()
        for sha256 in ["", *slots.installed()]:
            manifest = load_bundle(slots.path(sha256)).manifest
            role = "current" if sha256 == current else "previous" if sha256 == previous and current else ""
            found.append(
                {
                    "asset": asset,
                    "product": product,
                    "sha256": sha256 or "factory",
                    "version": manifest.version,
                    "is": role,
                }
            )
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    if not found:
        raise ConfigError(f"{path}: no asset takes updates: expected `update:`, and `product:` of an asset")
    for one in found:
        click.echo(f"{one['asset']:<20} {one['version']:<16} {one['sha256'][:12]:<14} {one['is']}".rstrip())


@model.command()
@click.argument("asset")
@click.argument("target")
@CONFIG
def install(asset: str, target: str, path: Path) -> None:
    """Install TARGET, a signed bundle of the repository, on ASSET, whatever a roll-out says.

    It proves itself as any other; tocsin update apply goes on with it.

    \b
    Example:
      tocsin model install pump-1 models/pump/pump-1.4.0.tocsin -c tocsin.yaml
    """
    with opened(path) as client:
        _known(asset, client.lines)
        job = client.install(asset, target)
        click.echo(f"{asset}: {job.version} is to be installed")
        click.echo(f"next: tocsin update apply -c {path} --wait 10min", err=True)


@model.command()
@click.argument("asset")
@CONFIG
def rollback(asset: str, path: Path) -> None:
    """Go back to the model that ASSET had before; the agent notices within a second.

    \b
    Example:
      tocsin model rollback pump-1 -c tocsin.yaml
    """
    with opened(path) as client:
        _known(asset, client.lines)
        click.echo(f"{asset}: back to {client.roll_back(asset)[:12] or 'the bundle of the settings'}")


def _known(asset: str, lines: Collection[str]) -> None:
    if asset not in lines:
        raise ConfigError(f"no asset {asset!r} takes updates: there are {', '.join(lines)}")
