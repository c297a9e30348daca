"""The straight-through gradient of discrete latents."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..pieces.arguments import positive_number
from ..pieces.relaxations import DiscretePath, along_softmax, drawn, log_probs
from ..pieces.variables import Variables


class StraightThrough(DiscretePath):
    r"""Differentiate f at a discrete sample as if it were its probabilities: ∂z/∂φ := J(π_τ).

    ĝ = (1/S) Σ_s J(π_τ) g(z_s) − ∇_φ KL, g = ∂f/∂z at z_s ~ q, J(π) = diag(π) − π πᵀ, π_τ = softmax(φ/τ),
    for each variable with logits φ; a Bernoulli variable has two states, hence s_τ g, s_τ = σ(φ/τ)(1 −
    σ(φ/τ)). Differentiating softmax(φ/τ) would add a factor 1/τ, left out here.

    Exact at τ = 1 where f is linear in z, else biased, as f differs from its tangents. The mean depends on
    how log p(x|z) is extended between the states: with λ Σ z(1 − z) added to f, which changes nothing at
    them, a Bernoulli variable's gradient moves by s_τ λ(1 − 2z). ``value`` is an unbiased estimate of the
    ELBO.

    S evaluations of log p(x|z), at samples of q, one backward pass through it. The cheapest of the
    low-variance gradients; not where the bias matters, as the optimum that it finds is another one: see
    ``reinmax``.

    With ``kl="sampled"`` f gains log p(z) − log q(z), both linear in z between the states, and φ is cut out
    of log q.

    Args:
        temperature: τ of the Jacobian; z is drawn from q itself.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("straight-through")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Bengio, Léonard & Courville, Estimating or Propagating Gradients Through Stochastic Neurons for
        Conditional Computation, 2013, section 4.
        Liu, Dong, Liu, Yu & Gao, Bridging Discrete and Backpropagation: Straight-Through and Beyond, 2023,
        section 3, on its first-order accuracy.
    """

    def __init__(self, temperature: float = 1.0, kl: str = "analytic") -> None:
        super().__init__(kl)
        self.temperature = positive_number("temperature", temperature)

    def codes(
        self, q: Distribution, variables: Variables, num_samples: int
    ) -> Float[Tensor, "{num_samples} *batch D K"]:
        z = drawn(q, variables, num_samples)
        tempered = (log_probs(variables).detach() / self.temperature).softmax(-1)
        return z + along_softmax(tempered, variables.logits)
