"""A threshold from scores of normal running that the model was not fitted on."""

from dataclasses import dataclass

from tocsin.core.threshold import Threshold, mu_sigma, quantile
from tocsin.errors import ConfigError
from tocsin.records import Floats

METHODS = ("mu_sigma", "quantile", "fixed")


@dataclass(frozen=True)
class ThresholdRule:
    """How the limit is found.

    Attributes:
        method: one of METHODS.
        k: of mu_sigma.
        q: of quantile.
        margin: of quantile: factor on top, for what a finite sample has not shown.
        value: of fixed.
    """

    method: str = "mu_sigma"
    k: float = 5.0
    q: float = 0.999
    margin: float = 1.25
    value: float | None = None

    def limit(self, scores: Floats) -> Threshold:
        """The limit for these calibration scores.

        Raises:
            ConfigError: `fixed` without a value above 0, or an unknown method.
        """
        if self.method == "mu_sigma":
            return mu_sigma(scores, self.k)
        if self.method == "quantile":
            return quantile(scores, self.q, self.margin)
        if self.method == "fixed" and self.value is not None and self.value > 0:
            return Threshold(self.value)
        raise ConfigError(
            f"threshold method {self.method!r}: expected one of {', '.join(METHODS)}; fixed needs a value above 0"
        )
