"""Operating modes: told by a channel, or found where they are clear."""

import numpy as np
import pytest

from tocsin.core.modes import UNKNOWN, Centroids, Ranges
from tocsin.errors import ConfigError
from tocsin.records import Channel, Floats, Rows
from tocsin_trainer.modes import WindowFigures, find_modes, modes_of_channel, window_figures
from tocsin_trainer.stretch import RowStore, StoredRows, Stretch

CHANNELS = (Channel("speed"), Channel("load"), Channel("heat"))
LENGTH, HOP = 20, 10


def machine(level: Floats, seed: int = 0) -> tuple[WindowFigures, ...]:
    """Three channels, of which two follow the level; in windows."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, (0.3, 0.3, 1.0), (len(level), 3)) + np.stack((level, 2 * level, 0 * level), axis=1)
    store = RowStore(3)
    store.append(Rows(np.arange(len(level)) * 1.0, values, np.arange(len(level)), True))
    stretch = Stretch(StoredRows(store, 0, len(level)), None, 0)
    return window_figures((stretch.part(0, 3000), stretch.part(3000, len(level))), LENGTH, HOP)


def switching(*levels: float, stay: int = 300, rows: int = 6000) -> Floats:
    return np.array(levels)[np.arange(rows) // stay % len(levels)]


@pytest.mark.parametrize("levels", [(0.0, 5.0), (0.0, 5.0, 10.0), (0.0, 3.0, 9.0, 12.0)])
def test_clear_modes_that_last_and_come_again_are_found(levels: tuple[float, ...]) -> None:
    level = switching(*levels)
    modes, choice = find_modes(machine(level), LENGTH / HOP)
    assert isinstance(modes, Centroids) and len(modes) == len(levels) and choice.value == str(len(levels))
    stretch = np.repeat(np.array(levels)[:, None], LENGTH, axis=1)[..., None] * np.array([1.0, 2.0, 0.0])
    assert sorted(modes.of(stretch).tolist()) == list(range(len(levels)))


@pytest.mark.parametrize(
    ("level", "why"),
    [
        (np.zeros(6000), "not apart"),
        (np.linspace(0, 10, 6000), "flow into|not apart"),
        (5 * np.sin(np.arange(6000) / 300), "flow into|not apart"),
        (np.repeat([0.0, 8.0], 3000), "come again"),
        (switching(0.0, 8.0, stay=25), "do not last|flow into|not apart"),
    ],
    ids=["noise", "ramp", "slow swing", "one change", "quick changes"],
)
def test_what_is_no_mode_stays_one(level: Floats, why: str) -> None:
    modes, choice = find_modes(machine(level), LENGTH / HOP)
    assert modes is None and choice.value == "1"
    assert any(words in choice.why for words in why.split("|"))


def test_a_few_windows_are_one_mode() -> None:
    modes, choice = find_modes(machine(switching(0.0, 5.0, stay=40, rows=3200))[1:], LENGTH / HOP)
    assert modes is None and "too few" in choice.why


def test_a_set_point_tells_its_levels_and_what_lies_between_is_unknown() -> None:
    level = switching(10.0, 25.0, 60.0)
    values = np.stack((level, level * 0, level * 0), axis=1)
    store = RowStore(3)
    store.append(Rows(np.arange(6000) * 1.0, values, np.arange(6000), True))
    figures = window_figures((Stretch(StoredRows(store, 0, 6000), None, 0),), LENGTH, HOP)
    modes, choice = modes_of_channel("speed", CHANNELS, figures)
    assert isinstance(modes, Ranges) and "10, 25, 60" in choice.why
    given = np.repeat([10.0, 25.0, 60.0, 40.0, 10.5], LENGTH).reshape(5, LENGTH, 1) * np.ones(3)
    assert modes.of(given).tolist() == [0, 1, 2, UNKNOWN, 0]


@pytest.mark.parametrize(
    ("name", "says"),
    [("gear", "none of the channels speed, load, heat"), ("heat", "expected a channel with a few levels")],
)
def test_a_mode_column_that_cannot_be_is_refused(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        modes_of_channel(name, CHANNELS, machine(switching(0.0, 5.0)))
