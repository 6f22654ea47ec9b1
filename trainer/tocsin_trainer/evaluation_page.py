"""An evaluation as one HTML page: figures, courses, events found and missed, worst errors."""

from collections.abc import Sequence

from tocsin_trainer.evaluation import QUANTILES, Evaluation, FileFigures
from tocsin_trainer.evaluation_text import ORACLE, alarm_words, promise_words
from tocsin_trainer.figures import played_picture, played_words
from tocsin_trainer.markup import duration, figure, number, part, table, text
from tocsin_trainer.reasons import FIGURES
from tocsin_trainer.recorded import clock
from tocsin_trainer.sheet import sheet

MAX_PICTURES, MAX_EVENTS, MAX_ERRORS = 12, 60, 20


def page(evaluation: Evaluation) -> str:
    """The whole page."""
    manifest = evaluation.bundle.manifest
    title = f"{manifest.name} {manifest.version}"
    sections = (_head, _figures, _courses, _events, _errors, _rates)
    body = "".join(section(evaluation) for section in sections)
    return sheet(f"{title}: evaluation", f"Evaluation · version {manifest.version}", manifest.name, body)


def _head(evaluation: Evaluation) -> str:
    mean = evaluation.mean()
    tiles = {FIGURES[key]: number(mean[key]) for key in ("vus_pr", "roc_auc", "f1", "far", "mar") if key in mean}
    tiles |= {"files": str(len(evaluation.files)), "threshold": number(evaluation.limit)}
    terms = "".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in tiles.items())
    lede = (
        text(alarm_words(evaluation)) if evaluation.labelled
        else "There are no labels: only rates can be told, not what was found or missed."
    )  # fmt: skip
    warnings = "".join(f'<p class="warning">{text(warning)}</p>\n' for warning in evaluation.warnings)
    promised = "".join(f'<p class="promise">{text(words)}</p>\n' for words in promise_words(evaluation))
    return f'<p class="lede">{lede}</p>\n{promised}<dl class="tiles">{terms}</dl>\n{warnings}'


def _figures(evaluation: Evaluation) -> str:
    if not evaluation.labelled:
        return ""
    columns = {file.played.title: file.figures for file in evaluation.labelled}
    if len(columns) > 1:
        worst = {key: value for key, (value, _) in evaluation.worst().items()}
        columns = {"mean": evaluation.mean(), "worst": worst, "pooled": evaluation.pooled()} | columns
    columns |= evaluation.baselines()
    keys = [key for key in FIGURES if any(key in column for column in columns.values())]
    rows = [[FIGURES[key], *(column.get(key) for column in columns.values())] for key in keys]
    oracle = ""
    if evaluation.best_f1 is not None:
        oracle = f"<p>Oracle: the best F1 is {number(evaluation.best_f1)}, at {ORACLE}.</p>\n"
    kinds = [[kind.kind, kind.intervals, kind.found, kind.alarmed] for kind in evaluation.kinds]
    return (
        "<h2>Figures against the labels</h2>\n<p>At the threshold that ships, without point adjustment. What is always "
        "on, or knows nothing, stands beside: a figure that does not beat it is worth nothing.</p>\n"
        + table(["", *columns], rows, marked=[False, True])
        + oracle
        + (table(["kind", "intervals", "over the threshold", "raised an alarm"], kinds) if kinds else "")
    )


def _courses(evaluation: Evaluation) -> str:
    channels, limit = evaluation.bundle.manifest.columns, evaluation.limit
    drawn = [
        f"<h3>{text(file.played.title)}</h3>\n"
        + figure(played_picture(file.played, channels, limit, f"file{index}"), played_words(file.played, limit))
        for index, file in enumerate(evaluation.files[:MAX_PICTURES])
    ]
    if len(evaluation.files) > MAX_PICTURES:
        drawn.append(f'<p class="note">{len(evaluation.files) - MAX_PICTURES} more files are not drawn.</p>\n')
    return (
        "<h2>What the device would have said</h2>\n"
        '<p class="note"><span class="key alarm"></span>alarm <span class="key label"></span>labelled anomalous '
        '<span class="key heat"></span>a channel’s part in the score: full colour where it alone reaches the '
        "threshold.</p>\n" + "".join(drawn)
    )


def _events(evaluation: Evaluation) -> str:
    heads = ["from", "file", "lasts", "outcome", "alarm after", "highest ratio", "mostly"]
    rows = [
        [
            clock(each.start_s),
            each.part,
            duration(each.end_s - each.start_s),
            "✓ found" if each.found else "✗ missed",
            None if each.alarm_after_s is None else duration(each.alarm_after_s),
            each.ratio,
            _mostly(each.channels),
        ]
        for each in evaluation.events()
    ]
    return "<h2>Events found and missed</h2>\n" + _longest(heads, rows, MAX_EVENTS) if rows else ""


def _errors(evaluation: Evaluation) -> str:
    peaks = evaluation.false_alarms(MAX_ERRORS)
    if not peaks:
        return ""
    heads = ["window ends", "file", "what", "ratio", "mostly"]
    rows = [[clock(each.at_s), each.part, each.kind, each.ratio, _mostly(each.channels)] for each in peaks]
    name = evaluation.bundle.path.name
    return (
        "<h2>Worst false alarms</h2>\n<p>The highest scores of normal running. Look at them with someone who knows the "
        f"machine. Why one of them: <code>tocsin explain {text(name)} {text(peaks[0].part)} --at TIME</code>.</p>\n"
        + table(heads, rows)
    )


def _rates(evaluation: Evaluation) -> str:
    heads = ["file", "hours", "windows", "share over the threshold", "alarms", "alarms a day"]
    heads += [f"ratio, {100 * q:g} %" for q in QUANTILES]

    def row(file: FileFigures) -> list[object]:
        rates = [24 * file.rates["days"], len(file.played.score), file.rates["over"], int(file.rates["alarms"])]
        return [file.played.title, *rates, file.rates.get("alarms_per_day"), *(file.ratios[q] for q in QUANTILES)]

    return "<h2>Rates, labels aside</h2>\n" + table(heads, [row(file) for file in evaluation.files])


def _mostly(channels: tuple[tuple[str, float], ...]) -> str:
    return ", ".join(f"{name} {part(share)}" for name, share in channels)


def _longest(heads: Sequence[str], rows: Sequence[Sequence[object]], most: int) -> str:
    left = f'<p class="note">{len(rows) - most} more are not listed.</p>\n' if len(rows) > most else ""
    return table(heads, rows[:most]) + left
