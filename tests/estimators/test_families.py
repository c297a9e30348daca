"""Distributions derived from torch's: those that add to them are theirs, those with their own ways are not."""

from __future__ import annotations

import pytest
import torch
from elbograd.benchmarks import measure_variance
from elbograd.benchmarks.oracles.rules import rules_of
from elbograd.benchmarks.problems import from_vae
from elbograd.benchmarks.problems.posterior_checks import is_known
from elbograd.estimators import Target, create
from elbograd.estimators.pieces.variables import not_discrete
from elbograd.estimators.posteriors import noise
from elbograd.estimators.posteriors.distributions import closed_form_kl, cut
from elbograd.estimators.posteriors.draws import unsupported_draws
from elbograd.estimators.posteriors.families import family_of, innermost, is_transformed
from torch import distributions as td

LOC, SCALE = torch.tensor([[0.3, -1.0], [2.0, 0.1], [0.0, 0.5]]), torch.tensor([0.3, 2.0]).expand(3, 2)


class Called:
    """What Pyro mixes in, in small: methods beside torch's, and some that torch's own win over."""

    def __call__(self):
        return self.sample()

    def sample(self):
        raise NotImplementedError

    def expand(self, batch_shape):
        raise NotImplementedError


class Normal(td.Normal, Called):
    pass


class Independent(td.Independent, Called):
    def __init__(self, base):  # other arguments than torch's
        super().__init__(base, 1)


class Bernoulli(td.Bernoulli, Called):
    pass


class OneHot(td.OneHotCategorical, Called):
    pass


class Covariance(td.MultivariateNormal, Called):
    pass


class Flow(td.TransformedDistribution, Called):
    pass


class Drawn(td.Normal):
    def rsample(self, sample_shape=torch.Size()):  # noqa: B008
        return super().rsample(sample_shape) + 1


class Scored(td.Normal):
    def log_prob(self, value):
        return super().log_prob(value) / 2


class Unlike(Normal):
    """Derived from one that adds alone."""

    def sample(self, sample_shape=torch.Size()):  # noqa: B008
        return super().sample(sample_shape) + 1


class Masked(td.Independent):
    def log_prob(self, value):
        return super().log_prob(value) * torch.tensor([1.0, 0.0, 1.0])


PLAIN = {
    "normal": (lambda: td.Independent(td.Normal(LOC, SCALE), 1), lambda: Independent(Normal(LOC, SCALE))),
    "bernoulli": (
        lambda: td.Independent(td.Bernoulli(logits=LOC), 1),
        lambda: Independent(Bernoulli(logits=LOC)),
    ),
    "one-hot": (lambda: td.OneHotCategorical(logits=LOC), lambda: OneHot(logits=LOC)),
    "covariance": (
        lambda: td.MultivariateNormal(LOC, scale_tril=torch.diag_embed(SCALE)),
        lambda: Covariance(LOC, scale_tril=torch.diag_embed(SCALE)),
    ),
    "flow": (
        lambda: td.TransformedDistribution(td.Independent(td.Normal(LOC, SCALE), 1), [td.AffineTransform(1.0, 2.0)]),
        lambda: Flow(Independent(Normal(LOC, SCALE)), [td.AffineTransform(1.0, 2.0)]),
    ),
}  # fmt: skip


def target(q):
    shape = q.event_shape
    weights = torch.linspace(-1, 1, shape.numel()).reshape(shape)
    prior = td.Independent(td.Normal(torch.zeros(shape), torch.ones(shape)), len(shape))
    if isinstance(innermost(q), td.Bernoulli):
        prior = td.Independent(td.Bernoulli(logits=torch.zeros(shape)), len(shape))
    elif isinstance(q, td.OneHotCategorical):
        prior = td.OneHotCategorical(logits=torch.zeros(shape))
    return Target(lambda z: -(z - weights).square().sum(-1), prior=prior)


ESTIMATORS = {
    "normal": ["reparameterization", "sticking-the-landing", "delta-method", "linearized-hessian", "measure-valued"],
    "bernoulli": ["arm", "local-expectation", "exact", "rebar"],
    "one-hot": ["local-expectation", "gumbel-softmax", "straight-through"],
    "covariance": ["reparameterization[draws=antithetic]", "sticking-the-landing", "delta-method"],
    "flow": ["reparameterization[draws=sobol,kl=sampled]", "sticking-the-landing", "score-function[kl=sampled]"],
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_what_only_adds_is_its_base_to_every_estimator(name):
    plain, derived = (make() for make in PLAIN[name])
    assert family_of(derived) is type(plain)
    assert family_of(cut(derived)) is type(plain)
    assert is_known(plain) == is_known(derived)
    assert rules_of(plain)[0] == rules_of(derived)[0]
    for specification in ESTIMATORS[name]:
        estimator = create(specification)
        values = []
        for q in (plain, derived):
            assert estimator.supports(q, target(q), 4) is None, specification
            torch.manual_seed(1)
            estimator.init(q, target(q))
            torch.manual_seed(0)
            values.append(estimator(q, target(q), 4).value)
        assert torch.equal(*values), specification


@pytest.mark.parametrize("kind", [Drawn, Scored, Unlike])
def test_what_draws_or_scores_in_its_own_way_is_not(kind):
    q = td.Independent(kind(LOC, SCALE), 1)
    assert family_of(q) is td.Independent
    assert family_of(innermost(q)) is kind
    assert not is_known(q)
    assert noise.draw(q, 3)[1] is None
    assert "Gaussian" in create("delta-method").supports(q, target(q), 1)
    assert "quantile" in unsupported_draws(q, "sobol")
    assert isinstance(rules_of(q), str)
    with pytest.raises(TypeError, match=kind.__name__):
        cut(q)


def test_an_independent_of_its_own_ways_is_not_taken_apart():
    q = Masked(td.Normal(LOC, SCALE), 1)
    assert innermost(q) is q
    torch.testing.assert_close(noise.log_prob(q, LOC, None), q.log_prob(LOC))
    with pytest.raises(TypeError, match="Masked"):
        cut(q)


def test_a_single_object_with_a_method_of_its_own_is_of_no_family():
    q = td.Normal(LOC, SCALE)
    q.rsample = lambda shape: LOC.expand(*shape, 3, 2)
    assert family_of(q) is not td.Normal
    assert not is_known(q)
    assert family_of(td.Normal(LOC, SCALE)) is td.Normal


@pytest.mark.parametrize(
    ("q", "refused"),
    [
        (td.OneHotCategoricalStraightThrough(logits=LOC), True),
        (td.RelaxedBernoulli(torch.tensor(0.5), logits=LOC), True),
        (td.Categorical(logits=LOC), False),
    ],
)
def test_the_families_that_torch_derives_from_others_stay_their_own(q, refused):
    assert family_of(q) is type(q)
    assert (not_discrete(q) is not None) == refused


def test_torchs_transformed_families_are_transformed():
    assert is_transformed(td.LogNormal(LOC, SCALE))
    assert family_of(td.LogNormal(LOC, SCALE)) is td.LogNormal
    assert family_of(td.Chi2(SCALE)) is td.Chi2
    assert family_of(td.HalfNormal(SCALE)) is td.HalfNormal


def test_the_closed_form_kl_of_what_is_derived():
    for plain, derived in (tuple(make() for make in pair) for pair in PLAIN.values()):
        expected = closed_form_kl(plain, target(plain).prior)
        found = closed_form_kl(derived, target(derived).prior)
        assert (expected is None and found is None) or torch.equal(expected, found)


def test_an_encoder_may_return_one():
    net, decoder = torch.nn.Linear(4, 2), torch.nn.Linear(2, 4)

    class Encoder(torch.nn.Module):
        def __init__(self, independent, normal):
            super().__init__()
            self.net, self.independent, self.normal = net, independent, normal

        def forward(self, x):
            return self.independent(self.normal(self.net(x), torch.full((len(x), 2), 0.5)))

    x, totals = torch.rand(20, 4).round(), []
    for made in (Encoder(lambda q: td.Independent(q, 1), td.Normal), Encoder(Independent, Normal)):
        totals.append(
            measure_variance(from_vae(made, decoder, x), "reparameterization", x[:3], replicates=20).total
        )
    assert totals[0] == totals[1]


def test_pyros_own_classes_are_torchs():
    pyro = pytest.importorskip("pyro.distributions", reason="Pyro is not installed: pip install pyro-ppl")
    made = {
        td.Normal: pyro.Normal(LOC, SCALE),
        td.Bernoulli: pyro.Bernoulli(logits=LOC),
        td.Categorical: pyro.Categorical(logits=LOC),
        td.OneHotCategorical: pyro.OneHotCategorical(logits=LOC),
        td.OneHotCategoricalStraightThrough: pyro.OneHotCategoricalStraightThrough(logits=LOC),
        td.MultivariateNormal: pyro.MultivariateNormal(LOC, torch.eye(2)),
        td.LogNormal: pyro.LogNormal(LOC, SCALE),
        td.Poisson: pyro.Poisson(SCALE),
        td.Gamma: pyro.Gamma(SCALE, SCALE),
        td.VonMises: pyro.VonMises(LOC, SCALE),
        td.Uniform: pyro.Uniform(LOC, LOC + 1),
        td.TransformedDistribution: pyro.TransformedDistribution(pyro.Normal(LOC, SCALE), []),
    }  # fmt: skip
    for family, q in made.items():
        assert type(q) is not family
        assert family_of(q) is family
    q = pyro.Normal(LOC, SCALE).to_event(1)
    assert family_of(q) is td.Independent
    assert torch.equal(
        closed_form_kl(q, target(q).prior), closed_form_kl(PLAIN["normal"][0](), target(q).prior)
    )
    # Masked, a point mass, or drawn by other means: their own.
    for other in (q.mask(False), pyro.Delta(LOC), pyro.Binomial(3, logits=LOC)):
        assert family_of(other) is type(other)
