"""Richter et al. 2020: the gradient of the log-variance loss is the leave-one-out score function."""

from __future__ import annotations

import torch
from torch import Tensor

from ....estimators.plugins.registry import create
from ...gradients import eta_gradients, seeded
from ...problems.placement import first_batch, place
from ...problems.registry import load_problem
from ...variance.measure import measure_variance
from ...variance.result import VarianceResult
from .result import Claim, Curve, Panel, Reproduction

_PROBLEMS = {"Gaussian latents": "vae", "Bernoulli latents": "bernoulli-vae"}
_PAIR = ("vargrad", "leave-one-out[kl=sampled]")
_OTHERS = ("score-function[kl=sampled]",)
_SAMPLES = (2, 4, 8, 16)
_ROUNDING = 1e-9


def reproduce(quick: bool = False, seed: int = 0) -> Reproduction:
    """Compare gradients draw by draw under one seed, and variances over S."""
    replicates = 200 if quick else 4000
    sizes = _SAMPLES[::3] if quick else _SAMPLES
    claims, panels = [], []
    for name, problem in _PROBLEMS.items():
        differences = [_difference(problem, s, seed) for s in sizes]
        claims.append(
            Claim(
                f"{name}: the same gradient for every draw",
                f"largest relative difference {max(differences):.1g}, S = {', '.join(map(str, sizes))}",
                f"rounding ({_ROUNDING:g})",
                max(differences) <= _ROUNDING,
            )
        )
        found = {
            e: [
                (s, measure_variance(problem, e, num_samples=s, replicates=replicates, seed=seed))
                for s in sizes
            ]
            for e in (*_PAIR, *_OTHERS)
        }
        gain = [
            f"{found[_OTHERS[0]][i][1].total / found[_PAIR[0]][i][1].total:,.0f}" for i in range(len(sizes))
        ]
        below = all(
            low.ci_high < high.ci_low
            for (_, low), (_, high) in zip(found[_PAIR[0]], found[_OTHERS[0]], strict=True)
        )
        claims.append(
            Claim(
                f"{name}: far less variance than the score function",
                f"{', '.join(gain)} times less",
                "intervals apart",
                below,
            )
        )
        panels.append(Panel(name, "samples S", "variance", [_curve(e, found[e]) for e in found]))
    return Reproduction(
        "vargrad",
        "Richter et al., VarGrad: A Low-Variance Gradient Estimator for Variational Inference, 2020, "
        "section 3",
        f"The shared VAE at initialization, B = 64; gradients compared in float64; {replicates:,} "
        f"estimates a point.",
        claims,
        panels,
        "The identity is the paper's for the unbiased (S − 1) normalization of the empirical variance.",
    )


def _difference(problem_name: str, num_samples: int, seed: int) -> float:
    """Largest difference of the two gradients in η-space over the largest entry, 16 draws of 64 data."""
    problem = place(load_problem(problem_name), dtype=torch.float64)
    x = first_batch(problem, 64, seed)
    with torch.no_grad():
        eta = problem.encoder(x)
    gradients: list[Tensor] = []
    for name in _PAIR:
        with seeded(seed, x.device):
            gradients.append(eta_gradients(problem, create(name), problem.target(x), eta, 16, num_samples))
    one, two = gradients
    return float((one - two).abs().max() / one.abs().max())


def _curve(name: str, measured: list[tuple[int, VarianceResult]]) -> Curve:
    return Curve(
        name,
        [float(s) for s, _ in measured],
        [v.total for _, v in measured],
        [v.ci_low for _, v in measured],
        [v.ci_high for _, v in measured],
    )
