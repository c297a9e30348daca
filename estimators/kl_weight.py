"""The weight of a target's KL: what may be given, and how the weighted objective is called."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import UsageError


@dataclass(frozen=True)
class FreeBits:
    """A KL of which each coordinate of a datum's z counts at least so much: Σ_j max(nats, KL_j).

    Attributes:
        nats: λ, in nats a coordinate.

    Raises:
        UsageError: not a finite number of 0 or more.

    References:
        Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016, appendix C.8,
        where the KL is averaged over the minibatch first.
    """

    nats: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "nats", _at_least_zero("free_bits", self.nats))


#: A number, one for each latent by its name, or free bits.
KLWeight = float | Mapping[str, float] | FreeBits


def checked(weight: object) -> KLWeight:
    """``weight`` in floats.

    Raises:
        UsageError: something else, or a number that is negative or not finite.
    """
    if isinstance(weight, FreeBits):
        return weight
    if isinstance(weight, Mapping):
        if not weight:
            raise UsageError("kl_weight={} names no latent: give a number, or one for each latent")
        return {str(name): _at_least_zero(f"kl_weight of {name}", each) for name, each in weight.items()}
    return _at_least_zero("kl_weight", weight)


def _at_least_zero(name: str, value: object) -> float:
    # A tensor is refused too: a weight that is trained, or of each datum, would be another objective.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UsageError(f"{name}={value!r} is not a number of 0 or more")
    return float(value)


def weight_or_free_bits(kl_weight: object, free_bits: object) -> KLWeight:
    """The weight of a problem that takes both arguments, of which one is given.

    Args:
        kl_weight: 1 where free bits are given.
        free_bits: nats a coordinate, or None.

    Raises:
        UsageError: both are given, or one is no number of 0 or more.
    """
    if free_bits is None:
        return checked(kl_weight)
    if kl_weight != 1:
        raise UsageError(
            f"free_bits={free_bits!r} takes the place of kl_weight={kl_weight!r}: give one of them"
        )
    return FreeBits(free_bits)  # type: ignore[arg-type]


def is_zero(weight: KLWeight) -> bool:
    """Whether nothing is left of the KL."""
    if isinstance(weight, FreeBits):
        return False
    return not any(weight.values()) if isinstance(weight, Mapping) else weight == 0


def parameters_of_weight(weight: KLWeight) -> str:
    """What the weight adds to an objective's name; "" where it is 1.

    >>> parameters_of_weight(0.5), parameters_of_weight(FreeBits(0.1)), parameters_of_weight(1.0)
    ('kl_weight=0.5', 'free_bits=0.1', '')
    >>> parameters_of_weight({"z1": 0.5, "z2": 1.0})
    'kl_weight.z1=0.5,kl_weight.z2=1'
    """
    if isinstance(weight, FreeBits):
        return f"free_bits={_shortest(weight.nats)}"
    if isinstance(weight, Mapping):
        if all(each == 1 for each in weight.values()):
            return ""
        return ",".join(f"kl_weight.{name}={_shortest(each)}" for name, each in weight.items())
    return "" if weight == 1 else f"kl_weight={_shortest(weight)}"


def weighted_objective(objective: str, parameters: str) -> str:
    """The name of an objective whose KL is weighted.

    >>> weighted_objective("elbo", "kl_weight=4"), weighted_objective("elbo", "")
    ('elbo[kl_weight=4]', 'elbo')
    >>> weighted_objective("relaxed[temperature=0.5]", "free_bits=0.1")
    'relaxed[temperature=0.5,free_bits=0.1]'
    """
    if not parameters:
        return objective
    name, _, own = objective.partition("[")
    return f"{name}[{own.removesuffix(']') + ',' if own else ''}{parameters}]"


def split_objective(objective: str) -> tuple[str, str]:
    """The objective of weight 1, and what the weight added to its name.

    >>> split_objective("relaxed[temperature=0.5,kl_weight=4]"), split_objective("iwae")
    (('relaxed[temperature=0.5]', 'kl_weight=4'), ('iwae', ''))
    >>> split_objective("elbo[kl_weight.z1=0.5,kl_weight.z2=1]")
    ('elbo', 'kl_weight.z1=0.5,kl_weight.z2=1')
    """
    found = re.fullmatch(r"([^\[]*)\[(?:(.*?),)??((?:kl_weight[.=]|free_bits=)[^\]]*)\]", objective)
    if found is None:
        return objective, ""
    name, own, parameters = found.groups()
    return (f"{name}[{own}]" if own else name), parameters


def is_elbo(objective: str) -> bool:
    """Whether it is the ELBO, of whatever weight of the KL.

    >>> is_elbo("elbo"), is_elbo("elbo[kl_weight=4]"), is_elbo("iwae")
    (True, True, False)
    """
    return split_objective(objective)[0] == "elbo"


def _shortest(value: float) -> str:
    return str(int(value)) if value.is_integer() and value < 1e15 else repr(value)
