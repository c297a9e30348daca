"""REINFORCE with a learned function of relaxed samples as its control variate."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from ..base import Estimate, Target
from ..errors import UsageError
from ..pieces.arguments import one_of, positive_integer
from ..pieces.relaxed_controls import relaxed
from ..pieces.slopes import relaxed_integrand, with_slope
from ..pieces.tuning import carried, copies, squared_norm
from ..pieces.variables import tied, variables_of
from ..posteriors.distributions import draw
from .rebar import REBAR

CONTROLS = ("both", "network")
_PILOT = 64


class RELAX(REBAR):
    r"""Subtract a learned function of the relaxed sample, whose gradient is had by reparameterization.

    With φ, G, ζ = φ + G, b = argmax ζ, ζ̃ given b, and σ_τ as in ``rebar``, and a network r_ψ of the relaxed
    sample and of the target's features where it has any,

        c(ζ) = η f(σ_τ(ζ)) + r_ψ(σ_τ(ζ), x)
        ĝ = (1/S) Σ_s [(f(b_s) − c(ζ̃_s)) ∇_φ log q(b_s) + ∂_φ c(ζ_s) − ∂_φ c(ζ̃_s)] − ∇_φ KL

    with ∂_φ c(ζ̃) at fixed b. Unbiased for the ELBO of Bernoulli and one-hot categorical variables whatever c
    is and however f is extended off the support. 3 S evaluations of log p(x|z), 2 S of them relaxed and with
    a backward pass; with ``control="network"`` c is r_ψ alone: S evaluations, and f is a black box.

    ψ, η and τ are learned: `aux_loss` is ‖ĝ‖² without the KL, which takes second derivatives of c. r_ψ is 0
    at first, so that this is ``rebar``, or, where it is alone, ``constant-baseline`` at the mean of f over
    64 pilot samples of `init`, which also give r_ψ its unit. Use the network alone where f cannot be
    evaluated or differentiated off the support, and both where S has to be 1 and there are many updates to
    learn from.

    With ``kl="sampled"`` f gains log p(z) − log q(z), linear between the states.

    Args:
        control: "both" or "network", what c is made of.
        hidden: units of r_ψ's one tanh layer.
        temperature: initial τ.
        eta: initial η, 1 by default; not of the network alone.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> q = torch.distributions.Independent(torch.distributions.Bernoulli(torch.full((4, 2), 0.3)), 1)
        >>> target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
        >>> estimator = create("relax[control=network]")
        >>> estimator.init(q, target)
        >>> estimator(q, target, num_samples=1).aux_loss.shape
        torch.Size([4])

    References:
        Grathwohl, Choi, Wu, Roeder & Duvenaud, Backpropagation through the Void: Optimizing Control Variates
        for Black-Box Gradient Estimation, 2018, section 3.
    """

    unit: Tensor

    def __init__(
        self,
        control: str = "both",
        hidden: int = 32,
        temperature: float = 0.5,
        eta: float | None = None,
        kl: str = "analytic",
    ) -> None:
        super().__init__(temperature, 1.0 if eta is None else eta, kl)
        self.control = one_of("control", control, CONTROLS)
        self.hidden = positive_integer("hidden", hidden)
        self.network: nn.Sequential | None = None
        if control == "network":
            if eta is not None:
                raise UsageError(f"eta={eta!r} weighs f in the control variate: not with control=network")
            self.derivatives = 0
            self.relaxes_target = False
            self.eta.requires_grad_(False)

    def init(self, q: Distribution, target: Target) -> None:
        if self.network is not None:
            return
        variables = variables_of(q)
        with torch.no_grad():
            pilot = relaxed_integrand(q, target, self.kl, variables, variables.codes(draw(q, _PILOT)))
        spread = pilot.std()
        self.register_buffer("unit", torch.where(spread > 0, spread, 1.0))
        features = 0 if target.features is None else target.features.shape[-1]
        inputs = variables.logits[..., 1:].flatten(-2).shape[-1] + features
        output = nn.Linear(self.hidden, 1)
        nn.init.zeros_(output.weight)
        start = pilot.mean() / self.unit if self.control == "network" else pilot.new_zeros(())
        nn.init.constant_(output.bias, start.item())
        self.network = nn.Sequential(nn.Linear(inputs, self.hidden), nn.Tanh(), output).to(pilot)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        variables, attached = variables_of(q), self.training
        own = [self.log_temperature] if self.control == "network" else [self.log_temperature, self.eta]
        leaves = copies(own, variables.logits, q.batch_shape)
        with torch.enable_grad():
            draws = relaxed(q, variables, num_samples, leaves[0].exp())
            f = relaxed_integrand(q, target, self.kl, variables, draws.codes)
            r = self._network(draws.both, target)
            (slope,) = torch.autograd.grad(r.sum(), draws.both, create_graph=attached, retain_graph=True)
            of_network = draws.control(r, slope, attached)
            gradient = (f.detach()[..., None, None] * draws.centred).mean(0) + of_network
            if self.control == "both":
                c, slope = with_slope(q, target, self.kl, variables, draws.both, attached)
                gradient = gradient + leaves[1][..., None, None] * draws.control(c, slope, attached)
        estimate = tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))
        if not self.training:
            return estimate
        loss = squared_norm(variables, gradient)
        # r does not depend on θ, so that its own graph, and not that of the loss, leads to ψ.
        (weight,) = torch.autograd.grad(loss.sum(), gradient, retain_graph=True)
        of_weights = (weight * of_network).sum((-2, -1))
        return estimate._replace(aux_loss=carried(loss, leaves, own) + (of_weights - of_weights.detach()))

    def _network(
        self, both: Float[Tensor, "twoS *batch D K"], target: Target
    ) -> Float[Tensor, "twoS *batch"]:
        """r_ψ, which is shown K − 1 of the K numbers that sum to one."""
        if self.network is None:
            raise UsageError("relax: call init(q, target) before the first estimate")
        inputs = both[..., 1:].flatten(-2)
        if target.features is not None:
            features = target.features.to(inputs)
            inputs = torch.cat((inputs, features.expand(*inputs.shape[:-1], features.shape[-1])), -1)
        value = self.network(inputs.to(self.unit)).squeeze(-1) * self.unit
        return value.to(both)
