"""A chosen candidate → a bundle, read back and tested by the agent's own code."""

import hashlib
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tocsin import __version__
from tocsin.alarms.detector import AlarmRule
from tocsin.core.bundle import SUFFIX, Bundle, Golden, write_bundle
from tocsin.core.groups import RateGroups, one_group
from tocsin.core.interpreter import runtime_id
from tocsin.core.modes import Modes
from tocsin.core.scoring import Member, Scorer
from tocsin.errors import GateError
from tocsin.records import Channel, Floats
from tocsin_trainer.card import model_card
from tocsin_trainer.results import TrainingResult

if TYPE_CHECKING:
    from tocsin_trainer.convert import Converted  # its module loads Keras, and commands that only score need none

GOLDEN_WINDOWS = 16


@dataclass(frozen=True)
class MemberModel:
    """One member of a bundle to come.

    Attributes:
        family: name in `tocsin_trainer.models.FAMILIES`.
        converted: its files.
        member: as the agent will run it.
    """

    family: str
    converted: "Converted"
    member: Member


@dataclass(frozen=True)
class Grid:
    """How samples become windows.

    Attributes:
        channels: in the order of the columns.
        sample_rate_hz: rows a second.
        max_gap_s: longest stretch over which values are held.
        length: rows a window.
        hop: rows between windows.
        smoothing: span of the mean over scores, windows; 1 = none.
        modes: what tells a window's operating mode, or None where there is one.
        weights: of the channels, mean 1; () = all alike.
        groups: of which the columns are made; None = all channels are one group.
    """

    channels: tuple[Channel, ...]
    sample_rate_hz: float
    max_gap_s: float
    length: int
    hop: int
    smoothing: int = 1
    modes: Modes | None = None
    weights: tuple[float, ...] = ()
    groups: RateGroups | None = None

    @property
    def channel_weights(self) -> Floats:
        """(C,) mean 1."""
        return np.array(self.weights) if self.weights else np.ones(len(self.channels))

    @property
    def dense(self) -> "Grid":
        """The same with windows more often, where scores stand for themselves: more of them tell more of a limit."""
        alone = self.smoothing == 1 and self.hop < self.length
        return replace(self, hop=min(self.hop, max(1, self.length // 16))) if alone else self


def golden_vectors(scorer: Scorer, normal: Floats, injected: Floats) -> Golden:
    """Windows over the whole range of scores, and what the converted model says of them.

    Args:
        scorer: of the bundle to come.
        normal: (N, T, C) windows of the training part, engineering units.
        injected: (M, T, C) windows of the calibration part with made-up anomalies, so that decisions on both sides of
            the limit are replayed.
    """
    quarter = GOLDEN_WINDOWS // 4
    picked = []
    for windows, count in ((normal, 3 * quarter), (injected, quarter)):
        order = np.argsort(scorer.score(windows).value, kind="stable")
        picked.append(windows[order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]])
    chosen = np.ascontiguousarray(np.concatenate(picked), np.float64)
    return Golden(chosen, scorer.score(chosen).value, runtime_id())


def export(
    folder: Path,
    result: TrainingResult,
    grid: Grid,
    members: tuple[MemberModel, ...],
    golden: Golden,
    rule: AlarmRule,
    data: tuple[Path, ...],
    combination: str = "mean",
) -> Bundle:
    """Writes `<asset>-<version>.tocsin` and replays its golden vectors.

    `combination` is how the members' scores become one, see `tocsin.core.scoring`.

    Raises:
        GateError: the bundle does not reproduce its own golden vectors.
    """
    files = tuple((path.name, _sha256(path)) for path in data)
    manifest = _manifest(result, grid, members, rule, files, combination)
    models = {}
    for each in members:
        models[f"{each.family}.tflite"] = each.converted.content
        if each.converted.batch_content is not None:
            models[f"{each.family}.batch.tflite"] = each.converted.batch_content
    path = folder / f"{result.asset}-{result.version}{SUFFIX}"
    bundle = write_bundle(path, manifest, models, golden, model_card(result, files))
    test = bundle.self_test()
    if not test.passed:
        raise GateError(f"{path}: the bundle does not reproduce its golden vectors (worst difference {test.worst:.2%})")
    return bundle


def _manifest(
    result: TrainingResult,
    grid: Grid,
    members: tuple[MemberModel, ...],
    rule: AlarmRule,
    files: tuple[tuple[str, str], ...],
    combination: str,
) -> dict[str, Any]:
    candidate = result.chosen
    return {
        "name": result.asset,
        "version": result.version,
        "created": result.created,
        **(grid.groups or one_group(grid.channels, grid.sample_rate_hz, grid.max_gap_s)).to_json(),
        "window": {"length": grid.length, "hop": grid.hop},
        "members": [_member(each) for each in members],
        "score": {
            "reduction": "mean_square",
            "channel_weights": grid.channel_weights.tolist(),
            "combination": combination,
            "smoothing": {
                "method": "geometric_ewma" if grid.modes is None else "geometric_ewma_by_mode",
                "span": grid.smoothing,
            },
        },
        **({} if grid.modes is None else {"modes": grid.modes.to_json(tuple(c.name for c in grid.channels))}),
        "threshold": candidate.threshold.to_json(),
        "alarm": rule.to_json(),
        **({} if result.quality is None else {"quality": result.quality.normal.to_json()}),
        "evaluation": {
            "separation": candidate.separation,
            "gate": {
                "correlation": candidate.gate.correlation,
                "agreement": candidate.gate.agreement,
                "auc_float": candidate.gate.auc_float,
                "auc_converted": candidate.gate.auc_converted,
                "distortion": candidate.gate.distortion,
                "passed": candidate.gate.passed,
                "reason": candidate.gate.reason,
            },
            "figures": candidate.figures,
        },
        "training": {
            "code_version": __version__,
            "seed": result.seed,
            "rows": result.rows,
            "data": [{"file": name, "sha256": digest} for name, digest in files],
            "python": platform.python_version(),
        },
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _member(each: MemberModel) -> dict[str, Any]:
    converted, member = each.converted, each.member
    return {
        "name": each.family,
        "family": each.family,
        "kind": member.kind,
        "file": f"{each.family}.tflite",
        "batch_file": None if converted.batch_content is None else f"{each.family}.batch.tflite",
        "precision": converted.precision,
        "headroom": converted.headroom,
        "bytes": len(converted.content),
        "normaliser": member.normaliser,
        "weight": member.weight,
        "input_range": member.input_range,
        "preprocess": member.preprocessor.to_json(),
        "input_shape": list(member.model.input_shape),
        "output_shape": list(member.model.output_shape),
    }
