"""Local learning signals: exact means on every small graph, by enumeration, and what would be wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from elbograd.estimators import Estimate, UsageError, create
from elbograd.estimators.methods.score_function import ScoreFunction
from elbograd.estimators.pieces import local_signals as local
from every_way import every_way
from hierarchies import Hierarchy

UP, DOWN = {"z2": ("z1",)}, {"z1": ("z2",)}
GRAPHS = {
    # sizes, parents in q, parents in p, what log p(x|z) reads
    "up": ({"z1": 2, "z2": 1}, UP, DOWN, ("z1",)),
    "down": ({"z1": 1, "z2": 2}, DOWN, DOWN, ("z1",)),
    "all-read": ({"z1": 1, "z2": 1}, UP, DOWN, None),
    "independent": ({"z1": 1, "z2": 1}, {}, {}, None),
    "chain": (
        {"z1": 1, "z2": 1, "z3": 1},
        {"z2": ("z1",), "z3": ("z2",)},
        {"z1": ("z2",), "z2": ("z3",)},
        ("z1",),
    ),
    "fork": ({"z1": 1, "z2": 1, "z3": 1}, {"z2": ("z1",), "z3": ("z1",)}, {"z1": ("z2", "z3")}, ("z1", "z2")),
    "collider": ({"z1": 1, "z2": 1, "z3": 1}, {"z3": ("z1", "z2")}, {"z1": ("z3",), "z2": ("z3",)}, ("z2",)),
    "alone": ({"z1": 1, "z2": 1, "z3": 1}, {"z2": ("z1",)}, {"z2": ("z3",)}, ("z1", "z3")),
}


def hierarchy(graph, **kwargs):
    sizes, q_parents, p_parents, reads = GRAPHS[graph]
    return Hierarchy(sizes, q_parents, p_parents, reads, seed=len(graph), **kwargs)


def mean_gradients(model, estimator, num_samples):
    """Exact means of the gradients in φ and in θ, and of value."""

    def estimate(ways):
        return estimator(model.q(ways), model.target(ways), num_samples)

    weights, found = every_way(estimate)
    value = (weights * found.value).sum()
    return (
        model.gradients((weights * found.surrogate).sum(), model.phi),
        model.gradients(value, model.theta),
        value.detach(),
    )


def check_exact(model, found):
    exact = model.exact()
    torch.testing.assert_close(found[0], model.gradients(exact, model.phi), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found[1], model.gradients(exact, model.theta), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found[2], exact.detach())


FAMILY = [
    ("score-function[kl=sampled]", 1),
    ("constant-baseline[value=-1.5,kl=sampled]", 1),
    ("leave-one-out[kl=sampled]", 2),
    ("leave-one-out[kl=sampled,signal=local]", 2),
    ("score-function[kl=sampled,signal=whole]", 1),
    ("vargrad", 2),
]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("spec", "num_samples"), FAMILY)
def test_means_are_exact(spec, num_samples, graph):
    model = hierarchy(graph)
    estimator = create(spec)
    assert estimator.supports(model.q(1), model.target(), num_samples) is None
    check_exact(model, mean_gradients(model, estimator, num_samples))


@pytest.mark.parametrize("graph", ["up", "chain", "collider"])
@pytest.mark.parametrize("weight", [0.5, 0.0, {"z1": 0.3, "z2": 2.0, "z3": 0.0}])
def test_a_weighted_kl_is_weighed_latent_by_latent(graph, weight):
    if isinstance(weight, dict):
        weight = {name: weight[name] for name in GRAPHS[graph][0]}
    model = hierarchy(graph, kl_weight=weight)
    check_exact(model, mean_gradients(model, create("score-function[kl=sampled]"), 1))


@pytest.mark.parametrize(
    "spec", ["moving-average-baseline[kl=sampled]", "learned-baseline[hidden=2,kl=sampled]"]
)
def test_baselines_with_state_have_one_of_each_latent(spec):
    model = hierarchy("chain")
    torch.manual_seed(0)
    estimator = create(spec).double()

    def estimate(ways):
        target = model.target(ways, features=True)
        estimator.init(model.q(ways), target)
        return estimator(model.q(ways), target, 1)

    with torch.no_grad():
        q, target = model.q(1000), model.target(1000, features=True)
        estimator.init(q, target)
        estimator.update(estimator(q, target, 1))
    weights, found = every_way(estimate)
    mean = model.gradients((weights * found.surrogate).sum(), model.phi)
    torch.testing.assert_close(mean, model.gradients(model.exact(), model.phi))
    # Each centres its own latent's signal: b is the mean of 1000 draws, or of 64 for each of 1000 data.
    each = local.local_signals(model.q(1), model.target(), model.every_z().unsqueeze(1), "sampled")
    probabilities = sum(each.log_q.values()).exp()[:, 0]
    if spec.startswith("moving"):
        state = estimator.average / estimator.weight
    else:
        state = torch.cat([network[-1].bias for network in estimator.network.values()])
    for found_mean, signal in zip(state.detach(), each.signals.values(), strict=True):
        mean = (probabilities * signal[:, 0]).sum()
        spread = (probabilities * (signal[:, 0] - mean).square()).sum().sqrt()
        assert (found_mean - mean).abs() < 5 * spread / 1000**0.5  # 5 standard errors of 6: below 1e-5


def test_a_learned_baseline_sees_the_parents():
    # Of three states of the parents and one datum: b differs between samples where the parent does, and only there.
    model = hierarchy("chain")
    estimator = create("learned-baseline[hidden=4,kl=sampled]")
    target = model.target(1, features=True)
    estimator.init(model.q(1), target)
    latents = {name: torch.tensor([0.0, 1.0, 1.0]).double().reshape(3, 1, 1) for name in model.sizes}
    latents["z3"] = latents["z3"].flip(0)
    signals = {name: torch.zeros(3, 1).double() for name in model.sizes}
    found = estimator.baselines(signals, target, latents)
    assert found["z1"].shape == (1,)
    for name in ("z2", "z3"):  # drawn given z¹ and z²
        first, second, third = found[name][:, 0]
        assert second == third
        assert first != second


@pytest.mark.parametrize("spec", ["vargrad", "thermodynamic[partitions=1]"])
def test_what_is_leave_one_out_is_so_on_layers(spec):
    model = hierarchy("fork")
    found = []
    for each in (spec, "leave-one-out[kl=sampled]"):
        torch.manual_seed(3)
        found.append(create(each)(model.q(5), model.target(), 3).surrogate.sum())
    torch.testing.assert_close(*(model.gradients(value, model.phi) for value in found))


def test_signals_are_the_terms_that_depend_on_the_latent():
    # q: z1 → z2 → z3, p: z3 → z2 → z1, log p(x|z¹). The top reads −log q₃ + log p₃ + log p₂.
    model = hierarchy("chain")
    q, target = model.q(4), model.target()
    z = q.sample((3,))
    found = local.local_signals(q, target, z, "sampled")
    log_q, log_p = q.log_probs(z), target.prior.log_probs(z)
    top = log_p["z3"] + log_p["z2"] - log_q["z3"]
    middle = top + log_p["z1"] - log_q["z2"]
    bottom = middle + target.log_likelihood(z) - log_q["z1"]
    for name, expected in (("z1", bottom), ("z2", middle), ("z3", top)):
        torch.testing.assert_close(found.signals[name], expected.detach())
    torch.testing.assert_close(found.f.detach(), bottom.detach())


def test_a_prior_in_one_piece_is_read_by_all():
    model = hierarchy("up")
    every = model.target().prior

    class Joint(torch.distributions.Distribution):
        arg_constraints: dict = {}  # noqa: RUF012

        def log_prob(self, z):
            return every.log_prob(z)

    joint = Joint(torch.Size(()), every.event_shape, validate_args=False)
    target = model.target()
    whole = replace(target, prior=joint)
    weights, found = every_way(lambda ways: create("score-function[kl=sampled]")(model.q(ways), whole, 1))
    mean = model.gradients((weights * found.surrogate).sum(), model.phi)
    torch.testing.assert_close(mean, model.gradients(model.exact(), model.phi))


# --- What would be wrong ---


@pytest.mark.parametrize("graph", ["up", "chain", "fork", "collider"])
def test_signals_without_the_descendants_are_biased(graph, monkeypatch):
    monkeypatch.setattr(local, "descendants", lambda q, name: frozenset({name}))
    model = hierarchy(graph)
    found = mean_gradients(model, create("score-function[kl=sampled]"), 1)[0]
    assert not torch.allclose(found, model.gradients(model.exact(), model.phi), rtol=1e-3)


def test_a_likelihood_that_reads_more_than_it_says_is_biased():
    model = hierarchy("all-read")
    said = model.target

    def target(*args, **kwargs):
        return replace(said(*args, **kwargs), reads=("z1",))

    model.target = target
    found = mean_gradients(model, create("score-function[kl=sampled]"), 1)[0]
    assert not torch.allclose(found, model.gradients(model.exact(), model.phi), rtol=1e-3)


# --- Subclasses of users, and mistakes ---


def test_a_users_baseline_is_asked_latent_by_latent():
    class Mine(ScoreFunction):
        asked = 0

        def baseline(self, f, target):
            self.asked += 1
            return f.flip(0)

        def aux_loss(self, f, baseline):
            return (f - baseline).square().mean(0)

    model = hierarchy("up")
    estimator = Mine(kl="sampled")
    check_exact(model, mean_gradients(model, estimator, 2))
    assert estimator.asked == 4
    estimate = estimator(model.q(3), model.target(), 2)
    assert isinstance(estimate, Estimate)
    assert estimate.aux_loss.shape == (3,)


@pytest.mark.parametrize(
    "spec",
    ["constant-baseline[kl=sampled]", "moving-average-baseline[kl=sampled]", "learned-baseline[kl=sampled]"],
)
def test_a_baseline_of_another_number_of_latents_says_so(spec):
    estimator = create(spec)
    chain, up = hierarchy("chain"), hierarchy("up")
    estimator.init(chain.q(2), chain.target(2, features=True))
    with pytest.raises(UsageError, match="3 latents, and this posterior has 2"):
        estimator(up.q(2), up.target(2, features=True), 1)


@pytest.mark.parametrize("batch", [(1,), (256,), (3, 1)])
@pytest.mark.parametrize("num_samples", [1, 3, 100])
@pytest.mark.parametrize("spec", ["score-function[kl=sampled]", "moving-average-baseline[kl=sampled]"])
def test_shapes_and_dtypes(spec, num_samples, batch):
    model = hierarchy("up")
    for leaves in (model.phi, model.theta):
        for name in leaves:
            leaves[name] = leaves[name].detach().float().requires_grad_()
    estimator = create(spec)
    estimator.init(model.q(*batch), model.target())
    estimate = estimator(model.q(*batch), model.target(), num_samples)
    assert estimate.surrogate.shape == batch
    assert estimate.surrogate.dtype == torch.float32
    assert estimate.info["f[z2]"].shape == (num_samples, *batch)
    estimator.update(estimate)
