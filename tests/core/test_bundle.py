"""What a bundle does when it is damaged, and when it is whole."""

import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tocsin.core.bundle import MANIFEST, Bundle, Golden, _golden, load_bundle, write_bundle
from tocsin.core.manifest import SCORING
from tocsin.core.modes import Centroids
from tocsin.core.threshold import Threshold
from tocsin.errors import BundleError

DATA = Path(__file__).parent.parent / "data"
SMALL = DATA / "small.tocsin"
CONTENT = SMALL.read_bytes()


@pytest.mark.parametrize("name", ["small", "small_lstm"])
def test_a_whole_bundle_passes_its_own_golden_vectors(name: str) -> None:
    test = load_bundle(DATA / f"{name}.tocsin").self_test()
    assert test.passed and test.windows == 16


def test_golden_vectors_lie_on_both_sides_of_the_limit() -> None:
    bundle = load_bundle(SMALL)
    over = bundle.golden.scores >= bundle.manifest.threshold.value
    assert over.any() and not over.all()


@pytest.mark.parametrize("kept", [0, 1, 4, 100, len(CONTENT) // 2, len(CONTENT) - 22, len(CONTENT) - 1])
def test_a_truncated_bundle_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.tocsin"
    path.write_bytes(CONTENT[:kept])
    with pytest.raises(BundleError, match=r"cut\.tocsin: "):
        load_bundle(path)


def changed_byte(content: bytes, at: int, chosen: random.Random) -> bytes:
    changed = bytearray(content)
    changed[at] ^= chosen.randrange(1, 256)
    return bytes(changed)


def test_a_changed_byte_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """300 places of the whole file, and each byte of the zip's own records, some of which mean nothing."""
    chosen, whole = random.Random(0), load_bundle(SMALL)
    with zipfile.ZipFile(SMALL) as archive:
        headers = [at for entry in archive.infolist() for at in range(entry.header_offset, entry.header_offset + 50)]
        directory = range(archive.start_dir, len(CONTENT))
    path = tmp_path / "changed.tocsin"
    refused = 0
    for at in [*chosen.sample(range(len(CONTENT)), 300), *headers, *directory]:
        path.write_bytes(changed_byte(CONTENT, at, chosen))
        try:
            taken = load_bundle(path)
        except BundleError:
            refused += 1
            continue
        assert taken.files == whole.files or taken.manifest.raw == whole.manifest.raw, f"byte {at}"
        assert {**taken.files, MANIFEST: b""} == {**whole.files, MANIFEST: b""}, f"byte {at}"
    assert refused > 600


def test_a_changed_byte_of_a_members_content_is_always_refused(tmp_path: Path) -> None:
    chosen = random.Random(1)
    with zipfile.ZipFile(SMALL) as archive:
        spans = [(entry.header_offset + 30 + len(entry.filename), entry.file_size) for entry in archive.infolist()]
    path = tmp_path / "changed.tocsin"
    for start, size in spans:
        for at in chosen.sample(range(start, start + size), 50):
            path.write_bytes(changed_byte(CONTENT, at, chosen))
            with pytest.raises(BundleError):
                load_bundle(path)


def contents(bundle: Bundle) -> tuple[dict, dict]:
    """What `write_bundle` takes: manifest and models."""
    added = ("format", "files", "golden", "digest")
    raw = {key: value for key, value in bundle.manifest.raw.items() if key not in added}
    return raw, {name: content for name, content in bundle.files.items() if name.endswith(".tflite")}


def rewritten(path: Path, **changes: object) -> Path:
    """The small bundle with other manifest keys, its digests right again."""
    bundle = load_bundle(SMALL)
    raw, models = contents(bundle)
    write_bundle(path, {**raw, **changes}, models, bundle.golden, "card")
    return path


SCORE = load_bundle(SMALL).manifest.raw["score"]
MEMBER = load_bundle(SMALL).manifest.raw["members"][0]
GROUP = load_bundle(SMALL).manifest.raw["groups"][0]
MANY = [{**GROUP, "channels": [{"name": f"c{n}"} for n in range(5)]}]
SCORE = load_bundle(SMALL).manifest.raw["score"]


def scaled(center: list[float], scale: list[float]) -> dict:
    return {"step": "standardise", "center": center, "scale": scale}


def test_constants_of_a_preprocessing_are_not_spread_over_channels_that_are_not_there(tmp_path: Path) -> None:
    one_channel = {
        "groups": [{**GROUP, "channels": [{"name": "a"}]}],
        "score": {**SCORE, "channel_weights": [1.0]},
        "window": {"length": 1 << 20, "hop": 1},
    }
    wide = {**MEMBER, "preprocess": [scaled([0.0] * 100_000, [1.0] * 100_000)]}  # 800 GB, were it tried
    with pytest.raises(BundleError, match="not for 1048576 rows of 1 channel"):
        rewritten(tmp_path / "x.tocsin", members=[wide], **one_channel)


def test_unknown_manifest_keys_are_kept(tmp_path: Path) -> None:
    path = rewritten(tmp_path / "x.tocsin", later={"a": 1})
    assert load_bundle(path).manifest.raw["later"] == {"a": 1}


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (rewritten(tmp_path / f"{n}.tocsin").read_bytes() for n in (1, 2))
    assert first == second


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format 2"),
        ({"window": {"length": 0, "hop": 1}}, "window of 0 rows"),
        ({"window": {"length": 32}}, "hop"),
        ({"window": {"length": float("inf"), "hop": 1}}, "damaged"),
        (
            {"window": {"length": 1 << 20, "hop": 1}, "groups": MANY, "score": {**SCORE, "channel_weights": [1.0] * 5}},
            "of 5 channels",
        ),
        ({"members": []}, "at least one"),
        ({"members": [MEMBER] * 33}, "at most 32"),
        ({"threshold": {"value": -1}}, "threshold"),
        ({"threshold": {"value": "NaN"}}, "threshold"),
        ({"threshold": None}, "threshold"),
        ({"groups": {}}, "damaged"),
        ({"alarm": 3}, "damaged"),
        ({"members": [{**MEMBER, "preprocess": [{"step": "magic"}]}]}, "'magic' is not known"),
        ({"members": [{**MEMBER, "preprocess": [3]}]}, "damaged"),
        ({"members": [{**MEMBER, "preprocess": [scaled([0, 0], [1, float("inf")])]}]}, "positive scale"),
        ({"members": [{**MEMBER, "preprocess": [scaled([0, 0, 0], [1, 1, 1])]}]}, "channels"),
        ({"members": [{**MEMBER, "preprocess": [{"step": "detrend"}] * 17}]}, "at most 16"),
        *(
            ({"members": [{**MEMBER, "preprocess": [step]}]}, "not for 32 rows of 2 channels")
            for step in (
                {"step": "despike", "width": 5, "spreads": 6, "floor": [1.0]},
                {"step": "clip", "low": [None] * 3, "high": [1.0] * 3},
                {"step": "moments", "floor": [1.0] * 1000},
                {"step": "median", "width": 101},
                {"step": "window_statistics", "segments": 7},
                {"step": "log_mel", "bands": 4096, "sample_rate_hz": 100, "floor": [1.0, 1.0]},
                {"step": "band_energies", "bands_hz": [[0, 1]] * 33, "sample_rate_hz": 9, "floor": [1.0, 1.0]},
                {"step": "stack", "branches": [[{"step": "detrend"}], [{"step": "moments", "floor": [1.0]}]]},
                {"step": "stack", "branches": [[{"step": "detrend"}]] * 16},
            )
        ),
        ({"members": [{**MEMBER, "kind": "guess"}]}, "kind"),
        ({"members": [{**MEMBER, "normaliser": 0}]}, "normaliser"),
        ({"members": [{**MEMBER, "file": "no.tflite"}]}, "no."),
        ({"score": {**SCORE, "channel_weights": [1.0]}}, "weight"),
        ({"score": {**SCORE, "channel_weights": [1.0, float("nan")]}}, "weight"),
        ({"score": {**SCORE, "smoothing": {"method": "geometric_ewma", "span": 0}}}, "smoothing"),
        ({"score": {**SCORE, "smoothing": {"method": "median", "span": 3}}}, "median.*update"),
        ({"score": {**SCORE, "reduction": "max"}}, "max.*update"),
        ({"score": {**SCORE, "combination": "median"}}, "combination 'median'.*mean, max.*update"),
        ({"members": [{**MEMBER, "weight": 0.5}]}, "mean 1"),
        ({"members": [{**MEMBER, "weight": 3}, {**MEMBER, "weight": -1}]}, "mean 1"),
        ({"members": [{**MEMBER, "weight": float("nan")}]}, "mean 1"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path: Path, changes: dict, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        rewritten(tmp_path / "x.tocsin", **changes)


@pytest.mark.parametrize("name", ["../up.tflite", "/etc/x.tflite", "run.py", "x.so"])
def test_a_member_that_has_no_place_in_a_bundle_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "more.tocsin"
    path.write_bytes(CONTENT)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(BundleError, match="no place"):
        load_bundle(path)


def test_a_compressed_member_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tocsin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, b"0" * (60 << 20))
    with pytest.raises(BundleError, match="compressed"):
        load_bundle(path)


def test_a_pickle_in_the_golden_vectors_is_refused(tmp_path: Path) -> None:
    bundle = load_bundle(SMALL)
    golden = Golden(np.array([{"a": 1}], object), bundle.golden.scores, "r")
    with pytest.raises(BundleError, match=r"golden\.npz is damaged: .*pickle"):
        write_bundle(tmp_path / "x.tocsin", *contents(bundle), golden, "card")


def npz(windows: np.ndarray, scores: np.ndarray, save: Callable[..., None] = np.savez) -> bytes:
    buffer = io.BytesIO()
    save(buffer, windows=windows, scores=scores)
    return buffer.getvalue()


def npz_of_header(text: str) -> bytes:
    """An archive whose arrays have this header and nothing behind it."""
    buffer = io.BytesIO()
    head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("windows.npy", "scores.npy"):
            archive.writestr(name, head)
    return buffer.getvalue()


GOLDEN_VECTORS = load_bundle(SMALL).golden
WINDOWS, SCORES = GOLDEN_VECTORS.windows, GOLDEN_VECTORS.scores


@pytest.mark.parametrize(
    "content",
    [
        npz(WINDOWS, SCORES, np.savez_compressed),
        npz(WINDOWS, SCORES[:, None]),
        npz(WINDOWS, SCORES.astype(np.float32)),
        npz(WINDOWS, SCORES.astype(str)),
        npz(WINDOWS, SCORES * np.nan),
        npz(WINDOWS * np.inf, SCORES),
        npz(WINDOWS[:0], SCORES[:0]),
        npz_of_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000, 1, 1), }"),
        npz_of_header("{'descr': ("),
        npz_of_header("{" * 5000),
        b"\x93NUMPY",
    ],
    ids=["compressed", "2-d", "float32", "text", "nan", "inf", "none", "bomb", "open", "deep", "no zip"],
)
def test_golden_vectors_that_cannot_be_are_refused(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"golden\.npz"):
        _golden(content, load_bundle(SMALL).manifest)


def test_a_bundle_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tocsin")
    for path in (tmp_path / "pipe.tocsin", Path("/dev/zero"), tmp_path):
        with pytest.raises(BundleError, match=f"{path}: .*not a regular file"):
            load_bundle(path)


def test_a_bundle_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.tocsin"
    with path.open("wb") as handle:
        handle.truncate(1 << 40)
    with pytest.raises(BundleError, match="larger than a bundle may be"):
        load_bundle(path)


def test_a_bundle_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "x.tocsin").mkdir()
    with pytest.raises(OSError, match=r"x\.tocsin"):
        rewritten(tmp_path / "x.tocsin")
    assert [path.name for path in tmp_path.iterdir()] == ["x.tocsin"]


def test_a_model_of_another_shape_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    bundle = load_bundle(SMALL)
    golden = Golden(bundle.golden.windows[:, :16], bundle.golden.scores, bundle.golden.runtime)
    raw, models = contents(bundle)
    raw["window"] = {"length": 16, "hop": 1}
    shorter = write_bundle(tmp_path / "x.tocsin", raw, models, golden, "card")
    with pytest.raises(BundleError, match=r"maps \(1, 32, 2\)"):
        shorter.scorer()


def test_a_bundle_scores_as_its_combination_and_weights_say(tmp_path: Path) -> None:
    given, one = WINDOWS, load_bundle(SMALL).scorer().score(WINDOWS).value
    for weights, combination, factor in (((0.5, 1.5), "max", 1.5), ((2.0, 0.0), "mean", 1.0)):
        members = [{**MEMBER, "name": f"m{n}", "weight": weight} for n, weight in enumerate(weights)]
        path = rewritten(tmp_path / "x.tocsin", members=members, score={**SCORE, "combination": combination})
        np.testing.assert_allclose(load_bundle(path).scorer().score(given).value, factor * one)


@pytest.mark.parametrize(("kind", "rows"), [("reconstruct", 32), ("whiten", 32), ("probability", None)])
def test_a_member_must_give_as_many_rows_as_its_kind_has(tmp_path: Path, kind: str, rows: int | None) -> None:
    bundle = load_bundle(rewritten(tmp_path / "x.tocsin", members=[{**MEMBER, "kind": kind}]))
    if rows is None:
        with pytest.raises(BundleError, match="of kind probability"):
            bundle.scorer()
    else:
        assert bundle.scorer().members[0].model.output_shape == (1, rows, 2)


def test_a_model_that_scores_otherwise_fails_the_self_test(tmp_path: Path) -> None:
    bundle = load_bundle(SMALL)
    golden = Golden(bundle.golden.windows, bundle.golden.scores * 1.01, bundle.golden.runtime)
    test = write_bundle(tmp_path / "x.tocsin", *contents(bundle), golden, "card").self_test()
    assert not test.passed and test.worst == pytest.approx(0.01, rel=0.02)


CLUSTERS = Centroids(np.array([5.0, 21.0]), np.array([1.0, 2.0]), np.array([[0.0, 0.0], [50.0, 0.0]]))
BY_MODE = {**SCORE, "smoothing": {"method": "geometric_ewma_by_mode", "span": 1}}


def with_modes(path: Path, limits: tuple[float, ...], **changes: object) -> Path:
    threshold = Threshold(max(limits), limits=limits).to_json()
    modes = CLUSTERS.to_json(("pressure", "flow"))
    return rewritten(path, **{"modes": modes, "score": BY_MODE, "threshold": threshold, **changes})


def test_a_bundle_with_modes_gives_each_window_the_limit_of_its_mode(tmp_path: Path) -> None:
    value = load_bundle(SMALL).manifest.threshold.value
    bundle = load_bundle(with_modes(tmp_path / "x.tocsin", (value, 8 * value)))
    golden = bundle.golden.windows
    far = golden + np.array([50.0, 0.0])
    scores = bundle.scorer().score(np.concatenate([golden, far]))
    assert scores.mode.tolist() == [0] * len(golden) + [1] * len(golden)
    np.testing.assert_allclose(scores.value / scores.ratio, [value] * len(golden) + [8 * value] * len(golden))
    assert bundle.self_test().passed


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"threshold": {"value": 2.0, "limits": [2.0]}}, "1 limits for 2 modes"),
        ({"threshold": {"value": 2.0}}, "0 limits for 2 modes"),
        ({"score": SCORE}, "go together"),
        ({"modes": {"method": "dreams"}}, "dreams"),
    ],
)
def test_modes_that_do_not_fit_are_refused(tmp_path: Path, changes: dict, says: str) -> None:
    with pytest.raises(BundleError, match=says):
        with_modes(tmp_path / "x.tocsin", (1.0, 2.0), **changes)


def test_an_agent_that_does_not_know_modes_refuses_their_smoothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SCORING, "smoothing", ("geometric_ewma",))  # what agents before knew
    with pytest.raises(BundleError, match=r"smoothing 'geometric_ewma_by_mode'.*update it"):
        with_modes(tmp_path / "x.tocsin", (1.0, 2.0))
