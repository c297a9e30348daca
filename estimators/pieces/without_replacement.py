"""Samples without replacement, and how likely a set of them is.

Every configuration z of the D variables has a clock that rings after an exponential time of rate q(z); the
first S that ring are S samples without replacement, in order.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from .variables import Variables

_STEP = 0.25  # of the trapezoidal rule in the logarithm of time, at most: its error is exp(−π²/step) at S = 1
_STEP_OF_ONE = 0.6  # over √(S + 1), as narrow a peak is S factors make: exp(−2π²/(1.5 (S + 1) step²))
_LEFT = 34.0  # −log of the share of the integral that is left out below
_ENTRIES = 2**22  # that are integrated at a time
_NEVER = -5e3  # log q of a configuration that is never drawn, its logits being cut at −10⁴


def too_many(variables: Variables, num_samples: int) -> str | None:
    """Why S different configurations are not to be had, or None."""
    size, states = variables.logits.shape[-2:]
    # In logarithms: K^D may have hundreds of digits.
    if size * math.log(states) < math.log(max(num_samples, 1)) - 1e-9:
        return f"draws without replacement: num_samples is at most {states**size} here, not {num_samples}"
    return None


def most_likely(variables: Variables, count: int) -> Int64[Tensor, "{count} *batch D"]:
    """The ``count`` most likely configurations, likeliest first."""
    return _search(variables, count, perturbed=False)


def ordered_samples(variables: Variables, count: int) -> Int64[Tensor, "{count} *batch D"]:
    """``count`` configurations in the order in which they are drawn without replacement.

    Of log q(z) perturbed by Gumbel noise the largest are kept, variable by variable from the maxima down.

    References:
        Kool, van Hoof & Welling, Stochastic Beams and Where to Find Them: The Gumbel-Top-k Trick for Sampling
        Sequences Without Replacement, 2019, algorithm 1.
    """
    return _search(variables, count, perturbed=True)


def possible(
    log_q: Float[Tensor, "S *batch"], states: Int64[Tensor, "S *batch D"]
) -> Int64[Tensor, "S *batch D"]:
    """The configurations, those of probability zero replaced by the first: they have no weight either way."""
    return torch.where((log_q > _NEVER).unsqueeze(-1), states, states[:1])


@torch.no_grad()
def _search(variables: Variables, count: int, perturbed: bool) -> Tensor:
    """A beam search; with independent variables it is exact: what is best begins best."""
    logits = variables.logits.detach().double()
    batch, (size, states) = logits.shape[:-2], logits.shape[-2:]
    log_q = logits.new_zeros(*batch, 1)
    score = _gumbel(log_q)
    found = torch.zeros(*batch, 1, 0, dtype=torch.int64, device=logits.device)
    for d in range(size):
        grown = log_q.unsqueeze(-1) + logits[..., d, :].unsqueeze(-2)  # (*batch, beams, K)
        ranked = (_perturbed(grown, score) if perturbed else grown).flatten(-2)
        score, kept = ranked.topk(min(count, ranked.shape[-1]), -1)
        log_q = grown.flatten(-2).gather(-1, kept)
        beam = (kept // states).unsqueeze(-1).expand(*kept.shape, d)
        found = torch.cat((found.gather(-2, beam), (kept % states).unsqueeze(-1)), -1)
    return found.movedim(-2, 0)


def _gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like).exponential_().log()


def _perturbed(
    log_q: Float64[Tensor, "*batch beams K"], largest: Float64[Tensor, "*batch beams"]
) -> Float64[Tensor, "*batch beams K"]:
    """Gumbels about ``log_q`` given the largest of each beam's K."""
    free = log_q + _gumbel(log_q)
    gap = free - free.amax(-1, keepdim=True)
    below = torch.where(gap > -0.7, (-gap.expm1()).log(), (-gap.exp()).log1p())
    v = largest.unsqueeze(-1) - free + below
    return largest.unsqueeze(-1) - v.clamp_min(0) - (-v.abs()).exp().log1p()


class Inclusion(NamedTuple):
    """Of a set of S configurations that was drawn without replacement, in the paper's notation.

    Attributes:
        first: p_s R(S, s), (S, *batch): the probability that s was the first, given the set.
        second: p_s' R^{D∖s}(S, s'), (S, S, *batch) by s and s': that s' was the second, given the set and
            that s was the first; p_s where s' = s.
    """

    first: Float64[Tensor, "S *batch"]
    second: Float64[Tensor, "S S *batch"]


@torch.no_grad()
def inclusion(log_q: Float[Tensor, "S *batch"]) -> Inclusion:
    """From P(S) = ∫ r e^{−rt} Π_s (1 − e^{−p_s t}) dt, r the probability of the rest: the rest rings last.

    Without s the product loses a factor, and r stays. By the trapezoidal rule in log rt, exact to 1e-14.

    References:
        Kool, van Hoof & Welling, Estimating Gradients for Discrete Random Variables by Sampling without
        Replacement, 2020, appendix B.
    """
    if len(log_q) == 1:
        return Inclusion(torch.ones_like(log_q.double()), log_q.detach().double().exp().unsqueeze(0))
    p = log_q.detach().double().exp().reshape(len(log_q), -1).T  # (rows, S)
    at_once = max(1, _ENTRIES // (p.shape[1] * len(_grid(p.shape[1], p))))
    parts = [_inclusion(rows) for rows in p.split(at_once)]
    first, second = (torch.cat(each) for each in zip(*parts, strict=True))
    return Inclusion(first.T.reshape(log_q.shape), second.movedim(0, -1).reshape(len(log_q), *log_q.shape))


def _grid(samples: int, like: Tensor) -> Float64[Tensor, "nodes"]:
    """log rt: what is on the right of it has e^{−rt} below rounding, whatever the product."""
    last, step = math.log(3 * samples + 60), min(_STEP, _STEP_OF_ONE / math.sqrt(samples + 1))
    return torch.arange(-_LEFT, last, step, dtype=torch.float64, device=like.device)


def _inclusion(p: Float64[Tensor, "rows S"]) -> tuple[Tensor, Tensor]:
    samples = p.shape[1]
    rest = (1 - p.sum(1)).clamp_min(1e-30)[:, None, None]
    log_time = _grid(samples, p).unsqueeze(1)  # (nodes, 1), of rt
    time = log_time.exp()
    rung = -torch.expm1(-p.unsqueeze(1) * (time / rest))  # (rows, nodes, S)
    # p / (1 − e^{−pt}), also where p is 0: what is left when s is left out.
    without = torch.where(rung > 0, p.unsqueeze(1) / rung, rest / time)
    log_weight = (log_time - time).squeeze(1) - without.log().sum(-1)
    weight = (log_weight - log_weight.amax(1, keepdim=True)).exp().unsqueeze(-1)
    single = (weight * without).sum(1)
    both = without.transpose(1, 2) @ (weight * without)
    second = both / single.unsqueeze(-1)
    second.diagonal(dim1=1, dim2=2).copy_(p)
    return single / weight.sum(1), second
