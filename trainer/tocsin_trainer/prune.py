"""Weights that matter little, set to zero while the network trains.

The smallest of each kernel go first; their part grows as 1 − (1 − t)³ over the first half of the epochs, and the
network learns to do without them (Zhu & Gupta, ICLR workshop 2018). Biases stay.
Rules: what is zero stays zero, so the weights alone say what is pruned and nothing else has to be kept in a checkpoint.
"""

from typing import Any

import numpy as np

from tocsin.records import Bools, Floats


class Pruner:
    """Holds the zeros of one model.

    Args:
        model: a Keras model.
        part: of each kernel that ends at zero, 0 to below 1; 0: nothing is done.
    """

    def __init__(self, model: Any, part: float) -> None:
        self._part = part
        self._kernels = [weight for weight in model.trainable_weights if len(weight.shape) > 1] if part else []
        self._kept: list[Bools] = []

    def tighten(self, epoch: int, epochs: int) -> bool:
        """Chooses the zeros of this epoch, the first being 0; true once their part is the final one."""
        if not self._kernels:
            return True
        course = min(1.0, (epoch + 1) / max(1, epochs // 2))
        part = self._part * (1 - (1 - course) ** 3)
        self._kept = [_largest(np.asarray(kernel.numpy()), 1 - part) for kernel in self._kernels]
        self.apply()
        return course == 1.0

    def apply(self) -> None:
        """Sets them to zero again, after a training step."""
        for kernel, kept in zip(self._kernels, self._kept, strict=True):
            kernel.assign(kernel * kept.astype(np.float32))


def sparsity(model: Any) -> float:
    """Part of the numbers in kernels that are zero."""
    kernels = [weight for weight in model.get_weights() if weight.ndim > 1]
    kept: int = sum(int(np.count_nonzero(kernel)) for kernel in kernels)
    total: int = sum(kernel.size for kernel in kernels)
    return 1 - kept / total


def _largest(kernel: Floats, part: float) -> Bools:
    """True for this part of the kernel, those furthest from zero; one at least."""
    count = max(1, round(part * kernel.size))
    order = np.argsort(np.abs(kernel), axis=None, kind="stable")
    kept = np.zeros(kernel.size, np.bool_)
    kept[order[-count:]] = True
    return kept.reshape(kernel.shape)
