"""One training step, as any user of an estimator would write it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ...estimators.base import Estimate, Estimator
from ..problems.datum_index import target_of
from ..problems.protocol import Problem

_REFUSALS = (
    "Expected parameter ",
    "Expected value argument ",
    "Expected p_in >= 0 && p_in <= 1",
    "probability tensor contains either `inf`, `nan` or element < 0",
)


def estimate_gradient(problem: Problem, estimator: Estimator, x: Tensor, num_samples: int) -> Estimate:
    """The estimate for a batch x (B, ...), attached to φ and θ."""
    q = problem.posterior(problem.encoder(x))
    return estimator(q, target_of(problem, x), num_samples)


def backward(
    estimate: Estimate,
    phi: Sequence[nn.Parameter],
    theta: Sequence[nn.Parameter],
    own: Sequence[nn.Parameter],
) -> None:
    """Fill ``.grad`` for *minimizing* minus the objective: φ from surrogate, θ from value, own from aux_loss.

    Where one tensor serves as surrogate and value, one backward pass does both.
    """
    if estimate.surrogate is estimate.value:
        # Naming the inputs would cost a tenth of a small step; nothing but φ and θ is reached.
        (-estimate.value.mean()).backward()
    else:
        # The two may share nodes (a decoder differentiated in z and in θ), so the first pass keeps them.
        (-estimate.surrogate.mean()).backward(inputs=list(phi), retain_graph=True)
        if theta:
            (-estimate.value.mean()).backward(inputs=list(theta))
    if estimate.aux_loss is not None and own:
        estimate.aux_loss.mean().backward(inputs=list(own))


def out_of_domain(error: Exception) -> bool:
    """Whether a distribution refuses what it is given: NaN, a scale that has become 0 or infinite.

    So do drawing from Bernoulli and from categorical probabilities that are none.
    """
    return str(error).startswith(_REFUSALS)


class TrainingStep:
    """Encoder, estimate, backward, optimizers, `Estimator.update`: what throughput times and `train` repeats.

    Args:
        problem: its encoder and decoder are trained in place.
        estimator: already shown the problem by `Estimator.init`.
        optimizers: for φ and θ, and for the estimator's own parameters.
        num_samples: S.
    """

    def __init__(
        self,
        problem: Problem,
        estimator: Estimator,
        optimizers: Iterable[torch.optim.Optimizer],
        num_samples: int,
    ) -> None:
        self.problem, self.estimator, self.num_samples = problem, estimator, num_samples
        self.optimizers = list(optimizers)
        self.phi = [p for p in problem.encoder.parameters() if p.requires_grad]
        self.theta = [p for p in problem.decoder.parameters() if p.requires_grad]
        self.own = [p for p in estimator.parameters() if p.requires_grad]

    def gradients(self, x: Tensor) -> Estimate:
        """Fill ``.grad`` of every parameter from one estimate."""
        for parameter in (*self.phi, *self.theta, *self.own):
            parameter.grad = None
        estimate = estimate_gradient(self.problem, self.estimator, x, self.num_samples)
        backward(estimate, self.phi, self.theta, self.own)
        return estimate

    def __call__(self, x: Tensor) -> Estimate:
        """Take one full step on a batch x (B, ...)."""
        estimate = self.gradients(x)
        for optimizer in self.optimizers:
            optimizer.step()
        self.estimator.update(estimate)
        return estimate
