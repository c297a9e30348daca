"""Posteriors and priors that people bring: flows with caches or without inverses, what torch only half knows."""

import pytest
import torch
from elbograd.estimators import Target, catalogue, create
from elbograd.estimators.errors import UsageError
from elbograd.estimators.posteriors.distributions import closed_form_kl
from torch import distributions as td

SCORED = (
    "score-function[kl=sampled]",
    "score-function[kl=sampled,draws=antithetic]",
    "leave-one-out[kl=sampled]",
    "vargrad",
    "vimco",
    "ovis",
    "reweighted-wake-sleep",
    "thermodynamic",
)


def normal(loc=0.0, scale=1.0):
    return td.Independent(td.Normal(torch.full((4, 2), loc).double(), scale), 1)


def costly(z):
    return -(z - 1).square().sum(-1)


class NoInverse(td.Transform):
    """A planar flow, which has no inverse in closed form: only what it remembers can be undone."""

    domain = codomain = td.constraints.real_vector
    bijective = True

    def _call(self, x):
        return x + 0.5 * torch.tanh(x.sum(-1, keepdim=True))

    def log_abs_det_jacobian(self, x, y):
        return (1 + 1.0 - torch.tanh(x.sum(-1)).square()).log()


class PlainPrior(td.Distribution):
    """A prior of the user's own, with a density and nothing else."""

    support = td.constraints.real_vector

    def __init__(self):
        super().__init__(event_shape=torch.Size((2,)), validate_args=False)

    def log_prob(self, value):
        return -value.abs().sum(-1)


@pytest.mark.parametrize("name", SCORED)
def test_the_score_of_a_flow_that_caches_is_that_of_one_that_does_not(name):
    """A cache answers log q(z) with the base's sample, in which the transform has no gradient."""
    found = []
    for size in (0, 1):
        shift = torch.full((4, 2), 0.3, dtype=torch.float64, requires_grad=True)
        q = td.TransformedDistribution(normal(), [td.TanhTransform(), td.AffineTransform(shift, 2.0, size)])
        torch.manual_seed(0)
        surrogate = create(name)(q, Target(costly, prior=normal()), 4).surrogate
        found.append(torch.autograd.grad(surrogate.sum(), shift)[0])
    assert found[0].abs().min() > 0
    torch.testing.assert_close(*found)


def test_a_cache_is_used_where_the_transform_holds_no_parameter():
    """tanh x = 1 in float32 at x = 12: the inverse would be infinite."""
    loc = torch.full((4, 2), 12.0, requires_grad=True)
    q = td.TransformedDistribution(td.Independent(td.Normal(loc, 0.1), 1), [td.TanhTransform(cache_size=1)])
    surrogate = create("score-function[kl=sampled]")(q, Target(costly), 4).surrogate
    assert torch.autograd.grad(surrogate.sum(), loc)[0].isfinite().all()


@pytest.mark.parametrize("prior", [None, normal()], ids=["no prior", "prior"])
def test_a_flow_without_an_inverse_is_refused_or_estimated(prior):
    target = Target(costly, prior=prior, features=torch.ones(4, 2))
    refused = set()
    for name in catalogue():
        q = td.TransformedDistribution(normal(), [NoInverse(cache_size=1)])
        reason = create(name).supports(q, target, 4)
        if reason is None:
            assert create(name)(q, target, 4).surrogate.isfinite().all(), name
        elif "does not implement its inverse" in reason:
            refused.add(name)
    assert {"score-function", "sticking-the-landing", "vargrad", "mixed"} <= refused


def test_a_straight_through_one_hot_has_no_pathwise_gradient():
    q = td.OneHotCategoricalStraightThrough(logits=torch.zeros(4, 3))
    for name in ("reparameterization", "sticking-the-landing", "mixed", "iwae"):
        prior = td.OneHotCategorical(logits=torch.zeros(3))
        assert create(name).supports(q, Target(costly, prior=prior), 2) is not None, name
    assert create("score-function").supports(q, Target(costly), 2) is None


@pytest.mark.parametrize("name", SCORED)
def test_the_score_does_not_see_a_moving_support(name):
    """∂/∂b E z = 1/2 for z uniform on (0, b); E z ∂ log q/∂b = −(b/2)/b = −1/2."""
    q = td.Independent(td.Uniform(torch.zeros(4, 2), torch.ones(4, 2)), 1)
    target = Target(costly, prior=td.Independent(td.Normal(torch.zeros(2), 1.0), 1))
    assert "support does not move" in create(name).supports(q, target, 2)


@pytest.mark.parametrize("name", ["linearized-hessian", "linearized-hessian[hessian=full]"])
def test_the_mean_direction_is_not_the_mean(name):
    """At μ = 2.5 draws wrap around: E z = 1.24 for κ = 1.5, and what is linear in z is no control variate."""
    q = td.Independent(td.VonMises(torch.full((4, 2), 2.5), torch.full((4, 2), 1.5)), 1)
    assert "mean direction" in create(name).supports(q, Target(lambda z: z.cos().sum(-1)), 1)
    assert "mean direction" in create("quadratic-control-variate").supports(q, Target(costly), 1)


@pytest.mark.parametrize("name", ["mixed", "optimal-baseline"])
def test_parameters_that_data_share_are_refused_where_each_has_its_own(name):
    shift = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    q = td.TransformedDistribution(normal(), [td.AffineTransform(shift, 2.0)])
    reason = create(name).supports(q, Target(costly), 2)
    assert "(2,) for the batch shape (4,)" in reason
    # One number moves both coordinates of a single datum: two of them, for S = 2, would move one each.
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    one = td.Independent(td.Normal(torch.zeros(2).double(), 1.0), 1)
    q = td.TransformedDistribution(one, [td.AffineTransform(shift, 2.0)])
    assert "has shape ()" in create(name).supports(q, Target(costly), 2)


def test_a_prior_that_cannot_be_expanded_has_no_closed_form_kl():
    target = Target(costly, prior=PlainPrior())
    assert create("reparameterization").supports(normal(), target, 1).endswith("use kl=sampled")
    assert create("sticking-the-landing")(normal(), target, 1).surrogate.shape == (4,)


@pytest.mark.parametrize(
    "name", [*SCORED, "sticking-the-landing", "iwae", "dreg", "measure-valued[kl=sampled]"]
)
def test_a_prior_over_other_events_is_told_and_not_broadcast(name):
    """(S, B) and (S, B, D) broadcast when S = B = D."""
    q = td.Independent(td.Normal(torch.zeros(2, 2), 1.0), 1)
    target = Target(costly, prior=td.Normal(torch.zeros(2), 1.0))
    with pytest.raises(UsageError, match=r"Independent\(prior, 1\)"):
        create(name)(q, target, 2)


def test_the_kl_of_a_full_gaussian_against_a_diagonal_one():
    """½ (tr Σ/σ_p² + |μ − μ_p|²/σ_p² − D − log det Σ + 2 Σ log σ_p)."""
    factor = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    q = td.MultivariateNormal(torch.tensor([[1.0, -1.0]]).double(), scale_tril=factor)
    scale = torch.tensor([2.0, 0.5], dtype=torch.float64)
    prior = td.Independent(td.Normal(torch.zeros(2, dtype=torch.float64), scale), 1)
    exact = 0.5 * (1 / 4 + 4.25 / 0.25 + 1 / 4 + 1 / 0.25 - 2 - torch.log(torch.tensor(4.0)))
    torch.testing.assert_close(closed_form_kl(q, prior), exact.double()[None])


def test_the_kl_of_a_diagonal_gaussian_against_a_full_one():
    """½ (tr Σ_p⁻¹ Σ + μᵀ Σ_p⁻¹ μ − D + log det Σ_p − log det Σ), with Σ_p⁻¹ = [[17, −2], [−2, 4]] / 16."""
    q = td.Independent(td.Normal(torch.tensor([[1.0, -1.0]]).double(), torch.tensor([2.0, 0.5]).double()), 1)
    factor = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=torch.float64)
    prior = td.MultivariateNormal(torch.zeros(2, dtype=torch.float64), scale_tril=factor)
    exact = 0.5 * ((17 * 4 + 4 * 0.25) / 16 + (17 + 4 + 4) / 16 - 2 + torch.log(torch.tensor(4.0).double()))
    torch.testing.assert_close(closed_form_kl(q, prior), exact[None])


def test_claims_on_iid_draws():
    """L_K is of independent samples; dreg's second reparameterization holds the others still."""
    for name in ("iwae", "dreg", "iwae-sticking-the-landing", "reweighted-wake-sleep"):
        assert create(name).requires_iid_draws, name


def test_vimco_where_a_sample_is_impossible():
    """Weights e^0, 0, e^1: without the second the others' geometric mean stands in for it."""
    log_w = torch.tensor([[0.0], [-torch.inf], [1.0]], dtype=torch.float64)
    found = create("vimco")._without_each(log_w)[1]
    e = torch.tensor(1.0, dtype=torch.float64).exp()
    torch.testing.assert_close(found, ((1 + e + e.sqrt()) / 3).log()[None])


@pytest.mark.parametrize("name", ["mixed", "delta-method[pilot=8]"])
@pytest.mark.parametrize("f", [costly, lambda z: torch.zeros(z.shape[:-1], dtype=z.dtype)], ids=["f", "0"])
def test_a_value_without_gradients(name, f):
    """Under no_grad, and where f does not depend on z: both take derivatives inside."""
    loc = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    q = td.Independent(td.Normal(loc, 1.0), 1)
    with torch.no_grad():
        assert not create(name)(q, Target(f), 2).value.requires_grad
    assert torch.autograd.grad(create(name)(q, Target(f), 2).surrogate.sum(), loc)[0].isfinite().all()
