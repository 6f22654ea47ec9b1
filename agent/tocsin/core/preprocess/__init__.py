"""Windows in engineering units → what a model sees, by named steps with frozen constants.

```
(K, T, C) float64 ─ despike … ──────────────── standardise ─ limit ──► (K, T, C) float32    the signal itself
(K, T, C) float64 ─ despike … ─ level_unrest ─ standardise ─ limit ──► (K, 2·S, C)          its level and unrest
(K, T, C) float64 ───────────── log_spectrum ─ standardise ─ limit ──► (K, B + 1, C)        its spectrum
(K, T, C) float64 ───────────── stack ──────── standardise ─ limit ──► (K, rows, C)         features side by side
                 cleaning,      features       scaling
                 denoising
```
Rules: nothing here fits anything; the last axis stays the channels, so that a score can be split over them; a step
looks at each window by itself; a step whose meaning changes gets a new name; each step reads and writes the manifest's
form `{"step": NAME, …constants}`.
"""

from tocsin.core.preprocess.cleaning import Clip, Despike
from tocsin.core.preprocess.denoising import Ewma, RunningMedian, SavitzkyGolay
from tocsin.core.preprocess.pipeline import STEPS, Preprocessor, Stack
from tocsin.core.preprocess.scaling import Limit, Standardise
from tocsin.core.preprocess.spectrum import BandEnergies, EnvelopeSpectrum, LogMel, LogSpectrum
from tocsin.core.preprocess.statistic import LevelUnrest, Moments, WindowStatistics
from tocsin.core.preprocess.step import MAX_WIDTH, Filter, Step
from tocsin.core.preprocess.trend import Detrend, Difference

__all__ = [
    "MAX_WIDTH",
    "STEPS",
    "BandEnergies",
    "Clip",
    "Despike",
    "Detrend",
    "Difference",
    "EnvelopeSpectrum",
    "Ewma",
    "Filter",
    "LevelUnrest",
    "Limit",
    "LogMel",
    "LogSpectrum",
    "Moments",
    "Preprocessor",
    "RunningMedian",
    "SavitzkyGolay",
    "Stack",
    "Standardise",
    "Step",
    "WindowStatistics",
]
