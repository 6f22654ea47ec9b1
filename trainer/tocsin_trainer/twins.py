"""Networks trained once more from another seed: whether their scores are the machine's, or luck."""

from dataclasses import replace

import numpy as np

from tocsin.core.scoring import Scorer
from tocsin.core.threshold import Threshold
from tocsin.records import Floats
from tocsin_trainer.build import Built, Parts, Run, fitted
from tocsin_trainer.convert import Converter
from tocsin_trainer.ranking import agreement
from tocsin_trainer.trackers import Untracked


def twins_agree(network: Built, parts: Parts, converter: Converter, run: Run) -> float:
    """Rank correlation, 0 to 1, of the float scores of two seeds, on normal windows and made-up anomalies.

    Args:
        network: as it was trained.
        parts: windows that it was trained and is judged on.
        converter: of the run.
        run: of which it is a step; costs as long as the first training took.
    """
    run.progress("second seed", 0, 1, network.family)
    options = run.options
    fitting = replace(options.fitting, work=None, resume=False)
    other = replace(run, options=replace(options, seed=options.seed + 1, fitting=fitting), tracker=Untracked())
    model, preprocessor, shown = fitted(network.family, parts.fit, parts.validation, other)
    converter.add(model, shown)
    exact = converter.convert(model, "float32")
    twin = replace(network, fitted=model, preprocessor=preprocessor, exact=exact)
    return agreement(*(_scores(each, parts, run) for each in (network, twin)))


def _scores(each: Built, parts: Parts, run: Run) -> Floats:
    scorer = Scorer((each.member(exact=True),), run.grid.channel_weights, Threshold(1.0))
    return np.concatenate([scorer.score(windows).value for windows in (parts.calibration, parts.injected)])
