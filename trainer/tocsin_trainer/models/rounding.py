"""Weights that int8 can hold, chosen so that rounding them costs the outputs least.

A weight by itself is off by up to half a step. Where inputs go together, as the numbers of a window do, the errors of
hundreds of weights add up on the courses that all inputs share, and what should cancel does not. So weights are rounded
one after the other, and each one's error is made good by those that are still to come, as the covariance of the inputs
tells how (GPTQ: Frantar et al., ICLR 2023, after the optimal brain surgeon of Hassibi & Stork, 1993).
"""

import numpy as np

from tocsin.records import Floats

STEPS = 127  # from 0 to the largest weight of an output, as the converter counts them


def rounded(weights: Floats, covariance: Floats) -> Floats:
    """(D, M) multiples of a step, a step for each output, near the weights in what they give of such inputs.

    Args:
        weights: (D, M) of a layer y = weightsᵀ x.
        covariance: (D, D) of its inputs, positive definite.

    >>> weights, together = np.array([[1.0], [0.497]]), np.array([[1.0, 0.99], [0.99, 1.0]])
    >>> 127 * rounded(weights, together)[:, 0]
    array([127.,  63.])
    """
    step = np.abs(weights).max(axis=0) / STEPS
    step[step == 0] = 1.0
    passed_on = np.linalg.cholesky(np.linalg.inv(covariance)).T
    left, out = weights.copy(), np.empty_like(weights)
    for n in range(len(weights)):
        out[n] = np.clip(np.round(left[n] / step), -STEPS, STEPS) * step
        left[n + 1 :] -= np.outer(passed_on[n, n + 1 :] / passed_on[n, n], left[n] - out[n])
    return out
