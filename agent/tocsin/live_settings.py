"""Settings that may be changed over MQTT while the agent runs: detection, and how sensitive it is.

```
set/detection    ON | OFF     ─► a mode of the device that suppresses the alarms of all models, and no others
set/sensitivity  0.25 … 4     ─► every limit is divided by it
        └─► state/<setting>, retained; kept over restarts in the outbox
```
Rules: off unless `mqtt.settings` names them, as they silence alarms. What is not a value changes nothing, and the state
is said again. Rules and quality of sensors go on whatever is set.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from typing import Literal

from tocsin.config import SettingName
from tocsin.delivery.outbox import Outbox
from tocsin.delivery.wire import HIGHEST, LOWEST, SET, STATE, SettingState, rfc3339

log = logging.getLogger(__name__)

Value = float | Literal["ON", "OFF"]


def read_value(name: str, payload: bytes) -> Value | None:
    """A value as it comes over MQTT; None for what is none.

    >>> read_value("detection", b"off"), read_value("sensitivity", b"1.5"), read_value("sensitivity", b"9")
    ('OFF', 1.5, None)
    """
    text = payload[:64].decode("ascii", "replace").strip().strip('"').upper()
    if name == "detection":
        return "ON" if text == "ON" else "OFF" if text == "OFF" else None
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) and LOWEST <= found <= HIGHEST else None


class LiveSettings:
    """The settings and what they do; `take` belongs to one thread.

    Args:
        allowed: what may be set.
        outbox: keeps the states.
        detect: called with whether models may raise alarms.
        be_sensitive: called with the sensitivity.
    """

    def __init__(
        self,
        allowed: tuple[SettingName, ...],
        outbox: Outbox,
        detect: Callable[[bool], None],
        be_sensitive: Callable[[float], None],
    ) -> None:
        self._allowed, self._outbox = allowed, outbox
        self._detect, self._be_sensitive = detect, be_sensitive

    def start(self) -> None:
        """What was set before a restart holds; what was never set is said."""
        for name in self._allowed:
            kept = self._outbox.latest(f"{STATE}{name}")
            value = None if kept is None else read_value(name, str(json.loads(kept)["value"]).encode())
            if value is None:
                value = "ON" if name == "detection" else 1.0
                self._say(name, value)
            self._apply(name, value)

    def take(self, topic: str, payload: bytes, retained: bool) -> None:
        """A message on `set/<setting>`.

        Args:
            topic: tail under the device.
            payload: the value.
            retained: an old one, which is left alone.
        """
        name = topic.removeprefix(SET)
        if retained or name not in self._allowed:
            log.warning("%s: not taken: %s", topic, "it was retained" if retained else "`mqtt.settings` names it not")
            return
        value = read_value(name, payload)
        if value is None:
            wanted = "ON or OFF" if name == "detection" else f"a number from {LOWEST:g} to {HIGHEST:g}"
            log.warning("%s: expected %s, got %r", topic, wanted, payload[:64])
            return
        log.info("%s is set to %s", name, value)
        self._say(name, value)
        self._apply(name, value)

    def _say(self, name: str, value: Value) -> None:
        self._outbox.put(f"{STATE}{name}", SettingState(value=value, time=rfc3339(time.time())).encode(), retain=True)

    def _apply(self, name: str, value: Value) -> None:
        if name == "detection":
            self._detect(value == "ON")
        else:
            self._be_sensitive(float(value))
