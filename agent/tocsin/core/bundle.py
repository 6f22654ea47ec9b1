"""The bundle: the only thing that crosses from trainer to agent.

```
<name>-<version>.tocsin      a stored zip of fixed members; nothing in it can execute
├─ manifest.json             channels, rate, window, preprocessing, members, score, threshold, alarm, training
├─ *.tflite                  one or two files a member: one window a call, and many
├─ golden.npz                windows (K, T, C) float64, scores (K,) float64: what every device must reproduce; of rate
│                            groups also some samples of each, and the rows that they are joined to
└─ model_card.md             what it was trained on, figures, limits
```
Rules: every file's sha256 stands in the manifest and is checked at every load; sizes are capped; unknown manifest keys
are kept, an unknown `format` is refused.
"""

import hashlib
import io
import json
import os
import stat
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tocsin.core.groups import RateGroups
from tocsin.core.interpreter import TfliteModel, runtime_id, runtime_name
from tocsin.core.join import check_golden, joined
from tocsin.core.manifest import FORMAT, MAX_MEMBERS, Manifest
from tocsin.core.scoring import Member, Scorer
from tocsin.errors import BundleError
from tocsin.records import Floats, SampleBlock

SUFFIX = ".tocsin"
MANIFEST, GOLDEN, CARD = "manifest.json", "golden.npz", "model_card.md"
MAX_BYTES = {".json": 4 << 20, ".npz": 64 << 20, ".md": 1 << 20, ".tflite": 64 << 20}
SAME_RUNTIME, OTHER_RUNTIME = 1e-3, 0.15  # tolerance on golden scores: other kernels round differently
SAME_ROWS = 1e-6  # tolerance on golden rows of rate groups: numpy alone makes them
FAR_BELOW = 0.1  # of the limit: below it, differences are taken relative to this


@dataclass(frozen=True)
class GoldenJoin:
    """Samples of each rate group with the rows that every device must join them to.

    Attributes:
        samples: (n,) times and (n, C) values of each group.
        rows: (m, D) all columns.
    """

    samples: tuple[SampleBlock, ...]
    rows: Floats

    def difference(self, groups: RateGroups) -> float:
        """Largest difference of a number that this machine joins, relative where it is above 1; infinite for others."""
        found = joined(groups, self.samples)
        if found.shape != self.rows.shape:
            return float("inf")
        return float(np.max(np.abs(found - self.rows) / np.maximum(1.0, np.abs(self.rows))))


@dataclass(frozen=True)
class Golden:
    """Windows with the scores that every device must reproduce.

    Attributes:
        windows: (K, T, C) in engineering units.
        scores: (K,) from the converted model.
        runtime: the one that gave the scores: name, version and machine.
        join: of rate groups, or None.
    """

    windows: Floats
    scores: Floats
    runtime: str
    join: GoldenJoin | None = None


@dataclass(frozen=True)
class SelfTest:
    """How the golden vectors came out on this machine.

    Attributes:
        windows: how many were replayed.
        worst: largest relative difference of a score; infinite where rate groups are joined to other rows.
        tolerance: allowed here.
        flipped: decisions that differ although the expected score is not within tolerance of the limit.
        runtime: in use here.
    """

    windows: int
    worst: float
    tolerance: float
    flipped: int
    runtime: str

    @property
    def passed(self) -> bool:
        """All scores within tolerance, no decision changed."""
        return self.worst <= self.tolerance and self.flipped == 0


@dataclass(frozen=True)
class Bundle:
    """A bundle whose hashes are checked.

    Attributes:
        path: where it was read from.
        digest: sha256 of the file, hexadecimal.
        manifest: what it says of itself.
        files: content by name.
        golden: its golden vectors.
    """

    path: Path
    digest: str
    manifest: Manifest
    files: dict[str, bytes]
    golden: Golden

    def scorer(self) -> Scorer:
        """A scorer with interpreters of its own, for one thread.

        Raises:
            BundleError: the runtime refuses a model, or its shapes are not the manifest's.
        """
        manifest = self.manifest
        members = []
        for member in manifest.members:
            batch = None if member.batch_file is None else self.files[member.batch_file]
            model = TfliteModel(self.files[member.file], batch)
            try:
                rows = member.preprocessor.rows(manifest.length)
            except ValueError as error:
                raise BundleError(f"member {member.name}: {error}") from error
            channels = len(manifest.columns)
            expected, given = (1, rows, channels), model.output_shape
            if (
                model.input_shape != expected
                or len(given) != 3
                or given != (1, given[1], channels)
                or not _gives(member.kind, rows, given[1])
            ):
                raise BundleError(
                    f"{member.file} maps {model.input_shape} to {given}, the manifest says {expected} to what a member "
                    f"of kind {member.kind} gives"
                )
            shown = member.preprocessor, member.kind, member.normaliser, member.weight, member.input_range
            members.append(Member(model, *shown))
        return Scorer(
            tuple(members), manifest.channel_weights, manifest.threshold, manifest.combination, manifest.modes
        )

    def self_test(self) -> SelfTest:
        """Replays the golden vectors through the runtime of this machine."""
        golden, scorer = self.golden, self.scorer()
        scored = scorer.score(golden.windows)
        scores, limit = scored.value, scorer.threshold.of(scored.mode)
        tolerance = SAME_RUNTIME if runtime_id() == golden.runtime else OTHER_RUNTIME
        scale = np.maximum(golden.scores, FAR_BELOW * limit)
        difference = np.abs(scores - golden.scores) / scale
        if any(member.batch_file for member in self.manifest.members):  # enough of them that it is taken
            times = -(-TfliteModel.BATCH // len(scores))
            batched = scorer.score(np.tile(golden.windows, (times, 1, 1))).value[: len(scores)]
            difference = np.maximum(difference, np.abs(batched - golden.scores) / scale)
        clear_cut = np.abs(golden.scores / limit - 1.0) > tolerance
        flipped = int(np.count_nonzero(clear_cut & ((scores >= limit) != (golden.scores >= limit))))
        alike = golden.join is None or golden.join.difference(self.manifest.groups) <= SAME_ROWS
        worst = float(difference.max()) if alike and np.isfinite(difference).all() else float("inf")
        return SelfTest(len(scores), worst, tolerance, flipped, runtime_name())


def _gives(kind: str, rows: int, given: int) -> bool:
    """Whether a member of this kind, shown so many rows, may give so many."""
    match kind:
        case "reconstruct":
            return 1 <= given <= rows
        case "limits":
            return given == rows
        case "probability":
            return given == 2 * rows
        case _:
            return given >= 1


def load_bundle(path: Path) -> Bundle:
    """Reads a bundle and checks all that can be checked without running it.

    Raises:
        BundleError: missing, truncated, changed, too large, or of an unknown format.
    """
    content = _read(path, sum(MAX_BYTES.values()))
    try:
        files = _unpack(content)
        manifest, golden = _check(files)
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error
    return Bundle(path, hashlib.sha256(content).hexdigest(), manifest, files, golden)


def _read(path: Path, most: int) -> bytes:
    """All of a regular file; a pipe or a device would block, or never end."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleError(f"{path}: cannot be read: not a regular file")
        with path.open("rb") as handle:
            size = os.fstat(handle.fileno()).st_size
            content = handle.read(most + 1) if size <= most else None  # it may grow meanwhile
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    if content is None or len(content) > most:
        raise BundleError(f"{path}: larger than a bundle may be ({most >> 20} MiB)")
    return content


def _unpack(content: bytes) -> dict[str, bytes]:
    damaged = "not a complete bundle (truncated or changed): copy or build it again"
    if not content.startswith(b"PK"):
        raise BundleError("no bundle at all: name the .tocsin file that `tocsin train` wrote" if content else damaged)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_MEMBERS or len({entry.filename for entry in entries}) != len(entries):
                raise BundleError(damaged)
            for entry in entries:
                limit = MAX_BYTES.get(Path(entry.filename).suffix, 0)
                if (
                    Path(entry.filename).name != entry.filename
                    or entry.compress_type != zipfile.ZIP_STORED
                    or entry.file_size > limit
                ):
                    raise BundleError(
                        f"member {entry.filename!r} has no place in a bundle, is compressed, or is over {limit} bytes"
                    )
            return {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BundleError(damaged) from error


def _check(files: dict[str, bytes]) -> tuple[Manifest, Golden]:
    try:
        raw = json.loads(files[MANIFEST])
        expected = {str(name): str(digest) for name, digest in raw["files"].items()}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise BundleError("no readable manifest.json: not a bundle, or damaged; build it again") from error
    manifest = Manifest.from_json(raw)
    if set(expected) != set(files) - {MANIFEST} or raw.get("digest") != _digest(raw):
        raise BundleError(
            "its members are not those that the manifest lists, or the manifest was changed: copy it again"
        )
    for name, digest in expected.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise BundleError(f"{name} was changed (its sha256 is not the manifest's): copy or build the bundle again")
    named = [f for m in manifest.members for f in (m.file, m.batch_file) if f is not None]
    missing = sorted({GOLDEN, *named} - set(files))
    if missing:
        raise BundleError(f"{missing[0]} is missing: build the bundle again")
    return manifest, _golden(files[GOLDEN], manifest)


def _golden(content: bytes, manifest: Manifest) -> Golden:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if any(e.compress_type != zipfile.ZIP_STORED or e.file_size > len(content) for e in archive.infolist()):
                raise BundleError(f"{GOLDEN} is damaged: an array in it is compressed, or larger than the file")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            runtime = str(manifest.raw["golden"]["runtime"])
            golden = Golden(arrays["windows"], arrays["scores"], runtime, _golden_join(arrays, manifest.groups))
    except (
        KeyError, TypeError, ValueError, EOFError, OSError, RuntimeError, MemoryError, SyntaxError, ArithmeticError,
        tokenize.TokenError, zlib.error, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise BundleError(f"{GOLDEN} is damaged: {error}") from error
    windows, scores = golden.windows, golden.scores
    if scores.ndim != 1 or not len(scores) or scores.dtype != np.float64 or not np.isfinite(scores).all():
        raise BundleError(f"{GOLDEN} has {scores.dtype} scores of shape {scores.shape}, expected finite float64 (K,)")
    shape = (len(scores), manifest.length, len(manifest.columns))
    if windows.shape != shape or windows.dtype != np.float64 or not np.isfinite(windows).all():
        raise BundleError(
            f"{GOLDEN} has {windows.dtype} windows of shape {windows.shape}, expected finite float64 {shape}"
        )
    return golden


def _golden_join(arrays: Mapping[str, Any], groups: RateGroups) -> GoldenJoin | None:
    if "join_rows" not in arrays:
        return None
    rows, samples = arrays["join_rows"], []
    for n, group in enumerate(groups.groups):
        time_s, values = arrays[f"join_time_{n}"], arrays[f"join_values_{n}"]
        if time_s.ndim != 1 or values.shape != (len(time_s), len(group.channels)) or values.dtype != np.float64:
            raise ValueError(f"samples of group {group.name!r} have the shape {values.shape}")
        samples.append(SampleBlock(np.asarray(time_s, np.float64), values))
    width = len(groups.columns)
    if rows.ndim != 2 or not len(rows) or rows.dtype != np.float64 or not np.isfinite(rows).all():
        raise ValueError(f"joined rows are {rows.dtype} of shape {rows.shape}, expected finite float64 (m, {width})")
    if rows.shape[1] != width:
        raise ValueError(f"joined rows have {rows.shape[1]} columns, expected {width}")
    check_golden(groups, tuple(samples))
    return GoldenJoin(tuple(samples), rows)


def write_bundle(path: Path, manifest: dict[str, Any], models: dict[str, bytes], golden: Golden, card: str) -> Bundle:
    """Writes a bundle, reads it back as a device would, and gives that.

    Args:
        path: ends in `.tocsin`; replaced at once when it exists.
        manifest: without `format`, `files` and `golden`, which are added here.
        models: .tflite files by name.
        golden: windows and expected scores.
        card: text of model_card.md.
    """
    buffer = io.BytesIO()
    np.savez(buffer, windows=golden.windows, scores=golden.scores, **_join_arrays(golden.join))
    files = {**models, GOLDEN: buffer.getvalue(), CARD: card.encode()}
    whole = {
        "format": FORMAT,
        **manifest,
        "golden": {
            "windows": len(golden.scores),
            "runtime": golden.runtime,
            "same_runtime": SAME_RUNTIME,
            "other_runtime": OTHER_RUNTIME,
        },
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files = {MANIFEST: json.dumps({**whole, "digest": _digest(whole)}, indent=1).encode(), **files}
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=SUFFIX, delete=False) as handle:
        try:
            with zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive:
                for name, content in files.items():
                    archive.writestr(zipfile.ZipInfo(name), content)
            handle.flush()
            os.fsync(handle.fileno())
            Path(handle.name).chmod(0o644)
            Path(handle.name).replace(path)
        except BaseException:
            Path(handle.name).unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return load_bundle(path)


def _join_arrays(join: GoldenJoin | None) -> dict[str, Any]:
    if join is None:
        return {}
    times = {f"join_time_{n}": block.time_s for n, block in enumerate(join.samples)}
    values = {f"join_values_{n}": block.values for n, block in enumerate(join.samples)}
    return {"join_rows": join.rows, **times, **values}


def _digest(manifest: dict[str, Any]) -> str:
    """sha256 of the manifest without its own digest, keys sorted: one changed byte shows."""
    form = json.dumps({key: value for key, value in manifest.items() if key != "digest"}, sort_keys=True)
    return hashlib.sha256(form.encode()).hexdigest()
