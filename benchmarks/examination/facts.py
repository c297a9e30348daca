"""What is found of a sound problem: sizes, distributions, the route, exact answers, estimators."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from torch import nn

from ...estimators.base import FreeBits
from ...estimators.pieces.objective import unsupported_kl
from ...estimators.posteriors.distributions import describe
from ...estimators.posteriors.shared import shares_draws
from ..oracles.clock import Clock
from ..oracles.references import Reference, exact_reference, only_through_eta
from ..problems.buffers import kept_buffers_of
from ..problems.model_checks import Look
from ..problems.module_modes import notes_on_modes
from ..problems.parts import eta_parts
from ..problems.placement import dtype_of
from ..variance.route import factorizes
from .data import Served, in_words
from .estimators import usable_estimators
from .result import Finding

_FEW = 2  # data that an exact answer is sought for
_SECONDS = 3.0  # that this may take

#: Of these the first two that can be used are proposed.
_PROPOSED = ("reparameterization", "leave-one-out", "score-function", "exact")


def facts(look: Look, served: Served, usable: list[str]) -> Iterator[Finding]:
    """What was found, a line each; ``usable`` is filled with the estimators that can be used.

    Args:
        look: of a problem without faults.
        served: its data.
        usable: filled.
    """
    assert look.eta is not None and look.q is not None and look.target is not None
    for about, text in (
        ("data", _data(look, served)),
        ("φ and θ", f"{_size(look.problem.encoder)} and {_size(look.problem.decoder)}"),
        ("η", _eta(look)),
        ("z", f"D = {prod(look.q.event_shape)}, event shape {tuple(look.q.event_shape)}"),
        ("posterior", describe(look.q)),
        ("prior", _prior(look)),
        ("objective", _objective(look)),
        ("route", route_and_why(look)),
        ("exact", _exact(look)),
    ):
        yield Finding("fact", about, text)
    found, refused = usable_estimators(look)
    usable += found
    everything = len(found) + sum(map(len, refused.values()))
    yield Finding(
        "fact", "estimators", f"{len(found)} of {everything} can be used: {', '.join(found) or 'none'}"
    )
    for reason, names in sorted(refused.items(), key=lambda item: -len(item[1])):
        yield Finding("fact", "not", f"{', '.join(names)}: {reason}")


def proposed(usable: list[str]) -> list[str]:
    """Estimators to begin with."""
    known = [name for start in _PROPOSED for name in usable if name.partition("[")[0] == start]
    return (known or usable)[:2]


def _data(look: Look, served: Served) -> str:
    kind = str(look.x.dtype).removeprefix("torch.")
    batch = f"B = {len(look.x)} of shape {tuple(look.x.shape[1:])}, {kind}"
    return "; ".join(filter(None, [batch, in_words(served), *served.notes]))


def _size(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters() if p.requires_grad):,} parameters"


def _eta(look: Look) -> str:
    assert look.eta is not None
    size = look.eta.shape[-1]
    parts = eta_parts(look.problem, size)
    named = f": {', '.join(parts)}" if parts else "; name its parts in eta_parts to see the variance of each"
    return f"P = {size}{named}"


def _prior(look: Look) -> str:
    assert look.q is not None and look.target is not None
    prior = look.target.prior
    if prior is None:
        return "none, and so no KL"
    if unsupported_kl(look.q, look.target, "analytic") is None:
        given = any(getattr(look.q, "parents", {}).values())
        each = " of each latent in closed form, given those it depends on" if given else " in closed form"
        return f"{describe(prior)}, KL{each}"
    return f"{describe(prior)}, no closed form of the KL: it is sampled, by estimators with [kl=sampled]"


def _objective(look: Look) -> str:
    assert look.target is not None
    weight = look.target.kl_weight
    if look.target.prior is None:
        return "E_q[log_likelihood(z)]"
    if isinstance(weight, FreeBits):
        return f"E_q[log p(x|z)] − KL with {weight.nats:g} free nats a coordinate"
    if weight == 1:
        return "the ELBO, E_q[log p(x|z)] − KL"
    if isinstance(weight, float | int):
        return f"E_q[log p(x|z)] − {weight:g} · KL"
    each = " ".join(f"− {one:g} · KL of {name}" for name, one in weight.items())
    return f"E_q[log p(x|z)] {each}"


def route_and_why(look: Look) -> str:
    """The route of a measurement, and the reason."""
    assert look.eta is not None and look.q is not None
    if look.route == "full":
        return "; ".join(["full, as was asked", *notes_on_modes(look.problem)])
    if shares_draws(look.q):
        return "full: the data of a batch share their draws"
    if not factorizes(look.eta):
        return "full: η has too many coordinates for a matrix of them for each datum"
    with kept_buffers_of(look.problem):
        through_eta = only_through_eta(look.problem, look.x)
    if not through_eta:
        return "full: posterior or target use parameters of the encoder other than through η"
    if dtype_of(look.problem).itemsize < 4:
        return "full is to be asked for (--route full): the factorized one needs float32 or float64"
    return "factorized: the data are independent given η; estimators that couple them take the full one"


def _exact(look: Look) -> str:
    if look.route == "full" and notes_on_modes(look.problem):
        return "no (modules in train mode make it another at each pass): bias is held against a long run"
    clock = Clock(_SECONDS)
    found = exact_reference(look.problem, look.x[:_FEW], clock=clock)
    if isinstance(found, Reference):
        return (
            f"yes, by {found.kind}: bias is measured exactly where that takes no longer than --bias-seconds"
        )
    return f"no ({found}): bias is held against a long run"
