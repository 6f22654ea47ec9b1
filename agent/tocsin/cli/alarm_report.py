"""`tocsin alarms report`: the figures of an alarm system, as text, JSON or a page."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from tocsin.alarms.report import FLOOD, Figures, Mark, figures
from tocsin.cli.report_page import page
from tocsin.config_file import load_settings
from tocsin.delivery.outbox import read_audit
from tocsin.delivery.wire import epoch_s, rfc3339
from tocsin.errors import DataError, TocsinError
from tocsin.settings import Seconds

_SECONDS: TypeAdapter[float] = TypeAdapter(Seconds)


def _when(text: str, now_s: float) -> float:
    """Epoch seconds of a time, or of so long ago."""
    try:
        return now_s - _SECONDS.validate_python(text)
    except ValidationError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: expected 12h, 7d, … or a time such as 2026-03-09T14:00:00Z") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


@click.command()
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Of the agent on this machine: what its state folder knows, its newest 10,000 changes.",
)
@click.option(
    "-e",
    "--events",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="JSON Lines of `tocsin mqtt sub --json`, or `tocsin inbox --list N --json`; - for standard input.",
)
@click.option("--since", default="7d", show_default=True, help="So long ago, or a time.")
@click.option("--until", default="0s", help="So long ago, or a time.  [default: now]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--html", "out", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with pictures there."
)
def report(path: Path | None, events: Path | None, since: str, until: str, as_json: bool, out: Path | None) -> None:
    """How well people can work with the alarms, by ISA-18.2 and EEMUA 191.

    Alarms in ten minutes, floods, the ten that call most, those that chatter or stand for long, severities, and how
    long it takes until somebody acknowledges.

    \b
    Examples:
      tocsin alarms report -c tocsin.yaml
      tocsin inbox --list 100000 --json | tocsin alarms report --events - --since 30d --html report.html
    """  # fmt: skip
    if (path is None) == (events is None):
        raise click.UsageError(
            "of which alarms? give --config with the agent's file, or --events with a file of events"
        )
    now_s = time.time()
    since_s, until_s = _when(since, now_s), _when(until, now_s)
    if not until_s > since_s:
        raise click.UsageError(f"expected --since before --until, got {rfc3339(since_s)} and {rfc3339(until_s)}")
    if path is not None:
        settings = load_settings(path)
        try:
            marks = list(_of_audit(read_audit(settings.state_dir / "outbox.db"), settings.device))
        except OSError as error:
            raise TocsinError(str(error)) from error
    else:
        assert events is not None
        marks = list(_of_events(_lines(events)))
    found = figures(marks, since_s, until_s)
    if not found.calls and marks:
        newest = rfc3339(max(mark.time_s for mark in marks))
        click.echo(f"no alarm in that time; the newest change is of {newest}: see --since and --until", err=True)
    if out is not None:
        out.write_text(page(found), encoding="utf-8")
        click.echo(f"written to {out}", err=True)
    if as_json:
        click.echo(json.dumps(_as_json(found), ensure_ascii=False, indent=1))
    elif out is None:
        click.echo(_as_text(found))


def _lines(path: Path) -> list[str]:
    try:
        with click.open_file(str(path), encoding="utf-8") as handle:
            text: str = handle.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return text.splitlines()


def _of_audit(lines: Iterable[bytes], device: str) -> Iterator[Mark]:
    for line in lines:
        body = json.loads(line)
        if body["outcome"] == "done":
            before, after = body["from"], body["to"]
            yield Mark(
                time_s=epoch_s(body["time"]),
                device=device,
                alarm=body["alarm"],
                occurrence=body.get("id") or "",
                severity=body.get("severity") or "",
                calls=after == "unacked" != before,
                acked=body["action"] == "ack",
                ended=after == "normal",
            )


def _of_events(lines: Iterable[str]) -> Iterator[Mark]:
    """Of each event of an alarm, once; other messages are left out."""
    seen = set()
    for n, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            form = json.loads(line)
            body = form.get("payload", form)
            device = form["device"] if "device" in form else form["topic"].split("/")[-3]
            if not isinstance(body, dict) or not isinstance(body.get("after"), dict):
                continue
            key = device, body["boot"], body["seq"]
            mark = _of_event(device, body)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise DataError(f"line {n}: expected JSON as `tocsin mqtt sub --json` prints it: {error}") from error
        if key not in seen:
            seen.add(key)
            yield mark


def _of_event(device: str, body: dict[str, Any]) -> Mark:
    before, after = body.get("before") or {}, body["after"]
    acked = bool(after["acked"]) and not before.get("acked", False)
    return Mark(
        time_s=epoch_s(after["acked_at"] if acked and after.get("acked_at") else after["time"]),
        device=device,
        alarm=after["alarm"],
        occurrence=after["id"],
        severity=after.get("severity") or "",
        calls=after["state"] == "unacked" != before.get("state"),
        acked=acked,
        ended=body["type"] == "end",
    )


def _as_json(found: Figures) -> dict[str, Any]:
    form = asdict(found) | {"since": rfc3339(found.since_s), "until": rfc3339(found.until_s), "verdict": found.verdict}
    return {key: value for key, value in form.items() if key not in ("since_s", "until_s")}


def _as_text(found: Figures) -> str:
    def seconds(value: float | None) -> str:
        return "–" if value is None else f"{value:.0f} s"

    lines = [
        f"{rfc3339(found.since_s)} to {rfc3339(found.until_s)}: {found.calls} alarms, {found.verdict}",
        f"in ten minutes       {found.mean:.2f} on average, at most {found.most}",
        f"floods               {found.flooded:.1%} of the time more than {FLOOD} in ten minutes",
        f"standing now         {found.standing}, of them {len(found.stale)} for more than a day",
        f"acknowledged         {found.acked}, after {seconds(found.ack_median_s)} (median), "
        f"{seconds(found.ack_mean_s)} (mean)",
        "severities           " + ", ".join(f"{name} {count}" for name, count in found.severities.items()),
    ]
    for title, rows in (
        ("call most", [f"{one.count:6d}  {one.share:4.0%}  {one.alarm}" for one in found.worst]),
        ("chatter", [f"{count:6d} within a minute  {name}" for name, count in found.chattering]),
        ("stand for long", [f"{hours:6.0f} h  {name}" for name, hours in found.stale]),
    ):
        lines += [title, *rows] if rows else []
    return "\n".join(lines)
