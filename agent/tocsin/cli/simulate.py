"""`tocsin simulate`: a virtual plant, as files or live."""

import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any

import click

from tocsin.cli.duration import positive_seconds
from tocsin.config import MqttSettings
from tocsin.simulate.plant import CHANNELS, Plant


@click.command()
@click.option(
    "--csv", "folder", type=click.Path(path_type=Path, file_okay=False),
    help="Write normal.csv and, with faults, test.csv and labels.csv into this folder, as fast as it goes.",
)  # fmt: skip
@click.option("--duration", callback=positive_seconds, help="Of each file; without --csv of the live run.  [files: 2h]")
@click.option(
    "--fault", "faults", multiple=True, metavar="FAULT", help="KIND[.CHANNEL][@START[-END]][:SEVERITY][/RAMP]"
)
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same samples.")
@click.option(
    "--vibration", "vibration_hz", type=float, default=0.0, show_default=True, metavar="HZ",
    help="Samples a second of the acceleration, 4000 or more, for --csv and --serial-vibration; 0 = none.",
)  # fmt: skip
@click.option("--always-load", is_flag=True, help="No idling, no pauses.")
@click.option("--modbus", type=click.IntRange(1, 65535), metavar="PORT", help="Serve Modbus TCP.  [extra: modbus]")
@click.option("--opcua", type=click.IntRange(1, 65535), metavar="PORT", help="Serve OPC UA.  [extra: opcua]")
@click.option("--serial", type=click.Path(path_type=Path), help="Print lines of numbers on a serial port of this name.")
@click.option(
    "--serial-vibration", "frames", type=click.Path(path_type=Path),
    help="Send the acceleration on a serial port of this name, as binary frames; needs --vibration.",
)  # fmt: skip
@click.option("--mqtt", "broker", metavar="HOST[:PORT]", help="Publish JSON on --topic, take faults on TOPIC/fault.")
@click.option("--topic", default="plant/pump-1", show_default=True, help="For --mqtt.")
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address that the servers listen on.")
@click.option("--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="Seconds in a second.")
def simulate(
    folder: Path | None,
    duration: float | None,
    faults: tuple[str, ...],
    seed: int,
    vibration_hz: float,
    always_load: bool,
    modbus: int | None,
    opcua: int | None,
    serial: Path | None,
    frames: Path | None,
    broker: str | None,
    topic: str,
    listen: str,
    speed: float,
) -> None:
    """A virtual plant: motor, bearing, pump and valve, with faults.

    With --csv it writes recordings first. Then it runs in real time, serves what is asked for, and takes faults on
    standard input: `bearing:0.5`, `bearing off`, `clear`; an empty line tells what is on. With --csv alone it ends.

    \b
    Faults of the machine: imbalance, misalignment, looseness, bearing, bearing_inner, bearing_ball,
      bearing_cage, cavitation, leakage, fouling
    Faults of a sensor: stuck, drift, dropout, spikes, offset, noise, each with .CHANNEL

    \b
    Examples:
      tocsin simulate --csv plant --duration 2h --fault bearing@1h-80min:0.5 --fault stuck.flow@90min
      tocsin simulate --modbus 5020 --opcua 4840 --fault leakage@10min:0.6
    """
    if folder is not None:
        _write(folder, duration or 7200.0, seed, faults, vibration_hz, always_load)
        if not any((modbus, opcua, serial, frames, broker)):
            return
        duration, faults = None, ()  # both were the files'
    if frames is not None and not vibration_hz:
        raise click.UsageError("--serial-vibration needs a rate: --vibration 8192")
    plant = Plant(seed, time.time(), vibration_hz if frames is not None else 0.0, always_load, faults)
    commands: SimpleQueue[str] = SimpleQueue()
    stopping = threading.Event()
    with ExitStack() as stack:
        outlets = _open(stack, commands, modbus, opcua, serial, broker, topic, listen)
        if frames is not None:
            from tocsin.simulate.serial_ports import SerialFrames  # noqa: PLC0415

            outlets.append(SerialFrames(frames, vibration_hz))
            stack.callback(outlets[-1].close)
        if not outlets:
            raise click.UsageError(
                "nothing to do: give --csv, --modbus, --opcua, --serial, --serial-vibration or --mqtt"
            )
        click.echo("channels " + ", ".join(f"{c.name} [{c.unit}]" for c in CHANNELS))
        for outlet in outlets:
            click.echo(outlet.told)
        _listen(commands, stopping)
        from tocsin.simulate.live import run_live  # noqa: PLC0415

        run_live(plant, outlets, commands, lambda said: click.echo(said, err=True), stopping, duration, speed)


def _write(
    folder: Path, duration_s: float, seed: int, faults: tuple[str, ...], vibration_hz: float, always_load: bool
) -> None:
    from tocsin.simulate.csv_files import write_files  # noqa: PLC0415

    shown = write_files(folder, duration_s, seed, faults, vibration_hz, always_load, click.echo)
    for each in shown:
        click.echo(f"  {each.kind} for {each.end_s - each.start_s:.1f} s", err=True)
    click.echo(
        f"next: tocsin train --data {folder / 'normal.csv'}" + f" --test {folder / 'test.csv'}" * bool(faults), err=True
    )


def _open(
    stack: ExitStack,
    commands: "SimpleQueue[str]",
    modbus: int | None,
    opcua: int | None,
    serial: Path | None,
    broker: str | None,
    topic: str,
    listen: str,
) -> list[Any]:
    from tocsin.simulate.outlets import Modbus, Mqtt, OpcUa  # noqa: PLC0415
    from tocsin.simulate.serial_ports import SerialLines  # noqa: PLC0415

    outlets: list[Any] = []

    def keep(outlet: Any) -> None:
        stack.callback(outlet.close)
        outlets.append(outlet)

    if modbus is not None:
        keep(Modbus(modbus, listen))
    if opcua is not None:
        keep(OpcUa(opcua, listen))
    if serial is not None:
        keep(SerialLines(serial))
    if broker is not None:
        host, _, port = broker.partition(":")
        if not host or (port and not (port.isdecimal() and 1 <= int(port) <= 65535)):
            raise click.BadParameter(f"{broker!r}: expected HOST or HOST:PORT, 1 to 65535", param_hint="--mqtt")
        keep(Mqtt(MqttSettings(host=host, port=int(port) if port else None), topic, commands.put))
    return outlets


def _listen(commands: "SimpleQueue[str]", stopping: threading.Event) -> None:
    """Lines of standard input are commands; a signal stops."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    def read() -> None:
        for line in sys.stdin:
            commands.put(line)

    threading.Thread(target=read, name="stdin", daemon=True).start()
