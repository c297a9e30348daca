"""Closed forms and quadratures derived by hand, in NumPy float64: none of elbograd's code is used."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

Array = np.ndarray

# f(z) = (z - k)^2, z ~ N(mu, s^2), d = mu - k: variance of the one-sample gradient in (mu, sigma).
# score: f times (z - mu)/s^2 and ((z - mu)^2/s^2 - 1)/s; baselines leave the mean and change E[h^2].
QUADRATIC: dict[str, Callable[[float, float], tuple[float, float]]] = {
    "score-function": lambda d, s: (
        d**4 / s**2 + 14 * d**2 + 15 * s**2,
        2 * d**4 / s**2 + 60 * d**2 + 74 * s**2,
    ),
    "constant-baseline": lambda d, s: (8 * d**2 + 10 * s**2, 40 * d**2 + 56 * s**2),
    "optimal-baseline": lambda d, s: (8 * d**2 + 6 * s**2, 40 * d**2 + 24 * s**2),
    "reparameterization": lambda d, s: (4 * s**2, 4 * d**2 + 8 * s**2),
}


def hermite(dimension: int, nodes: int) -> tuple[Array, Array]:
    """Points (nodes^D, D) and weights of N(0, I); exact for polynomials of degree 2·nodes − 1."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    points = np.array(list(itertools.product(x, repeat=dimension)))
    weights = np.array([np.prod(c) for c in itertools.product(w / w.sum(), repeat=dimension)])
    return points, weights


def expectation(h: Callable[[Array], Array], dimension: int, nodes: int) -> tuple[Array, Array]:
    """Mean (P,) and covariance (P, P) of h(eps), eps ~ N(0, I_D), h: (N, D) -> (N, P)."""
    points, weights = hermite(dimension, nodes)
    values = h(points)
    mean = weights @ values
    return mean, (values * weights[:, None]).T @ values - np.outer(mean, mean)


def score_function_eta(
    f: Callable[[Array], Array], mu: Array, sigma: Array, baseline: float = 0.0
) -> Callable[[Array], Array]:
    """h(eps) of the one-sample score function in eta = (mu, log sigma): f·(eps/sigma, eps² − 1)."""

    def h(eps: Array) -> Array:
        cost = (f(mu + sigma * eps) - baseline)[:, None]
        return np.concatenate([cost * eps / sigma, cost * (eps**2 - 1)], axis=1)

    return h


def reparameterization_eta(
    gradient: Callable[[Array], Array], mu: Array, sigma: Array
) -> Callable[[Array], Array]:
    """h(eps) of the one-sample pathwise gradient in eta = (mu, log sigma): ∇f·(1, sigma·eps)."""

    def h(eps: Array) -> Array:
        g = gradient(mu + sigma * eps)
        return np.concatenate([g, g * sigma * eps], axis=1)

    return h


def leave_one_out_eta(f: Callable[[Array], Array], mu: Array, sigma: Array) -> Callable[[Array], Array]:
    """h(eps) of leave-one-out with S = 2, eps (N, 2D): ½ (f1 − f2)(score1 − score2)."""

    def h(eps: Array) -> Array:
        first, second = np.split(eps, 2, axis=1)
        difference = (f(mu + sigma * first) - f(mu + sigma * second))[:, None]
        score = np.concatenate([(first - second) / sigma, first**2 - second**2], axis=1)
        return 0.5 * difference * score

    return h


def kl_gradient_eta(mu: Array, sigma: Array) -> Array:
    """∇ of KL(N(mu, sigma²) ‖ N(0, I)) in (mu, log sigma): (mu, sigma² − 1)."""
    return np.concatenate([mu, sigma**2 - 1])


def quadratic_reparameterization_covariance(a: Array, g: Array, sigma: Array) -> Array:
    """Cov(h) of the pathwise gradient in (mu, log sigma) for f = c + gᵀ(z − mu) − ½ (z − mu)ᵀ A (z − mu).

    With Ã = σAσ and g̃ = σg: Cov_mu = Aσ²A, Cov_{mu,rho} = −A σ diag(g̃), Cov_rho = Ã∘Ã + diag(g̃² + (ÃÃ)_jj),
    by Isserlis' theorem.
    """
    at, gt = sigma[:, None] * a * sigma, sigma * g
    mu_mu = a @ np.diag(sigma**2) @ a
    mu_rho = -a @ np.diag(sigma * gt)
    rho_rho = at * at + np.diag(gt**2 + np.diag(at @ at))
    return np.block([[mu_mu, mu_rho], [mu_rho.T, rho_rho]])


def hall_interval_by_inversion(mean: float, stderr: float, g: float, z: float) -> tuple[float, float]:
    """Solve H(t) = ±z for H = t + g t²/3 + g² t³/27 + g/6 by bisection; ends mean − stderr·t."""

    def transform(t: float) -> float:
        return t + g * t**2 / 3 + g**2 * t**3 / 27 + g / 6

    ends = []
    for target in (z, -z):
        low, high = -1e4, 1e4
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if transform(middle) < target else (low, middle)
        ends.append(mean - stderr * (low + high) / 2)
    return ends[0], ends[1]


def enumerate_bernoulli(dimension: int) -> Array:
    """All 2^D outcomes, (2^D, D)."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=dimension)))


# The measure-valued gradient in (mu, sigma) of the same cost. In mu, coupled: 4 d W/√(2π), and Var W = 2 − π/2;
# uncoupled: two independent (d ± s W)², and Var W² = 4. In sigma, coupled by N = M U:
# 2 d M (1 − U) + s M² (1 − U²), with E M² = 3, E M⁴ = 15; uncoupled: (d + s M)² and (d + s N)² apart.
MEASURE_VALUED_QUADRATIC: dict[bool, Callable[[float, float], tuple[float, float]]] = {
    True: lambda d, s: ((16 / np.pi - 4) * d**2, 4 * d**2 + 4 * s**2),
    False: lambda d, s: ((8 / np.pi - 2) * d**2 + 4 * s**2 / np.pi, 16 * d**2 + 8 * s**2),
}


def legendre(low: float, high: float, nodes: int) -> tuple[Array, Array]:
    """Gauss-Legendre points and weights on (low, high)."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return low + (high - low) * (x + 1) / 2, w * (high - low) / 2


def measure_valued_moments(
    f: Callable[[Array], Array], mu: float, sigma: float, coupled: bool
) -> tuple[Array, Array]:
    """Mean and second moment, each (2,), of the one-sample measure-valued gradient in (mu, sigma), D = 1.

    By Gauss-Legendre quadrature of the densities: w e^{−w²/2}, m² e^{−m²/2}/√(2π), e^{−n²/2}/√(2π), and
    with coupling n = m u, u uniform.
    """
    w, weight = legendre(0, 12, 200)
    m, mass = legendre(-12, 12, 400)
    bell = mass * np.exp(-(m**2) / 2) / np.sqrt(2 * np.pi)
    rayleigh, maxwell = weight * w * np.exp(-(w**2) / 2), bell * m**2

    def apart(above: Array, p: Array, below: Array, q: Array) -> tuple[float, float]:
        a, b = p @ above, q @ below
        return a - b, p @ above**2 - 2 * a * b + q @ below**2

    def together(difference: Array, p: Array) -> tuple[float, float]:
        return p @ difference, p @ difference**2

    up, down, wide = f(mu + sigma * w), f(mu - sigma * w), f(mu + sigma * m)
    if coupled:
        u, length = legendre(0, 1, 100)
        joint = (maxwell[:, None] * length).ravel()
        gap = (wide[:, None] - f(mu + sigma * m[:, None] * u)).ravel()
        of_mu, of_sigma = together(up - down, rayleigh), together(gap, joint)
    else:
        of_mu, of_sigma = apart(up, rayleigh, down, rayleigh), apart(wide, maxwell, wide, bell)
    constants = np.array([1 / (sigma * np.sqrt(2 * np.pi)), 1 / sigma])
    first, second = np.array([of_mu, of_sigma]).T
    return first * constants, second * constants**2


def normal_log_density(z: Array, mean: Array | complex, scale: Array | complex) -> Array:
    """log N(z; mean, scale²); analytic in mean and scale, so that complex steps go through."""
    return -0.5 * ((z - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


def iwae_bound_of_two(
    log_joint: Callable[[Array], Array], mu: complex, sigma: complex, nodes: int
) -> complex:
    """L_2 = E log ½ (w_1 + w_2) for q = N(mu, sigma²) in one dimension, by tensor Gauss-Hermite quadrature."""
    points, weights = hermite(2, nodes)
    z = mu + sigma * points
    w = np.exp(log_joint(z) - normal_log_density(z, mu, sigma))
    return complex(weights @ np.log(w.mean(1)))


def complex_step(function: Callable[[complex], complex], at: float) -> float:
    """The derivative of an analytic function that is real on the real line, to rounding."""
    return function(at + 1e-30j).imag / 1e-30
