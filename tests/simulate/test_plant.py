"""The virtual plant: its physics balance, its faults are where they should be, its samples come again."""

import math
from pathlib import Path

import numpy as np
import pytest

from tocsin.errors import ConfigError
from tocsin.simulate.bearing import DRIVE_END, Bearing
from tocsin.simulate.csv_files import write_files
from tocsin.simulate.faults import MACHINE, SENSOR, Fault, parse_fault
from tocsin.simulate.plant import NAMES, Plant
from tocsin.simulate.process import STEP_S, State, advance
from tocsin.simulate.vibration import RESONANCE_HZ, acceleration_rms, amplitudes, velocity_rms

RATE = 8192.0


def run(steps: int, *faults: str, seed: int = 1, **options: object) -> np.ndarray:
    """(steps, C) of the slow channels, under load."""
    plant = Plant(seed, faults=faults, always_load=True, **options)
    return np.stack([plant.step().values for _ in range(steps)])


def column(values: np.ndarray, name: str) -> np.ndarray:
    return values[:, NAMES.index(name)]


def vibration(seconds: float, *faults: str) -> tuple[np.ndarray, float]:
    """Samples of acceleration_x, and the mean frequency of the shaft."""
    plant = Plant(3, faults=faults, always_load=True, vibration_hz=RATE)
    steps, hz = [], []
    for _ in range(round(seconds / STEP_S)):
        steps.append(plant.step().fast[:, 0])
        hz.append(plant.state.shaft_hz)
    return np.concatenate(steps), float(np.mean(hz))


def envelope_spectrum(signal: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, and the amplitude of the envelope of a band there."""
    spectrum = np.fft.fft(signal)
    hz = np.fft.fftfreq(len(signal), 1 / RATE)
    envelope = np.abs(np.fft.ifft(np.where((hz >= low) & (hz <= high), 2 * spectrum, 0)))
    amplitude = np.abs(np.fft.rfft(envelope - envelope.mean())) * 2 / len(signal)
    return np.fft.rfftfreq(len(signal), 1 / RATE), amplitude


def peak(hz: np.ndarray, amplitude: np.ndarray, at: float, within: float = 1.0) -> float:
    return float(amplitude[np.abs(hz - at) <= within].max())


def test_the_frequencies_of_a_bearing_are_those_of_its_maker() -> None:
    """6205-2RS JEM SKF of the Case Western Reserve University's bearing data centre, in orders of the shaft."""
    bearing = Bearing(balls=9, ball_mm=7.94, pitch_mm=39.04)
    assert bearing.bpfo == pytest.approx(3.5848, rel=2e-3)
    assert bearing.bpfi == pytest.approx(5.4152, rel=2e-3)
    assert bearing.ftf == pytest.approx(0.39828, rel=2e-3)
    assert 2 * bearing.bsf == pytest.approx(4.7135, rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "order"),
    [("bearing", DRIVE_END.bpfo), ("bearing_inner", DRIVE_END.bpfi), ("bearing_ball", 2 * DRIVE_END.bsf)],
)
def test_a_bearing_defect_shows_in_the_envelope_of_the_resonance_with_its_harmonics(kind: str, order: float) -> None:
    signal, shaft_hz = vibration(8.0, f"{kind}:0.5")
    hz, amplitude = envelope_spectrum(signal, RESONANCE_HZ - 400, RESONANCE_HZ + 400)
    floor = float(np.median(amplitude[(hz > 5) & (hz < 600)]))
    for harmonic in (1, 2):
        assert peak(hz, amplitude, harmonic * order * shaft_hz) > 10 * floor
    healthy, _ = vibration(8.0)
    hz, amplitude_healthy = envelope_spectrum(healthy, RESONANCE_HZ - 400, RESONANCE_HZ + 400)
    at = order * shaft_hz
    assert peak(hz, amplitude, at) > 10 * peak(hz, amplitude_healthy, at)


def test_a_defect_of_the_inner_race_has_sidebands_of_the_shaft_and_one_of_the_outer_race_has_not() -> None:
    for kind, order, expected in (("bearing_inner", DRIVE_END.bpfi, True), ("bearing", DRIVE_END.bpfo, False)):
        signal, shaft_hz = vibration(8.0, f"{kind}:0.5")
        hz, amplitude = envelope_spectrum(signal, RESONANCE_HZ - 400, RESONANCE_HZ + 400)
        carrier = peak(hz, amplitude, order * shaft_hz)
        sidebands = [peak(hz, amplitude, (order + side) * shaft_hz) for side in (-1, 1)]
        assert all((side > 0.2 * carrier) is expected for side in sidebands)


@pytest.mark.parametrize(
    ("kind", "order"), [("imbalance", 1), ("misalignment", 2), ("looseness", 0.5), ("looseness", 2.5)]
)
def test_faults_of_the_rotor_show_at_their_orders(kind: str, order: float) -> None:
    faulty, shaft_hz = vibration(8.0, f"{kind}:0.5")
    healthy, _ = vibration(8.0)
    line = [np.abs(np.fft.rfft(signal)) * 2 / len(signal) for signal in (faulty, healthy)]
    hz = np.fft.rfftfreq(len(faulty), 1 / RATE)
    assert peak(hz, line[0], order * shaft_hz, 0.5) > 2 * peak(hz, line[1], order * shaft_hz, 0.5)


@pytest.mark.parametrize("fault", ["", "imbalance:0.5", "bearing:0.5", "cavitation:0.5"])
def test_the_slow_channels_of_vibration_are_the_rms_of_the_fast_one(fault: str) -> None:
    faults = (fault,) if fault else ()
    signal, shaft_hz = vibration(8.0, *faults)
    plant = Plant(3, faults=faults, always_load=True)
    for _ in range(80):
        plant.step()
    found = amplitudes(plant.state, plant.faults.active(plant.now_s))
    spectrum = np.abs(np.fft.rfft(signal)) ** 2 * 2 / len(signal) ** 2
    hz = np.fft.rfftfreq(len(signal), 1 / RATE)
    above = math.sqrt(spectrum[hz > 1000].sum())
    share = math.sqrt((RATE / 2 - 1000) / (RATE / 2))  # of white noise
    expected = math.hypot(found.noise * share, math.sqrt(acceleration_rms(found, shaft_hz) ** 2 - found.noise**2))
    assert above == pytest.approx(expected, rel=0.1)
    band = (hz >= 10) & (hz <= 130)
    velocity = math.sqrt((spectrum[band] * (9810 / (2 * np.pi * hz[band])) ** 2).sum())
    assert velocity == pytest.approx(velocity_rms(found, shaft_hz), rel=0.1)


def settled(valve: float, **faults: float) -> State:
    state = State(1.0, valve, 40.0)
    for _ in range(60_000):
        advance(state, True, valve, 20.0, faults, 0.0, 0.0)
    return state


@pytest.mark.parametrize("valve", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("faults", [{}, {"leakage": 0.5}, {"fouling": 0.5}, {"cavitation": 0.5}])
def test_flow_and_energy_balance_when_all_has_settled(valve: float, faults: dict[str, float]) -> None:
    state = settled(valve, **faults)
    assert state.delivered + state.leak == pytest.approx(state.flow)
    assert (state.leak > 0) == ("leakage" in faults)
    gain_bar = state.discharge_bar - state.suction_bar
    assert state.hydraulic_w == pytest.approx(gain_bar * 1e5 * state.flow / 3600, rel=1e-3)
    assert state.hydraulic_w < state.shaft_w < state.electric_w
    heat_w = state.electric_w - state.shaft_w
    assert state.winding_c - 20.0 == pytest.approx(0.041 * heat_w, rel=0.01)


def test_the_winding_warms_with_the_time_constant_of_its_heat() -> None:
    state = State(1.0, 0.7, 40.0, winding_c=20.0)
    end_c = settled(0.7).winding_c
    for _ in range(round(900 / STEP_S)):
        advance(state, True, 0.7, 20.0, {}, 0.0, 0.0)
    assert (state.winding_c - 20) / (end_c - 20) == pytest.approx(1 - math.exp(-1), abs=0.01)


def test_the_flow_settles_without_ringing_when_the_valve_closes() -> None:
    state, flows = settled(0.9), []
    for _ in range(300):
        advance(state, True, 0.1, 20.0, {}, 0.0, 0.0)
        flows.append(state.flow)
    assert (np.diff(flows) <= 1e-9).all() and flows[-1] < 0.3 * flows[0]


@pytest.mark.parametrize(
    ("fault", "channel", "sign"),
    [
        ("leakage:0.5", "flow", -1), ("leakage:0.5", "motor_current", 1),
        ("fouling:0.5/0s", "flow", -1), ("fouling:0.5/0s", "discharge_pressure", 1),
        ("cavitation:0.5", "suction_pressure", -1), ("cavitation:0.5", "acceleration", 1),
        ("bearing:0.5", "bearing_temperature", 1), ("bearing:0.5", "acceleration", 1),
        ("imbalance:0.5", "vibration", 1), ("misalignment:0.5", "vibration", 1), ("looseness:0.5", "vibration", 1),
    ],
)  # fmt: skip
def test_a_fault_moves_the_channels_that_it_moves_in_a_real_plant(fault: str, channel: str, sign: int) -> None:
    healthy, faulty = column(run(3000), channel), column(run(3000, fault), channel)
    late = slice(2000, None)
    moved = sign * (faulty[late].mean() - healthy[late].mean())
    assert moved > 5 * healthy[late].std() / math.sqrt(1000)


def test_the_same_seed_gives_the_same_samples_and_a_fault_changes_nothing_before_it() -> None:
    one, two, other = run(400), run(400), run(400, seed=2)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    for kind in (*MACHINE, *(f"{kind}.flow" for kind in SENSOR)):
        faulty = run(400, f"{kind}@20s:1/0s")
        np.testing.assert_array_equal(faulty[:200], one[:200])
        if kind not in ("spikes.flow",):
            assert not np.array_equal(faulty[210:], one[210:]), kind


def test_vibration_comes_without_a_break_at_a_rate_that_is_no_multiple_of_ten() -> None:
    plant = Plant(1, start_s=0.0, vibration_hz=4096.5, always_load=True)
    times = np.concatenate([plant.step().fast_time_s for _ in range(50)])
    np.testing.assert_allclose(np.diff(times), 1 / 4096.5, rtol=1e-6)
    assert len(times) == math.ceil(5 * 4096.5)


def test_a_working_day_has_load_idle_off_and_start() -> None:
    plant = Plant(1)
    steps = [plant.step() for _ in range(60_000)]
    modes = {mode: [step.values for step in steps if step.mode == mode] for mode in ("load", "idle", "off", "start")}
    mean = {mode: np.mean(values, axis=0)[NAMES.index("flow")] for mode, values in modes.items()}
    assert mean["load"] > 1.5 * mean["idle"] > 10 * mean["off"]
    currents = [value[NAMES.index("motor_current")] for value in modes["start"]]
    assert max(currents) > 40  # inrush
    assert max(value[NAMES.index("motor_current")] for value in modes["off"]) < 1


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("stuck", lambda bad, good: (bad == bad[0]).all()),
        ("offset", lambda bad, good: np.allclose(bad - good, 50 / 3)),
        ("drift", lambda bad, good: np.allclose(np.diff(bad - good), 50 * 0.1 * STEP_S / 60)),
        ("dropout", lambda bad, good: np.isnan(bad).all()),
        ("noise", lambda bad, good: 3 < (bad - good).std() < 7),
        ("spikes", lambda bad, good: 5 < (np.abs(bad - good) > 10).sum() < 60),
    ],
)
def test_a_fault_of_a_sensor_touches_its_channel_only(kind: str, check: object) -> None:
    good, bad = run(500), run(500, f"{kind}.flow@10s")
    others = [place for place, name in enumerate(NAMES) if name != "flow"]
    np.testing.assert_array_equal(bad[:, others], good[:, others])
    assert check(column(bad, "flow")[100:], column(good, "flow")[100:])


def test_the_short_form_of_a_fault() -> None:
    assert parse_fault("bearing@10min:0.5", ()) == Fault("bearing", "", 600.0, math.inf, 0.5, 0.0)
    assert parse_fault("stuck.flow@5min-7min", NAMES) == Fault("stuck", "flow", 300.0, 420.0, 1.0, 0.0)
    assert parse_fault("fouling:.8/2h", (), 60.0) == Fault("fouling", "", 60.0, math.inf, 0.8, 7200.0)
    assert parse_fault("fouling", ()).ramp_s == 3600.0
    assert Fault("fouling", ramp_s=100.0, severity=0.5).at(50.0) == 0.25


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bearings", "no kind 'bearings'; there are imbalance"), ("stuck", "expected stuck.CHANNEL"),
        ("stuck.flows", "CHANNEL one of suction_pressure"), ("bearing.flow", "takes no channel"),
        ("bearing:1.5", "severity above 0, to 1"), ("bearing:0", "`bearing off` ends one"),
        ("bearing@2min-1min", "an end after the start"),
        ("bearing at ten", "expected KIND"), ("", "expected KIND"),
    ],
)  # fmt: skip
def test_what_is_no_fault_is_refused_and_says_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_fault(text, NAMES)


def test_faults_come_and_go_by_command() -> None:
    plant = Plant(1, always_load=True)
    assert plant.step().faults == {}
    assert "bearing with severity 0.5" in plant.faults.command("bearing:0.5", plant.now_s)
    plant.faults.command("stuck.flow", plant.now_s)
    assert plant.step().faults == {"bearing": 0.5, "stuck.flow": 1.0}
    plant.faults.command("bearing off", plant.now_s)
    assert plant.step().faults == {"stuck.flow": 1.0}
    with pytest.raises(ConfigError, match=r"no fault 'bearing' is on: there are stuck\.flow"):
        plant.faults.command("bearing off", plant.now_s)
    plant.faults.command("clear", plant.now_s)
    assert plant.step().faults == {}


def test_labels_say_when_a_fault_showed(tmp_path: Path) -> None:
    shown = write_files(tmp_path, 60.0, 5, ("bearing@10s-20s", "stuck.flow@30s-31s"))
    assert [(each.kind, round(each.end_s - each.start_s, 3)) for each in shown] == [
        ("bearing", 9.9),
        ("stuck.flow", 0.9),
    ]
    rows = [line.split(",") for line in (tmp_path / "test.csv").read_text().splitlines()]
    assert rows[0][0] == "time" and rows[0][-1] == "label" and len(rows) == 601
    on = [n for n, row in enumerate(rows[1:]) if row[-1] == "1"]
    assert on == [*range(100, 200), *range(300, 310)]
    labels = (tmp_path / "labels.csv").read_text().splitlines()
    assert labels[:2] == ["start,end,kind", "2026-01-06T00:00:10.000000Z,2026-01-06T00:00:19.900000Z,bearing"]
    assert "label" not in (tmp_path / "normal.csv").read_text().splitlines()[0]


def test_a_fault_of_a_machine_that_stands_still_does_not_show() -> None:
    plant = Plant(1, faults=("bearing", "stuck.flow"))
    by_mode: dict[str, set[str]] = {}
    for _ in range(60_000):
        step = plant.step()
        if step.mode == "off" and plant.state.speed < 0.05:
            by_mode.setdefault("standing", set()).update(step.faults)
    assert by_mode["standing"] == {"stuck.flow"}


def test_vibration_too_slow_for_the_resonance_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 4000 to 100000"):
        Plant(vibration_hz=1000.0)
