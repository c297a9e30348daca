"""Kingma, Salimans & Welling 2015: draws shared by a minibatch leave a covariance that B does not remove."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ....estimators.plugins.registry import create
from ...gradients import seeded
from ...oracles import weight_variances
from ...problems.as_trained import eta_of
from ...problems.bayesian_linear_regression import BayesianLinearRegression
from ...problems.bayesian_mlp import BayesianMLP
from ...problems.placement import place
from ...problems.protocol import Problem
from ...seeds import hashed
from ...variance.chunks import split
from ...variance.one_by_one import Subject
from ...variance.through_shared_eta import ThroughSharedEta
from .result import Claim, Curve, Panel, Reproduction

_SHARED, _FLIPOUT, _LOCAL = "reparameterization", "flipout", "local-reparameterization"
_EXACT = {
    _SHARED: weight_variances.shared_draws,
    _FLIPOUT: weight_variances.flipout,
    _LOCAL: weight_variances.local_reparameterization,
}
_SIZES = (1, 4, 16, 64, 256)
_WIDTHS = (8, 16, 32, 64, 128)
_WIDTH_BATCH = 64
_LARGE = 16  # enough data for their covariance to show
_LEVEL = 4.5  # standard errors: 7e-6 each

Measured = tuple[float, float]  # a variance and its standard error


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Variance against the batch size and against the width, and three closed forms."""
    replicates = 256 if quick else 2048
    widths = _WIDTHS[::2] if quick else _WIDTHS
    sizes = _SIZES[1:] if quick else _SIZES
    problem = BayesianMLP(hidden=32)
    data = problem.data["train"][: _SIZES[-1]]
    by_size = {
        name: [_average_variance(problem, name, data, size, replicates, seed) for size in sizes]
        for name in _EXACT
    }
    by_width = {name: [_at_width(name, width, replicates // 4, seed) for width in widths] for name in _EXACT}
    regression = {
        name: [_of_regression(name, size, 8 * replicates, seed) for size in _SIZES[:4]] for name in _EXACT
    }
    return Reproduction(
        "local-reparameterization",
        "Kingma, Salimans & Welling, Variational Dropout and the Local Reparameterization Trick, 2015",
        f"MLP 64-32-10 on the digits, σ = 0.05, S = 1: variance averaged over the batches that {_SIZES[-1]} "
        f"images make, {replicates:,} estimates or more for each B; linear regression of 3 weights.",
        [
            _agreement(regression),
            _one_over_b(by_size[_LOCAL], sizes),
            _covariance_stays(by_size[_SHARED], sizes),
            _flipout_between(by_size),
            _below_at_every_width(by_width),
        ],
        [
            Panel("MLP, against B", "B", "variance", _curves(by_size, sizes)),
            Panel(
                f"MLP, B = {_WIDTH_BATCH}",
                "hidden units",
                "variance",
                _curves(by_width, widths),
            ),
            Panel(
                "linear regression",
                "B",
                "variance",
                [
                    *_curves({name: [m for m, _ in each] for name, each in regression.items()}, _SIZES[:4]),
                    *(
                        Curve(name, list(map(float, _SIZES[:4])), [e for _, e in each], exact=True)
                        for name, each in regression.items()
                    ),
                ],
            ),
        ],
        "The paper's Table 1 is of a 3 × 1000 network on MNIST before and after training, by the top and the "
        "bottom layer; ours is small enough for a laptop. Its statement is about the data of a batch: where "
        "they are fixed, the law for independent draws is exact.",
    )


def _average_variance(
    problem: Problem, name: str, data: Tensor, size: int, replicates: int, seed: int
) -> Measured:
    """tr Cov(ĝ) averaged over the batches of ``size`` that data make, and its standard error."""
    batches = data.split(size)
    each = max(4, replicates // len(batches))
    totals, errors = [], []
    with seeded(hashed(seed, f"{name} {size}"), data.device):
        for x in batches:
            total, error = _variance(_gradients(problem, name, x, each))
            totals.append(total)
            errors.append(error**2)
    return sum(totals) / len(totals), sum(errors) ** 0.5 / len(totals)


def _gradients(problem: Problem, name: str, x: Tensor, replicates: int) -> Tensor:
    """Independent estimates ĝ (R, |φ|) at S = 1."""
    way = ThroughSharedEta(Subject(problem, create(name), x, 1), eta_of(problem, x), len(x))
    return torch.cat([way(size) for size in split(replicates, way.size)])


def _variance(h: Tensor) -> Measured:
    """The total variance of estimates (R, P)."""
    squares = (h - h.mean(0)).square().sum(-1) * (len(h) / (len(h) - 1))
    return float(squares.mean()), float(squares.std() / len(h) ** 0.5)


def _at_width(name: str, width: int, replicates: int, seed: int) -> Measured:
    problem = BayesianMLP(hidden=width)
    return _average_variance(
        problem,
        name,
        problem.data["train"][:_WIDTH_BATCH],
        _WIDTH_BATCH,
        replicates,
        hashed(seed, f"{width}"),
    )


def _of_regression(name: str, size: int, replicates: int, seed: int) -> tuple[Measured, float]:
    """Measured, and by the closed form."""
    problem = place(BayesianLinearRegression(), dtype=torch.float64)
    assert isinstance(problem, BayesianLinearRegression)
    x = problem.data["train"][:size].double()
    loc, log_scale = problem.encoder(x)[0].detach().chunk(2)
    at = weight_variances.Regression(
        x[:, :-1], x[:, -1], loc, log_scale.exp(), problem.noise, problem.data_size
    )
    with seeded(hashed(seed, f"regression {name} {size}"), x.device):
        measured = _variance(_gradients(problem, name, x, replicates))
    return measured, float(_EXACT[name](at).sum())


def _agreement(regression: dict[str, list[tuple[Measured, float]]]) -> Claim:
    distances = [abs(value - exact) / error for each in regression.values() for (value, error), exact in each]
    return Claim(
        "linear regression: measured variances agree with their closed forms",
        f"{sum(d < _LEVEL for d in distances)} of {len(distances)}, the worst {max(distances):.1f} standard "
        "errors off",
        f"all, within {_LEVEL} standard errors",
        max(distances) < _LEVEL,
    )


def _one_over_b(local: list[Measured], sizes: Sequence[int]) -> Claim:
    """B V is constant, since the data of a batch are independent."""
    scaled = [(size * value, size * error) for size, (value, error) in zip(sizes, local, strict=True)]
    weights = [error**-2 for _, error in scaled]
    mean = sum(w * v for w, (v, _) in zip(weights, scaled, strict=True)) / sum(weights)
    worst = max(abs(value - mean) / error for value, error in scaled)
    ratios = ", ".join(f"{value / scaled[0][0]:.3f}" for value, _ in scaled[1:])
    return Claim(
        "local reparameterization: the variance falls like 1/B",
        f"B times it, of that at B = {sizes[0]}: {ratios}",
        f"1, within {_LEVEL} standard errors",
        worst < _LEVEL,
    )


def _covariance_stays(shared: list[Measured], sizes: Sequence[int]) -> Claim:
    """B V = v + c (B − 1), v the variance and c the covariance of the data: c by two values of B."""
    first, *_ = scaled = [(size, size * value) for size, (value, _) in zip(sizes, shared, strict=True)]
    later = [(size, total) for size, total in scaled if size >= _LARGE]
    covariances = [(total - first[1]) / (size - first[0]) for size, total in later]
    share = covariances[-1] * (1 - 1 / _SIZES[-1]) / shared[-1][0]
    spread = max(covariances) / min(covariances)
    return Claim(
        "shared draws: a covariance of the data is left, the same for every B, and most of the variance",
        f"{', '.join(f'{c:.3g}' for c in covariances)} at B = {', '.join(str(size) for size, _ in later)}; "
        f"{100 * share:.0f}% of the variance at the last",
        "the same within a third; above 80%",
        min(covariances) > 0 and spread < 4 / 3 and share > 0.8,
    )


def _flipout_between(by_size: dict[str, list[Measured]]) -> Claim:
    last = {name: each[-1] for name, each in by_size.items()}
    return Claim(
        f"B = {_SIZES[-1]}: local below Flipout below shared draws",
        " < ".join(f"{last[name][0]:.4g}" for name in (_LOCAL, _FLIPOUT, _SHARED)),
        "intervals apart",
        _apart(last[_LOCAL], last[_FLIPOUT]) and _apart(last[_FLIPOUT], last[_SHARED]),
    )


def _below_at_every_width(by_width: dict[str, list[Measured]]) -> Claim:
    pairs = list(zip(by_width[_LOCAL], by_width[_SHARED], strict=True))
    return Claim(
        f"B = {_WIDTH_BATCH}: local reparameterization below shared draws at every width",
        f"{', '.join(f'{high[0] / low[0]:.1f}' for low, high in pairs)} times less",
        "intervals apart",
        all(_apart(low, high) for low, high in pairs),
    )


def _apart(low: Measured, high: Measured) -> bool:
    return low[0] + 1.96 * low[1] < high[0] - 1.96 * high[1]


def _curves(measured: dict[str, list[Measured]], at: Sequence[int]) -> list[Curve]:
    return [
        Curve(
            name,
            [float(x) for x in at],
            [value for value, _ in each],
            [value - 1.96 * error for value, error in each],
            [value + 1.96 * error for value, error in each],
        )
        for name, each in measured.items()
    ]
