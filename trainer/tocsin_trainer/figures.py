"""Pictures of a training run, as SVG that stands inside an HTML page.

Rules: long series are thinned by keeping each bucket's lowest and highest value, so that no peak is lost; what is
left out is the least telling, and the picture's words say what it shows.
"""

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from tocsin.records import Bools, Channel, Floats, Ints
from tocsin_trainer.markup import plural
from tocsin_trainer.metrics import runs
from tocsin_trainer.results import Candidate, Played
from tocsin_trainer.svg import COLOUR, drawing, inline_svg

MAX_SIGNALS, MAX_HEAT_ROWS = 8, 24
_BUCKETS = 500
_WIDTH, _LEFT, _RIGHT, _GAP = 10.0, 1.55, 0.65, 0.09  # inches
_HEAT = (0xE0, 0x4F, 0x1A)


def played_picture(
    played: Played, channels: tuple[Channel, ...], limit: float, name: str, signals: int = MAX_SIGNALS
) -> str:
    """Alarms and labels, signals, score against the limit and the channels' part in it, over one time axis.

    Args:
        played: what the device would have seen; at least one row and one window.
        channels: C of them; those with the largest part in the score are drawn, 24 in the heat map.
        limit: on the score.
        name: unique among the pictures of a page.
        signals: that are drawn at most.
    """
    drawn, heat_rows = (_most_telling(played, count) for count in (signals, MAX_HEAT_ROWS))
    heights = [0.36, *[0.62] * len(drawn), 1.5, max(0.19 * len(heat_rows), 0.4)]
    seconds, unit, origin = _elapsed(played)
    spans = _spans(played, seconds)
    with drawing(name):
        figure, axes = _stack(heights)
        _draw_strip(axes[0], spans)
        for axis in axes[1:-1]:
            for kind, ranges in spans.items():
                axis.broken_barh(
                    ranges, (0, 1), transform=axis.get_xaxis_transform(), color=COLOUR[kind], alpha=0.16, lw=0
                )
        row_x = (played.row_time_s - origin) / seconds
        for axis, c in zip(axes[1:-2], drawn, strict=True):
            axis.plot(*_thinned(row_x, played.rows[:, c]), color=COLOUR["signal"])
            _side_label(axis, _short(channels[c].name), channels[c].unit)
            axis.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
        window_x = (played.end_s - origin) / seconds
        _draw_score(axes[-2], window_x, played.score, limit)
        _draw_heat(axes[-1], window_x, played, heat_rows, channels, limit)
        for axis in axes[:-1]:
            axis.tick_params(labelbottom=False, bottom=False)
        axes[-1].set_xlim(row_x[0], max(row_x[-1], row_x[0] + 1e-9))
        axes[-1].set_xlabel(unit + _since(origin), labelpad=4)
        return inline_svg(figure, played_words(played, limit, signals))


def played_words(played: Played, limit: float, signals: int = MAX_SIGNALS) -> str:
    """The picture in words, for those who cannot see it."""
    seconds, unit, _ = _elapsed(played)
    length = (played.row_time_s[-1] - played.row_time_s[0]) / seconds
    channels = played.rows.shape[1]
    drawn = f"{signals} of {channels}" if channels > signals else str(channels)
    words = f"{played.title}: {drawn} channels over {length:.3g} {unit}, {plural(len(played.alarms), 'alarm')}"
    if played.row_label is not None:
        words += f", {plural(len(runs(played.row_label)[0]), 'labelled event')}"
    return words + f"; the score peaks at {np.max(played.score) / limit:.3g} times the threshold"


def training_picture(candidates: tuple[Candidate, ...]) -> str:
    """Loss by epoch, training dashed and validation solid; only candidates that were trained in epochs."""
    with drawing("training"):
        figure, (axis,) = _stack([2.3], left=0.75, right=1.3)
        ends = []
        for index, candidate in enumerate(candidates):
            colour = COLOUR[f"tone{index % 6 + 1}"]
            for loss, style in ((candidate.train_loss, "--"), (candidate.validation_loss, "-")):
                if len(loss):
                    axis.plot(np.arange(1, len(loss) + 1), loss, style, color=colour, lw=1.1)
            last = candidate.validation_loss if len(candidate.validation_loss) else candidate.train_loss
            if len(last):
                ends.append((float(last[-1]), len(last), _short(candidate.family), colour))
        _log(axis, "y")
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axis.grid(axis="y")
        axis.set(xlabel="epoch", ylabel="mean square error")
        lowest = -1.0
        for final, epochs, family, colour in sorted(ends):  # names stand apart even where curves end together
            height = axis.transAxes.inverted().transform(axis.transData.transform((epochs, final)))[1]
            lowest = max(lowest + 0.075, float(height))
            axis.annotate(
                family, (epochs, final), (1.01, lowest), textcoords="axes fraction", va="center", color=colour,
                arrowprops={"arrowstyle": "-", "color": COLOUR["faint"], "lw": 0.5},
            )  # fmt: skip
        return inline_svg(figure, "Training (dashed) and validation (solid) loss by epoch of each trained candidate")


def agreement_picture(candidate: Candidate) -> str:
    """Each calibration window's score by the float and by the converted model, with both limits."""
    kept = _spread(candidate.float_scores, 600)
    x, y = candidate.float_scores[kept], candidate.converted_scores[kept]
    limits = candidate.threshold_float.value, candidate.threshold.value
    with drawing("agreement"):
        figure, (axis,) = _stack([4.0], left=0.9, right=0.3, width=5.2)
        axis.plot(x, y, ".", ms=3.5, color=COLOUR["signal"], alpha=0.6)
        both = np.concatenate((x, y, limits))
        ends = [float(both.min()), float(both.max())]
        axis.plot(ends, ends, color=COLOUR["faint"], zorder=0)
        axis.axvline(limits[0], color=COLOUR["alarm"], ls="--")
        axis.axhline(limits[1], color=COLOUR["alarm"], ls="--")
        if 0 < 10 * both.min() < both.max():
            _log(axis, "x")
            _log(axis, "y")
        axis.set(xlabel="score, float model", ylabel=f"score, {candidate.precision} model")
        words = f"Scores of {len(candidate.float_scores)} calibration windows, float against {candidate.precision}"
        return inline_svg(
            figure, f"{words}; dashed: the threshold of each; correlation {candidate.gate.correlation:.4f}"
        )


def histogram_picture(candidate: Candidate, k_table: tuple[dict[str, float], ...]) -> str:
    """Calibration scores over the limit of their own model, float and converted, with the limits of other k."""
    limit = candidate.threshold.value
    ratios = candidate.converted_scores / limit
    exact = candidate.float_scores / candidate.threshold_float.value
    marks = [(row["k"], row["threshold"] / limit) for row in k_table]
    both = np.concatenate((ratios, exact))
    ends = float(both.min()), max(float(both.max()), 1.0, *(at for _, at in marks)) * 1.02
    wide = 0 < 10 * ends[0] < ends[1]
    edges = (np.geomspace(*ends, 61) if wide else np.linspace(*ends, 61)).tolist()
    with drawing("histogram"):
        figure, (axis,) = _stack([2.6], left=0.75, right=0.3)
        axis.hist(ratios, edges, color=COLOUR["signal"], alpha=0.6)
        if len(exact):
            axis.hist(exact, edges, histtype="step", color=COLOUR["ink"], lw=1.1)
        for k, at in marks:
            axis.axvline(at, color=COLOUR["faint"], lw=0.8)
            axis.text(at, 1.01, f"{k:g}σ", transform=axis.get_xaxis_transform(), ha="center", fontsize=8)
        axis.axvline(1.0, color=COLOUR["alarm"], ls="--", lw=1.3)
        axis.annotate(
            "threshold", (1.0, 0.9), (-4, 0), axis.get_xaxis_transform(), "offset points",
            ha="right", color=COLOUR["alarm"],
        )  # fmt: skip
        if wide:
            _log(axis, "x")
        axis.set(xlabel="ratio: score / threshold", ylabel="windows")
        words = f"Histogram of {len(ratios)} calibration scores over the threshold {limit:.4g}, which is dashed at 1"
        highest = float(ratios.max()) if len(ratios) else 0.0
        return inline_svg(figure, f"{words}; the highest is {highest:.3g}; outlined: the float model")


def _stack(
    heights: list[float], left: float = _LEFT, right: float = _RIGHT, width: float = _WIDTH
) -> tuple[Figure, list[Axes]]:
    """Axes under one another that share x; all in inches."""
    total = sum(heights) + _GAP * (len(heights) - 1) + 0.22 + 0.5
    figure, top = Figure((width, total)), total - 0.22
    axes: list[Axes] = []
    for height in heights:
        box = (left / width, (top - height) / total, (width - left - right) / width, height / total)
        axes.append(figure.add_axes(box, sharex=axes[0] if axes else None))
        top -= height + _GAP
    return figure, axes


def _draw_strip(axis: Axes, spans: dict[str, list[tuple[float, float]]]) -> None:
    """Alarms and labels as bars, one lane each."""
    for lane, (kind, ranges) in enumerate(spans.items()):
        axis.broken_barh(ranges, (-lane - 0.4, 0.8), color=COLOUR[kind], lw=0.8)  # the edge keeps short ones visible
    axis.set_yticks([-lane for lane in range(len(spans))], ["labelled" if kind == "label" else kind for kind in spans])
    axis.set_ylim(-len(spans) + 0.4, 0.6)
    axis.tick_params(left=False)
    axis.spines[:].set_visible(False)


def _draw_score(axis: Axes, x: Floats, score: Floats, limit: float) -> None:
    highest = float(np.max(score))
    if highest > 20 * limit:
        score = np.maximum(score, max(float(np.min(score)), 1e-4 * limit))
        _log(axis, "y")
    axis.plot(*_thinned(x, score), color=COLOUR["ink"])
    axis.axhline(limit, color=COLOUR["alarm"], ls="--", lw=1.1)
    axis.set_ylim(top=max(highest, limit) * 1.12)
    _side_label(axis, "score", "")
    axis.text(-0.012, 0.36, "– – threshold", transform=axis.transAxes, ha="right", va="center", color=COLOUR["alarm"])


def _draw_heat(axis: Axes, x: Floats, played: Played, rows: Ints, channels: tuple[Channel, ...], limit: float) -> None:
    """Each channel's part of score / limit; full colour where the channel alone reaches the limit."""
    part = np.clip(np.nan_to_num(played.share[:, rows] * (played.score / limit)[:, None]), 0, 1)
    columns = min(_BUCKETS, max(len(x), 2))
    step = float(np.median(np.diff(x))) if len(x) > 1 else 1.0
    edges = np.linspace(x[0] - step, x[-1], columns + 1)
    first = np.minimum(np.searchsorted(x, edges[:-1], side="right"), len(x) - 1)
    image = np.zeros((len(rows), columns, 4), np.uint8)
    image[..., :3] = _HEAT
    alpha = np.maximum.reduceat(part, first, axis=0)
    alpha[x[first] - edges[1:] > 3 * step] = 0  # nothing was scored in a gap
    image[..., 3] = np.round(255 * alpha).T
    axis.imshow(
        image, aspect="auto", interpolation="nearest", extent=(edges[0], edges[-1], len(rows) - 0.5, -0.5), zorder=2
    )
    axis.set_yticks(range(len(rows)), [_short(channels[c].name) for c in rows])
    axis.tick_params(left=False, axis="y", labelsize=8)


def _side_label(axis: Axes, name: str, unit: str) -> None:
    """Name and unit on the left, figures on the right."""
    text = f"{name}\n{_short(unit)}" if unit else name
    axis.text(-0.012, 0.5, text, transform=axis.transAxes, ha="right", va="center", linespacing=1.3)
    axis.yaxis.tick_right()
    axis.tick_params(right=False, labelsize=8, pad=2)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="y")


def _log(axis: Axes, which: str) -> None:
    axis.set_yscale("log") if which == "y" else axis.set_xscale("log")
    scale = axis.yaxis if which == "y" else axis.xaxis
    scale.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0), numticks=8))
    scale.set_major_formatter(lambda value, _: f"{value:.3g}")
    scale.set_minor_formatter(NullFormatter())


def _most_telling(played: Played, count: int) -> Ints:
    """The channels with the largest part in scores, in their own order."""
    weight = np.nan_to_num(played.share * played.score[:, None]).sum(axis=0)
    kept: Ints = np.sort(np.argsort(-weight, kind="stable")[:count])
    return kept


def _elapsed(played: Played) -> tuple[float, str, float]:
    """Seconds of a unit that suits the length, its name, and the time of the origin."""
    start = float(played.row_time_s[0])
    length = float(played.row_time_s[-1]) - start
    for seconds, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if length >= 3 * seconds:
            return seconds, unit, start
    return 1.0, "seconds", start


def _since(origin: float) -> str:
    """When the axis starts; empty for recordings without a clock."""
    known = 1e8 < origin < 1e11
    return f" since {datetime.fromtimestamp(origin, UTC):%Y-%m-%d %H:%M:%S} UTC" if known else ""


def _spans(played: Played, seconds: float) -> dict[str, list[tuple[float, float]]]:
    """(start, width) of alarms and of labelled runs, in units of the axis."""
    origin = played.row_time_s[0]
    spans = {"alarm": [((start - origin) / seconds, (stop - start) / seconds) for start, stop in played.alarms]}
    if played.row_label is not None:
        spans["label"] = _label_spans(played.row_time_s, played.row_label, seconds)
    return spans


def _label_spans(time_s: Floats, label: Bools, seconds: float) -> list[tuple[float, float]]:
    starts, stops = runs(label)
    begin = (time_s[starts] - time_s[0]) / seconds
    end = (time_s[np.minimum(stops, len(time_s) - 1)] - time_s[0]) / seconds
    return list(zip(begin.tolist(), (end - begin).tolist(), strict=True))


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most 1,000 points with every bucket's extremes, and a break at each gap in x."""
    kept = np.arange(len(x))
    if len(x) > 2 * _BUCKETS:
        starts = np.linspace(0, len(x), _BUCKETS + 1).astype(int)
        extremes = [a + pick(y[a:b]) for a, b in pairwise(starts.tolist()) for pick in (np.argmin, np.argmax)]
        kept = np.unique(extremes)
    if len(x) < 3:
        return x, y
    step = np.diff(x)
    gaps = np.append(0, np.cumsum(step > 5 * np.median(step)))[kept]
    breaks = np.flatnonzero(np.diff(gaps)) + 1
    return np.insert(x[kept], breaks, np.nan), np.insert(y[kept], breaks, np.nan)


def _spread(scores: Floats, count: int) -> Ints:
    """`count` indices: the highest third, and the rest evenly by rank."""
    order = np.argsort(scores)
    if len(order) <= count:
        return order
    tail = count // 3
    body = np.linspace(0, len(order) - tail - 1, count - tail).astype(int)
    return np.concatenate((order[body], order[-tail:]))


def _short(text: str, longest: int = 22) -> str:
    text = "".join(letter for letter in text if letter.isprintable())  # XML knows no control characters
    return text if len(text) <= longest else text[: longest - 1] + "…"
