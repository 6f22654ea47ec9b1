"""Operating modes on the device."""

import numpy as np
import pytest

from tocsin.core.modes import UNKNOWN, Centroids, Modes, Ranges, modes_from_json
from tocsin.core.scoring import Smoother, limits_of
from tocsin.core.threshold import Threshold
from tocsin.errors import BundleError
from tocsin.records import Scores

NAMES = ("speed", "load")
CLUSTERS = Centroids(np.array([50.0, 1.0]), np.array([20.0, 0.5]), np.array([[-1.0, 0.0], [1.0, 0.0], [0.0, 3.0]]))
LEVELS = Ranges(0, np.array([10.0, 40.0]), np.array([20.0, 60.0]))


def windows(*means: tuple[float, float]) -> np.ndarray:
    """(K, 8, 2) windows that wiggle about their means."""
    return np.array(means)[:, None] + np.linspace(-1, 1, 8)[:, None] * np.array([2.0, 0.1])


@pytest.mark.parametrize("modes", [CLUSTERS, LEVELS])
def test_the_manifest_keeps_modes(modes: Modes) -> None:
    again = modes_from_json(modes.to_json(NAMES), NAMES)
    given = np.random.default_rng(0).normal((40, 1), (30, 1), (200, 8, 2))
    np.testing.assert_array_equal(again.of(given), modes.of(given))
    assert len(again) == len(modes)


def test_a_window_belongs_to_the_nearest_centroid_in_deviations() -> None:
    assert CLUSTERS.of(windows((30, 1), (71, 1.1), (50, 2.4))).tolist() == [0, 1, 2]


def test_a_window_belongs_to_the_range_of_its_mean_and_between_ranges_to_none() -> None:
    assert LEVELS.of(windows((5, 0), (10, 0), (20, 0), (30, 0), (60, 0), (61, 0))).tolist() == [
        UNKNOWN, 0, 0, UNKNOWN, 1, UNKNOWN
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({}, "damaged"),
        ({"method": "dreams"}, "'dreams', this agent knows"),
        ({**CLUSTERS.to_json(NAMES), "scale": [1.0, 0.0]}, "above 0"),
        ({**CLUSTERS.to_json(NAMES), "center": [1.0]}, "2 channels"),
        ({**CLUSTERS.to_json(NAMES), "centroids": []}, "1 to"),
        ({**CLUSTERS.to_json(NAMES), "centroids": [[0.0, float("nan")]]}, "finite"),
        ({**LEVELS.to_json(NAMES), "channel": "flow"}, "damaged"),
        ({**LEVELS.to_json(NAMES), "ranges": [[0, 5], [4, 6]]}, "overlap"),
        ({**LEVELS.to_json(NAMES), "ranges": [[5, 0]]}, "order"),
    ],
)
def test_damaged_modes_are_refused(form: dict, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        modes_from_json(form, NAMES)


LIMITS = Threshold(8.0, limits=(1.0, 8.0))


def scored(value: list[float], mode: list[int]) -> Scores:
    at = np.array(value)
    return Scores(at, at / LIMITS.of(np.array(mode)), at[:, None], np.array(mode))


def test_each_mode_has_its_limit_and_an_unknown_one_the_largest() -> None:
    scores = scored([4, 4, 4], [0, 1, UNKNOWN])
    assert limits_of(LIMITS, scores).tolist() == [1, 8, 8]
    assert scores.ratio.tolist() == [4, 0.5, 0.5]


def test_smoothing_carries_the_ratio_over_a_change_of_mode() -> None:
    """Half of the limit before and after: nothing happens, although the score itself becomes eight times as large."""
    smooth = Smoother(9, LIMITS).update(scored([0.5] * 5 + [4.0] * 5, [0] * 5 + [1] * 5))
    np.testing.assert_allclose(smooth.ratio, 0.5)
    np.testing.assert_allclose(smooth.value, [0.5] * 5 + [4.0] * 5)
    np.testing.assert_allclose(smooth.per_channel.sum(axis=1), smooth.value)


def test_smoothing_by_mode_does_not_depend_on_how_the_windows_are_cut() -> None:
    rng = np.random.default_rng(0)
    scores = scored(rng.lognormal(size=60).tolist(), rng.integers(-1, 2, 60).tolist())
    whole, parts = Smoother(5, LIMITS).update(scores), Smoother(5, LIMITS)
    cut = [
        parts.update(Scores(scores.value[c], scores.ratio[c], scores.per_channel[c], scores.mode[c])).ratio
        for c in (slice(0, 1), slice(1, 30), slice(30, 60))
    ]
    np.testing.assert_array_equal(np.concatenate(cut), whole.ratio)
