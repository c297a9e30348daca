"""The score-function gradient (REINFORCE), and the frame its baselines fill in."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..pieces.arguments import one_of
from ..pieces.local_signals import SIGNALS, local_signals
from ..pieces.objective import KL_CHOICES, analytic_kl, integrand, unsupported_kl
from ..posteriors.distributions import no_score
from ..posteriors.draws import DRAWS, smallest_number, unsupported_draws
from ..posteriors.layered import Layered
from ..posteriors.noise import draw, log_prob


class ScoreFunction(Estimator):
    r"""Weigh the score by the integrand: f(z) ∇_η log q(z).

    ĝ = (1/S) Σ_s (f(z_s) − b) ∇_η log q(z_s) − ∇_η KL, here with b = 0. Unbiased for the ELBO for any
    posterior and any f, discrete latents included; S evaluations of log p(x|z), no backward pass
    through it. Noisy: the constant part of f multiplies a score that is zero only on average.

    With ``kl="sampled"`` f gains log p(z) − log q(z); the direct derivative of −log q has mean zero
    and is left out.

    Of a posterior in layers (`Layered`) the score of each latent is weighed by its local learning signal,
    those terms of f that depend on it, Σ_l (f_l(z) − b_l) ∇_η log q(z_l | ·), or by all of f: the mean is the
    same. Local signals lack the noise of what the latent has no part in; the whole of f varies little where q
    is near p(z|x), and a baseline then leaves less of it.

    Subclasses give `baseline` a b that does not depend on the sample it is subtracted from; of layers it is
    asked for each latent, with the latent's signal for f.

    Args:
        kl: "analytic" (closed form) or "sampled".
        draws: "iid", "antithetic" (S of at least 2) or "sobol", as in ``reparameterization``; discrete
            latents are drawn by their quantile function.
        signal: of layers, "local" or "whole".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> create("score-function")(q, target, num_samples=10).surrogate.shape
        torch.Size([4])

    References:
        Williams, Simple Statistical Gradient-Following Algorithms, 1992, section 4.
        Ranganath, Gerrish & Blei, Black Box Variational Inference, 2014, eq. 3.
        Mnih & Gregor, Neural Variational Inference and Learning in Belief Networks, 2014, section 2.3
        (local learning signals).
    """

    weighs_kl = True

    def __init__(self, kl: str = "analytic", draws: str = "iid", signal: str = "local") -> None:
        super().__init__()
        self.kl = one_of("kl", kl, KL_CHOICES)
        self.draws = one_of("draws", draws, DRAWS)
        self.signal = one_of("signal", signal, SIGNALS)
        self.min_samples = max(self.min_samples, smallest_number(draws))

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = (
            super().supports(q, target, num_samples) or no_score(q) or unsupported_kl(q, target, self.kl)
        )
        return refused or unsupported_draws(q, self.draws)

    def baseline(self, f: Float[Tensor, "S *batch"], target: Target) -> Float[Tensor, "*#S_batch"] | float:
        """b, broadcastable to f (S, *batch), which is detached; b may be attached to own parameters."""
        return 0.0

    def baselines(
        self, signals: Mapping[str, Float[Tensor, "S *batch"]], target: Target, latents: Mapping[str, Tensor]
    ) -> Mapping[str, Float[Tensor, "*#S_batch"] | float]:
        """b of each latent of a layered posterior, of the signals by name; by default `baseline` of each.

        ``latents`` are the draws, (S, *batch, *event); b may look at those that do not descend from its own.
        """
        return {name: self.baseline(signal, target) for name, signal in signals.items()}

    def aux_loss(
        self, f: Float[Tensor, "S *batch"], baseline: Float[Tensor, "*#S_batch"] | float
    ) -> Float[Tensor, "*batch"] | None:
        """The loss that trains the baseline's own parameters, (*batch), or None."""
        return None

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        if isinstance(q, Layered):
            return self._of_layers(q, target, num_samples)
        z, noise = draw(q, num_samples, self.draws)
        log_q = log_prob(q, z, noise)
        f = integrand(q, target, z, self.kl, log_q.detach())
        cost = f.detach()
        baseline = self.baseline(cost, target)
        elbo = _weighted(f, cost, baseline, log_q).mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(
            surrogate=elbo,
            value=elbo,
            aux_loss=self.aux_loss(cost, baseline) if self.training else None,
            info={"f": cost},
        )

    def _of_layers(self, q: Layered, target: Target, num_samples: int) -> Estimate:
        z, noise = draw(q, num_samples, self.draws)
        weighted, signals, log_q = local_signals(q, target, z, self.kl, noise, self.signal)
        cost = weighted.detach()
        baselines = self.baselines(signals, target, q.split(z))
        for name, signal in signals.items():
            weighted = _weighted(weighted, signal, baselines[name], log_q[name])
        losses = [self.aux_loss(signals[name], baselines[name]) for name in signals] if self.training else []
        trained = [loss for loss in losses if loss is not None]
        elbo = weighted.mean(0) - analytic_kl(q, target, self.kl)
        return Estimate(
            surrogate=elbo,
            value=elbo,
            aux_loss=torch.stack(trained).sum(0) if trained else None,
            info={"f": cost, **{signal_key(name): signal for name, signal in signals.items()}},
        )


def signal_key(name: str) -> str:
    """Where `Estimate.info` has the learning signal of a latent, (S, *batch)."""
    return f"f[{name}]"


def _weighted(
    f: Float[Tensor, "S *batch"],
    cost: Float[Tensor, "S *batch"],
    baseline: Float[Tensor, "*#S_batch"] | float,
    log_q: Float[Tensor, "S *batch"],
) -> Float[Tensor, "S *batch"]:
    """f with the score, of log q, weighed by the cost less its baseline.

    log q − its own value adds nothing to the ELBO's value and the score to its gradient: the score is for φ
    alone and f for θ alone, so that one tensor serves both.
    """
    centred = cost - (baseline.detach() if isinstance(baseline, Tensor) else baseline)
    return torch.addcmul(f, centred, log_q - log_q.detach())
