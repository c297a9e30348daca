"""The trials of a tuning: which settings are tried, the same for every estimator."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create_under
from ...estimators.plugins.specification import Specification, parse
from ..problems.arguments import shown
from ..seeds import derived

_DIGITS = 3  # of what is drawn: nobody needs more


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to come.

    Attributes:
        number: from 1.
        seed: of its initial weights, data order and draws.
        learning_rate: of φ and θ.
        own: the estimator's hyperparameters, by name.
    """

    number: int
    seed: int
    learning_rate: float
    own: Mapping[str, float]


def planned_trials(
    estimator: str, count: int, learning_rates: tuple[float, float], seed: int
) -> list[PlannedTrial]:
    """Random search: learning rates log-uniform in a range, the k-th the same for every estimator.

    So is its seed. Hyperparameters of the estimator's own (`Estimator.search_space`) are drawn inside the
    same number of trials, ⌈√count⌉ values that take turns: trials that share theirs are trained side by side.

    Args:
        estimator: its specification; what that sets is not tried.
        count: of trials.
        learning_rates: the lowest and the highest.
        seed: of the case.
    """
    drawn = random.Random(derived(seed, "tuning"))
    rates = [_between(drawn, *learning_rates) for _ in range(count)]
    space = _free(estimator, seed)
    of_its_own = random.Random(derived(seed, "tuning", count))
    several = math.ceil(math.sqrt(count)) if space else 1
    choices = [
        {name: _between(of_its_own, *ends) for name, ends in sorted(space.items())} for _ in range(several)
    ]
    return [
        PlannedTrial(k + 1, derived(seed, "tuning", k), rate, choices[k % several])
        for k, rate in enumerate(rates)
    ]


def with_own(estimator: str, own: Mapping[str, float]) -> str:
    """The specification with these hyperparameters.

    >>> with_own("gumbel-softmax[kl=sampled]", {"temperature": 0.3})
    'gumbel-softmax[kl=sampled,temperature=0.3]'
    """
    if not own:
        return estimator
    parsed = parse(estimator)
    return str(Specification(parsed.name, {**parsed.parameters, **own}))


def at_edge(rate: float, learning_rates: tuple[float, float]) -> str:
    """Which edge of the range a rate is at, within a tenth of it on the logarithmic scale; "" for none."""
    low, high = map(math.log, learning_rates)
    share = (math.log(rate) - low) / (high - low)
    return "lower" if share < 0.1 else "upper" if share > 0.9 else ""


def _free(estimator: str, seed: int) -> dict[str, tuple[float, float]]:
    """Its search space, less what its specification sets.

    Raises:
        UsageError: it is none.
    """
    made = create_under(seed, estimator)
    space, fixed = made.search_space, parse(estimator).parameters
    if not isinstance(space, Mapping):
        raise UsageError(f"{made.label}: search_space must be a dict, not {shown(space)}")
    for name, ends in space.items():
        if not _is_range(ends):
            wanted = "a lowest and a highest value, both positive"
            raise UsageError(f"{made.label}: search_space[{name!r}] must be {wanted}, not {shown(ends)}")
    return {name: ends for name, ends in space.items() if name not in fixed}


def _is_range(ends: object) -> bool:
    if not isinstance(ends, Sequence) or len(ends) != 2:
        return False
    numbers = all(isinstance(end, Real) for end in ends)
    return numbers and 0 < ends[0] < ends[1] < math.inf


def _between(drawn: random.Random, low: float, high: float) -> float:
    value = math.exp(drawn.uniform(math.log(low), math.log(high)))
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)
