"""What estimators do to a posterior: draw from it, cut φ out of it, integrate its KL."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from . import flows, gaussians, von_mises
from .errors import UsageError

# Constructor arguments that hold all of a distribution's parameters. Where there are two ways to
# build one, the first that the instance really stores is used, so that no chain rule is added.
_PARAMETERS: dict[type[Distribution], tuple[tuple[str, ...], ...]] = {
    td.Normal: (("loc", "scale"),),
    td.Laplace: (("loc", "scale"),),
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


def reparameterizable(q: Distribution) -> bool:
    """Whether `rsample` can draw from q: torch can, or q is a von Mises distribution."""
    return q.has_rsample or von_mises.is_von_mises(q)


def draw(q: Distribution, num_samples: int) -> Tensor:
    """Draw z (S, *batch, *event) without a path back to φ.

    Reparameterizable posteriors draw through ``rsample``, so that under one seed every estimator
    sees the same z (common random numbers); it also spares torch's check that scales are positive,
    which synchronizes a GPU.
    """
    with torch.no_grad():
        return rsample(q, num_samples) if reparameterizable(q) else q.sample(torch.Size((num_samples,)))


def rsample(q: Distribution, num_samples: int) -> Tensor:
    """Draw z (S, *batch, *event), differentiable in q's parameters."""
    if gaussians.is_diagonal_gaussian(q):
        return gaussians.rsample(q, num_samples)
    if von_mises.is_von_mises(q):
        return von_mises.rsample(q, num_samples)
    return q.rsample(torch.Size((num_samples,)))


def log_prob(q: Distribution, z: Tensor) -> Tensor:
    """log q(z), (S, *batch), for z (S, *batch, *event)."""
    return gaussians.log_prob(q, z) if gaussians.is_diagonal_gaussian(q) else q.log_prob(z)


def describe(q: Distribution) -> str:
    """The posterior's family, e.g. ``Bernoulli`` for ``Independent(Bernoulli(...), 1)``."""
    while isinstance(q, td.Independent):
        q = q.base_dist
    return type(q).__name__


def parameters_of(q: Distribution) -> dict[str, Tensor]:
    """The tensors q is built from, by constructor argument, attached to the graph, batch first.

    Those of a flow are its base's and, by where they lie, its transforms'.

    Raises:
        TypeError: q is of a family whose parameters are not known here, or a flow that holds others too.
    """
    if type(q) is td.Independent:
        return parameters_of(q.base_dist)
    if type(q) is td.TransformedDistribution:
        parameters = parameters_of(q.base_dist) | flows.tensors_of(q.transforms)
        _check_whole(q, parameters)
        return parameters
    choices = _PARAMETERS.get(type(q))
    if choices is None:
        raise TypeError(f"the parameters of a {type(q).__name__} are not known to elbograd")
    stored = getattr(q, "_categorical", q).__dict__
    names = next((c for c in choices if c[0] in stored), choices[0])
    return {name: getattr(q, name) for name in names}


def with_parameters(q: Distribution, parameters: dict[str, Tensor]) -> Distribution:
    """A distribution of q's family with other parameters (as named by `parameters_of`)."""
    if type(q) is td.Independent:
        base = with_parameters(q.base_dist, parameters)
        return td.Independent(base, q.reinterpreted_batch_ndims, validate_args=False)
    if type(q) is td.TransformedDistribution:
        names = flows.tensors_of(q.transforms)
        base = with_parameters(q.base_dist, {k: v for k, v in parameters.items() if k not in names})
        transforms = flows.with_tensors(q.transforms, parameters)
        return td.TransformedDistribution(base, transforms, validate_args=False)
    family: Callable[..., Distribution] = type(q)
    return family(**parameters, validate_args=False)


def cut(q: Distribution) -> Distribution:
    """A copy of q through which no gradient reaches φ.

    Raises:
        TypeError: q is of a family that cannot be cut whole (a flow whose transforms hold networks).
    """
    return with_parameters(q, {name: value.detach() for name, value in parameters_of(q).items()})


def _check_whole(q: td.TransformedDistribution, parameters: dict[str, Tensor]) -> None:
    """Refuse a flow with another way to φ, e.g. through a method's closure; where z lies is no matter."""
    copied = with_parameters(q, {name: value.detach() for name, value in parameters.items()})
    z = next(iter(parameters.values())).new_zeros(q.batch_shape + q.event_shape)
    with torch.enable_grad():
        if copied.log_prob(z).requires_grad:
            raise TypeError("the parameters of this flow are not known to elbograd: its methods hold tensors")


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


def closed_form_kl(q: Distribution, prior: Distribution) -> Tensor | None:
    """KL(q || prior), (*batch), or None when there is no closed form.

    The prior is expanded to q's batch shape, which torch's own pairs do not all do.

    Raises:
        UsageError: q and the prior are over events of different shapes.
    """
    if prior.event_shape != q.event_shape:
        raise UsageError(
            f"the prior has event shape {tuple(prior.event_shape)}, the posterior {tuple(q.event_shape)}: "
            f"Independent(prior, 1) makes the last batch dimension part of the event"
        )
    if gaussians.is_diagonal_gaussian(q) and gaussians.is_diagonal_gaussian(prior):
        return gaussians.kl(q, prior)
    if prior.batch_shape != q.batch_shape:
        prior = prior.expand(q.batch_shape)
    try:
        return td.kl_divergence(q, prior)
    except NotImplementedError:
        return None
