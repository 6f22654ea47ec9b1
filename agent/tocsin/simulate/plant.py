"""The plant as a whole: schedule, process, vibration and sensors, a step of 0.1 s at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tocsin.errors import ConfigError
from tocsin.records import Channel, Floats
from tocsin.simulate.faults import MACHINE, Fault, Faults, parse_fault
from tocsin.simulate.process import STEP_S, State, advance
from tocsin.simulate.vibration import SLOWEST_HZ, Vibration, acceleration_rms, amplitudes, velocity_rms

Mode = Literal["off", "start", "idle", "load"]
RATE_HZ = 1 / STEP_S
START_S = 20.0
IDLE_VALVE = 0.3
TURNING = 0.1  # part of the rated speed from which a fault of the machine shows
SENSORS = (  # channel, span, noise (standard deviation)
    (Channel("suction_pressure", "bar"), 1.0, 0.004),
    (Channel("discharge_pressure", "bar"), 8.0, 0.015),
    (Channel("flow", "m3/h"), 50.0, 0.12),
    (Channel("motor_current", "A"), 30.0, 0.06),
    (Channel("speed", "rpm"), 1500.0, 1.0),
    (Channel("motor_temperature", "°C"), 100.0, 0.08),
    (Channel("bearing_temperature", "°C"), 80.0, 0.08),
    (Channel("fluid_temperature", "°C"), 40.0, 0.05),
    (Channel("valve_position", "%"), 100.0, 0.15),
    (Channel("vibration", "mm/s"), 10.0, 0.03),
    (Channel("acceleration", "g"), 0.5, 0.0008),
)
CHANNELS = tuple(channel for channel, _, _ in SENSORS)
FAST_CHANNELS = (Channel("acceleration_x", "g"), Channel("acceleration_y", "g"))
NAMES = tuple(channel.name for channel in CHANNELS)


@dataclass(frozen=True, slots=True)
class Step:
    """What the sensors say of a tenth of a second.

    Attributes:
        time_s: epoch seconds of the slow channels' sample.
        values: (C,) of `CHANNELS`; NaN where a value dropped out.
        fast_time_s: (n,) of the vibration's samples.
        fast: (n, 2) of `FAST_CHANNELS`; n = 0 without vibration.
        mode: of the machine.
        faults: severity by name, of what shows: a fault of a machine that stands still does not.
    """

    time_s: float
    values: Floats
    fast_time_s: Floats
    fast: Floats
    mode: Mode
    faults: dict[str, float]


class Plant:
    """A pump that runs, and goes wrong when told.

    Args:
        seed: the same seed gives the same samples.
        start_s: epoch seconds of the first sample.
        vibration_hz: samples a second of the acceleration, at least 4000; 0 = none.
        always_load: no pauses: without them modes follow one another as in a working day.
        faults: planned, in the short form of `tocsin.simulate.faults`.

    Attributes:
        state: of the process, true values.
        faults: more can be commanded.

    Raises:
        ConfigError: a fault or the rate cannot be.
    """

    def __init__(
        self,
        seed: int = 0,
        start_s: float = 0.0,
        vibration_hz: float = 0.0,
        always_load: bool = False,
        faults: tuple[str, ...] = (),
    ) -> None:
        if vibration_hz and not SLOWEST_HZ <= vibration_hz <= 100_000:
            raise ConfigError(
                f"vibration at {vibration_hz:g} Hz: expected 4000 to 100000 samples a second, or 0 for none"
            )
        planned: tuple[Fault, ...] = tuple(parse_fault(text, NAMES) for text in faults)
        self.faults = Faults(planned, NAMES)
        plan, noise, sensors, sensor_faults, vibration = np.random.SeedSequence(seed).spawn(5)
        self._plan = _plan(np.random.default_rng(plan), always_load)
        self._noise, self._sensor_noise = np.random.default_rng(noise), np.random.default_rng(sensors)
        self._sensor_faults = np.random.default_rng(sensor_faults)
        self._vibration = Vibration(vibration_hz, vibration) if vibration_hz else None
        self._start_s, self._count = start_s, 0
        self._mode: Mode = "load"
        self._mode_until, self._valve, self._valve_until = 0.0, 0.7, 0.0
        self._wander = np.zeros(2)
        self._stuck: dict[str, float] = {}
        self._drift: dict[str, float] = {}
        self.state = State(1.0, 0.7, 40.0, 62.0, 38.0, 20.0)

    @property
    def now_s(self) -> float:
        """Seconds since the beginning of the run."""
        return self._count * STEP_S

    def step(self) -> Step:
        """The next tenth of a second."""
        now_s = self.now_s
        self._schedule(now_s)
        active = self.faults.active(now_s)
        normal = self._noise.standard_normal(4)
        self._wander += STEP_S / np.array([20.0, 600.0]) * (-self._wander) + normal[:2] * np.array([0.01, 0.003])
        ambient_c = 20 + 3 * math.sin(2 * math.pi * now_s / 86400) + float(self._wander[1])
        valve = min(1.0, max(0.05, self._valve + 0.1 * float(self._wander[0])))
        advance(self.state, self._mode != "off", valve, ambient_c, active, float(normal[2]), float(normal[3]))
        found = amplitudes(self.state, active)
        true = self._true(velocity_rms(found, self.state.shaft_hz), acceleration_rms(found, self.state.shaft_hz))
        values = self._measured(true, active, now_s)
        time_s = self._start_s + now_s
        fast_time_s, fast = np.empty(0), np.empty((0, len(FAST_CHANNELS)))
        if self._vibration is not None:
            rate = self._vibration.rate
            first, last = (math.ceil(n * STEP_S * rate - 1e-9) for n in (self._count, self._count + 1))
            fast_time_s = self._start_s + np.arange(first, last) / rate
            fast = self._vibration.samples(last - first, found, self.state.shaft_hz)
        self._count += 1
        turning = self.state.speed > TURNING
        shown = {name: severity for name, severity in active.items() if turning or name not in MACHINE}
        return Step(time_s, values, fast_time_s, fast, self._mode, shown)

    def _schedule(self, now_s: float) -> None:
        while now_s >= self._mode_until - 1e-9:
            self._mode, lasts_s = next(self._plan)
            self._mode_until += lasts_s
            self._valve_until = now_s
        if now_s >= self._valve_until - 1e-9:
            draw = self._noise.uniform(size=2)
            self._valve = 0.55 + 0.3 * float(draw[0]) if self._mode == "load" else IDLE_VALVE
            self._valve_until = now_s + 60 + 180 * float(draw[1])

    def _true(self, velocity: float, acceleration: float) -> Floats:
        s = self.state
        return np.array(
            [
                s.suction_bar, s.discharge_bar, s.delivered, s.current_a, 60 * s.shaft_hz, s.winding_c, s.bearing_c,
                s.fluid_c, 100 * s.valve, velocity, acceleration,
            ]
        )  # fmt: skip

    def _measured(self, true: Floats, active: dict[str, float], now_s: float) -> Floats:
        """With the sensors' noise and faults."""
        noise = self._sensor_noise.standard_normal(len(SENSORS))
        values: Floats = true + noise * _NOISE
        values[-2:] *= 1 + 0.03 * noise[-2:]  # an rms over a short time is itself uncertain
        for name in [name for name in self._stuck if name not in active]:
            del self._stuck[name]
        for name in [name for name in self._drift if name not in active]:
            del self._drift[name]
        for name, severity in active.items():
            kind, _, channel = name.partition(".")
            if channel:
                place = NAMES.index(channel)
                values[place] = self._wrong(kind, name, severity, float(values[place]), SENSORS[place][1])
        return values

    def _wrong(self, kind: str, name: str, severity: float, value: float, span: float) -> float:
        draw = self._sensor_faults
        match kind:
            case "stuck":
                return self._stuck.setdefault(name, value)
            case "drift":
                self._drift[name] = self._drift.get(name, 0.0) + severity * span * 0.1 * STEP_S / 60
                return value + self._drift[name]
            case "dropout":
                return math.nan if draw.random() < severity else value
            case "spikes":
                far = draw.random() < 0.02 + 0.05 * severity
                return value + float(far) * span * float(draw.choice((-1, 1)) * draw.uniform(0.3, 0.6))
            case "offset":
                return value + severity * span / 3
            case _:
                return value + severity * span / 10 * float(draw.standard_normal())


_NOISE = np.array([noise for _, _, noise in SENSORS])


def _plan(draw: np.random.Generator, always_load: bool) -> Iterator[tuple[Mode, float]]:
    """Modes and how many seconds each lasts, without end: idle in every cycle, off and start in every third."""
    cycle = 0
    while True:
        minutes = draw.uniform((10, 2, 2), (25, 5, 5))
        yield "load", 60.0 * round(float(minutes[0]), 1)
        if always_load:
            continue
        yield "idle", 60.0 * round(float(minutes[1]), 1)
        cycle += 1
        if cycle % 3 == 0:
            yield "off", 60.0 * round(float(minutes[2]), 1)
            yield "start", START_S
