"""Modbus registers: what the settings say of them, which requests read them, and what the answers mean.

Rules: addresses count from 0 as on the wire (the 40001 of a manual is function 3, address 0). A register is 16 bits,
the more significant byte first; wider values take two or four in a row, in the order that `order` names by the bytes
of a 32-bit value: ABCD, CDAB (words swapped), BADC (bytes swapped), DCBA (both).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from tocsin.records import Channel
from tocsin.settings import ScaledChannelSettings

MOST_REGISTERS, MOST_BITS = 125, 2000  # of one request, by the standard
BITS = (1, 2)  # functions that read single bits
FORMS = {
    "bool": ">u2",
    "int16": ">i2",
    "uint16": ">u2",
    "int32": ">i4",
    "uint32": ">u4",
    "int64": ">i8",
    "uint64": ">u8",
    "float32": ">f4",
    "float64": ">f8",
}
Form = Literal["bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
Order = Literal["ABCD", "CDAB", "BADC", "DCBA"]


class RegisterSettings(ScaledChannelSettings):
    """One value of a slave: engineering units are raw × scale + offset."""

    address: int = Field(ge=0, le=65535, description="of its first register, counted from 0")
    type: Form = Field("uint16", description="64-bit integers are exact up to 2⁵³")
    order: Order = Field("ABCD", description="of the bytes; ABCD and CDAB are the same for 16 bits")
    function: Literal[1, 2, 3, 4] = Field(
        3, description="1 coils, 2 discrete inputs, 3 holding registers, 4 input registers"
    )
    bit: int | None = Field(None, ge=0, le=15, description="of a register, for bool; any bit counts when left out")

    @model_validator(mode="after")
    def _fits(self) -> "RegisterSettings":
        if (self.function in BITS) != (self.type == "bool") and self.function in BITS:
            raise ValueError(f"type: function {self.function} gives bits: expected bool, got {self.type}")
        if self.bit is not None and (self.type != "bool" or self.function in BITS):
            raise ValueError("bit: only for type bool of function 3 or 4")
        if self.address + self.width > 65536:
            raise ValueError(f"address: a {self.type} at {self.address} ends past 65535")
        return self

    @property
    def width(self) -> int:
        """Registers (or bits) that it takes."""
        return 1 if self.function in BITS else max(1, np.dtype(FORMS[self.type]).itemsize // 2)


@dataclass(frozen=True, slots=True)
class Request:
    """One reading of registers in a row.

    Attributes:
        function: 1 to 4.
        address: of the first.
        count: registers, or bits.
        values: (column, register) of each value inside.
    """

    function: int
    address: int
    count: int
    values: tuple[tuple[int, RegisterSettings], ...]

    def decode(self, answer: Sequence[int]) -> list[tuple[int, float]]:
        """(column, value in engineering units) of each value; NaN where the slave says NaN.

        Args:
            answer: `count` registers 0 to 65535, or bits.
        """
        words = np.asarray(answer[: self.count], np.uint16)
        return [(column, _value(one, words[one.address - self.address :][: one.width])) for column, one in self.values]


def _value(register: RegisterSettings, words: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> float:
    if register.type == "bool":
        raw: float = bool(words[0] if register.bit is None else words[0] >> register.bit & 1)
    else:
        swapped = words.byteswap() if register.order in ("BADC", "DCBA") else words
        ordered = swapped[::-1] if register.order in ("CDAB", "DCBA") else swapped
        raw = float(np.frombuffer(ordered.astype(">u2").tobytes(), FORMS[register.type])[0])
    value = raw * register.scale + register.offset
    return value if np.isfinite(value) else float("nan")


def plan(registers: Iterable[tuple[int, RegisterSettings]], largest_gap: int) -> list[Request]:
    """The fewest requests that read all registers.

    Args:
        registers: (column, register).
        largest_gap: registers that nobody wants, read along rather than asked around.
    """
    requests: list[Request] = []
    for function in (1, 2, 3, 4):
        limit = MOST_BITS if function in BITS else MOST_REGISTERS
        group: list[tuple[int, RegisterSettings]] = []
        begin = end = 0
        for column, one in sorted(registers, key=lambda pair: pair[1].address):
            if one.function != function:
                continue
            stop = max(end, one.address + one.width)
            if group and (one.address - end > largest_gap or stop - begin > limit):
                requests.append(Request(function, begin, end - begin, tuple(group)))
                group = []
            if not group:
                begin, stop = one.address, one.address + one.width
            group.append((column, one))
            end = stop
        if group:
            requests.append(Request(function, begin, end - begin, tuple(group)))
    return requests


def channels_of(registers: Iterable[RegisterSettings]) -> tuple[Channel, ...]:
    """One a register."""
    return tuple(register.channel() for register in registers)
