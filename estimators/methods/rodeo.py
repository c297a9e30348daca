"""Leave-one-out with control variates from a discrete Stein operator."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from ..base import Estimate, Estimator, Target
from ..errors import UsageError
from ..pieces.arguments import one_of, positive_integer
from ..pieces.objective import KL_CHOICES, unsupported_kl
from ..pieces.slopes import relaxed_integrand, with_slope
from ..pieces.tuning import squared_norm
from ..pieces.variables import not_relaxable, tied, variables_of
from ..posteriors.distributions import draw

_PILOT = 64


class RODEO(Estimator):
    r"""Leave-one-out plus Stein control variates: the mean of a function over a step, less the function.

    The operator of random-scan Gibbs sampling, which redraws one of the D variables, has mean zero for any h:

        (A h)(z) = (1/D) Σ_i Σ_c q_i(c) (h(z with z_i = c) − h(z)),   E_q (A h)(z) = 0
        ĝ = (1/S) Σ_k [(f(z_k) − 1/(S−1) Σ_{j≠k} (f(z_j) + (A h_j)(z_j))) ∇ log q(z_k) + (A h̃_k)(z_k)] − ∇ KL
        h_k(y) = H₁(a_k(y), f_{−k}),   h̃_k(y) = H₂(a_k(y), f_{−k}) ∇ log q(y)
        a_k(y) = 1/(S−1) Σ_{j≠k} g_jᵀ(y − z_j),   f_{−k} = 1/(S−1) Σ_{j≠k} f(z_j),   g_j = ∂f/∂z at z_j

    with H a network of two numbers to two. Unbiased for the ELBO whatever H is and however f is extended off
    the support, because h_k does not depend on z_k: iid draws only. S evaluations of log p(x|z), with one
    backward pass to z: f at the D (K − 1) neighbours is not needed, only H is evaluated there.

    H is learned: `aux_loss` is ‖ĝ‖² without the KL. It is 0 at first, which is ``leave-one-out``; its units
    are the mean and D standard deviations of f over 64 pilot samples of `init`. Use it where there are some
    hundreds of updates to learn from and f is expensive against S D (K − 1) evaluations of H.

    With ``kl="sampled"`` f gains log p(z) − log q(z), linear between the states.

    Args:
        hidden: units of H's one layer.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> estimator = create("rodeo[hidden=8]")
        >>> estimator.init(q, target)
        >>> estimator(q, target, num_samples=2).aux_loss.shape
        torch.Size([4])

    References:
        Shi, Zhou, Hwang, Titsias & Mackey, Gradient Estimation with Discrete Stein Operators, 2022.
    """

    min_samples = 2
    requires_iid_draws = True
    derivatives = 1
    weighs_kl = True
    centre: Tensor
    unit: Tensor

    def __init__(self, hidden: int = 16, kl: str = "analytic") -> None:
        super().__init__()
        self.hidden = positive_integer("hidden", hidden)
        self.kl = one_of("kl", kl, KL_CHOICES)
        self.network: nn.Sequential | None = None

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        refused = super().supports(q, target, num_samples) or not_relaxable(q)
        return refused or unsupported_kl(q, target, self.kl)

    def init(self, q: Distribution, target: Target) -> None:
        if self.network is not None:
            return
        variables = variables_of(q)
        with torch.no_grad():
            pilot = relaxed_integrand(q, target, self.kl, variables, variables.codes(draw(q, _PILOT)))
        spread = pilot.std()
        self.register_buffer("centre", pilot.mean())
        self.register_buffer("unit", torch.where(spread > 0, spread, 1.0))
        output = nn.Linear(self.hidden, 2)
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)
        self.network = nn.Sequential(nn.Linear(2, self.hidden), nn.LeakyReLU(0.3), output).to(pilot)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        variables, others = variables_of(q), num_samples - 1
        codes = variables.codes(draw(q, num_samples))
        f, slope = with_slope(q, target, self.kl, variables, codes)
        fixed, centred = f.detach(), codes - variables.probs
        with torch.set_grad_enabled(self.training):  # of D (K − 1) values a sample, H's graph is large
            first, second = self._stein(codes, centred, variables.probs, fixed, slope)
        replaced = fixed + first
        baseline = (replaced.sum(0) - replaced) / others
        gradient = ((fixed - baseline)[..., None, None] * centred + second).mean(0)
        estimate = tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))
        return estimate._replace(aux_loss=squared_norm(variables, gradient)) if self.training else estimate

    def _stein(
        self,
        codes: Float[Tensor, "S *batch D K"],
        centred: Float[Tensor, "S *batch D K"],
        probs: Float[Tensor, "*batch D K"],
        f: Float[Tensor, "S *batch"],
        slope: Float[Tensor, "S *batch D K"],
    ) -> tuple[Float[Tensor, "S *batch"], Float[Tensor, "S *batch D K"]]:
        """(A h_k)(z_k), and (A h̃_k)(z_k) in the logits."""
        states = codes.shape[-1]
        along = (slope * codes).sum((-2, -1))
        slope_of_others, f_of_others, along_of_others = (
            (part.sum(0) - part) / (len(codes) - 1) for part in (slope, f, along)
        )
        here = (slope_of_others * codes).sum(-1)  # of each variable
        at_z = here.sum(-1) - along_of_others
        # Of each variable the K − 1 states that it is not in.
        moves = (codes.argmax(-1, keepdim=True) + torch.arange(1, states, device=codes.device)) % states
        at_neighbours = (at_z[..., None] - here)[..., None] + slope_of_others.gather(-1, moves)
        h = self._network(at_z, f_of_others)
        h_moved = self._network(at_neighbours, f_of_others[..., None, None].expand_as(at_neighbours))
        weights = probs.expand_as(codes).gather(-1, moves)

        rises = (weights[..., None] * (h_moved - h[..., None, None, :])).sum(-2)  # (S, *batch, D, 2)
        # No 1/D: it cancels against the unit of H.
        first = rises[..., 0].sum(-1)
        # h̃ is a product with the score: where variable i moves, the score of i moves too, and no other's.
        rise = rises[..., 1]
        apart = (rise.sum(-1, keepdim=True) - rise)[..., None] * centred
        mass = torch.zeros_like(codes).scatter(-1, moves, weights * h_moved[..., 1])
        moved = mass - mass.sum(-1, keepdim=True) * probs
        stayed = (weights.sum(-1) * h[..., None, 1])[..., None] * centred
        return first, apart + moved - stayed

    def _network(self, along: Float[Tensor, "*rows"], f: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows 2"]:
        """H, less a factor of D."""
        if self.network is None:
            raise UsageError("rodeo: call init(q, target) before the first estimate")
        inputs = torch.stack((along, f - self.centre), -1) / self.unit
        return (self.network(inputs.to(self.unit)) * self.unit).to(f)
