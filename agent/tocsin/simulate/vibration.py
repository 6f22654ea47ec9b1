"""The fast side: what shakes the bearing's housing, as amplitudes, and as samples where they are wanted.

```
orders of the shaft    sines: imbalance 1×, misalignment 2× 3×, looseness ½× … 6×, vanes 5×
defect of the bearing  impulses at its frequency, 1 % irregular, each rings a resonance of the housing
cavitation, flow       noise
```
Accelerations in g. Randall and Antoni (2011) for the impulses' irregularity and their modulation by the load.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tocsin.records import Floats
from tocsin.simulate.bearing import DRIVE_END
from tocsin.simulate.process import RATED_FLOW, State

VANES = 5
LINE_HZ = 100.0  # twice the mains': the motor's magnetic pull
RESONANCE_HZ, DAMPING = 1450.0, 0.03
SLIP = 0.01  # of the spacing of impulses
GRAVITY = 9810.0  # mm/s²
SLOWEST_HZ = 4000.0  # of the samples: the resonance and its sidebands fit below half of it
DEFECTS = {  # impulses in a turn of the shaft, and the order that modulates them
    "bearing": (DRIVE_END.bpfo, 0.0),
    "bearing_inner": (DRIVE_END.bpfi, 1.0),
    "bearing_ball": (2 * DRIVE_END.bsf, DRIVE_END.ftf),
    "bearing_cage": (DRIVE_END.ftf, 0.0),
}
LOOSE = {0.5: 0.02, 1: 0.04, 1.5: 0.03, 2: 0.05, 2.5: 0.03, 3: 0.05, 4: 0.04, 5: 0.03, 6: 0.03}


@dataclass(frozen=True, slots=True)
class Amplitudes:
    """What shakes the housing now.

    Attributes:
        orders: peak in g by multiple of the shaft's frequency.
        line: peak in g at `LINE_HZ`.
        noise: rms in g.
        impulses: peak in g of each ringing, by kind of defect.
    """

    orders: dict[float, float]
    line: float
    noise: float
    impulses: dict[str, float]


def amplitudes(state: State, faults: Mapping[str, float]) -> Amplitudes:
    """What the plant's state and faults make of the vibration."""
    turning = state.speed**2
    load = state.flow / RATED_FLOW
    orders: dict[float, float] = {1: 0.05, 2: 0.015, 3: 0.008, VANES: 0.015 + 0.02 * load}
    for kind, added in (
        ("imbalance", {1: 0.15}),
        ("misalignment", {1: 0.03, 2: 0.12, 3: 0.05}),
        ("looseness", LOOSE),
    ):
        severity = faults.get(kind, 0.0)
        if severity:
            for order, amplitude in added.items():
                orders[order] = orders.get(order, 0.0) + severity * amplitude
    noise = 0.003 + turning * math.hypot(
        0.02 + 0.01 * load, 0.25 * faults.get("cavitation", 0.0), 0.03 * faults.get("leakage", 0.0)
    )
    return Amplitudes(
        orders={order: turning * amplitude for order, amplitude in orders.items()},
        line=0.01 if state.electric_w > 0 else 0.0,
        noise=noise,
        impulses={kind: 0.8 * turning * faults[kind] for kind in DEFECTS if faults.get(kind, 0.0) > 0},
    )


def velocity_rms(found: Amplitudes, shaft_hz: float) -> float:
    """Velocity in mm/s rms as a transmitter to ISO 20816 gives it: of the sines from 10 to 1000 Hz."""
    square = 0.1**2 * min(1.0, shaft_hz)
    for order, amplitude in found.orders.items():
        hz = order * shaft_hz
        if 10.0 <= hz <= 1000.0:
            square += (amplitude * GRAVITY / (2 * math.pi * hz)) ** 2 / 2
    if found.line:
        square += (found.line * GRAVITY / (2 * math.pi * LINE_HZ)) ** 2 / 2
    return math.sqrt(square)


def acceleration_rms(found: Amplitudes, shaft_hz: float) -> float:
    """Acceleration in g rms above 1 kHz: noise, and the ringing A e^(−ζωt) sin ωt, whose energy is A²/(4ζω)."""
    square = found.noise**2
    for kind, amplitude in found.impulses.items():
        square += DEFECTS[kind][0] * shaft_hz * amplitude**2 / (4 * DAMPING * 2 * math.pi * RESONANCE_HZ)
    return math.sqrt(square)


class Vibration:
    """Makes samples of two radial directions, unbroken over its calls.

    Args:
        rate_hz: samples a second, at least `SLOWEST_HZ`.
        seed: of phases and noise.
    """

    def __init__(self, rate_hz: float, seed: np.random.SeedSequence) -> None:
        self.rate = rate_hz
        noise, fault = seed.spawn(2)
        self._noise, self._fault = np.random.default_rng(noise), np.random.default_rng(fault)
        self._phase = {order: self._noise.uniform(0, 2 * math.pi, 2) for order in sorted({1, 2, 3, VANES, *LOOSE})}
        self._phase[1] = np.array([0.0, math.pi / 2])  # the shaft's orbit
        ring_s = 7.0 / (DAMPING * 2 * math.pi * RESONANCE_HZ)
        at = np.arange(round(ring_s * rate_hz)) / rate_hz
        self._ring = np.exp(-DAMPING * 2 * math.pi * RESONANCE_HZ * at) * np.sin(2 * math.pi * RESONANCE_HZ * at)
        self._tail = np.zeros(len(self._ring))
        self._turns = 0.0
        self._done = 0
        self._next = dict.fromkeys(DEFECTS, 0.0)

    def samples(self, count: int, found: Amplitudes, shaft_hz: float) -> Floats:
        """(count, 2) the next samples, in g."""
        turns = self._turns + np.arange(count) / self.rate * shaft_hz
        at_s = (self._done + np.arange(count)) / self.rate
        out = found.noise * self._noise.standard_normal((count, 2))
        for order, amplitude in found.orders.items():
            out += amplitude * np.sin(2 * math.pi * order * turns[:, None] + self._phase[order])
        if found.line:
            out += (found.line * np.sin(2 * math.pi * LINE_HZ * at_s))[:, None]
        until = self._turns + count / self.rate * shaft_hz
        out += np.outer(self._ringing(count, until, found, shaft_hz), (1.0, 0.7))
        self._turns, self._done = until, self._done + count
        return out

    def _ringing(self, count: int, until: float, found: Amplitudes, shaft_hz: float) -> Floats:
        """(count,) what impulses of this and of earlier calls make the housing ring."""
        buffer = np.zeros(count + len(self._ring))
        buffer[: len(self._tail)] += self._tail
        for kind, amplitude in found.impulses.items():
            rate, modulation = DEFECTS[kind]
            place = max(self._next[kind], self._turns)
            while place < until:
                depth = 1.0 if not modulation else 0.55 + 0.45 * math.cos(2 * math.pi * modulation * place)
                first = min(count - 1, int((place - self._turns) / shaft_hz * self.rate))
                buffer[first : first + len(self._ring)] += amplitude * depth * self._ring
                place += max(0.5, 1 + SLIP * self._fault.standard_normal()) / rate
            self._next[kind] = place
        self._tail = buffer[count:].copy()
        return buffer[:count]
