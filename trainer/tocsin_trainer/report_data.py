"""The report's sections on the data: their quality, what was chosen from them, and what the run was."""

from tocsin_trainer.markup import DASH, LONG, framed, number, part, section, table, text
from tocsin_trainer.results import ChannelGrade, TrainingResult

_OWN_PLACE = {"next_command", "command", "promise", "data"}
_MEANING = "A: clean. B: usable, look at it once. C: doubtful, mend it or leave it out. D: tells nothing, leave it out."


def quality(result: TrainingResult) -> str:
    """A grade for each channel, with the reason."""
    found = result.quality
    if found is None:
        return ""
    units = {channel.name: channel.unit for channel in result.channels}
    heads = ("channel", "unit", "grade", "why", "mean", "spread", "noise", "drift", "missing", "levels")
    top = "".join(f'<th scope="col"{_right(head)}>{head}</th>' for head in heads)
    body = "".join(_grade_row(each, units.get(each.name, "")) for each in found.channels)
    whole = "".join(f'<p class="warning">{text(finding.words)}</p>\n' for finding in found.findings)
    stretches = f"{found.stretches:,} unbroken stretch{'es' * (found.stretches != 1)}"
    note = (
        f"{_MEANING} Spread: standard deviation. Noise: part of the spread that is white. Drift: from first to last "
        f"quarter, in deviations. {found.rows:,} rows in {stretches}; "
        f"90 % of the steps of time are within {part(found.jitter)} of the grid."
    )
    shown = f'{framed(f"<tr>{top}</tr>", body)}<p class="note">{text(note)}</p>\n'
    return section("quality", "Quality of the data", f"<p>{text(found.sentence)}</p>\n{whole}{shown}")


def _grade_row(each: ChannelGrade, unit: str) -> str:
    figures, letter = each.figures, each.grade.lower()
    why = "; ".join(finding.words for finding in each.findings) or "nothing was found"
    long = ' class="long"' if len(why) > LONG else ""
    cells = [
        f'<th scope="row">{text(each.name)}</th><td>{text(unit or DASH)}</td>'
        f'<td><span class="grade {letter}">{text(each.grade)}</span></td><td{long}>{text(why)}</td>'
    ]
    cells += [f'<td class="number">{number(figures.get(key))}</td>' for key in ("mean", "spread")]
    cells += [f'<td class="number">{part(figures.get("noise", float("nan")))}</td>']
    cells += [f'<td class="number">{number(_rounded(figures.get("drift")))}</td>']
    cells += [f'<td class="number">{part(figures.get("missing", float("nan")))}</td>']
    levels = figures.get("levels")
    return f'<tr>{"".join(cells)}<td class="number">{"many" if levels is None else number(levels)}</td></tr>\n'


def choices(result: TrainingResult) -> str:
    """What was chosen without the user, and why."""
    rows = [[choice.what, choice.value, choice.why] for choice in result.choices]
    return section("choices", "What was chosen, and why", table(["what", "value", "why"], rows)) if rows else ""


def data(result: TrainingResult) -> str:
    """Channels, files, rows, seed: what it takes to do it again."""
    channels = [[channel.name, channel.unit or DASH] for channel in result.channels]
    facts: list[list[object]] = [[f"rows, {name} part", count] for name, count in result.rows.items()]
    for rows in sorted({c.fitted_on for c in result.candidates} - {""}):
        names = [c.family for c in result.candidates if c.fitted_on == rows and not c.combination]
        facts.append([f"fitted on: {rows}", ", ".join(names)])
    facts += [["seed", str(result.seed)], ["version", result.version], ["seconds in all", result.seconds]]
    facts += [[key, value] for key, value in result.extra.items() if key not in _OWN_PLACE]
    files = result.extra.get("data")
    body = table(["channel", "unit"], channels) if result.quality is None else ""  # the grades name them too
    body += table(["what", "value"], facts)
    if isinstance(files, list) and files:
        body += table(["file", "sha256"], [[each.get("file"), each.get("sha256")] for each in files])
    if result.extra.get("command"):
        body += f"<p>Made by:</p>\n<pre><code>{text(result.extra['command'])}</code></pre>\n"
    return section("run", "Data and run", body)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _right(head: str) -> str:
    return "" if head in {"channel", "unit", "grade", "why"} else ' class="number"'
