"""ReinMax: the straight-through gradient to second order."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..pieces.arguments import positive_number
from ..pieces.relaxations import DiscretePath, along_softmax, drawn, log_probs
from ..pieces.variables import Variables


class ReinMax(DiscretePath):
    r"""Straight-through by the trapezoidal rule: ∂z/∂φ := 2 J((π_τ + z)/2) − ½ J(π).

    ĝ = (1/S) Σ_s [2 J((π_τ + z_s)/2) − ½ J(π)] g(z_s) − ∇_φ KL, g = ∂f/∂z at z_s ~ q, J(π) = diag(π) − π πᵀ,
    π = softmax(φ), π_τ = softmax(φ/τ), for each variable with logits φ. In the mean each difference
    f(z = j) − f(z = k) is half the sum of the slopes at its two ends (Heun's method), where
    ``straight-through`` has that of one end.

    At τ = 1 exact where f is quadratic in z, for any number of states and variables coupled by f in any way;
    else biased, and at another τ even then. The mean depends on how log p(x|z) is extended between the
    states. ``value`` is an unbiased estimate of the ELBO.

    S evaluations of log p(x|z), at samples of q, one backward pass through it: as cheap as
    ``straight-through``, of a larger variance.

    With ``kl="sampled"`` f gains log p(z) − log q(z), both linear in z between the states, and φ is cut out
    of log q.

    Args:
        temperature: τ; z is drawn from q itself.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.OneHotCategorical(logits=torch.zeros(4, 3))
        >>> target = Target(log_likelihood=lambda z: -(z - 0.2).square().sum(-1))
        >>> create("reinmax")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Liu, Dong, Liu, Yu & Gao, Bridging Discrete and Backpropagation: Straight-Through and Beyond, 2023,
        section 4 and algorithm 2.
    """

    label = "reinmax"

    def __init__(self, temperature: float = 1.0, kl: str = "analytic") -> None:
        super().__init__(kl)
        self.temperature = positive_number("temperature", temperature)

    def codes(
        self, q: Distribution, variables: Variables, num_samples: int
    ) -> Float[Tensor, "{num_samples} *batch D K"]:
        z = drawn(q, variables, num_samples)
        tempered = (log_probs(variables).detach() / self.temperature).softmax(-1)
        halfway = along_softmax((tempered + z) / 2, variables.logits)
        return z + 2 * halfway - along_softmax(variables.probs, variables.logits) / 2
