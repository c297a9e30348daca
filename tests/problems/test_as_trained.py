"""Models that compute otherwise without gradients, of mixed types, or whose likelihood is cut off from z."""

import pytest
import torch
from elbograd.benchmarks import advise, measure_throughput, measure_variance, train
from elbograd.benchmarks.problems.as_trained import as_evaluated, eta_of, without_graph
from elbograd.benchmarks.problems.placement import place
from elbograd.benchmarks.training.held_out import evaluate_elbo
from elbograd.estimators import Target
from elbograd.estimators.errors import UsageError
from torch import nn
from torch.distributions import Independent, Normal

D, PIXELS = 2, 6


class Model:
    latent_dim = D

    def __init__(self, encoder=None, likelihood=None):
        torch.manual_seed(0)
        self.encoder, self.decoder = encoder or nn.Linear(PIXELS, 2 * D), nn.Linear(D, PIXELS)
        self.data, self.likelihood = torch.rand(40, PIXELS), likelihood or self.squares

    def squares(self, z, x):
        return -(self.decoder(z) - x).square().sum(-1)

    def posterior(self, eta):
        loc, log_scale = eta.chunk(2, -1)
        return Independent(Normal(loc, log_scale.exp()), 1)

    def target(self, x):
        prior = Independent(Normal(torch.zeros(D).to(x), torch.ones(D).to(x)), 1)
        return Target(lambda z: self.likelihood(z, x), prior)

    def batches(self, split, batch_size, generator=None):
        yield from self.data.split(batch_size)


class Branching(nn.Module):
    """Of the kind that takes another way where no gradient is wanted."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(PIXELS, 2 * D)

    def forward(self, x):
        return self.last(x) if torch.is_grad_enabled() else 0 * self.last(x) + 1


def test_evaluation_sees_the_eta_that_training_sees():
    torch.manual_seed(0)
    model, plain = Model(Branching()), Model()
    plain.encoder, plain.decoder, plain.data = model.encoder.last, model.decoder, model.data
    assert evaluate_elbo(model, model.data, 0) == evaluate_elbo(plain, plain.data, 0)
    with as_evaluated(model):
        assert not model.encoder(model.data).requires_grad
    assert all(p.requires_grad for p in model.encoder.parameters())
    with torch.no_grad():
        assert torch.equal(eta_of(model, model.data), plain.encoder(plain.data))


def test_parameters_frozen_by_the_user_stay_so():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    with without_graph(layer):
        assert not layer.weight.requires_grad
    assert layer.weight.requires_grad and not layer.bias.requires_grad


@pytest.mark.parametrize("cut", [torch.Tensor.detach, lambda z: (z > 0).float()])
@pytest.mark.parametrize("how", ["variance", "train"])
def test_a_likelihood_cut_off_from_z_is_told_where_it_is_differentiated(cut, how):
    def measure(model, estimator):
        if how == "train":
            return train(model, estimator, steps=1, batch_size=4)
        return measure_variance(model, estimator, model.data[:4], replicates=10)

    model = Model()
    model.likelihood = lambda z, x: model.squares(cut(z), x)
    with pytest.raises(UsageError, match="depends on z, but not differentiably"):
        measure(model, "reparameterization")
    measure(model, "score-function")


def test_a_likelihood_that_is_the_same_for_every_z_is_differentiable():
    model = Model(likelihood=lambda z, x: z.new_zeros(z.shape[:-1]))
    measure_variance(model, "reparameterization", model.data[:4], replicates=10)


@pytest.mark.parametrize("measure", [train, measure_throughput, advise])
def test_an_encoder_without_trainable_parameters_is_told(measure):
    model = Model(nn.Linear(PIXELS, 2 * D).requires_grad_(False))
    with pytest.raises(UsageError, match="no trainable parameters in its encoder"):
        measure(model, *([] if measure is advise else ["reparameterization"]), batch_size=4)


def test_types_that_differ_are_named_and_a_dtype_makes_them_one():
    model = Model(nn.Linear(PIXELS, 2 * D).double())
    with pytest.raises(UsageError, match="the encoder is float64 and the decoder float32: dtype='float64'"):
        measure_variance(model, "reparameterization", model.data[:4], replicates=10)
    placed = place(model, dtype="float64")
    assert placed.decoder.weight.dtype == torch.float64
    assert place(placed, dtype="float64") is placed
    assert model.decoder.weight.dtype == torch.float32


def test_the_full_route_computes_where_the_problem_is():
    """An index made without saying where would be refused on an accelerator, which is not at hand."""
    from elbograd.benchmarks.variance.full import FullRoute
    from elbograd.estimators import create

    model = Model()
    route = FullRoute(model, create("reparameterization"), model.data[:4], 1, "phi")
    made = []
    real = torch.tensor
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "tensor", lambda *a, **k: made.append(k.get("device")) or real(*a, **k))
        route.add(4)
        route.total()
    assert made and all(device == model.data.device for device in made)


def test_advice_on_the_full_route_takes_batch_norm_in_train_mode():
    model = Model(nn.Sequential(nn.Linear(PIXELS, 2 * D), nn.BatchNorm1d(2 * D)))
    advice = advise(model, ["reparameterization"], model.data[:8], num_samples=(1,), budget=0.2, route="full")
    assert advice.rankings
