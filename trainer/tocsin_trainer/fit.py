"""Training windows → a float model.

Rules: the same seed gives the same weights; an epoch sees a bounded number of windows, so that time does not grow with
the recording; the weights of the best validation loss are kept.
"""

import time
from collections.abc import Callable

import keras
import numpy as np

from tocsin.records import Floats32
from tocsin_trainer.models import FAMILIES
from tocsin_trainer.results import Fitted

EPOCH_WINDOWS = 2048
VALIDATION_WINDOWS = 512
PATIENCE = 6  # epochs without a better validation loss before the end, half of it before a smaller step
MIN_GAIN = 0.005  # part by which a loss must fall to count as better


def fit(
    family: str,
    train: Floats32,
    validation: Floats32,
    seed: int,
    epochs: int | None = None,
    progress: Callable[[int, int, float, float], None] | None = None,
) -> Fitted:
    """Fits one family.

    Args:
        family: name in `FAMILIES`.
        train: (N, T, C) normal, standardised.
        validation: (M, T, C) the same, of another time.
        seed: of everything drawn.
        epochs: at most; None for the family's own number.
        progress: told (epoch, epochs, training loss, validation loss) after each epoch.
    """
    started = time.perf_counter()
    kind = FAMILIES[family]
    model = kind.build(train, seed)
    rng = np.random.default_rng(seed)
    validation = validation[np.sort(rng.permutation(len(validation))[:VALIDATION_WINDOWS])]
    losses: list[tuple[float, float]] = []
    if kind.epochs:
        model.compile(keras.optimizers.Adam(kind.learning_rate, clipnorm=1.0), kind.loss, jit_compile=False)
        batch = max(1, min(kind.batch, len(train) // 8))
        best, best_weights, stale = np.inf, model.get_weights(), 0
        total = kind.epochs if epochs is None else epochs
        for epoch in range(total):
            model.reset_metrics()
            order = rng.permutation(len(train))[:EPOCH_WINDOWS]
            for start in range(0, len(order) - batch + 1, batch):
                windows = train[order[start : start + batch]]
                loss = model.train_on_batch(windows, windows)
            model.reset_metrics()
            losses.append((float(loss), float(model.test_on_batch(validation, validation))))
            if progress is not None:
                progress(epoch + 1, total, *losses[-1])
            if losses[-1][1] < best * (1 - MIN_GAIN):
                best, best_weights, stale = losses[-1][1], model.get_weights(), 0
                continue
            stale += 1
            if stale == PATIENCE:
                break
            if stale == PATIENCE // 2:
                model.optimizer.learning_rate = model.optimizer.learning_rate / 3
        model.set_weights(best_weights)
    if kind.finish is not None:
        model = kind.finish(model, train)
    train_loss, validation_loss = np.asarray(losses, np.float64).reshape(-1, 2).T
    return Fitted(family, model, train_loss, validation_loss, time.perf_counter() - started)
