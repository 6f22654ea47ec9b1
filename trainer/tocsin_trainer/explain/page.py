"""An explanation as one HTML page: words, the window, the methods side by side."""

from tocsin_trainer.explain.explanation import Explanation, words
from tocsin_trainer.explain.figures import (
    MAX_BARS,
    bars_picture,
    features_picture,
    window_picture,
    window_words,
)
from tocsin_trainer.explain.text import channel_heads, channel_rows, headline, trust
from tocsin_trainer.markup import figure, number, table, text
from tocsin_trainer.recorded import clock
from tocsin_trainer.sheet import sheet

METHODS = (
    "exact: what each row and channel gives to the score that the device makes; it sums to the score.",
    "shap: Shapley values: what the score loses without a part, over all orders in which parts can be lost; they sum "
    "to the score less that of a typical window.",
    "lime: slopes of a linear model fitted to the score around this window; R² says how far to trust them.",
)


def page(explanation: Explanation) -> str:
    """The whole page."""
    manifest, at = explanation.bundle.manifest, clock(float(explanation.moment.time_s[-1]))
    body = "".join(part(explanation) for part in (_head, _window, _features, _methods))
    return sheet(f"{manifest.name} {at}: explanation", f"Explanation · version {manifest.version}", manifest.name, body)


def _head(explanation: Explanation) -> str:
    told = "".join(f"<li>{text(sentence)}</li>" for sentence in words(explanation))
    tiles = {"times the threshold": number(explanation.exact.ratio)}
    if explanation.bundle.manifest.smoothing > 1:
        tiles["smoothed, as the alarm sees it"] = number(explanation.moment.smoothed)
    if explanation.lime is not None:
        tiles["R² of lime"] = number(explanation.lime.r2)
    tiles |= {f"rank agreement, {pair}": number(value) for pair, value in explanation.agreement().items()}
    terms = "".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in tiles.items())
    return f'<p class="lede">{text(headline(explanation))}</p>\n<ul>{told}</ul>\n<dl class="tiles">{terms}</dl>\n'


def _window(explanation: Explanation) -> str:
    return "<h2>The window</h2>\n" + figure(window_picture(explanation), window_words(explanation) + ".")


def _features(explanation: Explanation) -> str:
    names = [explanation.labels[channel.name] for channel in explanation.channels]
    drawn = [
        f"<h3>{text(member.name)}</h3>\n"
        + figure(
            features_picture(member, names, explanation.exact.per_channel, f"features{n}"),
            f"{member.amount.sum() / max(explanation.exact.ratio, 1e-300):.0%} of the score; full colour where most.",
        )
        for n, member in enumerate(explanation.exact.members)
        if not member.of_time
    ]
    return "<h2>Features that differ</h2>\n" + "".join(drawn) if drawn else ""


def _methods(explanation: Explanation) -> str:
    amounts = explanation.amounts()
    said = "".join(f"<li>{text(line)}</li>" for line in METHODS if line.partition(":")[0] in amounts)
    names = [explanation.labels[channel.name] for channel in explanation.channels]
    few = f"The {MAX_BARS} largest channels" if len(names) > MAX_BARS else "All channels"
    out = f"<h2>By channel</h2>\n<ul>{said}</ul>\n"
    out += figure(
        bars_picture(names, amounts, "channels", "Amounts of each method by channel"), few + ", by each method."
    )
    out += table(channel_heads(explanation), channel_rows(explanation))
    by_part = explanation.by_part()
    if by_part and len(explanation.players) > len(names):
        parts = [explanation.part_name(player) for player in explanation.players]
        few = f"The {MAX_BARS} largest parts" if len(parts) > MAX_BARS else "All parts"
        out += "<h2>By part of the window</h2>\n"
        out += figure(
            bars_picture(parts, by_part, "parts", "Amounts of each method by part of the window"),
            few + ", by each method.",
        )
    notes = "".join(f"<li>{text(line)}</li>" for line in trust(explanation) if line)
    return out + (f"<h2>How far to trust it</h2>\n<ul>{notes}</ul>\n" if notes else "")
