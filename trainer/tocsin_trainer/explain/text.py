"""An explanation as text for the terminal."""

from tocsin_trainer.explain.explanation import Explanation, words
from tocsin_trainer.explain.lime import TRUSTED
from tocsin_trainer.recorded import clock
from tocsin_trainer.terminal import aligned

MOST_CHANNELS, MOST_PARTS = 12, 5


def shown(explanation: Explanation) -> str:
    """Words first, then a table of channels, then how far to trust it."""
    rows = channel_rows(explanation)
    left = [f"and {len(rows) - MOST_CHANNELS} more channels"] if len(rows) > MOST_CHANNELS else []
    table = aligned(channel_heads(explanation), rows[:MOST_CHANNELS])
    return "\n".join(
        (headline(explanation), *words(explanation), "", table, *left, *_parts(explanation), *trust(explanation))
    )


def headline(explanation: Explanation) -> str:
    """Which window, and how it scores."""
    manifest, moment = explanation.bundle.manifest, explanation.moment
    smoothed = f", smoothed {moment.smoothed:.3g}" if manifest.smoothing > 1 else ""
    return (
        f"{manifest.name}-{manifest.version}: window {clock(float(moment.time_s[0]))} to "
        f"{clock(float(moment.time_s[-1]))}, {explanation.exact.ratio:.3g} times the threshold{smoothed}"
    )


def channel_heads(explanation: Explanation) -> tuple[str, ...]:
    """Of the table of channels."""
    return ("channel", "share", "seen", "expected", "unit", *explanation.amounts())


def channel_rows(explanation: Explanation) -> list[tuple[object, ...]]:
    """Channels, the largest share first; amounts are parts of the ratio."""
    names = [channel.name for channel in explanation.channels]
    rows: list[tuple[object, ...]] = []
    for each in explanation.contributions:
        c = names.index(each.channel)
        amounts = (float(values[c]) for values in explanation.amounts().values())
        unit = explanation.channels[c].unit
        rows.append((explanation.labels[each.channel], f"{each.share:.1%}", each.seen, each.expected, unit, *amounts))
    return rows


def _parts(explanation: Explanation) -> list[str]:
    """The parts that the black-box methods hold to matter most."""
    if explanation.shap is None or len(explanation.players) == len(explanation.channels):
        return []
    amount = explanation.shap.amount
    most = sorted(range(len(amount)), key=lambda n: -amount[n])[:MOST_PARTS]
    lines = [f"  {amount[n]:8.3g}  {explanation.part_name(explanation.players[n])}" for n in most]
    return ["", "most by shap:", *lines]


def trust(explanation: Explanation) -> list[str]:
    """How far the methods agree, and how good each is by its own measure."""
    lines = [""]
    by_shap, by_lime = explanation.shap, explanation.lime
    if by_shap is not None:
        drawn = "all coalitions asked" if by_shap.exact else "coalitions drawn"
        lines.append(
            f"shap: sums to the ratio less {by_shap.base:.3g} of a typical window, off by {by_shap.error:.1e}; {drawn}"
        )
    if by_lime is not None:
        warning = "" if by_lime.r2 >= TRUSTED else ": the score is not linear here, trust these slopes little"
        lines.append(f"lime: R² {by_lime.r2:.3f}{warning}")
    agreement = explanation.agreement()
    if agreement:
        lines.append("rank agreement (Spearman): " + "; ".join(f"{k} {v:.2f}" for k, v in agreement.items()))
    return lines if len(lines) > 1 else []
