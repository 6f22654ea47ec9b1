"""Faults of sensors raise no alarm of the machine, those of the machine none of a sensor: several sizes and days."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import sensor_faults

from tocsin.core.bundle import Bundle

DAYS = (0, 1)
SENSOR, PROCESS = frozenset({"sensor", "comms"}), frozenset({"process"})


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return sensor_faults.train(tmp_path_factory.mktemp("classes"), "t2", 12.0)


@pytest.mark.parametrize(
    "fault",
    [
        *("stuck.discharge_pressure", "stuck.flow", "stuck.motor_temperature", "stuck.vibration"),
        *("dropout.discharge_pressure", "dropout.motor_temperature", "spikes.flow:0.1"),
    ],
)
def test_a_sensor_that_fails_is_told_as_a_sensor_alone(bundle: Bundle, fault: str) -> None:
    name, _, severity = fault.partition(":")
    days = [sensor_faults.day(bundle, name, float(severity or 1.0), seed) for seed in DAYS]
    assert [day.verdict(SENSOR) for day in days] == ["hit"] * len(DAYS)
    assert not any(day.early for day in days)


@pytest.mark.parametrize(
    "fault", ["bearing:0.2", "bearing:1", "cavitation:0.3", "cavitation:1", "leakage:1", "imbalance:0.3", "imbalance:1"]
)
def test_a_machine_that_fails_is_told_as_the_machine_alone(bundle: Bundle, fault: str) -> None:
    name, _, severity = fault.partition(":")
    days = [sensor_faults.day(bundle, name, float(severity), seed) for seed in DAYS]
    assert [day.verdict(PROCESS) for day in days] == ["hit"] * len(DAYS)
    assert not any(day.early for day in days)


@pytest.mark.parametrize("fault", ["offset.flow", "drift.discharge_pressure"])
def test_a_sensor_that_lies_as_a_machine_could_is_at_least_told(bundle: Bundle, fault: str) -> None:
    assert [sensor_faults.day(bundle, fault, 1.0, seed).found for seed in DAYS] == [PROCESS] * len(DAYS)
