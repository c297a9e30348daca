"""Whether a posterior is, in floating point, what estimators take it for: two properties, tested.

- The score has mean zero, E_q ∇_η log q(z) = 0. It has not where sampler and density disagree (a Gamma of
  concentration 0.01 in float32), or where the support moves with η.
- The path is a derivative: E ∂t(z(η))/∂η = ∂/∂η E t(z(η)) for smooth t. It is not where a sample is a
  stand-in (straight-through), or detached.

Each is a mean that is zero if the property holds. 32 blocks of draws give 32 independent means of every
coordinate, near normal, for Student's t. What differs at a family-wise 1e-3 is looked at afresh, twice, at
that coordinate and sign alone, at 1e-3 each: a right posterior is refused once in 10⁹ measurements if the
means are normal, and three looks leave room for those that are not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ...estimators.base import Estimator, Target
from ...estimators.posteriors.distributions import describe, draw, log_prob, reparameterizable, rsample
from ...estimators.posteriors.families import family_of, innermost
from ...estimators.posteriors.layered import Layered
from ...estimators.posteriors.shared import SharedDraws, shares_draws
from ..seeds import hashed

Posterior = Callable[[Tensor], Distribution]

#: Of these the properties are known: the samplers are exact where the densities are, and the scores of
#: Gaussians are taken from the noise itself.
KNOWN = (td.Normal, td.MultivariateNormal, td.Bernoulli, td.Categorical, td.OneHotCategorical, td.Binomial)
_BLOCKS = 32
_FALSE_ALARMS = 1e-3  # of a look
_LOOKS = 3
_NUMBERS = 2**18  # in a block of draws
_FEWEST, _MOST = 64, 2048  # draws in a block
_DISCRETE = (td.Bernoulli, td.Categorical, td.OneHotCategorical, td.Binomial)
_FEW_VALUES = 64
_SPACINGS = 16  # of the dtype at the mean, in σ: f's rounding then moves a gradient by less than 0.1%
_STEP = 0.05  # in η, of the differences that the path is held against
_DIFFERENCES = 2e-3  # error of these, relative to the derivative
_ROUNDING = 1e-6
_NAN = "NaN"


def distrust(
    posterior: Posterior, eta: Float[Tensor, "B P"], target: Target, estimator: Estimator, seed: int = 0
) -> str | None:
    """Why an estimator's answer would be wrong under this posterior, in one line; or None.

    Draws from generators of its own; what is drawn afterwards does not change.

    Args:
        posterior: eta (B, P) -> q of batch shape (B,).
        eta: where it is measured.
        target: the integrand, for whether there is a prior.
        estimator: which properties it needs follows from its claims.
        seed: of the draws.
    """
    return defect(posterior, eta, *properties(estimator, target), seed)


def defect(
    posterior: Posterior, eta: Float[Tensor, "B P"], path: bool, score: bool, seed: int = 0
) -> str | None:
    """Which of the two properties does not hold, in one line, of those that are asked for; or None."""
    q = posterior(eta)
    if shares_draws(q):
        eta = eta[:1]  # all data draw as the first does, whose gradient would be that of all
        q = posterior(eta)
    if is_known(q):
        return coarse(q) if score and not path else None
    devices = [eta.device] if eta.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(hashed(seed, "posterior"))
        some = _few_enough(posterior, eta)
        found = path_defect(posterior, some) if path and reparameterizable(q) else None
        if found is None and score:
            found = coarse(q) or score_defect(posterior, some)
        return found


def _few_enough(posterior: Posterior, eta: Tensor) -> Tensor:
    """As many data as can be tested: half of them those whose eta lies furthest out, half any."""
    q = posterior(eta)
    most = max(2, _NUMBERS // (_FEWEST * max(1, q.event_shape.numel())))
    if len(eta) <= most:
        return eta
    spread = eta.std(0).clamp_min(1e-12)
    far = ((eta - eta.mean(0)) / spread).abs().max(-1).values.argsort(descending=True)
    rest = far[most // 2 :]
    chosen = torch.cat((far[: most // 2], rest[torch.randperm(len(rest), device=rest.device)[: most // 2]]))
    try:
        posterior(eta[chosen])
    except Exception:  # a posterior of this one batch: all of it then
        return eta
    return eta[chosen]


def coarse(q: Distribution) -> str | None:
    """Why f, or log q, does not tell draws apart that lie close together far from zero; or None."""
    if isinstance(q, Layered):
        layers = q.given(q.split(draw(q, 1))).values()
        return next((why for why in map(coarse, layers) if why), None)
    base = _innermost(q)
    try:
        support = q.support
        discrete = support is not None and bool(support.is_discrete)
    except NotImplementedError:
        discrete = False
    if discrete or family_of(base) in _DISCRETE:
        return None
    loc, scale = _moments(base)
    kind = loc.dtype
    spacing = loc.abs() * torch.finfo(kind).eps
    if bool((scale >= _SPACINGS * spacing).all()):
        return None
    worst = int((scale / spacing).nan_to_num(torch.inf).argmin())
    name = str(kind).removeprefix("torch.")
    remedy = "float64, or " if kind != torch.float64 else ""
    return (
        f"draws of this {describe(q)} have too few digits in {name}: its standard deviation is "
        f"{float(scale.flatten()[worst]):.2g} at mean {float(loc.flatten()[worst]):.4g}, and f is rounded as "
        f"coarsely; try {remedy}a pathwise estimator"
    )


@torch.no_grad()
def _moments(q: Distribution) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every coordinate, from draws where there is no formula."""
    if family_of(q) in (td.Normal, td.MultivariateNormal):
        assert isinstance(q, td.Normal | td.MultivariateNormal)
        return q.loc, q.stddev
    z = draw(q, _FEWEST)
    return z.mean(0), z.std(0)


def is_known(q: Distribution) -> bool:
    """Whether q, or what independent ones it is made of, is of a family whose properties are known."""
    if isinstance(q, Layered):
        return all(map(is_known, q.examples.values()))
    return family_of(_innermost(q)) in KNOWN


def _innermost(q: Distribution) -> Distribution:
    return innermost(q.base if isinstance(q, SharedDraws) else q)


def properties(estimator: Estimator, target: Target) -> tuple[bool, bool]:
    """Whether an estimate is right only if the path is a derivative, and only if the score has mean zero."""
    if estimator.deterministic:
        return False, False
    path = estimator.derivatives > 0
    sampled = target.prior is not None and getattr(estimator, "kl", "sampled") != "analytic"
    return path, not path or sampled


def score_defect(posterior: Posterior, eta: Float[Tensor, "B P"]) -> str | None:
    """Why E ∇_η log q(z) = 0 does not hold, or None."""
    draws = _draws(posterior(eta))

    def block() -> Tensor:
        leaf = eta.detach().requires_grad_()
        q = posterior(leaf)
        z = draw(q, draws)
        mean = log_prob(q, z).mean(0)
        if not mean.requires_grad:
            return torch.zeros_like(eta)
        (score,) = torch.autograd.grad(mean.sum(), leaf, materialize_grads=True)
        return score

    name = describe(posterior(eta))
    try:
        found = _nonzero_mean(block)
    except NotImplementedError:  # no density: estimators that need one say so
        return None
    if found is None:
        return None
    if found == _NAN:
        return f"log q of {name} or its gradient is not finite at its own draws{_remedy(eta)}"
    return (
        f"the score of this {name} does not average to zero ({found}): sampler and density disagree, or the "
        f"support moves with η{_remedy(eta)}"
    )


def path_defect(posterior: Posterior, eta: Float[Tensor, "B P"]) -> str | None:
    """Why ∂z/∂η is no derivative of the samples, or None."""
    name = describe(posterior(eta))
    draws = _draws(posterior(eta))
    values = _distinct_values(posterior, eta)
    if values is not None:
        return (
            f"1,024 samples of {name} take {values} values only: what rsample differentiates is a stand-in "
            "(straight-through?)"
        )
    slopes = [torch.zeros(())]
    direction = torch.where(torch.rand_like(eta) < 0.5, -1.0, 1.0).to(eta)

    def at(point: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """E t and its derivative along the direction, (B,) each."""
        torch.manual_seed(seed)
        leaf = point.detach().requires_grad_()
        t = _squashed(rsample(posterior(leaf), draws), eta).mean(0)
        if not t.requires_grad:
            return t, torch.zeros_like(t)
        (slope,) = torch.autograd.grad(t.sum(), leaf, materialize_grads=True)
        return t.detach(), (slope * direction).sum(-1)

    def block() -> Tensor:
        seed = int(torch.randint(2**31, ()))
        state = torch.get_rng_state()
        (low, before), (_, here), (high, after) = (
            at(eta + sign * _STEP * direction, seed) for sign in (-1, 0, 1)
        )
        torch.set_rng_state(state)
        slopes.append(torch.stack((before, here, after)).abs().max())
        # Simpson's rule for the mean of the derivative between the two: of fourth order in the step.
        difference: Tensor = (high - low) / (2 * _STEP) - (before + 4 * here + after) / 6
        return difference.unsqueeze(-1)

    found = _nonzero_mean(block, lambda: _DIFFERENCES * float(max(slopes)))
    if found is None:
        return None
    if found == _NAN:
        return f"samples of this {name} or their derivative are not finite{_remedy(eta)}"
    return f"the derivative of this {name}'s samples is not that of their mean: off by {found}{_remedy(eta)}"


def _distinct_values(posterior: Posterior, eta: Tensor) -> int | None:
    """How many values a coordinate of z takes, where these are few and yet said to move with η."""
    leaf = eta.detach().requires_grad_()
    z = rsample(posterior(leaf), 1024)
    if not z.requires_grad:
        return None
    rows = z.detach().reshape(1024, -1)
    fewest = min(len(rows[:, j].unique()) for j in range(min(rows.shape[1], 64)))
    if fewest > _FEW_VALUES:
        return None
    (slope,) = torch.autograd.grad(z.double().sum(), leaf, materialize_grads=True)
    return fewest if bool(slope.any()) else None


def _squashed(z: Tensor, eta: Tensor) -> Tensor:
    """A smooth bounded function of z (S, B, *event), (S, B)."""
    rows = z.reshape(*z.shape[:2], -1)
    weights = torch.linspace(1.0, 0.3, rows.shape[-1]).to(eta)
    return (torch.tanh(rows + 0.3) * weights).sum(-1)


def _draws(q: Distribution) -> int:
    numbers = max(1, q.batch_shape.numel() * q.event_shape.numel())
    return max(_FEWEST, min(_MOST, _NUMBERS // numbers))


def _nonzero_mean(
    block: Callable[[], Float[Tensor, "B columns"]], floor: Callable[[], float] = lambda: 0.0
) -> str | None:
    """The coordinate whose mean differs from zero in every look, with the numbers; or `_NAN`, or None.

    Args:
        block: one of independent means.
        floor: what a difference may be for other reasons, once blocks were drawn.
    """
    where: tuple[int, float] | None = None
    for _ in range(_LOOKS):
        blocks = torch.stack([block() for _ in range(_BLOCKS)]).double()
        columns, means = blocks.shape[-1], blocks.flatten(1)
        if not bool(means.isfinite().all()):
            return _NAN
        mean, error = means.mean(0), means.std(0) / _BLOCKS**0.5
        rounding = _ROUNDING * means.square().mean(0).sqrt() + floor()
        t = mean / (error.square() + rounding.square()).sqrt().clamp_min(1e-300)
        if where is None:
            index = int(t.abs().argmax())
            where = index, 1.0 if t[index] > 0 else -1.0
            level = 1 - _FALSE_ALARMS / (2 * t.numel())
        else:
            level = 1 - _FALSE_ALARMS
        index, sign = where
        if not sign * float(t[index]) > special.stdtrit(_BLOCKS - 1, level):
            return None
    half = float(special.stdtrit(_BLOCKS - 1, 0.975)) * float(error[index])
    datum, coordinate = divmod(index, columns)
    return f"{float(mean[index]):.2g} ± {half:.1g} in η[{datum}, {coordinate}]"


def _remedy(eta: Tensor) -> str:
    return "" if eta.dtype == torch.float64 else ": try float64, or parameters further from the edge"
