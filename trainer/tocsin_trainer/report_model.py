"""The report's sections on the models: candidates, limit, float against converted, training, cost on the device."""

from collections.abc import Callable
from typing import Any

from tocsin_trainer.figures import agreement_picture, histogram_picture, training_picture
from tocsin_trainer.markup import DASH, figure, number, part, section, size, table, text
from tocsin_trainer.reasons import RULE, cost_figures, further, origin, why_not
from tocsin_trainer.results import Candidate, TrainingResult


def candidates(result: TrainingResult) -> str:
    """Who stood for choice, float against converted, and why the others were not taken."""
    everyone = result.candidates
    labelled = any("vus_pr" in c.figures for c in everyone)
    heads = ["candidate", "outcome", "worth", "separation, float → shipped", "stability", "agreement of seeds",
             *(["VUS-PR, float → shipped"] if labelled else []), "ships as", "size, float → shipped", "µs a window",
             "equal decisions", "fitted on"]  # fmt: skip
    rows = [
        [
            c.title,
            "ships" if c.chosen else why_not(c, result),
            f"{c.worth:.3f}",
            f"{c.gate.auc_float:.3f} → {c.separation:.3f}",
            "too short to tell" if c.stability is None else f"{c.stability:.2f}",
            DASH if c.closed_form else "not measured" if c.agreement is None else f"{c.agreement:.2f}",
            *([_pair(c.figures_float.get("vus_pr"), c.figures.get("vus_pr"))] if labelled else []),
            c.precision,
            f"{size(c.float_bytes)} → {size(c.bytes)}",
            c.latency_us,
            part(c.gate.agreement),
            c.fitted_on or DASH,
        ]
        for c in sorted(everyone, key=lambda c: (not c.chosen, not c.gate.passed, -c.worth))
    ]
    rows += [[family, f"not fitted: {why}", *[DASH] * (len(heads) - 2)] for family, why in result.left_out]
    note = (
        "Separation: ROC-AUC between normal windows and the same with made-up anomalies; 1 is perfect, 0.5 is chance. "
        "It is no rate of detection. Stability: of these anomalies, the part that a limit from the worst block of time "
        "leaves of what a usual one finds. Agreement: rank correlation with a model of another seed, measured where a "
        f"network would ship; a linear model has no seed. {RULE}"
    )
    body = (
        f'<p>{text(_why(result))}</p>\n{table(heads, rows)}<p class="note">{note}</p>\n'
        f"<h3>All that was measured of each</h3>\n{_details(result)}"
    )
    return section("candidates", "Candidates", body)


def _details(result: TrainingResult) -> str:
    everyone = sorted(result.candidates, key=lambda c: not c.chosen)  # what ships stays on a narrow screen
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
        ("· distortion far outside of normal running", lambda c: None if c.combination else c.gate.distortion),
        ("separation", lambda c: c.separation),
        ("stability over blocks of time", lambda c: c.stability),
        ("agreement of seeds", lambda c: None if c.closed_form else c.agreement),
        ("worth", lambda c: c.worth),
        ("members combined by", lambda c: c.combination or DASH),
        ("fitted on", lambda c: c.fitted_on or DASH),
        ("threshold", lambda c: c.threshold.value),
        ("threshold of the float model", lambda c: c.threshold_float.value),
        ("seconds to train and convert", lambda c: c.seconds),
    ]
    extras = [further(c) for c in everyone]
    body = [[name, *(value(c) for c in everyone)] for name, value in rows]
    body += [[name, *(extra.get(name) for extra in extras)] for name in sorted({key for e in extras for key in e})]
    heads = ["", *(f"{c.title} – ships" if c.chosen else c.title for c in everyone)]
    return table(heads, body, marked=[False, *(c.chosen for c in everyone)])


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
    k_rows = [[row["k"], row["threshold"], part(row["over"])] for row in result.k_table]
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
    closed = ", ".join(c.family for c in result.candidates if c.closed_form and not c.combination)
    drawn = figure(training_picture(trained), "Training dashed, validation solid.") if trained else ""
    note = f'<p class="note">Solved, without epochs: {text(closed)}.</p>\n' if closed else ""
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


def _why(result: TrainingResult) -> str:
    """Why the chosen one ships: as the run says, or what its numbers say."""
    for choice in result.choices:
        if choice.what.lower() in {"model", "family", "candidate"}:
            return f"{result.chosen.title} ships: {choice.why}."
    chosen = result.chosen
    passed = [c for c in result.candidates if c.gate.passed]
    best = max(passed or result.candidates, key=lambda c: c.separation)
    if best.separation <= chosen.separation:
        return f"{chosen.title} ships: none of the {len(passed)} that passed the gate separates anomalies better."
    return (
        f"{chosen.title} ships with a separation of {chosen.separation:.3f}; {best.title} has {best.separation:.3f} "
        f"at {size(best.bytes)} against {size(chosen.bytes)}."
    )


def _pair(exact: float | None, shipped: float | None) -> str | None:
    return None if exact is None or shipped is None else f"{exact:.3f} → {shipped:.3f}"


def _told(value: Any) -> Any:
    """A promise's value as a cell."""
    if isinstance(value, list | tuple):
        return " to ".join(number(item) if isinstance(item, int | float) else str(item) for item in value)
    return value if value is None or isinstance(value, int | float | str) else str(value)
