"""Exact means and variances of estimates of discrete latents, from every value that one of them can take.

Written from the formulas of the papers, and from nothing that the estimators use but the logits: the joint
distribution of antithetic bits, of samples without replacement and of tuples is a finite sum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.distributions import Distribution

from ...estimators.base import Estimator, Target
from ...estimators.kl_weight import FreeBits
from ...estimators.methods.arm import ARM
from ...estimators.methods.arms import ARMS
from ...estimators.methods.bit_flip import BitFlip
from ...estimators.methods.carms import CARMS
from ...estimators.methods.disarm import DisARM
from ...estimators.methods.double_control_variate import DoubleControlVariate
from ...estimators.methods.gapped_straight_through import GappedStraightThrough
from ...estimators.methods.gumbel_rao import GumbelRao
from ...estimators.methods.local_expectation import LocalExpectation
from ...estimators.methods.muprop import MuProp
from ...estimators.methods.reinmax import ReinMax
from ...estimators.methods.straight_through import StraightThrough
from ...estimators.methods.straight_through_gumbel_softmax import StraightThroughGumbelSoftmax
from ...estimators.methods.sum_and_sample import SumAndSample
from ...estimators.methods.unordered_set import UnorderedSet
from ...estimators.methods.vimco import VIMCO
from ...estimators.pieces.objective import has_kl, one_weight
from ...estimators.pieces.variables import not_discrete, variables_of
from .gumbel_means import logistic_nodes

_MOST = 2**22  # numbers that the gradients of all values may be
_MOST_ORDERED = 5  # samples whose orders are gone through

Posterior = Callable[[Tensor], Distribution]


class Moments(NamedTuple):
    """Of one estimate in η-space."""

    mean: Float[Tensor, "B P"]
    variance: Float[Tensor, "B P"]


class _Values(NamedTuple):
    """Every value that one of the independent terms that an estimate averages can take.

    Attributes:
        gradients: what log π of each state is multiplied by.
        weights: probabilities.
        terms: how many an estimate averages.
    """

    gradients: Float[Tensor, "N B D K"]
    weights: Float[Tensor, "N B"]
    terms: float


class _TooMany(Exception):
    """Values to be enumerated."""


def discrete_moments(
    estimator: Estimator, q_of: Posterior, eta: Float[Tensor, "B P"], target: Target, num_samples: int
) -> Moments | None:
    """Mean and variance of every coordinate of one estimate, or None where they are not known.

    Args:
        estimator: of exactly one of the classes known: a derived one may do anything.
        q_of: eta -> posterior.
        eta: (B, P), float64.
        target: for the B data.
        num_samples: S.
    """
    formula = _FORMULAS.get(type(estimator))
    if formula is None or not_discrete(q_of(eta)) is not None:
        return None
    try:
        every = _Every(estimator, q_of, eta, target)
        values = formula(every, estimator, num_samples)
    except _TooMany:
        return None
    if values is None:
        return None
    with torch.no_grad():
        h = torch.einsum("nbdk,bdkp->nbp", values.gradients, every.jacobian)
        weights = values.weights.unsqueeze(-1)
        mean = (weights * h).sum(0)
        variance = (weights * (h - mean).square()).sum(0) / values.terms
    found = Moments(mean + every.beside(estimator), variance)
    return found if all(part.isfinite().all() for part in found) else None


class _Every:
    """Every configuration of the variables of q, in the order of an odometer, and f there.

    Attributes:
        pi: (B, D, K), probabilities.
        codes: (N, D, K), the configurations.
        weights: (N, B), their probabilities.
        f: (N, B), log p(x|z), with the weighted log p(z) − log q(z) under a sampled KL.
        jacobian: (B, D, K, P), of log π in η.
    """

    def __init__(self, estimator: Estimator, q_of: Posterior, eta: Tensor, target: Target) -> None:
        self.q_of, self.eta, self.target = q_of, eta.detach(), target
        sampled = getattr(estimator, "kl", "sampled") == "sampled"
        self.weighed = sampled and has_kl(target)
        leaf = self.eta.clone().requires_grad_()
        self.variables = variables_of(q_of(leaf))
        log_pi = self.variables.logits
        _, self.size, self.states = log_pi.shape
        if self.states**self.size * log_pi.numel() > _MOST:
            raise _TooMany
        self.log_pi, self.pi = log_pi.detach(), log_pi.detach().exp()
        rows = [
            torch.autograd.grad(log_pi[:, d, k].sum(), leaf, retain_graph=True)[0]
            for d in range(self.size)
            for k in range(self.states)
        ]
        self.jacobian = torch.stack(rows, 1).unflatten(1, (self.size, self.states))
        self.digits = _odometer([self.states] * self.size, eta.device)
        self.codes = self.variables.one_hot(self.digits)
        self.weights = torch.einsum("ndk,bdk->nb", self.codes, self.log_pi).exp()
        self.f = self.f_at(self.codes.unsqueeze(1).expand(-1, *self.pi.shape))[0]

    def f_at(self, codes: Float[Tensor, "M B D K"], slopes: bool = False) -> tuple[Tensor, Tensor]:
        """f (M, B) and, if asked for, its derivative in the codes (M, B, D, K)."""
        with torch.enable_grad():
            moved = codes.detach().clone().requires_grad_(slopes)
            f = self.target.log_likelihood(self.variables.z(moved))
            if self.weighed:
                assert self.target.prior is not None
                ratio = variables_of(self.target.prior).logits.detach() - self.log_pi
                f = f + one_weight(self.target) * (moved * ratio).sum((-2, -1))
            (slope,) = torch.autograd.grad(f.sum(), moved) if slopes else (moved.detach(),)
        return f.detach(), slope

    def slopes(self) -> Tensor:
        """∂f/∂z at every configuration, (N, B, D, K)."""
        return self.f_at(self.codes.unsqueeze(1).expand(-1, *self.pi.shape), slopes=True)[1]

    def place(self, digits: Int64[Tensor, "*rows D"]) -> Int64[Tensor, "*rows"]:
        """Which configuration."""
        powers = self.states ** torch.arange(self.size - 1, -1, -1, device=digits.device)
        return (digits * powers).sum(-1)

    def f_of(self, digits: Int64[Tensor, "M B D"]) -> Float[Tensor, "M B"]:
        """f at configurations that differ between data."""
        return self.f.gather(0, self.place(digits))

    def centred(self, codes: Tensor) -> Tensor:
        """The score in the logits."""
        return codes - self.pi

    def afford(self, count: int) -> None:
        """Raise where so many values are too many."""
        if count * self.pi.numel() > _MOST:
            raise _TooMany

    def beside(self, estimator: Estimator) -> Tensor | float:
        """The gradient of what is added in closed form: −KL, unless it is sampled."""
        if self.weighed or self.target.prior is None or not has_kl(self.target):
            return 0.0
        leaf = self.eta.clone().requires_grad_()
        logits = variables_of(self.q_of(leaf)).logits
        prior = variables_of(self.target.prior).logits.detach()
        divergence = (logits.exp() * (logits - prior)).sum(-1)  # (B, D)
        if isinstance(self.target.kl_weight, FreeBits):
            counted = divergence.masked_fill(divergence < self.target.kl_weight.nats, 0.0)
        else:
            counted = one_weight(self.target) * divergence
        return -torch.autograd.grad(counted.sum(), leaf)[0]


def _odometer(bases: list[int], device: torch.device) -> Int64[Tensor, "N D"]:
    """Every row of digits below these bases."""
    return torch.cartesian_prod(*(torch.arange(base, device=device) for base in bases)).reshape(
        -1, len(bases)
    )


def _tangent(pi: Tensor, slope: Tensor) -> Tensor:
    """J(π) g = π (g − Σ π g) of each variable."""
    return pi * (slope - (pi * slope).sum(-1, keepdim=True))


# --- One sample a term ---


def _local_expectation(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    columns = []
    for d in range(every.size):
        states = torch.stack(
            [every.f[every.place(_with(every.digits, d, k))] for k in range(every.states)], -1
        )
        columns.append(_tangent(every.pi[:, d], states))
    return _Values(torch.stack(columns, 2), every.weights, num_samples)


def _with(digits: Tensor, d: int, state: int) -> Tensor:
    moved = digits.clone()
    moved[:, d] = state
    return moved


def _bit_flip(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    each = _local_expectation(every, estimator, num_samples).gradients
    chosen = torch.eye(every.size).to(each)[:, None, None, :, None]
    gradients = every.size * (chosen * each).flatten(0, 1)
    return _Values(gradients, every.weights.repeat(every.size, 1) / every.size, num_samples)


def _muprop(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    f, slope = every.f_at(every.pi.unsqueeze(0), slopes=True)
    centred = every.centred(every.codes.unsqueeze(1))
    left = every.f - f - (slope * centred).sum((-2, -1))
    gradients = left[..., None, None] * centred + _tangent(every.pi, slope)
    return _Values(gradients, every.weights, num_samples)


def _straight_through(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    assert isinstance(estimator, StraightThrough)
    tempered = (every.log_pi / estimator.temperature).softmax(-1)
    return _Values(_tangent(tempered, every.slopes()), every.weights, num_samples)


def _reinmax(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    assert isinstance(estimator, ReinMax)
    slope, tempered = every.slopes(), (every.log_pi / estimator.temperature).softmax(-1)
    halfway = (tempered + every.codes.unsqueeze(1)) / 2
    gradients = 2 * _tangent(halfway, slope) - _tangent(every.pi, slope) / 2
    return _Values(gradients, every.weights, num_samples)


def _gapped(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    assert isinstance(estimator, GappedStraightThrough)
    top, z = every.log_pi.amax(-1, keepdim=True), every.codes.unsqueeze(1)
    lifted = z * (top - every.log_pi)
    lowered = (1 - z) * (every.log_pi - top + estimator.gap).clamp_min(0)
    soft = ((every.log_pi + lifted - lowered) / estimator.temperature).softmax(-1)
    return _Values(_tangent(soft, every.slopes()) / estimator.temperature, every.weights, num_samples)


def _straight_through_gumbel(every: _Every, estimator: Estimator, num_samples: int) -> _Values | None:
    assert isinstance(estimator, StraightThroughGumbelSoftmax)
    if estimator.annealing:
        return None
    given = estimator.backward_temperature
    return _gumbel(every, float(estimator.temperature if given is None else given), 1, num_samples)


def _gumbel_rao(every: _Every, estimator: Estimator, num_samples: int) -> _Values | None:
    assert isinstance(estimator, GumbelRao)
    return _gumbel(every, estimator.temperature, estimator.inner_samples, num_samples)


def _gumbel(every: _Every, temperature: float, inner: int, num_samples: int) -> _Values | None:
    """Of bits. Given z their Jacobians are independent, and only two moments of each count.

    Hence each is given two values that have them, one deviation above the mean and one below.
    """
    if every.states != 2:
        return None
    logits = every.log_pi[..., 1] - every.log_pi[..., 0]
    moments = torch.tensor([[_jacobian(float(a), temperature) for a in row] for row in logits]).to(every.pi)
    mean, second = moments.unbind(-2)  # each (B, D, 2), by the bit
    spread = ((second - mean.square()).clamp_min(0) / inner).sqrt()
    signs = 2 * _odometer([2] * every.size, logits.device).to(every.pi) - 1  # (M, D)
    every.afford(len(signs) * len(every.f))
    bits = every.codes.unsqueeze(1)
    of_z = [(bits * part).sum(-1) for part in (mean, spread)]  # (N, B, D)
    factors = of_z[0] + signs[:, None, None, :] * of_z[1]  # (M, N, B, D)
    slope = every.slopes()
    along = factors * (slope[..., 1] - slope[..., 0])
    gradients = torch.stack((-along, along), -1).flatten(0, 1)
    return _Values(gradients, every.weights.repeat(len(signs), 1) / len(signs), num_samples)


def _jacobian(logit: float, temperature: float) -> tuple[list[float], list[float]]:
    """First and second moments of σ′((φ + X)/τ)/τ given that the bit is 0 and 1, X logistic."""
    x, weights = logistic_nodes(logit, temperature)
    noisy = (logit + x) / temperature
    jacobian = noisy.sigmoid() * (-noisy).sigmoid() / temperature
    found = []
    for power in (1, 2):
        each = []
        for bit in (noisy <= 0, noisy > 0):
            mass = weights * bit
            each.append(float((mass * jacobian**power).sum() / mass.sum().clamp_min(1e-300)))
        found.append(each)
    return found[0], found[1]


# --- Antithetic pairs and groups ---


def _arm(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    """A square of u − ½ on each piece of (0, 1): two Gauss-Legendre nodes are exact."""
    p = every.pi[..., 1]
    low, high = torch.minimum(p, 1 - p), torch.maximum(p, 1 - p)
    ends = torch.stack((torch.zeros_like(p), low, high, torch.ones_like(p)))
    half, middle = (ends[1:] - ends[:-1]) / 2, (ends[1:] + ends[:-1]) / 2
    u = torch.cat((middle - half / 3**0.5, middle + half / 3**0.5))  # (6, B, D)
    every.afford(6**every.size)
    which = _odometer([6] * every.size, p.device)
    u, lengths = (_of_each_variable(part, which) for part in (u, half.repeat(2, 1, 1)))
    pair = [every.f_of((u > 1 - p).long()), every.f_of((u < p).long())]
    gradient = (pair[0] - pair[1]).unsqueeze(-1) * (u - 0.5)
    return _Values(torch.stack((-gradient, gradient), -1), lengths.prod(-1), num_samples / 2)


def _of_each_variable(values: Float[Tensor, "M B D"], which: Int64[Tensor, "N D"]) -> Float[Tensor, "N B D"]:
    """The values that each variable takes."""
    return torch.stack([values[which[:, d], :, d] for d in range(which.shape[1])], -1)


def _disarm(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    """Of each bit of a stick: 1 in the first sample alone, in the second alone, or the same in both."""
    sticks = every.states - 1
    alpha, order = _sticks(every)
    p = alpha.sigmoid()
    patterns = _odometer([3] * sticks, p.device)  # (M, K − 1)
    every.afford(len(patterns) ** every.size)
    which = _odometer([len(patterns)] * every.size, p.device)
    pattern = patterns[which].unsqueeze(1)  # (N, 1, D, K − 1)
    apart = torch.minimum(p, 1 - p)
    weights = torch.where(pattern < 2, apart, 1 - 2 * apart).prod(-1).prod(-1)
    alike = ((pattern == 2) & (p > 0.5)).expand(-1, *p.shape)
    bits, mirrored = (pattern == 0) | alike, (pattern == 1) | alike
    first, second = (_first(part) for part in (bits, mirrored))
    f, partner = (every.f_of(_look_up(order, part)) for part in (first, second))
    matters = torch.arange(sticks, device=p.device) <= torch.maximum(first, second).unsqueeze(-1)
    credit = torch.where(mirrored, -1.0, 1.0) * ((bits != mirrored) & matters) * alpha.abs().sigmoid()
    gradients = _from_sticks(every, order, credit * (f - partner)[..., None, None] / 2)
    return _Values(gradients, weights, num_samples / 2)


def _sticks(every: _Every) -> tuple[Float[Tensor, "B D J"], Int64[Tensor, "B D K"]]:
    """Logits of the bits that spell each variable, and the states in order; of a Bernoulli variable z."""
    if every.variables.kind == "bernoulli":
        order = torch.tensor([1, 0], device=every.pi.device).expand(every.pi.shape)
    else:
        order = every.log_pi.argsort(-1)
    log_pi = every.log_pi.gather(-1, order)
    return log_pi[..., :-1] - _log_rest(log_pi), order


def _log_rest(log_pi: Float[Tensor, "B D K"]) -> Float[Tensor, "B D J"]:
    """Of what comes after each state but the last."""
    return log_pi.flip(-1).logcumsumexp(-1).flip(-1)[..., 1:]


def _from_sticks(every: _Every, order: Tensor, gradient: Float[Tensor, "N B D J"]) -> Tensor:
    """What log π is multiplied by: a bit's logit is log π of its state, less the log of what comes after."""
    log_pi = every.log_pi.gather(-1, order)
    shares = (log_pi.unsqueeze(-2) - _log_rest(log_pi).unsqueeze(-1)).exp().triu(1)  # (B, D, J, K)
    placed = torch.nn.functional.pad(gradient, (0, 1)) - torch.einsum("nbdj,bdjk->nbdk", gradient, shares)
    return torch.zeros_like(placed).scatter(-1, order.expand_as(placed), placed)


def _first(bits: Tensor) -> Int64[Tensor, "N B D"]:
    """Where the first 1 is; behind the last bit where there is none."""
    return torch.cat((bits, torch.ones_like(bits[..., :1])), -1).int().argmax(-1)


def _look_up(order: Int64[Tensor, "B D K"], places: Int64[Tensor, "N B D"]) -> Int64[Tensor, "N B D"]:
    return order.expand(*places.shape, order.shape[-1]).gather(-1, places.unsqueeze(-1)).squeeze(-1)


def _group(p: Tensor, n: int, ones: int, zeros: int) -> Tensor:
    """P(these of n coupled bits are 1 and these 0), the others free: u = (1 − d)^{n−1} < p, d ~ Dirichlet(1).

    P(d_i > t for m of them) = max(1 − m t, 0)^{n−1}, and zeros by inclusion and exclusion.
    """
    t = 1 - p.pow(1 / (n - 1))
    terms = [
        (-1) ** j * math.comb(zeros, j) * (1 - (ones + j) * t).clamp_min(0).pow(n - 1)
        for j in range(zeros + 1)
    ]
    return torch.stack(terms).sum(0).clamp_min(0)


def _arms(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    n, p = num_samples, every.pi[..., 1]
    rare = torch.minimum(p, 1 - p)
    patterns = _odometer([2] * n, p.device)  # (M, S)
    every.afford(len(patterns) ** every.size * n)
    which = _odometer([len(patterns)] * every.size, p.device)
    each = torch.stack([_group(rare, n, int(row.sum()), n - int(row.sum())) for row in patterns])
    weights = _of_each_variable(each, which).prod(-1)
    below = patterns[which].movedim(-1, 1).unsqueeze(2)  # (N, S, 1, D)
    bits = below ^ (p > 0.5).long()
    f = every.f_of(bits.flatten(0, 1)).unflatten(0, bits.shape[:2])
    factor = p * (1 - p) / (rare - _group(rare, n, 2, 0))
    centred = (f - f.mean(1, keepdim=True)).unsqueeze(-1)
    gradient = factor * (centred * (bits - p)).sum(1) / (n - 1)
    return _Values(torch.stack((-gradient, gradient), -1), weights, 1)


def _carms(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    """ρ = π_a π_b/P(z_k = a, z_l = b) from the joint distribution of the places of a pair among S."""
    n = num_samples
    alpha, order = _sticks_in_order(every)
    p = alpha.sigmoid()
    tuples = _odometer([every.states] * n, p.device)  # (M, S)
    every.afford(len(tuples) ** every.size * n)
    which = _odometer([len(tuples)] * every.size, p.device)
    each = torch.stack([_of_places(p, row.tolist(), n) for row in tuples])
    weights = _of_each_variable(each, which).prod(-1)
    states = _look_up(order, tuples[which].movedim(-1, 1).flatten(0, 1).unsqueeze(1).expand(-1, *p.shape[:2]))
    f = every.f_of(states).unflatten(0, (-1, n))
    codes = every.variables.one_hot(states).unflatten(0, (-1, n))
    pair = torch.stack(
        [_of_places(p, [a, b], n) for a in range(every.states) for b in range(every.states)]
    ).unflatten(0, (every.states, every.states))
    pi = every.pi.gather(-1, order)
    ratio = pi.movedim(-1, 0).unsqueeze(1) * pi.movedim(-1, 0).unsqueeze(0) / pair.clamp_min(1e-300)
    gradients = torch.zeros_like(codes[:, 0])
    for k, j in itertools.combinations(range(n), 2):
        place = tuples[:, k] * every.states + tuples[:, j]
        rho = _of_each_variable(ratio.flatten(0, 1)[place], which).unsqueeze(-1)
        difference = (f[:, k] - f[:, j])[..., None, None]
        apart = codes[:, k] - codes[:, j]
        gradients += torch.where(apart != 0, rho * difference * apart, 0.0) / (n * (n - 1))
    return _Values(gradients, weights, 1)


def _sticks_in_order(every: _Every) -> tuple[Tensor, Tensor]:
    """`_sticks` in the order of the probabilities, of a Bernoulli variable too."""
    order = every.log_pi.argsort(-1)
    log_pi = every.log_pi.gather(-1, order)
    return log_pi[..., :-1] - _log_rest(log_pi), order


def _of_places(p: Float[Tensor, "B D J"], places: list[int], n: int) -> Float[Tensor, "B D"]:
    """P(these samples among n have their first 1 at these bits)."""
    parts = [
        _group(p[..., j], n, sum(place == j for place in places), sum(place > j for place in places))
        for j in range(p.shape[-1])
    ]
    return torch.stack(parts).prod(0)


# --- Samples without replacement ---


def _unordered_set(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    """Σ_s p_s R(S, s) (f_s − B_s) (z_s − π), the probabilities of sets by a sum over the orders."""
    count = len(every.f)
    if num_samples > _MOST_ORDERED:
        raise _TooMany
    every.afford(math.comb(count, num_samples) * num_samples)
    sets = torch.tensor(list(itertools.combinations(range(count), num_samples)), device=every.pi.device)
    p, f = every.weights[sets].movedim(1, 0), every.f[sets].movedim(1, 0)  # (S, N, B)
    chosen = tuple(range(num_samples))
    probability = _drawn_next(p, chosen, ())
    gradients = torch.zeros(len(sets), *every.pi.shape).to(every.pi)
    for s in chosen:
        others = tuple(t for t in chosen if t != s)
        without = _drawn_next(p, others, (s,))  # P(S∖s; D∖s)
        baseline = torch.zeros_like(probability) if not others else p[s] * f[s]
        for t in others:
            rest = tuple(r for r in others if r != t)
            baseline = baseline + p[t] * _drawn_next(p, rest, (s, t)) / without * f[t]
        part = p[s] * without / probability * (f[s] - baseline)
        gradients += part[..., None, None] * every.centred(every.codes[sets[:, s]].unsqueeze(1))
    return _Values(gradients, probability, 1)


def _drawn_next(
    p: Float[Tensor, "S N B"], chosen: tuple[int, ...], before: tuple[int, ...]
) -> Float[Tensor, "N B"]:
    """P(the next ones drawn without replacement are these, in any order), after others were."""
    orders = itertools.permutations(chosen)
    return torch.stack([_drawn_in_order(p, order, before) for order in orders]).sum(0)


def _drawn_in_order(p: Float[Tensor, "S N B"], order: Sequence[int], before: Sequence[int]) -> Tensor:
    left, probability = torch.ones_like(p[0]), torch.ones_like(p[0])
    for s in before:
        left = left - p[s]
    for s in order:
        probability = probability * p[s] / left
        left = left - p[s]
    return probability


def _sum_and_sample(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    assert isinstance(estimator, SumAndSample)
    each = every.f[..., None, None] * every.centred(every.codes.unsqueeze(1))
    term = every.weights[..., None, None] * each
    if estimator.summed == "most-likely":
        top = every.weights.topk(num_samples - 1, 0).indices
        inside = torch.zeros_like(every.weights).scatter(0, top, 1.0)
        rest = (1 - (inside * every.weights).sum(0)).clamp_min(0)
        gradients = (inside[..., None, None] * term).sum(0) + rest[:, None, None] * each
        return _Values(gradients, (1 - inside) * every.weights / rest.clamp_min(1e-300), 1)
    count = len(every.f)
    every.afford(math.perm(count, num_samples) * num_samples)
    rows = torch.tensor(list(itertools.permutations(range(count), num_samples)), device=every.pi.device)
    p = every.weights[rows].movedim(1, 0)
    rest = 1 - p[:-1].sum(0)
    gradients = term[rows[:, :-1]].sum(1) + rest[..., None, None] * each[rows[:, -1]]
    return _Values(gradients, _drawn_in_order(p, range(num_samples), ()), 1)


# --- Tuples of samples ---


def _tuples(every: _Every, num_samples: int) -> tuple[Int64[Tensor, "N S"], Float[Tensor, "N B"]]:
    """Every way to draw S samples, and its probability."""
    every.afford(len(every.f) ** num_samples * num_samples)
    which = _odometer([len(every.f)] * num_samples, every.pi.device)
    return which, every.weights[which].prod(1)


def _double_control_variate(every: _Every, estimator: Estimator, num_samples: int) -> _Values:
    assert isinstance(estimator, DoubleControlVariate)
    which, weights = _tuples(every, num_samples)
    alpha, slope = float(estimator.alpha.detach()), every.slopes()[which]  # (N, S, B, D, K)
    centred = every.centred(every.codes.unsqueeze(1))[which]
    of_others = (slope.sum(1, keepdim=True) - slope) / (num_samples - 1)
    control = every.f[which] + alpha * (of_others * centred).sum((-2, -1))
    baseline = (control.sum(1, keepdim=True) - control) / (num_samples - 1)
    score = ((control - baseline)[..., None, None] * centred).mean(1)
    return _Values(score - alpha * _tangent(every.pi, slope.mean(1)), weights, 1)


def _vimco(every: _Every, estimator: Estimator, num_samples: int) -> _Values | None:
    """(L̂ − L̂_{−k} − ŵ_k) (z_k − π), the weight of k replaced by a mean of the others' in L̂_{−k}."""
    assert isinstance(estimator, VIMCO)
    which, weights = _tuples(every, num_samples)
    log_w = every.f[which]  # (N, S, B)
    credits = []
    for k in range(num_samples):
        others = torch.cat((log_w[:, :k], log_w[:, k + 1 :]), 1)
        geometric = estimator.mean == "geometric"
        stand_in = others.mean(1) if geometric else others.logsumexp(1) - math.log(num_samples - 1)
        without = torch.cat((others, stand_in.unsqueeze(1)), 1).logsumexp(1)
        credits.append(log_w.logsumexp(1) - without - log_w.softmax(1)[:, k])
    centred = every.centred(every.codes.unsqueeze(1))[which]
    return _Values((torch.stack(credits, 1)[..., None, None] * centred).sum(1), weights, 1)


_FORMULAS: dict[type[Estimator], Callable[[_Every, Any, int], _Values | None]] = {
    ARM: _arm,
    ARMS: _arms,
    BitFlip: _bit_flip,
    CARMS: _carms,
    DisARM: _disarm,
    DoubleControlVariate: _double_control_variate,
    GappedStraightThrough: _gapped,
    GumbelRao: _gumbel_rao,
    LocalExpectation: _local_expectation,
    MuProp: _muprop,
    ReinMax: _reinmax,
    StraightThrough: _straight_through,
    StraightThroughGumbelSoftmax: _straight_through_gumbel,
    SumAndSample: _sum_and_sample,
    UnorderedSet: _unordered_set,
    VIMCO: _vimco,
}
