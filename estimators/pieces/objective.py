"""The pieces of the ELBO that most estimators share: the integrand, and the KL beside it.

Both weigh the KL as the target says (`Target.kl_weight`). They are the two doors to the prior: an estimator
that takes log p(z) or a closed-form KL from elsewhere has to weigh it itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..base import Target
from ..errors import UsageError
from ..kl_weight import FreeBits, is_zero, parameters_of_weight
from ..posteriors.distributions import check_events, closed_form_kl, coordinate_kl, cut, describe
from ..posteriors.layered import Layered
from ..posteriors.noise import Noise, log_prob_along

KL_CHOICES = ("analytic", "sampled")


def has_kl(target: Target) -> bool:
    """Whether there is a KL term: a prior, and a weight that is not zero."""
    return target.prior is not None and not is_zero(target.kl_weight)


def one_weight(target: Target) -> float:
    """The number that a sampled KL is multiplied by, for a caller that has log p and log q its own way.

    Raises:
        UsageError: it is not one number.
    """
    if isinstance(target.kl_weight, Mapping | FreeBits):
        raise UsageError(f"needs one number as kl_weight, not {parameters_of_weight(target.kl_weight)}")
    return target.kl_weight


def unsupported_kl(q: Distribution, target: Target, kl: str) -> str | None:
    """Why ``kl`` cannot be used with this posterior, prior and weight, or None."""
    unnamed = _unnamed(q, target)
    if target.prior is None or unnamed or is_zero(target.kl_weight):
        return unnamed
    free_bits = isinstance(target.kl_weight, FreeBits)
    if free_bits and kl == "sampled":
        return "free bits need a closed-form KL, and here it is sampled: use an estimator with kl=analytic"
    if kl == "sampled" or _divergence(q, target) is not None:
        return None
    pair = f"{describe(q)} against {describe(target.prior)}"
    if free_bits:
        return f"free bits need independent coordinates with a closed-form KL, not {pair}"
    return f"no closed-form KL of {pair}: use kl=sampled"


def integrand(
    q: Distribution,
    target: Target,
    z: Shaped[Tensor, "S *batch_event"],
    kl: str,
    log_q: Tensor | None = None,
    noise: Noise | None = None,
) -> Float[Tensor, "S *batch"]:
    """f(z), (S, *batch): log p(x|z), and with ``kl="sampled"`` also log p(z) - log q(z), weighted.

    ``log_q`` is log q(z|x) at z, for a caller that has it already or wants φ cut out of it; ``noise`` what z
    was drawn with: log q is then that along the path.

    Raises:
        UsageError: log_likelihood does not return one number a sample and datum.
    """
    f = target.log_likelihood(z)
    expected = z.shape[: z.dim() - len(q.event_shape)]
    if f.shape != expected:
        raise UsageError(
            f"log_likelihood returned shape {tuple(f.shape)} for z of shape {tuple(z.shape)}; "
            f"expected (num_samples, *batch) = {tuple(expected)}"
        )
    return f + log_ratio(q, target, z, log_q, noise) if kl == "sampled" and has_kl(target) else f


def integrand_at(
    q: Distribution, target: Target, z: Shaped[Tensor, "S *batch_event"], kl: str
) -> Float[Tensor, "S *batch"]:
    """`integrand` at z that was not drawn along a path: attached to θ, and not to φ."""
    log_q = q.log_prob(z).detach() if kl == "sampled" and has_kl(target) else None
    return integrand(q, target, z, kl, log_q)


def log_ratio(
    q: Distribution,
    target: Target,
    z: Shaped[Tensor, "S *batch_event"],
    log_q: Tensor | None = None,
    noise: Noise | None = None,
) -> Float[Tensor, "S *batch"]:
    """What is sampled of −kl_weight · KL: kl_weight · (log p(z) − log q(z)), (S, *batch), as of `integrand`.

    With a weight for each latent Σ_l β_l (log p_l − log q_l).

    Raises:
        UsageError: the prior is over other events, free bits are not sampled, or the weights name other
            latents.
    """
    assert target.prior is not None
    check_events(q, target.prior)
    weight = target.kl_weight
    if isinstance(weight, FreeBits):
        raise UsageError(unsupported_kl(q, target, "sampled"))
    if isinstance(weight, Mapping):
        return weighted(_log_ratios(q, target, z, log_q), weight)
    if log_q is None:
        log_q = log_prob_along(q, z, noise)
    ratio = target.prior.log_prob(z) - log_q
    return ratio if weight == 1 else weight * ratio


def analytic_kl(q: Distribution, target: Target, kl: str = "analytic") -> Float[Tensor, "*batch"] | float:
    """The closed-form KL to subtract, weighted, (*batch); 0 when it is sampled or there is no prior.

    Raises:
        UsageError: there is no closed form for this pair of distributions.
    """
    if kl == "sampled" or not has_kl(target):
        return 0.0
    divergence = _divergence(q, target)
    if divergence is None:
        raise UsageError(unsupported_kl(q, target, kl))
    return divergence


def weighted(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ_l β_l · part_l over latents l, by name."""
    return torch.stack([weights[name] * part for name, part in parts.items() if weights[name] != 0]).sum(0)


def _divergence(q: Distribution, target: Target) -> Float[Tensor, "*batch"] | None:
    """The weighted KL, (*batch), or None where there is no closed form."""
    assert target.prior is not None
    weight = target.kl_weight
    if isinstance(weight, FreeBits):
        coordinates = coordinate_kl(q, target.prior)
        return None if coordinates is None else coordinates.clamp_min(weight.nats).sum(-1)
    if isinstance(weight, Mapping):
        each = None if _unnamed(q, target) else _divergences(q, target.prior)
        return None if each is None else weighted(each, weight)
    divergence = closed_form_kl(q, target.prior)
    return divergence if divergence is None or weight == 1 else weight * divergence


def _divergences(q: Distribution, prior: Distribution) -> dict[str, Float[Tensor, "*batch"]] | None:
    """The KL of every latent, (*batch), where none depends on another; or None."""
    if not isinstance(q, Layered) or not isinstance(prior, Layered):
        return None
    found = {}
    for name, layer in q.layers.items():
        other = prior.layers.get(name)
        if not isinstance(layer, Distribution) or not isinstance(other, Distribution):
            return None
        divergence = closed_form_kl(layer, other)
        if divergence is None:
            return None
        found[name] = divergence
    return found


def _log_ratios(
    q: Distribution, target: Target, z: Shaped[Tensor, "S *batch_event"], log_q: Tensor | None
) -> dict[str, Float[Tensor, "S *batch"]]:
    """log p_l − log q_l of every latent, with φ cut out of log q_l where a ``log_q`` is given."""
    refused = _unnamed(q, target)
    if refused:
        raise UsageError(refused)
    assert isinstance(q, Layered)
    assert isinstance(target.prior, Layered)
    if log_q is None:
        of_q = q.log_probs(z)
    elif log_q.requires_grad:
        fixed = cut(q)
        assert isinstance(fixed, Layered)
        of_q = fixed.log_probs(z)
    else:
        of_q = {name: part.detach() for name, part in q.log_probs(z).items()}
    return {name: part - of_q[name] for name, part in target.prior.log_probs(z).items()}


def _unnamed(q: Distribution, target: Target) -> str | None:
    """Why weights by name are not those of the latents of posterior and prior, or None."""
    weights = target.kl_weight
    if target.prior is None or not isinstance(weights, Mapping):
        return None
    for of, distribution in (("posterior", q), ("prior", target.prior)):
        if not isinstance(distribution, Layered):
            return f"kl_weight has a number for each latent, and the {of} has none by name: give one number"
        if set(distribution.layers) != set(weights):
            given, latents = ", ".join(weights), ", ".join(distribution.layers)
            return f"kl_weight is of the latents {given}, and those of the {of} are {latents}"
    return None
