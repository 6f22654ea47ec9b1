"""Commands over MQTT: a request on `cmd/<command>` → the alarm desk → a reply.

```
cmd/ack          {"transaction": "7", "alarm": "pump-1-anomaly", "by": "ann"}     or just: pump-1-anomaly
cmd/ack/result   {"transaction": "7", "status": "ok", "data": {"alarms": {"pump-1-anomaly": "acked"}, "changed": 1}, …}
```
Rules: only a whole, allowed request changes anything; every other gets a reply that says what was expected, what came
and what to do. `ok` is said when what was done is on the disk. A request whose transaction came before is answered as
that one was, and not done again. A retained request is refused: the broker would repeat it at every connect. There is
a bound on requests a minute.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Literal

from pydantic import Field, ValidationError

from tocsin.alarms.alarm import AlarmState
from tocsin.alarms.commands import Answer, Command
from tocsin.alarms.lifecycle import Event
from tocsin.delivery.wire import Count, Wire
from tocsin.settings import Seconds

MAX_REQUEST = 4096  # bytes
MAX_KNOWN = 256  # transactions whose replies are kept
NOT_YET = ("feedback", "calibrate", "record", "snapshot", "check_update", "model_rollback", "diag", "reload")

Say = Callable[[bytes], object]


class Request(Wire):
    """What every request may have."""

    transaction: str | None = Field(
        None, min_length=1, max_length=64, description="comes back in the reply; a repeated one is not done again"
    )
    by: str = Field("mqtt", min_length=1, max_length=64, description="who asks, for the audit")


class AlarmRequest(Request):
    """Of one alarm; instead of the JSON object, its id alone will do."""

    alarm: str = Field(min_length=1, max_length=256, description="id of the alarm; for `ack` also `all`")
    id: str | None = Field(
        None, max_length=64, description="the occurrence that was seen: nothing is done if it is over"
    )
    comment: str | None = Field(None, max_length=1000, description="goes with the alarm and into the audit")


class ShelveRequest(AlarmRequest):
    """An alarm that need not call for a while."""

    for_: Seconds = Field(alias="for", gt=0, description="seconds, or 30min, 8h, …")


class ReplyError(Wire):
    """Why nothing was done."""

    code: str = Field(
        description="bad_request, too_large, retained, rate_limited, unknown_command, not_supported, not_allowed, "
        "unknown_alarm, over, held_back, invalid, too_long or failed"
    )
    text: str = Field(description="for people: what was expected, what came, what to do")


class ReplyData(Wire):
    """What was done."""

    alarms: dict[str, AlarmState] = Field({}, description="id → the state that it is in now")
    changed: Count = Field(0, description="alarms that changed; 0 where all was so already")
    device: str | None = Field(None, description="of `identify`")
    commands: list[str] = Field([], description="of `identify`: those that are allowed")


class Reply(Wire):
    """What became of a request, on `cmd/<command>/result` and on the response topic of MQTT 5."""

    transaction: str | None
    status: Literal["ok", "error"]
    data: ReplyData
    error: ReplyError | None = Field(None, description="null where the status is ok")


REQUESTS: dict[str, type[Request]] = {
    "ack": AlarmRequest,
    "shelve": ShelveRequest,
    "unshelve": AlarmRequest,
    "suppress": AlarmRequest,
    "unsuppress": AlarmRequest,
    "out_of_service": AlarmRequest,
    "in_service": AlarmRequest,
    "identify": Request,
}


class RequestError(Exception):
    """A request that cannot be taken: code, text, and its transaction where one could be read."""

    def __init__(self, code: str, text: str, transaction: str | None = None) -> None:
        super().__init__(text)
        self.code, self.text, self.transaction = code, text, transaction

    def reply(self) -> bytes:
        """What the one who asked is told."""
        error = ReplyError(code=self.code, text=self.text)
        return Reply(transaction=self.transaction, status="error", data=ReplyData(), error=error).encode()


def decode(command: str, payload: bytes) -> Request:
    """A request, checked.

    Args:
        command: last level of the topic.
        payload: a JSON object, or one word: the alarm's id.

    Raises:
        RequestError: no such command, or not what it expects.
    """
    kind = REQUESTS.get(command)
    if len(payload) > MAX_REQUEST:
        raise RequestError("too_large", f"{len(payload)} bytes came: a request has at most {MAX_REQUEST}")
    form = _form(payload, kind or AlarmRequest)
    transaction = form.get("transaction")
    if not isinstance(transaction, str) or not 0 < len(transaction) <= 64:
        transaction = None
    if kind is None:
        if command in NOT_YET:
            raise RequestError("not_supported", f"{command} is not in this version of the agent", transaction)
        there = ", ".join(REQUESTS)
        raise RequestError("unknown_command", f"no command {command[:64]!r}: there are {there}", transaction)
    try:
        return kind.model_validate(form)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        at = ".".join(map(str, wrong["loc"]))[:64]
        keys = ", ".join(field.alias or name for name, field in kind.model_fields.items())
        message = wrong["msg"].removeprefix("Value error, ")
        raise RequestError("bad_request", f"{command}: {at}: {message}; its keys are {keys}", transaction) from error


def _form(payload: bytes, kind: type[Request]) -> dict[str, object]:
    """The object that was sent, whole or as a word."""
    expected = "expected a JSON object" + (", or an alarm's id" if "alarm" in kind.model_fields else "")
    try:
        text = payload.decode().strip()
        if re.fullmatch(r"[\w.:-]+", text) and "alarm" in kind.model_fields:
            return {"alarm": text}
        form = json.loads(text) if text else {}
        json.dumps(form, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise RequestError("bad_request", f"{expected}, got {payload[:40]!r}") from error
    if not isinstance(form, dict):
        raise RequestError("bad_request", f"{expected}, got {text[:40]!r}")
    return form


class Requests:
    """Takes requests in, has them carried out, and says what became of them.

    Args:
        device: id, for `identify`.
        allowed: names of commands.
        per_minute: requests that are taken; as many at once.
        order: hands a command to the desk, with what is to be told its answer.
    """

    def __init__(
        self,
        device: str,
        allowed: Collection[str],
        per_minute: int,
        order: Callable[[Command, Callable[[Answer], object]], object],
    ) -> None:
        self._device, self._order = device, order
        self.allowed = tuple(name for name in REQUESTS if name in allowed)
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._looked_s: float | None = None
        self._known: OrderedDict[tuple[str, str], bytes | list[Say]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, command: str, payload: bytes, retained: bool, now_s: float, say: Say) -> None:
        """One request, from the thread of the connection.

        Args:
            command: last level of its topic.
            payload: as it came.
            retained: the broker had kept it.
            now_s: monotonic seconds.
            say: told the reply, once, from this thread or the desk's; must not block.
        """
        try:
            if retained:
                raise RequestError(
                    "retained", f"{command[:64]}: a command must not be retained: send it without, and clear it"
                )
            left = self._spend(now_s)
            request = decode(command, payload)
            if not left:
                text = f"more than {self._per_minute} requests a minute: send it again later"
                raise RequestError("rate_limited", text, request.transaction)
            if command not in self.allowed:
                there = ", ".join(self.allowed) or "none"
                text = f"{command} is not allowed here: `mqtt.commands` allows {there}"
                raise RequestError("not_allowed", text, request.transaction)
        except RequestError as error:
            say(error.reply())
            return
        if self._is_known(command, request, say):
            return
        if isinstance(request, AlarmRequest):
            self._order(_command(command, request), lambda answer: self._done(command, request, answer, say))
        else:
            data = ReplyData(device=self._device, commands=list(self.allowed))
            self._tell(command, Reply(transaction=request.transaction, status="ok", data=data), say)

    def _spend(self, now_s: float) -> bool:
        """Takes one of the requests that are left, where one is; they come back with time."""
        back = 0.0 if self._looked_s is None else (now_s - self._looked_s) * self._per_minute / 60
        self._left, self._looked_s = min(self._left + back, float(self._per_minute)), now_s
        left = self._left >= 1
        self._left -= left
        return left

    def _is_known(self, command: str, request: Request, say: Say) -> bool:
        """A transaction that came before: its reply is said again, now or when it is there."""
        if request.transaction is None:
            return False
        with self._lock:
            known = self._known.get((command, request.transaction))
            if known is None:
                self._known[command, request.transaction] = []
                if len(self._known) > MAX_KNOWN:
                    self._known.popitem(last=False)
                return False
            if isinstance(known, list):
                known.append(say)
                return True
        say(known)
        return True

    def _done(self, command: str, request: Request, answer: Answer, say: Say) -> None:
        refusal = answer.refusal
        error = None if refusal is None else ReplyError(code=refusal.code, text=refusal.text)
        data = ReplyData(alarms=answer.states, changed=answer.changed)
        reply = Reply(transaction=request.transaction, status="error" if error else "ok", data=data, error=error)
        self._tell(command, reply, say)

    def _tell(self, command: str, reply: Reply, say: Say) -> None:
        payload = reply.encode()
        waiting: list[Say] = []
        if reply.transaction is not None:
            with self._lock:
                known = self._known.get((command, reply.transaction))
                if isinstance(known, list):
                    waiting = known
                    self._known[command, reply.transaction] = payload
        for one in (say, *waiting):
            one(payload)


def _command(name: str, request: AlarmRequest) -> Command:
    for_s = request.for_ if isinstance(request, ShelveRequest) else None
    return Command(Event(name), request.alarm, request.by, request.comment, for_s, request.id)
