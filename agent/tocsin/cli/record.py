"""`tocsin record`: samples to disk without a model, and what becomes of them."""

import json
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click

from tocsin.cli.config import CONFIG, JSON
from tocsin.cli.duration import positive_seconds
from tocsin.config_file import load_settings
from tocsin.errors import DataError, SourceError, TocsinError
from tocsin.recorder import Recorder
from tocsin.recorder.settings import RecordingSettings
from tocsin.recorder.source import RecordedSource
from tocsin.recordings import TableOptions, open_table, read_table
from tocsin.recordings.segment import Header, find_segments, read_blocks, read_headers
from tocsin.recordings.table import SegmentTable
from tocsin.records import SampleBlock

LOOK_S = 0.1  # between two looks whether all have ended
DEFAULT_FOLDER = "/var/lib/tocsin/recordings"


class _StartByDefault(click.Group):
    """`tocsin record -c …` is `tocsin record start -c …`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["start", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0].startswith("-"):
            args = ["start", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_StartByDefault)
def record() -> None:
    """Record samples to disk, list, export and fetch recordings.

    `tocsin record` alone is `tocsin record start`.
    """


@record.command()
@CONFIG
@click.option("--asset", "chosen", multiple=True, help="Record this asset only; may be given again.")
@click.option(
    "--out", "-o", type=click.Path(path_type=Path, file_okay=False), help="Folder.  [default: as the file says]"
)
@click.option("--duration", callback=positive_seconds, help="Stop after this: 10min, 8h.")
def start(path: Path, chosen: tuple[str, ...], out: Path | None, duration: float | None) -> None:
    """Record the sources of a configuration until stopped.

    The bundles that the file names need not be there yet. A source that is lost is opened again. Exit code 5 when one
    gave nothing, unless its `startup` is `ignore` and another gave samples.

    \b
    Example:
      tocsin record -c tocsin.yaml --out recordings --duration 8h
    """
    settings = load_settings(path)
    unknown = set(chosen) - {asset.id for asset in settings.assets}
    if unknown:
        names = ", ".join(asset.id for asset in settings.assets)
        raise click.BadParameter(f"{min(unknown)!r} is not in {path}: there are {names}", param_hint="--asset")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    recording = settings.recording or RecordingSettings()
    recorder = Recorder(out or recording.folder or settings.state_dir / "recordings", recording.limits())
    sources = [
        RecordedSource(stream, source, recorder)
        for asset in settings.assets
        if not chosen or asset.id in chosen
        for stream, source in asset.streams().items()
    ]
    recorder.start()
    click.echo(f"recording to {recorder.folder}/ring; stop with Ctrl-C", err=True)
    _run(sources, duration)
    recorder.stop()
    found = recorder.statistics
    click.echo(
        f"{found.rows} samples recorded, {found.dropped} dropped; {found.ring_bytes / 2**20:.1f} MiB in the ring"
    )
    if found.rows:
        click.echo(f"next: tocsin record list {recorder.folder}", err=True)
    if found.last_error:
        raise TocsinError(found.last_error)
    broken = [source for source in sources if source.broken_off]
    if broken:
        raise DataError("; ".join(f"{source.name}: {source.last_error}" for source in broken))
    silent = [source for source in sources if not (source.source.samples or (source.may_be_absent and found.rows))]
    if silent:
        raise SourceError("; ".join(f"{source.name}: {source.last_error or 'no sample came'}" for source in silent))


def _run(sources: list[RecordedSource], duration_s: float | None) -> None:
    """Until a signal, the end of all, or of one that must be there and is not; what is refused counts as ended."""
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    end_s = math.inf if duration_s is None else time.monotonic() + duration_s
    for source in sources:
        source.start()
    while not all(source.ended or source.begun.refused for source in sources):
        left_s = end_s - time.monotonic()
        if left_s <= 0 or stopping.wait(min(LOOK_S, left_s)) or any(source.begun.fatal for source in sources):
            break
    for source in sources:
        source.ask_to_stop()
    for source in sources:
        source.stop()


@record.command(name="list")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@JSON
def list_(folder: Path, as_json: bool) -> None:
    """What is recorded in a folder: streams of the ring, and snapshots.

    \b
    Example:
      tocsin record list recordings
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder: expected what `tocsin record start --out` or `recording:` of the agent wrote"
        )
    folders = sorted({file.parent for file in folder.rglob("*.seg")})
    found = [_about(path, headers) for path in folders if (headers := read_headers(find_segments(path)))]
    if as_json:
        click.echo(json.dumps([each for each in found if each["rows"]], indent=1))
        return
    if not found:
        raise DataError(f"{folder}: no recordings in it: make one with tocsin record start --out {folder}")
    for each in found:
        click.echo(f"{each['folder']}")
        click.echo(f"  {each['from']} to {each['to']}, {each['rows']:,} samples, {each['bytes'] / 2**20:.1f} MiB")
        click.echo(f"  {', '.join(each['channels'])}")
    click.echo(f"next: tocsin record export {found[0]['folder']} --out recording.csv", err=True)


def _about(folder: Path, headers: dict[Path, Header]) -> dict[str, Any]:
    newest = list(headers.values())[-1]
    rows, first_s, last_s = 0, math.inf, -math.inf
    for file in headers:
        for block in read_blocks(file):
            if len(block):
                rows += len(block)
                first_s, last_s = min(first_s, float(block.time_s.min())), max(last_s, float(block.time_s.max()))
    channels = [f"{c.name} [{c.unit}]" if c.unit else c.name for c in newest.channels]
    return {
        "folder": str(folder),
        "stream": newest.stream,
        "snapshot": newest.snapshot or None,
        "from": _clock(first_s),
        "to": _clock(last_s),
        "rows": rows,
        "segments": len(headers),
        "bytes": sum(file.stat().st_size for file in headers),
        "channels": channels,
    }


def _clock(time_s: float) -> str | None:
    if not 0 <= time_s < 2e11:
        return None
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _instant(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: expected a time such as 2026-03-09T08:00:00Z") from error
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


@record.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--out", "-o", required=True, type=click.Path(path_type=Path, dir_okay=False), help="FILE.csv or FILE.parquet."
)
@click.option("--from", "start_s", callback=_instant, help="First instant, ISO 8601, UTC where it does not say.")
@click.option("--to", "end_s", callback=_instant, help="Last instant.")
def export(source: Path, out: Path, start_s: float | None, end_s: float | None) -> None:
    """Write a recording as CSV, or as Parquet.  [extra: parquet]

    SOURCE is a segment, or a folder of one stream's segments.

    \b
    Example:
      tocsin record export recordings/ring/pump-1 --out pump-1.csv --from 2026-03-09T08:00
    """
    from tocsin.recordings.export import between  # noqa: PLC0415
    from tocsin.recordings.export import export as write  # noqa: PLC0415

    table = open_table(source, TableOptions())
    blocks: Iterator[SampleBlock] = (part.block for part in read_table(table))
    chosen = between(blocks, -math.inf if start_s is None else start_s, math.inf if end_s is None else end_s)
    rows = write(out, table.channels, chosen, table.precision if isinstance(table, SegmentTable) else "float64")
    click.echo(f"{rows} samples in {out}")
    if not rows:
        raise DataError(f"{source}: no samples in that time: see tocsin record list {source}")


@record.command()
@click.argument("device")
@click.option("--folder", default=DEFAULT_FOLDER, show_default=True, help="Of the recordings on the device.")
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("recordings"),
    show_default=True,
    help="Here.",
)
def pull(device: str, folder: str, out: Path) -> None:
    """Fetch a device's recordings over ssh; again, and it goes on where it stopped.

    DEVICE is [user@]host[:folder], or a folder here that begins with . or /. Log-in and keys are those of your ssh.

    \b
    Example:
      tocsin record pull pi@edge-1 --out recordings/edge-1
    """
    from tocsin.recorder.pull import pull as fetch  # noqa: PLC0415

    found = fetch(device, folder, out, click.echo)
    gone = f"; {found.gone} left the ring meanwhile" if found.gone else ""
    click.echo(f"{found.bytes:,} bytes came, {found.segments} segments are here{gone}")
