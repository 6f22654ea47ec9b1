"""What variational autoencoders share: the noisy latent vector, the way from a decoder to a distribution, the cut.

```
training:   (T, C) ─ encoder ─┬─ latent (mean) ──┬─ z = mean + noise ─ decoder ─► (2T, C)
                              └─ log variance ───┘
on device:  (T, C) ─ encoder ─── latent (mean) ─────────────────────── decoder ─► (2T, C)
```
Kingma & Welling, Auto-Encoding Variational Bayes, 2014; the decoder tells how sure it is of each value, so that the
score is the reconstruction probability of An & Cho, 2015.
Rule: what follows `z` is one chain of layers, without branches, so that `cut_at_mean` can lay it behind the mean.
"""

import math
from typing import Any

import keras
from keras import ops

from tocsin.records import Floats32

MAX_LOG_VARIANCE = 10.0


@keras.saving.register_keras_serializable("tocsin")
class Sampling(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """Draws a latent vector from a normal distribution in training, and takes its mean otherwise.

    Input: mean (K, …) and log variance (K, …). Output: (K, …).
    Adds the divergence of the distribution from the standard normal one to the loss.

    Args:
        scale: factor on the divergence: 1 / numbers a window, where the rest of the loss is a mean over them.
        seed: of the noise.
    """

    def __init__(self, scale: float, seed: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.seed = scale, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, mean: Any, log_variance: Any, training: bool = False) -> Any:
        """The latent vector."""
        log_variance = ops.clip(log_variance, -MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        divergence = 0.5 * (ops.exp(log_variance) + ops.square(mean) - 1 - log_variance)
        self.add_loss(self.scale * math.prod(mean.shape[1:]) * ops.mean(divergence))
        if not training:
            return mean
        noise = keras.random.normal(ops.shape(mean), dtype=self.compute_dtype, seed=self.generator)
        return mean + ops.exp(0.5 * log_variance) * noise

    def get_config(self) -> dict[str, Any]:
        """For Keras to make it again."""
        return {**super().get_config(), "scale": self.scale, "seed": self.seed}


def sampled(mean: Any, log_variance: Any, window: Any, seed: int) -> Any:
    """`z` of a training graph whose input is `window` (T, C)."""
    _, length, channels = window.shape
    return Sampling(1.0 / (length * channels), seed, name="z")(mean, log_variance)


def distribution(pairs: Any) -> Any:
    """(T, 2·C) means and log standard deviations of each row → (2T, C): the means, then the others."""
    length, channels = pairs.shape[1], pairs.shape[2] // 2
    x = keras.layers.Reshape((length, 2, channels))(pairs)
    x = keras.layers.Permute((2, 1, 3))(x)
    return keras.layers.Reshape((2 * length, channels))(x)


def cut_at_mean(model: Any, _: Floats32) -> Any:
    """The model that scores: no noise, plain layers."""
    layers = model.layers
    x = model.get_layer("latent").output
    for layer in layers[layers.index(model.get_layer("z")) + 1 :]:
        x = layer(x)
    return keras.Model(model.input, x, name=model.name)
