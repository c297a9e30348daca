"""Which latents a statement depends on: seen in its graph, or where it changes with their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from ....estimators.isolation import Draws
from .sites import Site, changing, told_by
from .watching import leaves

_DRAWS = 8
_STATES = 4

#: From values of latents to what the program says at them.
Running = Callable[[Mapping[str, Tensor]], dict[str, Site]]


def dependences(
    role: str, running: Running, values: Mapping[str, Tensor], drawn_from: Mapping[str, Site]
) -> dict[str, set[str]]:
    """By statement, the latents that its distribution is a function of.

    Args:
        role: "guide" or "model".
        running: of the program.
        values: of every latent, (N, *event).
        drawn_from: the guide's statements, for other values.

    Raises:
        UsageError: the program has other statements at other values.
    """
    attached = {
        name: value.detach().requires_grad_(value.is_floating_point()) for name, value in values.items()
    }
    sites = _again(running, attached)
    found: dict[str, set[str]] = {name: set() for name in sites}
    of_value = {id(value): name for name, value in attached.items()}
    for name, site in sites.items():
        found[name] |= {of_value[id(leaf)] for leaf in leaves(told_by(site)) if id(leaf) in of_value}
    reference = {name: _numbers(site) for name, site in _again(running, values).items()}
    for latent in values:
        for other in _others(drawn_from[latent], values[latent]):
            changed = _again(running, {**values, latent: other})
            _check_same(role, sites, changed)
            for name, site in changed.items():
                if not _equal(reference[name], _numbers(site, values.get(name))):
                    found[name].add(latent)
    return {name: parents - {name} for name, parents in found.items()}


def _again(running: Running, values: Mapping[str, Tensor]) -> dict[str, Site]:
    """A run under the same seed each time: what is drawn inside (dropout) is no dependence."""
    with Draws(0).scope():
        return running(values)


def _others(site: Site, value: Tensor) -> Iterator[Tensor]:
    """Other values of a latent: those it can have where they are few, and draws."""
    if site.fn.has_enumerate_support:
        for state in site.fn.enumerate_support(expand=False)[:_STATES]:
            yield state.expand_as(value).contiguous()
    for seed in range(1, 1 + _DRAWS):
        with Draws(seed).scope(), torch.no_grad():
            yield site.fn.sample()


def _check_same(role: str, sites: Mapping[str, Site], others: Mapping[str, Site]) -> None:
    for name in sites.keys() ^ others.keys():
        raise changing(name, role)


def _numbers(site: Site, value: Tensor | None = None) -> list[Tensor]:
    return [tensor.detach() for tensor in told_by(site, value)]


def _equal(some: Iterable[Tensor], others: Iterable[Tensor]) -> bool:
    a, b = list(some), list(others)
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
