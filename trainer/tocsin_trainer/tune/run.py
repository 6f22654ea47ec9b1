"""A search from recordings to files: what it is of, how a choice is judged, and what is left behind."""

import json
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import yaml

from tocsin.errors import TocsinError
from tocsin_trainer import dataset as ds
from tocsin_trainer.convert import Converter
from tocsin_trainer.device_budget import DeviceBudget
from tocsin_trainer.options import TrainOptions
from tocsin_trainer.sheet import write_page
from tocsin_trainer.tune.blocks import BLOCKS, Judged, blocks, judged
from tocsin_trainer.tune.outcome import Outcome, Trial, outcome
from tocsin_trainer.tune.page import HONEST, page
from tocsin_trainer.tune.space import AUGMENT, AUTO, CLEAN, GIVEN, Choice, Space, space
from tocsin_trainer.tune.study import Judge, ended, opened, search

FRESH = 10  # choices, after which Keras and the converter begin anew: both keep every model


class Search:
    """One search, in one process; others may take part in it through the same file."""

    def __init__(self, options: TrainOptions, recordings: ds.Dataset, journal: Path) -> None:
        """Opens the study.

        Args:
            options: what the user asked for: what is given there is not searched.
            recordings: `options.data`, loaded.
            journal: file of the study.

        Raises:
            DataError: the recordings are too short.
            ConfigError: the file is of other recordings or settings.
        """
        self._data = ds.without_labels(recordings)
        self.space = space(self._data, options)
        self._budget = DeviceBudget(options.max_kib, options.max_ms)
        self._study = opened(journal, _subject(self._data, self.space))

    def look(self, trials: int, deadline: float | None, told: Callable[[Trial], None] = lambda _: None) -> None:
        """Runs trials.

        Args:
            trials: that the study holds at the end.
            deadline: of `time.monotonic`, after which none begins; None = none.
            told: of each trial of this process that ends.
        """
        with _judge(self._data, self.space) as judge:
            search(self._study, self.space, judge, BLOCKS, trials, deadline, self._budget, told)

    def outcome(self) -> Outcome:
        """Which settings to take, by all trials that have ended.

        Raises:
            GateError: nothing fits the budget.
        """
        return outcome(ended(self._study), self.space.default, self._budget)


def write(folder: Path, made: Outcome, space_: Space, kept: dict[str, Any]) -> None:
    """Leaves `tune.json`, `tune.html` and `asset.yaml` in the folder.

    Args:
        folder: is there.
        made: the search.
        space_: that was searched.
        kept: settings of the training file that stay as they are.
    """
    document = {
        "chosen": made.chosen.number,
        "default": None if made.default is None else made.default.number,
        "why": made.why,
        "front": [each.number for each in made.front],
        "budget": {"max_kib": made.budget.max_kib, "max_ms": made.budget.max_ms},
        "trials": [each.as_json() for each in made.trials],
    }
    write_page(folder / "tune.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    write_page(folder / "tune.html", page(made, space_.base.asset))
    write_page(folder / "asset.yaml", asset_yaml(made, space_, kept))


def asset_yaml(made: Outcome, space_: Space, kept: dict[str, Any]) -> str:
    """The chosen settings as `tocsin train --config` takes them."""
    choice = made.chosen.choice
    chosen = space_.options(choice)
    settings: dict[str, Any] = {"version": 1, **kept}
    settings |= {"families": list(chosen.families), "window": chosen.window, "hop": chosen.hop}
    shown = dict(settings.pop("preprocess", {}))
    if choice["features"] not in (AUTO, GIVEN):
        shown["features"] = [choice["features"]]
    if choice["scaling"] not in (AUTO, GIVEN):
        shown["scaling"] = choice["scaling"]
    if choice["clean"] not in (AUTO, GIVEN):
        shown["clean"] = [step.model_dump() for step in CLEAN[str(choice["clean"])] or ()]
    if shown:
        settings["preprocess"] = shown
    if choice.get("augment", GIVEN) not in (AUTO, GIVEN):
        settings["augment"] = list(AUGMENT[str(choice["augment"])] or ())
    words = [f"Made by tocsin tune, trial {made.chosen.number} of {len(made.trials)}: {made.why}."]
    words += [f"Detection {made.chosen.detection:.4f}, ± {made.chosen.spread:.4f} from block to block."]
    head = "".join(f"# {line}\n" for text in (*words, HONEST) for line in textwrap.wrap(text, 118))
    return head + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


@contextmanager
def _judge(data: ds.Dataset, found: Space) -> Iterator[Judge]:
    """Judges choices; the child that converts is kept from one to the next."""
    parts = blocks(data, max(found.windows), found.hop, found.base.seed)
    with ExitStack() as stack:
        converter = stack.enter_context(Converter())
        begun = 0

        def judge(choice: Choice, first: Judged | None, number: int) -> Judged:
            nonlocal converter, begun
            if first is None:
                begun += 1
                if begun % FRESH == 0:
                    stack.close()
                    keras.utils.clear_session()
                    converter = stack.enter_context(Converter())
            options = found.options(choice)
            options = replace(options, fitting=replace(options.fitting, work=None))
            return judged(parts[number], data, options, converter, () if first is None else first.rungs)

        yield judge


def _subject(data: ds.Dataset, found: Space) -> dict[str, Any]:
    """What a study is of, as far as its figures depend on it."""
    base = found.base
    try:
        files = [[path.name, path.stat().st_size] for path in base.files]
    except OSError as error:
        raise TocsinError(f"{error.filename}: cannot be read: {error.strerror}") from error
    joined = {} if data.groups is None else {"groups": data.groups.to_json()}
    return {
        **joined,
        "recordings": [*files, len(data), [channel.name for channel in data.channels], data.sample_rate_hz],
        "search": {**found.knobs, "hop": found.hop},
        "settings": {
            "seed": base.seed,
            "epochs": base.epochs,
            "inputs": repr(base.inputs),
            "fitting": repr(replace(base.fitting, work=None, resume=False, track=None)),
            "weights": dict(base.channel_weights),
        },
    }
