"""The variance that a cell measures, by quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from .cells import Cell
from .problems import FUNCTIONS, Array, linear_gaussian

_NODES = 150


def true_variance(cell: Cell) -> float:
    """The tr Cov(ĝ) of one sample that the cell measures, by quadrature over the draw ε."""
    if cell.problem in FUNCTIONS:
        f, slope = FUNCTIONS[cell.problem]
        h = _gradients(lambda z: f(z[:, 0]), lambda z: slope(z), np.ones(1), np.ones(1), cell.baseline)
        return _trace(h, 1, _NODES)  # φ = (μ, σ) = (1, 1), where ∂σ and ∂log σ are the same
    _, x = linear_gaussian()
    # The encoder is linear: J Jᵀ = (‖x‖² + 1) I.
    total = sum(
        float(np.trace(c)) * (float(datum @ datum) + 1)
        for c, datum in zip(covariances(cell.baseline), _numpy(x), strict=True)
    )
    return total / len(x) ** 2


def covariances(baseline: float | None) -> list[Array]:
    """Cov(h_i) (2D, 2D) of each datum of the linear-Gaussian VAE, in (μ, log σ)."""
    problem, x = linear_gaussian()
    weight, bias = _numpy(problem.decoder.weight), _numpy(problem.decoder.bias)
    found = []
    for datum, eta in zip(_numpy(x), _numpy(problem.encoder(x)), strict=True):
        mu, log_sigma = np.split(eta, 2)

        def slope_of(z: Array, rest: Array = datum - bias) -> Array:
            return np.asarray((rest - z @ weight.T) @ weight)

        def log_likelihood(z: Array, rest: Array = datum - bias) -> Array:
            constant = 0.5 * len(rest) * math.log(2 * math.pi)
            return np.asarray(-0.5 * ((rest - z @ weight.T) ** 2).sum(-1) - constant)

        h = _gradients(log_likelihood, slope_of, mu, np.exp(log_sigma), baseline)
        found.append(_covariance(h, len(mu), 6))  # the integrand is a polynomial of degree 8
    return found


def theta_variance() -> float:
    """Tr Cov of the one-sample, batch-mean gradient of log p(x|z) in the decoder's weight and bias."""
    problem, x = linear_gaussian()
    weight, bias = _numpy(problem.decoder.weight), _numpy(problem.decoder.bias)
    total = 0.0
    for datum, eta in zip(_numpy(x), _numpy(problem.encoder(x)), strict=True):
        mu, log_sigma = np.split(eta, 2)

        def gradient(eps: Array, mu: Array = mu, log_sigma: Array = log_sigma, x: Array = datum) -> Array:
            z = mu + np.exp(log_sigma) * eps
            rest = x - bias - z @ weight.T
            both = np.concatenate([z, np.ones((len(z), 1))], 1)
            return np.asarray((rest[:, :, None] * both[:, None, :]).reshape(len(z), -1))

        total += float(np.trace(_covariance(gradient, len(mu), 6)))
    return total / len(x) ** 2


def _gradients(
    f: Callable[[Array], Array],
    slope: Callable[[Array], Array],
    mu: Array,
    sigma: Array,
    baseline: float | None,
) -> Callable[[Array], Array]:
    """h(ε) in (μ, log σ), (N, D) -> (N, 2D), of one sample; the KL is closed form and adds a constant."""

    def h(eps: Array) -> Array:
        z = mu + sigma * eps
        if baseline is None:
            return np.concatenate([slope(z), slope(z) * sigma * eps], 1)
        return (f(z) - baseline)[:, None] * np.concatenate([eps / sigma, eps**2 - 1], 1)

    return h


def _trace(h: Callable[[Array], Array], dimension: int, nodes: int) -> float:
    return float(np.trace(_covariance(h, dimension, nodes)))


def _covariance(h: Callable[[Array], Array], dimension: int, nodes: int) -> Array:
    """Cov h(ε), ε ~ N(0, I), by Gauss-Hermite quadrature; exact for polynomials h of degree < nodes."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    points = np.stack(np.meshgrid(*[x] * dimension), -1).reshape(-1, dimension)
    weights = np.stack(np.meshgrid(*[w / w.sum()] * dimension), -1).reshape(-1, dimension).prod(-1)
    values = h(points)
    centred = values - weights @ values
    return np.asarray(centred.T @ (weights[:, None] * centred))


def _numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()
