"""Variances in closed form: of leave-one-out from moments, and of five estimators for a sum of squares.

The squares are f(z) = (1/D) Σ_j (z_j − t)² under Bernoulli variables that share one p. With c = (1 − 2t)/D
and s = p(1 − p) f is its mean plus c Σ_j (z_j − p). The gradient in a logit is cs, and variances are those in
one logit.
"""

from __future__ import annotations

from typing import NamedTuple


class Setting(NamedTuple):
    """D variables with probability p, and the target t."""

    p: float
    t: float
    size: int

    @property
    def slope(self) -> float:
        """What f gains where one variable becomes 1: c."""
        return (1 - 2 * self.t) / self.size

    @property
    def spread(self) -> float:
        """Variance of one variable: s."""
        return self.p * (1 - self.p)

    @property
    def value(self) -> float:
        """E f."""
        return self.t**2 + self.slope * self.size * self.p

    @property
    def gradient(self) -> float:
        """∂ E f in one logit."""
        return self.slope * self.spread


def score_function(at: Setting, samples: int = 1, baseline: float = 0.0) -> float:
    """Of (f − b)(z_i − p): with a = E f − b, a² s + 2ac E(z − p)³ + c² (E(z − p)⁴ + (D − 1)s²) − c²s²."""
    a, c, s = at.value - baseline, at.slope, at.spread
    third, fourth = s * (1 - 2 * at.p), s * (1 - 3 * s)
    second = a**2 * s + 2 * a * c * third + c**2 * (fourth + (at.size - 1) * s**2)
    return (second - at.gradient**2) / samples


def leave_one_out(at: Setting) -> float:
    """Of ½ (f − f')(z_i − z_i'), two samples: ¼c²(v + (D − 1)v²) − c²s², v = 2s = P(z_i ≠ z_i')."""
    v = 2 * at.spread
    return at.slope**2 / 4 * (v + (at.size - 1) * v**2) - at.gradient**2


def arm(at: Setting) -> float:
    """Of (f − f̃)(u_i − ½), one antithetic pair.

    c² (E[(u − ½)²; z ≠ z̃] + (D − 1) r E(u − ½)²) − c²s², where z ≠ z̃ for |u − ½| > ½ − m, m = min(p, 1 − p),
    which has probability r = 2m.
    """
    m = min(at.p, 1 - at.p)
    own = 2 / 3 * (0.5**3 - (0.5 - m) ** 3)
    return at.slope**2 * (own + (at.size - 1) * 2 * m / 12) - at.gradient**2


def disarm(at: Setting) -> float:
    """Of ½ (f − f̃)(z_i − z̃_i) w, one antithetic pair.

    ¼c²w²(r + (D − 1)r²) − c²s², w = max(p, 1 − p), r = P(z_i ≠ z̃_i) = 2 min(p, 1 − p).
    """
    w, r = max(at.p, 1 - at.p), 2 * min(at.p, 1 - at.p)
    return at.slope**2 / 4 * w**2 * (r + (at.size - 1) * r**2) - at.gradient**2


def sample_covariance(both: float, product: float, apart: float, samples: int) -> float:
    """Variance of the sample covariance of f and the score, which leave-one-out is, n samples.

    μ₂₂/n − (n − 2)/(n(n − 1)) μ₁₁² + μ₂₀ μ₀₂/(n(n − 1)).

    Args:
        both: μ₂₂, a central moment of f and score.
        product: μ₁₁.
        apart: μ₂₀ μ₀₂.
        samples: n.
    """
    n = samples
    return both / n - (n - 2) / (n * (n - 1)) * product**2 + apart / (n * (n - 1))
