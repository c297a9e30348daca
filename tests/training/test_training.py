"""Training through the suite: the same steps as by hand, and nothing of the user's changed."""

from __future__ import annotations

import math

import pytest
import torch
from elbograd.benchmarks import train
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.training import begin as module
from elbograd.benchmarks.training.held_out import importance_weighted_log_likelihood
from elbograd.benchmarks.training.step import TrainingStep, backward
from elbograd.estimators import Estimate, Estimator, UsageError, analytic_kl, catalogue, create
from torch.distributions import Independent, Normal


def parameters(problem):
    return [*problem.encoder.parameters(), *problem.decoder.parameters()]


@pytest.mark.parametrize("name", [n for n in catalogue() if n != "exact"])
def test_a_step_is_what_one_would_write_by_hand(name):
    estimator, again = create(name), create(name)
    models = ("vae[latent_dim=2,hidden=8]", "bernoulli-vae[latent_dim=2,hidden=8]", "bayesian-mlp[hidden=8]")
    for model in models:
        problem, by_hand = (load_problem(model) for _ in range(2))
        x = next(problem.batches("train", 16, torch.Generator().manual_seed(0)))
        if estimator.supports(problem.posterior(problem.encoder(x)), problem.target(x), 2) is None:
            break
    for p, e in ((problem, estimator), (by_hand, again)):
        torch.manual_seed(0)
        e.init(p.posterior(p.encoder(x)), p.target(x))
    step = TrainingStep(problem, estimator, [torch.optim.Adam(parameters(problem), lr=0.01)], 2)
    optimizer = torch.optim.Adam(parameters(by_hand), lr=0.01)
    torch.manual_seed(1)
    for _ in range(3):
        step(x)
    torch.manual_seed(1)
    for _ in range(3):
        estimate = again(by_hand.posterior(by_hand.encoder(x)), by_hand.target(x), 2)
        phi, theta = list(by_hand.encoder.parameters()), list(by_hand.decoder.parameters())
        phi_grads = torch.autograd.grad(-estimate.surrogate.mean(), phi, retain_graph=True)
        theta_grads = torch.autograd.grad(-estimate.value.mean(), theta) if theta else ()
        for p, g in zip((*phi, *theta), (*phi_grads, *theta_grads), strict=True):
            p.grad = g
        optimizer.step()
        again.update(estimate)
    for a, b in zip(parameters(problem), parameters(by_hand), strict=True):
        torch.testing.assert_close(a, b)


def test_one_tensor_gives_phi_the_score_and_theta_the_likelihood():
    problem = load_problem("vae[latent_dim=2,hidden=8]")
    x = next(problem.batches("train", 16, None))
    estimator = create("learned-baseline")
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    estimator.init(q, target)
    torch.manual_seed(5)
    estimate = estimator(q, target, 2)
    phi, theta, own = (list(m.parameters()) for m in (problem.encoder, problem.decoder, estimator))

    torch.manual_seed(5)
    with torch.no_grad():
        z = q.rsample((2,))
    f = target.log_likelihood(z)
    kl = torch.distributions.kl_divergence(q, target.prior.expand(q.batch_shape))
    baseline = estimator.baseline(f.detach(), target).detach()
    score = ((f.detach() - baseline) * q.log_prob(z)).mean(0)

    def gradients(tensor, inputs):
        return torch.autograd.grad(tensor.mean(), inputs, retain_graph=True, allow_unused=True)

    torch.testing.assert_close(estimate.value, f.mean(0) - kl)
    torch.testing.assert_close(gradients(estimate.surrogate, phi), gradients(score - kl, phi))
    torch.testing.assert_close(gradients(estimate.value, theta), gradients(f.mean(0), theta))
    assert all(g is None for g in gradients(estimate.surrogate, own))
    assert all(g is None for g in gradients(estimate.aux_loss, [*phi, *theta]))
    backward(estimate, phi, theta, own)
    torch.testing.assert_close([p.grad for p in theta], [-g for g in gradients(f.mean(0), theta)])
    assert all(p.grad is not None for p in (*phi, *theta, *own))


class Apart(Estimator):
    """Score function whose surrogate and value are two tensors."""

    def forward(self, q, target, num_samples):
        z = q.sample((num_samples,))
        f = target.log_likelihood(z)
        kl = analytic_kl(q, target)
        return Estimate((f.detach() * q.log_prob(z)).mean(0) - kl, f.mean(0) - kl)


def test_two_tensors_do_not_leak_into_each_other():
    problem = load_problem("vae[latent_dim=2,hidden=8]")
    x = next(problem.batches("train", 16, None))
    phi, theta = list(problem.encoder.parameters()), list(problem.decoder.parameters())
    found = []
    for estimator in (Apart(), create("score-function")):
        torch.manual_seed(5)
        q = problem.posterior(problem.encoder(x))
        for parameter in (*phi, *theta):
            parameter.grad = None
        backward(estimator(q, problem.target(x), 2), phi, theta, [])
        found.append([p.grad for p in (*phi, *theta)])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_improves_the_objective_and_leaves_the_problem_alone(optimizer):
    problem = load_problem("vae[latent_dim=2,hidden=16]")
    before = [p.clone() for p in parameters(problem)]
    rate = 0.01 if optimizer == "adam" else 0.05
    run = train(
        problem, "reparameterization", steps=200, optimizer=optimizer, learning_rate=rate, evaluate_every=100
    )
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(problem), strict=True))
    assert [h.step for h in run.history] == [0, 100, 200]
    assert run.history[-1].train_objective > run.history[0].train_objective + 5
    assert run.history[-1].heldout_objective > run.history[0].heldout_objective + 5
    assert 0 == run.history[0].seconds < run.history[1].seconds < run.history[2].seconds
    # log p(x) is at least the ELBO; the importance-weighted bound lies between, less its own noise
    assert run.heldout_log_likelihood > run.history[-1].heldout_objective - 0.1
    metrics = {r["metric"] for r in run.rows()}
    assert metrics == {
        "train_objective",
        "heldout_objective",
        "seconds",
        "heldout_log_likelihood",
        "learning_rate",
    }


def test_one_seed_gives_one_run():
    runs = [train("linear-gaussian", "leave-one-out", num_samples=2, steps=20, seed=s) for s in (3, 3, 4)]
    finals = [r.history[-1].train_objective for r in runs]
    assert finals[0] == finals[1] != finals[2]


def test_the_importance_weighted_bound_nears_the_likelihood():
    # p(x) = N(b, W Wᵀ + noise² I) in closed form; 2^15 importance samples in two dimensions.
    problem = load_problem("linear-gaussian[latent_dim=2,data_dim=3]")
    x = next(problem.batches("test", 50, None))
    w, b = problem.decoder.weight.detach(), problem.decoder.bias.detach()
    exact = torch.distributions.MultivariateNormal(b, w @ w.T + torch.eye(3)).log_prob(x).mean()
    bound = importance_weighted_log_likelihood(problem, x, 2**15, seed=0)
    assert bound == pytest.approx(float(exact), abs=0.03)
    assert bound > importance_weighted_log_likelihood(problem, x, 2, seed=0)


def evaluated_after(num_samples):
    """What is held out of a problem that training does not change, whatever S is trained with."""
    run = train(
        "bernoulli-vae[latent_dim=3,hidden=4]", "vimco", steps=1, num_samples=num_samples, learning_rate=1e-30
    )
    return [*(h.heldout_objective for h in run.history), run.heldout_log_likelihood]


def test_evaluation_has_its_own_number_of_samples(monkeypatch):
    assert evaluated_after(2) == evaluated_after(7)

    def with_those_of_training(num_samples):
        def wrong(problem, x, importance_samples, seed):
            return importance_weighted_log_likelihood(problem, x, num_samples, seed)

        monkeypatch.setattr(module, "importance_weighted_log_likelihood", wrong)
        return evaluated_after(num_samples)

    assert with_those_of_training(2) != with_those_of_training(7)


def validating():
    """A problem whose posterior raises where a parameter is not what a distribution can have."""
    problem = load_problem("quadratic")
    problem.posterior = lambda eta: Independent(Normal(*chunks(eta), validate_args=True), 1)
    return problem


def chunks(eta):
    mean, log_scale = eta.chunk(2, -1)
    return mean, log_scale.exp()


@pytest.mark.parametrize("every", [1, 400])
@pytest.mark.parametrize("build", [lambda: "quadratic", validating])
def test_divergence_is_said(build, every):
    settings = {"steps": 400, "optimizer": "sgd", "learning_rate": 5.0, "evaluate_every": every}
    run = train(build(), "reparameterization", **settings)
    assert run.diverged is not None
    assert not math.isfinite(run.history[-1].train_objective)
    assert {
        r["status"] for r in run.rows() if r["step"] == run.diverged and r["metric"] == "train_objective"
    } == {"diverged"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, not 0"),
        ({"optimizer": "lion"}, "optimizer='lion' is not one of adam, sgd"),
        ({"learning_rate": -1.0}, "learning_rate must be a positive number, not -1.0"),
        ({"batch_size": 2000}, "batch size 2000 exceeds"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, not 0"),
    ],
)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(UsageError, match=message):
        train("vae", "score-function", **arguments)


def test_an_unsupported_posterior_is_one_line():
    with pytest.raises(UsageError, match="needs a reparameterizable posterior; Bernoulli is not"):
        train("bernoulli-vae", "reparameterization", steps=1)


@pytest.mark.parametrize(
    ("problem", "objective"),
    [
        ("small-vae", ""),
        ("small-vae[kl_weight=4]", "elbo[kl_weight=4]"),
        ("small-vae[free_bits=0.1]", "elbo[free_bits=0.1]"),
    ],
)
def test_rows_of_a_weighted_objective_name_it(problem, objective):
    rows = train(problem, "reparameterization", steps=2).rows()
    assert {row["objective"] for row in rows} == {objective}
