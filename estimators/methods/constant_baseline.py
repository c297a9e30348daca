"""REINFORCE with a constant baseline."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from ..base import Target
from ..pieces.arguments import number
from ..pieces.local_signals import check_number, local_signals, one_each
from ..pieces.objective import integrand
from ..posteriors.layered import Layered
from ..posteriors.noise import draw
from .score_function import ScoreFunction

_PILOT_SAMPLES = 64


class ConstantBaseline(ScoreFunction):
    r"""Score function with one constant b for all data: (f(z) − b) ∇_η log q(z).

    b is ``value``, or, when that is not given, the mean of f over the data and 64 pilot samples at the
    posterior that `init` is shown; the pilot is independent of every later sample, so the estimate
    stays unbiased. Use it when f has a large mean that hardly changes. Of a posterior in layers each latent
    has a measured b of its own.

    Args:
        value: b, in the units of f (nats for a log-likelihood); None to measure it in `init`.
        kl: "analytic" (closed form) or "sampled".
        draws: "iid", "antithetic" (S of at least 2) or "sobol", as in ``score-function``.
        signal: of layers, "local" or "whole", as there.

    Example:
        >>> from elbograd.estimators import create
        >>> create("constant-baseline[value=-20]").value.item()
        -20.0

    References:
        Williams, Simple Statistical Gradient-Following Algorithms, 1992, section 4.
        Mohamed et al., Monte Carlo Gradient Estimation in Machine Learning, 2020, section 7.3.
    """

    value: Tensor
    measured: Tensor

    def __init__(
        self,
        value: float | None = None,
        kl: str = "analytic",
        draws: str = "iid",
        signal: str = "local",
    ) -> None:
        super().__init__(kl, draws, signal)
        self.register_buffer("value", torch.tensor(0.0 if value is None else number("value", value)))
        self.register_buffer("measured", torch.tensor(value is not None))

    def init(self, q: Distribution, target: Target) -> None:
        if self.measured:
            return
        self.value = pilot_mean(q, target, self.kl, self.signal)
        self.measured = torch.ones_like(self.measured)

    def baseline(self, f: Float[Tensor, "S *batch"], target: Target) -> Float[Tensor, ""]:
        check_number(self.value.numel(), 1)
        return self.value.reshape(())

    def baselines(
        self, signals: Mapping[str, Float[Tensor, "S *batch"]], target: Target, latents: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, ""]]:
        return one_each(self.value, signals)


@torch.no_grad()
def pilot_mean(q: Distribution, target: Target, kl: str, signal: str) -> Float[Tensor, "*latents"]:
    """Mean of the integrand over the batch and pilot samples of q, a scalar; of layers one a latent, (L,)."""
    z, noise = draw(q, _PILOT_SAMPLES)
    if isinstance(q, Layered):
        signals = local_signals(q, target, z, kl, noise, signal).signals
        return torch.stack([signal.mean() for signal in signals.values()])
    return integrand(q, target, z, kl, noise=noise).mean()
