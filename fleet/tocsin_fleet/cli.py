"""`tocsin fleet`: what runs beside the broker, and its keys."""

import click

from tocsin_fleet.authority.cli import COMMANDS as CERTIFICATES
from tocsin_fleet.release.cli import COMMANDS as RELEASES


@click.group()
def fleet() -> None:
    """Certificates by which devices and broker know each other; signed bundles for devices."""


for command in (*CERTIFICATES, *RELEASES):
    fleet.add_command(command)
