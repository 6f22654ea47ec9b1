"""`tocsin run`: the agent."""

import logging
import sys
from pathlib import Path

import click

from tocsin.cli.config import CONFIG
from tocsin.config_file import load_settings
from tocsin.errors import ConfigError


@click.command()
@CONFIG
@click.option("--verbose", "-v", is_flag=True, help="Say more.")
@click.option("--quiet", "-q", is_flag=True, help="Only warnings and errors.")
def run(path: Path, verbose: bool, quiet: bool) -> int:
    """Run the agent: sources → scores → alarms over MQTT.

    Runs until SIGTERM or Ctrl-C; with recordings as its only sources, until all are played and every alarm is
    delivered. Alarms that the broker has not taken wait on disk and are sent at the next start.

    \b
    Example:
      tocsin run -c /etc/tocsin/tocsin.yaml
    """
    settings = load_settings(path)
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname)-7s %(message)s")
    from tocsin.service import run_agent  # noqa: PLC0415 - a mistake in the file is told before anything heavy is loaded

    try:
        return run_agent(settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
