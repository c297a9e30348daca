"""Whole gradients by way of an η that all data have: a posterior over weights, whose draws they share."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ...estimators.posteriors.shared import shares_draws
from ..gradients import check_estimate, seeded
from ..jacobians.products import pull_back_each
from ..problems.datum_index import target_of
from .one_by_one import Subject

_SEED = 0
_ELEMENTS = 2**20  # of the largest tensor in one chunk
_MAX_REPLICATES = 2**10


class ThroughSharedEta:
    """Replicates are one more batch dimension, (R, B), and each has one η for its data, (R, P).

    So that no gradient in η-space is made B times: its rows would all be the same.

    Args:
        subject: of φ.
        eta: (B, P), its rows the same.
        rows: of log p(x|w) in one replicate.
    """

    name = "through eta"

    def __init__(self, subject: Subject, eta: Tensor, rows: int) -> None:
        self.subject, self.eta = subject, eta
        self._target = target_of(subject.problem, subject.x)
        network = self._target.network
        layers = () if network is None else network.layers.values()
        widest = max([1, *(max(layer.inputs, layer.outputs) for layer in layers)])
        rows = max(rows, subject.num_samples * len(eta))
        replicates = min(_MAX_REPLICATES, _ELEMENTS // max(rows * widest, eta.shape[-1], 1))
        self.size = 1 << (max(1, replicates).bit_length() - 1)

    def __call__(self, replicates: int) -> Float64[Tensor, "{replicates} phi"]:
        """Independent estimates ĝ, flattened."""
        h = self._draw(self.eta[0].expand(replicates, -1))
        return pull_back_each(self.subject.problem.encoder, self.subject.x[:1], h.unsqueeze(1))

    def _draw(self, stacked: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
        """The batch-mean gradient in η, each replicate at one of its own."""
        leaf = stacked.detach().clone().requires_grad_()
        subject = self.subject
        q = subject.problem.posterior(leaf.unsqueeze(1).expand(-1, len(self.eta), -1))
        estimate = subject.estimator(q, self._target, subject.num_samples)
        check_estimate(estimate, q.batch_shape)
        return torch.autograd.grad(estimate.surrogate.mean(-1).sum(), leaf)[0]

    def applies(self) -> bool:
        """Whether draws are shared, η is the same for any datum, and no replicate depends on another."""
        eta = self.eta
        if not shares_draws(self.subject.problem.posterior(eta)) or not bool((eta == eta[:1]).all()):
            return False
        found = []
        for other in (eta[0], 0.9 * eta[0].roll(1)):
            with seeded(_SEED, eta.device):
                found.append(self._draw(torch.stack((eta[0], other, other)))[0])
        one, again = found
        tolerance = 100 * torch.finfo(eta.dtype).eps * float(one.abs().max())
        return bool(((one - again).abs() <= tolerance).all())
