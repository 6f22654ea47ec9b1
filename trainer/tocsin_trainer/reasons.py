"""Sentences and numbers that report, model card and metrics.json share: reasons, names of figures, cost.

Rules: nothing is drawn and nothing is written here; what is absent is left out.
"""

import dataclasses

import numpy as np

from tocsin_trainer.markup import number
from tocsin_trainer.results import Candidate, TrainingResult

FIGURES = {  # of `tocsin_trainer.metrics`, as they are told
    "vus_pr": "VUS-PR",
    "average_precision": "average precision",
    "roc_auc": "ROC-AUC",
    "f1": "F1 at the threshold",
    "precision": "precision",
    "recall": "recall",
    "far": "false alarm rate, rows",
    "mar": "missed alarm rate, rows",
    "events": "labelled events",
    "found": "events found",
    "missed": "events missed",
    "event_recall": "event recall",
    "false_events": "false events",
    "false_events_per_day": "false events a day",
    "delay_rows": "median delay, rows",
    "delay_s": "median delay, s",
    "best_f1": "best F1 (oracle: a limit that only the test labels could tell)",
}
MARGIN = 0.1  # of worth and of separation, by which a candidate has to lead the default to ship
RULE = (
    "Worth, ½ + (separation − ½) × stability × agreement, ranks them; labels do not. Linear models that see different "
    f"things, together, are the default. Another ships only where its worth and its separation are both {MARGIN:g} "
    "higher: made-up anomalies flatter networks, and real faults are not made up."
)
AGENT_RSS_MB = 70  # of an agent that scores one asset, as benchmarks/device_footprint.py measures it on x86-64
_SHOWN = {
    *("family", "precision", "headroom", "bytes", "float_bytes", "latency_us", "parameters", "train_loss"),
    *("validation_loss", "gate", "threshold", "threshold_float", "separation", "figures", "figures_float", "played"),
    *("float_scores", "converted_scores", "seconds", "chosen", "why_not", "beside"),
    *("stability", "agreement", "combination", "fitted_on"),
}


def origin(candidate: Candidate) -> str:
    """Where its limit comes from, in words."""
    limit, windows = candidate.threshold, len(candidate.converted_scores)
    p = limit.parameters
    if limit.method == "mu_sigma" and "k" in p:
        return f"mean + {p['k']:g} σ of {windows:,} calibration scores"
    if limit.method == "quantile" and "q" in p:
        return f"{100 * p['q']:g} % quantile of {windows:,} calibration scores × {p.get('margin', 1):g}"
    if limit.method == "highest" and "n" in p:
        words = f"the highest score of normal running × (1 + 1/{p['n']:.0f})"
        if p.get("reached", 0.0) > p["highest"]:
            words += f"; one part of the recording reached {p['reached']:.4g}, which no other part shows: a start?"
        return words
    values = "".join(f", {key} {value:.4g}" for key, value in p.items() if isinstance(value, int | float))
    return f"method {limit.method}{values}"


def why_not(candidate: Candidate, result: TrainingResult) -> str:
    """Why another one ships; as the run says, or what the numbers say."""
    if candidate.why_not or not candidate.gate.passed:
        return candidate.why_not or f"refused by the gate: {candidate.gate.reason or 'decisions differ'}"
    chosen = result.chosen
    lead = candidate.worth - chosen.worth
    if candidate.closed_form and "+" in chosen.family and "+" not in candidate.family:
        part = "a part of what ships; " if candidate.family in chosen.family.split("+") else ""
        return f"{part}a linear model alone misses faults that others see"
    if lead < -5e-4:
        return f"worth {-lead:.3f} less than {chosen.title}"
    more = f"worth {max(lead, 0.0):.3f} more"
    if not chosen.closed_form:
        slower = candidate.latency_us > chosen.latency_us
        cost = f"and slower: {number(candidate.latency_us)} µs a window"
        return f"{more}, {cost if slower else 'but leads the default by less in separation'}"
    if min(lead, candidate.separation - chosen.separation) < MARGIN:
        return f"{more}: {MARGIN:g} more in worth and in separation is what it takes"
    return f"{more}, on a recording too short to trust that"


def cost_figures(result: TrainingResult) -> dict[str, float]:
    """`bytes`, `window_us`, `windows_per_s`, `core_share` (0 to 1), `rss_mb` (10⁶ bytes, estimate)."""
    per_s = result.sample_rate_hz / result.hop
    buffers = 3 * 8 * result.length * len(result.channels)  # the window in engineering units, prepared and rebuilt
    return {
        "bytes": result.chosen.bytes,
        "window_us": result.chosen.latency_us,
        "windows_per_s": per_s,
        "core_share": result.chosen.latency_us * per_s / 1e6,
        "rss_mb": AGENT_RSS_MB + (3 * result.chosen.bytes + buffers) / 1e6,
    }


def further(candidate: Candidate) -> dict[str, float | str]:
    """Fields of a candidate that have no place of their own, by name; what is absent is left out."""
    out: dict[str, float | str] = {}
    for each in dataclasses.fields(candidate):
        value = getattr(candidate, each.name)
        if each.name in _SHOWN:
            continue
        items = value.items() if isinstance(value, dict) else [(None, value)]
        for key, item in items:
            if isinstance(item, int | float | str | np.number) and not isinstance(item, bool) and item != "":
                name = each.name.replace("_", " ")
                out[name if key is None else f"{name}, {key}"] = item if isinstance(item, str) else float(item)
    return out
