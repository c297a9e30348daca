"""What problems with a posterior over a network's weights have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from ...estimators.base import Target
from ...estimators.errors import UsageError
from ...estimators.network import Apply, Linear, Network
from ...estimators.pieces.arguments import positive_number
from ...estimators.posteriors.shared import SharedDraws, one_row
from .data import check_split, serve


class LayerPosterior(nn.Module):
    """(μ, log σ) of the weights of one layer, which are φ."""

    def __init__(self, layer: Linear, scale: float, drawn: bool) -> None:
        super().__init__()
        self.loc = nn.Parameter(_initial(layer) if drawn else torch.zeros(layer.size))
        self.log_scale = nn.Parameter(torch.full((layer.size,), math.log(scale)))


class WeightPosterior(nn.ModuleDict):
    """An encoder that ignores x: eta = (μ, log σ) of all weights, the same for every datum and not copied.

    Args:
        layers: whose weights they are.
        scale: initial σ.
        drawn: whether μ starts as torch's linear layers do; else at 0.
    """

    def __init__(self, layers: Mapping[str, Linear], scale: float, drawn: bool = True) -> None:
        super().__init__({name: LayerPosterior(layer, scale, drawn) for name, layer in layers.items()})

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, ...) to eta (B, 2D)."""
        parts = [layer.loc for layer in self.values()] + [layer.log_scale for layer in self.values()]
        return torch.cat(parts).expand(len(x), -1)  # type: ignore[arg-type]


class WeightsProblem:
    """N data with one set of weights w between them: p(w) = N(0, prior_scale² I), q(w) mean-field Gaussian.

    The objective is that of all data, L = E_q[Σ_i log p(x_i|w)] − KL(q(w) ‖ p(w)) in nats, of which a batch
    of B gives (N/B) Σ_i E_q[log p(x_i|w)] − KL. So the target of each datum is N log p(x_i|w), its KL is
    whole, and the mean over the data of a batch estimates L: without bias, if the batch is drawn at random.
    The data of a batch share each draw of w.

    Subclasses implement `log_likelihood`.

    Args:
        layers: of the network, by name, in the order in which w holds their weights.
        data: of each split, (N, ...).
        prior_scale: standard deviation of every weight under the prior.
        scale: initial σ of every weight under q.
        drawn: see `WeightPosterior`.

    Raises:
        UsageError: a scale that is not positive, layers that are no `Linear` by name, or data that are no
            tensors by split.
    """

    def __init__(
        self,
        layers: Mapping[str, Linear],
        data: Mapping[str, Tensor],
        prior_scale: float,
        scale: float,
        drawn: bool = True,
    ) -> None:
        _check_layers(layers)
        _check_data(data)
        self.layers, self.data = dict(layers), dict(data)
        self.prior_scale = positive_number("prior_scale", prior_scale)
        self.encoder: nn.Module = WeightPosterior(layers, positive_number("scale", scale), drawn)
        self.decoder: nn.Module = nn.Module()
        self.latent_dim = sum(layer.size for layer in layers.values())

    def log_likelihood(self, x: Tensor, apply: Apply) -> Tensor:
        """log p(x_i|w) of each datum, (S, *batch), for x (B, ...), by applying each layer once."""
        raise UsageError(
            f"{type(self).__name__} has no log_likelihood(self, x, apply), (S, *batch): write it"
        )

    @property
    def data_size(self) -> int:
        """N, of the training data."""
        return len(self.data["train"])

    @property
    def default_batch_size(self) -> int:
        """64 data, or all where there are fewer."""
        return min(64, self.data_size)

    @property
    def eta_parts(self) -> dict[str, slice]:
        """What the coordinates of eta are."""
        return {"mean": slice(0, self.latent_dim), "log_scale": slice(self.latent_dim, None)}

    def posterior(self, eta: Tensor) -> Distribution:
        """One mean-field Gaussian for all rows of eta (*batch, 2D), which are the same."""
        return mean_field(eta)

    def prior(self, like: Tensor) -> Distribution:
        """N(0, prior_scale² I), on the device and in the dtype of ``like``."""
        return normal_prior(like, self.latent_dim, self.prior_scale)

    def target(self, x: Tensor) -> Target:
        """N log p(x_i|w) of each datum of x (B, ...), and the prior."""
        network = Network(self.layers, partial(self._scaled, x))
        return Target(network.dense, self.prior(x), features=x.flatten(1), network=network)

    def batches(
        self, split: str, batch_size: int, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """One pass over a split, x (B, ...)."""
        check_split(split)
        return serve(self.data[split], batch_size, generator)

    def _scaled(self, x: Tensor, apply: Apply) -> Float[Tensor, "S *batch"]:
        return self.data_size * self.log_likelihood(x, apply)


def mean_field(eta: Float[Tensor, "*batch P"]) -> Distribution:
    """One diagonal Gaussian for all rows of eta (*batch, 2D), which are the same: (μ, log σ)."""
    loc, log_scale = one_row(eta).chunk(2, dim=-1)
    q = Independent(Normal(loc, log_scale.exp(), validate_args=False), 1, validate_args=False)
    return SharedDraws(q, eta.shape[-2])


def normal_prior(like: Tensor, size: int, scale: float) -> Distribution:
    """N(0, scale² I) of so many numbers, on the device and in the dtype of ``like``."""
    zero = like.new_zeros(size)
    normal = Normal(zero, torch.full_like(zero, scale), validate_args=False)
    return Independent(normal, 1, validate_args=False)


def _check_layers(layers: object) -> None:
    if not isinstance(layers, Mapping) or not layers:
        raise UsageError(f"layers={layers!r} are none by name: give {{'first': Linear(inputs, outputs)}}")
    for name, layer in layers.items():
        if not isinstance(layer, Linear):
            raise UsageError(
                f"layer {name!r} is a {type(layer).__module__}.{type(layer).__name__}, not an "
                f"elbograd.estimators.Linear(inputs, outputs)"
            )


def _check_data(data: object) -> None:
    if not isinstance(data, Mapping) or "train" not in data:
        raise UsageError("data are no tensors by split: give {'train': x, 'test': x}")
    for split, part in data.items():
        if not isinstance(part, Tensor):
            raise UsageError(
                f"data[{split!r}] is a {type(part).__name__}, not a tensor: torch.as_tensor makes one"
            )


def _initial(layer: Linear) -> Tensor:
    """Uniform within 1/√inputs, as torch's linear layers start."""
    bound = layer.inputs**-0.5
    return torch.empty(layer.size).uniform_(-bound, bound)
