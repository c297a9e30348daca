"""Whole gradients by way of η: one call of the estimator for all replicates, each then pulled back."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...estimators.errors import UsageError
from ..gradients import check_estimate, seeded
from ..jacobians.products import pull_back_each
from ..problems.datum_index import target_of
from ..problems.leading_dimensions import check_leading_dimensions
from .one_by_one import Subject

_SEED = 0


class ThroughEta:
    """Replicates are one more batch dimension, as the protocol has it: (R, B).

    Args:
        subject: of φ.
        eta: (B, P), which is all that φ enters through.
    """

    name = "through eta"

    def __init__(self, subject: Subject, eta: Tensor) -> None:
        self.subject, self.eta = subject, eta
        self._target = target_of(subject.problem, subject.x)

    def __call__(self, replicates: int) -> Float64[Tensor, "{replicates} phi"]:
        """Independent estimates ĝ, flattened."""
        h = self._draw(self.eta.expand(replicates, *self.eta.shape))
        return pull_back_each(self.subject.problem.encoder, self.subject.x, h / len(self.eta))

    def _draw(self, stacked: Float[Tensor, "R B P"]) -> Float[Tensor, "R B P"]:
        """Every datum's gradient in η-space, each replicate at an η of its own."""
        leaf = stacked.detach().clone().requires_grad_()
        subject = self.subject
        estimate = subject.estimator(subject.problem.posterior(leaf), self._target, subject.num_samples)
        check_estimate(estimate, leaf.shape[:-1])
        return torch.autograd.grad(estimate.surrogate.sum(), leaf)[0]

    def keeps_replicates_apart(self) -> bool:
        """Whether model and estimator take the leading dimension, and no replicate depends on another.

        A replicate is drawn beside two others, and from the same random numbers beside two at another η.
        """
        eta = self.eta
        try:
            check_leading_dimensions(self.subject.problem, self.subject.x, eta)
        except UsageError:
            return False
        others = 0.9 * eta.roll(1, 0)
        found = []
        for beside in (eta, others):
            with seeded(_SEED, eta.device):
                found.append(self._draw(torch.stack((eta, beside, beside)))[0])
        one, again = found
        tolerance = 100 * torch.finfo(eta.dtype).eps * float(one.abs().max())
        return bool(((one - again).abs() <= tolerance).all())
