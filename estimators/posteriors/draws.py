"""How the samples of one estimate are drawn: independently, in antithetic pairs, or as Sobol' points."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from . import distributions
from .distributions import describe
from .families import family_of, is_transformed
from .layered import Layered
from .shared import SharedDraws
from .sobol import MAX_DIMENSION, sobol_uniforms

DRAWS = ("iid", "antithetic", "sobol")
_LINEAR = (td.Normal, td.MultivariateNormal)
_DISCRETE = (td.Bernoulli, td.Categorical, td.OneHotCategorical)
_BY_QUANTILES = (td.Laplace, td.Cauchy, td.Exponential, td.Uniform, td.ContinuousBernoulli)


def rsample(
    q: Distribution, num_samples: int, draws: str = "iid"
) -> Float[Tensor, "{num_samples} *batch_event"]:
    """z (S, *batch, *event), each sample distributed as q; differentiable in q's parameters as q.rsample is.

    Args:
        q: of a family that `unsupported_draws` accepts.
        num_samples: S.
        draws: "iid"; "antithetic": samples s and s + ⌈S/2⌉ come from mirrored noise, ε and −ε or u and 1 − u,
            the middle one of an odd S from its own; "sobol": noise from `sobol_uniforms`, an independent
            randomization for every entry of the batch.
    """
    if draws == "iid":
        return distributions.rsample(q, num_samples)
    return _push(q, num_samples, draws, q.batch_shape)


def draw(
    q: Distribution, num_samples: int, draws: str = "iid"
) -> Shaped[Tensor, "{num_samples} *batch_event"]:
    """z (S, *batch, *event) without a path back to φ; arguments as those of `rsample`."""
    if draws == "iid":
        return distributions.draw(q, num_samples)
    with torch.no_grad():
        return distributions.uncached(q, _push(q, num_samples, draws, q.batch_shape))


def unsupported_draws(q: Distribution, draws: str) -> str | None:
    """Why q cannot be drawn so, or None."""
    if draws == "iid":
        return None
    if isinstance(q, Layered):
        return f"draws={draws} is not made for latents that are drawn given others: use draws=iid"
    if family_of(_innermost(q)) not in (*_LINEAR, *_DISCRETE, *_BY_QUANTILES):
        return f"draws={draws} needs a quantile function, which is not known for a {describe(q)}"
    if draws == "sobol" and q.event_shape.numel() > MAX_DIMENSION:
        return f"draws=sobol has at most {MAX_DIMENSION} dimensions, not {q.event_shape.numel()}"
    return None


def smallest_number(draws: str) -> int:
    """The smallest S that these draws make sense for: a pair for antithetic ones."""
    return 2 if draws == "antithetic" else 1


def _push(
    q: Distribution, num_samples: int, draws: str, batch: torch.Size
) -> Shaped[Tensor, "{num_samples} *batch_event"]:
    """Noise of the innermost distribution, pushed through what surrounds it; ``batch`` is that of q."""
    if isinstance(q, SharedDraws):
        return q.spread_events(_push(q.base, num_samples, draws, q.base.batch_shape))
    family = family_of(q)
    if family is td.Independent:
        return _push(q.base_dist, num_samples, draws, batch)  # type: ignore[attr-defined]
    if is_transformed(q):
        assert isinstance(q, td.TransformedDistribution)
        z = _push(q.base_dist, num_samples, draws, batch)
        for transform in q.transforms:
            z = transform(z)
        return z
    if family is td.Normal:
        assert isinstance(q, td.Normal)
        return torch.addcmul(q.loc, q.scale, normal(q.loc, num_samples, draws, batch))
    if family is td.MultivariateNormal:
        assert isinstance(q, td.MultivariateNormal)
        noise = normal(q.loc, num_samples, draws, batch)
        return q.loc + (q.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
    return _from_uniforms(q, num_samples, draws, batch)


def _from_uniforms(
    q: Distribution, num_samples: int, draws: str, batch: torch.Size
) -> Shaped[Tensor, "{num_samples} *batch_event"]:
    """By the quantile function, in float64: float32 knows no numbers between 1 − 6e-8 and 1."""
    if isinstance(q, td.Bernoulli):
        u = _uniform(q.probs, num_samples, draws, batch)
        return (u < q.probs).to(q.probs.dtype)
    if isinstance(q, td.Categorical | td.OneHotCategorical):
        u = _uniform(q.probs[..., 0], num_samples, draws, batch)
        cumulative = q.probs.double().cumsum(-1)
        # By their own sum, which in float32 is often below 1: what lies above it is no category's.
        bounds = (cumulative / cumulative[..., -1:])[..., :-1]
        chosen = (u.unsqueeze(-1) >= bounds).sum(-1)
        if isinstance(q, td.Categorical):
            return chosen
        return torch.nn.functional.one_hot(chosen, q.event_shape[-1]).to(q.probs.dtype)
    like = next(value for value in vars(q).values() if isinstance(value, Tensor))
    return q.icdf(_uniform(like.expand(q.batch_shape), num_samples, draws, batch)).to(like.dtype)


def normal(
    like: Float[Tensor, "*noise"], num_samples: int, draws: str, batch: torch.Size
) -> Float[Tensor, "{num_samples} *noise"]:
    """Standard normal noise, (S, *like.shape)."""
    if draws == "sobol":
        return torch.special.ndtri(_sobol(like, num_samples, batch)).to(like.dtype)
    noise = torch.randn(_halved(num_samples, like), dtype=like.dtype, device=like.device)
    return torch.cat((noise, -noise))[:num_samples]


def _uniform(
    like: Float[Tensor, "*noise"], num_samples: int, draws: str, batch: torch.Size
) -> Float64[Tensor, "{num_samples} *noise"]:
    """Uniform noise, (S, *like.shape), float64, below 1: at 1 a state of probability zero would be drawn."""
    if draws == "sobol":
        return _sobol(like, num_samples, batch)
    noise = torch.rand(_halved(num_samples, like), dtype=torch.float64, device=like.device)
    return torch.cat((noise, (1 - noise).clamp_max(1 - 2.0**-53)))[:num_samples]


def _halved(num_samples: int, like: Tensor) -> tuple[int, ...]:
    return ((num_samples + 1) // 2, *like.shape)


def _sobol(
    like: Float[Tensor, "*noise"], num_samples: int, batch: torch.Size
) -> Float64[Tensor, "{num_samples} *noise"]:
    """One sequence an entry of the batch, whose dimensions are those of the noise."""
    dimension = like.shape[len(batch) :].numel()
    return sobol_uniforms(num_samples, tuple(batch), dimension, like.device).reshape(num_samples, *like.shape)


def _innermost(q: Distribution) -> Distribution:
    if isinstance(q, SharedDraws):
        return _innermost(q.base)
    while family_of(q) is td.Independent or is_transformed(q):
        q = q.base_dist  # type: ignore[attr-defined]
    return q
