"""The pieces of the ELBO that most estimators share: the integrand, and the KL beside it."""

from __future__ import annotations

from jaxtyping import Float, Shaped
from torch import Tensor
from torch.distributions import Distribution

from ..base import Target
from ..errors import UsageError
from ..posteriors.distributions import check_events, closed_form_kl, describe
from ..posteriors.noise import Noise, log_prob_along

KL_CHOICES = ("analytic", "sampled")


def unsupported_kl(q: Distribution, target: Target, kl: str) -> str | None:
    """Why ``kl`` cannot be used with this posterior and prior, or None."""
    if kl == "analytic" and target.prior is not None and closed_form_kl(q, target.prior) is None:
        pair = f"{describe(q)} against {describe(target.prior)}"
        return f"no closed-form KL of {pair}: use kl=sampled"
    return None


def integrand(
    q: Distribution,
    target: Target,
    z: Shaped[Tensor, "S *batch_event"],
    kl: str,
    log_q: Tensor | None = None,
    noise: Noise | None = None,
) -> Float[Tensor, "S *batch"]:
    """f(z), (S, *batch): log p(x|z), and with ``kl="sampled"`` also log p(z) - log q(z).

    ``log_q`` is log q(z|x) at z, for a caller that has it already or wants it detached; ``noise`` what z was
    drawn with: log q is then that along the path.

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
    if kl == "sampled" and target.prior is not None:
        check_events(q, target.prior)
        f = f + target.prior.log_prob(z) - (log_prob_along(q, z, noise) if log_q is None else log_q)
    return f


def integrand_at(
    q: Distribution, target: Target, z: Shaped[Tensor, "S *batch_event"], kl: str
) -> Float[Tensor, "S *batch"]:
    """`integrand` at z that was not drawn along a path: attached to θ, and not to φ."""
    log_q = q.log_prob(z).detach() if kl == "sampled" and target.prior is not None else None
    return integrand(q, target, z, kl, log_q)


def analytic_kl(q: Distribution, target: Target, kl: str = "analytic") -> Float[Tensor, "*batch"] | float:
    """The closed-form KL to subtract, (*batch); 0 when it is sampled or there is no prior.

    Raises:
        UsageError: there is no closed form for this pair of distributions.
    """
    if kl == "sampled" or target.prior is None:
        return 0.0
    divergence = closed_form_kl(q, target.prior)
    if divergence is None:
        raise UsageError(unsupported_kl(q, target, kl))
    return divergence
