"""What happens to an update: a table, state × outcome → state.

```
 available ─► downloading ─► verifying ─► smoke ─► shadow ─► swapping ─► trial ─► committing ─► succeeded
      │            │             │          │         │          └────────┬┴────────────┘
      └─ cancelled ┴─ failed     └ rejected ┴─────────┘                   └─► rolling_back ─► rolled_back
```
Rules: pure. A state is on the disk before anything of it is done, and all that is done in a state can be done again: a
kill anywhere goes on where it was. At most 28 transitions: what goes round in circles ends, before the swap as
`failed`, after it as `rolled_back`. From the swap on there is no way out but `succeeded` and `rolled_back`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

MOST_TRANSITIONS = 28


class State(StrEnum):
    """Of an update; also what `job/<id>` says."""

    AVAILABLE = "available"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    SMOKE = "smoke"
    SHADOW = "shadow"
    SWAPPING = "swapping"
    TRIAL = "trial"
    COMMITTING = "committing"
    ROLLING_BACK = "rolling_back"
    SUCCEEDED = "succeeded"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """What came of a state's work."""

    DONE = "done"
    AGAIN = "again"  # something broke that may mend itself
    REFUSED = "refused"  # it will never do
    CANCEL = "cancel"  # another one is wanted
    WAIT = "wait"  # for the agent


ENDS = frozenset({State.SUCCEEDED, State.ROLLED_BACK, State.FAILED, State.REJECTED, State.CANCELLED})
SWAPPED = frozenset({State.SWAPPING, State.TRIAL, State.COMMITTING, State.ROLLING_BACK})

TABLE: Mapping[State, Mapping[Outcome, State]] = {
    State.AVAILABLE: {Outcome.DONE: State.DOWNLOADING, Outcome.CANCEL: State.CANCELLED},
    State.DOWNLOADING: {
        Outcome.DONE: State.VERIFYING,
        Outcome.AGAIN: State.DOWNLOADING,
        Outcome.REFUSED: State.REJECTED,
        Outcome.CANCEL: State.CANCELLED,
    },
    State.VERIFYING: {
        Outcome.DONE: State.SMOKE,
        Outcome.AGAIN: State.DOWNLOADING,
        Outcome.REFUSED: State.REJECTED,
        Outcome.CANCEL: State.CANCELLED,
    },
    State.SMOKE: {Outcome.DONE: State.SHADOW, Outcome.REFUSED: State.FAILED, Outcome.CANCEL: State.CANCELLED},
    State.SHADOW: {Outcome.DONE: State.SWAPPING, Outcome.REFUSED: State.FAILED, Outcome.CANCEL: State.CANCELLED},
    State.SWAPPING: {Outcome.DONE: State.TRIAL, Outcome.REFUSED: State.ROLLING_BACK},
    State.TRIAL: {Outcome.DONE: State.COMMITTING, Outcome.REFUSED: State.ROLLING_BACK},
    State.COMMITTING: {Outcome.DONE: State.SUCCEEDED},
    State.ROLLING_BACK: {Outcome.DONE: State.ROLLED_BACK},
}


@dataclass(frozen=True, slots=True)
class Job:
    """One update of one asset.

    Attributes:
        id: of the job.
        asset: id.
        product: kind of machine.
        rollout: that asked for it; empty where an operator did.
        target: path in the repository.
        sha256: of the bundle.
        length: bytes.
        counter: its release counter.
        version: of the bundle, for people.
        notes: what is new, for people.
        state: where it stands.
        before: sha256 of what was current when it began; empty: the factory's.
        since_s: epoch seconds at which the state began.
        transitions: so far.
        reason: why it ended, or tries again.
    """

    id: str
    asset: str
    product: str
    rollout: str
    target: str
    sha256: str
    length: int
    counter: int
    version: str
    notes: str = ""
    state: State = State.AVAILABLE
    before: str = ""
    since_s: float = 0.0
    transitions: int = 0
    reason: str = ""

    @property
    def over(self) -> bool:
        """It has ended."""
        return self.state in ENDS


def advance(job: Job, outcome: Outcome, reason: str, now_s: float) -> Job:
    """The job after its state's work.

    Args:
        job: not over.
        outcome: what came of it.
        reason: for people.
        now_s: epoch seconds.
    """
    state = TABLE[job.state].get(outcome)
    if state is None:
        return job
    if state is job.state:  # the same once more is no step: what is cut by a poor link may be cut often
        return replace(job, reason=reason)
    transitions = job.transitions + 1
    if transitions >= MOST_TRANSITIONS and state not in ENDS:
        if state not in SWAPPED:
            state, reason = State.FAILED, f"given up after {transitions} steps: {reason or state}"
        elif state in (State.SWAPPING, State.TRIAL):
            state, reason = State.ROLLING_BACK, f"given up after {transitions} steps: {reason or state}"
    return replace(job, state=state, reason=reason or job.reason, since_s=now_s, transitions=transitions)
