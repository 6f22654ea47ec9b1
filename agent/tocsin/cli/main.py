"""`tocsin`: finds the command, and ends with an exit code that says what was wrong.

| code | meaning | code | meaning |
|---|---|---|---|
| 0 | ok | 5 | source or hardware |
| 1 | failure | 6 | broker |
| 2 | usage | 7 | signature or verification |
| 3 | configuration | 8 | anomalies found (`--fail-on-anomaly`) |
| 4 | bad data | 9 | quality gate missed |
| | | 130 | interrupted |
"""

import importlib
import re
import sys
from collections.abc import Sequence

import click

from tocsin import __version__
from tocsin.errors import TocsinError

COMMANDS = {  # name → where, what it does; loaded when used
    "demo": ("tocsin.cli.demo:demo", "Train, run and raise alarms on real machine data, in under two minutes."),
    "train": ("tocsin_trainer.cli:train", "Recordings of normal running → a bundle and a report.  [extra: trainer]"),
    "tune": ("tocsin_trainer.tune.cli:tune", "Search settings, within a device's budget.  [extras: trainer, tune]"),
    "evaluate": (
        "tocsin_trainer.evaluate_cli:evaluate",
        "What a bundle finds and misses on labelled recordings.  [extra: trainer]",
    ),
    "explain": ("tocsin_trainer.explain.cli:explain", "Why a window scores as it does.  [extra: trainer]"),
    "replay": ("tocsin.cli.replay:replay", "Score a recording with a bundle, by the device's own code."),
    "simulate": ("tocsin.cli.simulate:simulate", "A virtual plant: motor, bearing, pump and valve, with faults."),
    "init": ("tocsin.cli.init:init", "Write tocsin.yaml: finds ports, channels and rates by listening."),
    "sources": ("tocsin.cli.sources:sources", "List the types of sources; watch what one of them gives."),
    "record": ("tocsin.cli.record:record", "Record samples to disk, list, export and fetch recordings."),
    "run": ("tocsin.cli.run:run", "Run the agent: sources → scores → alarms over MQTT."),
    "status": ("tocsin.cli.status:status", "How the devices of a broker fare, and what is in alarm."),
    "alarms": ("tocsin.cli.alarms:alarms", "List alarms; acknowledge, shelve, suppress them; report their figures."),
    "model": ("tocsin.cli.model:model", "Look into a bundle, verify it, time it."),
    "update": ("tocsin.cli.update:update", "Models over the air: check, apply, status."),
    "config": ("tocsin.cli.config:config", "Check, show and explain the agent's configuration."),
    "doctor": ("tocsin.cli.doctor:doctor", "Look whether this machine has what it needs, and say how to mend it."),
    "mqtt": ("tocsin.cli.mqtt:mqtt", "Listen to what the agents publish, publish, and clean up."),
    "fleet": ("tocsin_fleet.cli:fleet", "Certificates for devices and broker; signed bundles.  [extra: fleet]"),
    "rollout": ("tocsin_fleet.rollout.cli:rollout", "A signed bundle reaches the fleet in rings.  [extra: fleet]"),
    "inbox": ("tocsin_fleet.inbox.cli:inbox", "Receive, keep and forward the events of all devices.  [extra: fleet]"),
}


class LazyGroup(click.Group):
    """Imports a command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of a first day's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        place, about = COMMANDS[cmd_name]
        module, _, name = place.partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            extra = re.search(r"\[extras?: ([\w, ]+)\]", about)
            if extra is None:
                raise
            install = extra[1].replace(" ", "")
            raise TocsinError(
                f"{cmd_name} needs {error.name}, which is not here: pip install '.[{install}]'"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a mistyped name gets a suggestion."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            from difflib import get_close_matches  # noqa: PLC0415 - only after a mistake

            close = get_close_matches(name, COMMANDS, 1)
            hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(COMMANDS)}."
            raise click.UsageError(f"no command {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="First steps: `tocsin demo`, then `tocsin train --data normal.csv`.",
)
@click.version_option(__version__, prog_name="tocsin")
def cli() -> None:
    """Tocsin: an alarm bell for machines.

    Trains autoencoders on recordings of normal running, scores live sensor data on the device with int8 models, and
    publishes alarms over MQTT. Offline, no account.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Runs the command line and exits the process.

    Args:
        args: without the program's name; None = those of this process.
    """
    try:
        code = cli.main(args=None if args is None else list(args), prog_name="tocsin", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except TocsinError as error:
        click.echo(f"tocsin: error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("tocsin: interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
