"""Families of models, one file each.

Rules: input is (K, T, C) float32, standardised, and the output what `tocsin.core.scoring` says of the family's kind;
the model that scores is of Keras layers only, nothing of one backend, no layer of our own, so that a model trained
anywhere converts here; the model that is trained may have more, which `finish` takes off; every family keeps to the
conformance tests.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tocsin.records import Floats32
from tocsin_trainer.models import (
    adjusted_limits,
    conv_ae,
    conv_predictor,
    conv_vae,
    dense_ae,
    dense_vae,
    latent_ae,
    limits,
    losses,
    lstm_ae,
    lstm_predictor,
    pca,
    t2,
    vae,
)


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes:
        name: in manifests and on the command line.
        description: one line.
        build: (N, T, C) training windows and a seed → Keras model.
        epochs: at most; 0 where `build` solves and nothing is left to train.
        learning_rate: at the start.
        batch: windows a step, at most.
        recurrent: holds state from step to step.
        kind: how its output becomes a residual, see `tocsin.core.scoring`.
        loss: (windows (K, T, C), what the model gives of them) → number, 0 or more; or a name that Keras knows.
        finish: model as trained, windows it was trained on → the model that scores; None where they are the same.
        extremes: model, windows → windows on which int8 ranges have to be right too, beyond normal running.
        augment: what is done to its training windows where the user asks for nothing, of `AUGMENTATIONS`.
    """

    name: str
    description: str
    build: Callable[[Floats32, int], Any]
    epochs: int = 0
    learning_rate: float = 0.0
    batch: int = 64
    recurrent: bool = False
    kind: str = "reconstruct"
    loss: str | Callable[[Any, Any], Any] = "mse"
    finish: Callable[[Any, Floats32], Any] | None = None
    extremes: Callable[[Any, Floats32], Floats32] | None = None
    augment: tuple[str, ...] = ()


_variational: dict[str, Any] = {"kind": "probability", "loss": losses.deviance, "finish": vae.cut_at_mean}

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "t2",
            "Hotelling's T² with a shrunk covariance: linear, closed form",
            t2.build,
            kind="whiten",
            extremes=t2.extremes,
        ),
        Family("pca", "windowed principal components: linear, closed form", pca.build, extremes=pca.extremes),
        Family("pca_short", "the same of the later half of a window", pca.build_short, extremes=pca.extremes),
        Family("limits", "limits on each number of a window by itself", limits.build, kind="limits"),
        Family(
            "adjusted_limits",
            "limits on each number of a window, given all others: linear, closed form",
            adjusted_limits.build,
            kind="limits",
            extremes=adjusted_limits.extremes,
        ),
        Family("dense_ae", "dense autoencoder of the whole window", dense_ae.build, 60, 3e-3),
        Family("conv_ae", "1-D convolutional autoencoder", conv_ae.build, 60, 3e-3, augment=("mask", "drop")),
        Family("lstm_ae", "LSTM autoencoder", lstm_ae.build, 40, 1e-2, recurrent=True),
        Family("dense_vae", "variational dense autoencoder", dense_vae.build, 60, 3e-3, **_variational),
        Family("conv_vae", "variational 1-D convolutional autoencoder", conv_vae.build, 60, 3e-3, **_variational),
        Family(
            "conv_predictor",
            "causal dilated convolutions, one row ahead",
            conv_predictor.build,
            40,
            3e-3,
            loss=losses.last_rows,
        ),
        Family(
            "lstm_predictor",
            "LSTM, one row ahead",
            lstm_predictor.build,
            20,
            1e-2,
            recurrent=True,
            loss=losses.last_rows,
        ),
        Family(
            "latent_ae",
            "distance in the latent space of the convolutional autoencoder",
            latent_ae.build,
            60,
            3e-3,
            kind="whiten",
            finish=latent_ae.finish,
        ),
    )
}
