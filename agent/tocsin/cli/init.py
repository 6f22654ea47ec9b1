"""`tocsin init`: the first tocsin.yaml, from what is found and a few questions.

Rules: a flag answers a question, and `--no-input` asks none; nothing that is there is overwritten without `--force`;
what is written has passed the checks of `tocsin config check`.
"""

import os
import re
from pathlib import Path
from typing import Any

import click

from tocsin.cli.ask_source import TYPES, Answers, ask_source, asked, host_port, read_channels
from tocsin.cli.config import check_file
from tocsin.cli.draft import Draft, render
from tocsin.config_file import load_settings
from tocsin.core.bundle import load_bundle
from tocsin.core.manifest import Manifest
from tocsin.errors import ConfigError, TocsinError


@click.command()
@click.option(
    "-c", "--config", "path", default="tocsin.yaml", show_default=True, type=click.Path(path_type=Path, dir_okay=False),
    help="The file to write.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--no-input", is_flag=True, help="Ask nothing: flags, what is found, and defaults.")
@click.option("--bundle", "-b", type=click.Path(path_type=Path, dir_okay=False), help="Gives channels and rate.")
@click.option("--asset", help="Id of the machine.  [default: as the bundle is named, or machine-1]")
@click.option("--source", type=click.Choice(TYPES), help="Where samples come from.")
@click.option("--port", help="Serial port.  [default: the only one there is]")
@click.option("--baud", type=click.IntRange(50), help="Bits a second.  [default: found out]")
@click.option("--host", metavar="HOST[:PORT]", help="Of a Modbus slave, or of the broker that samples come from.")
@click.option("--url", help="Of an OPC UA server.")
@click.option("--topic", help="MQTT topic of the samples; + and # are wildcards.")
@click.option(
    "--register", "registers", multiple=True, metavar="NAME [UNIT]=ADDRESS[:TYPE[:ORDER]]",
    help="A Modbus register; again for others.",
)  # fmt: skip
@click.option("--file", "files", multiple=True, type=click.Path(path_type=Path), help="Recording to replay; again.")
@click.option("--channel", "channels", multiple=True, metavar="NAME [UNIT]", help="In the order that they come; again.")
@click.option("--rate", "rate_hz", type=float, help="Samples a second.  [default: measured, or the bundle's]")
@click.option("--seconds", type=click.FloatRange(0.5, 600), default=4.0, show_default=True, help="To listen for.")
@click.option("--no-listen", is_flag=True, help="Write without looking at the source; needs --channel or --bundle.")
@click.option("--broker", metavar="HOST[:PORT]", help="For alarms; 8883 is TLS.  [default: localhost]")
@click.option("--ca-file", type=click.Path(path_type=Path), help="The broker's CA; turns TLS on.")
@click.option("--username", help="At the broker.")
@click.option("--password-file", type=click.Path(path_type=Path), help="File whose first line is the password.")
@click.option("--device", default="", help="This box in topics.  [default: the host's name]")
def init(
    path: Path,
    force: bool,
    no_input: bool,
    bundle: Path | None,
    asset: str | None,
    broker: str | None,
    ca_file: Path | None,
    username: str | None,
    password_file: Path | None,
    device: str,
    channels: tuple[str, ...],
    no_listen: bool,
    **others: Any,
) -> None:
    """Write tocsin.yaml: finds ports, channels and rates by listening, asks for the rest.

    \b
    Examples:
      tocsin init
      tocsin init --no-input --bundle pump-1.tocsin --source serial --port /dev/ttyUSB0
      tocsin init --no-input --bundle pump-1.tocsin --source mqtt --topic plant/pump-1
      tocsin init --no-input --source modbus --host 192.168.1.20 --rate 1 --register 'pressure [bar]=0:float32'
    """
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already: give another name with --config, or replace it with --force")
    if not no_input and bundle is None:
        bundle = _bundle_asked()
    manifest = None if bundle is None else load_bundle(bundle).manifest
    if manifest is not None and not manifest.groups.alone:
        names = ", ".join(group.name for group in manifest.groups.groups)
        raise ConfigError(f"{bundle}: has the rate groups {names}, with a source each: start from tocsin config sample")
    answers = Answers(
        wanted=read_channels(channels) or (() if manifest is None else manifest.channels),
        listen=not no_listen,
        ask=not no_input,
        **others,
    )
    asset = asset or asked("Id of the machine", _id(manifest), answers.ask)
    source = ask_source(answers, manifest)
    place = broker or asked("MQTT broker for alarms, HOST[:PORT]", "localhost", answers.ask)
    mqtt = _broker(place, ca_file, username, password_file)
    beside = Path(os.path.relpath(bundle or Path(f"{asset}.tocsin"), path.absolute().parent))
    _write(path, render(Draft(device, mqtt, asset, str(beside), _relative(source, path))), bundle is not None)
    click.echo(f"{path}: written; {source['type']}, {_counted(source, manifest)}")
    if bundle is None:
        click.echo(f"next: tocsin sources test -c {path}, then tocsin record -c {path} --out recordings", err=True)
        click.echo(f"      tocsin train makes {beside} of what was recorded, on a workstation", err=True)
    else:
        click.echo(f"next: tocsin sources test -c {path}, then tocsin run -c {path}", err=True)


def _bundle_asked() -> Path | None:
    answer = click.prompt("Bundle from `tocsin train`, empty where there is none yet", default="", show_default=False)
    return Path(answer.strip()).expanduser() if answer.strip() else None


def _id(manifest: Manifest | None) -> str:
    """The bundle's name as an id."""
    name = "" if manifest is None else re.sub(r"[^a-z0-9-]+", "-", manifest.name.lower()).strip("-")[:64].strip("-")
    return name or "machine-1"


def _broker(place: str, ca_file: Path | None, username: str | None, password_file: Path | None) -> dict[str, Any]:
    host, port = host_port(place)
    found: dict[str, Any] = {"host": host}
    if port is not None:
        found["port"] = port
    if ca_file is not None or port == 8883:
        found["tls"] = {} if ca_file is None else {"ca_file": str(ca_file.absolute())}
    if username is not None:
        found["username"] = username
    if password_file is not None:
        found["password_file"] = str(password_file.absolute())
    return found


def _relative(source: dict[str, Any], path: Path) -> dict[str, Any]:
    """Files as they are named from where the settings stand."""
    if "files" not in source:
        return source
    return source | {"files": [os.path.relpath(file, path.absolute().parent) for file in source["files"]]}


def _counted(source: dict[str, Any], manifest: Manifest | None) -> str:
    registers = [each for slave in source.get("slaves", ()) for each in slave["registers"]]
    known = source.get("channels") or registers or ([] if manifest is None else list(manifest.channels))
    return f"{len(known)} channels" if known else "channels as recorded"


def _write(path: Path, text: str, bundled: bool) -> None:
    """Checks the text under another name, then puts it in its place."""
    draft = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        if bundled:
            check_file(draft)
        else:
            load_settings(draft)
        draft.replace(path)
    except OSError as error:
        raise TocsinError(f"{path}: cannot be written: {error.strerror or error}") from error
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(draft), str(path))) from error
    finally:
        draft.unlink(missing_ok=True)
