"""`tocsin config`: the agent's settings, checked and explained."""

import json
from pathlib import Path

import click
import yaml

from tocsin.config import AgentSettings
from tocsin.config_check import check_asset, check_recordings, warnings
from tocsin.config_file import SAMPLE, load_settings
from tocsin.core.bundle import load_bundle

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
    for warning in warnings(settings):
        click.echo(f"warning: {path}: {warning}", err=True)
    if as_json:
        click.echo(json.dumps({"config": str(path), "ok": True, "assets": [asset.id for asset in settings.assets]}))
        return
    click.echo(f"{path}: good; {len(settings.assets)} asset{'s' * (len(settings.assets) > 1)}")
    click.echo(f"next: tocsin doctor -c {path} looks at ports, broker and clock; then tocsin run -c {path}", err=True)


def check_file(path: Path) -> AgentSettings:
    """The settings of a file, once they, its bundles and its recordings are found to go together.

    Raises:
        ConfigError: names the file, the key, and what is expected there.
        BundleError: a bundle is missing or damaged.
    """
    settings = load_settings(path)
    for n, asset in enumerate(settings.assets):
        manifest = load_bundle(asset.bundle).manifest
        check_asset(f"{path}: assets[{n}]", asset, manifest)
        check_recordings(f"{path}: assets[{n}]", asset, manifest)
    return settings


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
