"""What `tocsin init` has to know of a source: from flags, by listening, or asked.

Rules: a flag answers a question; what is heard is said; a bundle's channels and rate count, where what comes agrees.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from tocsin.cli.heard import Heard, wanted_of
from tocsin.config import BrokerSettings
from tocsin.core.manifest import Manifest
from tocsin.records import Channel
from tocsin.settings import AnyChannel, ChannelSettings

PLAIN = 1e-4  # of a rate
TYPES = ("serial", "modbus", "opcua", "mqtt", "replay", "synthetic")
REGISTER = re.compile(r"(?P<channel>.+?)\s*=\s*(?P<address>\d{1,5})(?::(?P<type>\w+))?(?::(?P<order>[ABCD]{4}))?")
EXAMPLES = {"modbus": "192.168.1.20:502, or a serial port", "opcua": "opc.tcp://plc.example:4840", "mqtt": "plant/#"}


@dataclass(frozen=True, slots=True)
class Answers:
    """What the flags say; None or empty = ask, or find out."""

    source: str | None
    port: str | None
    baud: int | None
    host: str | None
    url: str | None
    topic: str | None
    registers: tuple[str, ...]
    files: tuple[Path, ...]
    wanted: tuple[Channel, ...]
    rate_hz: float | None
    seconds: float
    listen: bool
    ask: bool


def ask_source(answers: Answers, manifest: Manifest | None) -> dict[str, Any]:
    """Keys of the source, `type` first."""
    kind = answers.source or _type_asked(answers)
    make: Callable[[Answers, float | None], dict[str, Any]] = {
        "serial": _serial,
        "modbus": _modbus,
        "opcua": _opcua,
        "mqtt": _mqtt,
        "replay": _replay,
        "synthetic": _synthetic,
    }[kind]
    return {"type": kind, **make(answers, None if manifest is None else manifest.sample_rate_hz)}


def _type_asked(answers: Answers) -> str:
    if answers.port:
        return "serial"
    if not answers.ask:
        raise click.UsageError(f"--no-input needs --source: {', '.join(TYPES)}")
    from tocsin.cli.hear_serial import serial_ports  # noqa: PLC0415

    return str(
        click.prompt(
            "Where samples come from", type=click.Choice(TYPES), default="serial" if serial_ports() else "mqtt"
        )
    )


def _serial(answers: Answers, bundle_hz: float | None) -> dict[str, Any]:
    from tocsin.cli.hear_serial import hear_serial  # noqa: PLC0415

    port = _port(answers)
    if not answers.listen:
        chosen = {} if answers.baud is None else {"baud": answers.baud}
        return {"port": port, **chosen, **_rate(answers, bundle_hz, None), "channels": _plain(_needed(answers))}
    click.echo(f"listening to {port} …", err=True)
    heard = hear_serial(port, answers.baud, answers.seconds)
    click.echo(f"{port}: {heard.told}", err=True)
    wanted = answers.wanted
    if not wanted and not heard.channels and answers.ask:
        names = ", ".join(f"c{n}" for n in range(1, heard.count + 1))
        wanted = read_channels((asked("Their names, in order: pressure [bar], flow [l/min]", names, True),))
    found = wanted_of(heard, wanted)
    return {**heard.settings, **_rate(answers, bundle_hz, heard.rate_hz), "channels": _plain(found)}


def _port(answers: Answers) -> str:
    from tocsin.cli.hear_serial import serial_ports  # noqa: PLC0415

    port = answers.port
    if port is None:
        ports = serial_ports()
        for path, what in ports:
            click.echo(f"  {path}  {what}", err=True)
        if not answers.ask and len(ports) > 1:
            raise click.UsageError(f"--no-input needs --port: there are {', '.join(path for path, _ in ports)}")
        port = asked("Serial port", ports[0][0] if ports else None, answers.ask, "--port: no serial port was found")
    return port if "://" in port else str(Path(port).expanduser().absolute())


def _modbus(answers: Answers, bundle_hz: float | None) -> dict[str, Any]:
    place = answers.host or answers.port or asked(f"Slave: {EXAMPLES['modbus']}", None, answers.ask, "--host")
    where: dict[str, Any]
    if place.startswith("/"):
        where = {"port": place, **({} if answers.baud is None else {"baud": answers.baud})}
    else:
        host, port = host_port(place)
        where = {"host": host, **({} if port is None else {"tcp_port": port})}
    registers = answers.registers
    if not registers and answers.ask:
        click.echo("Registers, one a line, as in `pressure [bar]=0:float32`; an empty line ends them.", err=True)
        lines = []
        while line := click.prompt("Register", default="", show_default=False).strip():
            lines.append(line)
        registers = tuple(lines)
    if not registers:
        raise click.UsageError("a Modbus map is needed: --register 'pressure [bar]=0:float32', again for each channel")
    return {
        **where,
        **_rate(answers, bundle_hz, None),
        "slaves": [{"id": 1, "registers": [*map(_register, registers)]}],
    }


def _register(text: str) -> dict[str, Any]:
    match = REGISTER.fullmatch(text.strip())
    if match is None:
        raise click.BadParameter(
            f"{text!r}: expected NAME [UNIT]=ADDRESS[:TYPE[:ORDER]], as in pressure [bar]=0:float32:CDAB",
            param_hint="--register",
        )
    (channel,) = read_channels((match["channel"],))
    rest = {key: match[key] for key in ("type", "order") if match[key]}
    return {**_named({"name": channel.name, "unit": channel.unit}), "address": int(match["address"]), **rest}


def _opcua(answers: Answers, bundle_hz: float | None) -> dict[str, Any]:
    from tocsin.cli.hear_network import browse_opcua  # noqa: PLC0415

    url = answers.url or asked(f"Server: {EXAMPLES['opcua']}", None, answers.ask, "--url")
    if not answers.listen:
        raise click.UsageError("an OPC UA server has to be looked at: leave out --no-listen")
    click.echo(f"browsing {url} …", err=True)
    heard = browse_opcua(url, max(answers.seconds, 4.0))
    return {**heard.settings, **_rate(answers, bundle_hz, None), "channels": _chosen(heard, answers)}


def _mqtt(answers: Answers, bundle_hz: float | None) -> dict[str, Any]:
    from tocsin.cli.hear_network import hear_mqtt  # noqa: PLC0415

    host, port = host_port(answers.host or asked("Broker of the samples, HOST[:PORT]", "localhost", answers.ask))
    topic = answers.topic or asked(f"Topic: {EXAMPLES['mqtt']}", None, answers.ask, "--topic")
    broker = BrokerSettings.model_validate({"host": host} | ({} if port is None else {"port": port}))
    if not answers.listen:
        channels = [{**_named({"name": each.name, "unit": each.unit}), "path": each.name} for each in answers.wanted]
        settings = {"broker": broker.model_dump(exclude_unset=True), "topic": topic}
        return {**settings, **_rate(answers, bundle_hz, None), "channels": channels or _needed(answers)}
    click.echo(f"listening to {topic} at {host} …", err=True)
    heard = hear_mqtt(broker, topic, answers.seconds)
    return {**heard.settings, **_rate(answers, bundle_hz, heard.rate_hz), "channels": _chosen(heard, answers)}


def _replay(answers: Answers, _bundle_hz: float | None) -> dict[str, Any]:
    files = answers.files or (Path(asked("Recording, a CSV file", None, answers.ask, "--file")),)
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise click.BadParameter(f"{missing[0]} is not there", param_hint="--file")
    return {"files": [str(file) for file in files], "speed": 1}


def _synthetic(answers: Answers, bundle_hz: float | None) -> dict[str, Any]:
    return {**_rate(answers, bundle_hz, 10.0), "channels": _plain(_needed(answers))}


def _needed(answers: Answers) -> list[dict[str, Any]]:
    """The channels, where nothing tells them but the user."""
    wanted = answers.wanted
    if not wanted and answers.ask:
        wanted = read_channels((asked("Channels, in order: pressure [bar], flow [l/min]", None, True),))
    if not wanted:
        raise click.UsageError("channels are needed: --bundle, or --channel 'pressure [bar]' for each")
    return [{"name": each.name, "unit": each.unit} for each in wanted]


def _chosen(heard: Heard, answers: Answers) -> list[dict[str, Any]]:
    """Of what came by name: what is wanted; the user may choose."""
    click.echo(heard.told, err=True)
    wanted = answers.wanted
    if not wanted and answers.ask:
        names = ", ".join(each["name"] for each in heard.channels)
        wanted = read_channels((asked("Channels, [unit] behind them", names, True),))
    return [_named(each) for each in wanted_of(heard, wanted)]


def _rate(answers: Answers, bundle_hz: float | None, heard_hz: float | None) -> dict[str, float]:
    """`rate_hz`: as given, else the bundle's where what comes agrees with it, else as heard."""
    given = answers.rate_hz
    if given is None and bundle_hz is not None and (heard_hz is None or 0.9 <= heard_hz / bundle_hz <= 1.1):
        given = bundle_hz
    given = given or heard_hz
    if given is None:
        given = float(asked("Samples a second", "1", answers.ask, "--rate"))
    return {"rate_hz": plain_rate(given)}


def plain_rate(rate_hz: float) -> float:
    """A whole number or one of three digits, where the rate is within 0.01 % of it; else six digits.

    >>> plain_rate(10.000009536752259), plain_rate(62.5003), plain_rate(4096.0), plain_rate(3.14159265)
    (10, 62.5, 4096, 3.14159)
    """
    near = (float(round(rate_hz)), float(f"{rate_hz:.3g}"))
    given = next((plain for plain in near if abs(plain / rate_hz - 1) <= PLAIN), float(f"{rate_hz:.6g}"))
    return int(given) if given == int(given) else given


def _named(each: dict[str, Any]) -> dict[str, Any]:
    """Without an empty unit."""
    first = {"name": each["name"], **({"unit": each["unit"]} if each.get("unit") else {})}
    return first | {key: value for key, value in each.items() if key != "unit"}


def _plain(channels: list[dict[str, Any]]) -> list[str]:
    """`name [unit]`."""
    return [f"{each['name']} [{each['unit']}]" if each.get("unit") else each["name"] for each in channels]


def host_port(text: str) -> tuple[str, int | None]:
    """HOST or HOST:PORT, in parts."""
    host, _, port = text.rpartition(":") if ":" in text else (text, "", "")
    if not host or (port and not (port.isdigit() and 1 <= int(port) <= 65535)):
        raise click.BadParameter(f"{text!r}: expected HOST or HOST:PORT")
    return host, int(port) if port else None


def read_channels(words: tuple[str, ...]) -> tuple[Channel, ...]:
    """Each `name [unit]`; several may stand in one, with commas between."""
    adapter: TypeAdapter[ChannelSettings] = TypeAdapter(AnyChannel)
    found = []
    for word in (part.strip() for text in words for part in text.split(",")):
        try:
            found.append(adapter.validate_python(word).channel())
        except ValidationError as error:
            raise click.BadParameter(
                f"{word!r}: expected a name of lower-case letters, digits and _, and a unit: pressure [bar]",
                param_hint="--channel",
            ) from error
    return tuple(found)


def asked(text: str, default: str | None, ask: bool, flag: str = "") -> str:
    """The answer, or the default where nothing is asked."""
    if ask:
        return str(click.prompt(text, default=default, type=str)).strip()
    if default is None:
        raise click.UsageError(f"--no-input needs {flag}")
    return default
