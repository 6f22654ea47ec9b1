"""Pictures of an explanation, as SVG that stands inside an HTML page.

Rule: what a picture leaves out for want of room is what gives least to the score, and its words say so.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tocsin.records import Floats, Ints
from tocsin_trainer.explain.exact import MemberPart
from tocsin_trainer.explain.explanation import Explanation
from tocsin_trainer.recorded import clock
from tocsin_trainer.svg import COLOUR, drawing, inline_svg

MAX_SIGNALS, MAX_HEAT_ROWS, MAX_BARS, MAX_TICKS, MAX_NAME = 8, 24, 12, 14, 44
_WIDTH, _LEFT, _RIGHT, _GAP = 10.0, 1.55, 0.65, 0.09  # inches
_TONE = {"exact": "tone1", "shap": "tone2", "lime": "tone3"}
_HEAT = (0xE0, 0x4F, 0x1A)


def window_picture(explanation: Explanation) -> str:
    """The window's signals with what the model makes of them, over what each instant gives to the score."""
    exact, moment, channels = explanation.exact, explanation.moment, explanation.channels
    signals, heat_rows = (_largest(exact.per_channel, count) for count in (MAX_SIGNALS, MAX_HEAT_ROWS))
    seconds = moment.time_s - moment.time_s[0]
    amount = exact.over_time(len(moment.window))
    heights = [0.8] * len(signals) + ([max(0.19 * len(heat_rows), 0.4)] if amount.any() else [])
    with drawing("window"):
        figure, axes = _stack(heights)
        for axis, c in zip(axes, signals.tolist(), strict=False):
            axis.plot(seconds, moment.window[:, c], color=COLOUR["signal"])
            if exact.rebuilt is not None:
                rows = slice(-len(exact.rebuilt), None)
                axis.plot(seconds[rows], exact.rebuilt[:, c], color=COLOUR["ink"], ls="--", lw=0.9)
            unit = f"\n{_short(channels[c].unit, 22)}" if channels[c].unit else ""
            label = f"{_short(channels[c].name, 22)}{unit}"
            axis.text(-0.012, 0.5, label, transform=axis.transAxes, ha="right", va="center", linespacing=1.3)
            axis.yaxis.tick_right()
            axis.yaxis.set_major_locator(MaxNLocator(3, prune="both"))
            axis.grid(axis="y")
        if amount.any():
            step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
            extent = (float(seconds[0]) - step / 2, float(seconds[-1]) + step / 2)
            _heat(axes[-1], amount[:, heat_rows].T, [channels[c].name for c in heat_rows.tolist()], extent)
        for axis in axes[:-1]:
            axis.tick_params(labelbottom=False, bottom=False)
        axes[-1].set_xlabel(f"seconds since {clock(float(moment.time_s[0]))}", labelpad=4)
        return inline_svg(figure, window_words(explanation))


def window_words(explanation: Explanation) -> str:
    """The picture in words."""
    count = len(explanation.channels)
    drawn = f"{MAX_SIGNALS} of {count} channels" if count > MAX_SIGNALS else f"{count} channels"
    expected = "; dashed: what the model makes of them" if explanation.exact.rebuilt is not None else ""
    heat = (
        "; below, what each instant gives to the score, full colour where most"
        if any(member.of_time for member in explanation.exact.members)
        else ""
    )
    return f"The window’s signals, {drawn}{expected}{heat}"


def features_picture(member: MemberPart, names: list[str], per_channel: Floats, key: str) -> str:
    """What each feature of each channel gives to the score, for a member that does not see instants.

    Args:
        member: whose rows are features.
        names: of the C channels.
        per_channel: (C,) which of them to draw, where they are many.
        key: unique among the pictures of a page.
    """
    shown = _largest(per_channel, MAX_HEAT_ROWS)
    rows = len(member.rows)
    with drawing(key):
        figure, (axis,) = _stack([max(0.24 * len(shown), 0.6)], bottom=1.1)
        _heat(axis, member.amount[:, shown].T, [names[c] for c in shown.tolist()], (-0.5, rows - 0.5))
        ticks = np.unique(np.linspace(0, rows - 1, min(rows, MAX_TICKS)).astype(int)).tolist()
        axis.set_xticks(ticks, [_short(member.rows[r].name, 26) for r in ticks], rotation=45, ha="right", fontsize=8)
        return inline_svg(figure, f"What each feature that {member.name} sees gives to the score, by channel")


def bars_picture(names: list[str], amounts: dict[str, Floats], key: str, words: str) -> str:
    """Bars of several methods side by side, the largest by `shap` first, else by the first method.

    Args:
        names: N of what the amounts belong to.
        amounts: method → (N,) in units of the threshold.
        key: unique among the pictures of a page.
        words: what it shows.
    """
    first = amounts.get("shap", next(iter(amounts.values())))
    order = np.argsort(-np.nan_to_num(first), kind="stable")[:MAX_BARS]
    height = 0.8 / len(amounts)
    with drawing(key):
        figure, (axis,) = _stack([max(0.2 * len(order) * len(amounts), 0.6)], left=3.3, bottom=0.75)
        for n, (method, values) in enumerate(amounts.items()):
            at = np.arange(len(order)) + (n - (len(amounts) - 1) / 2) * height
            axis.barh(at, np.nan_to_num(values[order]), 0.9 * height, color=COLOUR[_TONE[method]], label=method)
        axis.set_yticks(range(len(order)), [_short(names[k], MAX_NAME) for k in order.tolist()], fontsize=8)
        axis.invert_yaxis()
        axis.axvline(0, color=COLOUR["faint"], lw=0.8)
        axis.set_xlabel("part of the score, in units of the threshold")
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(amounts), fontsize=8, borderaxespad=0.1)
        return inline_svg(figure, words)


def _heat(axis: Axes, amount: Floats, names: list[str], extent: tuple[float, float]) -> None:
    """Rows of names, colour by amount; full where it is largest."""
    image = np.zeros((*amount.shape, 4), np.uint8)
    image[..., :3] = _HEAT
    image[..., 3] = np.round(255 * np.clip(amount / max(float(amount.max()), 1e-300), 0, 1))
    axis.imshow(image, aspect="auto", interpolation="nearest", extent=(*extent, len(names) - 0.5, -0.5), zorder=2)
    axis.set_yticks(range(len(names)), [_short(name, 22) for name in names], fontsize=8)
    axis.tick_params(left=False, axis="y")


def _stack(heights: list[float], left: float = _LEFT, bottom: float = 0.5) -> tuple[Figure, list[Axes]]:
    """Axes under one another that share x; all in inches."""
    total = sum(heights) + _GAP * (len(heights) - 1) + 0.22 + bottom
    figure, top = Figure((_WIDTH, total)), total - 0.22
    axes: list[Axes] = []
    for height in heights:
        box = (left / _WIDTH, (top - height) / total, (_WIDTH - left - _RIGHT) / _WIDTH, height / total)
        axes.append(figure.add_axes(box, sharex=axes[0] if axes else None))
        top -= height + _GAP
    return figure, axes


def _largest(weight: Floats, count: int) -> Ints:
    """Indices of the largest, in their own order."""
    kept: Ints = np.sort(np.argsort(-weight, kind="stable")[:count])
    return kept


def _short(text: str, longest: int) -> str:
    text = "".join(letter for letter in text if letter.isprintable())  # XML knows no control characters
    head = longest // 3  # the end tells more: a band's frequencies, or when a part was
    return text if len(text) <= longest else f"{text[:head]}…{text[head + 1 - longest :]}"
