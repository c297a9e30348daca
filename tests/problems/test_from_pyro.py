"""Pyro models and guides as problems, held against Pyro's own ELBO, its gradients and a plain loop."""

from __future__ import annotations

import sys
import warnings
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from elbograd.benchmarks import measure_variance, train
from elbograd.benchmarks.problems import from_pyro
from elbograd.benchmarks.problems.placement import place
from elbograd.estimators import Layered, create
from elbograd.estimators.errors import UsageError

pyro = pytest.importorskip("pyro", reason="Pyro is not installed: pip install pyro-ppl")
import pyro_programs as programs  # noqa: E402
from pyro import distributions as dist  # noqa: E402
from pyro import infer, poutine  # noqa: E402
from scipy import stats  # noqa: E402
from torch import nn  # noqa: E402

B = 6


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


@pytest.fixture
def _in_float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def in_elbograd(problem, x, estimator, seed):
    """The batch's summed value and gradients, by name."""
    estimator = create(estimator)
    torch.manual_seed(seed)
    q, target = problem.posterior(problem.encoder(x)), problem.target(x)
    assert estimator.supports(q, target, 1) is None
    estimate = estimator(q, target, 1)
    found = {}
    for side, of in ((problem.encoder, estimate.surrogate), (problem.decoder, estimate.value)):
        names, tensors = zip(*side.named_parameters(), strict=True)
        gradients = torch.autograd.grad(of.sum(), tensors, retain_graph=True, allow_unused=True)
        found |= dict(zip(names, gradients, strict=True))
    return estimate.value.sum().detach(), found


def in_pyro(program, x, loss, seed):
    """Pyro's loss and its gradients in the unconstrained parameters, by name."""
    with pyro.get_param_store().scope():
        torch.manual_seed(seed)
        value = loss.loss_and_grads(program.model, program.guide, x)
        found = {}
        for name, parameter in pyro.get_param_store().named_parameters():
            found[name.replace("$$$", ".")] = parameter.grad.clone()
            parameter.grad = None
    return torch.tensor(value), found


CASES = {
    "vae": (programs.vae, infer.Trace_ELBO, "reparameterization[kl=sampled]"),
    "vae, analytic": (programs.vae, infer.TraceMeanField_ELBO, "reparameterization"),
    "parameters": (programs.parameters, infer.Trace_ELBO, "reparameterization[kl=sampled]"),
    "bernoulli": (programs.bernoulli, infer.Trace_ELBO, "score-function[kl=sampled]"),
    "hierarchy": (programs.hierarchy, infer.Trace_ELBO, "reparameterization[kl=sampled]"),
    "modules": (programs.modules, infer.Trace_ELBO, "reparameterization[kl=sampled]"),
    "flow": (programs.flow, infer.Trace_ELBO, "reparameterization[kl=sampled]"),
    "planar": (programs.planar, infer.Trace_ELBO, "reparameterization[kl=sampled]"),
    "views": (programs.views, infer.Trace_ELBO, "reparameterization[kl=sampled]"),
    "positive": (programs.positive, infer.Trace_ELBO, "reparameterization[kl=sampled]"),
}


@pytest.mark.usefixtures("_in_float64")
@pytest.mark.parametrize("name", CASES)
def test_the_same_draws_give_pyros_loss_and_gradients(name):
    make, loss, estimator = CASES[name]
    program, x = make(), programs.data(B)
    scale = program.scale(B)
    value, ours = in_elbograd(from_pyro(program.model, program.guide, x), x, estimator, 3)
    theirs_value, theirs = in_pyro(program, x, loss(), 3)
    torch.testing.assert_close(-scale * value, theirs_value)
    assert theirs
    for full, expected in theirs.items():
        (found,) = [
            g for key, g in ours.items() if full.endswith(key) or f"{full}_unconstrained".endswith(key)
        ]
        torch.testing.assert_close(-scale * found, expected)
    torch.manual_seed(3)
    torch.testing.assert_close(torch.tensor(loss().loss(program.model, program.guide, x)), theirs_value)


def test_a_mixed_guide_has_pyros_mean_gradient():
    """Each estimates in its own way: their means are one.

    False alarms: 1e-3 over all coordinates (Bonferroni), by Student's t of 40 means of 300 draws each.
    """
    program, x, blocks = programs.mixed(), programs.data(2), 40
    problem = from_pyro(program.model, program.guide, x)
    names, tensors = zip(*problem.encoder.named_parameters(), strict=True)
    estimator, many = create("leave-one-out[kl=sampled]"), x.repeat(300, 1)
    ours, theirs = [], []
    for seed in range(blocks):
        torch.manual_seed(1000 + seed)
        surrogate = estimator(problem.posterior(problem.encoder(many)), problem.target(many), 2).surrogate
        gradients = torch.autograd.grad(surrogate.mean(), tensors)
        ours.append(torch.cat([g.flatten() for g in gradients]))
        _, found = in_pyro(program, many, infer.Trace_ELBO(), seed)
        theirs.append(-torch.cat([found[name].flatten() for name in names]) / len(many))
    ours, theirs = torch.stack(ours).double(), torch.stack(theirs).double()
    moving = ours.var(0) > 0
    assert torch.equal(moving, theirs.var(0) > 0)
    error = ((ours.var(0) + theirs.var(0)) / blocks).sqrt()[moving]
    t = (ours.mean(0) - theirs.mean(0))[moving] / error
    bound = stats.t.isf(1e-3 / (2 * len(t)), 2 * (blocks - 1))
    assert float(t.abs().max()) < bound
    # It would see a fifth of the gradient missing.
    assert float((0.2 * ours.mean(0)[moving] / error).abs().max()) > bound


@pytest.mark.usefixtures("_in_float64")
def test_scores_of_layers_are_weighed_as_by_pyros_graph():
    """With z kept from the pathwise gradient, TraceGraph_ELBO weighs each score by what is downstream of it."""
    program, x = programs.mixed(), programs.data(B)
    problem = from_pyro(program.model, program.guide, x)
    value, ours = in_elbograd(problem, x, "score-function[kl=sampled]", 3)
    program.guide = _scored(program.guide)
    theirs_value, theirs = in_pyro(program, x, infer.TraceGraph_ELBO(), 3)
    torch.testing.assert_close(-value, theirs_value)
    for name, expected in theirs.items():
        torch.testing.assert_close(-ours[name], expected)


def _scored(guide):
    class Scored(poutine.messenger.Messenger):
        def _pyro_sample(self, message):
            if message["name"] == "z":
                message["fn"].base_dist.has_rsample_(False)

    return Scored()(guide)


ALL = {
    "vae": programs.vae,
    "parameters": programs.parameters,
    "bernoulli": programs.bernoulli,
    "hierarchy": programs.hierarchy,
    "mixed": programs.mixed,
    "modules": programs.modules,
    "counts": programs.counts,
    "flow": programs.flow,
    "positive": programs.positive,
}


def of(name, x=None):
    program = (ALL | {"planar": programs.planar})[name]()
    return from_pyro(program.model, program.guide, programs.data() if x is None else x)


@pytest.mark.parametrize("name", ALL)
def test_replicates_at_once_are_replicates_one_by_one(name):
    problem, x = of(name), programs.data(3)
    eta = torch.stack([problem.encoder(x), problem.encoder(x) + 0.01 * ("x" not in problem.eta_parts)])
    q, target = problem.posterior(eta), problem.target(x)
    torch.manual_seed(1)
    z = q.sample((2,))
    assert z.shape == (2, 2, 3, problem.latent_dim)
    f, log_q, log_p = target.log_likelihood(z), q.log_prob(z), target.prior.log_prob(z)
    for r in range(2):
        one = problem.posterior(eta[r])
        torch.testing.assert_close(one.log_prob(z[:, r]), log_q[:, r])
        for s in range(2):
            torch.testing.assert_close(target.log_likelihood(z[s, r]), f[s, r])
            torch.testing.assert_close(target.prior.log_prob(z[s, r]), log_p[s, r])


@pytest.mark.parametrize(
    ("name", "estimator"), [("vae", "leave-one-out"), ("parameters", "reparameterization")]
)
def test_the_total_is_that_of_a_loop(name, estimator):
    """False alarms below 0.6%: two intervals of 95% miss each other, 2.77 of their joint errors apart."""
    problem, x = of(name), programs.data(B)
    fast = measure_variance(problem, estimator, x, num_samples=2, replicates=2000)
    slow = measure_variance(problem, estimator, x, num_samples=2, replicates=200, route="full", seed=1)
    assert fast.route == "factorized"
    assert slow.ci_low < fast.ci_high
    assert fast.ci_low < slow.ci_high


@pytest.mark.parametrize(
    ("name", "estimator"),
    [("hierarchy", "sticking-the-landing"), ("counts", "leave-one-out"), ("flow", "iwae")],
)
@pytest.mark.parametrize(("batch", "dtype"), [(1, "float32"), (7, "float64")])
def test_latents_that_depend_on_each_other_take_the_full_route(name, estimator, batch, dtype):
    problem = of(name)
    v = measure_variance(problem, estimator, batch_size=batch, num_samples=3, replicates=5, dtype=dtype)
    assert v.route == "full"
    assert v.total > 0


def test_a_flow_without_inverse_is_scored_with_its_draw_alone():
    problem = of("planar")
    v = measure_variance(problem, "reparameterization[kl=sampled]", batch_size=4, replicates=10)
    assert v.total > 0
    with pytest.raises(UsageError, match="has no inverse"):
        measure_variance(problem, "score-function[kl=sampled]", batch_size=4, replicates=10)


def test_what_depends_on_what_is_found():
    problem = of("hierarchy")
    q, target = problem.posterior(problem.encoder(programs.data(2))), problem.target(programs.data(2))
    assert isinstance(q, Layered)
    assert q.parents == {"z1": (), "z2": ("z1",)}
    assert target.prior.parents == {"z1": ("z2",), "z2": ()}
    assert target.reads == ("z1",)
    assert of("counts").posterior(of("counts").encoder(programs.data(2))).parents == {"k": (), "s": ("k",)}


def test_labels_are_observed_where_the_programs_take_them():
    program, x = programs.mixed(), programs.data()
    labels = nn.functional.one_hot(torch.arange(len(x)) % program.classes, program.classes).float()
    problem = from_pyro(program.model, program.guide, (x, labels))
    assert [latent.name for latent in problem.latents] == ["z"]
    assert measure_variance(problem, "reparameterization", batch_size=4, replicates=10).route == "factorized"
    plain = programs.vae()
    weighed = [lambda x, beta=1.0: plain.model(x), lambda x, beta=1.0: plain.guide(x)]
    assert next(from_pyro(*weighed, (x, labels)).batches("test", 2)).shape == x[:2].shape  # no label is β


def test_scales_weigh_the_kl():
    assert of("parameters").kl_weight == 4.0
    assert of("parameters").target(programs.data(2)).kl_weight == 4.0
    assert of("bernoulli").kl_weight == 1.0
    views = programs.views()
    assert from_pyro(views.model, views.guide, programs.data()).kl_weight == 0.5
    program = programs.vae()
    tenth = [poutine.scale(each, scale=0.1) for each in (program.model, program.guide)]
    assert from_pyro(*tenth, programs.data()).kl_weight == 1.0


def test_subsamples_that_pyro_draws_are_the_batch():
    one = programs.VAE()

    def model(x):
        pyro.module("decoder", one.decoder)
        with pyro.plate("data", len(x), subsample_size=5) as index:
            z = pyro.sample("latent", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("obs", dist.Bernoulli(one.decoder(z)).to_event(1), obs=x[index])

    def guide(x):
        pyro.module("encoder", one.encoder)
        with pyro.plate("data", len(x), subsample_size=5) as index:
            pyro.sample("latent", dist.Normal(*one.encoder(x[index])).to_event(1))

    torch.manual_seed(0)
    x = programs.data(B)
    ours, plain = from_pyro(model, guide, x), from_pyro(one.model, one.guide, x)
    assert torch.equal(ours.encoder(x), plain.encoder(x))
    z = plain.posterior(plain.encoder(x)).sample((2,))
    assert torch.equal(ours.target(x).log_likelihood(z), plain.target(x).log_likelihood(z))


def test_models_and_store_stay_as_they_are():
    program, x = programs.parameters(), programs.data()
    pyro.param("spread", torch.full((2,), 0.2), constraint=torch.distributions.constraints.interval(0.1, 3.0))
    before = {name: (id(p), p.clone()) for name, p in pyro.get_param_store().named_parameters()}
    problem = from_pyro(program.model, program.guide, x)
    torch.testing.assert_close(
        problem.posterior(problem.encoder(x)).base_dist.scale[0], torch.full((2,), 0.2)
    )
    measure_variance(problem, "reparameterization", batch_size=B, replicates=20)
    after = {name: (id(p), p) for name, p in pyro.get_param_store().named_parameters()}
    assert before.keys() == after.keys()
    assert all(before[name][0] == after[name][0] for name in before)


def test_trained_models_are_measured_as_trained():
    program, x = programs.parameters(), programs.data(B)
    svi = infer.SVI(program.model, program.guide, pyro.optim.Adam({"lr": 0.1}), infer.Trace_ELBO())
    for _ in range(3):
        svi.step(x)
    store = {name.replace("$$$", "."): p for name, p in pyro.get_param_store().named_parameters()}
    problem = from_pyro(program.model, program.guide, x)
    ours = dict(problem.encoder.named_parameters()) | dict(problem.decoder.named_parameters())
    assert ours.keys() == store.keys()
    assert all(torch.equal(ours[name], store[name]) for name in ours)
    other = programs.parameters()  # of the same names, as in a notebook where a cell is run again
    with pytest.raises(UsageError, match="clear_param_store"):
        from_pyro(other.model, other.guide, x)


def test_copies_are_apart():
    program = programs.vae()
    program.vae.encoder.fc1.register_buffer("seen", torch.zeros(()))
    problem, x = from_pyro(program.model, program.guide, programs.data()), programs.data(3)
    state = {name: (id(p), p.clone()) for name, p in program.vae.named_parameters()}
    other, double = deepcopy(problem), place(problem, dtype="float64")
    with torch.no_grad():
        for p in other.encoder.parameters():
            p.add_(0.1)
    eta, moved = problem.encoder(x), double.encoder(x.double())
    assert moved.dtype == torch.float64
    torch.testing.assert_close(moved, eta.double(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(other.encoder(x), eta)
    assert torch.equal(problem.encoder(x), eta)
    z = problem.posterior(eta).sample((2,))
    likely = double.target(x.double()).log_likelihood(z.double())
    torch.testing.assert_close(likely, problem.target(x).log_likelihood(z).double(), rtol=1e-5, atol=1e-5)
    now = dict(program.vae.named_parameters())
    assert all(
        id(now[name]) == known and torch.equal(now[name], value) for name, (known, value) in state.items()
    )


def test_the_encoders_layers_have_rules():
    problem = of("vae")
    v = measure_variance(problem, "reparameterization", batch_size=4, replicates=20)
    assert set(v.per_parameter) == {
        f"encoder.{layer}.{kind}" for layer in ("fc1", "fc21", "fc22") for kind in ("weight", "bias")
    }
    assert problem.eta_parts == {"loc": slice(0, 3), "scale": slice(3, 6)}


def test_training_moves_copies():
    problem = of("hierarchy")
    result = train(problem, "learned-baseline[kl=sampled]", steps=3, batch_size=8, num_samples=2)
    assert result.rows()


PLATE = "with pyro.plate('data', len(x)):"


def programs_with(guide_z=None, model_z=None, observed=None, plate=True):
    """The simplest pair of programs, with other statements."""
    one = programs.VAE()
    draw = guide_z or (lambda x: pyro.sample("z", dist.Normal(*one.encoder(x)).to_event(1)))
    prior = model_z or (lambda x: pyro.sample("z", dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1)))
    data = observed or (lambda x, z: pyro.sample("x", dist.Bernoulli(one.decoder(z)).to_event(1), obs=x))

    def model(x):
        pyro.module("decoder", one.decoder)
        with pyro.plate("data", len(x)) if plate else nullcontext():
            data(x, prior(x))

    def guide(x):
        pyro.module("encoder", one.encoder)
        with pyro.plate("data", len(x)) if plate else nullcontext():
            draw(x)

    return model, guide


def normal(name="z", **kwargs):
    return lambda x: pyro.sample(name, dist.Normal(torch.zeros(len(x), 3), 1.0).to_event(1), **kwargs)


def sequential(x):
    for i in pyro.plate("rows", len(x)):
        pyro.sample(f"z{i}", dist.Normal(0.0, 1.0))


def nested(x, z):
    with pyro.plate("pixels", programs.PIXELS, dim=-2):
        pyro.sample("x", dist.Bernoulli(0.5 * torch.ones(programs.PIXELS, len(x))), obs=x.T)


def halves(x, z):
    pyro.sample("x", dist.Normal(z[:, 0], 1.0), obs=x[:, 0], obs_mask=x[:, 1] > 0)


def sometimes(x):
    z = normal()(x)
    if z[0, 0] > 0.3:
        pyro.sample("more", dist.Normal(torch.zeros(len(x)), 1.0))
    return z


def scaled(x):
    with poutine.scale(scale=0.5):
        return normal()(x)


def by_rows(x):
    with poutine.scale(scale=1 / len(x)):
        return normal()(x)


def per_datum(x):
    loc = pyro.param("loc", torch.zeros(len(x), 3), event_dim=1)
    pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def jitted(x):
    with warnings.catch_warnings(action="ignore"):  # torch.jit is deprecated, and still used
        net = torch.jit.script(nn.Linear(programs.PIXELS, 3))
    pyro.sample("z", dist.Normal(pyro.module("net", net)(x), 1.0).to_event(1))


REFUSED = {
    "no plate": ({"plate": False}, "is in no plate"),
    "nested plates": ({"observed": nested}, "is in 2 plates"),
    "sequential": ({"guide_z": sequential}, "sequential plate 'rows'"),
    "enumerated": ({"guide_z": normal(infer={"enumerate": "parallel"})}, "enumerated"),
    "auxiliary": ({"guide_z": normal(infer={"is_auxiliary": True})}, "auxiliary"),
    "masked": ({"observed": halves}, "masked"),
    "a point": ({"guide_z": lambda x: pyro.sample("z", dist.Delta(x[:, :3]).to_event(1))}, "Delta"),
    "not of the model": ({"guide_z": normal("w")}, "the guide draws 'w', which the model does not have"),
    "not of the guide": ({"model_z": lambda x: (normal()(x), normal("w")(x))[0]}, "the model draws 'w'"),
    "nothing observed": ({"observed": lambda x, z: None}, "observes nothing"),
    "observed in the guide": ({"guide_z": lambda x: normal(obs=x[:, :3])(x)}, "a guide draws latents alone"),
    "another event": ({"guide_z": lambda x: pyro.sample("z", dist.Normal(x[:, 0], 1.0))}, "event shape"),
    "no event": ({"guide_z": lambda x: pyro.sample("z", dist.Normal(x[:, :3].T, 1.0))}, r"to_event\(1\)"),
    "statements that change": ({"model_z": sometimes, "guide_z": sometimes}, "'more'"),
    "a scale on one side": ({"model_z": scaled}, "is scaled by 1 in the guide and by 0.5 in the model"),
    "a scale by rows": ({"model_z": by_rows, "guide_z": by_rows}, "changes with the number of data"),
    "a value for each datum": ({"guide_z": per_datum}, "amortized"),
    "a scripted module": ({"guide_z": jitted}, "torch.jit"),
    "no event at all": ({"guide_z": lambda x: pyro.sample("z", dist.Normal(x[:, :3], 1.0))}, r"\(.*inside plate.*\): .to_event"),
    "what fails": ({"guide_z": lambda x: 1 / 0}, "the guide fails .*ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_said_in_one_line(name):
    statements, why = REFUSED[name]
    with pytest.raises(UsageError, match=why) as refused:
        from_pyro(*programs_with(**statements), programs.data())
    assert "\n" not in str(refused.value)


def test_parameters_that_cannot_be_sorted_are_refused():
    one, x = programs.VAE(), programs.data()
    model, guide = programs_with()

    def untold(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*one.encoder(x)).to_event(1))

    with pytest.raises(UsageError, match="Pyro is not told of"):
        from_pyro(model, untold, x)
    shared = nn.Linear(3, 3)

    def both(x):
        pyro.module("shared", shared)
        return pyro.sample("z", dist.Normal(shared(x[:, :3]), 1.0).to_event(1))

    with pytest.raises(UsageError, match="used by the guide and by the model"):
        from_pyro(*programs_with(guide_z=both, model_z=both), x)
    with pytest.raises(UsageError, match="AutoNormal is not amortized"):
        from_pyro(model, infer.autoguide.AutoNormal(model), x)
    with pytest.raises(UsageError, match="the model is"):
        from_pyro(programs.VAE, guide, x)


def test_without_pyro_a_line_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "pyro" or ".own_pyro." in name]:
        if not name.endswith(".own_pyro.building"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyro", None)
    with pytest.raises(UsageError, match=r"pip install 'elbograd\[pyro\]'"):
        from_pyro(print, print, programs.data())


def test_a_file_names_it(tmp_path):
    file = tmp_path / "my_pyro.py"
    file.write_text(
        "import pyro_programs as programs\n"
        "from elbograd.benchmarks.problems import from_pyro\n"
        "vae = programs.VAE()\n"
        "problem = from_pyro(vae.model, vae.guide, programs.data())\n"
    )
    v = measure_variance(f"{file}:problem", "reparameterization", batch_size=4, replicates=10)
    assert {row["problem"] for row in v.rows()} == {"VAE"}
