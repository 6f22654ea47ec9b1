"""`tocsin sources`: what there is to read from, and what one of them gives right now."""

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import yaml
from pydantic import TypeAdapter, ValidationError

from tocsin.cli.config import JSON
from tocsin.cli.readings import Readings, notes, problems
from tocsin.config import AssetSettings
from tocsin.config_file import load_settings
from tocsin.core.bundle import load_bundle
from tocsin.core.groups import Group
from tocsin.errors import ConfigError, SourceError, TocsinError
from tocsin.sources import GROUP as ENTRY_POINTS
from tocsin.sources import SOURCES, AnySource, SourceSettings, make_source, settings_class

NEEDS = {"can": ("can", "cantools"), "modbus": ("pymodbus",), "opcua": ("asyncua",)}  # extra of that name → modules
PAGES = {"replay": "docs/configure/sources.md#replay", "synthetic": "docs/configure/sources.md#synthetic"}
READ_S, REDRAW_S = 0.2, 0.5
_SETTINGS: TypeAdapter[SourceSettings] = TypeAdapter(AnySource)


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of source.

    Attributes:
        type: as the configuration names it.
        text: what it is, in a line.
        usable: all that it needs is installed.
        mend: what installs it; empty where it is usable.
        page: of the documentation; empty where another package brings it.
        package: that brings it; `tocsin` for our own.
    """

    type: str
    text: str
    usable: bool
    mend: str
    page: str
    package: str


@click.group()
def sources() -> None:
    """List the types of sources; watch what one of them gives."""


@sources.command(name="list")
@JSON
def list_(as_json: bool) -> None:
    """Every type of source: what it is, whether it can be used here, where it is described.

    \b
    Example:
      tocsin sources list
    """
    found = list(kinds())
    if as_json:
        click.echo(json.dumps([asdict(kind) for kind in found], indent=1, ensure_ascii=False))
        return
    for kind in found:
        click.echo(f"{'✓' if kind.usable else '✗'} {kind.type:<10} {kind.text}")
        click.echo(f"  {'':<10} {kind.page or f'from the package {kind.package}'}{'; ' * bool(kind.mend)}{kind.mend}")
    click.echo("next: tocsin init, or tocsin sources test TYPE --set KEY=VALUE", err=True)


def kinds() -> Iterator[Kind]:
    """Our own by name, then those of other packages."""
    for name in sorted(SOURCES):
        missing = [module for module in NEEDS.get(name, ()) if importlib.util.find_spec(module) is None]
        page = PAGES.get(name, f"docs/configure/{name}.md")
        mend = f"pip install '.[{name}]'" if missing else ""
        yield Kind(name, _text(settings_class(name)), not missing, mend, page, "tocsin")
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        if point.name not in SOURCES:
            package = point.dist.name if point.dist else point.module
            try:
                yield Kind(point.name, _text(settings_class(point.name)), True, "", "", package)
            except ImportError as error:
                yield Kind(point.name, f"cannot be loaded: {error}", False, f"mend or remove {package}", "", package)


def _text(settings: type[SourceSettings]) -> str:
    return (settings.__doc__ or "").strip().partition("\n")[0]


@sources.command()
@click.argument("name", metavar="[TYPE]", required=False)
@click.option(
    "--set", "-s", "given", multiple=True, metavar="KEY=VALUE", help="A setting of TYPE, as in YAML; again for others."
)
@click.option(
    "-c", "--config", "path", type=click.Path(path_type=Path, dir_okay=False),
    help="Watch the sources of this file instead.  [default: tocsin.yaml, without TYPE]",
)  # fmt: skip
@click.option("--asset", help="Only this one of the file.")
@click.option("--seconds", type=click.FloatRange(1, 86400), default=10.0, show_default=True, help="How long.")
@JSON
def test(
    name: str | None, given: tuple[str, ...], path: Path | None, asset: str | None, seconds: float, as_json: bool
) -> int:
    """Watch what a source gives: values, rate, jitter, quality.

    \b
    Exit code 5 when it cannot be opened, gives nothing, lacks a channel, or comes at another rate than stated.
    Examples:
      tocsin sources test serial --set port=/dev/ttyUSB0
      tocsin sources test -c tocsin.yaml --asset pump-1 --seconds 30
    """
    if name is None:
        if given:
            raise click.UsageError("--set needs a TYPE: tocsin sources test serial --set port=/dev/ttyUSB0")
        todo = dict(_configured(path or Path("tocsin.yaml"), asset))
    else:
        if path is not None or asset is not None:
            raise click.UsageError(f"give TYPE, or --config and --asset: {name!r} is taken for a type of source")
        todo = {name: (_from_words(name, given), None)}
    reports = {label: _watch(label, *each, seconds, as_json) for label, each in todo.items()}
    good = not any(report["problems"] for report in reports.values())
    if as_json:
        click.echo(json.dumps({"ok": good, "sources": reports}, indent=1, ensure_ascii=False))
    return 0 if good else SourceError.exit_code


def _from_words(name: str, given: tuple[str, ...]) -> SourceSettings:
    document: dict[str, Any] = {"type": name}
    for word in given:
        key, sign, value = word.partition("=")
        if not sign:
            raise click.BadParameter(f"{word!r}: expected KEY=VALUE", param_hint="--set")
        try:
            document[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{word!r}: the value is no YAML", param_hint="--set") from error
    try:
        return _SETTINGS.validate_python(document, context={"base": Path.cwd()})
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        if wrong["type"] == "union_tag_invalid":
            types = [kind.type for kind in kinds()]
            close = get_close_matches(name, types, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"{name!r} is no type of source: {hint}there are {', '.join(types)}") from error
        place = ".".join(map(str, wrong["loc"]))
        page = PAGES.get(name, f"docs/configure/{name}.md") if name in SOURCES else "tocsin sources list"
        raise ConfigError(f"{f'{place}: ' if place else ''}{wrong['msg']}: see {page}") from error


def _configured(path: Path, asset: str | None) -> Iterator[tuple[str, tuple[SourceSettings, Group | None]]]:
    settings = load_settings(path)
    names = [one.id for one in settings.assets]
    if asset is not None and asset not in names:
        raise click.BadParameter(f"{asset!r} is not in {path}: there are {', '.join(names)}", param_hint="--asset")
    for one in settings.assets:
        if asset in (None, one.id):
            for stream, source in one.streams().items():
                yield stream, (source, _group(one, stream.removeprefix(one.id).removeprefix(".")))


def _group(asset: AssetSettings, name: str) -> Group | None:
    """The group of the bundle that the source is for; None where the bundle is not there yet."""
    try:
        groups = load_bundle(asset.bundle).manifest.groups.groups
    except TocsinError as error:
        click.echo(f"note: {error}: channels and rate are not compared with it", err=True)
        return None
    return next((group for group in groups if group.name == name), groups[0] if len(groups) == 1 else None)


def _watch(label: str, settings: SourceSettings, group: Group | None, seconds: float, as_json: bool) -> dict[str, Any]:
    """Opens, watches and closes a source.

    Returns:
        The report, with `problems` and `notes` as sentences.
    """
    wanted, stated_hz = ((), None) if group is None else (group.channels, group.sample_rate_hz)
    source = make_source(settings, wanted, stated_hz)
    if not as_json:
        click.echo(f"{label}: opening {settings.type} …", err=True)
    try:
        source.open()
    except SourceError as error:
        return _failed(label, str(error), as_json)
    readings = Readings(source.channels, seconds, source.stated_hz)
    draw = _Screen(lambda: list(_table(label, readings, source))) if not as_json and sys.stdout.isatty() else None
    lost: list[str] = []
    end_s = time.monotonic() + seconds
    try:
        while (left_s := end_s - time.monotonic()) > 0 and not source.ended:
            block = source.read(min(READ_S, left_s))
            if len(block):
                readings.take(block)
            if draw is not None:
                draw.now_and_then()
    except SourceError as error:
        lost = [str(error)]
    finally:
        source.close()
    report = readings.report(source)
    lacking = [channel.name for channel in wanted if channel.name not in {each.name for each in source.channels}]
    report["problems"] = lost + problems(report) + [f"the bundle needs {name}: name it in channels" for name in lacking]
    report["notes"] = notes(report)
    if draw is not None:
        draw.now()
    elif not as_json:
        click.echo("\n".join(_table(label, readings, source)))
    if not as_json:
        for text in report["problems"]:
            click.echo(f"  BAD   {text}")
        for text in report["notes"]:
            click.echo(f"  note  {text}")
    return report


def _failed(label: str, why: str, as_json: bool) -> dict[str, Any]:
    if not as_json:
        click.echo(f"{label}\n  BAD   {why}")
    return {"samples": 0, "channels": [], "problems": [why], "notes": []}


def _table(label: str, readings: Readings, source: Any) -> Iterator[str]:
    report = readings.report(source)
    width = max((len(_named(each)) for each in report["channels"]), default=0)
    yield label
    yield f"  {'':<{width}} {'last':>10} {'min':>10} {'mean':>10} {'max':>10}"
    for n, each in enumerate(report["channels"]):
        figures = " ".join(f"{_number(each[key]):>10}" for key in ("last", "min", "mean", "max"))
        words = [each["problem"], f"{each['missing']} missing" if each["missing"] and each["last"] is not None else ""]
        yield f"  {_named(each):<{width}} {figures}  {readings.sparkline(n)}  {', '.join(filter(None, words))}".rstrip()
    rate, stated = report["rate_hz"], report["stated_hz"]
    yield (
        f"  {report['samples']} samples, {'too few to tell a rate' if rate is None else f'{rate:.4g} a second'}"
        + (f" ({stated:.4g} stated)" if stated else "")
        + f", jitter {_milliseconds(report['jitter_s'])}, longest gap {_milliseconds(report['longest_gap_s'])}"
    )
    reasons = ", ".join(f"{reason} {n}" for reason, n in report["reasons"].items() if n)
    yield (
        f"  {report['bad']} bad, {report['lost']} lost, {report['late']} late, "
        f"{report['clock_steps']} steps of the clock" + (f" ({reasons})" if reasons else "")
    )


def _named(each: dict[str, Any]) -> str:
    return f"{each['channel']} [{each['unit']}]" if each["unit"] else str(each["channel"])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.5g}"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{1e3 * value:.3g} ms"


class _Screen:
    """Lines that are drawn over and over again at the same place of a terminal.

    Args:
        lines: gives them.
    """

    def __init__(self, lines: Callable[[], list[str]]) -> None:
        self._lines, self._drawn, self._last_s = lines, 0, 0.0

    def now_and_then(self) -> None:
        """Draws when it is time."""
        if time.monotonic() - self._last_s > REDRAW_S:
            self.now()

    def now(self) -> None:
        """Draws."""
        up = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
        lines = self._lines()
        click.echo(up + "\n".join(lines))
        self._drawn, self._last_s = len(lines), time.monotonic()
