"""Rainforth et al. 2018: signal-to-noise ratio of the importance-weighted gradient, in φ and in θ."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ....estimators.base import Target
from ...problems.layers import weights_from
from ...variance.measure import measure_variance
from ...variance.signal import Interval
from .result import Claim, Curve, Panel, Reproduction

_DIMENSION = 20
_DATA = 16
_VARIANCE = 2 / 3  # of q; the true posterior's is 1/2
_DISTANCE = 0.01
_SAMPLES = (1, 4, 16, 64, 256)
_LAWS = {"phi": -0.5, "theta": 0.5}
_TOLERANCE = 0.1


class GaussianModel:
    """p(z) = N(μ, I), p(x|z) = N(z, I), q(z|x) = N(A x + b, ⅔ I); φ = (A, b), θ = μ.

    The best A and b are I/2 and μ/2; all parameters start at a distance of N(0, 0.01²) from theirs.
    """

    def __init__(self, seed: int = 0) -> None:
        with weights_from(seed):
            mean = torch.randn(_DIMENSION)
            self.data = mean + math.sqrt(2) * torch.randn(_DATA, _DIMENSION)
            self.encoder: nn.Module = nn.Linear(_DIMENSION, _DIMENSION)
            self.decoder: nn.Module = _Mean(mean + _DISTANCE * torch.randn(_DIMENSION))
            with torch.no_grad():
                assert isinstance(self.encoder, nn.Linear)
                self.encoder.weight.copy_(torch.eye(_DIMENSION) / 2)
                self.encoder.bias.copy_(mean / 2)
                for parameter in self.encoder.parameters():
                    parameter.add_(_DISTANCE * torch.randn_like(parameter))

    def posterior(self, eta: Tensor) -> Distribution:
        """N(eta, ⅔ I) for eta (*batch, D)."""
        scale = torch.full_like(eta, math.sqrt(_VARIANCE))
        return Independent(Normal(eta, scale, validate_args=False), 1, validate_args=False)

    def target(self, x: Tensor) -> Target:
        """log N(x; z, I) and the prior N(μ, I)."""
        mean = self.decoder()
        prior = Independent(Normal(mean, torch.ones_like(mean), validate_args=False), 1, validate_args=False)
        constant = 0.5 * _DIMENSION * math.log(2 * math.pi)
        return Target(lambda z: -0.5 * (x - z).square().sum(-1) - constant, prior)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """The data, x (B, D)."""
        yield self.data[:batch_size]


class _Mean(nn.Module):
    def __init__(self, mean: Tensor) -> None:
        super().__init__()
        self.mean = nn.Parameter(mean)

    def forward(self) -> Tensor:
        return self.mean


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Measure the debiased ratio over K, and fit its slope on a log-log scale."""
    replicates = 200 if quick else 2000
    sizes = _SAMPLES[:4] if quick else _SAMPLES
    problem = GaussianModel(seed)
    found: dict[str, list[tuple[int, Interval]]] = {}
    for wrt in _LAWS:
        for k in sizes:
            v = measure_variance(
                problem, "iwae", problem.data, num_samples=k, replicates=replicates, seed=seed, wrt=wrt
            )
            assert v.signal is not None
            found.setdefault(wrt, []).append((k, v.signal.snr))
    names = {"phi": "φ = (A, b)", "theta": "θ = μ"}
    return Reproduction(
        "importance-weighted-snr",
        "Rainforth et al., Tighter Variational Bounds Are Not Necessarily Better, 2018, theorem 1 and "
        "section 4",
        f"D = {_DIMENSION}, {_DATA} data, {replicates:,} estimates a point, M = 1; ratios ‖E ĝ‖ / √tr "
        f"Cov(ĝ), "
        "debiased, with 95% intervals.",
        [_law(wrt, names[wrt], found[wrt]) for wrt in _LAWS],
        [_panel(names[wrt], _LAWS[wrt], found[wrt]) for wrt in _LAWS],
        "The paper takes the ratio parameter by parameter, and 1,024 data; here it is that of the whole "
        "gradient.",
        "law, through one of the points",
    )


def _law(wrt: str, name: str, measured: list[tuple[int, Interval]]) -> Claim:
    slope, error = _slope(measured)
    law = _LAWS[wrt]
    return Claim(
        f"signal-to-noise ratio in {name} ~ K^{law:+g}",
        f"slope {slope:.3f} ± {1.96 * error:.3f}",
        f"{law:+g}, to {_TOLERANCE:g} or the interval",
        abs(slope - law) <= max(_TOLERANCE, 1.96 * error),
    )


def _slope(measured: list[tuple[int, Interval]]) -> tuple[float, float]:
    """Weighted least squares of log SNR on log K, beyond K = 1, with its standard error."""
    used = [(k, r) for k, r in measured if k > 1 and r.low > 0]
    x = np.log([k for k, _ in used])
    y = np.log([r.value for _, r in used])
    error = np.array([math.log(r.high / r.low) / (2 * 1.96) for _, r in used])
    weights = 1 / error**2
    centre = (weights @ x) / weights.sum()
    spread = float(weights @ (x - centre) ** 2)
    return float((weights * (x - centre)) @ y / spread), spread**-0.5


def _panel(name: str, law: float, measured: list[tuple[int, Interval]]) -> Panel:
    shown = [(k, r) for k, r in measured if r.value > 0]
    k0, r0 = shown[len(shown) // 2]
    ks = [float(k) for k, _ in shown]
    return Panel(
        name,
        "K",
        "signal-to-noise ratio",
        [
            Curve("iwae", ks, [r0.value * (k / k0) ** law for k in ks], exact=True),
            Curve(
                "iwae",
                ks,
                [r.value for _, r in shown],
                [max(r.low, 1e-3 * r.value) for _, r in shown],
                [r.high for _, r in shown],
            ),
        ],
    )
