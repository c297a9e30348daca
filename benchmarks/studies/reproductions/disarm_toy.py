"""Dong et al. 2020, Yin et al. 2020: DisARM on a toy of 200 Bernoulli variables, and its closed forms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...statistics.moments import Moments
from .agreement import (
    Mean,
    Variance,
    cost_gradient,
    means_agree,
    measure,
    one_variance,
    points,
    total,
    variances_agree,
)
from .closed_forms import Setting, arm, disarm, leave_one_out, score_function
from .result import Claim, Curve, Panel, Reproduction

_SIZE, _TARGET = 200, 0.499
_GRID = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.98)
_QUICK_GRID = (0.05, 0.5, 0.9)
_EVEN = 0.5
#: Estimators of two evaluations, and their closed forms.
EXACT: dict[str, Callable[[Setting], float]] = {
    "score-function": lambda at: score_function(at, samples=2),
    "constant-baseline": lambda at: score_function(at, samples=2, baseline=at.value),
    "leave-one-out": leave_one_out,
    "arm": arm,
    "disarm": disarm,
}


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Measure every estimator at every p and hold mean and variance against the closed forms."""
    replicates = 2000 if quick else 40_000
    grid = _QUICK_GRID if quick else _GRID
    variances: dict[str, list[Moments]] = {name: [] for name in EXACT}
    means: list[Mean] = []
    for p in grid:
        at = Setting(p, _TARGET, _SIZE)
        for name in EXACT:
            found = measure(toy(at), _specification(name, at), replicates, seed, num_samples=2)
            variances[name].append(total(found, 1 / _SIZE))
            means.append(cost_gradient(found, at.gradient))
    agreeing = {
        name: [
            Variance(m, EXACT[name](Setting(p, _TARGET, _SIZE)))
            for p, m in zip(grid, variances[name], strict=True)
        ]
        for name in EXACT
    }
    return Reproduction(
        "disarm-toy",
        "Dong, Mnih & Tucker, DisARM, 2020; Yin, Ho & Zhou (U2G), 2020; toy of Titsias & Shi, 2022",
        f"f = mean (z − {_TARGET})², D = {_SIZE} Bernoulli variables that share p, two evaluations an "
        f"estimate, {replicates:,} estimates a point; variance a logit; constant-baseline: b = E f.",
        [
            variances_agree(
                "variances agree with their closed forms", [v for name in EXACT for v in agreeing[name]]
            ),
            means_agree("means agree with the exact gradient", means),
            *(
                one_variance(f"{name} at p = ½, variance a logit", agreeing[name][grid.index(_EVEN)])
                for name in EXACT
            ),
            *_orderings(),
        ],
        _panels(grid, variances),
        "The papers show variances along training, where every variable has a p of its own and "
        "minibatches add noise; here all is fixed, and the variance is that of one logit.",
    )


def toy(at: Setting) -> str:
    """The problem of the suite's catalogue, by its specification."""
    return f"binary-toy[latent_dim={at.size},target={at.t},probability={at.p}]"


def _specification(name: str, at: Setting) -> str:
    return f"{name}[value={-at.value!r}]" if name == "constant-baseline" else name


def _orderings() -> list[Claim]:
    """What the papers prove or find, by the closed forms that the measurements were held against."""
    grid = [Setting(p, _TARGET, _SIZE) for p in np.linspace(0.01, 0.99, 99).tolist()]
    below_arm = all(disarm(at) < arm(at) for at in grid)
    gains = [1 - disarm(at) / leave_one_out(at) for at in grid]
    gap = [arm(at) / disarm(at) for at in grid]
    even = Setting(_EVEN, _TARGET, _SIZE)
    share = score_function(even, 2, even.value) / leave_one_out(even)
    return [
        Claim(
            "disarm below arm, whose conditional mean it is",
            f"arm {min(gap):.3g} to {max(gap):.3g} times as large, p = 0.01 to 0.99",
            "for every p",
            below_arm,
        ),
        Claim(
            "disarm below leave-one-out at two evaluations",
            f"by {100 * min(gains):.2g}% to {100 * max(gains):.2g}%",
            "for every p",
            min(gains) > 0,
        ),
        Claim(
            "leave-one-out pays twice for a mean of one sample: the exact mean halves its variance at p = ½",
            f"{share:.4f} of it",
            "½ to 1/D",
            abs(share - 0.5) <= 1 / _SIZE,
        ),
    ]


def _panels(grid: tuple[float, ...], variances: dict[str, list[Moments]]) -> list[Panel]:
    line = np.linspace(0.01, 0.99, 99).tolist()
    exact = {name: [EXACT[name](Setting(p, _TARGET, _SIZE)) for p in line] for name in EXACT}
    scale = [leave_one_out(Setting(p, _TARGET, _SIZE)) for p in grid]
    absolute, relative = [], []
    for name, measured in variances.items():
        absolute += [Curve(name, line, exact[name], exact=True), points(name, grid, measured)]
        if name == "score-function":
            continue
        ratios = [e / base for e, base in zip(exact[name], exact["leave-one-out"], strict=True)]
        relative += [Curve(name, line, ratios, exact=True), points(name, grid, measured, scale)]
    return [
        Panel("variance a logit", "p", "variance", absolute, log_x=False),
        Panel("over that of leave-one-out", "p", "ratio", relative, log_x=False),
    ]
