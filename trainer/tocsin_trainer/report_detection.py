"""The report's sections on detection: the score's course, events found and missed, the worst errors, figures."""

from tocsin_trainer.figures import played_picture, played_words
from tocsin_trainer.markup import duration, figure, moment, number, part, plural, section, table, text, wide_table
from tocsin_trainer.mistakes import LabelledEvent, NormalPeak, all_events, cut, false_alarms, shown_parts, worst_errors
from tocsin_trainer.reasons import FIGURES
from tocsin_trainer.results import Played, TrainingResult

MAX_PARTS = 6
MAX_EVENTS = 50
PICTURED = 3
_AROUND = 6  # windows before and after, in a picture of an error
_KEY = (
    '<p class="note"><span class="key alarm"></span>alarm <span class="key label"></span>labelled anomalous '
    '<span class="key heat"></span>a channel’s part in the score: full colour where it alone reaches the '
    "threshold.</p>\n"
)


def parts(result: TrainingResult) -> str:
    """Each recording's score course, with the alarms the device would have raised."""
    limit, shown = result.chosen.threshold.value, shown_parts(result)
    if not shown:
        return ""
    rows = []
    for played in shown:
        false, daily = false_alarms(played)
        over = float((played.score >= limit).mean())
        rows.append([played.title, len(played), len(played.score), part(over), len(played.alarms), false, daily])
    heads = ["part", "rows", "windows", "share at the threshold or above", "alarms", "touching no label", "these a day"]
    drawn = [
        f"<h3>{text(played.title)}</h3>\n"
        + figure(played_picture(played, result.channels, limit, f"part{index}"), played_words(played, limit))
        for index, played in enumerate(shown[:MAX_PARTS])
    ]
    if len(shown) > MAX_PARTS:
        drawn.append(f'<p class="note">{len(shown) - MAX_PARTS} more parts stand in the table only.</p>\n')
    caption = "Where nothing is labelled every alarm touches no label: it is false if the machine was well."
    body = table(heads, rows) + f'<p class="note">{caption}</p>\n{_KEY}' + "".join(drawn)
    return section("parts", "What the device would have said", body)


def events(result: TrainingResult) -> str:
    """Each labelled event: found or missed, when, and by which channels."""
    found = all_events(result)
    if not found:
        return ""
    starts = {played.title: float(played.row_time_s[0]) for played in shown_parts(result)}
    heads = ["event", "part", "from", "lasts", "outcome", "alarm after", "first over after", "peak ratio", "channels"]
    rows = [
        [
            f"{n}",
            event.part,
            moment(event.start_s, starts.get(event.part, 0.0)),
            duration(event.end_s - event.start_s),
            "✓ found" if event.found else "✗ missed",
            None if event.alarm_after_s is None else duration(event.alarm_after_s),
            None if event.over_after_s is None else duration(event.over_after_s),
            event.ratio,
            _channels(event.channels),
        ]
        for n, event in enumerate(found[:MAX_EVENTS], start=1)
    ]
    caught = sum(event.found for event in found)
    more = f" The first {MAX_EVENTS} are listed." if len(found) > MAX_EVENTS else ""
    lead = (
        f"<p>{caught} of {plural(len(found), 'labelled event')} found by an alarm, {len(found) - caught} missed."
        f"{more}</p>\n"
    )
    note = "Times are UTC. An alarm comes after the first window over the threshold, by the on-delay."
    body = lead + table(heads, rows) + f'<p class="note">{note}</p>\n'
    return section("events", "Events found and missed", body)


def worst(result: TrainingResult) -> str:
    """The gravest errors: missed events, false alarms, late alarms, with pictures of the first three."""
    errors = worst_errors(result)
    if not errors:
        return ""
    parts_ = {played.title: played for played in shown_parts(result)}
    rows = [
        [
            f"{n}",
            error.kind,
            error.part,
            moment(error.at_s, float(parts_[error.part].row_time_s[0])),
            error.ratio,
            _channels(error.channels),
        ]
        for n, error in enumerate(errors, start=1)
    ]
    real = any(not isinstance(error, NormalPeak) or error.ratio >= 1 for error in errors)
    lead = (
        "What it got wrong, or nearly so. Look at these with somebody who knows the machine: a false alarm that was "
        "none makes the labels better, a true one shows what normal running the recordings lack."
        if real
        else "Nothing was wrong here. These are the windows of normal running that came nearest to an alarm."
    )
    drawn = []
    for n, error in enumerate(errors[:PICTURED], start=1):
        played = _surroundings(error, parts_[error.part], result)
        if len(played.score) < 2:
            continue
        limit = result.chosen.threshold.value
        svg = played_picture(played, result.channels, limit, f"worst{n}", signals=4)
        drawn.append(f"<h3>{n}. {text(played.title)}</h3>\n" + figure(svg, played_words(played, limit, signals=4)))
    heads = ["", "what", "part", "at", "ratio", "channels"]
    body = f"<p>{lead}</p>\n{table(heads, rows)}{_KEY if drawn else ''}{''.join(drawn)}"
    return section("worst", "The worst errors" if real else "Nearest to an error", body)


def figures_section(result: TrainingResult) -> str:
    """Figures against labels, float and converted, with the trivial baselines beside them."""
    everyone, baselines = sorted(result.candidates, key=lambda c: not c.chosen), result.baselines
    columns = [column for c in everyone for column in (c.figures_float, c.figures)] + list(baselines.values())
    keys = [key for key in FIGURES if any(key in column for column in columns)]
    keys += sorted({key for column in columns for key in column} - set(FIGURES))
    title = "Figures on labelled test data"
    if not keys:
        words = "There are no labels: nothing can be said of what would be found or missed, but for injected anomalies."
        return section("figures", title, f"<p>{words}</p>\n")
    families = "".join(f'<th scope="colgroup" colspan="2" class="number">{text(c.title)}</th>' for c in everyone)
    families += "".join(f'<th scope="col" rowspan="2" class="number">{text(name)}</th>' for name in baselines)
    kinds = "".join(
        f'<th scope="col" class="number">float</th><th scope="col" class="number{" ships" * c.chosen}">'
        f"{text(c.precision)}{', ships' * c.chosen}</th>"
        for c in everyone
    )
    marked = [False, *(flag for c in everyone for flag in (False, c.chosen)), *[False] * len(baselines)]
    rows = [[FIGURES.get(key, key), *(column.get(key) for column in columns)] for key in keys]
    body = (
        "<p>At each model’s own threshold, without point adjustment; rows over the threshold, before on-delay and "
        "hysteresis. What is always on, or knows nothing, stands beside them: a figure that does not beat it is worth "
        "nothing.</p>\n" + wide_table(f'<tr><td rowspan="2"></td>{families}</tr><tr>{kinds}</tr>', rows, marked=marked)
    )
    return section("figures", title, body)


def _surroundings(error: LabelledEvent | NormalPeak, played: Played, result: TrainingResult) -> Played:
    """Some windows before and after it; of a normal one as far as it is normal, or the fault would dwarf it."""
    around = _AROUND * result.length / result.sample_rate_hz
    start, stop = error.at_s - around, (error.end_s if isinstance(error, LabelledEvent) else error.at_s) + around
    if isinstance(error, NormalPeak) and played.row_label is not None:
        bad = played.row_time_s[played.row_label]
        start = max([start, *bad[bad < error.at_s][-1:].tolist()])
        stop = min([stop, *(bad[bad > error.at_s][:1] - 1 / result.sample_rate_hz).tolist()])
    title = f"{error.kind}, {played.title}, {moment(error.at_s, float(played.row_time_s[0]))}"
    return cut(played, start, stop, title)


def _channels(shares: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{name} {part(share)}".replace(" ", "\N{NO-BREAK SPACE}") for name, share in shares) or number(
        None
    )
