"""Proofs: all that can be drawn is gone through, each weighed rightly, and only where that is all there is."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from elbograd.benchmarks.certification import proof as proof_module
from elbograd.benchmarks.certification.cell import certify_cell
from elbograd.benchmarks.certification.corners import Corner
from elbograd.benchmarks.certification.levels import Settings
from elbograd.benchmarks.certification.oracle import solve
from elbograd.benchmarks.certification.points import points_of
from elbograd.benchmarks.certification.proof import prove
from elbograd.benchmarks.certification.subject import Subject, warmed
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.problems.placement import first_batch, place
from elbograd.estimators import Estimate, Estimator, create
from torch import distributions as td

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

BITS, STATES = "small-vae[posterior=bernoulli]", "small-vae[posterior=categorical]"
LeaveOneOut = type(create("leave-one-out"))


USUAL = Corner(2, 3)


def subject(estimator, name=BITS, corner=USUAL):
    problem = place(load_problem(name), dtype=torch.float64)
    x = first_batch(problem, 3, 0)
    oracle = solve(problem, "initial", x, problem.encoder(x).detach(), "elbo", corner.num_samples)
    build = partial(create, estimator) if isinstance(estimator, str) else estimator
    made = warmed(build, oracle, corner.num_samples, 0)
    moved = oracle.at(corner.batch_size, corner.dtype)
    return Subject(made, moved, corner, oracle.norm, Settings(), claims=True)


def verdicts(estimator, name=BITS, corner=USUAL):
    """Check -> whether it holds; None where nothing is proven."""
    found = prove(subject(estimator, name, corner))
    return None if found is None else {check: holds for check, (holds, _) in found.verdicts.items()}


def by_hand(num_samples, monkeypatch):
    """Mean and second moment of the gradient, means of the value and in θ, by a loop over all tuples of bits."""
    problem = place(load_problem(BITS), dtype=torch.float64)
    x = first_batch(problem, 3, 0)
    eta = problem.encoder(x).detach().requires_grad_()
    q, target = problem.posterior(eta), problem.target(x)
    points = [torch.tensor(z).double() for z in itertools.product((0, 1), repeat=q.event_shape[0])]
    estimator, theta = create("leave-one-out").eval(), list(problem.decoder.parameters())
    mean = second = torch.zeros_like(eta)
    value, in_theta = torch.zeros(3).double(), torch.zeros(sum(p.numel() for p in theta)).double()
    for drawn in itertools.product(points, repeat=num_samples):
        z = torch.stack(drawn).unsqueeze(1).expand(-1, 3, -1)
        weight = q.log_prob(z).sum(0).exp().detach()
        with monkeypatch.context() as forced:
            forced.setattr(td.Bernoulli, "sample", lambda self, shape, z=z: z)
            estimate = estimator(q, target, num_samples)
        (h,) = torch.autograd.grad(estimate.surrogate.sum(), eta, retain_graph=True)
        mean, second = mean + weight.unsqueeze(1) * h, second + weight.unsqueeze(1) * h.square()
        value = value + weight * estimate.value.detach()
        grads = torch.autograd.grad((weight * estimate.value).mean(), theta, retain_graph=True)
        in_theta = in_theta + torch.cat([g.flatten() for g in grads])
    return mean, second, value, in_theta


def test_moments_are_those_of_a_loop_over_all_that_can_be_drawn(monkeypatch):
    kept, judged = [], proof_module._judged
    with monkeypatch.context() as watched:
        watched.setattr(proof_module, "_judged", lambda here, sums: kept.append(sums) or judged(here, sums))
        here = subject("leave-one-out")
        assert all(holds for holds, _ in prove(here).verdicts.values())
    (sums,) = kept
    mean, second, value, theta = by_hand(2, monkeypatch)
    exact = here.oracle
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)
    close(sums.gradient + exact.eta_grad, mean)
    close(sums.square - sums.gradient.square(), second - mean.square())
    close(sums.value + exact.value, value)
    close(sums.theta.squeeze(0), theta)


@pytest.mark.parametrize(
    ("name", "corner"),
    [
        (BITS, Corner(2, 2, "float64", "train")),
        (BITS, Corner(3, 3, "float32", "train")),
        (BITS, Corner(4, 4, "float32")),
        (STATES, Corner(2, 2)),
        (STATES, Corner(3, 3, "float64", "eval-frozen")),
        ("binary-toy[latent_dim=3,target=0.4,probability=0.3]", Corner(2, 2)),
        ("small-hierarchy[lower=bernoulli,direction=top-down]", Corner(2, 3)),
    ],
)
def test_what_draws_a_few_bits_or_states_is_proven_in_every_corner(name, corner):
    """Also where S = B, which is not to be taken for replicates."""
    found = verdicts("leave-one-out[kl=sampled]", name, corner)
    assert found is not None
    assert all(found.values()), found


class WrongAtOneTuple(LeaveOneOut):
    """A datum's gradient is off where all bits of all samples are 1, and nowhere else."""

    off = 0.01

    def forward(self, q, target, num_samples):
        seen = []

        def log_likelihood(z):
            seen.append(z.detach())
            return target.log_likelihood(z)

        estimate = super().forward(q, replace(target, log_likelihood=log_likelihood), num_samples)
        rare = seen[0].prod(-1).prod(0)
        return estimate._replace(surrogate=estimate.surrogate + self.off * rare * q.base_dist.logits.sum(-1))


def test_what_is_wrong_for_one_rare_tuple_alone_is_found(monkeypatch):
    assert verdicts(WrongAtOneTuple)["gradient"] is False
    monkeypatch.setattr(WrongAtOneTuple, "off", 0.0)
    assert verdicts(WrongAtOneTuple)["gradient"] is True


class Noisy(LeaveOneOut):
    """Adds noise of mean zero, from ``noise``."""

    @staticmethod
    def noise(like):
        raise NotImplementedError

    def forward(self, q, target, num_samples):
        estimate = super().forward(q, target, num_samples)
        logits = q.base_dist.logits.sum(-1)
        added = self.noise(logits.detach()) * logits
        return estimate._replace(surrogate=estimate.surrogate + added - added.detach())


class Continuous(Noisy):
    """Its own noise is continuous."""

    noise = staticmethod(torch.randn_like)


class OfPython(Noisy):
    """Its own noise is not torch's, and one for all."""

    @staticmethod
    def noise(like):
        return random.uniform(-1, 1) * torch.ones_like(like)


class OfNumpy(Noisy):
    """Its own noise is not torch's."""

    @staticmethod
    def noise(like):
        return torch.as_tensor(np.random.standard_normal(tuple(like.shape))).to(like)


class OfOthers(Noisy):
    """The next replicate's cost moves a replicate's estimate."""

    def forward(self, q, target, num_samples):
        estimate = LeaveOneOut.forward(self, q, target, num_samples)
        logits = q.base_dist.logits.sum(-1)
        moved = 0.1 * estimate.value.detach().roll(1, 0) * (logits - logits.detach())
        return estimate._replace(surrogate=estimate.surrogate + moved)


class Declared(LeaveOneOut):
    """Says that it couples a batch."""

    couples_batch = True


@pytest.mark.parametrize("estimator", [Continuous, OfPython, OfNumpy, OfOthers, Declared])
def test_what_is_more_than_its_bits_is_not_proven(estimator):
    assert verdicts(LeaveOneOut) is not None
    assert verdicts(estimator) is None


class DrawnTogether(Estimator):
    """All samples from one categorical of batch (S, R, B), whose rows are not read replicate by replicate."""

    def forward(self, q, target, num_samples):
        logits = q.base_dist.logits
        wide = td.OneHotCategorical(logits=logits.expand(num_samples, *logits.shape))
        z = wide.sample()
        f = target.log_likelihood(z) + target.prior.log_prob(z) - q.log_prob(z)
        others = (f.sum(0) - f) / (num_samples - 1)
        surrogate = (q.log_prob(z) * (f - others).detach()).mean(0)
        return Estimate(surrogate, f.mean(0))

    min_samples = 2


def test_rows_that_are_not_understood_prove_nothing():
    assert verdicts(DrawnTogether, STATES) is None


def test_more_than_can_be_gone_through_is_left_to_draws():
    assert prove(subject("leave-one-out", BITS, Corner(6, 1))) is None
    assert prove(subject("reparameterization", "small-vae")) is None


SKEWED = "waves[posterior=categorical,latent_dim=2,states=6,scale=50,offset=-500]"


def near_the_optimum(build):
    """The checks of an estimator at 6⁶ combinations, more than are gone through before drawing."""
    problem = place(load_problem(SKEWED), dtype=torch.float64)
    x = first_batch(problem, 3, 0)
    eta = points_of(problem, x, 0)["near-optimal"]
    oracle = solve(problem, "near-optimal", x, eta, "elbo", 3)
    give = partial(warmed, build, oracle, 3, 0)
    return certify_cell(give, oracle, Corner(3, 1), SKEWED, oracle.norm, Settings())


def test_a_longer_proof_answers_where_draws_do_not():
    checks = near_the_optimum(partial(create, "vargrad"))
    assert all(check.holds for check in checks)
    (gradient,) = (check for check in checks if check.name == "gradient")
    assert gradient.exact
    assert gradient.draws == 6**6
    assert gradient.bias.high < 1e-9


class WrongAtOnePair(Estimator):
    """VarGrad; ten times the gradient where the first sample has a pair of states with probability 4e-7."""

    def forward(self, q, target, num_samples):
        z = q.sample((num_samples,))
        log_q = q.log_prob(z)
        ell = log_q - log_q.detach() - target.log_likelihood(z).detach()
        ell = ell - target.prior.log_prob(z) + log_q.detach()
        rare = (z[0].argmax(-1) == torch.tensor([0, 2])).all(-1)
        loss = 0.5 * ell.var(0) * torch.where(rare, 10.0, 1.0)
        return Estimate(surrogate=-loss, value=-ell.mean(0))

    min_samples = 2


def test_a_longer_proof_tells_what_draws_do_not_show():
    checks = near_the_optimum(WrongAtOnePair)
    (gradient,) = (check for check in checks if check.name == "gradient")
    assert gradient.exact
    assert gradient.holds is False
    assert "(a proof)" in gradient.reason
