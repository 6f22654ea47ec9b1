"""A search as one HTML page that stands alone: which settings to take and why, the front, all trials."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from tocsin_trainer.markup import figure, number, plural, size, table, text
from tocsin_trainer.sheet import sheet
from tocsin_trainer.svg import COLOUR, drawing, inline_svg
from tocsin_trainer.tune.outcome import Outcome, Trial

HONEST = (
    "Detection is the chance that a stretch with a made-up anomaly scores above a normal one, on blocks of time that "
    "the models were not fitted on. Real faults differ from made-up ones: do not trust small differences, and check "
    "the chosen settings on labelled recordings (tocsin train --test) where there are any."
)
HEADS = ("trial", "settings", "detection", "between blocks", "size", "ms a window", "ships as", "remark")
_SIZE, _BOXES = (10.0, 3.7), ((0.08, 0.15, 0.42, 0.79), (0.555, 0.15, 0.42, 0.79))  # inches; parts of them


def page(outcome: Outcome, asset: str) -> str:
    """The whole page."""
    picture = figure(front_picture(outcome), front_words(outcome))
    body = (
        f'<p class="lede">Take <b>{text(outcome.chosen.words)}</b> (trial {outcome.chosen.number}): '
        f"{text(outcome.why)}.</p>\n<p>{text(HONEST)}</p>\n"
        f"<h2>The front</h2>\n<p>What no other trial beats in detection, size and time together.</p>\n{picture}"
        f"{table(HEADS, [row(each, outcome) for each in outcome.front])}"
        f"<h2>All trials</h2>\n{table(HEADS, [row(each, outcome) for each in outcome.trials])}"
    )
    return sheet(f"{asset}: search", f"Search · {plural(len(outcome.trials), 'trial')}", asset, body)


def row(trial: Trial, outcome: Outcome) -> list[object]:
    """Cells under HEADS."""
    marks = ["chosen"] * (trial is outcome.chosen) + ["default"] * (trial is outcome.default)
    refused = outcome.budget.over(trial.cost) if trial.complete else trial.why
    return [
        str(trial.number),
        trial.words,
        trial.detection,
        trial.spread if len(trial.detections) > 1 else None,
        size(trial.cost.bytes) if trial.detections else "",
        trial.cost.latency_us / 1000 if trial.detections else None,
        trial.precision,
        "; ".join([*marks, *([refused] if refused else [])]),
    ]


def front_picture(outcome: Outcome) -> str:
    """Detection over size, and over time, of every trial; the front is joined and numbered."""
    complete = [each for each in outcome.trials if each.complete]
    kib, ms = ([each.cost.bytes / 1024 for each in complete], [each.cost.latency_us / 1000 for each in complete])
    budget = outcome.budget
    with drawing("front"):
        drawn = Figure(_SIZE)
        left = drawn.add_axes(_BOXES[0])
        right = drawn.add_axes(_BOXES[1], sharey=left)
        for axis, values, bound, label in (
            (left, kib, budget.max_kib, "size, KiB"),
            (right, ms, budget.max_ms, "time of a window on this machine, ms"),
        ):
            _scatter(axis, outcome, complete, values)
            if bound is not None:
                axis.axvline(bound, color=COLOUR["alarm"], ls="--", lw=1.1)
            axis.set_xlabel(label)
            _log(axis)
            axis.grid(axis="y")
        left.set_ylabel("detection")
        right.tick_params(labelleft=False)
        return inline_svg(drawn, front_words(outcome))


def front_words(outcome: Outcome) -> str:
    """The picture in words."""
    words = (
        f"Detection over size and over time of {plural(sum(t.complete for t in outcome.trials), 'trial')}; filled: the "
        f"{len(outcome.front)} that no other beats in all three; ringed: trial {outcome.chosen.number}, which is chosen"
    )
    if outcome.default is not None:
        words += f"; square: trial {outcome.default.number}, the default, {number(outcome.default.detection)}"
    bounded = outcome.budget.max_kib is not None or outcome.budget.max_ms is not None
    return words + ("; dashed: the budget" if bounded else "")


def _scatter(axis: Axes, outcome: Outcome, trials: Sequence[Trial], values: Sequence[float]) -> None:
    for trial, x in zip(trials, values, strict=True):
        marker = "s" if trial is outcome.default else "o"
        face = COLOUR["signal"] if trial in outcome.front else "none"
        axis.plot([x], [trial.detection], marker, ms=5, mfc=face, mec=COLOUR["signal"], ls="none")
        if trial in outcome.front:
            axis.annotate(str(trial.number), (x, trial.detection), (4, 4), textcoords="offset points", fontsize=8)
        if trial is outcome.chosen:
            axis.plot([x], [trial.detection], "o", ms=12, mfc="none", mec=COLOUR["alarm"], mew=1.4)


def _log(axis: Axes) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0), numticks=8))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axis.xaxis.set_minor_formatter(NullFormatter())
