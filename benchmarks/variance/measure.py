"""Gradient variance: how noisy an estimator is at one point of one problem."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...estimators.base import Estimator
from ...estimators.errors import UsageError
from ..gradients import frozen, prepare, reseed, seeded
from ..problems.arguments import checked_seed, counts, optional_counts, shown
from ..problems.as_trained import as_trained
from ..problems.buffers import kept_buffers_of
from ..problems.model_checks import check_model
from ..problems.module_modes import notes_on_modes
from ..problems.point import placed, resolve_estimator
from ..problems.protocol import Problem
from ..seeds import derived, hashed
from .arguments import check_choices
from .moments import Sums
from .origins import told_by_origin
from .precision import run_to_precision
from .result import VarianceResult, case_of, result_of
from .route import Route, choose_route
from .streams import check_same_model, mark


@as_trained()
def measure_variance(
    problem: Problem | str,
    estimator: Estimator | str,
    x: Tensor | None = None,
    *,
    num_samples: int = 1,
    replicates: int = 10_000,
    precision: float | None = None,
    warmup: int | None = None,
    wrt: str = "phi",
    route: str = "factorized",
    seed: int = 0,
    device: str | None = None,
    dtype: torch.dtype | str | None = None,
    batch_size: int | None = None,
    chunk: int | None = None,
    details: bool = True,
    stream: int | None = None,
    merge: Sequence[Sums] = (),
) -> VarianceResult:
    """Measure the variance of the batch-mean gradient of the objective.

    Neither the problem nor the estimator is changed: θ is frozen while φ is measured and restored
    after, the estimator's state is that of a copy. Two estimators under one seed share their draws
    where they draw alike.

    Args:
        problem: a Problem, or its specification.
        estimator: an Estimator, or its specification.
        x: data (B, ...); None for the first training batch under ``seed``.
        num_samples: S.
        replicates: independent estimates, R.
        precision: relative half-width of the 95% interval to reach, in place of a fixed R.
        warmup: updates of the estimator's own state before measuring, on shuffled training batches without
            the data of x; None for 500 where it has any. Where the problem has no other data, on x.
        wrt: "phi" (the gradient of ``surrogate``) or "theta" (of ``value``, by the full route).
        route: "factorized", or "full" for one φ-gradient a replicate; an estimator that couples the
            batch, a posterior that holds φ itself, and eta of thousands of coordinates take the full route in
            any case.
        seed: of the data batch and the draws.
        device: where to measure; None for where the problem is.
        dtype: floating-point type; None for the problem's.
        batch_size: B when x is None; None for the problem's default.
        chunk: replicates at a time on the factorized route; None to choose from the sizes.
        details: False for the total and the mean alone, which spares what is marked (*) in the result.
        stream: a number, 0 or more, of one of several measurements whose replicates are independent and
            can be merged, made by other processes or machines with all other arguments the same.
        merge: ``sums`` of other streams; the result is that of all their replicates and the new ones.

    Raises:
        UsageError: in one line, which argument is wrong or what is not supported.
        EstimatorError: the estimator broke the protocol while it ran.
    """
    seed = checked_seed(seed)
    problem, x = placed(problem, x, batch_size=batch_size, seed=seed, device=device, dtype=dtype)
    estimator = resolve_estimator(estimator, seed)
    num_samples, replicates = counts(num_samples=num_samples, replicates=replicates)
    warmup, chunk, stream = optional_counts(warmup=warmup, chunk=chunk, stream=stream)
    check_choices(precision, wrt, route)
    _check_merge(stream, merge)
    with seeded(seed, x.device):
        check_model(problem, x, route)
    case = case_of(problem, estimator, x, num_samples, seed)
    with kept_buffers_of(problem), torch.enable_grad():
        with seeded(seed, x.device):
            state = prepare(problem, estimator, x, num_samples, warmup)
        with seeded(derived(seed, "draws"), x.device):
            chosen = choose_route(problem, estimator, x, num_samples, wrt=wrt, route=route, chunk=chunk)
            # A probe of the sizes has drawn numbers; start afresh, so that estimators share theirs.
            reseed(derived(seed, "draws"), x.device)
            theta = problem.decoder if wrt == "phi" else torch.nn.Module()
            with frozen(theta), told_by_origin(problem, estimator, x):
                if stream is not None:
                    check_same_model(merge, problem, x)
                    chosen.join(stream, merge)
                    reseed(hashed(seed, stream), x.device)
                constant = _draw(chosen, estimator, replicates, precision)
                mark(chosen.sums, case)
                notes = (*notes_on_modes(problem), *filter(None, (state.note,)))
                return result_of(chosen, case, constant, details, notes, state.updates)


def _check_merge(stream: int | None, merge: Sequence[Sums]) -> None:
    if merge and stream is None:
        raise UsageError("merge needs stream, a number that none of the merged sums was made with")
    for sums in merge:
        if not isinstance(sums, Sums):
            raise UsageError(f"merge must hold the sums of other results, not {shown(sums)}")


def _draw(route: Route, estimator: Estimator, replicates: int, precision: float | None) -> bool:
    """Draw, and say whether it was the same each time by construction.

    A model that draws itself (dropout, on the full route) makes a deterministic estimator's gradient random.
    """
    constant = estimator.deterministic and route.repeats()
    if constant:
        route.add(2)  # more of the same would tell nothing
    elif precision is not None:
        run_to_precision(route, precision)
    else:
        route.add(replicates)
    return constant
