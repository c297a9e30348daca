"""Mohamed et al. 2020, section 8.3: the three estimators on Bayesian logistic regression."""

from __future__ import annotations

import torch
from torch import Tensor

from ...oracles.objectives import exact_objective
from ...oracles.references import Reference, reference_gradient
from ...problems.logistic_regression import LogisticRegression
from ...problems.placement import place
from ...variance.measure import measure_variance
from ...variance.result import VarianceResult
from .result import Claim, Curve, Panel, Reproduction

_ESTIMATORS = ("score-function", "leave-one-out", "measure-valued", "reparameterization")
_SAMPLES = (1, 4, 16, 64)
_STEPS = (0, 20, 100, 400)
_RATE = 0.03
_EXCESS = 5.0  # chance of a false alarm about 1e-4: the sum of squares is skewed


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Variance against S at the start, and along an exact ascent of the ELBO."""
    replicates = 300 if quick else 4000
    steps = _STEPS[::3] if quick else _STEPS
    problem = place(LogisticRegression(), dtype=torch.float64)
    assert isinstance(problem, LogisticRegression)
    x = torch.zeros(1, 1, dtype=torch.float64)
    sizes = _SAMPLES[1::2] if quick else _SAMPLES

    def measure(name: str, num_samples: int) -> VarianceResult:
        count = replicates if name != "measure-valued" else max(200, replicates // 8)
        return measure_variance(problem, name, x, num_samples=num_samples, replicates=count, seed=seed)

    by_samples = {
        name: [(s, measure(name, s)) for s in sizes if not (name == "leave-one-out" and s < 2)]
        for name in _ESTIMATORS
    }
    along: dict[str, list[tuple[int, VarianceResult]]] = {name: [] for name in _ESTIMATORS}
    elbo, accuracy, done = 0.0, 0.0, 0
    for step in steps:
        elbo, accuracy = _ascend(problem, x, step - done)
        done = step
        for name in _ESTIMATORS:
            along[name].append((step, measure(name, 4)))
    claims = [
        *(_unbiased(problem, x, name, measure(name, 4)) for name in _ESTIMATORS),
        _order(along),
        Claim(
            "the posterior classifies well",
            f"ELBO {elbo:.1f} nats, accuracy {100 * accuracy:.1f}% after {done} exact steps",
            "accuracy above 95%",
            accuracy > 0.95,
        ),
    ]
    return Reproduction(
        "logistic-regression",
        "Mohamed et al., Monte Carlo Gradient Estimation in Machine Learning, 2020, section 8.3",
        "Wisconsin breast cancer data (569 × 30 and a constant), prior N(0, I), whole data set; left: "
        "variance at "
        "the start; right: S = 4 along exact steps of Adam.",
        claims,
        [
            Panel("at the start", "samples S", "variance", [_curve(n, by_samples[n]) for n in _ESTIMATORS]),
            Panel(
                "along training, S = 4",
                "step",
                "",
                [_curve(n, along[n]) for n in _ESTIMATORS],
                log_x=False,
            ),
        ],
        "The paper trains with minibatches and shows curves of the ELBO and of the variance in training; "
        "here the "
        "gradient is of the whole data set and the path that of exact gradients, the same for all "
        "estimators. A "
        "sample of measure-valued costs 94 evaluations in 31 dimensions.",
    )


def _ascend(problem: LogisticRegression, x: Tensor, steps: int) -> tuple[float, float]:
    """Steps of Adam on the exact ELBO; its value and the accuracy afterwards."""
    parameters = list(problem.encoder.parameters())
    optimizer = torch.optim.Adam(parameters, lr=_RATE, maximize=True)
    for _ in range(steps):
        optimizer.zero_grad()
        _elbo(problem, x).sum().backward()
        optimizer.step()
    with torch.no_grad():
        return float(_elbo(problem, x).sum()), problem.accuracy(problem.encoder(x))


def _elbo(problem: LogisticRegression, x: Tensor) -> Tensor:
    value = exact_objective(problem.posterior(problem.encoder(x)), problem.target(x))
    assert isinstance(value, Tensor)
    return value


def _unbiased(problem: LogisticRegression, x: Tensor, name: str, result: VarianceResult) -> Claim:
    """The mean against the exact gradient: ‖difference‖² beside what noise explains of it."""
    reference = reference_gradient(problem, x)
    assert isinstance(reference, Reference) and reference.kind == "closed-form"
    assert result.eta_mean is not None and result.eta_covariance is not None
    noise = result.eta_covariance[0] / result.replicates
    squared = float((result.eta_mean - reference.eta_mean).square().sum())
    excess = (squared - float(noise.trace())) / (2 * float(noise.square().sum())) ** 0.5
    return Claim(
        f"{name} has the exact gradient's mean",
        f"‖mean − exact‖ {(squared / float(noise.trace())) ** 0.5:.2f} times its noise",
        f"1, squared within {_EXCESS:g} of its standard deviations",
        abs(excess) <= _EXCESS,
    )


def _order(along: dict[str, list[tuple[int, VarianceResult]]]) -> Claim:
    """Pathwise and measure-valued below the score function at every step, with intervals apart."""
    apart, ratios = True, []
    for position, (_, score) in enumerate(along["score-function"]):
        for name in ("reparameterization", "measure-valued"):
            other = along[name][position][1]
            apart &= other.ci_high < score.ci_low
            ratios.append(score.total / other.total)
    return Claim(
        "pathwise and measure-valued are far below the score function, all along training",
        f"score function {min(ratios):,.0f} to {max(ratios):,.0f} times as large",
        "intervals apart at every step",
        apart,
    )


def _curve(name: str, measured: list[tuple[int, VarianceResult]]) -> Curve:
    return Curve(
        name,
        [float(at) for at, _ in measured],
        [v.total for _, v in measured],
        [v.ci_low for _, v in measured],
        [v.ci_high for _, v in measured],
    )
