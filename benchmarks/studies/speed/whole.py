"""How much faster whole gradients are drawn many at once than in a loop, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import torch
from torch.distributions import Distribution

from ....estimators.base import Estimate, Estimator, Target
from ....estimators.plugins.registry import create
from ...gradients import frozen, prepare, seeded
from ...problems.protocol import Problem
from ...problems.registry import load_problem
from ...statistics.intervals import median_interval
from ...variance.one_by_one import Subject
from ...variance.whole_gradients import WholeGradients
from .models import TwoLayerGaussian

_LOOPED = 20  # replicates of a loop in each round


class BatchMean(Estimator):
    """Score function with the mean of the batch as baseline, which couples the data."""

    unbiased = False
    couples_batch = True

    def forward(self, q: Distribution, target: Target, num_samples: int) -> Estimate:
        """Of S samples (S, *batch, D)."""
        z = q.sample(torch.Size((num_samples,)))
        f = target.log_likelihood(z)
        centred = (f - f.mean(-1, keepdim=True)).detach()
        return Estimate((centred * q.log_prob(z)).mean(0), f.mean(0))


#: model -> problem, sizes of the batch, and (estimator, S).
CASES: dict[str, tuple[Callable[[], Problem], tuple[int, ...], tuple[tuple[str, int], ...]]] = {
    "sigmoid-belief-network": (
        lambda: load_problem("sigmoid-belief-network"),
        (1, 16, 64, 256),
        (("leave-one-out[kl=sampled]", 4), ("vimco", 4), ("score-function[kl=sampled]", 1)),
    ),
    "two-layer Gaussian": (
        TwoLayerGaussian,
        (1, 16, 64, 256),
        (("reparameterization[kl=sampled]", 1), ("sticking-the-landing", 1)),
    ),
    "vae": (lambda: load_problem("vae"), (1, 16, 64, 256), (("batch-mean", 1),)),
}


@dataclass(frozen=True)
class WholeRate:
    """Seconds of a replicate of one case, in a loop and many at once.

    Attributes:
        way: in which many are drawn at once.
        loop: median.
        together: median.
        ratio: median over rounds of loop / together, with its 95% interval from order statistics.
    """

    model: str
    batch_size: int
    estimator: str
    num_samples: int
    way: str
    loop: float
    together: float
    ratio: tuple[float, float, float]


def whole_rates(rounds: int, models: tuple[str, ...] = tuple(CASES)) -> Iterator[WholeRate]:
    """Of each case, both in every round, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for model in models:
            make, sizes, estimators = CASES[model]
            for batch_size in sizes:
                for name, num_samples in estimators:
                    yield _rate(model, make(), batch_size, name, num_samples, rounds)
    finally:
        torch.set_num_threads(threads)


def _rate(
    model: str, problem: Problem, batch_size: int, name: str, num_samples: int, rounds: int
) -> WholeRate:
    x = next(iter(problem.batches("train", batch_size, torch.Generator().manual_seed(0))))
    estimator = BatchMean() if name == "batch-mean" else create(name)
    with seeded(0, x.device), frozen(problem.decoder):
        prepare(problem, estimator, x, num_samples, None)
        gradients = WholeGradients(Subject(problem, estimator, x, num_samples))
        together, way = gradients.chunk, gradients.way  # one chunk of them a round
        pairs = []
        for _ in range(rounds + 1):
            loop = _seconds(lambda: gradients.one(_LOOPED)) / _LOOPED
            pairs.append((loop, _seconds(lambda: list(gradients.chunks(together))) / together))
    pairs = pairs[1:]  # the first warms up
    loops, chunks = zip(*pairs, strict=True)
    ratio = median_interval([a / b for a, b in pairs])
    return WholeRate(model, batch_size, name, num_samples, way, median(loops), median(chunks), ratio)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
