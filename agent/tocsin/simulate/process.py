"""The slow side: hydraulics, power and heat as first-order differential equations, a step of 0.1 s at a time.

```
valve, speed            approach what is asked of them with a lag
inertia · dQ/dt       = p_suction + pump(Q, speed) − p_discharge(Q − leak, valve)
capacity · dT/dt      = loss − (T − T_around) / resistance                 winding, bearing, fluid
```
Flow in m³/h, pressure in bar (gauge), power in W, temperature in °C, speed as a part of the rated one. The step is
implicit in the flow's own resistance, so that it is stable where the valve closes. Gülich, "Centrifugal Pumps", for the
forms of the curves and the affinity laws.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

STEP_S = 0.1
RATED_HZ = 25.0  # four poles on 50 Hz
SHUT_OFF_BAR, PUMP_DROP = 6.0, 6.25e-4  # the pump's curve, bar and bar/(m³/h)²
TANK_BAR, SUCTION_DROP = 0.3, 1.25e-4
STATIC_BAR, PIPE_DROP, RATED_VALVE = 1.0, 2.5625e-3, 0.7
RATED_FLOW = 40.0
INERTIA = 0.2  # bar s/(m³/h): a lag of about a second
LEAK = 2.7  # m³/h/√bar at severity 1
NO_LOAD_W, FRICTION_W, RATED_W = 400.0, 150.0, 11_000.0
MOTOR_EFFICIENCY, MOTOR_LOSS_W = 0.9, 200.0
VOLT, POWER_FACTOR, MAGNETISING_A, INRUSH_A = 400.0, 0.95, 7.0, 70.0
BEARING_KINDS = ("bearing", "bearing_inner", "bearing_ball", "bearing_cage")


@dataclass(slots=True)
class State:
    """What the plant remembers, and what follows from it.

    Attributes:
        speed: part of the rated one, without slip.
        valve: opening, 0 to 1.
        flow: through the pump.
        winding_c: temperature of the motor, with `bearing_c`, `fluid_c`.
        leak: of the flow, lost before the meter.
        suction_bar: at the pump's inlet, with `discharge_bar` behind it.
        hydraulic_w: given to the fluid; `shaft_w` to the pump, `electric_w` taken by the motor.
        current_a: of one phase.
        shaft_hz: turns a second, slip included.
    """

    speed: float = 0.0
    valve: float = 0.25
    flow: float = 0.0
    winding_c: float = 20.0
    bearing_c: float = 20.0
    fluid_c: float = 18.0
    leak: float = 0.0
    suction_bar: float = TANK_BAR
    discharge_bar: float = STATIC_BAR
    hydraulic_w: float = 0.0
    shaft_w: float = 0.0
    electric_w: float = 0.0
    current_a: float = 0.0
    shaft_hz: float = 0.0

    @property
    def delivered(self) -> float:
        """Flow at the meter."""
        return self.flow - self.leak


def advance(
    state: State,
    powered: bool,
    valve: float,
    ambient_c: float,
    faults: Mapping[str, float],
    turbulence: float,
    bubbles: float,
) -> None:
    """One step of `STEP_S`; changes the state.

    Args:
        state: of the plant.
        powered: the motor is switched on.
        valve: opening that is asked for, 0 to 1.
        ambient_c: temperature around.
        faults: severity by name.
        turbulence: a standard normal number, for the flow's own noise.
        bubbles: another, for that of cavitation.
    """
    target = 1.0 if powered else 0.0
    state.speed += STEP_S / (2.0 if powered else 8.0) * (target - state.speed)
    state.valve += STEP_S / 2.0 * (valve - state.valve)
    _hydraulics(state, faults, turbulence, bubbles)
    friction_w = FRICTION_W * state.speed * (1 + max(faults.get(kind, 0.0) for kind in BEARING_KINDS))
    friction_w += 120.0 * faults.get("misalignment", 0.0) * state.speed
    _power(state, powered, friction_w)
    loss_w = state.electric_w - state.shaft_w
    for name, towards, lag_s in (
        ("winding_c", ambient_c + 0.041 * loss_w, 900.0),
        ("bearing_c", 0.8 * ambient_c + 0.2 * state.fluid_c + 0.13 * friction_w, 600.0),
        ("fluid_c", 18.0 + 0.2 * (ambient_c - 18.0) + 6e-4 * (state.shaft_w - state.hydraulic_w), 1200.0),
    ):
        setattr(state, name, getattr(state, name) + STEP_S / lag_s * (towards - getattr(state, name)))


def _hydraulics(state: State, faults: Mapping[str, float], turbulence: float, bubbles: float) -> None:
    cavitation = faults.get("cavitation", 0.0)
    suction_drop = SUCTION_DROP * (1 + 3 * cavitation)
    pipe_drop = PIPE_DROP * (RATED_VALVE / max(state.valve, 0.05)) ** 2 * (1 + 1.5 * faults.get("fouling", 0.0))
    state.leak = min(LEAK * faults.get("leakage", 0.0) * math.sqrt(max(state.discharge_bar, 0.0)), state.flow)
    head = SHUT_OFF_BAR * state.speed**2 * (1 - 0.12 * cavitation * (1 + 0.5 * bubbles) * state.speed)
    head *= 1 + 0.004 * turbulence
    drops = (suction_drop + PUMP_DROP) * state.flow**2 + pipe_drop * state.delivered**2
    slope = 2 * ((suction_drop + PUMP_DROP) * state.flow + pipe_drop * state.delivered)
    pull = TANK_BAR + head - STATIC_BAR - drops
    state.flow = max(
        0.0, state.flow + STEP_S * pull / (INERTIA + STEP_S * slope)
    )  # a check valve keeps it from turning
    state.leak = min(state.leak, state.flow)
    state.suction_bar = TANK_BAR - suction_drop * state.flow**2
    state.discharge_bar = STATIC_BAR + pipe_drop * state.delivered**2
    state.hydraulic_w = max(0.0, head - PUMP_DROP * state.flow**2) * 1e5 * state.flow / 3600


def _power(state: State, powered: bool, friction_w: float) -> None:
    efficiency = 0.72 * (1 - ((state.flow - RATED_FLOW) / 60.0) ** 2)
    state.shaft_w = state.hydraulic_w / max(efficiency, 0.2) + NO_LOAD_W * state.speed**2 + friction_w
    state.electric_w = (state.shaft_w / MOTOR_EFFICIENCY + MOTOR_LOSS_W) if powered else 0.0
    active_a = state.electric_w / (math.sqrt(3) * VOLT * POWER_FACTOR)
    steady_a = math.hypot(active_a, MAGNETISING_A) if powered else 0.0
    state.current_a = steady_a + (INRUSH_A * (1 - state.speed) if powered else 0.0)
    if not powered:
        state.shaft_w = 0.0
    state.shaft_hz = RATED_HZ * state.speed * (1 - 0.03 * state.shaft_w / RATED_W)
