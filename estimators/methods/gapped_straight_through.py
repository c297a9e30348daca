"""The gapped straight-through gradient."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..errors import UsageError
from ..pieces.arguments import number, positive_number
from ..pieces.relaxations import DiscretePath, along_softmax, drawn, log_probs
from ..pieces.variables import Variables


class GappedStraightThrough(DiscretePath):
    r"""Differentiate f at a sample z as if it were the softmax of logits that z leads by a gap.

    ĝ = (1/S) Σ_s (1/τ) J(softmax((φ + m₁ − m₂)/τ)) g(z_s) − ∇_φ KL, g = ∂f/∂z at z_s ~ q,
    J(π) = diag(π) − π πᵀ. For each variable, m₁ lifts the logit of z's state to the largest,
    m₁ = max_k φ_k − φ_i, and m₂ lowers each other one by max(0, φ_j − max_k φ_k + gap), both held fixed: the
    logits are then max φ and min(φ_j, max φ − gap). A Bernoulli variable is the second of two states.

    Like ``straight-through-gumbel-softmax`` it takes the Jacobian where z's entry is the largest, but
    without that one's noise: given z it is one matrix. Biased, also where f is linear. The mean depends on
    how log p(x|z) is extended between the states. ``value`` is an unbiased estimate of the ELBO.

    S evaluations of log p(x|z), at samples of q, one backward pass through it.

    With ``kl="sampled"`` f gains log p(z) − log q(z), both linear in z between the states, and φ is cut out
    of log q.

    Args:
        temperature: τ of the softmax; z is drawn from q itself.
        gap: 0 or more; an integer is a number like any other.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.OneHotCategorical(logits=torch.zeros(4, 3))
        >>> target = Target(log_likelihood=lambda z: -(z - 0.2).square().sum(-1))
        >>> create("gapped-straight-through[gap=1]")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Fan, Chi, Rudnicky & Ramadge, Training Discrete Deep Generative Models via Gapped Straight-Through
        Estimator, 2022, section 4.
    """

    def __init__(self, temperature: float = 1.0, gap: float = 1.0, kl: str = "analytic") -> None:
        super().__init__(kl)
        self.temperature = positive_number("temperature", temperature)
        self.gap = number("gap", gap)
        if self.gap < 0:
            raise UsageError(f"gap={gap!r} is not 0 or more")

    def codes(
        self, q: Distribution, variables: Variables, num_samples: int
    ) -> Float[Tensor, "{num_samples} *batch D K"]:
        z = drawn(q, variables, num_samples)
        phi = log_probs(variables).detach()
        top = phi.amax(-1, keepdim=True)
        gapped = torch.where(z > 0, top, torch.minimum(phi, top - self.gap))
        path = along_softmax((gapped / self.temperature).softmax(-1), variables.logits)
        return z + path / self.temperature
