"""REINFORCE with one variable summed out, chosen at random."""

from __future__ import annotations

import torch
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.layer_by_layer import estimate_layers, unsupported_layers
from ..pieces.objective import KL_CHOICES, integrand_at, unsupported_kl
from ..pieces.variables import not_binary, tied, variables_of
from ..posteriors.layered import Layered
from ..posteriors.noise import draw


class BitFlip(Estimator):
    r"""Flip one bit of each sample: D 1[i = I] s (f(z_I = 1) − f(z_I = 0)), I uniform over the D bits.

    s = p_I (1 − p_I). One of the D terms of ``local-expectation``, averaged over S samples, each with an I of
    its own. Unbiased for any f; 2S evaluations of log p(x|z), none off the support; no derivatives. `value`
    averages over the S samples, not over their flips.

    Use it where probabilities are near 0 or 1, at which s vanishes and the variance with it; the choice of I
    alone adds D − 1 times the squared gradient, over S.

    Args:
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("bit-flip")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Kunes, Yin, Land, Haviv, Pe'er & Tavaré, Gradient Estimation for Binary Latent Variables via Gradient
        Variance Clipping, 2022 (BitFlip-1).
    """

    label = "bit-flip"
    weighs_kl = True

    def __init__(self, kl: str = "analytic") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if isinstance(q, Layered):
            return unsupported_layers(self, q, target, num_samples, self.kl)
        refused = super().supports(q, target, num_samples) or not_binary(q)
        return refused or unsupported_kl(q, target, self.kl)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if isinstance(q, Layered):
            return estimate_layers(self, q, target, num_samples, self.kl)
        variables = variables_of(q)
        z, _ = draw(q, num_samples)
        codes = variables.codes(z)
        rows, size = codes.shape[:-2], codes.shape[-2]
        chosen = torch.randint(size, rows, device=codes.device)
        here = torch.nn.functional.one_hot(chosen, size).to(codes.dtype).unsqueeze(-1)  # (S, *batch, D, 1)
        # A state of probability zero is not visited; its difference counts for nothing.
        possible = ((1 - codes) * variables.probs).sum(-1, keepdim=True) > 0
        flipped = torch.where(possible & (here == 1), 1 - codes, codes)
        f = integrand_at(q, target, z, self.kl)
        with torch.no_grad():
            change = integrand_at(q, target, variables.z(flipped), self.kl) - f.detach()
        # f(z_I = 1) − f(z_I = 0) in the code of two states: the change, away from where z is.
        direction = 1 - 2 * codes
        spread = variables.probs.prod(-1, keepdim=True)
        gradient = size * here * spread * direction * change[..., None, None]
        return tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient.mean(0)))
