"""What a training run found, as one HTML page, as a short table and as JSON.

Rules: the page needs nothing but itself (no script, no font, no address), and says so in its content security policy;
every text that comes from data is escaped; figures that are absent are shown as a dash, never invented.
"""

import base64
import hashlib
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tocsin_trainer.figures import (
    agreement_picture,
    histogram_picture,
    played_picture,
    played_words,
    training_picture,
)
from tocsin_trainer.markup import DASH, figure, number, size, table, text, wide_table
from tocsin_trainer.results import Candidate, Played, TrainingResult

MAX_PARTS = 6
FIGURES = {
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


def write_report(result: TrainingResult, path: Path) -> None:
    """Writes the page, whole or not at all.

    Raises:
        OSError: the folder is not there or cannot be written.
    """
    partial = path.with_name(path.name + ".part")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(page(result))
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def metrics_json(result: TrainingResult) -> dict[str, Any]:
    """The run's figures, ready for `json.dump(…, allow_nan=False)`.

    Keys: asset, version, created, seed, window {length, hop}, sample_rate_hz, channels [{name, unit}], rows, candidates
    [{family, precision, headroom, bytes, float_bytes, latency_us, parameters, gate {correlation, agreement, auc_float,
    auc_converted, passed, reason}, threshold {method, value, parameters}, threshold_float, separation, figures,
    figures_float, seconds, chosen}], chosen (its family), threshold (of the chosen), choices [{what, value, why}],
    warnings, baselines, seconds. A number that is not finite is null.
    """
    form = {
        "asset": result.asset,
        "version": result.version,
        "created": result.created,
        "seed": result.seed,
        "window": {"length": result.length, "hop": result.hop},
        "sample_rate_hz": result.sample_rate_hz,
        "channels": [{"name": channel.name, "unit": channel.unit} for channel in result.channels],
        "rows": result.rows,
        "candidates": [_candidate_json(candidate) for candidate in result.candidates],
        "chosen": result.chosen.family,
        "threshold": result.chosen.threshold.to_json(),
        "choices": [asdict(choice) for choice in result.choices],
        "warnings": result.warnings,
        "baselines": result.baselines,
        "seconds": result.seconds,
    }
    plain: dict[str, Any] = _plain(form)
    return plain


def summary_table(result: TrainingResult) -> list[dict[str, Any]]:
    """One flat row a candidate, for the terminal: plain values, the same keys in every row, None where absent."""
    keys = [
        key
        for key in ("vus_pr", "f1", "far", "false_events_per_day")
        if any(key in c.figures for c in result.candidates)
    ]
    rows = [
        {
            "family": candidate.family,
            "precision": candidate.precision,
            "bytes": candidate.bytes,
            "latency_us": candidate.latency_us,
            "gate": "passed" if candidate.gate.passed else candidate.gate.reason or "failed",
            "threshold": candidate.threshold.value,
            "separation": candidate.separation,
            **{key: candidate.figures.get(key) for key in keys},
            "seconds": candidate.seconds,
            "chosen": candidate.chosen,
        }
        for candidate in result.candidates
    ]
    plain: list[dict[str, Any]] = _plain(rows)
    return plain


def page(result: TrainingResult) -> str:
    """The whole page."""
    css = resources.files("tocsin_trainer").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    sections = (_head, _parts, _candidates, _labelled, _threshold, _agreement, _training, _choices, _data, _next)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(result.asset)} {text(result.version)}: training report</title>\n<style>{css}</style>\n"
        f"</head>\n<body>\n{''.join(section(result) for section in sections)}</body>\n</html>\n"
    )


def _head(result: TrainingResult) -> str:
    chosen = result.chosen
    lede = (
        f"Ships <b>{text(chosen.family)}</b> in <b>{text(chosen.precision)}</b>: {size(chosen.bytes)}, "
        f"{number(chosen.latency_us)} µs a window on the training machine, threshold {number(chosen.threshold.value)} "
        f"({text(_origin(chosen))})."
    )
    tiles = {"separation of injected anomalies": number(chosen.separation)}
    tiles |= {FIGURES[key]: number(chosen.figures[key]) for key in ("vus_pr", "f1") if key in chosen.figures}
    if {"events", "found"} <= chosen.figures.keys():
        tiles["events found"] = f"{chosen.figures['found']:.0f} of {chosen.figures['events']:.0f}"
    tiles |= {f"false alarms a day, {p.title}": number(_false_alarms(p)[1]) for p in chosen.played if p.title == "test"}
    tiles |= {"window": f"{result.length} rows, hop {result.hop}", "grid": f"{number(result.sample_rate_hz)} Hz"}
    terms = "".join(f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in tiles.items())
    warnings = "".join(f'<p class="warning">{text(warning)}</p>\n' for warning in result.warnings)
    return (
        f'<header><p class="kind">Training report · version {text(result.version)} · {text(result.created)}</p>\n'
        f"<h1>{text(result.asset)}</h1></header>\n<main>\n"
        f'<p class="lede">{lede}</p>\n<dl class="tiles">{terms}</dl>\n{warnings}'
    )


def _parts(result: TrainingResult) -> str:
    limit = result.chosen.threshold.value
    parts = [played for played in result.chosen.played if len(played.score) and len(played.row_time_s)]
    if not parts:
        return ""
    rows = [
        [p.title, len(p), len(p.score), float(np.mean(p.score >= limit)), len(p.alarms), *_false_alarms(p)]
        for p in parts
    ]
    heads = ["part", "rows", "windows", "share at the threshold or above", "alarms", "touching no label", "these a day"]
    drawn = [
        f"<h3>{text(played.title)}</h3>\n"
        + figure(played_picture(played, result.channels, limit, f"part{index}"), played_words(played, limit))
        for index, played in enumerate(parts[:MAX_PARTS])
    ]
    if len(parts) > MAX_PARTS:
        drawn.append(f'<p class="note">{len(parts) - MAX_PARTS} more parts stand in the table only.</p>\n')
    caption = "Where nothing is labelled every alarm touches no label: it is false if the machine was well."
    return (
        "<h2>What the device would have said</h2>\n"
        + table(heads, rows)
        + f'<p class="note">{caption}</p>\n<p class="note"><span class="key alarm"></span>alarm '
        '<span class="key label"></span>labelled anomalous <span class="key heat"></span>a channel’s part in the '
        "score: full colour where it alone reaches the threshold.</p>\n" + "".join(drawn)
    )


def _candidates(result: TrainingResult) -> str:
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
        ("separation", lambda c: c.separation),
        ("threshold", lambda c: c.threshold.value),
        ("threshold of the float model", lambda c: c.threshold_float.value),
        ("seconds to train and convert", lambda c: c.seconds),
    ]
    heads = ["", *(f"{c.family} ✓ ships" if c.chosen else c.family for c in result.candidates)]
    body = [[name, *(value(c) for c in result.candidates)] for name, value in rows]
    marked = [False, *(c.chosen for c in result.candidates)]
    return f"<h2>Candidates</h2>\n<p>{text(_why(result))}</p>\n{table(heads, body, marked=marked)}"


def _labelled(result: TrainingResult) -> str:
    candidates, baselines = result.candidates, result.baselines
    columns = [column for c in candidates for column in (c.figures_float, c.figures)] + list(baselines.values())
    keys = [key for key in FIGURES if any(key in column for column in columns)]
    keys += sorted({key for column in columns for key in column} - set(FIGURES))
    if not keys:
        return (
            "<h2>Figures on labelled test data</h2>\n<p>There are no labels: nothing can be said of what would be "
            "found or missed, but for the injected anomalies above.</p>\n"
        )
    families = "".join(f'<th scope="colgroup" colspan="2" class="number">{text(c.family)}</th>' for c in candidates)
    families += "".join(f'<th scope="col" rowspan="2" class="number">{text(name)}</th>' for name in baselines)
    kinds = "".join(
        f'<th scope="col" class="number">float</th><th scope="col" class="number{" ships" * c.chosen}">'
        f"{text(c.precision)}{' ✓' * c.chosen}</th>"
        for c in candidates
    )
    marked = [False, *(flag for c in candidates for flag in (False, c.chosen)), *[False] * len(baselines)]
    rows = [[FIGURES.get(key, key), *(column.get(key) for column in columns)] for key in keys]
    return (
        "<h2>Figures on labelled test data</h2>\n<p>At each model’s own threshold, without point adjustment. What is "
        "always on, or knows nothing, stands beside them: a figure that does not beat it is worth nothing.</p>\n"
        + wide_table(f'<tr><td rowspan="2"></td>{families}</tr><tr>{kinds}</tr>', rows, marked=marked)
    )


def _threshold(result: TrainingResult) -> str:
    chosen = result.chosen
    if not len(chosen.converted_scores):
        return ""
    rows = [[row["k"], row["threshold"], row["over"]] for row in result.k_table]
    heads = ["k", "mean + k σ", "share of calibration windows at it or above"]
    return (
        f"<h2>Threshold</h2>\n<p>{number(chosen.threshold.value)}: {text(_origin(chosen))}.</p>\n"
        + figure(histogram_picture(chosen, result.k_table), "Calibration scores; grey lines: mean + k σ.")
        + (table(heads, rows) if rows else "")
    )


def _agreement(result: TrainingResult) -> str:
    chosen = result.chosen
    if not len(chosen.float_scores) or len(chosen.float_scores) != len(chosen.converted_scores):
        return ""
    words = (
        f"Each dot is a calibration window; dashed: the threshold of each model. Correlation "
        f"{number(chosen.gate.correlation)}, equal decisions {number(chosen.gate.agreement)}."
    )
    return f"<h2>Float against {text(chosen.precision)}</h2>\n{figure(agreement_picture(chosen), words, 'small')}"


def _training(result: TrainingResult) -> str:
    trained = tuple(c for c in result.candidates if len(c.train_loss))
    closed = ", ".join(c.family for c in result.candidates if not len(c.train_loss))
    drawn = figure(training_picture(trained), "Training dashed, validation solid.") if trained else ""
    note = f'<p class="note">Fitted in closed form, without epochs: {text(closed)}.</p>\n' if closed else ""
    return f"<h2>Training</h2>\n{drawn}{note}"


def _choices(result: TrainingResult) -> str:
    rows = [[choice.what, choice.value, choice.why] for choice in result.choices]
    return "<h2>What was chosen, and why</h2>\n" + table(["what", "value", "why"], rows) if rows else ""


def _data(result: TrainingResult) -> str:
    channels = [[channel.name, channel.unit or DASH] for channel in result.channels]
    facts: list[list[object]] = [[f"rows, {part}", count] for part, count in result.rows.items()]
    facts += [["seed", str(result.seed)], ["version", result.version], ["seconds in all", result.seconds]]
    facts += [[key, value] for key, value in result.extra.items() if key != "next_command"]
    return "<h2>Data and run</h2>\n" + table(["channel", "unit"], channels) + table(["what", "value"], facts)


def _next(result: TrainingResult) -> str:
    command = result.extra.get("next_command", f"tocsin model verify {result.asset}-{result.version}.tocsin")
    return f"<h2>Next</h2>\n<pre><code>{text(command)}</code></pre>\n</main>\n"


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


def _origin(candidate: Candidate) -> str:
    """Where its limit comes from, in words."""
    threshold, windows = candidate.threshold, len(candidate.converted_scores)
    p = threshold.parameters
    if threshold.method == "mu_sigma" and "k" in p:
        return f"mean + {p['k']:g} σ of {windows:,} calibration scores"
    if threshold.method == "quantile" and "q" in p:
        return f"{100 * p['q']:g} % quantile of {windows:,} calibration scores × {p.get('margin', 1):g}"
    values = "".join(f", {key} {value:.4g}" for key, value in p.items())
    return f"method {threshold.method}{values}"


def _false_alarms(played: Played) -> tuple[int, float | None]:
    """Alarms that touch no labelled row, and how many that is a day of unlabelled running."""
    label = played.row_label if played.row_label is not None else np.zeros(len(played.row_time_s), np.bool_)
    bad = played.row_time_s[label]
    false = sum(not np.any((bad >= start) & (bad <= stop)) for start, stop in played.alarms)
    return false, false * 86400 / played.running_s if played.running_s > 0 else None


def _candidate_json(candidate: Candidate) -> dict[str, Any]:
    keys = ("family", "precision", "headroom", "bytes", "float_bytes", "latency_us", "parameters", "separation",
            "figures", "figures_float", "seconds", "chosen")  # fmt: skip
    return {key: getattr(candidate, key) for key in keys} | {
        "gate": asdict(candidate.gate),
        "threshold": candidate.threshold.to_json(),
        "threshold_float": candidate.threshold_float.to_json(),
    }


def _plain(value: Any) -> Any:
    """The same in types that JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
