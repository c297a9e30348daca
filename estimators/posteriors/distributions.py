"""What estimators do to a posterior: draw from it, cut φ out of it, integrate its KL."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ..errors import UsageError
from . import discrete_kl, flows, gaussians, von_mises
from .cutting import Cut
from .families import family_of
from .layered import Layered, unlike
from .shared import SharedDraws

# Constructor arguments that hold all of a distribution's parameters. Where there are two ways to
# build one, the first that the instance really stores is used, so that no chain rule is added.
_PARAMETERS: dict[type[Distribution], tuple[tuple[str, ...], ...]] = {
    td.Normal: (("loc", "scale"),),
    td.Laplace: (("loc", "scale"),),
    td.LogNormal: (("loc", "scale"),),
    td.VonMises: (("loc", "concentration"),),
    td.Gamma: (("concentration", "rate"),),
    td.Exponential: (("rate",),),
    td.Poisson: (("rate",),),
    td.Beta: (("concentration1", "concentration0"),),
    td.Dirichlet: (("concentration",),),
    td.MultivariateNormal: (("loc", "scale_tril"),),
    td.Bernoulli: (("logits",), ("probs",)),
    td.Categorical: (("logits",), ("probs",)),
    td.OneHotCategorical: (("logits",), ("probs",)),
}


_IN_FUNCTIONS = (
    "needs the parameters of the posterior one by one, and those of a Layered lie in functions: use an "
    "estimator that needs its draws and log q alone, such as sticking-the-landing or leave-one-out"
)
_NO_INVERSE = "needs log q(z) at a given z, and a transform of this flow does not implement its inverse"


def reparameterizable(q: Distribution) -> bool:
    """Whether `rsample` can draw from q: torch can, or q is a von Mises distribution.

    What torch calls rsample of a straight-through one-hot is no pathwise derivative, but a biased stand-in.
    Of several latents all must be.
    """
    if isinstance(q, Layered):
        return all(reparameterizable(layer) for layer in q.examples.values())
    if isinstance(q, SharedDraws):
        return reparameterizable(q.base)
    return (q.has_rsample and not _is_straight_through(q)) or von_mises.is_von_mises(q)


def _is_straight_through(q: Distribution) -> bool:
    while isinstance(q, td.Independent | td.TransformedDistribution):
        q = q.base_dist
    return isinstance(q, td.OneHotCategoricalStraightThrough)


def no_score(q: Distribution) -> str | None:
    """Why ∇_η log q(z) at a fixed z is not to be had, or has not the mean zero; or None."""
    if isinstance(q, Layered):
        return next((why for why in map(no_score, q.examples.values()) if why), None)
    base = q.base if isinstance(q, SharedDraws) else q
    while isinstance(base, td.Independent):
        base = base.base_dist
    if isinstance(base, td.Uniform):
        return "needs a posterior whose support does not move with its parameters, not a Uniform"
    return _no_inverse(base) if isinstance(base, td.TransformedDistribution) else None


@torch.no_grad()
def _no_inverse(q: td.TransformedDistribution) -> str | None:
    z = _zeros(q)  # in the support or not: what counts is whether there is a formula
    try:
        for transform in reversed(q.transforms):
            z = transform.inv(z)
    except NotImplementedError:
        return _NO_INVERSE
    return None


def draw(q: Distribution, num_samples: int) -> Shaped[Tensor, "{num_samples} *batch_event"]:
    """Draw z (S, *batch, *event) without a path back to φ.

    Reparameterizable posteriors draw through ``rsample``, so that under one seed every estimator
    sees the same z (common random numbers); it also spares torch's check that scales are positive,
    which synchronizes a GPU.
    """
    with torch.no_grad():
        if isinstance(q, Layered):
            return q.ancestral((num_samples,), lambda name, layer, shape: _shaped(draw, layer, shape))
        if isinstance(q, SharedDraws):
            return q.spread_events(draw(q.base, num_samples))
        if reparameterizable(q):
            return uncached(q, rsample(q, num_samples))
        return uncached(q, q.sample(torch.Size((num_samples,))))


def uncached(q: Distribution, z: Shaped[Tensor, "S *batch_event"]) -> Shaped[Tensor, "S *batch_event"]:
    """z as another tensor where a transform of q may hold φ: with ``cache_size=1`` it knows its last output.

    It would answer log q(z) with the input it remembers, in which its own parameters have no gradient.
    Where there are none the memory is right, and better than an inverse that saturates.
    """
    while isinstance(q, td.Independent | td.TransformedDistribution):
        for transform in getattr(q, "transforms", ()):
            if _requires_grad(transform, set()) or type(transform).__module__ != td.transforms.__name__:
                return z.clone()
        q = q.base_dist
    return z


def rsample(q: Distribution, num_samples: int) -> Float[Tensor, "{num_samples} *batch_event"]:
    """Draw z (S, *batch, *event), differentiable in q's parameters."""
    if isinstance(q, Layered):
        return q.ancestral((num_samples,), lambda name, layer, shape: _shaped(rsample, layer, shape))
    if isinstance(q, SharedDraws):
        return q.spread_events(rsample(q.base, num_samples))
    if gaussians.is_diagonal_gaussian(q):
        return gaussians.rsample(q, num_samples)
    if von_mises.is_von_mises(q):
        return von_mises.rsample(q, num_samples)
    return q.rsample(torch.Size((num_samples,)))


def _shaped(one: Callable[[Distribution, int], Tensor], layer: Distribution, shape: torch.Size) -> Tensor:
    """Draws of a layer, in a shape of one dimension or none."""
    return one(layer, *shape) if shape else one(layer, 1).squeeze(0)


def log_prob(q: Distribution, z: Shaped[Tensor, "S *batch_event"]) -> Float[Tensor, "S *batch"]:
    """log q(z), (S, *batch), for z (S, *batch, *event)."""
    if isinstance(q, SharedDraws) and q.is_one(z):
        return q.spread(log_prob(q.base, q.one(z)))
    return gaussians.log_prob(q, z) if gaussians.is_diagonal_gaussian(q) else q.log_prob(z)


def describe(q: Distribution) -> str:
    """The posterior's family, e.g. ``Bernoulli`` for ``Independent(Bernoulli(...), 1)``.

    Of several latents that of each: ``Layered (z1: Normal, z2: Bernoulli)``.
    """
    if isinstance(q, Layered):
        return f"Layered ({', '.join(f'{name}: {describe(q.examples[name])}' for name in q.layers)})"
    if isinstance(q, SharedDraws):
        return f"{describe(q.base)} shared by the batch"
    while isinstance(q, td.Independent):
        q = q.base_dist
    return type(q).__name__


def parameters_of(q: Distribution) -> dict[str, Tensor]:
    """The tensors q is built from, by constructor argument, attached to the graph, batch first.

    Those of a flow are its base's and, by where they lie, its transforms'.

    Raises:
        TypeError: q is of a family whose parameters are not known here, or a flow that holds others too.
    """
    if isinstance(q, Layered):
        raise TypeError(_IN_FUNCTIONS)
    if isinstance(q, SharedDraws):
        return parameters_of(q.base)
    family = family_of(q)
    if family is td.Independent:
        return parameters_of(q.base_dist)  # type: ignore[attr-defined]
    if family is td.TransformedDistribution:
        assert isinstance(q, td.TransformedDistribution)
        parameters = parameters_of(q.base_dist) | flows.tensors_of(q.transforms)
        _check_whole(q, parameters)
        return parameters
    choices = _PARAMETERS.get(family)
    if choices is None:
        raise TypeError(f"the parameters of a {type(q).__name__} are not known to elbograd")
    stored = getattr(q, "_categorical", q).__dict__
    names = next((c for c in choices if c[0] in stored), choices[0])
    return {name: getattr(q, name) for name in names}


def with_parameters(q: Distribution, parameters: dict[str, Tensor]) -> Distribution:
    """A distribution of q's family with other parameters (as named by `parameters_of`)."""
    if isinstance(q, SharedDraws):
        return SharedDraws(with_parameters(q.base, parameters), q.data)
    family: Callable[..., Distribution] = family_of(q)
    if family is td.Independent:
        assert isinstance(q, td.Independent)
        base = with_parameters(q.base_dist, parameters)
        return td.Independent(base, q.reinterpreted_batch_ndims, validate_args=False)
    if family is td.TransformedDistribution:
        assert isinstance(q, td.TransformedDistribution)
        names = flows.tensors_of(q.transforms)
        base = with_parameters(q.base_dist, {k: v for k, v in parameters.items() if k not in names})
        transforms = flows.with_tensors(q.transforms, parameters)
        return td.TransformedDistribution(base, transforms, validate_args=False)
    return family(**parameters, validate_args=False)


def cut(q: Distribution) -> Distribution:
    """A copy of q through which no gradient reaches φ, for log q at a z that may be attached to it.

    Raises:
        TypeError: q is of a family that cannot be cut whole (a flow whose transforms hold networks).
    """
    if isinstance(q, Layered):
        return Cut(q)
    return with_parameters(q, {name: value.detach() for name, value in parameters_of(q).items()})


def uncuttable(q: Distribution) -> str | None:
    """Why φ cannot be cut out of log q(z), or None."""
    if isinstance(q, Layered):
        return None
    try:
        parameters_of(q)
    except TypeError as error:
        return str(error)
    return None


def _check_whole(q: td.TransformedDistribution, parameters: dict[str, Tensor]) -> None:
    """Refuse a flow with another way to φ, e.g. through a method's closure; where z lies is no matter."""
    copied = with_parameters(q, {name: value.detach() for name, value in parameters.items()})
    with torch.enable_grad():
        try:
            density = copied.log_prob(_zeros(q))
        except NotImplementedError:
            raise TypeError(_NO_INVERSE) from None
        if density.requires_grad:
            raise TypeError("the parameters of this flow are not known to elbograd: its methods hold tensors")


def _zeros(q: td.TransformedDistribution) -> Tensor:
    """Zeros in the shape of one sample of q, of the dtype and on the device of its parameters."""
    base = q.base_dist
    while isinstance(base, td.Independent | td.TransformedDistribution):
        base = base.base_dist
    like = next(value for value in vars(base).values() if isinstance(value, Tensor))
    return like.new_zeros(q.batch_shape + q.event_shape)


def has_grad(q: Distribution) -> bool:
    """Whether any tensor or module stored in q, however deep, requires a gradient."""
    return _requires_grad(q, set())


def _requires_grad(thing: object, seen: set[int]) -> bool:
    if id(thing) in seen:
        return False
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        return thing.requires_grad
    if isinstance(thing, torch.nn.Module):
        return any(p.requires_grad for p in thing.parameters())
    if isinstance(thing, list | tuple):
        return any(_requires_grad(item, seen) for item in thing)
    if isinstance(thing, Distribution | td.Transform):
        return any(_requires_grad(item, seen) for item in vars(thing).values())
    return False


def check_events(q: Distribution, prior: Distribution) -> None:
    """UsageError where q and the prior are over events of different shapes: the densities would broadcast.

    Or over other latents, or in another order: each density would read the wrong ones.
    """
    different = unlike(q, prior)
    if different:
        raise UsageError(different)
    if prior.event_shape != q.event_shape:
        raise UsageError(
            f"the prior has event shape {tuple(prior.event_shape)}, the posterior {tuple(q.event_shape)}: "
            f"Independent(prior, 1) makes the last batch dimension part of the event"
        )


def closed_form_kl(q: Distribution, prior: Distribution) -> Float[Tensor, "*batch"] | None:
    """KL(q || prior), (*batch), or None when there is no closed form.

    The prior is expanded to q's batch shape, which torch's own pairs do not all do.

    Raises:
        UsageError: q and the prior are over events of different shapes.
    """
    check_events(q, prior)
    if isinstance(q, Layered) or isinstance(prior, Layered):
        return None  # see `layered_kl`
    if isinstance(q, SharedDraws):
        divergence = closed_form_kl(q.base, prior)
        return None if divergence is None else q.spread(divergence)
    if gaussians.is_diagonal_gaussian(q) and gaussians.is_diagonal_gaussian(prior):
        return gaussians.kl(q, prior)
    if family_of(prior) is td.MultivariateNormal and _is_vector_of_normals(q):
        q = _as_full_covariance(q)
    elif family_of(q) is td.MultivariateNormal and _is_vector_of_normals(prior):
        prior = _as_full_covariance(prior)
    try:
        if prior.batch_shape != q.batch_shape:
            prior = prior.expand(q.batch_shape)
        divergence = discrete_kl.kl(q, prior)
        return td.kl_divergence(q, prior) if divergence is None else divergence
    except NotImplementedError:
        return None


def coordinate_kl(q: Distribution, prior: Distribution) -> Float[Tensor, "*batch D"] | None:
    """KL_j, (*batch, D), of the D independent coordinates of q and the prior; None where they are not such.

    A coordinate is what `Independent` made events of: a number, or one one-hot vector.

    Raises:
        UsageError: q and the prior are over events of different shapes.
    """
    check_events(q, prior)
    each, prior_each = _coordinates(q), _coordinates(prior)
    numbers = td.Categorical | td.OneHotCategorical
    if each.event_shape != prior_each.event_shape or not (not each.event_shape or isinstance(each, numbers)):
        return None
    divergence = closed_form_kl(each, prior_each)
    return None if divergence is None else divergence.reshape(*q.batch_shape, -1)


def _coordinates(q: Distribution) -> Distribution:
    while isinstance(q, td.Independent):
        q = q.base_dist
    return q


def _is_vector_of_normals(q: Distribution) -> bool:
    return gaussians.is_diagonal_gaussian(q) and len(q.event_shape) == 1


def _as_full_covariance(q: Distribution) -> Distribution:
    """A diagonal Gaussian as the MultivariateNormal it is, for the pair that torch knows."""
    loc, scale = parameters_of(q).values()
    return td.MultivariateNormal(loc, scale_tril=torch.diag_embed(scale), validate_args=False)
