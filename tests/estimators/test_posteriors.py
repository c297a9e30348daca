"""Every built-in estimator under every posterior: it works, or says in one line why it cannot."""

import mpmath
import posterior_table
import pytest
import torch
from elbograd.benchmarks.oracles.objectives import exact_gradients
from elbograd.benchmarks.problems import load_problem
from elbograd.estimators import catalogue, create
from elbograd.estimators.posteriors.distributions import cut, has_grad
from elbograd.estimators.posteriors.von_mises import concentration_derivative
from scipy.stats import vonmises

POSTERIORS = ("gaussian", "full-gaussian", "flow", "beta", "von-mises", "bernoulli", "categorical")
NEW = ("flow", "beta", "von-mises")


def place(posterior):
    problem = load_problem(f"small-vae[posterior={posterior}]")
    problem.encoder.double(), problem.decoder.double()
    x = problem.data["train"][:2].double()
    return problem, x, problem.encoder(x).detach()


@pytest.mark.parametrize("posterior", NEW)
def test_the_mean_is_the_gradient_by_quadrature(posterior):
    """16 coordinates at most, each within 5 standard errors: a false alarm in 10⁵."""
    problem, x, eta = place(posterior)
    exact = exact_gradients(problem.posterior, eta, problem.target, x, list(problem.decoder.parameters()))
    assert not isinstance(exact, str), exact
    torch.manual_seed(1)
    for name in ("reparameterization[kl=sampled]", "sticking-the-landing"):
        leaf = eta.expand(8000, *eta.shape).clone().requires_grad_()
        surrogate = create(name)(problem.posterior(leaf), problem.target(x), 1).surrogate
        (draws,) = torch.autograd.grad(surrogate.sum(), leaf)
        assert ((draws.mean(0) - exact.eta_grad).abs() < 5 * draws.std(0) / 8000**0.5).all(), name


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_a_cut_posterior_is_the_same_without_phi(posterior):
    problem, _, eta = place(posterior)
    q = problem.posterior(eta.requires_grad_())
    z = q.sample((3,))
    copied = cut(q)
    assert has_grad(q)
    assert not has_grad(copied)
    torch.testing.assert_close(copied.log_prob(z), q.log_prob(z))
    assert q.log_prob(z).requires_grad


@pytest.mark.parametrize("kappa", [0.01, 0.3, 2.0, 40.0, 1000.0, 10_000.0])
@pytest.mark.parametrize("deviations", [0.1, 1.0, 3.0, 5.0])
def test_the_von_mises_derivative_is_its_integral(kappa, deviations):
    """−(∂F/∂κ)/q = −∫_{−π}^{y} (cos t − A) exp(κ (cos t − cos y)) dt at y = −|angle|, in 30 digits."""
    mpmath.mp.dps = 30
    y = -min(deviations / max(kappa, 4.0) ** 0.5, 3.0)
    mean = mpmath.besseli(1, kappa) / mpmath.besseli(0, kappa)
    start = max(-mpmath.pi, y - 40 / mpmath.mpf(kappa) ** 0.5)
    exact = -mpmath.quad(
        lambda t: (mpmath.cos(t) - mean) * mpmath.exp(kappa * (mpmath.cos(t) - mpmath.cos(y))),
        mpmath.linspace(start, y, 9),
    )
    found = concentration_derivative(torch.tensor(y).double(), torch.tensor(kappa)).item()
    assert found == pytest.approx(float(exact), rel=1e-7)


@pytest.mark.parametrize("kappa", [0.3, 2.0, 40.0])
def test_the_von_mises_derivative_holds_the_distribution_function(kappa):
    for y in (-0.4 / kappa**0.5, 0.0, 1.3 / kappa**0.5):
        h = 1e-4 * kappa
        below, above = (vonmises.cdf(y, k) for k in (kappa - h, kappa + h))
        expected = -(above - below) / (2 * h) / vonmises.pdf(y, kappa)
        found = concentration_derivative(torch.tensor(y).double(), torch.tensor(kappa)).item()
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_each_estimator_works_or_says_why_not(posterior):
    problem, x, eta = place(posterior)
    for name in catalogue():
        estimator = create(name)
        q, target = problem.posterior(eta.requires_grad_()), problem.target(x)
        count = max(2, estimator.min_samples)
        reason = estimator.supports(q, target, count)
        if reason is not None:
            assert reason, name
            assert "\n" not in reason, name
            continue
        estimator.init(q, target)
        (gradient,) = torch.autograd.grad(estimator.double()(q, target, count).surrogate.sum(), eta)
        assert gradient.isfinite().all(), name


def test_the_table_of_the_docs_is_what_supports_says():
    shown = posterior_table.PAGE.read_text(encoding="utf-8")
    assert posterior_table.page_with_tables(shown) == shown
