"""The straight-through gradient by a Gumbel-softmax sample."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..errors import UsageError
from ..pieces.arguments import positive_number
from ..pieces.relaxations import AnnealedPath, along_softmax, largest, log_probs, perturbed
from ..pieces.variables import Variables


class StraightThroughGumbelSoftmax(AnnealedPath):
    r"""Differentiate f at z = argmax(φ + G) as if z were softmax((φ + G)/τ).

    ĝ = (1/S) Σ_s (1/τ) J(softmax((φ + G_s)/τ)) g(z_s) − ∇_φ KL, g = ∂f/∂z, z_s = argmax(φ + G_s) in one-hot
    code, J(π) = diag(π) − π πᵀ, G Gumbel noise, for each variable with logits φ; a Bernoulli variable is the
    second of two states.

    Biased, also where f is linear; a small τ has a smaller bias and a variance that grows like 1/τ. The mean
    depends on how log p(x|z) is extended between the states. ``value`` is an unbiased estimate of the ELBO:
    z is a sample of q at any temperature.

    S evaluations of log p(x|z), one backward pass through it. Widely used; ``gumbel-rao`` has the same mean
    and less variance.

    With ``kl="sampled"`` f gains log p(z) − log q(z), both linear in z between the states, and φ is cut out
    of log q.

    Args:
        temperature: τ, the first one where it is annealed. The forward pass, an argmax, is the same at all.
        backward_temperature: τ in its place, for specifications that name the temperatures of both passes;
            ``temperature`` is then without effect, and cannot be annealed.
        annealing: after every training step τ ← max(lowest, τ e^{−annealing}); 0 for a fixed temperature.
        lowest: where an annealed temperature ends.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.OneHotCategorical(logits=torch.zeros(4, 3))
        >>> target = Target(log_likelihood=lambda z: -(z - 0.2).square().sum(-1))
        >>> estimator = create("straight-through-gumbel-softmax[temperature=0.5]")
        >>> estimator(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Jang, Gu & Poole, Categorical Reparameterization with Gumbel-Softmax, 2017, section 2.2.
        Shah, Yan, Mozer & Liu, Improving Discrete Optimisation Via Decoupled Straight-Through Gumbel-Softmax,
        2024 (temperatures of the two passes apart).
    """

    def __init__(
        self,
        temperature: float = 1.0,
        backward_temperature: float | None = None,
        annealing: float = 0.0,
        lowest: float = 0.5,
        kl: str = "analytic",
    ) -> None:
        super().__init__(temperature, annealing, lowest, kl)
        self.backward_temperature = (
            None
            if backward_temperature is None
            else positive_number("backward_temperature", backward_temperature)
        )
        if self.annealing and backward_temperature is not None:
            raise UsageError("annealing moves temperature, which has no effect beside backward_temperature")

    def codes(
        self, q: Distribution, variables: Variables, num_samples: int
    ) -> Float[Tensor, "{num_samples} *batch D K"]:
        given = self.backward_temperature
        temperature = self.temperature if given is None else given
        noisy = perturbed(log_probs(variables).detach(), num_samples)
        path = along_softmax((noisy / temperature).softmax(-1), variables.logits)
        return largest(noisy) + path / temperature
