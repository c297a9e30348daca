"""Local learning signals: of a hierarchy, each latent is credited with what depends on it.

The objective's integrand is a sum of terms, log p(x|z), log p_k and −log q_k of each latent k, or −KL_k given
its parents in closed form, and each term reads some of the latents. Given all that is not drawn from z_l, a
term that reads neither l nor a descendant of l in q's graph is a constant, and E[∇ log q_l] = 0: it need not
multiply the score of l.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ..base import Target
from ..errors import UsageError
from ..posteriors.distributions import check_events
from ..posteriors.layered import Layered
from ..posteriors.noise import Noise, log_probs
from .objective import conditional_kls, has_kl, integrand, one_weight

SIGNALS = ("local", "whole")


class Term(NamedTuple):
    """A summand of the integrand.

    Attributes:
        reads: the latents that it depends on.
        value: (S, *batch), attached to θ, and to φ where it is a closed-form KL.
    """

    reads: frozenset[str]
    value: Float[Tensor, "S *batch"]


class LocalSignals(NamedTuple):
    """The integrand at one draw, whole and as each latent sees it.

    Attributes:
        f: (S, *batch), the sum of all terms, attached to θ, and to φ where they are closed-form KLs.
        signals: by name, (S, *batch), the sum of those that depend on the latent, detached.
        log_q: by name, (S, *batch), the latent's own factor of q, attached to φ.
    """

    f: Float[Tensor, "S *batch"]
    signals: dict[str, Float[Tensor, "S *batch"]]
    log_q: dict[str, Float[Tensor, "S *batch"]]


def local_signals(
    q: Layered,
    target: Target,
    z: Shaped[Tensor, "S *batch_event"],
    kl: str,
    noise: Noise | None = None,
    signal: str = "local",
) -> LocalSignals:
    """The signals of every latent of q at z (S, *batch, D); arguments as those of `objective.integrand`.

    With ``signal="whole"`` each is the whole integrand.

    References:
        Mnih & Gregor, Neural Variational Inference and Learning in Belief Networks, 2014, section 2.3.
    """
    log_q = log_probs(q, z, noise)
    each = terms(q, target, z, kl, {name: value.detach() for name, value in log_q.items()})
    f = summed(each, like=z)
    if signal == "whole":
        return LocalSignals(f, dict.fromkeys(q.layers, f.detach()), log_q)
    signals = {}
    for name in q.layers:
        below = descendants(q, name)
        signals[name] = summed([term for term in each if term.reads & below], like=z).detach()
    return LocalSignals(f, signals, log_q)


def terms(
    q: Layered,
    target: Target,
    z: Shaped[Tensor, "S *batch_event"],
    kl: str,
    log_q: Mapping[str, Float[Tensor, "S *batch"]],
    touching: frozenset[str] | None = None,
) -> list[Term]:
    """The integrand's terms at z; where latents ``touching`` are given, those alone that read one of them.

    ``log_q`` has the factors of q, detached, of these latents at least.

    Raises:
        UsageError: the target reads a latent that there is not.
    """
    wanted = frozenset(q.layers) if touching is None else touching
    found, read = [], _read(q, target)
    if touching is None or read & wanted:
        found.append(Term(read, integrand(q, replace(target, prior=None), z, kl)))
    if not has_kl(target):
        return found
    assert target.prior is not None
    check_events(q, target.prior)
    if kl == "analytic":
        of_kl = _of_kl(q, target, z)
    else:
        of_kl = [*_of_prior(q, target, z, wanted), *_of_posterior(q, target, log_q, wanted)]
    return found + [term for term in of_kl if term.reads & wanted]


def summed(each: Iterable[Term], like: Shaped[Tensor, "S *batch_event"]) -> Float[Tensor, "S *batch"]:
    """The sum of terms; zero where there is none."""
    values = [term.value for term in each]
    return torch.stack(torch.broadcast_tensors(*values)).sum(0) if values else torch.zeros_like(like[..., 0])


def descendants(q: Layered, name: str) -> frozenset[str]:
    """The latent itself and all that are drawn, directly or not, given it."""
    found = {name}
    for other in q.order:
        if found.intersection(q.parents[other]):
            found.add(other)
    return frozenset(found)


def one_each(values: Float[Tensor, "*#latents_rest"], names: Iterable[str]) -> dict[str, Tensor]:
    """An entry of values for each latent, or all of them alike where they have no dimension.

    Raises:
        UsageError: they are of another number of latents.
    """
    names = tuple(names)
    if values.dim() == 0:
        return dict.fromkeys(names, values)
    check_number(len(values), len(names))
    return dict(zip(names, values.unbind(0), strict=True))


def check_number(made_for: int, latents: int) -> None:
    """UsageError where `init` made a baseline for another number of latents."""
    if made_for != latents:
        raise UsageError(
            f"the baseline was made by init(q, target) for {made_for} latents, and this posterior has "
            f"{latents}: create another estimator"
        )


def _read(q: Layered, target: Target) -> frozenset[str]:
    """The latents that log_likelihood depends on."""
    for name in target.reads or ():
        if name not in q.layers:
            raise UsageError(f"the target reads {name}, which is none of the latents {', '.join(q.layers)}")
    return frozenset(q.layers if target.reads is None else target.reads)


def _of_kl(q: Layered, target: Target, z: Tensor) -> list[Term]:
    """−KL of each latent given its parents, on either side, where it has some; others do not depend on z."""
    found = []
    for name, divergence in conditional_kls(q, target, z).items():
        assert isinstance(target.prior, Layered)
        found.append(Term(frozenset((*q.parents[name], *target.prior.parents[name])), -divergence))
    return found


def _of_prior(q: Layered, target: Target, z: Tensor, wanted: frozenset[str]) -> list[Term]:
    """log p of each latent, if it reads one of those wanted; in one piece where p is not layered alike."""
    prior = target.prior
    assert prior is not None
    if not isinstance(prior, Layered) or list(prior.layers) != list(q.layers):
        return [Term(frozenset(q.layers), one_weight(target) * prior.log_prob(z))]
    parts, found = prior.split(z), []
    for name, layer in prior.given(parts).items():
        reads, weight = frozenset((name, *prior.parents[name])), _weight(target, name)
        if reads & wanted and weight != 0:
            found.append(Term(reads, weight * layer.log_prob(parts[name])))
    return found


def _of_posterior(
    q: Layered, target: Target, log_q: Mapping[str, Tensor], wanted: frozenset[str]
) -> list[Term]:
    """−log q of each latent that is wanted."""
    return [
        Term(frozenset((name, *q.parents[name])), -weight * log_q[name])
        for name in q.layers
        if name in wanted and (weight := _weight(target, name)) != 0
    ]


def _weight(target: Target, name: str) -> float:
    """What the KL of one latent is multiplied by."""
    return target.kl_weight[name] if isinstance(target.kl_weight, Mapping) else one_weight(target)
