"""The report's sections on the models: candidates, limit, float against converted, training, cost on the device."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tocsin_trainer.figures import agreement_picture, histogram_picture, training_picture
from tocsin_trainer.markup import figure, number, part, section, size, table, text
from tocsin_trainer.results import Candidate, TrainingResult

AGENT_RSS_MB = 70  # of an agent that scores one asset, as benchmarks/device_footprint.py measures it on x86-64
_SHOWN = {
    *("family", "precision", "headroom", "bytes", "float_bytes", "latency_us", "parameters", "train_loss"),
    *("validation_loss", "gate", "threshold", "threshold_float", "separation", "figures", "figures_float", "played"),
    *("float_scores", "converted_scores", "seconds", "chosen", "why_not"),
}


def candidates(result: TrainingResult) -> str:
    """Who stood for choice, float against converted, and why the others were not taken."""
    everyone = result.candidates
    labelled = any("vus_pr" in c.figures for c in everyone)
    heads = ["candidate", "ships as", "size, float → shipped", "µs a window", "separation, float → shipped",
             "equal decisions", *(["VUS-PR, float → shipped"] if labelled else []), "outcome"]  # fmt: skip
    rows = [
        [
            f"{c.family}{' ✓' * c.chosen}",
            c.precision,
            f"{size(c.float_bytes)} → {size(c.bytes)}",
            c.latency_us,
            f"{c.gate.auc_float:.3f} → {c.separation:.3f}",
            part(c.gate.agreement),
            *([_pair(c.figures_float.get("vus_pr"), c.figures.get("vus_pr"))] if labelled else []),
            "ships" if c.chosen else why_not(c, result),
        ]
        for c in sorted(everyone, key=lambda c: (not c.chosen, not c.gate.passed, -c.separation))
    ]
    note = (
        "Separation: ROC-AUC between normal windows and the same with made-up anomalies; 1 is perfect, 0.5 is chance. "
        "It ranks candidates, and is no rate of detection. Labels are never used for the choice."
    )
    body = (
        f'<p>{text(_why(result))}</p>\n{table(heads, rows)}<p class="note">{note}</p>\n'
        f"<h3>All that was measured of each</h3>\n{_details(result)}"
    )
    return section("candidates", "Candidates", body)


def _details(result: TrainingResult) -> str:
    everyone = result.candidates
    rows: list[tuple[str, Callable[[Candidate], object]]] = [
        ("precision", lambda c: c.precision),
        ("headroom", lambda c: c.headroom),
        ("size as converted", lambda c: size(c.bytes)),
        ("size in float32", lambda c: size(c.float_bytes)),
        ("weights", lambda c: c.parameters),
        ("latency, µs a window", lambda c: c.latency_us),
        ("gate", lambda c: "; ".join(filter(None, ("passed" if c.gate.passed else "failed", c.gate.reason)))),
        ("· correlation of scores with float", lambda c: c.gate.correlation),
        ("· equal decisions", lambda c: c.gate.agreement),
        ("· ROC-AUC on injected anomalies, float", lambda c: c.gate.auc_float),
        ("· ROC-AUC on injected anomalies, converted", lambda c: c.gate.auc_converted),
        ("· distortion far outside of normal running", lambda c: c.gate.distortion),
        ("separation", lambda c: c.separation),
        ("threshold", lambda c: c.threshold.value),
        ("threshold of the float model", lambda c: c.threshold_float.value),
        ("seconds to train and convert", lambda c: c.seconds),
    ]
    extras = [further(c) for c in everyone]
    body = [[name, *(value(c) for c in everyone)] for name, value in rows]
    body += [[name, *(extra.get(name) for extra in extras)] for name in sorted({key for e in extras for key in e})]
    heads = ["", *(f"{c.family} ✓ ships" if c.chosen else c.family for c in everyone)]
    return table(heads, body, marked=[False, *(c.chosen for c in everyone)])


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


def why_not(candidate: Candidate, result: TrainingResult) -> str:
    """Why another one ships; as the run says, or what the numbers say."""
    if candidate.why_not:
        return candidate.why_not
    if not candidate.gate.passed:
        return f"refused by the gate: {candidate.gate.reason or 'decisions differ'}"
    chosen = result.chosen
    gain = candidate.separation - chosen.separation
    cost = f"{size(candidate.bytes)} and {number(candidate.latency_us)} µs"
    against = f"{size(chosen.bytes)} and {number(chosen.latency_us)} µs of {chosen.family}"
    if gain < -5e-4:
        return f"separates {-gain:.3f} less than {chosen.family}"
    better = f"separates {gain:.3f} more" if gain > 5e-4 else "separates as well"
    return f"{better}, which was not enough to be taken at {cost} against {against}"


def threshold(result: TrainingResult) -> str:
    """Where the limit lies, and what it promises."""
    chosen = result.chosen
    if not len(chosen.converted_scores):
        return ""
    body = f"<p>{number(chosen.threshold.value)}: {text(origin(chosen))}. Ratio = score / threshold.</p>\n"
    promise = result.extra.get("promise")
    if isinstance(promise, dict):
        rows = [[key.replace("_", " "), _told(value)] for key, value in promise.items() if key != "sentence"]
        body += f'<p class="promise">{text(promise.get("sentence") or "")}</p>\n{table(["promise", ""], rows)}'
    else:
        body += "<p>No rate of false alarms is promised: the table says what these recordings show, no more.</p>\n"
    words = f"Calibration scores over the threshold of each model: filled {chosen.precision}, outlined float."
    body += figure(histogram_picture(chosen, result.k_table), words + " Grey lines: mean + k σ.")
    k_rows = [[row["k"], row["threshold"], row["over"]] for row in result.k_table]
    if k_rows:
        body += table(["k", "mean + k σ", "share of calibration windows at it or above"], k_rows)
    return section("threshold", "Threshold and its promise", body)


def agreement(result: TrainingResult) -> str:
    """The float model's scores against the converted one's."""
    chosen = result.chosen
    if not len(chosen.float_scores) or len(chosen.float_scores) != len(chosen.converted_scores):
        return ""
    words = (
        f"Each dot is a calibration window; dashed: the threshold of each model. Correlation "
        f"{number(chosen.gate.correlation)}, equal decisions {part(chosen.gate.agreement)}."
    )
    drawn = figure(agreement_picture(chosen), words, "small")
    return section("agreement", f"Float against {chosen.precision}", drawn)


def training(result: TrainingResult) -> str:
    """Loss curves."""
    curves = {c.train_loss.tobytes(): c for c in reversed(result.candidates) if len(c.train_loss)}
    trained = tuple(
        c for c in result.candidates if len(c.train_loss) and c is curves[c.train_loss.tobytes()]
    )  # an ensemble has its member's curve
    closed = ", ".join(c.family for c in result.candidates if not len(c.train_loss))
    drawn = figure(training_picture(trained), "Training dashed, validation solid.") if trained else ""
    note = f'<p class="note">Fitted in closed form, without epochs: {text(closed)}.</p>\n' if closed else ""
    return section("training", "Training", drawn + note)


def cost(result: TrainingResult) -> str:
    """What it takes on the device, as far as that is known here."""
    facts = cost_figures(result)
    rows = [
        ["model", size(result.chosen.bytes), "the file that is loaded; beside it a file to score many windows at once"],
        ["a window", f"{number(facts['window_us'])} µs", "median on this machine, from engineering units to score"],
        ["windows", f"{number(facts['windows_per_s'])} a second", f"one every {result.hop} rows"],
        ["processor", part(facts["core_share"]), "of one core of this machine, for scoring"],
        ["memory", f"about {facts['rss_mb']:.0f} MB", "estimate for the whole agent: Python, numpy, runtime, model"],
    ]
    note = "A small board takes several times as long. <code>tocsin model bench</code> measures it there."
    body = table(["", "takes", "which is"], rows) + f'<p class="note">{note}</p>\n'
    return section("cost", "Cost on the device", body)


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


def origin(candidate: Candidate) -> str:
    """Where its limit comes from, in words."""
    limit, windows = candidate.threshold, len(candidate.converted_scores)
    p = limit.parameters
    if limit.method == "mu_sigma" and "k" in p:
        return f"mean + {p['k']:g} σ of {windows:,} calibration scores"
    if limit.method == "quantile" and "q" in p:
        return f"{100 * p['q']:g} % quantile of {windows:,} calibration scores × {p.get('margin', 1):g}"
    values = "".join(f", {key} {value:.4g}" for key, value in p.items() if isinstance(value, int | float))
    return f"method {limit.method}{values}"


def _why(result: TrainingResult) -> str:
    """Why the chosen one ships: as the run says, or what its numbers say."""
    for choice in result.choices:
        if choice.what.lower() in {"model", "family", "candidate"}:
            return f"{result.chosen.family} ships: {choice.why}"
    chosen = result.chosen
    passed = [c for c in result.candidates if c.gate.passed]
    best = max(passed or result.candidates, key=lambda c: c.separation)
    if best.separation <= chosen.separation:
        return f"{chosen.family} ships: none of the {len(passed)} that passed the gate separates anomalies better."
    return (
        f"{chosen.family} ships with a separation of {chosen.separation:.3f}; {best.family} has {best.separation:.3f} "
        f"at {size(best.bytes)} against {size(chosen.bytes)}."
    )


def _pair(exact: float | None, shipped: float | None) -> str | None:
    return None if exact is None or shipped is None else f"{exact:.3f} → {shipped:.3f}"


def _told(value: Any) -> Any:
    """A promise's value as a cell."""
    if isinstance(value, list | tuple):
        return " to ".join(number(item) if isinstance(item, int | float) else str(item) for item in value)
    return value if value is None or isinstance(value, int | float | str) else str(value)
