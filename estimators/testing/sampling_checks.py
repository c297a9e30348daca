"""Properties of an estimator's distribution: its mean, and what its entries share.

Each is tested by `find_deviation`, by default at a false-alarm rate of 1e-5 a screening look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from unittest import SkipTest

import torch
from scipy import stats
from torch import Tensor

from ..isolation import isolated
from ..kl_weight import FreeBits, KLWeight, parameters_of_weight
from .mean_test import Deviation, Undecided, find_deviation
from .toy_problems import ElboGradients
from .trial import (
    Outcome,
    Trial,
    evaluate,
    expect,
    outcome_parts,
    require_support,
    seeded,
    train_step,
    with_likelihood,
)

_LOOKS = (4096, 16384, 65536, 262144)
_CALL_LOOKS = (192, 768, 3072)  # of estimates that must be separate calls
_CHUNK = 4096
_CHUNK_IN_TRAINING = 256
_UPDATES = 2500
_AGING_STEPS = 100
_ROUNDING = 1e-9
_COMPARED = 4096
_MORE_SAMPLES = 8
_SAME = 0.05
_WEIGHTS = (0.3, FreeBits(0.2))  # coordinates of the toy problems lie on both sides of 0.2 nats

#: Looks that can raise an alarm, at most, over all families: three each of unbiased, value, theta and
#: every_size; of what is not asked of a family like another three of kl_weight and two each of
#: unbiased_without_prior, unbiased_in_training, unbiased_when_aged, independent, replicates, iid_draws, and
#: under discrete ones unbiased_off_support.
SCREENING_LOOKS = 27 + 29 + 29 + 12


def unbiased(trial: Trial) -> None:
    """E[gradient of surrogate] is the ELBO's gradient, every coordinate of every datum, after warm-up."""
    exact = _exact(trial).eta_grad
    _require_mean(trial, lambda n: _draws(trial, n).eta_grad, exact, "gradient in η", _looks(trial))


def value(trial: Trial) -> None:
    """E[value] is the ELBO of every datum."""
    exact = _exact(trial).value
    _require_mean(trial, lambda n: _draws(trial, n).value, exact, "value", _looks(trial))


def theta(trial: Trial) -> None:
    """E[gradient of value] in θ is the ELBO's; θ includes the prior's parameters."""
    exact = _exact(trial).theta_grad
    _require_mean(trial, lambda n: _draws(trial, n).theta_grad, exact, "value's gradient in θ", _looks(trial))


def every_size(trial: Trial) -> None:
    """At every other S too the means are those claimed: what halves S may err at odd ones alone."""
    exact = _exact(trial)
    others = [s for s in trial.sizes if s != trial.num_samples]
    if not others:
        return
    chosen = _claimed(trial, exact)

    def draw(n: int) -> Tensor:
        return torch.cat([_flat(_claimed(trial, _draws(trial, n, s))) for s in others], -1)

    names = [f"{name} at S = {s}" for s in others for name in chosen]
    together = torch.cat([_flat(chosen)] * len(others), -1)
    width = [part.shape[-1] for part in chosen.values()] * len(others)
    where = [name for name, columns in zip(names, width, strict=True) for _ in range(columns)]
    looks = tuple(n // 4 for n in _looks(trial)) if trial.costly else _looks(trial)
    _require_mean(trial, draw, together, "mean", looks, where, screens=1)


def _claimed(trial: Trial, means: ElboGradients) -> dict[str, Tensor]:
    """The parts of which the estimator claims the mean, each (..., B, ·)."""
    parts = {"gradient in η": means.eta_grad} if trial.warm.unbiased else {}
    if trial.warm.unbiased_value:
        parts |= {"value": means.value.unsqueeze(-1), "value's gradient in θ": means.theta_grad}
    return parts


def _flat(parts: dict[str, Tensor]) -> Tensor:
    return torch.cat(tuple(parts.values()), -1)


def unbiased_off_support(trial: Trial) -> None:
    """The mean gradient stays what it is when log_likelihood is changed off q's support alone."""

    def draw(n: int) -> Tensor:
        return torch.cat([estimate(lead) for lead in leads(trial, n)])

    def estimate(lead: int) -> Tensor:
        problem = trial.family.problem((lead,))
        target = with_likelihood(problem.target, lambda f: lambda z: f(z) + problem.bump(z))
        return evaluate(trial.warm, problem, trial.num_samples, target).eta_grad

    what = "gradient in η where log_likelihood is changed off q's support"
    _require_mean(trial, draw, _exact(trial).eta_grad, what, _looks(trial)[1:])


def unbiased_without_prior(trial: Trial) -> None:
    """With ``prior=None`` and the smallest S the gradient is, in expectation, that of E_q[log_likelihood]."""

    def estimate(lead: int) -> Tensor:
        problem = trial.family.problem((lead,))
        target = replace(problem.target, prior=None)
        require_support(trial.warm, problem, target, trial.sizes[0])
        return evaluate(trial.warm, problem, trial.sizes[0], target).eta_grad

    def draw(n: int) -> Tensor:
        return torch.cat([estimate(lead) for lead in leads(trial, n)])

    exact = _exact(trial, prior=False).eta_grad
    _require_mean(trial, draw, exact, "gradient in η without a prior", _looks(trial)[1:])


def kl_weight(trial: Trial) -> None:
    """With a weighted KL the means claimed are those of the weighted objective; else `supports` refuses.

    Whatever the objective, gradient and value move with the weight, in either mode.
    """
    problem = trial.family.problem()
    require_support(trial.warm, problem, replace(problem.target, kl_weight=_WEIGHTS[0]), trial.num_samples)
    targets = [replace(problem.target, kl_weight=weight) for weight in _WEIGHTS]
    weights = [t.kl_weight for t in targets if trial.warm.supports(problem.q, t, trial.num_samples) is None]
    for training in (False, True):
        with trial.modes(training) as estimator:
            one, other = (
                seeded(estimator, problem, trial.num_samples, replace(problem.target, kl_weight=weight))
                for weight in (1.0, _WEIGHTS[0])
            )
        mode = "training" if training else "eval"
        for name, first, second in outcome_parts(one, other):
            same = first.numel() > 0 and torch.equal(first, second)
            expect(
                not same, f"the {name} is the same with kl_weight={_WEIGHTS[0]} as without, in {mode} mode"
            )
    learned = trial.family.problem(learned=True)
    exact = [_claimed(trial, learned.exact(kl_weight=weight)) for weight in weights]  # type: ignore[arg-type]
    if trial.warm.objective != "elbo" or not exact[0]:
        return

    def draw(n: int) -> Tensor:
        return torch.cat([estimate(lead) for lead in leads(trial, n)])

    def estimate(lead: int) -> Tensor:
        found = [_estimate(trial, lead, trial.num_samples, weight) for weight in weights]
        return torch.cat([_flat(_claimed(trial, each)) for each in found], -1)

    where = [
        f"{name} with {parameters_of_weight(weight)}"
        for weight, parts in zip(weights, exact, strict=True)
        for name, part in parts.items()
        for _ in range(part.shape[-1])
    ]
    together = torch.cat([_flat(parts) for parts in exact], -1)
    _require_mean(trial, draw, together, "mean", _looks(trial), where, screens=1)


def unbiased_in_training(trial: Trial) -> None:
    """Along a training loop from a cold start (estimate, step on aux_loss, `update`) the means are right too.

    θ requires a gradient, as in a real step. Given the past each estimate is unbiased, so the deviations are
    martingale differences.
    """

    def draw(n: int) -> Tensor:
        estimator = trial.fresh().train()
        steps = []
        for lead in leads(trial, n, _CHUNK_IN_TRAINING):
            outcome = evaluate(estimator, trial.family.problem((lead,), learned=True), trial.num_samples)
            train_step(estimator, outcome.estimate)
            steps.append(_flat(_claimed(trial, _means(outcome))))
        return torch.cat(steps)

    _require_claims(trial, draw, "during training")


def unbiased_when_aged(trial: Trial) -> None:
    """After 2,500 updates the means are still those claimed: a schedule may end, a counter pass a threshold.

    The updates are those of 100 training steps with a batch of one datum, each repeated 25 times.
    """
    with isolated(trial.seed + 5):
        aged = trial.fresh().train()
        for step in range(_AGING_STEPS):
            problem = trial.family.problem(data=(step % 3,))
            estimate = evaluate(aged, problem, trial.sizes[0]).estimate
            train_step(aged, estimate)
            for _ in range(_UPDATES // _AGING_STEPS - 1):
                aged.update(estimate)
    aged.eval()

    def draw(n: int) -> Tensor:
        problems = (trial.family.problem((lead,), learned=True) for lead in leads(trial, n))
        outcomes = (evaluate(aged, problem, trial.num_samples) for problem in problems)
        return torch.cat([_flat(_claimed(trial, _means(outcome))) for outcome in outcomes])

    _require_claims(trial, draw, f"after {_UPDATES:,} updates")


def _require_claims(trial: Trial, draw: Callable[[int], Tensor], when: str) -> None:
    """The parts claimed, side by side as `_flat` has them, have the means claimed."""
    exact = _claimed(trial, _exact(trial))
    where = [f"{name} {when}" for name, part in exact.items() for _ in range(part.shape[-1])]
    _require_mean(trial, draw, _flat(exact), "mean", _looks(trial)[1:], where)


def independent(trial: Trial) -> None:
    """Estimates of different data, and of different replicates, are uncorrelated under one q.

    Gradients are squashed to (−1, 1) about their median first: functions of independent variables are
    independent, and products of bounded ones have light tails. The product of two data's (two
    replicates') must have mean zero. With ``couples_batch`` only replicates are compared.
    """
    problem = trial.family.problem((2,), data=(0, 0))
    estimator = trial.fresh(trial.family.problem(data=(0, 0)))

    def draw(n: int) -> Tensor:
        u = _squash(
            _calls(trial, n, lambda: evaluate(estimator, problem, trial.num_samples).eta_grad), over=3
        )
        along_replicates = u[:, 0].sum(1) * u[:, 1].sum(1)
        along_data = u[:, :, 0].sum(1) * u[:, :, 1].sum(1)
        return along_replicates if estimator.couples_batch else torch.cat((along_replicates, along_data), -1)

    found = search(trial, draw, _CALL_LOOKS, _ROUNDING)
    if found is None:
        return
    if found.column < problem.eta.shape[-1]:
        raise AssertionError(f"estimates of different replicates are correlated ({found.num_draws} draws)")
    remedy = "set couples_batch if that is meant"
    raise AssertionError(f"estimates of different data are correlated ({found.num_draws} draws); {remedy}")


def replicates(trial: Trial) -> None:
    """One call with batch (R, B) and R calls with batch (B,) agree in mean and in spread."""

    def call(*lead: int) -> Tensor:
        return evaluate(trial.warm, trial.family.problem(lead), trial.num_samples).eta_grad

    def draw(n: int) -> Tensor:
        apart = _calls(trial, n, call)
        together = torch.cat([call(lead) for lead in leads(trial, n)]).expand_as(apart)
        u, v = _squash(torch.cat((apart, together)), over=1).chunk(2)
        return torch.cat((u - v, u.square() - v.square()), -1).flatten(1)

    if search(trial, draw, _CALL_LOOKS, _ROUNDING):
        raise AssertionError(
            "one call with batch (R, B) and R calls with batch (B,) differ in mean or spread"
        )


def samples(trial: Trial) -> None:
    """Estimates from eight times the samples (two at least) are distributed otherwise: they differ.

    The Kolmogorov-Smirnov distance of some coordinate must pass 0.05. Where nothing but the number of copies
    of a sample differs it does so with probability 1e-4 a coordinate; averaging changes any distribution
    but Cauchy's by more.
    """
    if trial.deterministic:
        return
    few = trial.sizes[0]
    problem = trial.family.problem((_COMPARED,))
    tried = (few * _MORE_SAMPLES // 2**k for k in range(3))  # samples that differ run out
    many = next((s for s in tried if trial.warm.supports(problem.q, problem.target, s) is None), 0)
    require_support(trial.warm, problem, problem.target, many)
    one, more = (evaluate(trial.warm, problem, s).eta_grad.flatten(1) for s in (few, many))
    distances = [_distance(*pair) for pair in zip(one.T, more.T, strict=True)]
    if max(distances) <= _SAME and float(one.std(0).max()) > _ROUNDING * float(one.abs().max()):
        raise AssertionError(
            f"estimates from {many} and from {few} samples are distributed alike: are they different samples?"
        )


def _distance(one: Tensor, two: Tensor) -> float:
    """Kolmogorov-Smirnov distance of two samples of equal size; what differs by rounding counts as equal."""
    unit = (_ROUNDING * torch.cat((one, two)).abs().max()).clamp_min(torch.finfo(one.dtype).tiny)
    rounded = ((part / unit).round().numpy(force=True) for part in (one, two))
    return float(stats.ks_2samp(*rounded, method="asymp").statistic)


def _exact(trial: Trial, prior: bool = True) -> ElboGradients:
    return trial.family.problem(learned=True).exact(prior)


def _looks(trial: Trial) -> tuple[int, ...]:
    return tuple(n // 4 for n in _LOOKS) if trial.costly else _LOOKS


def leads(trial: Trial, n: int, chunk: int = _CHUNK) -> list[int]:
    """How many replicates to draw at a time, n in all; one will do where all are the same."""
    chunk = min(n, chunk)
    return [1] if trial.deterministic else [chunk] * (n // chunk)


def _draws(trial: Trial, n: int, num_samples: int | None = None) -> ElboGradients:
    """n replicates of an estimate after warm-up; the properties of its mean share them."""
    size = num_samples or trial.num_samples
    if (size, n) not in trial.drawn:
        with isolated(trial.seed + n + size):
            chunks = [_estimate(trial, lead, size) for lead in leads(trial, n)]
        trial.drawn[size, n] = ElboGradients(*(torch.cat(parts) for parts in zip(*chunks, strict=True)))
    return trial.drawn[size, n]


def _estimate(trial: Trial, lead: int, num_samples: int, kl_weight: KLWeight = 1.0) -> ElboGradients:
    problem = trial.family.problem((lead,), learned=True)
    target = replace(problem.target, kl_weight=kl_weight)
    return _means(evaluate(trial.warm, problem, num_samples, target))


def _means(outcome: Outcome) -> ElboGradients:
    return ElboGradients(outcome.estimate.value.detach(), outcome.eta_grad, outcome.theta_grad)


def _calls(trial: Trial, n: int, call: Callable[[], Tensor]) -> Tensor:
    """n separate calls, stacked."""
    if trial.deterministic:
        one = call()
        return one.expand(n, *one.shape)
    return torch.stack([call() for _ in range(n)])


def _squash(h: Tensor, over: int) -> Tensor:
    """tanh((h − median) / median absolute deviation), centred, over the first ``over`` dimensions."""
    flat = h.flatten(0, over - 1)
    deviation = flat - flat.median(0).values
    spread = deviation.abs().median(0).values
    spread = torch.where(spread > 0, spread, deviation.abs().mean(0))  # discrete draws may mostly agree
    # A spread that is rounding error stays small against the test's own floor.
    u = torch.tanh(deviation / (spread + 1e-3 * flat.abs().max()).clamp_min(_ROUNDING))
    return (u - u.mean(0)).reshape(h.shape)


def _require_mean(
    trial: Trial,
    draw: Callable[[int], Tensor],
    exact: Tensor,
    what: str,
    looks: Sequence[int],
    coordinates: Sequence[str] = (),
    screens: int | None = None,
) -> None:
    """The mean of draws (n, B, ...) is ``exact`` (B, ...), in each entry and along ``exact`` as a whole.

    The coordinates of a datum are called by their number, or as they are given here. All looks but the last
    two are always taken, or as many as are given.
    """

    def deviations(n: int) -> Tensor:
        draws = draw(n)
        assert draws.shape[1:] == exact.shape, (
            f"{what} has shape {tuple(draws.shape[1:])} after the replicates"
        )
        difference = (draws - exact).to(torch.float64).flatten(1)
        # One direction more: it adds up what a common factor does to every entry.
        along = difference @ (exact / exact.norm()).flatten()
        return torch.cat((difference, along.unsqueeze(1)), 1).expand(n, -1)

    floor = _ROUNDING * float(exact.square().mean().sqrt())
    found = search(trial, deviations, looks, floor, len(looks) - 2 if screens is None else screens)
    if found:
        raise AssertionError(
            f"biased: {what}, {_where(found.column, exact, coordinates)}: {_numbers(found, exact)}"
        )


def search(
    trial: Trial, draw: Callable[[int], Tensor], looks: Sequence[int], floor: float, screens: int = 1
) -> Deviation | None:
    """`find_deviation`; a test without a verdict is skipped, which is not passed.

    Raises:
        SkipTest: no verdict.
    """
    try:
        return find_deviation(draw, looks, screens, floor, trial.confirm_level)
    except Undecided as undecided:
        raise SkipTest(str(undecided)) from undecided


def _where(column: int, exact: Tensor, coordinates: Sequence[str]) -> str:
    if column == exact.numel():
        return "along the exact one"
    datum, coordinate = divmod(column, exact.numel() // len(exact))
    if coordinates:
        return f"datum {datum}, {coordinates[coordinate]}"
    return f"datum {datum}" if exact.dim() == 1 else f"datum {datum}, coordinate {coordinate}"


def _numbers(found: Deviation, exact: Tensor) -> str:
    truth = float(exact.norm() if found.column == exact.numel() else exact.flatten()[found.column])
    return f"{truth + found.mean:.4g} ± {found.stderr:.2g}, exactly {truth:.4g} ({found.num_draws} draws)"
