"""`tocsin config`: the agent's settings, checked and explained."""

import json
from pathlib import Path

import click
import yaml

from tocsin.alarms.detector import AlarmRule
from tocsin.config import AgentSettings, AssetSettings
from tocsin.config_file import SAMPLE, load_settings
from tocsin.core.bundle import load_bundle
from tocsin.core.groups import Group
from tocsin.core.manifest import Manifest
from tocsin.errors import ConfigError
from tocsin.pipeline import watch_of
from tocsin.sources import SourceSettings
from tocsin.sources.replay import ReplaySettings

CONFIG = click.option(
    "-c", "--config", "path", default="tocsin.yaml", show_default=True, type=click.Path(path_type=Path, dir_okay=False),
    help="The agent's YAML file.",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def config() -> None:
    """Check, show and explain the agent's configuration."""


@config.command()
@CONFIG
@JSON
def check(path: Path, as_json: bool) -> None:
    """Check the file, and every bundle and recording that it names.

    \b
    Example:
      tocsin config check -c /etc/tocsin/tocsin.yaml
    """
    settings = check_file(path)
    if as_json:
        click.echo(json.dumps({"config": str(path), "ok": True, "assets": [asset.id for asset in settings.assets]}))
        return
    click.echo(f"{path}: good; {len(settings.assets)} asset{'s' * (len(settings.assets) > 1)}")
    click.echo(f"next: tocsin run -c {path}", err=True)


def check_file(path: Path) -> AgentSettings:
    """The settings of a file, once they, its bundles and its recordings are found to go together.

    Raises:
        ConfigError: names the file, the key, and what is expected there.
        BundleError: a bundle is missing or damaged.
    """
    settings = load_settings(path)
    for n, asset in enumerate(settings.assets):
        check_asset(f"{path}: assets[{n}]", asset, load_bundle(asset.bundle).manifest)
    return settings


def check_asset(place: str, asset: AssetSettings, manifest: Manifest) -> None:
    """Whether an asset's settings go with its bundle.

    Args:
        place: of the asset in the settings, for messages.
        asset: its settings.
        manifest: of its bundle.

    Raises:
        ConfigError: names the key, and what is expected there.
    """
    groups = manifest.groups.groups
    try:
        asset.alarm.rule(AlarmRule.from_json(manifest.alarm))
        sources = asset.by_group(tuple(group.name for group in groups))
        watch_of(asset.id, manifest, asset.prior())
    except ConfigError as error:
        raise ConfigError(f"{place}.{error}") from error
    for group in groups:
        key = "source" if asset.source is not None else f"sources.{group.name}"
        _check_source(f"{place}.{key}", sources[group.name], group)


def _check_source(place: str, source: SourceSettings, group: Group) -> None:
    """Whether a source gives what the bundle needs, as far as that can be told without opening it."""
    rate_hz, names = group.sample_rate_hz, [channel.name for channel in group.channels]
    if isinstance(source, ReplaySettings):
        missing = [file for file in source.files if not file.is_file()]
        if missing:
            raise ConfigError(f"{place}.files: {missing[0]} is not there")
    elif source.rate_hz is not None and not 0.9 <= source.rate_hz / rate_hz <= 1.1:
        raise ConfigError(
            f"{place}.rate_hz: {source.rate_hz:g} is not the bundle's {rate_hz:g}: "
            "windows would be stretched; set the source to the bundle's rate, or train again"
        )
    given = source.given()
    lacking = [name for name in names if given is not None and name not in {channel.name for channel in given}]
    if lacking:
        raise ConfigError(f"{place}.channels: {lacking[0]!r} is missing: the bundle needs {', '.join(names)}")


@config.command()
@CONFIG
@JSON
def show(path: Path, as_json: bool) -> None:
    """The settings in force, defaults and environment included; passwords stay in their files.

    \b
    Example:
      tocsin config show -c tocsin.yaml
    """
    document = load_settings(path).model_dump(mode="json", by_alias=True)
    click.echo(json.dumps(document, indent=1) if as_json else yaml.safe_dump(document, sort_keys=False).rstrip())


@config.command()
def schema() -> None:
    """The JSON Schema of the file, for editors.

    \b
    Example:
      tocsin config schema > tocsin.schema.json
    """
    click.echo(json.dumps(AgentSettings.model_json_schema(), indent=1))


@config.command()
def sample() -> None:
    """A commented file to start from.

    \b
    Example:
      tocsin config sample > tocsin.yaml
    """
    click.echo(SAMPLE, nl=False)
