"""muprop, double-control-variate and rodeo: exact means, variances and identities, all draws enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from discrete_draws import EveryDraw, bernoulli, exact_gradient, family
from elbograd.estimators import Estimate, Target, create
from elbograd.estimators.errors import UsageError
from elbograd.estimators.methods.double_control_variate import DoubleControlVariate
from elbograd.estimators.methods.muprop import MuProp
from elbograd.estimators.methods.rodeo import RODEO
from elbograd.estimators.pieces.objective import KL_CHOICES
from elbograd.estimators.pieces.slopes import with_slope
from elbograd.estimators.pieces.variables import tied, variables_of
from elbograd.estimators.posteriors.distributions import draw
from torch import distributions as td

BINARY = torch.tensor([0.7, -1.2, 0.3], dtype=torch.float64)
TERNARY = torch.tensor([[0.4, -0.9, 0.2], [1.1, 0.0, -0.6]], dtype=torch.float64)
QUATERNARY = torch.tensor([[0.4, -0.9, 0.2, 1.3], [1.1, 0.0, -0.6, 0.5]], dtype=torch.float64)
SETTINGS = [
    (BINARY, 2), (BINARY, 3), (BINARY[:2], 4), (BINARY[:1], 4),
    (TERNARY, 2), (TERNARY[:1], 4), (QUATERNARY, 2), (QUATERNARY[:1], 3),
]  # fmt: skip
METHODS = ("muprop", "double-control-variate[alpha=-0.7]", "rodeo[hidden=5]")


def coupled(logits):
    """Of z of these logits' shape: differentiable off the support, not linear, and couples the variables."""
    weights = torch.linspace(0.5, 1.9, logits.numel(), dtype=torch.float64)

    def f(z):
        z = z.flatten(-logits.dim())
        return 2 * torch.sin((weights * z).sum(-1) + 0.3) + (z * weights.flip(0)).sum(-1).square() - 3

    return f


def bent(logits):
    """`coupled`, and what is 0 on the support alone."""

    def f(z):
        return coupled(logits)(z) + 1.7 * (z * (1 - z)).flatten(-logits.dim()).sum(-1)

    return f


def scrambled(estimator, logits):
    """With a network that is not 0, as after training."""
    torch.manual_seed(5)
    estimator.init(family(logits)(logits[None]), Target(coupled(logits)))
    with torch.no_grad():
        for parameter in estimator.parameters():
            if parameter.dim():
                parameter.copy_(torch.randn(parameter.shape, dtype=parameter.dtype))
    return estimator.eval()


def made(spec, logits):
    estimator = scrambled(create(spec), logits)
    if spec.startswith("rodeo"):
        estimator.unit.fill_(1.3)
        estimator.centre.fill_(0.4)
    return estimator


# --- The mean ---


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize(("logits", "num_samples"), SETTINGS)
def test_the_mean_is_exact(spec, logits, num_samples):
    mean, _ = EveryDraw(logits, num_samples).moments(made(spec, logits), Target(coupled(logits)))
    torch.testing.assert_close(mean, exact_gradient(logits, coupled(logits)), atol=1e-11, rtol=0)


def test_muprop_of_one_sample():
    for logits in (BINARY, QUATERNARY):
        mean, _ = EveryDraw(logits, 1).moments(create("muprop"), Target(coupled(logits)))
        torch.testing.assert_close(mean, exact_gradient(logits, coupled(logits)), atol=1e-11, rtol=0)


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("logits", [BINARY[:2], TERNARY])
def test_f_off_the_support_moves_the_estimates_and_not_their_mean(spec, logits):
    draws = EveryDraw(logits, 2)
    estimator = made(spec, logits)
    plain, moved = (draws.gradients(estimator, Target(f(logits))) for f in (coupled, bent))
    assert (plain - moved).abs().max() > 1e-3
    torch.testing.assert_close(draws.mean(plain), draws.mean(moved), atol=1e-11, rtol=0)


@pytest.mark.parametrize("spec", METHODS)
@pytest.mark.parametrize("logits", [BINARY[:2], TERNARY])
def test_the_mean_is_exact_with_a_sampled_kl(spec, logits):
    prior = family(logits)(logits.flip(-1) * 0.8 + 0.1)

    def f(z):
        return coupled(logits)(z) + prior.log_prob(z) - family(logits)(logits).log_prob(z)

    estimator = made(spec.replace("]", ",kl=sampled]") if "[" in spec else f"{spec}[kl=sampled]", logits)
    mean, _ = EveryDraw(logits, 2).moments(estimator, Target(coupled(logits), prior))
    torch.testing.assert_close(mean, exact_gradient(logits, f), atol=1e-11, rtol=0)


def test_muprop_takes_a_sampled_kl_out_again():
    prior = bernoulli(torch.tensor([0.2, -0.4, 1.0], dtype=torch.float64))
    draws = EveryDraw(BINARY, 2)
    found = [draws.gradients(create("muprop", kl=kl), Target(coupled(BINARY), prior)) for kl in KL_CHOICES]
    torch.testing.assert_close(*found, atol=1e-11, rtol=0)


# --- Wrong variants, which the mean must tell ---


class MultipliedMeans(MuProp):
    """The score part shrunk to 1/S: the mean of what is left of f times the mean score."""

    def forward(self, q, target, num_samples):
        variables, mean = variables_of(q), variables_of(q).probs
        codes = variables.codes(draw(q, num_samples))
        f = target.log_likelihood(variables.z(codes))
        at_mean, slope = (p[0].detach() for p in with_slope(q, target, self.kl, variables, mean[None]))
        left = f - at_mean - (slope * (codes - mean)).sum((-2, -1))
        pathwise = mean * (slope - (mean * slope).sum(-1, keepdim=True))
        gradient = left.mean(0)[..., None, None] * (codes - mean).mean(0) + pathwise
        return tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))


class WithoutCorrection(MuProp):
    """The expansion's own gradient not added back."""

    def forward(self, q, target, num_samples):
        variables, mean = variables_of(q), variables_of(q).probs
        codes = variables.codes(draw(q, num_samples))
        f = target.log_likelihood(variables.z(codes))
        at_mean, slope = (p[0].detach() for p in with_slope(q, target, self.kl, variables, mean[None]))
        left = f - at_mean - (slope * (codes - mean)).sum((-2, -1))
        gradient = (left[..., None, None] * (codes - mean)).mean(0)
        return tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))


class OwnSlope(DoubleControlVariate):
    """The slope at the sample itself, in place of the others'."""

    def forward(self, q, target, num_samples):
        variables = variables_of(q)
        codes, probs = variables.codes(draw(q, num_samples)), variables.probs
        f, slope = with_slope(q, target, self.kl, variables, codes)
        centred, mean_slope = codes - probs, slope.mean(0)
        values = f.detach() + self.alpha * (slope * centred).sum((-2, -1))
        gradient = ((values - values.mean(0))[..., None, None] * centred).sum(0) / (num_samples - 1)
        correction = probs * (mean_slope - (probs * mean_slope).sum(-1, keepdim=True))
        gradient = gradient - self.alpha * correction
        return tied(q, target, self.kl, f.mean(0), variables.surrogate(gradient))


class MovedBeforeTheDraw(DoubleControlVariate):
    """α moved to the least norm for the draws that it is then used on: ĝ = plain + α control."""

    def forward(self, q, target, num_samples):
        drawn = draw(q, num_samples)
        parts = []
        for alpha in (0.0, 1.0):
            self.alpha.data.fill_(alpha)
            again = family(BINARY)(q.base_dist.logits)
            again.sample = lambda shape: drawn
            surrogate = super().forward(again, target, num_samples).surrogate
            parts.append(torch.autograd.grad(surrogate.sum(), q.base_dist.logits, retain_graph=True)[0])
        plain, control = parts[0], parts[1] - parts[0]
        best = -(plain * control).sum(-1, keepdim=True) / control.square().sum(-1, keepdim=True).clamp_min(
            1e-30
        )
        surrogate = (q.base_dist.logits * (plain + best * control)).sum(-1)
        return Estimate(surrogate, surrogate)


class ScoreStandsStill(RODEO):
    """The score that h̃ is a product with not moved along to the neighbour."""

    def _stein(self, codes, centred, probs, f, slope):
        first, _ = super()._stein(codes, centred, probs, f, slope)
        second, _ = super()._stein(codes, centred, probs, f, slope)
        return first, second[..., None, None] * centred


class WithoutWeights(RODEO):
    """Neighbours not weighted by the probability of the step."""

    def _stein(self, codes, centred, probs, f, slope):
        return super()._stein(codes, centred, torch.full_like(probs, 1 / probs.shape[-1]), f, slope)


@pytest.mark.parametrize(
    "wrong",
    [MultipliedMeans, WithoutCorrection, OwnSlope, MovedBeforeTheDraw, ScoreStandsStill, WithoutWeights],
)
def test_a_wrong_variant_is_seen_in_the_mean(wrong):
    estimator = scrambled(wrong(alpha=-0.7) if issubclass(wrong, DoubleControlVariate) else wrong(), BINARY)
    mean, _ = EveryDraw(BINARY, 2).moments(estimator, Target(coupled(BINARY)))
    assert (mean - exact_gradient(BINARY, coupled(BINARY))).abs().max() > 1e-3


# --- Identities ---


@pytest.mark.parametrize("spec", ["muprop", "double-control-variate[alpha=-1]"])
@pytest.mark.parametrize("logits", [BINARY, TERNARY])
def test_no_variance_where_f_is_linear(spec, logits):
    slope = torch.linspace(-1.0, 2.0, logits.numel(), dtype=torch.float64).reshape(logits.shape)

    def linear(z):
        return (slope * z).flatten(z.dim() - logits.dim()).sum(-1) - 40

    mean, variance = EveryDraw(logits, 2).moments(create(spec), Target(linear))
    torch.testing.assert_close(mean, exact_gradient(logits, linear), atol=1e-11, rtol=0)
    assert variance.max() < 1e-24


@pytest.mark.parametrize("spec", ["double-control-variate", "rodeo"])
@pytest.mark.parametrize(("logits", "num_samples"), SETTINGS[:6])
def test_before_it_learns_it_is_leave_one_out(spec, logits, num_samples):
    estimator, draws = create(spec), EveryDraw(logits, num_samples)
    estimator.init(family(logits)(logits[None]), Target(coupled(logits)))
    found, expected = (
        draws.gradients(e, Target(coupled(logits))) for e in (estimator, create("leave-one-out"))
    )
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def test_double_control_variate_of_two_samples_by_hand():
    """½ (D₁ − D₂)(z₁ − z₂) − α s (g₁ + g₂)/2, D_k = f_k + α g_{−k}·(z_k − p)."""
    alpha, draws = -0.6, EveryDraw(BINARY, 2)
    found = draws.gradients(create("double-control-variate", alpha=alpha), Target(coupled(BINARY)))
    z = draws.z.clone().requires_grad_()
    f = coupled(BINARY)(z)
    g = torch.autograd.grad(f.sum(), z)[0]
    p = BINARY.sigmoid()
    d = f.detach() + alpha * (g.flip(0) * (draws.z - p)).sum(-1)
    expected = 0.5 * (d[0] - d[1])[:, None] * (draws.z[0] - draws.z[1]) - alpha * p * (1 - p) * g.mean(0)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("logits", [BINARY, TERNARY])
def test_rodeo_of_every_draw_by_loops_over_the_neighbours(logits):
    """In NumPy, with the network as a function of two numbers and h̃ = H₂ ∇ log q spelled out."""
    estimator, draws = made("rodeo[hidden=5]", logits), EveryDraw(logits, 2)
    found = draws.gradients(estimator, Target(coupled(logits))).numpy()
    first, _, last = estimator.network
    w1, b1, w2, b2 = (p.detach().numpy() for p in (first.weight, first.bias, last.weight, last.bias))
    size = len(logits)

    def network(a, f):
        hidden = w1 @ np.array([a / 1.3, (f - 0.4) / 1.3]) + b1
        return 1.3 * size * (w2 @ np.where(hidden > 0, hidden, 0.3 * hidden) + b2)

    z = draws.z.clone().requires_grad_()
    f = coupled(logits)(z)
    g = torch.autograd.grad(f.sum(), z)[0].numpy()
    f, z = f.detach().numpy(), draws.z.numpy()
    mean = family(logits)(logits).mean.numpy()
    codes = np.eye(logits.shape[-1]) if logits.dim() == 2 else np.array([0.0, 1.0])
    for n in range(len(found)):
        stein, moved = [], []
        for k in range(2):
            j = 1 - k

            def h(y, j=j, n=n):
                return network((g[j, n] * (y - z[j, n])).sum(), f[j, n])

            here, total, vector = h(z[k, n]), 0.0, np.zeros_like(mean)
            for i, code in itertools.product(range(size), codes):
                y = z[k, n].copy()
                y[i] = code
                chance = mean[i] @ code if logits.dim() == 2 else mean[i] if code else 1 - mean[i]
                total += chance * (h(y)[0] - here[0]) / size
                vector += chance * (h(y)[1] * (y - mean) - here[1] * (z[k, n] - mean)) / size
            stein.append(total)
            moved.append(vector)
        expected = sum((f[k, n] - f[1 - k, n] - stein[1 - k]) * (z[k, n] - mean) + moved[k] for k in range(2))
        np.testing.assert_allclose(found[n], expected / 2, atol=1e-11)


def test_at_one_half_no_alpha_gains_a_thousandth():
    """f = mean (z − t)², all p = ½: on the support its slope is nearly 0, off it the slopes mostly disagree."""
    logits = torch.zeros(4, dtype=torch.float64)

    def variance(alpha):
        target = Target(lambda z: (z - 0.499).square().mean(-1))
        estimator = create("double-control-variate", alpha=alpha)
        return EveryDraw(logits, 2).moments(estimator, target)[1].sum()

    low, middle, high = (variance(alpha) for alpha in (-1.0, 0.0, 1.0))
    best = middle - (high - low).square() / (8 * (high - 2 * middle + low))
    assert 0.999 * middle < best <= middle


# --- What is refused ---

GAUSSIAN = td.Independent(td.Normal(torch.zeros(2, 3), 1.0), 1)
INTEGERS = td.Independent(td.Categorical(logits=torch.zeros(2, 3, 4)), 1)


@pytest.mark.parametrize("spec", ["muprop", "double-control-variate", "rodeo", "rebar", "relax"])
def test_posteriors_that_are_refused_in_one_line(spec):
    estimator = create(spec)
    assert estimator.supports(GAUSSIAN, Target(coupled(BINARY)), 2) == (
        "needs independent Bernoulli or categorical latents, not a Normal posterior"
    )
    assert "OneHotCategorical" in estimator.supports(INTEGERS, Target(coupled(BINARY)), 2)
    assert estimator.supports(bernoulli(BINARY[None]), Target(coupled(BINARY)), 2) is None


@pytest.mark.parametrize("spec", ["double-control-variate", "rodeo"])
def test_a_single_sample_is_refused(spec):
    reason = create(spec).supports(bernoulli(BINARY[None]), Target(coupled(BINARY)), 1)
    assert reason == "needs num_samples of at least 2, not 1"


@pytest.mark.parametrize("spec", ["muprop", "double-control-variate", "rodeo", "rebar", "relax"])
@pytest.mark.parametrize(
    "f",
    [
        lambda z: (z.detach() - 1).square().sum(-1),
        lambda z: (z > 0.5).to(z.dtype).sum(-1),
        lambda z: (3 * z).round().sum(-1),
        lambda z: z.new_zeros(z.shape[:-1]),
    ],
    ids=["detached", "compared", "rounded", "constant"],
)
def test_f_without_a_derivative_in_z_is_refused_in_one_line(spec, f):
    estimator, q = create(spec), bernoulli(BINARY[None].clone().requires_grad_())
    estimator.init(q, Target(f))
    with pytest.raises(UsageError, match="cannot be differentiated in z") as caught:
        estimator(q, Target(f), 2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("double-control-variate[alpha=nan]", "alpha"),
        ("double-control-variate[alpha=true]", "alpha"),
        ("rodeo[hidden=0]", "hidden"),
        ("muprop[kl=exact]", "kl"),
    ],
)
def test_bad_arguments_in_one_line(spec, says):
    with pytest.raises(UsageError, match=says) as caught:
        create(spec)
    assert "\n" not in str(caught.value)
