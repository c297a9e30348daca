"""The factorized route: replicates in η-space, the encoder's Jacobian once.

Given η the data of a batch are independent, so tr Cov(ĝ) = (1/B²) Σ_i tr(C_i K_i), C_i = Cov(h_i)
and K_i = J_i J_iᵀ. Each replicate gives each datum one contribution (h − a)ᵀ K_i (h − a).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..estimators.base import Estimator
from ..estimators.errors import EstimatorError, UsageError
from .chunks import chunk_size
from .evaluation import check_estimate, count_evaluations, eta_gradients
from .jacobians import encoder_jacobian, pull_back, push_forward
from .moments import ContributionSums, VectorSums, in_float64
from .problems.protocol import Problem
from .statistics import Moments

_PILOT = 512  # replicates whose mean becomes the centre
_PILOT_ELEMENTS = 2**23
_POWER_ITERATIONS = 50


class FactorizedRoute:
    """Streams replicates of h and keeps sums alone; memory does not depend on their number.

    Args:
        problem: θ frozen.
        estimator: prepared, couples no data.
        x: (B, ...).
        num_samples: S.
        chunk: replicates at a time; None to choose from the sizes at hand.

    Raises:
        UsageError: the encoder does not treat each datum alone.
        DirectPathError: the surrogate reaches φ other than through eta.
    """

    name = "factorized"

    def __init__(
        self, problem: Problem, estimator: Estimator, x: Tensor, num_samples: int, chunk: int | None
    ) -> None:
        self.problem, self.estimator, self.x, self.num_samples = problem, estimator, x, num_samples
        self.target = problem.target(x)
        with torch.no_grad():
            self.eta = problem.encoder(x)
        self._check_eta_is_the_only_path()
        self.jacobian = encoder_jacobian(problem.encoder, x)
        shares = self.jacobian.gram()
        self.names = list(shares)
        grams = torch.stack(list(shares.values()))
        self.grams = torch.cat((grams, grams.sum(0, keepdim=True)))  # (G, B, P, P); the last is K itself
        self.evaluations = count_evaluations(problem, estimator, self.target, self.eta, num_samples)
        self.chunk = chunk or chunk_size(problem, x, self.evaluations)
        self._vectors: VectorSums | None = None
        self._sums: ContributionSums | None = None

    @property
    def n(self) -> int:
        """Replicates so far."""
        return 0 if self._sums is None else self._sums.n

    def add(self, replicates: int) -> None:
        """Draw more replicates."""
        if self._vectors is None:
            size = self.eta.numel()
            pilot = min(replicates, max(self.chunk, min(_PILOT, _PILOT_ELEMENTS // size)))
            self._start(torch.cat([self._draw(n) for n in _split(pilot, self.chunk)]))
            replicates -= pilot
        for size in _split(replicates, self.chunk):
            self._add(self._draw(size))

    def _draw(self, replicates: int) -> Tensor:
        return in_float64(
            eta_gradients(self.problem, self.estimator, self.target, self.eta, replicates, self.num_samples)
        )

    def _start(self, h: Tensor) -> None:
        self._vectors = VectorSums.starting_at(h, len(self.grams))
        self._sums = ContributionSums.starting_at(self._contributions(h - self._vectors.centre))
        self._add(h)

    def _add(self, h: Tensor) -> None:
        assert self._vectors is not None
        assert self._sums is not None
        centred = h - self._vectors.centre
        self._vectors.add(centred, self._sums.add(self._contributions(centred)))

    def _contributions(self, centred: Tensor) -> Tensor:
        """(h − a)ᵀ K (h − a), (R, G, B)."""
        by_datum = centred.transpose(0, 1)
        shares = torch.stack([((by_datum @ gram) * by_datum).sum(-1) for gram in self.grams[:-1]])
        return torch.cat((shares, shares.sum(0, keepdim=True))).permute(2, 0, 1)

    def moments(self) -> dict[str, Moments]:
        """The variance by parameter, and under "" the total, each with what its interval needs."""
        assert self._vectors is not None
        assert self._sums is not None
        n, batch = self.n, len(self.eta)
        covariance, drift = self._vectors.covariance(), self._vectors.drift()
        self._check_finite(drift)
        pulled = (self.grams @ drift.unsqueeze(-1)).squeeze(-1)  # K δ, (G, B, P)
        bessel = n / max(n - 1, 1)
        values = ((self._sums.mean() - (pulled * drift).sum(-1)).clamp_min(0) * bessel).sum(-1) / batch**2

        spread, third, _ = self._sums.central()
        spread = spread - 4 * (pulled * self._vectors.cross_covariance(self._sums)).sum(-1)
        spread = spread + 4 * torch.einsum("gbp,bpq,gbq->gb", pulled, covariance, pulled)
        product = self.grams @ covariance
        light_tails = 2 * (product * product.transpose(-1, -2)).sum((-1, -2)) / (n * max(n - 1, 1))
        squared = ((spread.clamp_min(0) / n + light_tails).sum(-1) / batch**4).clamp_min(0)
        skewness = (
            third.sum(-1) / (float(n) ** 2 * float(batch) ** 6) / squared.sqrt().pow(3).clamp_min(1e-300)
        )
        return {
            name: Moments(value, stderr, g, n)
            for name, value, stderr, g in zip(
                [*self.names, ""], values.tolist(), squared.sqrt().tolist(), skewness.tolist(), strict=True
            )
        }

    def eta_mean(self) -> Tensor:
        """E h, (B, P)."""
        assert self._vectors is not None
        return self._vectors.mean()

    def eta_covariance(self) -> Tensor:
        """Cov(h_i), (B, P, P)."""
        assert self._vectors is not None
        return self._vectors.covariance()

    def mean(self) -> dict[str, Tensor]:
        """E ĝ by parameter."""
        return pull_back(self.problem.encoder, self.x, self.eta_mean() / len(self.eta))

    def per_parameter(self) -> dict[str, Tensor]:
        """Var ĝ, coordinate by coordinate."""
        diagonal = self.jacobian.diagonal(self.eta_covariance())
        return {name: value / len(self.eta) ** 2 for name, value in diagonal.items()}

    def _check_finite(self, drift: Tensor) -> None:
        if not bool(torch.isfinite(drift).all()):
            raise EstimatorError("the gradient is not finite (NaN or infinity)")

    def _check_eta_is_the_only_path(self) -> None:
        phi = [p for p in self.problem.encoder.parameters() if p.requires_grad]
        leaf = self.eta.detach().requires_grad_()
        estimate = self.estimator(self.problem.posterior(leaf), self.target, self.num_samples)
        check_estimate(estimate, leaf.shape[:-1])
        grads = torch.autograd.grad(estimate.surrogate.sum(), phi, allow_unused=True)
        if any(g is not None for g in grads):
            raise DirectPathError(
                "the posterior or the target uses encoder parameters directly, not only through eta: "
                "use route='full'"
            )


class DirectPathError(UsageError):
    """The factorized route does not apply: φ enters other than through eta."""


def largest_eigenvalue(problem: Problem, x: Tensor, covariance: Tensor) -> float:
    """Largest eigenvalue of (1/B²) Σ_i J_iᵀ A_i J_i for A (B, P, P), by power iteration."""
    batch = len(covariance)
    generator = torch.Generator().manual_seed(0)
    eta = torch.randn(covariance.shape[:2], generator=generator, dtype=torch.float64).to(covariance)
    value = 0.0
    for _ in range(_POWER_ITERATIONS):
        direction = pull_back(problem.encoder, x, eta)
        norm = sum(float(in_float64(g).square().sum()) for g in direction.values()) ** 0.5
        if norm == 0:
            return 0.0
        unit = {name: g / norm for name, g in direction.items()}
        eta = in_float64(push_forward(problem.encoder, x, unit))
        weighted = (covariance @ eta.unsqueeze(-1)).squeeze(-1)
        previous, value = value, float((eta * weighted).sum()) / batch**2
        eta = weighted
        if abs(value - previous) <= 1e-3 * value:
            break
    return value


def _split(total: int, size: int) -> list[int]:
    return [size] * (total // size) + ([total % size] if total % size else [])
