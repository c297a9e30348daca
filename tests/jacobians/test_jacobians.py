"""K_i = J_i J_iᵀ, its pull-back and its diagonal, against Jacobians written out row by row."""

from __future__ import annotations

import pytest
import torch
from elbograd.benchmarks.jacobians import encoder as jacobians
from elbograd.benchmarks.jacobians import factors
from elbograd.benchmarks.jacobians import rows as jacobian_rows
from elbograd.benchmarks.jacobians.encoder import Jacobian, encoder_jacobian
from elbograd.benchmarks.jacobians.products import pull_back, push_forward, trainable
from elbograd.benchmarks.jacobians.rows import RowsJacobian
from elbograd.estimators import UsageError
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

BATCH, OUTPUTS = 5, 4


class Apply(nn.Module):
    """Modules, and how x goes through them."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def tied():
    return Apply(
        lambda m, x: m.last(torch.tanh(m.first(torch.tanh(m.first(x))))),
        first=nn.Linear(6, 6),
        last=nn.Linear(6, 4),
    )


def module_used_twice():
    shared = nn.Linear(6, 6)
    return nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(6, 4))


def parameter_of_two_modules():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second, nn.Linear(6, 4))


def used_elsewhere():
    return Apply(lambda m, x: m.layer(x) + (x @ m.layer.weight.T) ** 2, layer=nn.Linear(6, 4))


def frozen_weight():
    encoder = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    encoder[0].weight.requires_grad_(False)
    return encoder


def convolution(**settings):
    return nn.Sequential(
        nn.Unflatten(1, (2, 3, 5)), nn.Conv2d(2, 4, 2, **settings), nn.Tanh(), nn.Flatten(), nn.LazyLinear(4)
    )


def norm(layer, spatial=(2, 3)):
    return nn.Sequential(
        nn.Linear(6, 24), nn.Unflatten(1, (4, *spatial)), layer, nn.Flatten(), nn.Linear(24, 4)
    )


def running(layer):
    """BatchNorm in eval mode with statistics that are not the identity."""
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.5, 2)
    nn.init.normal_(layer.weight)
    return norm(layer).eval()


def words(**settings):
    return Apply(
        lambda m, x: m.last(m.first(m.table(x)).mean(1)),
        table=nn.Embedding(7, 3, **settings),
        first=nn.Linear(3, 6),
        last=nn.Linear(6, 4),
    )


def tied_table():
    """A table looked up, and multiplied with: two kinds of use."""
    encoder = words()
    encoder.first = nn.Linear(3, 7, bias=False)
    encoder.first.weight = encoder.table.weight
    encoder.last = nn.Linear(7, 4)
    return encoder


def time_first():
    """As many positions as data: a layout that the shapes do not tell from (B, T, ·)."""
    return Apply(
        lambda m, x: m.last(torch.tanh(m.first(x.view(-1, BATCH, 2).transpose(0, 1))).mean(0)),
        first=nn.Linear(2, 3),
        last=nn.Linear(3, 4),
    )


def patches_as_data():
    return Apply(
        lambda m, x: m.last(torch.tanh(m.first(x.reshape(-1, 2))).view(len(x), -1)),
        first=nn.Linear(2, 5),
        last=nn.Linear(15, 4),
    )


def transformer():
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)
    return Apply(
        lambda m, x: m.body(x.view(-1, 3, 4) + m.position).flatten(1)[:, :4],
        body=nn.TransformerEncoder(layer, 1, enable_nested_tensor=False),
        position=nn.Parameter(torch.randn(3, 4)),
    ).eval()


def recurrent(kind):
    return Apply(
        lambda m, x: m.last(m.body(x.view(len(x), 3, 2))[0][:, -1]),
        body=kind(2, 5, batch_first=True),
        last=nn.Linear(5, 4),
    )


# name -> encoder, size of x, parameters that must be handled by a rule ("all", or names)
ENCODERS = {
    "linear": (lambda: nn.Linear(6, 4), 6, "all"),
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4)), 6, "all"),
    "no bias": (lambda: nn.Sequential(nn.Linear(6, 7, bias=False), nn.Tanh(), nn.Linear(7, 4)), 6, "all"),
    "frozen weight": (frozen_weight, 6, "all"),
    "in place": (lambda: nn.Sequential(nn.Linear(6, 7), nn.ReLU(inplace=True), nn.Linear(7, 4)), 6, "all"),
    "tied": (tied, 6, "all"),
    "module used twice": (module_used_twice, 6, "all"),
    "parameter of two modules": (parameter_of_two_modules, 6, "all"),
    "weight used elsewhere": (used_elsewhere, 6, {"layer.bias"}),
    "called by keyword": (
        lambda: Apply(lambda m, x: m.last(input=x) + m.first(x), first=nn.Linear(6, 4), last=nn.Linear(6, 4)),
        6,
        {"first.weight", "first.bias"},
    ),
    "unused": (
        lambda: Apply(lambda m, x: m.first(x), first=nn.Linear(6, 4), last=nn.Linear(6, 4)),
        6,
        {"first.weight", "first.bias"},
    ),
    "time first": (time_first, 10, {"last.weight", "last.bias"}),
    "patches as data": (patches_as_data, 6, "all"),
    "convolution": (lambda: convolution(stride=2, padding=1), 30, "all"),
    "grouped convolution": (lambda: convolution(groups=2, padding="same", dilation=2), 30, "all"),
    "circular convolution": (lambda: convolution(padding=1, padding_mode="circular"), 30, "all"),
    "convolution in 1d": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (2, 6)), nn.Conv1d(2, 3, 3, stride=2), nn.Flatten(), nn.Linear(6, 4)
        ),
        12,
        "all",
    ),
    "convolution in 3d": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3, 4)), nn.Conv3d(1, 2, (1, 2, 3)), nn.Flatten(), nn.Linear(16, 4)
        ),
        24,
        "all",
    ),
    "transposed convolution": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)), nn.ConvTranspose2d(1, 2, 2), nn.Flatten(), nn.Linear(24, 4)
        ),
        6,
        {"3.weight", "3.bias"},
    ),
    "layer norm": (lambda: norm(nn.LayerNorm((2, 3))), 6, "all"),
    "group norm": (lambda: norm(nn.GroupNorm(2, 4)), 6, "all"),
    "batch norm in eval mode": (lambda: running(nn.BatchNorm2d(4)), 6, "all"),
    "batch norm without affine": (lambda: norm(nn.BatchNorm2d(4, affine=False)).eval(), 6, "all"),
    "words": (words, torch.randint(0, 7, (BATCH, 6)), "all"),
    "words with padding": (lambda: words(padding_idx=2), torch.randint(0, 7, (BATCH, 6)), "all"),
    "sparse table": (lambda: words(sparse=True), torch.randint(0, 7, (BATCH, 6)), "all"),
    "tied table": (tied_table, torch.randint(0, 7, (BATCH, 6)), {"last.weight", "last.bias"}),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 5)), nn.Tanh(), nn.Linear(5, 4)),
        6,
        {"2.weight", "2.bias"},
    ),
    "spectral norm in eval mode": (
        lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 5)), nn.Linear(5, 4)).eval(),
        6,
        {"1.weight", "1.bias"},
    ),
    "transformer": (transformer, 12, None),
    "GRU": (lambda: recurrent(nn.GRU), 6, {"last.weight", "last.bias"}),
    "LSTM": (lambda: recurrent(nn.LSTM), 6, {"last.weight", "last.bias"}),
    "Fourier features": (
        lambda: Apply(lambda m, x: m.last(torch.fft.rfft(m.first(x)).abs()), first=nn.Linear(6, 6), last=nn.Linear(4, 4)),
        6,
        "all",
    ),
}  # fmt: skip


def made(name):
    torch.manual_seed(0)
    make, data, by_rule = ENCODERS[name]
    encoder = make()
    x = data if isinstance(data, torch.Tensor) else torch.randn(BATCH, data)
    with torch.no_grad():
        encoder(x)  # lazy layers
    return encoder, x, by_rule


def written_out(encoder, x):
    """name -> rows (B, P, numel), one autograd call each."""
    phi = trainable(encoder)
    rows = {n: [] for n in phi}
    for datum in x.split(1):
        eta = encoder(datum).squeeze(0)
        grads = [
            torch.autograd.grad(e, list(phi.values()), retain_graph=True, allow_unused=True) for e in eta
        ]
        for k, (n, p) in enumerate(phi.items()):
            parts = [torch.zeros_like(p) if g[k] is None else g[k].to_dense() for g in grads]
            rows[n].append(torch.stack([part.flatten() for part in parts]))
    return {n: torch.stack(parts).double() for n, parts in rows.items()}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("elements", [None, 100])
@pytest.mark.parametrize("name", ENCODERS)
def test_gram_diagonal_and_products(name, elements, monkeypatch):
    encoder, x, by_rule = made(name)
    if elements:  # data, coordinates and parameters in the smallest runs
        for module in (jacobians, factors, jacobian_rows):
            monkeypatch.setattr(module, "MAX_ELEMENTS", elements)
    jacobian = encoder_jacobian(encoder, x)
    if by_rule is not None and not elements:  # one datum at a time, any layout is in order
        assert set(jacobian.by_rule) == (set(trainable(encoder)) if by_rule == "all" else by_rule)
    rows = written_out(encoder, x)
    root = torch.randn(BATCH, OUTPUTS, OUTPUTS, dtype=torch.float64)
    covariance = root @ root.mT
    gram, diagonal = jacobian.gram(), jacobian.diagonal(covariance)
    assert list(gram) == list(diagonal) == list(rows)
    vectors = torch.randn(BATCH, OUTPUTS)
    pulled = pull_back(encoder, x, vectors)
    pushed = 0
    direction = {n: torch.randn_like(p) for n, p in trainable(encoder).items()}
    for n, j in rows.items():
        torch.testing.assert_close(gram[n], j @ j.mT, rtol=1e-4, atol=1e-5)
        expected = torch.einsum("bpk,bpq,bqk->k", j, covariance, j)
        assert diagonal[n].shape == direction[n].shape
        torch.testing.assert_close(diagonal[n].flatten(), expected, rtol=1e-4, atol=1e-4)
        expected = torch.einsum("bpk,bp->k", j, vectors.double()).float()
        torch.testing.assert_close(pulled[n].flatten(), expected, rtol=1e-4, atol=1e-5)
        pushed = pushed + j.float() @ direction[n].flatten()
    torch.testing.assert_close(push_forward(encoder, x, direction), pushed, rtol=1e-4, atol=1e-4)
    assert all(
        type(p) is nn.Parameter for m in encoder.modules() for p in m._parameters.values() if p is not None
    )
    assert not any(m._forward_hooks for m in encoder.modules())


@pytest.mark.parametrize("name", ["mlp", "frozen weight", "convolution", "group norm"])
def test_the_two_ways_agree(name):
    encoder, x, _ = made(name)
    encoder, x = encoder.double(), x.double()
    fast, rows = Jacobian(encoder, x), RowsJacobian(encoder, x, trainable(encoder), OUTPUTS)
    assert fast.by_rule
    for n, share in rows.gram().items():
        torch.testing.assert_close(fast.gram()[n], share)


@pytest.mark.parametrize(
    ("name", "check"), [("time first", "_out_of_order"), ("weight used elsewhere", None)]
)
def test_a_rule_that_does_not_hold_would_show(name, check, monkeypatch):
    """Without the probes the shares are wrong: the comparison above can fail."""
    encoder, x, _ = made(name)
    if check:
        monkeypatch.setattr(Jacobian, check, lambda *_: set())
    else:
        monkeypatch.setattr(jacobians, "_differing", lambda *_: set())
    jacobian = Jacobian(encoder, x)
    assert set(jacobian.by_rule) == set(trainable(encoder))
    gram = jacobian.gram()
    assert any(
        float((gram[n] - j @ j.mT).norm()) > 0.05 * float(gram[n].norm())
        for n, j in written_out(encoder, x).items()
    )


class Largest(TorchDispatchMode):
    """The most elements of any tensor made inside."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.itemsize)
        return result


@pytest.mark.parametrize("kind", ["convolution", "mlp", "rows"])
def test_rows_of_all_data_are_never_held(kind, monkeypatch):
    torch.manual_seed(0)
    if kind == "convolution":
        encoder = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.Flatten(), nn.Linear(128, 8)
        )  # fmt: skip
        x = torch.randn(32, 1, 11, 11)
    else:
        encoder = nn.Sequential(nn.Linear(40, 100), nn.Tanh(), nn.Linear(100, 8))
        x = torch.randn(32, 40)
    limit = 2**16
    for module in (jacobians, factors, jacobian_rows):
        monkeypatch.setattr(module, "MAX_ELEMENTS", limit)
    with Largest() as largest:
        jacobian = encoder_jacobian(encoder, x)
        if kind == "rows":
            jacobian = RowsJacobian(encoder, x, trainable(encoder), 8)
        jacobian.gram()
        jacobian.diagonal(torch.eye(8, dtype=torch.float64).expand(32, 8, 8))
    everything = 32 * 8 * sum(p.numel() for p in encoder.parameters())
    assert everything > 15 * limit
    assert largest.elements <= limit


def test_an_encoder_that_couples_the_batch_is_refused():
    encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).train()
    centred = Apply(lambda m, x: m.layer(x - x.mean(0)), layer=nn.Linear(6, 4))
    neighbour = Apply(lambda m, x: m.layer(x + x.roll(1, 0) * (len(x) > 1)), layer=nn.Linear(6, 4))
    for wrong in (centred, neighbour):
        with pytest.raises(UsageError, match="another eta in a batch than alone"):
            encoder_jacobian(wrong, torch.randn(BATCH, 6))
    with pytest.raises((UsageError, ValueError)):
        encoder_jacobian(encoder, torch.randn(BATCH, 6))


def test_an_encoder_with_noise_of_its_own_is_refused():
    noisy = Apply(lambda m, x: m.layer(nn.functional.dropout(x, 0.1, training=True)), layer=nn.Linear(6, 4))
    with pytest.raises(UsageError, match="another eta each time"):
        encoder_jacobian(noisy, torch.randn(BATCH, 6))


def test_compiled_encoders():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 4))
    compiled = torch.compile(plain, backend="eager")
    x = torch.randn(BATCH, 6)
    jacobian = encoder_jacobian(compiled, x)
    assert jacobian.by_rule == [f"_orig_mod.{n}" for n in trainable(plain)]
    for n, share in encoder_jacobian(plain, x).gram().items():
        torch.testing.assert_close(jacobian.gram()[f"_orig_mod.{n}"], share)
