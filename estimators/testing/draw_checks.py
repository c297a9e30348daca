"""That the samples of one estimate are drawn as `Estimator.draws` says.

Each function takes a `Trial`, looks at the z that log_likelihood is evaluated at, and raises AssertionError
with one line of reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..base import Target
from .sampling_checks import leads, search
from .toy_problems import ToyProblem
from .trial import TOLERANCE, NotApplicable, Trial, evaluate, expect, require_support, watched

_LOOKS = (4096, 16384, 65536)
_PROJECTIONS = 4
_MORE = (11, 10, 9, 8)  # S beyond the first four, the first that is supported
_FLOOR = 1e-9
_REPLICATES = 32
_MANY = 2048


def iid_draws(trial: Trial) -> None:
    """With ``draws = "iid"``, functions of different samples have one mean, and are uncorrelated.

    Of the first four S, a larger one, and every two samples: projections of z, squashed to (−1, 1), and their
    squares. The products must have mean zero, at a false-alarm rate of 1e-5 a look.

    The samples are the rows that log_likelihood is given where there are S of them in all, whatever the
    number of calls. Where it is evaluated at other points too they are those of the first call that has S
    rows at each of the S tried: pairs, or samples with coordinates replaced, are no claim about draws.

    Raises:
        NotApplicable: no such rows are seen.
    """
    problem = trial.family.problem(data=(0,))
    require_support(trial.warm, problem, problem.target, trial.sizes[0])
    more = (s for s in _MORE if trial.warm.supports(problem.q, problem.target, s) is None)
    several = [s for s in (*trial.sizes, next(more, 1)) if s > 1]
    chosen = _samples_among(trial, several)
    if not several or chosen is None:
        raise NotApplicable("log_likelihood is evaluated at no S samples, S of 2 or more")
    # Fixed directions in which no two coordinates count alike.
    width = problem.q.event_shape.numel()
    angles = torch.arange(1.0, 1 + _PROJECTIONS * width, dtype=torch.float64).square()
    directions = angles.sin().reshape(_PROJECTIONS, width)
    # Of many samples one projection must do.
    kept = {s: slice(None) if s in trial.sizes else slice(0, None, _PROJECTIONS) for s in several}
    pairs = [
        (s, *pair)
        for s in several
        for pair in combinations(range(s), 2)
        for _ in range(2 * _PROJECTIONS)[kept[s]]
    ]

    def draw(n: int) -> Tensor:
        columns = []
        for s in several:
            z = _drawn(trial, s, n, chosen)  # (S, n, D)
            u = _centred(torch.tanh(_centred(z @ directions.T, scaled=True)))
            u = torch.cat((u, _centred(u.square())), -1)[..., kept[s]]
            columns += [u[one] * u[other] for one, other in combinations(range(s), 2)]
        return torch.cat(columns, -1)

    looks = tuple(n // 4 for n in _LOOKS) if trial.costly else _LOOKS
    found = search(trial, draw, looks, _FLOOR)
    if found:
        s, one, other = pairs[found.column]
        raise AssertionError(
            f"declares draws = iid, but samples {one} and {other} of S = {s} are not independent draws of "
            f"one distribution ({found.num_draws} draws); declare draws = coupled if that is meant"
        )


def antithetic(trial: Trial) -> None:
    """With ``draws = "antithetic"`` the samples of a pair mirror each other: Gaussian ones and bits."""
    (_mirrored_gaussian if trial.family.states is None else _mirrored_bits)(trial)


def _mirrored_gaussian(trial: Trial) -> None:
    """What is even about q's mean adds nothing to the gradient in it.

    Where f(m + e) = f(m − e), the two samples of a pair cancel in the location's gradient exactly, for the
    score function and for pathwise gradients alike. Pairs that are none are unbiased and show only here.
    """
    problem = trial.family.problem((_REPLICATES,))
    q = problem.q
    centre = q.mean.detach()
    target = Target(lambda z: -(z - centre).sum(-1).square() - (z - centre).square().sum(-1).cos())
    estimator = trial.fresh()
    even = [s for s in range(2, 2 + 2 * len(trial.sizes)) if s % 2 == 0 and s >= estimator.min_samples]
    for num_samples in even:
        require_support(estimator, problem, target, num_samples)
        gradient = evaluate(estimator, problem, num_samples, target).eta_grad
        location, others = gradient.split(q.mean.shape[-1], -1)
        expect(
            float(location.abs().max()) <= TOLERANCE * max(float(others.abs().max()), 1.0),
            f"declares draws = antithetic, but its pairs do not mirror each other (S = {num_samples})",
        )


def _mirrored_bits(trial: Trial) -> None:
    """The bits of a pair come from u and 1 − u.

    Both are then never 1 where p < ½, and never 0 where p > ½. Of the pair of S = 2.

    Raises:
        NotApplicable: S = 2 is not supported, or the pair is not seen.
    """
    chosen = _samples_among(trial, trial.sizes)
    if 2 not in trial.sizes or chosen is None:
        raise NotApplicable("log_likelihood is evaluated at no pair of samples")
    p = trial.family.problem(data=(0,)).q.mean.detach()
    first, second = _drawn(trial, 2, _MANY, chosen)
    both = torch.where(p < 0.5, first * second, (1 - first) * (1 - second))
    expect(not both.any(), "declares draws = antithetic, but the bits of a pair are not those of u and 1 − u")


def _drawn(trial: Trial, num_samples: int, n: int, chosen: list[int]) -> Tensor:
    """z of n estimates of one datum, (S, n, D): the rows of the chosen calls."""
    drawn = []
    for lead in leads(trial, n):
        calls = _calls(trial, trial.family.problem((lead,), (0,)), num_samples)
        drawn.append(torch.cat([calls[i] for i in chosen] if chosen else calls)[:, :, 0])
    return torch.cat(drawn, 1).flatten(2).double()


def _samples_among(trial: Trial, sizes: Sequence[int]) -> list[int] | None:
    """Which calls of log_likelihood evaluate the S samples; None where that cannot be told.

    An empty list stands for all: their number may depend on S.
    """
    problem = trial.family.problem(data=(0,))
    lengths = {s: [len(z) for z in _calls(trial, problem, s)] for s in sizes}
    if all(sum(rows) == s for s, rows in lengths.items()):
        return []
    fewest = min(map(len, lengths.values()))
    alone = [i for i in range(fewest) if all(rows[i] == s for s, rows in lengths.items())]
    return alone[:1] if alone and len(lengths) > 1 else None


def _calls(trial: Trial, problem: ToyProblem, num_samples: int) -> list[Tensor]:
    target, seen = watched(problem.target)
    trial.warm(problem.q, target, num_samples)
    return seen


def _centred(x: Tensor, scaled: bool = False) -> Tensor:
    """x (S, n, ·) about the mean of all, so that samples of other distributions do not have mean zero."""
    x = x - x.mean((0, 1))
    return x / x.std((0, 1)).clamp_min(_FLOOR) if scaled else x
