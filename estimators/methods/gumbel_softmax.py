"""The pathwise gradient of the Gumbel-softmax (Concrete) relaxation."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..pieces.relaxations import AnnealedPath, log_probs, perturbed
from ..pieces.variables import Variables


class GumbelSoftmax(AnnealedPath):
    r"""Differentiate f at softmax((φ + G)/τ), which is a state as τ → 0.

    ĝ = ∇_φ (1/S) Σ_s f(softmax((φ + G_s)/τ)) − ∇_φ KL, G Gumbel noise, for each variable with logits φ; a
    Bernoulli variable is the second of two states. The KL is that of the discrete q against the prior.

    Unbiased, but for another objective, "relaxed": E f(softmax((φ + G)/τ)) − KL; ``value`` estimates that
    and is no ELBO: evaluate a trained model with samples of q. log p(x|z) is evaluated between the states
    alone, and both depend on what it is there. At a large τ the two objectives are far apart, and where a
    state has a small probability their gradients may differ in sign; at a small τ the variance grows like
    1/τ.

    S evaluations of log p(x|z), one backward pass through it.

    With ``kl="sampled"`` f gains log p(z) − log q(z), both linear in z between the states, and φ is cut out
    of log q. The mean of softmax((φ + G)/τ) is not π, hence this is another number than the KL, with another
    gradient, and declared biased; where q is the prior it is 0 and has the gradient 0, as the KL is and has.

    Args:
        temperature: τ, the first one where it is annealed.
        annealing: after every training step τ ← max(lowest, τ e^{−annealing}); 0 for a fixed temperature.
        lowest: where an annealed temperature ends.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.OneHotCategorical(logits=torch.zeros(4, 3))
        >>> target = Target(log_likelihood=lambda z: -(z - 0.2).square().sum(-1))
        >>> create("gumbel-softmax[temperature=0.5]")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Jang, Gu & Poole, Categorical Reparameterization with Gumbel-Softmax, 2017, section 2.
        Maddison, Mnih & Teh, The Concrete Distribution, 2017, section 3, and appendix C.3 on the KL.
    """

    objective = "relaxed"
    relaxes_target = True

    def __init__(
        self, temperature: float = 1.0, annealing: float = 0.0, lowest: float = 0.5, kl: str = "analytic"
    ) -> None:
        super().__init__(temperature, annealing, lowest, kl)
        self.unbiased = self.unbiased_value = kl == "analytic"

    def codes(
        self, q: Distribution, variables: Variables, num_samples: int
    ) -> Float[Tensor, "{num_samples} *batch D K"]:
        return (perturbed(log_probs(variables), num_samples) / self.temperature).softmax(-1)
