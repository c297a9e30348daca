"""The pieces of the ELBO that most estimators share: the integrand, and the KL beside it.

Both weigh the KL as the target says (`Target.kl_weight`). They are the two doors to the prior: an estimator
that takes log p(z) or a closed-form KL from elsewhere has to weigh it itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..base import Target
from ..errors import UsageError
from ..kl_weight import FreeBits, KLWeight, is_zero, parameters_of_weight
from ..posteriors import affine, layered_kl
from ..posteriors.distributions import check_events, closed_form_kl, coordinate_kl, cut, describe
from ..posteriors.layered import Layered, total, unlike
from ..posteriors.noise import Noise, log_prob_along, log_probs, log_probs_along

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
    unnamed = unnamed_weights(q, target)
    if target.prior is None or unnamed or is_zero(target.kl_weight):
        return unnamed
    free_bits = isinstance(target.kl_weight, FreeBits)
    if free_bits and kl == "sampled":
        return "free bits need a closed-form KL, and here it is sampled: use an estimator with kl=analytic"
    if kl == "sampled":
        return unlike(q, target.prior)
    layered = isinstance(q, Layered) and isinstance(target.prior, Layered)
    if layered and not free_bits:
        return layered_kl.unknown(q, target.prior)
    if _divergence(q, target) is not None:
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
    was drawn with: log q is then that along the path. Of latents that are drawn given others the closed-form
    KL at the parents in z is here too with ``kl="analytic"``, attached to φ; the rest is in `analytic_kl`.

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
    if not has_kl(target):
        return f
    if kl == "sampled":
        return f + log_ratio(q, target, z, log_q, noise)
    conditional = conditional_kls(q, target, z)
    return f - total(conditional) if conditional else f


def conditional_kls(
    q: Distribution, target: Target, z: Shaped[Tensor, "S *batch_event"]
) -> dict[str, Float[Tensor, "S *batch"]]:
    """The weighted closed-form KL of each latent that is drawn given others, (S, *batch), at those in z.

    By name; none where z is one latent. Attached to φ, θ and z.
    """
    if not has_kl(target) or not isinstance(q, Layered) or not isinstance(target.prior, Layered):
        return {}
    return weigh(layered_kl.inside(q, target.prior, z), target.kl_weight)


def integrand_at(
    q: Distribution, target: Target, z: Shaped[Tensor, "S *batch_event"], kl: str
) -> Float[Tensor, "S *batch"]:
    """`integrand` at z that was not drawn along a path: attached to θ, and to φ by closed-form KLs alone."""
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
    weight = target.kl_weight
    if isinstance(weight, FreeBits):
        raise UsageError(unsupported_kl(q, target, "sampled"))
    if isinstance(weight, Mapping):
        return total(weigh(_log_ratios(q, target, z, log_q, noise), weight))
    check_events(q, target.prior)
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


def whole_kl(q: Distribution, target: Target) -> Float[Tensor, "*batch"] | float | None:
    """The weighted KL in closed form with nothing left to sample, (*batch); None where there is none.

    Of latents that are drawn given others only Gaussian ones that say that they are affine have it.
    """
    if not has_kl(target):
        return 0.0
    prior = target.prior
    if not isinstance(q, Layered) or not isinstance(prior, Layered) or isinstance(target.kl_weight, FreeBits):
        return _divergence(q, target)
    check_events(q, prior)
    parts = affine.kls(q, prior)
    if parts is None:
        if layered_kl.given_others(q, prior) or layered_kl.unknown(q, prior):
            return None
        parts = layered_kl.outside(q, prior)
    parts = weigh(parts, target.kl_weight)
    return total(parts) if parts else 0.0


def weigh(parts: Mapping[str, Tensor], weight: KLWeight) -> dict[str, Tensor]:
    """β_l · part_l of each latent l, by name, but of those whose weight is zero.

    Raises:
        UsageError: the weights are free bits.
    """
    if isinstance(weight, FreeBits):
        raise UsageError("free bits are of independent coordinates, not of latents: give a number for each")
    of = weight if isinstance(weight, Mapping) else dict.fromkeys(parts, weight)
    return {name: part if of[name] == 1 else of[name] * part for name, part in parts.items() if of[name] != 0}


def _divergence(q: Distribution, target: Target) -> Float[Tensor, "*batch"] | float | None:
    """The weighted KL, (*batch), or None where there is no closed form; of latents, what takes no z."""
    assert target.prior is not None
    weight = target.kl_weight
    if isinstance(weight, FreeBits):
        coordinates = coordinate_kl(q, target.prior)
        return None if coordinates is None else coordinates.clamp_min(weight.nats).sum(-1)
    if isinstance(q, Layered) and isinstance(target.prior, Layered):
        parts = {} if unnamed_weights(q, target) else weigh(layered_kl.outside(q, target.prior), weight)
        return total(parts) if parts else 0.0
    if isinstance(weight, Mapping):
        return None
    divergence = closed_form_kl(q, target.prior)
    return divergence if divergence is None or weight == 1 else weight * divergence


def _log_ratios(
    q: Distribution,
    target: Target,
    z: Shaped[Tensor, "S *batch_event"],
    log_q: Tensor | None,
    noise: Noise | None,
) -> dict[str, Float[Tensor, "S *batch"]]:
    """log p_l − log q_l of every latent, with φ cut out of log q_l where a ``log_q`` is given."""
    refused = unnamed_weights(q, target)
    if refused:
        raise UsageError(refused)
    assert isinstance(q, Layered)
    assert isinstance(target.prior, Layered)
    check_events(q, target.prior)
    if log_q is None:
        of_q = log_probs_along(q, z, noise)
    elif log_q.requires_grad:
        fixed = cut(q)
        assert isinstance(fixed, Layered)
        of_q = log_probs(fixed, z, noise)
    else:
        of_q = {name: part.detach() for name, part in log_probs(q, z, noise).items()}
    return {name: part - of_q[name] for name, part in target.prior.log_probs(z).items()}


def unnamed_weights(q: Distribution, target: Target) -> str | None:
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
