"""REINFORCE with an input-dependent baseline network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from ..base import Target
from ..errors import UsageError
from ..pieces.arguments import positive_integer
from ..pieces.local_signals import check_number, one_each
from ..posteriors.distributions import describe
from .constant_baseline import pilot_mean
from .score_function import ScoreFunction


class LearnedBaseline(ScoreFunction):
    r"""Score function with b = b_ψ(x), a network of the input trained to predict f.

    ĝ = (1/S) Σ_s (f(z_s) − b_ψ(x)) ∇_η log q(z_s) − ∇_η KL. ψ minimizes (f − b_ψ(x))², which `aux_loss`
    carries in training mode and which reaches neither φ nor θ. b_ψ does not see z, so the estimate is
    unbiased whatever ψ is. `init` sets the output's bias to the mean of f over 64 pilot samples (the
    constant c of NVIL); use it when f differs much between data, and S = 1. Of a posterior in layers the
    network has an output for each latent.

    Args:
        hidden: units of the one tanh layer.
        kl: "analytic" (closed form) or "sampled".
        draws: "iid", "antithetic" (S of at least 2) or "sobol", as in ``score-function``.

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(4, 2), 1.0), 1)
        >>> target = Target(lambda z: -z.square().sum(-1), features=torch.ones(4, 3))
        >>> estimator = create("learned-baseline[hidden=8]")
        >>> estimator.init(q, target)
        >>> estimator(q, target, num_samples=1).aux_loss.shape
        torch.Size([4])

    References:
        Mnih & Gregor, Neural Variational Inference and Learning in Belief Networks, 2014, section 2.3, eq. 5.
    """

    def __init__(self, hidden: int = 64, kl: str = "analytic", draws: str = "iid") -> None:
        super().__init__(kl, draws)
        self.hidden = positive_integer("hidden", hidden)
        self.network: nn.Sequential | None = None

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        if target.features is None:
            return f"needs the target's features (a (B, F) tensor); this {describe(q)} target has none"
        return super().supports(q, target, num_samples)

    def init(self, q: Distribution, target: Target) -> None:
        if self.network is not None:
            return
        if target.features is None:
            raise UsageError("learned-baseline needs the target's features (a (B, F) tensor)")
        pilot = pilot_mean(q, target, self.kl)
        output = nn.Linear(self.hidden, pilot.numel())
        with torch.no_grad():
            output.bias.copy_(pilot)
        network = nn.Sequential(nn.Linear(target.features.shape[-1], self.hidden), nn.Tanh(), output)
        self.network = network.to(pilot)  # features may be integers

    def baseline(self, f: Float[Tensor, "S *batch"], target: Target) -> Float[Tensor, "B"]:
        outputs = self._outputs(target)
        check_number(outputs.shape[-1], 1)
        return outputs.squeeze(-1)

    def baselines(
        self, signals: Mapping[str, Float[Tensor, "S *batch"]], target: Target
    ) -> dict[str, Float[Tensor, "B"]]:
        return one_each(self._outputs(target).movedim(-1, 0), signals)

    def _outputs(self, target: Target) -> Float[Tensor, "B latents"]:
        if self.network is None or target.features is None:
            raise UsageError("learned-baseline: call init(q, target) with features before the first estimate")
        outputs: Tensor = self.network(target.features.to(next(self.network.parameters())))
        return outputs

    def aux_loss(
        self, f: Float[Tensor, "S *batch"], baseline: Float[Tensor, "*#S_batch"] | float
    ) -> Float[Tensor, "*batch"]:
        return (f - baseline).square().mean(0)
