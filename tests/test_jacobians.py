"""K_i = J_i J_iᵀ, its pull-back and its diagonal, against Jacobians written out row by row."""

from __future__ import annotations

import pytest
import torch
from elbograd.benchmarks.jacobians import (
    GeneralJacobian,
    LinearLayersJacobian,
    encoder_jacobian,
    pull_back,
    push_forward,
)
from elbograd.estimators import UsageError
from torch import nn

torch.set_default_dtype(torch.float32)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        return self.last(torch.tanh(self.first(torch.tanh(self.first(x)))))


def module_used_twice():
    shared = nn.Linear(6, 6)
    return nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(6, 4))


def parameter_of_two_modules():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Linear(6, 4))


class UsedElsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        return self.layer(x) + (x @ self.layer.weight.T) ** 2


class Frozen(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
        self[0].weight.requires_grad_(False)


ENCODERS = {
    "linear": lambda: nn.Linear(6, 4),
    "mlp": lambda: nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 4)),
    "no bias": lambda: nn.Sequential(nn.Linear(6, 7, bias=False), nn.Tanh(), nn.Linear(7, 4)),
    "frozen weight": Frozen,
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 4)
    ),
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)),
    "tied": Tied,
    "weight used elsewhere": UsedElsewhere,
    "module used twice": module_used_twice,
    "parameter of two modules": parameter_of_two_modules,
    "batch norm in eval mode": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)
    ).eval(),
}
LINEAR = {"linear", "mlp", "no bias", "frozen weight"}


def written_out(encoder, x):
    """name -> rows (B, P, numel), one autograd call each."""
    phi = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    rows = {n: [] for n in phi}
    for datum in x.split(1):
        eta = encoder(datum).squeeze(0)
        grads = [
            torch.autograd.grad(e, list(phi.values()), retain_graph=True, allow_unused=True) for e in eta
        ]
        for k, (n, p) in enumerate(phi.items()):
            parts = [(torch.zeros_like(p) if g[k] is None else g[k]).flatten() for g in grads]
            rows[n].append(torch.stack(parts))
    return {n: torch.stack(parts).double() for n, parts in rows.items()}


@pytest.mark.parametrize("name", ENCODERS)
def test_gram_diagonal_and_products(name):
    torch.manual_seed(0)
    encoder = ENCODERS[name]()
    x = torch.randn(5, 6)
    jacobian = encoder_jacobian(encoder, x)
    assert isinstance(jacobian, LinearLayersJacobian if name in LINEAR else GeneralJacobian)
    rows = written_out(encoder, x)
    root = torch.randn(5, 4, 4, dtype=torch.float64)
    covariance = root @ root.transpose(1, 2)
    gram, diagonal = jacobian.gram(), jacobian.diagonal(covariance)
    assert set(gram) == set(diagonal) == set(rows)
    vectors = torch.randn(5, 4)
    pulled = pull_back(encoder, x, vectors)
    pushed = 0
    direction = {n: torch.randn_like(p) for n, p in encoder.named_parameters()}
    for n, j in rows.items():
        torch.testing.assert_close(gram[n], j @ j.transpose(1, 2), rtol=1e-4, atol=1e-5)
        expected = torch.einsum("bpk,bpq,bqk->k", j, covariance, j)
        torch.testing.assert_close(diagonal[n].flatten(), expected, rtol=1e-4, atol=1e-5)
        expected = torch.einsum("bpk,bp->k", j, vectors.double()).float()
        torch.testing.assert_close(pulled[n].flatten(), expected, rtol=1e-4, atol=1e-5)
        pushed = pushed + j.float() @ direction[n].flatten()
    torch.testing.assert_close(push_forward(encoder, x, direction), pushed, rtol=1e-4, atol=1e-4)
    assert all(
        type(p) is nn.Parameter for m in encoder.modules() for p in m._parameters.values() if p is not None
    )


@pytest.mark.parametrize("name", ["mlp", "frozen weight"])
def test_the_two_ways_agree(name):
    torch.manual_seed(0)
    encoder = ENCODERS[name]().double()
    x = torch.randn(5, 6, dtype=torch.float64)
    fast, general = LinearLayersJacobian.of(encoder, x), GeneralJacobian(encoder, x)
    for n, share in general.gram().items():
        torch.testing.assert_close(fast.gram()[n], share)


def test_an_encoder_that_couples_the_batch_is_refused():
    encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).train()

    class Centred(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    with pytest.raises(UsageError, match="another eta in a batch than alone"):
        encoder_jacobian(nn.Sequential(Centred(), nn.Linear(6, 4)), torch.randn(5, 6))
    with pytest.raises((UsageError, ValueError)):
        encoder_jacobian(encoder, torch.randn(5, 6))
