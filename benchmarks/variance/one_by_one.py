"""Whole gradients one at a time, as a training loop computes them; and what is asked of every other way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from ...estimators.base import Estimator
from ...estimators.errors import EstimatorError
from ..gradients import check_estimate
from ..jacobians.products import trainable
from ..linalg import in_float64
from ..problems.datum_index import target_of
from ..problems.protocol import Problem


@dataclass(frozen=True)
class Subject:
    """Whose whole gradient is drawn.

    Attributes:
        problem: differentiated with respect to φ, or to θ.
        estimator: prepared.
        x: (B, ...).
        num_samples: S.
        wrt: "phi" (from surrogate) or "theta" (from value).
    """

    problem: Problem
    estimator: Estimator
    x: Tensor
    num_samples: int
    wrt: str = "phi"

    @property
    def side(self) -> nn.Module:
        """What holds the parameters."""
        return self.problem.encoder if self.wrt == "phi" else self.problem.decoder

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Those that are trained, by name."""
        return trainable(self.side)

    @cached_property
    def sizes(self) -> list[int]:
        """Numbers in each."""
        return [p.numel() for p in self.parameters.values()]

    def objective(self, eta: Tensor) -> Tensor:
        """The number whose gradient is one estimate, at eta (B, P).

        Raises:
            EstimatorError: the estimate breaks the protocol.
        """
        q = self.problem.posterior(eta)
        estimate = self.estimator(q, target_of(self.problem, self.x), self.num_samples)
        check_estimate(estimate, self.x.shape[:1])
        chosen = estimate.surrogate if self.wrt == "phi" else estimate.value
        if not chosen.requires_grad:
            raise EstimatorError("value has no gradient: it must be differentiable in θ")
        return chosen.mean()


class OneByOne:
    """A forward and a backward pass through everything for each replicate: right for every model."""

    name = "one by one"

    def __init__(self, subject: Subject) -> None:
        self.subject = subject

    def __call__(self, replicates: int) -> Float64[Tensor, "{replicates} phi"]:
        """Independent estimates ĝ, flattened."""
        return torch.stack([self._gradient() for _ in range(replicates)])

    def _gradient(self) -> Float64[Tensor, " phi"]:
        subject = self.subject
        parameters = list(subject.parameters.values())
        objective = subject.objective(subject.problem.encoder(subject.x))
        grads = torch.autograd.grad(objective, parameters, allow_unused=True)
        flat = [
            torch.zeros_like(p).flatten() if g is None else g.to_dense().flatten()
            for g, p in zip(grads, parameters, strict=True)
        ]
        return in_float64(torch.cat(flat))
