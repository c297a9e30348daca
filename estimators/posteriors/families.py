"""Which of torch's families a distribution behaves as, whatever class it is of.

Other libraries derive their distributions from torch's and add methods: Pyro's `Normal` can be called, and
scored in parts, and else is torch's. What draws or scores in a way of its own is nobody's but its own.
"""

from __future__ import annotations

from inspect import getattr_static

from torch import distributions as td
from torch.distributions import Distribution

#: What elbograd takes from a family, without asking the distribution itself.
_RELIED_UPON = (
    "sample",
    "rsample",
    "log_prob",
    "has_rsample",
    "mean",
    "variance",
    "stddev",
    "icdf",
    "support",
    "has_enumerate_support",
    "enumerate_support",
)
#: Of these a single object may have its own.
_METHODS = frozenset({"sample", "rsample", "log_prob", "icdf", "enumerate_support"})
# Of Pyro's, those that override something to the same effect: Categorical scores what it enumerated without a
# gather, Poisson what is mostly zero without logarithms, Geometric by another formula; Uniform makes its
# support of unexpanded ends.
_SAME_IN_PYRO = ("Categorical", "Geometric", "Poisson", "Uniform")
_known: dict[type[Distribution], type[Distribution]] = {}


def family_of(q: Distribution) -> type[Distribution]:
    """The class of torch's that q draws and scores as, or a class that is none of torch's.

    A class derived from torch's is its base as long as it overrides nothing that is relied upon; a sample,
    a density, moments, the support. torch's own derived classes are families of their own.

    >>> import torch
    >>> class Named(td.Normal):
    ...     name = "a"
    >>> family_of(Named(torch.zeros(2), torch.ones(2)))
    <class 'torch.distributions.normal.Normal'>
    >>> family_of(td.LogNormal(torch.zeros(2), torch.ones(2)))
    <class 'torch.distributions.log_normal.LogNormal'>
    """
    if not _METHODS.isdisjoint(q.__dict__):
        return _Altered
    kind = type(q)
    found = _known.get(kind)
    if found is None:
        found = _known[kind] = _family(kind)
    return found


def innermost(q: Distribution) -> Distribution:
    """What independent ones q is made of: q itself, where it is no `Independent`."""
    while family_of(q) is td.Independent:
        q = q.base_dist  # type: ignore[attr-defined]
    return q


def is_transformed(q: Distribution) -> bool:
    """Whether q draws from a base and pushes the draws through transforms, in torch's way."""
    family = family_of(q)
    return issubclass(family, td.TransformedDistribution) and _is_torch(family)


class _Altered(Distribution):
    """The family of one object that was given methods of its own: none that is known."""


def _family(kind: type[Distribution]) -> type[Distribution]:
    base = next(parent for parent in kind.__mro__ if _is_torch(parent) or _is_the_same(parent))
    same = all(getattr_static(kind, name, None) is getattr_static(base, name, None) for name in _RELIED_UPON)
    if not same:
        return kind
    return next(parent for parent in base.__mro__ if _is_torch(parent))


def _is_torch(kind: type) -> bool:
    return kind.__module__.startswith("torch.distributions.")


def _is_the_same(kind: type) -> bool:
    return kind.__module__ == "pyro.distributions.torch" and kind.__name__ in _SAME_IN_PYRO
