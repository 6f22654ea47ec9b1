"""`tocsin fleet init|publish|sign|rotate|status|serve`: signed bundles for devices."""

import json
import re
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import click

from tocsin.config import TOPIC_ID
from tocsin.errors import ConfigError
from tocsin_fleet.release.keys import Keys
from tocsin_fleet.release.release import ROLES, Release, counter_of

F = TypeVar("F", bound=Callable[..., Any])


def release_options(command: F) -> F:
    """Where the repository and its keys are."""
    folder = click.Path(path_type=Path, file_okay=False)
    for option in (
        click.option(
            "--passphrase-file",
            type=click.Path(path_type=Path, dir_okay=False),
            envvar="TOCSIN_PASSPHRASE_FILE",
            help="File with the keys' passphrase on its first line; asked for when left out.",
        ),
        click.option(
            "--keys",
            type=folder,
            multiple=True,
            help="Folder with keys; may be given again, for a stick with others.  [default: release/keys]",
        ),
        click.option(
            "--repository",
            type=folder,
            default="release/repository",
            show_default=True,
            help="The folder that a web server gives to devices.",
        ),
    ):
        command = option(command)
    return command


def opened(repository: Path, keys: tuple[Path, ...], passphrase_file: Path | None) -> Release:
    """The repository that options name."""

    def ask() -> str:
        if passphrase_file is None:
            return str(click.prompt("passphrase of the keys", hide_input=True, err=True))
        try:
            return passphrase_file.read_text(encoding="utf-8").split("\n", 1)[0]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{passphrase_file}: cannot be read: {error}") from error

    return Release(repository, Keys(keys or (Path("release/keys"),), ask))


def product_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Callback of an option."""
    if not re.fullmatch(TOPIC_ID, value):
        raise click.BadParameter(f"{value!r}: expected lower-case letters, digits and hyphens, such as pump")
    return value


@click.command()
@release_options
def init(**where: Any) -> None:
    """Make the keys and an empty repository.

    Three root keys of which two have to agree, targets, and the keys of each day. Then take root-*.pem and targets.pem
    off this machine, each root key to another place: they are needed to change who is trusted, and never else. Devices
    get the file root.json.

    \b
    Example:
      tocsin fleet init
    """  # fmt: skip
    release = opened(**where)
    release.init()
    trusted = release.folder.parent / "root.json"
    trusted.write_bytes(release.root())
    click.echo(f"made: {release.folder}, and {trusted} for your devices (`update.trusted_root`)")
    click.echo("next: move root-*.pem and targets.pem to safe places, then tocsin fleet publish", err=True)


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--product", required=True, callback=product_name, help="Kind of machine that it is for, as in `product:`."
)
@click.option("--notes", default="", help="What is new, for people.")
@release_options
def publish(bundle: Path, product: str, notes: str, **where: Any) -> None:
    """Sign BUNDLE for a product and publish it; no device takes it before a roll-out says so.

    The same bundle published again gets a higher release counter: so an older one is made the newest.

    \b
    Example:
      tocsin fleet publish pump-1.4.0.tocsin --product pump --notes 'trained on summer, too'
    """
    path, counter = opened(**where).publish(bundle, product, notes)
    click.echo(f"{path}: published, release {counter} of {product}")
    click.echo(f"next: tocsin rollout start --product {product} --target {path}", err=True)


@click.command()
@click.option("--all", "everything", is_flag=True, help="Also what does not expire soon.")
@release_options
def sign(everything: bool, **where: Any) -> None:
    """Sign anew what would expire soon, by the keys that are here; run it each week, by cron.

    \b
    Examples:
      tocsin fleet sign --passphrase-file /etc/tocsin/passphrase
      tocsin fleet sign --all --keys release/keys --keys /media/stick-1 --keys /media/stick-2
    """
    done = opened(**where).sign(everything)
    click.echo(f"signed: {', '.join(done)}" if done else "nothing expires soon")


@click.command()
@click.argument("role", type=click.Choice(ROLES))
@release_options
def rotate(role: str, **where: Any) -> None:
    """Give ROLE a new key: its old one was lost, stolen, or is old. Devices follow by themselves.

    Needs the keys that vouch for it: two root keys, or for models and rollout the targets key.

    \b
    Example:
      tocsin fleet rotate models --keys release/keys --keys /media/stick
    """
    opened(**where).rotate(role)
    click.echo(f"{role} has a new key; the old one signs nothing any more")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@release_options
def status(as_json: bool, **where: Any) -> None:
    """What is published, and when which signature expires; ends with 9 when one expires soon.

    \b
    Example:
      tocsin fleet status
    """
    release = opened(**where)
    roles, bundles = release.status(), release.bundles()
    if as_json:
        document = {
            "roles": [
                {"role": one.role, "version": one.version, "expires": one.expires.isoformat(), "soon": one.soon}
                for one in roles
            ],
            "bundles": [{"path": path, "release_counter": counter_of(one)} for path, one in bundles.items()],
        }
        click.echo(json.dumps(document, indent=1))
    else:
        for one in roles:
            warning = "  EXPIRED" if one.days_left < 0 else "  expires soon: tocsin fleet sign" if one.soon else ""
            click.echo(
                f"{one.role:<10} version {one.version:<4} {one.keys} keys  until {one.expires:%Y-%m-%d}{warning}"
            )
        for path, target in bundles.items():
            click.echo(f"release {counter_of(target):<4} {path}  {target.length} bytes")
    if any(one.soon for one in roles):
        raise click.exceptions.Exit(9)


@click.command()
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address.")
@click.option("--port", type=click.IntRange(0, 65535), default=8470, show_default=True)
@click.option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default="release/repository",
    show_default=True,
)
def serve(listen: str, port: int, repository: Path) -> None:
    """Give the repository to devices, for tests and small plants; what is served is signed, and no secret.

    \b
    Example:
      tocsin fleet serve --listen 0.0.0.0
    """
    with ThreadingHTTPServer((listen, port), partial(SimpleHTTPRequestHandler, directory=str(repository))) as server:
        click.echo(f"serving {repository} at http://{listen}:{server.server_port}/", err=True)
        server.serve_forever()


COMMANDS = (init, publish, sign, rotate, status, serve)
