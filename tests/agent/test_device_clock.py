"""The device's clock: set or not, and which alarms of assets it explains."""

from tocsin.alarms.device_clock import ALARM, STANDS_S, DeviceClock


def told(clock: DeviceClock, wall_s: float, monotonic_s: float) -> list[tuple[str, str, str]]:
    return [(each.asset, each.alarm, each.change.value) for each in clock.look(wall_s, monotonic_s)]


def test_a_clock_that_is_set_is_told_once_explains_what_follows_and_ends_after_a_minute() -> None:
    clock = DeviceClock("edge-1")
    assert told(clock, 1000.0, 10.0) == [] and not clock.explains(10.0)
    assert told(clock, 4601.0, 11.0) == [("edge-1", ALARM, "raised")]
    assert told(clock, 4602.0, 12.0) == [] and clock.explains(12.0)
    assert told(clock, 4600.0 + STANDS_S, 10.0 + STANDS_S) == []
    assert told(clock, 4601.0 + STANDS_S, 11.0 + STANDS_S) == [("edge-1", ALARM, "cleared")]
    assert not clock.explains(11.0 + STANDS_S)


def test_a_clock_that_a_time_server_corrects_slowly_was_not_set() -> None:
    clock = DeviceClock("edge-1")
    assert [told(clock, 1000.0 + 1.4 * n, float(n)) for n in range(100)] == [[]] * 100


def test_an_alarm_from_before_a_restart_ends_a_minute_after_it() -> None:
    clock = DeviceClock("edge-1", active=True)
    assert told(clock, 0.0, 500.0) == []
    assert told(clock, STANDS_S, 500.0 + STANDS_S) == [("edge-1", ALARM, "cleared")]
