"""The reparameterization gradient with a fitted quadratic as control variate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from ..base import Estimate, Target
from ..errors import UsageError
from ..pieces.arguments import positive_integer
from ..pieces.objective import analytic_kl, has_kl, integrand, one_weight
from ..pieces.quadratic import Quadratic, flat, unknown_covariance
from ..posteriors.distributions import parameters_of, with_parameters
from ..posteriors.noise import Noise, log_prob_along, rsample
from .reparameterization import Reparameterization

_DECAY = 0.99  # of the averages that the weight γ is the ratio of
_PILOT = 64
_FACTOR = 0.1  # initial size of the factors of B, which have no gradient at 0


class QuadraticControlVariate(Reparameterization):
    r"""Subtract a fitted quadratic f̂_v and add its exact expectation: f(z) − γ (f̂_v(z) − E_q f̂_v).

    ĝ = (1/S) Σ_s ∇_η [f(z_s) − γ f̂_v(z_s)] + γ ∇_η E_q f̂_v − ∇_η KL, z_s = g(ε_s; η), with

        f̂_v(z) = bᵀ(z − m) + ½ (z − m)ᵀ B (z − m),   B = diag(d) − V Vᵀ,   m = E_q z at the current φ
        E_q f̂_v = bᵀ(E_q z − m) + ½ tr(B Cov_q z)

    Unbiased for the ELBO whatever v = (b, d, V) and γ are, when f is differentiable in z; S evaluations of
    log p(x|z), one backward pass through it for φ, another for θ. With D − 1 columns in V any symmetric B can
    be had; the sign is that of a log-likelihood's curvature.

    v minimizes the variance of the gradient in the parameters that q is built from (loc and scale of a
    Gaussian), at γ = 1: `aux_loss` carries in training mode ‖∇_η f − ∇_η f̂_v + ∇_η E_q f̂_v − c‖² with
    c = ∇_η E_q f̂_v held fixed, whose gradient has the expectation of the variance's for any c, and no noise
    where f̂_v is f. `update` moves γ to the weight that minimizes the variance for the v at hand, a ratio
    of two moving averages; before the first update γ = 0, which is ``reparameterization``. Each datum has
    its own f: a network of one tanh layer emits its v from the target's features; without features all
    data share one v. `init` starts v, for all data alike, at the mean of ∇f and its regression on z over 64
    pilot samples, and takes its units from these.

    Use it where there are many updates at slowly moving φ and θ, and D is too large for
    ``linearized-hessian[hessian=full]``, which needs no fit and adapts at once.

    q may be any reparameterizable posterior of known mean and covariance. With ``kl="sampled"`` f gains
    log p(z) − log q(z), and f̂_v is fitted without log q.

    Args:
        rank: columns of V, at most D − 1 are used; 0 for a diagonal B.
        hidden: units of the one tanh layer.
        kl: "analytic" (closed form) or "sampled".

    Example:
        >>> import torch
        >>> from elbograd.estimators import Target, create
        >>> loc = torch.zeros(4, 2, requires_grad=True)
        >>> q = torch.distributions.Independent(torch.distributions.Normal(loc, 1.0), 1)
        >>> target = Target(lambda z: -(z - 1).square().sum(-1))
        >>> estimator = create("quadratic-control-variate")
        >>> estimator.init(q, target)
        >>> estimator(q, target, num_samples=1).aux_loss.shape
        torch.Size([4])

    References:
        Geffner & Domke, Approximation Based Variance Reduction for Reparameterization Gradients, 2020,
        section 3.
    """

    unit: Tensor
    gain: Tensor
    power: Tensor

    def __init__(self, rank: int = 2, hidden: int = 64, kl: str = "analytic") -> None:
        super().__init__(kl)
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 0:
            raise UsageError(f"rank={rank!r} is not a non-negative integer")
        self.rank = rank
        self.hidden = positive_integer("hidden", hidden)
        self.size = 0
        self.network: nn.Sequential | None = None
        self.shared: nn.Parameter | None = None

    def supports(self, q: Distribution, target: Target, num_samples: int) -> str | None:
        try:
            parameters_of(q)
        except TypeError as error:
            return str(error)
        return super().supports(q, target, num_samples) or unknown_covariance(q)

    def init(self, q: Distribution, target: Target) -> None:
        if self.network is not None or self.shared is not None:
            return
        self.size = q.event_shape.numel()
        start, unit = self._pilot(q, target)
        self.register_buffer("unit", unit)
        self.register_buffer("gain", unit.new_zeros(()))
        self.register_buffer("power", unit.new_zeros(()))
        if target.features is None:
            self.shared = nn.Parameter(start)
            return
        output = nn.Linear(self.hidden, len(start))
        nn.init.zeros_(output.weight)
        network = nn.Sequential(nn.Linear(target.features.shape[-1], self.hidden), nn.Tanh(), output)
        self.network = network.to(unit)
        with torch.no_grad():
            output.bias.copy_(start)

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        parameters = parameters_of(q)
        # What is fixed counts in no variance; where all is, no gradient is asked for.
        names = [name for name, value in parameters.items() if value.requires_grad] or list(parameters)
        wrt = [parameters[name].detach().requires_grad_() for name in names]
        with torch.enable_grad():
            # Of leaves, so that what fits v, a derivative of gradients, does not reach φ.
            q = with_parameters(q, {**parameters, **dict(zip(names, wrt, strict=True))})
            z, noise = rsample(q, num_samples)
            f = integrand(q, target, z, self.kl, z.new_zeros(())).mean(0)
            rest = self._rest(q, target, z, noise)
            model = self._quadratic(target)
            average, expectation = model.average(q, z), model.expectation(q)
            plain, without_noise = _gradient(f, wrt, q), _gradient(rest, wrt, q)
            expected = _gradient(expectation, wrt, q, attached=self.training)
            control = _gradient(average, wrt, q, attached=self.training) - expected

        weight = self.gain / self.power.clamp_min(torch.finfo(self.power.dtype).tiny)
        estimate = plain + without_noise - weight * control.detach()
        term = (_joined([parameters[name] for name in names], q) * estimate).sum(-1)
        value = f + rest - weight * (average - expectation).detach()
        elbo = value + term - term.detach()
        if not self.training:
            return Estimate(elbo, elbo)
        centred = plain - expected.detach()
        info = {"gain": (centred * control).sum(-1).detach(), "power": control.square().sum(-1).detach()}
        return Estimate(elbo, elbo, (centred - control).square().sum(-1), info)

    def update(self, estimate: Estimate) -> None:
        for name in ("gain", "power") if "gain" in estimate.info else ():
            average = self.get_buffer(name)
            average.lerp_(estimate.info[name].mean().to(average), 1 - _DECAY)

    def _rest(
        self, q: Distribution, target: Target, z: Float[Tensor, "S *batch_event"], noise: Noise | None
    ) -> Float[Tensor, "*batch"]:
        """What is added to f, (*batch): minus the closed-form KL, or minus log q where it is sampled."""
        if self.kl == "sampled" and has_kl(target):
            return -one_weight(target) * log_prob_along(q, z, noise).mean(0)
        return z.new_zeros(q.batch_shape) - analytic_kl(q, target, self.kl)

    def _quadratic(self, target: Target) -> Quadratic:
        """f̂_v of every datum, attached to the estimator's parameters."""
        if self.shared is not None:
            raw: Tensor = self.shared
        elif self.network is not None and target.features is not None:
            raw = self.network(target.features.to(self.unit))
        else:
            raise UsageError("quadratic-control-variate: call init(q, target) before the first estimate")
        slope, diagonal, *factors = (raw * self.unit).split(self.size, -1)
        curvature = torch.diag_embed(diagonal)
        for factor in factors:
            curvature = curvature - factor.unsqueeze(-1) * factor.unsqueeze(-2)
        return Quadratic(slope, curvature)

    def _pilot(
        self, q: Distribution, target: Target
    ) -> tuple[Float[Tensor, "coefficients"], Float[Tensor, "coefficients"]]:
        """Initial coefficients b, d, V of all data, in units, and the units, one tensor each."""
        with torch.no_grad():
            z, _ = rsample(q, _PILOT)
        leaf = z.requires_grad_()
        with torch.enable_grad():
            f = integrand(q, target, leaf, self.kl, leaf.new_zeros(())).sum() + 0.0 * leaf.sum()
        slopes = flat(q, torch.autograd.grad(f, leaf)[0]).reshape(_PILOT, -1, self.size)
        points = flat(q, leaf.detach()).reshape_as(slopes)
        delta, change = points - points.mean(0), slopes - slopes.mean(0)
        spread = delta.square().mean((0, 1))
        slope, diagonal = slopes.mean((0, 1)), (delta * change).mean((0, 1)) / spread
        units = [slopes.square().mean((0, 1)).sqrt(), (change.square().mean((0, 1)) / spread).sqrt()]
        # Where f does not depend on a coordinate yet, any unit does.
        units = [torch.where(unit > 0, unit, 1.0) for unit in units]
        rank = min(self.rank, self.size - 1)
        factors = _FACTOR * torch.randn(rank, self.size, dtype=slope.dtype, device=slope.device)
        start = torch.cat((slope / units[0], diagonal / units[1], factors.flatten()))
        return start, torch.cat((*units, units[1].sqrt().repeat(rank)))


def _gradient(
    of: Float[Tensor, "*batch"], wrt: list[Tensor], q: Distribution, attached: bool = False
) -> Float[Tensor, "*batch P"]:
    """∇ of every datum's entry of ``of`` (*batch) in its own part of ``wrt``, (*batch, P)."""
    if not of.requires_grad:
        return torch.zeros_like(_joined(wrt, q))
    parts = torch.autograd.grad(
        of.sum(), wrt, retain_graph=True, create_graph=attached, materialize_grads=True
    )
    return _joined(parts, q)


def _joined(parts: Sequence[Tensor], q: Distribution) -> Float[Tensor, "*batch P"]:
    """Parameters (*batch, ·) of q, or gradients in them, as (*batch, P); the upper half of a factor is 0."""
    rows, vector = len(q.batch_shape), len(q.batch_shape) + len(q.event_shape)
    return torch.cat([(p.tril() if p.dim() > vector else p).flatten(rows) for p in parts], -1)
