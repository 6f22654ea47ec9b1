"""Text of model_card.md, which travels inside the bundle: what the model is for, made from, and worth.

Rules: markdown that reads well as plain text; everything stands on its own, without the report; a text from the data
cannot break a table; what was not measured is said. Order after Mitchell et al., "Model cards for model reporting",
FAT* 2019.
"""

import platform
from collections.abc import Sequence
from importlib import metadata

from tocsin import __version__
from tocsin_trainer.markup import number, part, size
from tocsin_trainer.reasons import FIGURES, RULE, cost_figures, origin, why_not
from tocsin_trainer.results import TrainingResult
from tocsin_trainer.verdict import verdict

PACKAGES = ("numpy", "keras", "tensorflow-cpu", "tensorflow", "ai-edge-litert")


def model_card(result: TrainingResult, files: tuple[tuple[str, str], ...] = ()) -> str:
    """The card.

    Args:
        result: what the run found.
        files: (name, sha256) of the recordings of normal running.
    """
    parts = (_intent(result), _checks(result), _input(result), _data(result, files), _limit(result),
             _figures(result), _candidates(result), _limits(result), _verify(result))  # fmt: skip
    return "\n".join(parts)


def _intent(result: TrainingResult) -> str:
    chosen = result.chosen
    return f"""# {_line(result.asset)} {_line(result.version)}

An anomaly detector for one machine: {chosen.title}, {chosen.precision}, {size(chosen.bytes)}. Its score says how far
a window is from what the model expects of normal running; from the limit on, an alarm is due.

## Intended use
To tell the people who run or maintain this machine that it behaves unlike its recorded normal running, and which
sensors show it. A person looks before anything is done.

## Not for
The protection of people, or of the machine without another safeguard; other machines, other sensors or mounts, other
sample rates; naming a fault or the time to a failure.
"""


def _checks(result: TrainingResult) -> str:
    found = verdict(result)
    said = {True: "good", False: "LOOK", None: "open"}
    lines = "\n".join(f"- {said[check.good]}: {_line(check.words)}" for check in found.checks)
    return f"## Verdict of the training run\n{found.headline}.\n\n{lines}\n"


def _input(result: TrainingResult) -> str:
    channels = ", ".join(f"{c.name} [{c.unit}]" if c.unit else c.name for c in result.channels)
    return f"""## Input
{result.length} rows of {len(result.channels)} channels at {result.sample_rate_hz:g} Hz, one window every {result.hop}
rows: {_line(channels)}.
"""


def _data(result: TrainingResult, files: tuple[tuple[str, str], ...]) -> str:
    rows = ", ".join(f"{count:,} {name}" for name, count in result.rows.items())
    text = f"## Trained on\nRecordings of normal running, split by time; rows: {rows}.\n"
    if files:
        text += _table(("file", "sha256"), [(name, f"`{digest}`") for name, digest in files])
    if result.quality is not None:
        text += f"\nQuality: {_line(result.quality.sentence)}\n"
        grades = [
            (each.name, each.grade, "; ".join(f.words for f in each.findings) or "nothing was found")
            for each in result.quality.channels
        ]
        text += _table(("channel", "grade", "why"), grades)
    return (
        text + "\nThe golden vectors in this bundle are windows of these recordings, a quarter of them with a made-up "
        "anomaly:\nwho may not see the recordings may not see the bundle.\n\nLicence: the recordings, and the weights "
        "learnt from them, belong to whoever owns the recordings; Tocsin claims\nnothing. Agree on terms before the "
        "bundle is passed on.\n"
    )


def _limit(result: TrainingResult) -> str:
    limit = result.chosen.threshold
    text = f"## Limit and promise\nScore {limit.value:.6g} is ratio 1.0: {origin(result.chosen)}, converted model.\n"
    promise = result.extra.get("promise")
    if isinstance(promise, dict) and promise.get("sentence"):
        return f"{text}{_line(promise['sentence'])}\n"
    return f"{text}No rate of false alarms is promised.\n"


def _figures(result: TrainingResult) -> str:
    chosen = result.chosen
    text = "## Figures on labelled test data\n"
    if not chosen.figures:
        return f"{text}No labelled recording was given: how many faults it finds is not known.\n"
    keys = [key for key in FIGURES if key in chosen.figures] + sorted(set(chosen.figures) - set(FIGURES))
    names = list(result.baselines)
    rows = [
        (
            FIGURES.get(key, key), number(chosen.figures_float.get(key)), number(chosen.figures[key]),
            *(number(result.baselines[name].get(key)) for name in names),
        )
        for key in keys
    ]  # fmt: skip
    return text + _table(("figure", "float", f"shipped ({chosen.precision})", *names), rows)


def _candidates(result: TrainingResult) -> str:
    fitted = [
        (
            c.title, c.precision, f"{c.bytes:,}", f"{c.worth:.3f}", f"{c.gate.auc_float:.4f}", f"{c.separation:.4f}",
            number(c.stability), number(None if c.closed_form else c.agreement), part(c.gate.agreement), c.fitted_on,
            "ships" if c.chosen else why_not(c, result),
        )
        for c in result.candidates
    ]  # fmt: skip
    rows: list[tuple[str, ...]] = [
        *fitted,
        *((family, *["–"] * 9, f"not fitted: {why}") for family, why in result.left_out),
    ]
    heads = ("candidate", "precision", "bytes", "worth", "separation, float", "separation", "stability",
             "agreement of seeds", "equal decisions", "fitted on", "outcome")  # fmt: skip
    facts = cost_figures(result)
    return (
        f"## Candidates\nSeparation: ROC-AUC on made-up anomalies; no rate of detection. "
        f"Stability: what the worst block of time leaves of it.\n{RULE}\n{_table(heads, rows)}\n"
        f"On the training machine a window takes {number(facts['window_us'])} µs: {part(facts['core_share'])} of a "
        "core.\n"
    )


def _limits(result: TrainingResult) -> str:
    hours = sum(result.rows.values()) / result.sample_rate_hz / 3600
    return f"""## Limits
It knows the states that {hours:.3g} hours of recording show, and calls others unusual: a new product, season, load or
tool. It says unlike before, not broken. A fault that was there while recording is normal to it. Train again after a
repair that changes how the machine runs, and when sensors are moved or replaced.
"""


def _verify(result: TrainingResult) -> str:
    versions = [f"Python {platform.python_version()}", *_versions()]
    command = result.extra.get("command")
    made = f"\n```sh\n{command}\n```\n" if command else "\n"
    name = f"{result.asset}-{result.version}.tocsin"
    return f"""## Verify
`tocsin model verify {name}` checks every hash and replays the golden vectors on the machine it runs on.

## Reproduce
Made by Tocsin {__version__} on {result.created}, seed {result.seed}; {", ".join(versions)}; {platform.machine()}.
The same recordings, options, seed and versions give the same model.{made}"""


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue  # one of the two TensorFlows, mostly
    return found


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(_line(cell).replace("|", "\\|") for cell in row) + " |" for row in (heads, *rows)]
    return "\n".join(["", lines[0], "|" + "---|" * len(heads), *lines[1:], ""])


def _line(text: object) -> str:
    """On one line, whatever the data held."""
    return " ".join(str(text).split())
