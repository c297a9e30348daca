"""The expected integrand as a sum over every z, in memory that does not grow with their number.

Under independent variables q(z) = q₁(u) q₂(v) for the first and the last of them, and

    ∇ Σ_uv q₁(u) q₂(v) f(u, v) = Σ_u ∇q₁(u) [Σ_v q₂(v) f(u, v)] + Σ_v ∇q₂(v) [Σ_u q₁(u) f(u, v)]:

what is in brackets is summed up on the way, detached, so that φ is differentiated in two short tables alone.
Other posteriors, and θ wherever f needs it, are differentiated chunk by chunk, each computed once more in the
backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution
from torch.utils.checkpoint import checkpoint

from ..base import Target
from ..posteriors.outcomes import Outcomes, enumerate_outcomes, log_tables
from .objective import conditional_kls, has_kl, integrand, log_ratio

_ENTRIES = 2**14  # numbers f(z) at a time, which a decoder makes some hundred times as many of
_AT_ONCE = 2**15  # numbers f(z) that are kept all together
_WIDE = 64  # numbers of one z that count for one f(z)
_PROBES = 4

_T = TypeVar("_T")

#: f(z) for z (n, *batch or *ones, *event) and log q(z) (n, *batch): (n, *batch), or what broadcasts to it.
_Integrand = Callable[[Tensor, Tensor], Tensor]


def expected(q: Distribution, target: Target, kl: str) -> Float[Tensor, "*batch"]:
    """E_q[f(z)], (*batch), f as of `integrand`, attached to φ and θ; q over a finite support.

    A decoder that takes one z for all data, where x broadcasts, is run once for all of them.
    """
    every = Outcomes(q)
    if len(every) * q.batch_shape.numel() <= _AT_ONCE:
        z = enumerate_outcomes(q)
        log_q = q.log_prob(z)
        f = integrand(q, target, z, kl, log_q.detach())
        return (log_q.exp() * _where_possible(f, log_q)).sum(0)
    value: Tensor = torch.compiler.disable(_in_chunks)(q, every, target, kl)
    return value


def recomputed(part: Callable[..., _T], *arguments: object) -> _T:
    """What part computes, of which the backward pass keeps nothing but the arguments."""
    if not torch.is_grad_enabled():
        return part(*arguments)
    found: _T = checkpoint(part, *arguments, use_reentrant=False, preserve_rng_state=False)
    return found


def _in_chunks(q: Distribution, every: Outcomes, target: Target, kl: str) -> Float[Tensor, "*batch"]:
    f, attached = integrand_of_outcomes(q, every, target, kl)
    tables = log_tables(q)
    rows = outcomes_at_a_time(q)
    if tables is None:
        return _of_any(q, every, f, attached, rows)
    return _of_independent(tables, every, f, attached, rows)


def _of_any(
    q: Distribution, every: Outcomes, f: _Integrand, attached: bool, rows: int
) -> Float[Tensor, "*batch"]:
    value = torch.zeros(())

    def part(start: int) -> Tensor:
        z = every.between(start, min(start + rows, len(every)))
        log_q = q.log_prob(z.expand(-1, *q.batch_shape, *q.event_shape))
        with torch.set_grad_enabled(attached):
            g = _where_possible(f(z, log_q.detach()), log_q)
        return (log_q.exp() * g).sum(0)

    for start in range(0, len(every), rows):
        value = value + recomputed(part, start)
    return value


def _of_independent(
    tables: Float[Tensor, "K *batch D"], every: Outcomes, f: _Integrand, attached: bool, rows: int
) -> Float[Tensor, "*batch"]:
    first, last = _halves(tables, rows)
    log_u, log_v = first.detach(), last.detach()
    q_u, q_v = log_u.exp(), log_v.exp()
    of_u, of_v = torch.zeros_like(q_u), torch.zeros_like(q_v)  # Σ_v q₂ f and Σ_u q₁ f
    value = torch.zeros_like(q_u[0])

    def part(u: int, v: slice) -> tuple[Tensor, Tensor]:
        z = every.between(u * len(q_v) + v.start, u * len(q_v) + v.stop)
        log_q = log_u[u] + log_v[v]
        g = _where_possible(f(z, log_q), log_q)
        return (q_u[u] * q_v[v] * g).sum(0), g.detach()

    for u in range(len(q_u)):
        for start in range(0, len(q_v), rows):
            v = slice(start, min(start + rows, len(q_v)))
            with torch.set_grad_enabled(attached):
                total, g = recomputed(part, u, v) if attached else part(u, v)
            value = value + total
            of_u[u] += (q_v[v] * g).sum(0)
            of_v[v] += q_u[u] * g
    # Each half's probabilities sum to one: what is taken from f changes no gradient, and spares digits.
    mean = value.detach()
    moved = (first.exp() * (of_u - mean)).sum(0) + (last.exp() * (of_v - mean)).sum(0)
    return value + (moved - moved.detach())


def _halves(tables: Float[Tensor, "K *batch D"], rows: int) -> tuple[Tensor, Tensor]:
    """log q₁ and log q₂ of the first and the last variables' outcomes, each (outcomes, *batch).

    The last make up at least ``rows`` outcomes and half the variables, so that both tables stay short.
    """
    states, variables = tables.shape[0], tables.shape[-1]
    last = variables - variables // 2
    while last < variables and states**last < rows:
        last += 1
    each = tables.unbind(-1)
    return _joint(each[: variables - last], tables), _joint(each[variables - last :], tables)


def _joint(each: tuple[Tensor, ...], like: Float[Tensor, "K *batch D"]) -> Float[Tensor, "outcomes *batch"]:
    """log q of every combination of independent variables (K, *batch), in lexicographic order."""
    joint = like.new_zeros(1, *like.shape[1:-1])
    for table in each:
        joint = (joint.unsqueeze(1) + table).flatten(0, 1)
    return joint


def integrand_of_outcomes(
    q: Distribution, every: Outcomes, target: Target, kl: str
) -> tuple[_Integrand, bool]:
    """f(z, log q(z)) for a z (n, *ones, *event) that all data share, and whether it is attached to θ."""
    numbers = torch.linspace(0, len(every) - 1, _PROBES, dtype=torch.float64).long()
    probes = every.at(numbers.to(every.supports[0].device))
    whole = probes.expand(-1, *q.batch_shape, *q.event_shape)
    log_q = q.log_prob(whole).detach()
    f = integrand(q, target, whole, kl, log_q)
    # A closed-form KL given the parents is each datum's own.
    alike = kl == "sampled" or not conditional_kls(q, target, whole)
    shared = alike and q.batch_shape.numel() > 1 and _takes_one_for_all(target, probes, whole)

    def of(z: Tensor, log_q: Tensor) -> Tensor:
        if not shared:
            return integrand(q, target, z.expand(-1, *q.batch_shape, *q.event_shape), kl, log_q)
        g = target.log_likelihood(z)
        return g + log_ratio(q, target, z, log_q) if kl == "sampled" and has_kl(target) else g

    return of, f.requires_grad and torch.is_grad_enabled()


@torch.no_grad()
def _takes_one_for_all(
    target: Target, z: Shaped[Tensor, "n *ones_event"], whole: Shaped[Tensor, "n *batch_event"]
) -> bool:
    """Whether log p(x|z) of one z for all data broadcasts over them, and is what it is of a copy for each."""
    each = target.log_likelihood(whole)
    try:
        once = target.log_likelihood(z)
        if target.prior is not None:
            target.prior.log_prob(z)
        together = torch.broadcast_to(once, each.shape)
    except Exception:  # a user's function may raise anything
        return False
    return torch.allclose(together, each, rtol=1e-5, atol=1e-6, equal_nan=True)


def outcomes_at_a_time(q: Distribution) -> int:
    """Outcomes at a time."""
    wide = math.ceil(q.event_shape.numel() / _WIDE)
    return max(1, _ENTRIES // max(1, q.batch_shape.numel() * wide))


def _where_possible(
    f: Float[Tensor, "n *#batch"], log_q: Float[Tensor, "n *batch"]
) -> Float[Tensor, "n *batch"]:
    """f where q(z) is not zero: what no sample reaches may be −∞ there, and must not turn 0 × ∞ into NaN."""
    return torch.where(log_q.detach().exp() > 0, f, torch.zeros_like(f))
