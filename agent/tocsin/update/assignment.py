"""Who gets which signed bundle: the document that the roll-out signs, and a device's place in it.

Rules: pure. A device finds its place by a hash of its id and the roll-out's, so that rings are the same whoever looks,
and another roll-out begins with other devices. The document chooses among signed bundles and never makes one.
"""

import hashlib
import re
from datetime import datetime
from typing import Literal, Self

from pydantic import Field, ValidationError, field_validator

from tocsin.errors import TrustError
from tocsin.settings import Settings

WHOLE = 10_000  # parts of the fleet
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class Assignment(Settings):
    """What the roll-out says of one product."""

    model_config = Settings.model_config | {"extra": "ignore"}

    format: Literal[1] = 1
    rollout: str = Field(pattern=r"^[a-z0-9-]{1,64}$", description="its id")
    target: str = Field(pattern=r"^models/[a-z0-9-]{1,64}/[\w.+-]{1,128}\.tocsin$")
    state: Literal["running", "halted", "rolled_back"] = "running"
    share: int = Field(0, ge=0, le=WHOLE, description="of the fleet, in ten-thousandths")
    devices: tuple[str, ...] = Field((), max_length=1000, description="that get it whatever their place is")
    jitter_s: float = Field(0.0, ge=0, le=86_400, description="a device starts within this time, by its place")
    start_window: str | None = Field(None, description="local time in which a device may start, such as 22:00-05:00")

    @field_validator("start_window")
    @classmethod
    def _is_a_window(cls, value: str | None) -> str | None:
        if value is not None and not _WINDOW.fullmatch(value):
            raise ValueError("expected two times, such as 22:00-05:00")
        return value

    @classmethod
    def read(cls, content: bytes) -> Self:
        """From the signed file.

        Raises:
            TrustError: it is none.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise TrustError(f"the assignment cannot be read: {where}: {first['msg']}") from error

    def place(self, device: str) -> int:
        """Of a device, 0 to 9,999: it is in the roll-out once `share` is above."""
        digest = hashlib.sha256(f"{self.rollout}/{device}".encode()).digest()
        return int.from_bytes(digest[:8], "big") % WHOLE

    def includes(self, device: str) -> bool:
        """The device is to have the target."""
        return device in self.devices or self.place(device) < self.share

    def may_start(self, device: str, seen_s: float, now_s: float) -> bool:
        """The device may begin now.

        Args:
            device: its id.
            seen_s: when it first saw that it is included, epoch seconds.
            now_s: epoch seconds.
        """
        if self.state != "running" or not self.includes(device):
            return False
        waited = now_s - seen_s >= self.jitter_s * self.place(device) / WHOLE or now_s < seen_s
        return waited and self._in_window(now_s)

    def _in_window(self, now_s: float) -> bool:
        if self.start_window is None:
            return True
        found = _WINDOW.fullmatch(self.start_window)
        assert found is not None
        begin, end = (60 * int(found[n]) + int(found[n + 1]) for n in (1, 3))
        local = datetime.fromtimestamp(now_s)
        minute = 60 * local.hour + local.minute
        return begin <= minute < end if begin <= end else minute >= begin or minute < end
