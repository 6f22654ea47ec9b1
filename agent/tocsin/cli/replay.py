"""`tocsin replay`: a recording through the device's own code, as fast as it goes."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any

import click

from tocsin.alarms.stale import Staleness
from tocsin.chatter import RUNTIME, without_chatter
from tocsin.core.bundle import Bundle, load_bundle
from tocsin.core.scoring import limits_of
from tocsin.errors import DataError, TocsinError
from tocsin.pipeline import AssetLine, Scored
from tocsin.recordings import TableOptions, mended, open_groups, paired, read_groups
from tocsin.recordings.group_option import group_option
from tocsin.records import Change, Transition


@dataclass
class Summary:
    """What a replay found."""

    windows: int = 0
    over_limit: int = 0
    anomalous: int = 0
    alarms: int = 0
    held_back: int = 0
    conditions: Counter[str] = field(default_factory=Counter)
    largest_ratio: float = 0.0
    not_finite: int = 0
    unknown_mode: int = 0
    warnings: list[str] = field(default_factory=list)


@click.command()
@click.option("--bundle", "-b", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The model.")
@click.option(
    "--input", "-i", "inputs", required=True, multiple=True, type=click.Path(path_type=Path),
    help="CSV table, plain or .gz, a .seg or a folder of them; may be given several times, each starts anew.",
)  # fmt: skip
@group_option("--input")
@click.option("--scores", type=click.Path(path_type=Path, dir_okay=False), help="Write one row a window here (CSV).")
@click.option(
    "--events",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one alarm transition a line here (JSON Lines).",
)
@click.option("--time", help="Name of the time column, when it is not found.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Rows a second, for files without a time column."
)
@click.option("--separator", help="Between fields, when it is not found.")
@click.option("--fail-on-anomaly", is_flag=True, help="Exit with 8 when an alarm was raised.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON object.")
def replay(
    bundle: Path,
    inputs: tuple[Path, ...],
    group: dict[str, tuple[Path, ...]],
    scores: Path | None,
    events: Path | None,
    time: str | None,
    rate: float | None,
    separator: str | None,
    fail_on_anomaly: bool,
    as_json: bool,
) -> int:
    """Score a recording with a bundle, by the device's own code.

    \b
    SCORES.csv: time, score, threshold, ratio, anomaly, then one share a channel; a row a window,
      time = the window's last sample's, as the input writes it; ratio 1.0 is always the limit;
      anomaly = 1 while the alarm is on, after N-of-M and hysteresis.
    EVENTS.jsonl: one line for each alarm that is raised or cleared, with the channels that caused it:
      the model's, and those of sensors and their lines, which hold the model's back.

    \b
    Examples:
      tocsin replay --bundle pump-1.tocsin --input monday.csv --scores scores.csv
      tocsin replay --bundle motor.tocsin --input process.csv --group vibration=vibration.csv
    """
    loaded = load_bundle(bundle)
    options = TableOptions(time=time, rate_hz=rate, separator=separator)
    summary = Summary()
    with ExitStack() as stack:
        table = _Scores(_create(stack, scores), loaded) if scores else None
        log = _create(stack, events) if events else None

        def tell(transition: Transition) -> None:
            if log:
                log.write(json.dumps(event_json(transition)) + "\n")

        for files in paired(inputs, group):
            for scored, stamps in scored_files(loaded, files, options, summary, tell):
                if table:
                    table.write(scored, stamps)
    if not summary.windows:
        raise DataError(f"nothing could be scored: {'; '.join(summary.warnings)}")
    for warning in summary.warnings:
        click.echo(f"tocsin: warning: {warning}", err=True)
    _show(summary, loaded, scores, events, as_json)
    return 8 if fail_on_anomaly and summary.alarms else 0


def scored_files(
    bundle: Bundle,
    files: Mapping[str, Path],
    options: TableOptions,
    summary: Summary,
    tell: Callable[[Transition], None] = lambda _: None,
) -> Iterator[tuple[Scored, "Stamps"]]:
    """The windows of one recording, with the time stamps of the file that sets the grid; adds to the summary.

    Args:
        bundle: the model.
        files: of the recording, by group.
        options: how the main file is written.
        summary: of all recordings.
        tell: called with each transition.
    """
    groups = bundle.manifest.groups
    with without_chatter(*RUNTIME):
        line = AssetLine(bundle.manifest.name, bundle, None)
    stale = Staleness(bundle.manifest.name, groups.groups[groups.base].sample_rate_hz, live=False)
    stamps = Stamps()
    tables = open_groups(files, groups, options)
    for n, part in read_groups(tables, groups):
        if part is None:
            yield from _counted(line.end(n), stamps, summary, tell)
            continue
        silent: tuple[Transition, ...] = ()
        if n == groups.base:
            stamps.add(part.stamps)
            silent = stale.take(part.block)
        parts = line.feed(part.block, n)
        _checked((*silent, *line.watch.told()), summary, tell)
        yield from _counted(parts, stamps, summary, tell)
    yield from _counted(line.finish(), stamps, summary, tell)
    _checked(line.watch.told(), summary, tell)
    summary.not_finite += line.not_finite
    summary.unknown_mode += line.unknown_mode
    summary.held_back += line.watch.held_back
    summary.warnings += mended([table.path for table in tables], line.joiner)
    path = tables[groups.base].path
    if not stamps.count:
        summary.warnings.append(f"{path.name}: no rows")
    elif not summary.windows:
        summary.warnings.append(
            f"{path.name}: {stamps.count} rows are too few for a window of {bundle.manifest.length}"
        )


def _checked(found: tuple[Transition, ...], summary: Summary, tell: Callable[[Transition], None]) -> None:
    """What is not the model's."""
    for transition in sorted(found, key=lambda t: t.time_s):
        summary.conditions[transition.alarm] += transition.change is Change.RAISED
        tell(transition)


def _counted(
    parts: list[Scored], stamps: "Stamps", summary: Summary, tell: Callable[[Transition], None]
) -> Iterator[tuple[Scored, "Stamps"]]:
    for scored in parts:
        for transition in scored.transitions:
            tell(transition)
        ratio = scored.scores.ratio
        summary.windows += len(ratio)
        summary.over_limit += int((ratio >= 1).sum())
        summary.anomalous += int(scored.anomaly.sum())
        summary.alarms += sum(t.change is Change.RAISED for t in scored.transitions)
        summary.largest_ratio = max(summary.largest_ratio, float(ratio.max()))
        yield scored, stamps


class Stamps:
    """The newest time stamps as the file writes them, by sample index."""

    KEPT = 1 << 17

    def __init__(self) -> None:
        self.count = 0
        self._recent: list[str] = []

    def add(self, stamps: list[str]) -> None:
        """The next rows'."""
        self.count += len(stamps)
        self._recent = list(chain(self._recent[-self.KEPT :], stamps))

    def __getitem__(self, sample: int) -> str:
        """Of one sample; it must be among the last `KEPT`."""
        return self._recent[sample - self.count]


class _Scores:
    def __init__(self, handle: IO[str], bundle: Bundle) -> None:
        self._writer = csv.writer(handle, lineterminator="\n")
        self._threshold = bundle.manifest.threshold
        names = [channel.name for channel in bundle.manifest.channels]
        self._writer.writerow(["time", "score", "threshold", "ratio", "anomaly", *(f"share_{name}" for name in names)])

    def write(self, scored: Scored, stamps: Stamps) -> None:
        columns = zip(
            scored.windows.sample.tolist(),
            scored.scores.value.tolist(),
            limits_of(self._threshold, scored.scores).tolist(),
            scored.scores.ratio.tolist(),
            scored.anomaly.tolist(),
            scored.scores.share().tolist(),
            strict=True,
        )
        self._writer.writerows(
            [
                stamps[sample],
                f"{value:.9g}",
                f"{limit:.9g}",
                f"{ratio:.9g}",
                int(on),
                *(f"{s:.6f}" for s in share),
            ]
            for sample, value, limit, ratio, on, share in columns
        )


def event_json(transition: Transition) -> dict[str, Any]:
    """One line of EVENTS.jsonl."""
    from tocsin.delivery.wire import rfc3339  # noqa: PLC0415 - its models cost time that a replay without events need not pay

    return {
        "time": rfc3339(transition.time_s),
        "change": transition.change.value,
        "alarm": transition.alarm,
        "asset": transition.asset,
        "cause": transition.cause,
        "score": transition.score,
        "threshold": transition.threshold,
        "ratio": transition.ratio,
        "window": {
            "start": rfc3339(transition.window_start_s),
            "end": rfc3339(transition.window_end_s),
            "rows": transition.window_rows,
        },
        "contributions": [
            {"channel": c.channel, "share": c.share, "seen": c.seen, "expected": c.expected}
            for c in transition.contributions
        ],
    }


def _create(stack: ExitStack, path: Path) -> IO[str]:
    try:
        return stack.enter_context(path.open("w", encoding="utf-8", newline=""))
    except OSError as error:
        raise TocsinError(f"{path}: cannot be written: {error.strerror or error}") from error


def _show(summary: Summary, bundle: Bundle, scores: Path | None, events: Path | None, as_json: bool) -> None:
    manifest = bundle.manifest
    if as_json:
        document = {
            "bundle": f"{manifest.name}-{manifest.version}",
            "windows": summary.windows,
            "over_limit": summary.over_limit,
            "anomalous": summary.anomalous,
            "alarms": summary.alarms,
            "conditions": dict(summary.conditions),
            "held_back": summary.held_back,
            "largest_ratio": summary.largest_ratio,
            "not_finite": summary.not_finite,
            "unknown_mode": summary.unknown_mode,
            "threshold": manifest.threshold.value,
            "scores": None if scores is None else str(scores),
            "events": None if events is None else str(events),
            "warnings": summary.warnings,
        }
        click.echo(json.dumps(document, indent=1))
        return
    click.echo(
        f"{summary.windows} windows scored, {summary.over_limit} at or over the limit, {summary.alarms} "
        f"alarm{'s' * (summary.alarms != 1)} raised; largest ratio {summary.largest_ratio:.2f} (1.0 is the limit)"
    )
    if summary.conditions.total():
        told = ", ".join(f"{alarm} {count}×" for alarm, count in summary.conditions.items() if count)
        click.echo(f"sensors: {told}; {summary.held_back} windows over the limit held back, since they rest on them")
    for path, what in ((scores, "scores"), (events, "events")):
        if path:
            click.echo(f"{what}: {path}", err=True)
    if not scores:
        click.echo("next: add --scores scores.csv to see every window", err=True)
