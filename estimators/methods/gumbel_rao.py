"""Straight-through Gumbel-softmax, averaged over the noise that the sample leaves free."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..pieces.arguments import positive_integer, positive_number
from ..pieces.relaxations import DiscretePath, along_softmax, drawn, log_probs, perturbed_given
from ..pieces.variables import Variables


class GumbelRao(DiscretePath):
    r"""Average the Jacobian of ``straight-through-gumbel-softmax`` over Gumbel noise given the sample z.

    ĝ = (1/S) Σ_s [(1/k) Σ_l (1/τ) J(softmax((φ + G_sl)/τ))] g(z_s) − ∇_φ KL, g = ∂f/∂z at z_s ~ q,
    J(π) = diag(π) − π πᵀ, and G_sl Gumbel noise given that argmax(φ + G_sl) = z_s, drawn by
    φ_i + G_i = −log E_i for z's state i and φ_j + G_j = −log(E_j/π_j + E_i) for the others, E exponential, φ
    being log π. For each variable; a Bernoulli variable is the second of two states.

    At k = 1 it is ``straight-through-gumbel-softmax`` in law; the mean, biased, is the same whatever k, and
    the variance the smaller the larger k (Rao-Blackwell). G is held fixed: the total derivative that the
    paper speaks of, through G as a function of φ and z too, has another mean.

    S evaluations of log p(x|z), at samples of q, and one backward pass through it, whatever k, which costs k
    softmaxes: use it in the place of ``straight-through-gumbel-softmax``, at a small τ above all. The mean
    depends on how log p(x|z) is extended between the states. ``value`` is an unbiased estimate of the ELBO.

    With ``kl="sampled"`` f gains log p(z) − log q(z), both linear in z between the states, and φ is cut out
    of log q.

    Args:
        temperature: τ of the Jacobian; z is drawn from q itself.
        inner_samples: k.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.OneHotCategorical(logits=torch.zeros(4, 3))
        >>> target = Target(log_likelihood=lambda z: -(z - 0.2).square().sum(-1))
        >>> create("gumbel-rao[inner_samples=100]")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Paulus, Maddison & Krause, Rao-Blackwellizing the Straight-Through Gumbel-Softmax Gradient Estimator,
        2021, section 3.
    """

    def __init__(self, temperature: float = 1.0, inner_samples: int = 10, kl: str = "analytic") -> None:
        super().__init__(kl)
        self.temperature = positive_number("temperature", temperature)
        self.inner_samples = positive_integer("inner_samples", inner_samples)

    def codes(
        self, q: Distribution, variables: Variables, num_samples: int
    ) -> Float[Tensor, "{num_samples} *batch D K"]:
        z = drawn(q, variables, num_samples)
        noisy = perturbed_given(z, log_probs(variables).detach(), self.inner_samples)
        path = along_softmax((noisy / self.temperature).softmax(-1), variables.logits)
        return z + path.mean(0) / self.temperature
