"""log p(x|z) of what a decoder returns, summed over a datum, in nats."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributions as td

from ....estimators.errors import UsageError
from ....estimators.posteriors.distributions import describe
from ..arguments import check_choice, check_positive
from .callees import Callee
from .losses import check_is_no_loss
from .readings import SPREADS, check_no_probabilities, check_probabilities, named_entries

LIKELIHOODS = (
    "bernoulli",
    "bernoulli-logits",
    "bernoulli-probs",
    "gaussian",
    *(f"gaussian-{spread}" for spread in SPREADS),
    "continuous-bernoulli",
    "continuous-bernoulli-logits",
    "continuous-bernoulli-probs",
    "categorical",
)
DEFAULT = "bernoulli"


class Likelihood(nn.Module):
    """How a decoder's outputs are held against x; its parameters belong to θ."""

    def check(self, output: Any, x: Tensor) -> None:
        """See that an output for each of B latents fits x (B, ...).

        Raises:
            UsageError: it does not, or x is not what it is the likelihood of.
        """

    def check_data(self, x: Tensor) -> None:
        """See that x (B, ...) is what it is the likelihood of.

        Raises:
            UsageError: a value that cannot be.
        """

    def forward(self, output: Any, x: Tensor, leading: torch.Size) -> Tensor:
        """Log p, (*leading), of x (B, ...) for N outputs; N is the size of ``leading``, which ends in B."""
        raise NotImplementedError


def likelihood_of(likelihood: object, scale: object, callee: Callee | None) -> Likelihood:
    """The likelihood that a user asks for by name, or by what is called; see `from_vae`.

    Raises:
        UsageError: an unknown name, a scale that does not go with it.
    """
    if callee is not None:
        check_is_no_loss(likelihood)
        if scale is not None:
            raise UsageError("scale= is for likelihood='gaussian', not for a function of yours")
        return _Called(callee)
    if likelihood is not None:
        check_choice(LIKELIHOODS, likelihood=likelihood)
    kind = str(likelihood or DEFAULT)
    if scale is not None and kind != "gaussian":
        raise UsageError(f"scale={scale!r} is for likelihood='gaussian', not {kind!r}")
    if kind.startswith("gaussian"):
        return _Gaussian(kind.removeprefix("gaussian").removeprefix("-"), scale)
    if kind == "categorical":
        return _Categorical()
    return _Binary(kind, likelihood is None)


class OfDistribution(Likelihood):
    """What the decoder returns is a distribution over x for each latent."""

    def check(self, output: Any, x: Tensor) -> None:
        shape = output.batch_shape + output.event_shape
        if shape[:1] != x.shape[:1] or shape[1:].numel() != x[0].numel():
            raise UsageError(
                f"the decoder returns a {describe(output)} over {tuple(shape)}, and x is {tuple(x.shape)}"
            )

    def forward(self, output: Any, x: Tensor, leading: torch.Size) -> Tensor:
        data = _repeated(x, leading).reshape(output.batch_shape + output.event_shape)
        found: Tensor = output.log_prob(data)
        return found.reshape(*leading, -1).sum(-1)


class _Elementwise(Likelihood):
    """A number of the output for each of x."""

    def check(self, output: Any, x: Tensor) -> None:
        _check_fits(_tensor(output), x, self.numbers)

    numbers = 1

    def forward(self, output: Any, x: Tensor, leading: torch.Size) -> Tensor:
        rows = _tensor(output).reshape(-1, *x.shape)
        return self.log_prob(rows, x).reshape(*leading, -1).sum(-1)

    def log_prob(self, rows: Tensor, x: Tensor) -> Tensor:
        """Of each number; rows (N/B, B, ...), x (B, ...)."""
        raise NotImplementedError


class _Binary(_Elementwise):
    """Bernoulli, and continuous Bernoulli, of logits or probabilities."""

    def __init__(self, kind: str, by_default: bool) -> None:
        super().__init__()
        self.continuous = kind.startswith("continuous-")
        self.family = "continuous-bernoulli" if self.continuous else "bernoulli"
        self.form = kind.removeprefix(self.family).removeprefix("-")
        self.by_default = by_default

    def check(self, output: Any, x: Tensor) -> None:
        super().check(output, x)
        if not self.form:
            probabilities = f"likelihood='{self.family}-probs'"
            check_no_probabilities(_tensor(output), "the decoder", probabilities, f"'{self.family}-logits'")
        if self.form == "probs":
            check_probabilities(_tensor(output), "the decoder", f"likelihood='{self.family}'")
        self.check_data(x)

    def check_data(self, x: Tensor) -> None:
        if not x.numel() or x.dtype == torch.bool:
            return
        low, high = float(x.min()), float(x.max())
        if low < 0 or high > 1:
            named = "the default likelihood" if self.by_default else "likelihood"
            whole = low >= 0 and high <= 255 and bool((x == x.round()).all())
            remedy = (
                "x / 255, or likelihood='categorical'" if whole else "likelihood='gaussian' takes any number"
            )
            worst = high if high > 1 else low
            raise UsageError(f"x holds {worst:.6g}, and {named} '{self.family}' is one of [0, 1]: {remedy}")

    def log_prob(self, rows: Tensor, x: Tensor) -> Tensor:
        x = x.to(rows.dtype)
        if self.continuous:
            probs, logits = (rows, None) if self.form == "probs" else (None, rows)
            return td.ContinuousBernoulli(probs, logits, validate_args=False).log_prob(x)
        if self.form == "probs":
            return -nn.functional.binary_cross_entropy(rows, x.expand_as(rows), reduction="none")
        # One pass less over the largest tensor there is than x * logits - softplus(logits).
        return -torch.addcmul(nn.functional.softplus(rows), x, rows, value=-1)


class _Gaussian(_Elementwise):
    """N(mean, σ²), σ fixed, learned, or returned beside the mean."""

    def __init__(self, spread: str, scale: object) -> None:
        super().__init__()
        self.spread = spread
        self.fixed = 1.0
        if isinstance(scale, str):
            check_choice(("learned",), scale=scale)
            self.log_scale = nn.Parameter(torch.zeros(()))
        elif scale is not None:
            check_positive(scale=scale)
            assert isinstance(scale, Real)
            self.fixed = float(scale)
        self.learned = isinstance(scale, str)

    def check(self, output: Any, x: Tensor) -> None:
        if not x.is_floating_point():
            raise UsageError(
                f"x is {str(x.dtype).removeprefix('torch.')}, and likelihood='gaussian' is one of real "
                f"numbers: x.float(), or likelihood='categorical'"
            )
        mean, second = self._halves(output)
        _check_fits(mean, x, 1)
        if second is not None:
            _check_fits(second, x, 1)
            if not bool((SPREADS[self.spread](second) > 0).all()):
                raise UsageError(
                    f"the decoder returns {self.spread}s that are not positive "
                    f"({float(second.detach().min()):.3g}): "
                    f"likelihood='gaussian-logvar' or 'gaussian-logscale' if they are logarithms"
                )

    def forward(self, output: Any, x: Tensor, leading: torch.Size) -> Tensor:
        mean, second = self._halves(output)
        rows = mean.reshape(-1, *x.shape)
        if second is not None:
            scale = SPREADS[self.spread](second.expand_as(mean).reshape(-1, *x.shape))
            log_scale = scale.log()
            residual = (x - rows) / scale
        elif self.learned:
            log_scale = self.log_scale
            residual = (x - rows) * (-log_scale).exp()
        else:
            residual, log_scale = (x - rows) / self.fixed, rows.new_tensor(math.log(self.fixed))
        log_prob = -0.5 * residual.square() - log_scale - 0.5 * math.log(2 * math.pi)
        return log_prob.reshape(*leading, -1).sum(-1)

    def _halves(self, output: Any) -> tuple[Tensor, Tensor | None]:
        if not self.spread:
            if isinstance(output, tuple | list) and len(output) == 2:
                choices = ", ".join(f"'gaussian-{spread}'" for spread in SPREADS)
                raise UsageError(
                    f"the decoder returns two tensors: say what the second is, likelihood= one of {choices}"
                )
            return _tensor(output), None
        if isinstance(output, Tensor) and output.dim() > 1 and output.shape[1] % 2 == 0:
            mean, second = output.chunk(2, dim=1)
            return mean, second
        if isinstance(output, tuple | list) and len(output) == 2:
            return _tensor(output[0]), _tensor(output[1])
        raise UsageError(
            f"the decoder returns {_what(output)}, not the mean and the {self.spread} that "
            f"likelihood='gaussian-{self.spread}' is made of"
        )


class _Categorical(Likelihood):
    """K logits for each integer of x, in the last dimension or, as for `cross_entropy`, after the data's."""

    def check(self, output: Any, x: Tensor) -> None:
        logits = _tensor(output)
        self.check_data(x)
        last, second = self._is_last(logits, x), self._is_second(logits, x)
        if last and second:
            raise UsageError(
                f"the decoder's logits {tuple(logits.shape)} may hold the classes in the first or in the "
                f"last dimension: likelihood=lambda out, x: Categorical(logits=out).log_prob(x), say, tells"
            )
        if not last and not second:
            raise UsageError(
                f"the decoder returns {tuple(logits.shape)} for x of shape {tuple(x.shape)}: likelihood="
                f"'categorical' takes logits {(*x.shape, 'K')} or {(len(x), 'K', *x.shape[1:])}"
            )
        classes = logits.shape[-1 if last else 1]
        if float(x.max()) >= classes:
            raise UsageError(
                f"x holds {float(x.max()):.6g}, and the decoder's logits are of {classes} classes"
            )

    def check_data(self, x: Tensor) -> None:
        if x.numel() and bool(((x < 0) | (x != x.round())).any() if x.is_floating_point() else (x < 0).any()):
            bad = x[(x < 0) | (x != x.round())] if x.is_floating_point() else x[x < 0]
            raise UsageError(
                f"x holds {float(bad.flatten()[0]):.6g}, and likelihood='categorical' is one of the integers "
                f"0 ... K - 1: (x * 255).round().long(), say"
            )

    def forward(self, output: Any, x: Tensor, leading: torch.Size) -> Tensor:
        logits = _tensor(output)
        if not self._is_last(logits, x):
            logits = logits.movedim(1, -1)
        log_probs = logits.log_softmax(-1).reshape(-1, *x.shape, logits.shape[-1])
        index = x.long().expand(log_probs.shape[:-1]).unsqueeze(-1)
        return log_probs.gather(-1, index).reshape(*leading, -1).sum(-1)

    @staticmethod
    def _is_last(logits: Tensor, x: Tensor) -> bool:
        return logits.shape[1:-1] == x.shape[1:]

    @staticmethod
    def _is_second(logits: Tensor, x: Tensor) -> bool:
        return logits.dim() == x.dim() + 1 and logits.shape[2:] == x.shape[1:]


class _Called(Likelihood):
    """A function of the user's: (output, x) -> log p, (N,) or (N, ...), which is summed."""

    def __init__(self, callee: Callee) -> None:
        super().__init__()
        self.callee: Callable[..., Any] = callee

    def check(self, output: Any, x: Tensor) -> None:
        found = self.callee(output, _shaped_as(output, x))
        if not isinstance(found, Tensor) or found.shape[:1] != x.shape[:1]:
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else _what(found)
            raise UsageError(
                f"likelihood(output, x) returns {what} for {len(x)} data, expected log p of each, "
                f"({len(x)},) or ({len(x)}, ...): reduction='none', say"
            )

    def forward(self, output: Any, x: Tensor, leading: torch.Size) -> Tensor:
        found: Tensor = self.callee(output, _shaped_as(output, _repeated(x, leading)))
        return found.reshape(*leading, -1).sum(-1)


def _shaped_as(output: Any, x: Tensor) -> Tensor:
    """x (N, ...) in the shape of an output of as many numbers: flat, say."""
    fits = isinstance(output, Tensor) and len(output) == len(x) and output.numel() == x.numel()
    return x.reshape(output.shape) if fits else x


def _repeated(x: Tensor, leading: torch.Size) -> Tensor:
    """x (B, ...) once for each latent, (N, ...)."""
    return x.expand(*leading, *x.shape[1:]).reshape(-1, *x.shape[1:])


def _tensor(output: Any) -> Tensor:
    """The one tensor that a decoder returns, or that what it returns holds (``DecoderOutput.sample``)."""
    entries = named_entries(output)
    tensors = [entry for entry in (entries or {}).values() if isinstance(entry, Tensor)]
    output = tensors[0] if len(tensors) == 1 else output
    if not isinstance(output, Tensor):
        raise UsageError(
            f"the decoder returns {_what(output)}, not one tensor: likelihood=lambda out, x: ... may say "
            f"what log p(x|z) is"
        )
    return output


def _check_fits(output: Tensor, x: Tensor, numbers: int) -> None:
    if output.shape[:1] != x.shape[:1] or output[0].numel() != numbers * x[0].numel():
        raise UsageError(
            f"the decoder returns {tuple(output.shape)} for {len(x)} latents, and x is {tuple(x.shape)}: a "
            f"datum needs {x[0].numel()} numbers"
        )


def _what(output: Any) -> str:
    return f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, tuple | list) else "")
