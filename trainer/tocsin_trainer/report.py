"""What a training run found, as one HTML page.

Rules: the page needs nothing but itself (no script, no font, no address), and says so in its content security policy;
every text that comes from data is escaped; figures that are absent are shown as a dash or left out, never invented.
The first screen is for whoever decides (what ships, what it promises, how well it does, what to do next); the rest is
for whoever doubts it.
"""

import re
from pathlib import Path

from tocsin_trainer import report_data, report_detection, report_model
from tocsin_trainer.markup import duration, number, part, size, text
from tocsin_trainer.metrics_file import metrics_json, summary_table
from tocsin_trainer.mistakes import all_events
from tocsin_trainer.reasons import FIGURES, cost_figures
from tocsin_trainer.results import TrainingResult
from tocsin_trainer.sheet import sheet, write_page
from tocsin_trainer.verdict import verdict

__all__ = ["metrics_json", "page", "summary_table", "write_report"]

_SECTIONS = (
    report_data.quality,
    report_detection.parts,
    report_detection.events,
    report_detection.worst,
    report_model.candidates,
    report_detection.figures_section,
    report_model.threshold,
    report_model.agreement,
    report_model.training,
    report_model.cost,
    report_data.choices,
    report_data.data,
)


_STATES = {True: "good", False: "look", None: "open"}


def write_report(result: TrainingResult, path: Path) -> None:
    """Writes the page, whole or not at all.

    Raises:
        TocsinError: the folder is not there or cannot be written.
    """
    write_page(path, page(result))


def page(result: TrainingResult) -> str:
    """The whole page."""
    body = "".join(section(result) for section in _SECTIONS)
    kind = f"Training report · version {result.version} · {result.created}"
    title = f"{result.asset} {result.version}: training report"
    return sheet(title, kind, result.asset, _head(result) + _contents(body) + body)


def _head(result: TrainingResult) -> str:
    """The first screen."""
    chosen, found = result.chosen, verdict(result)
    state = "look" if any(check.good is False for check in found.checks) else "good"
    checks = "".join(
        f'<li class="{_STATES[check.good]}"><span class="mark">{check.mark}</span>{text(check.words)}</li>\n'
        for check in found.checks
    )
    lede = (
        f"Ships <b>{text(chosen.title)}</b> in <b>{text(chosen.precision)}</b>: {size(chosen.bytes)}, "
        f"{number(chosen.latency_us)} µs a window on the training machine. An alarm is due where the score reaches "
        f'{number(chosen.threshold.value)}: <a href="#threshold">why</a>.'
    )
    terms = "".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in _tiles(result).items())
    command = result.extra.get("next_command", f"tocsin model verify {result.asset}-{result.version}.tocsin")
    return (
        f'<section id="verdict" class="verdict {state}">\n<h2>{text(found.headline)}</h2>\n<p class="lede">{lede}</p>\n'
        f'<ul class="checks">\n{checks}</ul>\n<p class="next">Next:</p>\n<pre><code>{text(command)}</code></pre>\n'
        f'</section>\n<dl class="tiles">{terms}</dl>\n'
    )


def _tiles(result: TrainingResult) -> dict[str, str]:
    """The few numbers that people ask for first."""
    chosen = result.chosen
    tiles = {}
    events = all_events(result)
    if events:
        tiles["labelled events found"] = f"{sum(event.found for event in events)} of {len(events)}"
    tiles |= {FIGURES[key]: number(chosen.figures[key]) for key in ("vus_pr", "f1") if key in chosen.figures}
    share = cost_figures(result)["core_share"]
    return tiles | {
        "separation of injected anomalies": number(chosen.separation),
        "of one core, this machine": part(share),
        "window": duration(result.length / result.sample_rate_hz),
    }


def _contents(body: str) -> str:
    """Links to the sections."""
    found = re.findall(r'<section id="([a-z]+)">\n<h2>(.*?)</h2>', body)
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in found)
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n'
