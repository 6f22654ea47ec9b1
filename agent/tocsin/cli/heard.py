"""What was heard of a source, and the channels that it becomes: for `tocsin init`."""

import re
from dataclasses import dataclass
from typing import Any

from tocsin.errors import SourceError
from tocsin.records import Channel

FEW = 10  # samples, too few to tell a rate
ROUND = 0.03  # a rate is a round number where it is so close to one: boards send at 50 or 62.5, not at 49.8
TIMES = {"time", "timestamp", "ts", "datetime", "t"}


@dataclass(frozen=True, slots=True)
class Heard:
    """What came.

    Attributes:
        told: in a line, for the user.
        settings: keys of the source that were found out.
        count: values a sample; where they have no names.
        channels: with the keys that each needs in the settings; empty where they have no names.
        rate_hz: samples a second, None where it cannot be told.
    """

    told: str
    settings: dict[str, Any]
    count: int
    channels: tuple[dict[str, Any], ...]
    rate_hz: float | None


def name_of(text: str) -> str:
    """A channel's name made of any text.

    >>> name_of("Motor Temp.°C"), name_of("3rd axis")
    ('motor_temp_c', 'c_3rd_axis')
    """
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return name if name[:1].isalpha() else f"c_{name}".rstrip("_")


def round_rate(rate_hz: float) -> float:
    """A round number where the rate is close to one."""
    whole = float(f"{rate_hz:.2g}")
    return whole if abs(rate_hz / whole - 1) < ROUND else float(f"{rate_hz:.4g}")


def free_name(name: str, taken: list[str]) -> str:
    """The name, with a number where it is taken."""
    n = 2
    free = name
    while free in taken:
        free, n = f"{name}_{n}", n + 1
    return free


def wanted_of(heard: Heard, wanted: tuple[Channel, ...]) -> list[dict[str, Any]]:
    """The channels for the settings: those that are wanted, by name, or by place where what came has no names.

    Raises:
        SourceError: one is not there, or there are more or fewer numbers than names.
    """
    if not heard.channels:
        if wanted and len(wanted) != heard.count:
            raise SourceError(
                f"{heard.told}, but {len(wanted)} channels are wanted ({', '.join(each.name for each in wanted)}): "
                "name all that comes, in its order, with --channel"
            )
        named = wanted or tuple(Channel(f"c{n}") for n in range(1, heard.count + 1))
        return [{"name": each.name, "unit": each.unit} for each in named]
    if not wanted:
        return list(heard.channels)
    there = {each["name"]: each for each in heard.channels}
    missing = [each.name for each in wanted if each.name not in there]
    if missing:
        raise SourceError(f"{', '.join(missing)} did not come: there are {', '.join(sorted(there)[:40])}")
    return [{**there[each.name], "unit": each.unit} for each in wanted]
