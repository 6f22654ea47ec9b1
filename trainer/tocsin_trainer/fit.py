"""Training windows → a float model.

```
each epoch: draw windows → each batch: augment → step → zeros again → validate → log → checkpoint
```
Rules: the same seed gives the same weights, in one go or resumed; an epoch sees a bounded number of windows, so that
time does not grow with the recording; the weights of the best validation loss are kept, on windows as they are; what
comes out is float32, whatever it was trained in or on.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tocsin.records import Floats32
from tocsin_trainer.augment import augmented
from tocsin_trainer.checkpoint import Checkpoint, Course, digest
from tocsin_trainer.hardware import Devices, number_format, uses_float16
from tocsin_trainer.models import FAMILIES, Family
from tocsin_trainer.options import FitOptions
from tocsin_trainer.prune import Pruner
from tocsin_trainer.results import Fitted
from tocsin_trainer.trackers import Tracker, Untracked

EPOCH_WINDOWS = 2048
VALIDATION_WINDOWS = 512
PATIENCE = 6  # epochs without a better validation loss before the end, half of it before a smaller step
MIN_GAIN = 0.005  # part by which a loss must fall to count as better
WARM_UP = 3  # epochs, of the cosine
CLIP = 1.0  # longest gradient of one weight array

Progress = Callable[[int, int, float, float], None]
"""Told (epoch, epochs, training loss, validation loss) after each epoch."""


def fit(
    family: str,
    train: Floats32,
    validation: Floats32,
    seed: int,
    epochs: int | None = None,
    progress: Progress | None = None,
    *,
    how: FitOptions = FitOptions(),  # noqa: B008 - frozen
    tracker: Tracker = Untracked(),  # noqa: B008 - holds nothing
) -> Fitted:
    """Fits one family.

    Args:
        family: name in `FAMILIES`.
        train: (N, T, C) normal, standardised.
        validation: (M, T, C) the same, of another time.
        seed: of everything drawn.
        epochs: at most; None for the family's own number.
        progress: told how far it is.
        how: what the user asked for.
        tracker: keeps the losses and the learning rate of each epoch.
    """
    started = time.perf_counter()
    kind = FAMILIES[family]
    rng = np.random.default_rng(seed)
    held_back = validation[np.sort(rng.permutation(len(validation))[:VALIDATION_WINDOWS])]
    total = kind.epochs if epochs is None else epochs
    course = Course()
    if kind.epochs:
        model, course = _trained(kind, train, held_back, seed, total, progress, how, tracker)
    else:
        model = kind.build(train, seed)
    if kind.finish is not None:
        model = kind.finish(model, train)
    train_loss, validation_loss = np.asarray(course.losses, np.float64).reshape(-1, 2).T
    return Fitted(family, model, train_loss, validation_loss, time.perf_counter() - started)


def _trained(
    kind: Family,
    train: Floats32,
    validation: Floats32,
    seed: int,
    epochs: int,
    progress: Progress | None,
    how: FitOptions,
    tracker: Tracker,
) -> tuple[Any, Course]:
    """A model with the best weights found, and how it went."""
    devices, float16 = Devices(how.devices), uses_float16(how.mixed_precision)
    kinds = kind.augment if how.augment is None else how.augment
    model = _compiled(kind, train, seed, devices, float16)
    batch = max(1, min(kind.batch, len(train) // 8) // devices.count) * devices.count
    pruner = Pruner(model, how.prune)
    same = replace(how, work=None, resume=False, track=None)  # where it is kept does not decide how it ends
    name = digest(train, validation, kind.name, seed, epochs, same)
    checkpoint = Checkpoint(how.work, f"{kind.name}-{name}")
    course = (checkpoint.load(model) if how.resume else None) or Course()
    for epoch in range(len(course.losses), epochs):
        if course.over:
            break
        if how.schedule == "cosine":
            model.optimizer.learning_rate = kind.learning_rate * cosine(epoch, epochs)
        counts = pruner.tighten(epoch, epochs)
        rng = np.random.default_rng((seed, epoch))
        order = rng.permutation(len(train))[:EPOCH_WINDOWS]
        loss = []
        for start in range(0, len(order) - batch + 1, batch):
            shown, wanted = augmented(train[np.sort(order[start : start + batch])], kinds, rng)
            loss.append(float(model.train_on_batch(devices.share(shown), devices.share(wanted))))
            pruner.apply()
        course.losses.append((float(np.mean(loss)), float(model.test_on_batch(validation, validation))))
        rate = _rate(model)
        if counts:
            _judge(course, model, patient=how.schedule == "cosine")
        course.over = course.over or epoch + 1 == epochs
        checkpoint.save(model, course)
        if progress is not None:
            progress(epoch + 1, epochs, *course.losses[-1])
        shown_loss, held_back_loss = course.losses[-1]
        values = {"loss": shown_loss, "validation_loss": held_back_loss, "learning_rate": rate}
        tracker.log(epoch + 1, {f"{kind.name}/{key}": value for key, value in values.items()})
    if float16 or devices.count > 1:
        weights = course.weights or model.get_weights()
        with number_format(float16=False):
            model = kind.build(train, seed)
        model.set_weights(weights)
    elif course.weights:
        model.set_weights(course.weights)
    return model, course


def _compiled(kind: Family, train: Floats32, seed: int, devices: Devices, float16: bool) -> Any:
    with devices.scope(), number_format(float16):
        model = kind.build(train, seed)
        optimizer = keras.optimizers.Adam(kind.learning_rate, clipnorm=CLIP)
        # XLA is what makes JAX fast; on TensorFlow it takes longer to compile than such small networks to train.
        model.compile(optimizer, kind.loss, jit_compile=keras.backend.backend() == "jax")
    model.test_on_batch(train[:1], train[:1])  # makes what compiling leaves for the first batch
    return model


def _judge(course: Course, model: Any, *, patient: bool) -> None:
    """Keeps the weights of a better epoch; after some worse ones a smaller step, and then the end."""
    loss = course.losses[-1][1]
    if loss < course.best * (1 - MIN_GAIN):
        course.best, course.weights, course.stale = loss, model.get_weights(), 0
        return
    course.stale += 1
    if patient:
        return
    course.over = course.stale >= PATIENCE
    if course.stale == PATIENCE // 2:
        model.optimizer.learning_rate = _rate(model) / 3


def _rate(model: Any) -> float:
    return float(model.optimizer.learning_rate.numpy())


def cosine(epoch: int, epochs: int) -> float:
    """Factor on the learning rate: up in three epochs, then down along half a cosine (Loshchilov & Hutter, ICLR 2017).

    >>> [round(cosine(epoch, 10), 2) for epoch in (0, 2, 3, 6, 9)]
    [0.33, 1.0, 1.0, 0.61, 0.05]
    """
    if epoch < WARM_UP:
        return (epoch + 1) / WARM_UP
    return (1 + math.cos(math.pi * (epoch - WARM_UP) / max(1, epochs - WARM_UP))) / 2
