"""Frequencies at which the parts of a rolling bearing meet a defect.

Randall and Antoni, "Rolling element bearing diagnostics: a tutorial", Mech. Syst. Signal Process. 25 (2011).
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bearing:
    """Geometry of a bearing whose inner race turns.

    Attributes:
        balls: number of rolling elements.
        ball_mm: their diameter.
        pitch_mm: diameter of the circle of their centres.
        angle_deg: contact angle.
    """

    balls: int
    ball_mm: float
    pitch_mm: float
    angle_deg: float = 0.0

    @property
    def _ratio(self) -> float:
        return self.ball_mm / self.pitch_mm * math.cos(math.radians(self.angle_deg))

    @property
    def ftf(self) -> float:
        """Turns of the cage in a turn of the shaft."""
        return (1 - self._ratio) / 2

    @property
    def bpfo(self) -> float:
        """Balls that pass a point of the outer race in a turn of the shaft."""
        return self.balls * self.ftf

    @property
    def bpfi(self) -> float:
        """Balls that pass a point of the inner race in a turn of the shaft."""
        return self.balls * (1 + self._ratio) / 2

    @property
    def bsf(self) -> float:
        """Turns of a ball in a turn of the shaft; its defect meets a race twice in each."""
        return self.pitch_mm / (2 * self.ball_mm) * (1 - self._ratio**2)


DRIVE_END = Bearing(balls=8, ball_mm=17.46, pitch_mm=72.5)
