"""The search itself: an Optuna study in a journal file, shared by all processes that name the file.

```
ask ─► choice ─► block 1 ─► over budget or clearly beaten? pruned ─► blocks 2, 3 ─► tell detection, time, size
```
Rules: Optuna's pruners are for one objective alone, so it is decided here, after the first block, who is pruned; each
trial's draws come from seed and number, so that processes side by side do not search the same; a trial whose process is
gone is done again; a choice that was made before is not measured twice.
"""

import hashlib
import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tocsin.errors import ConfigError, TocsinError
from tocsin_trainer.device_budget import Cost, DeviceBudget
from tocsin_trainer.tune.blocks import Judged
from tocsin_trainer.tune.outcome import Trial, dominates
from tocsin_trainer.tune.space import Choice, Space

NAME = "tocsin"
DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)  # detection, time, size
BEATEN = 0.05  # of detection, by which a trial is behind in the first block when it is given up
SAME_AGAIN = 20  # choices made before, one after the other: what is left of the space is not worth looking for
CHOOSING_S = 1.0  # longest wait for other processes to choose
NEW_S = 60.0  # a trial without the name of its process is that of one that was killed, from this age on
OVER = "over budget"  # how a reason begins that holds for this budget alone

Judge = Callable[[Choice, Judged | None, int], Judged]
"""Judges a choice on a block, by number; given what it came to on the first."""
Told = Callable[[Trial], None]


def opened(path: Path, subject: dict[str, Any]) -> optuna.Study:
    """The study in a file; a new one where there is none.

    Args:
        path: of the journal.
        subject: what is searched, of JSON values: all processes and later runs must agree on it.

    Raises:
        ConfigError: the file is of another subject, or no study.
        TocsinError: it cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        study = optuna.create_study(storage=storage, study_name=NAME, directions=list(DIRECTIONS), load_if_exists=True)
    except OSError as error:
        raise TocsinError(f"--study {path}: cannot be written: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--study {path}: not a study: name a file that is not there yet") from error
    known = study.user_attrs.get("subject")
    if known is None:
        study.set_user_attr("subject", subject)
    elif known != json.loads(json.dumps(subject)):
        other = ", ".join(sorted(key for key in {*known, *subject} if known.get(key) != subject.get(key)))
        raise ConfigError(f"--study {path}: made for other {other}: name another file, or remove this one")
    return study


def search(
    study: optuna.Study,
    space: Space,
    judge: Judge,
    blocks: int,
    trials: int,
    deadline: float | None,
    budget: DeviceBudget,
    told: Told,
) -> None:
    """Runs trials until the study holds so many, those of other processes included, or time is over.

    Args:
        study: as `opened` gives it.
        space: what is searched.
        judge: of a choice on a block.
        blocks: how many there are.
        trials: that were measured or given up, at the end.
        deadline: of `time.monotonic`, after which none begins.
        budget: models over it are given up; the default is measured in any case.
        told: of each trial that ends.
    """
    _mend(study)
    if not any(_choice(each) == space.default for each in _of(study, TrialState.FAIL, other=True)):
        study.enqueue_trial(space.default)
    repeated = 0
    while repeated < SAME_AGAIN and sum(_counts(each) for each in study.get_trials(deepcopy=False)) < trials:
        if deadline is not None and time.monotonic() > deadline:
            return
        asked = study.ask()
        try:
            ended = _run(study, asked, space, judge, blocks, budget)
        except BaseException:
            study.tell(asked, state=TrialState.FAIL)
            raise
        repeated = repeated + 1 if ended.why.startswith("the same as") else 0
        if not repeated:
            told(ended)


def ended(study: optuna.Study) -> tuple[Trial, ...]:
    """All trials that were measured or given up, in order."""
    return tuple(_trial(each) for each in _of(study, TrialState.COMPLETE, TrialState.PRUNED) if not _repeats(each))


def _run(
    study: optuna.Study, asked: optuna.Trial, space: Space, judge: Judge, blocks: int, budget: DeviceBudget
) -> Trial:
    """One trial, told to the study."""
    begin = time.perf_counter()
    asked.set_user_attr("process", _process())
    seed = int.from_bytes(hashlib.sha256(f"{space.base.seed} {asked.number}".encode()).digest()[:4], "big")
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    choice = space.suggested(asked)
    asked.set_user_attr("chosen", True)
    found: list[Judged] = []
    why = _known(study, asked.number, choice, budget)
    try:
        while not why and len(found) < blocks:
            found.append(judge(choice, found[0] if found else None, len(found)))
            if len(found) == 1 and choice != space.default:
                why = budget.over(found[0].cost) or _beaten(found[0], ended(study))
    except TocsinError as error:  # a feature that is not for such a signal, a family that does not convert
        why = str(error)
    latency_us = min((each.cost.latency_us for each in found), default=0.0)  # whatever else ran only adds to it
    size = max((each.cost.bytes for each in found), default=0)
    detections = [each.detection for each in found]
    facts = {"detections": detections, "latency_us": latency_us, "bytes": size, "why": why}
    facts |= {"precision": found[0].precision if found else "", "seconds": time.perf_counter() - begin}
    for key, value in facts.items():
        asked.set_user_attr(key, value)
    if why:
        study.tell(asked, state=TrialState.PRUNED)
    else:
        study.tell(asked, (sum(detections) / blocks, latency_us, size))
    return _trial(next(each for each in study.get_trials(deepcopy=False) if each.number == asked.number))


def _beaten(first: Judged, others: tuple[Trial, ...]) -> str:
    """Why a trial is given up after the first block: another finds far more there, and costs no more."""
    for other in others:
        if other.complete and dominates(
            (other.detections[0] - BEATEN, other.cost.latency_us, other.cost.bytes),
            (first.detection, first.cost.latency_us, first.cost.bytes),
        ):
            return f"given up after one block: trial {other.number} finds {BEATEN:g} more there and costs no more"
    return ""


def _known(study: optuna.Study, number: int, choice: Choice, budget: DeviceBudget) -> str:
    """Which trial was the same; empty where none was. What was over another budget is none."""
    _await_choices(study, number)
    for each in study.get_trials(deepcopy=False):
        same = each.number != number and each.params == choice and not _repeats(each)
        before = each.state is not TrialState.RUNNING or each.number < number
        if same and before and each.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING):
            over_then = each.user_attrs.get("why", "").startswith(OVER)
            if not over_then or budget.over(_trial(each).cost):
                return f"the same as trial {each.number}"
    return ""


def _await_choices(study: optuna.Study, number: int) -> None:
    """Until the trials before this one, of other processes, have chosen all: they may choose the same just now."""
    end_s = time.monotonic() + CHOOSING_S
    while time.monotonic() < end_s:
        if all(each.number >= number or "chosen" in each.user_attrs for each in _of(study, TrialState.RUNNING)):
            return
        time.sleep(CHOOSING_S / 100)


def _mend(study: optuna.Study) -> None:
    """Trials of processes that are gone are queued again."""
    for each in _of(study, TrialState.RUNNING):
        if _gone(each):
            with suppress(optuna.exceptions.UpdateFinishedTrialError):  # another process was faster
                study.tell(each.number, state=TrialState.FAIL, skip_if_finished=True)
                if each.params:
                    study.enqueue_trial(_choice(each))


def _process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _gone(trial: FrozenTrial) -> bool:
    """Whether its process, of this host, has ended; of other hosts nothing is known."""
    host, _, pid = trial.user_attrs.get("process", "").rpartition(":")
    if not host:
        return trial.datetime_start is not None and datetime.now() - trial.datetime_start > timedelta(seconds=NEW_S)
    if host != socket.gethostname() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _of(study: optuna.Study, *states: TrialState, other: bool = False) -> Iterator[FrozenTrial]:
    """Trials of these states, or of all others."""
    return (each for each in study.get_trials(deepcopy=False) if (each.state in states) is not other)


def _counts(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING) and not _repeats(trial)


def _repeats(trial: FrozenTrial) -> bool:
    return str(trial.user_attrs.get("why", "")).startswith("the same as")


def _choice(trial: FrozenTrial) -> Choice:
    return dict(trial.params or trial.system_attrs.get("fixed_params", {}))


def _trial(trial: FrozenTrial) -> Trial:
    facts = trial.user_attrs
    model = str(trial.params.get("model", ""))
    return Trial(
        number=trial.number,
        choice=dict(trial.params),
        detections=tuple(facts.get("detections", ())),
        cost=Cost(model, int(facts.get("bytes", 0)), float(facts.get("latency_us", 0.0))),
        precision=str(facts.get("precision", "")),
        seconds=float(facts.get("seconds", 0.0)),
        why=str(facts.get("why", "")),
    )
