"""What a training run comes to, in a few plain sentences: the first thing a reader sees.

Rules: a check is good, or needs a look; what was not measured is neither, and is said.
"""

from dataclasses import dataclass

from tocsin_trainer.comparison import EQUAL, compared
from tocsin_trainer.markup import duration, number, part, plural
from tocsin_trainer.mistakes import false_alarms, labelled_events
from tocsin_trainer.results import Candidate, TrainingResult

DAY_S = 86400.0


@dataclass(frozen=True)
class Check:
    """One sentence of the verdict.

    Attributes:
        good: false where somebody should look before this ships; None where nothing was measured.
        words: what is so, and what to do where it is not good.
    """

    good: bool | None
    words: str

    @property
    def mark(self) -> str:
        """One letter for a list."""
        return "–" if self.good is None else "✓" if self.good else "!"


@dataclass(frozen=True)
class Verdict:
    """All of them.

    Attributes:
        headline: what to do with the bundle.
        checks: why, the gravest kind first.
    """

    headline: str
    checks: tuple[Check, ...]


def verdict(result: TrainingResult) -> Verdict:
    """What a run comes to."""
    gate = result.chosen.gate
    checks = (
        _conversion(result.chosen),
        *_labelled(result),
        *_unlabelled(result),
        *_against_linear(result),
        *_promise(result),
        *_data(result),
    )
    open_ = sum(check.good is False for check in checks)
    if not gate.passed:
        headline = "Do not ship this: the converted model does not decide as the trained one"
    elif open_:
        headline = f"It can ship; look at {plural(open_, 'thing')} first"
    else:
        headline = "Ready to try on the machine"
    return Verdict(headline, checks)


def _conversion(chosen: Candidate) -> Check:
    gate = chosen.gate
    if not gate.passed:
        return Check(False, f"The {chosen.precision} model failed the gate: {gate.reason or 'decisions differ'}.")
    words = (
        f"The {chosen.precision} model on the device decides as the trained one: {part(gate.agreement)} of decisions"
    )
    return Check(True, f"{words} are equal." + (f" {gate.reason[:1].upper()}{gate.reason[1:]}." if gate.reason else ""))


def _labelled(result: TrainingResult) -> list[Check]:
    """Events that were found, against labels."""
    chosen, limit = result.chosen, result.chosen.threshold.value
    parts = [played for played in chosen.played if played.row_label is not None]
    if not parts:
        words = "Not measured: how many faults it would find. Give a labelled recording with --test to know."
        return [Check(None, words)]
    checks = []
    events = [event for played in parts for event in labelled_events(played, result.channels, limit)]
    if events:
        found = sum(event.found for event in events)
        words = f"{found} of {plural(len(events), 'labelled event')} {'were' if len(events) != 1 else 'was'} found"
        delays = sorted(event.alarm_after_s for event in events if event.alarm_after_s is not None)
        words += f", half of them within {duration(delays[len(delays) // 2])}." if delays else "."
        checks.append(Check(found == len(events), words))
    false, running = sum(false_alarms(p)[0] for p in parts), sum(p.running_s for p in parts)
    if running > 0:
        words = f"{plural(false, 'alarm')} touched no label in {duration(running)} of unlabelled running"
        rate = f": {number(false * DAY_S / running)} a day" if running >= DAY_S else ""
        look = "; the report pictures the worst" if false else ""
        checks.append(Check(false == 0, f"{words}{rate}{look}."))
    ours, trivial = chosen.figures.get("vus_pr"), result.baselines.get("random", {}).get("vus_pr")
    if ours is not None and trivial is not None and ours <= trivial:
        words = (
            f"Its scores rank the labelled rows no better than random ones (VUS-PR {ours:.3f}, random {trivial:.3f})."
        )
        checks.append(Check(False, words))
    return checks


def _unlabelled(result: TrainingResult) -> list[Check]:
    """Alarms on normal running that no limit and no weight was fitted to."""
    parts = [
        p
        for p in result.chosen.played
        if p.row_label is None and p.title not in ("calibration", "held back in turn") and len(p.row_time_s)
    ]
    alarms, running = sum(len(p.alarms) for p in parts), sum(p.running_s for p in parts)
    if not parts or running <= 0:
        return []
    words = f"{plural(alarms, 'alarm')} on {duration(running)} of normal running that nothing was fitted to"
    if alarms:
        return [Check(False, f"{words}: was the machine well all that time? The report pictures the worst.")]
    short = "; that is too short to tell what a day brings" if running < DAY_S else ""
    return [Check(True, f"{words}{short}.")]


def _against_linear(result: TrainingResult) -> list[Check]:
    found = compared(result.candidates)
    return [] if found is None else [Check(found.lead > -EQUAL, f"{found.sentence()}.")]


def _promise(result: TrainingResult) -> list[Check]:
    promise = result.extra.get("promise")
    if not isinstance(promise, dict):
        return []
    sentence = str(promise.get("sentence") or "")
    kept = promise.get("promised") is not None and promise.get("promised") is not False
    return [Check(kept, sentence.rstrip(".") + ".")] if sentence else []


def _data(result: TrainingResult) -> list[Check]:
    quality = result.quality
    checks = [Check(False, warning + "." * (not warning.endswith("."))) for warning in result.warnings]
    if quality is not None:
        grades = [*(channel.grade for channel in quality.channels), *(finding.grade for finding in quality.findings)]
        checks.append(Check(max(grades, default="A") <= "B", f"Data: {quality.sentence}"))
    return checks
