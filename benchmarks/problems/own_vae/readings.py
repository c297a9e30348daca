"""What an encoder's output means: how it becomes eta (B, P), and how eta becomes q."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from ....estimators.errors import UsageError
from ....estimators.posteriors.distributions import describe, parameters_of, with_parameters
from ....estimators.posteriors.families import innermost
from ....estimators.posteriors.layered import Layered
from ....estimators.text import one_line
from ..arguments import check_choice, shown

#: What the second half of a Gaussian's parameters is, and the standard deviation it stands for.
SPREADS: dict[str, Callable[[Tensor], Tensor]] = {
    "logvar": lambda s: (0.5 * s).exp(),
    "logscale": torch.exp,
    "scale": lambda s: s,
    "variance": torch.sqrt,
}
_GAUSSIAN = tuple(f"gaussian-{spread}" for spread in SPREADS)
_DISCRETE = ("bernoulli", "bernoulli-logits", "bernoulli-probs", "categorical", "categorical-logits")
POSTERIORS = (*_GAUSSIAN, *_DISCRETE, "categorical-probs")
DEFAULT = "gaussian-logvar"
_MEANS = ("mu", "mean", "loc", "z_mean", "z_mu")
_KEYS = {
    "logvar": ("logvar", "log_var", "log_variance", "log_sigma2", "z_logvar", "z_log_var"),
    "logscale": ("logstd", "log_std", "log_scale", "logscale", "log_sigma", "logsigma"),
    "scale": ("std", "scale", "sigma", "stddev"),
    "variance": ("var", "variance", "sigma2"),
}
#: Operations by the names of their backward passes.
_RESHAPES = (
    "AddBackward",
    "Expand",
    "View",
    "Reshape",
    "UnsafeView",
    "_UnsafeView",
    "Permute",
    "Transpose",
    "TBackward",
    "Squeeze",
    "Unsqueeze",
    "Clone",
    "Slice",
    "Alias",
    "Unflatten",
)
_SQUASHES = ("Sigmoid", "Softmax", "Clamp", "Hardsigmoid")
_SCALED = (*_RESHAPES, "MulBackward", "DivBackward")
_POSITIVE = ("Softplus", "ExpBackward", "Sigmoid", "Abs", "Pow", "Sqrt", "Elu", "Clamp")


#: What the coordinates of eta are.
Parts = Mapping[str, slice]


class Reading(Protocol):
    """How one encoder's outputs are read.

    Attributes:
        latent: the shape of one datum's z as the decoder gets it.
        parts: what the coordinates of eta are.
    """

    latent: torch.Size
    parts: Parts

    def eta(self, output: Any) -> Tensor:
        """(B, P), of what the encoder returns for B data."""
        ...

    def posterior(self, eta: Tensor) -> Distribution:
        """q for eta (*batch, P)."""
        ...


def reading_of(
    output: Any, data: int, posterior: object = None, categories: int | None = None, name: str = "the encoder"
) -> Reading:
    """How outputs like this one, for a number of data, are to be read.

    Args:
        output: what the encoder returns.
        data: B.
        posterior: see `from_vae`.
        categories: K, of one-hot latents.
        name: what returns it, for messages.

    Raises:
        UsageError: an unknown posterior, or an output that cannot be read so.
    """
    if callable(posterior):
        made = read_by(posterior, output)
        if isinstance(made, Distribution) and not _is_known(made):
            return _Rebuilt(posterior, output, made, data, name)
        return _After(posterior, reading_of(made, data, None, categories, "posterior"))
    if posterior is not None:
        check_choice(POSTERIORS, posterior=posterior)
    if isinstance(output, Distribution):
        if posterior is not None:
            raise UsageError(f"{name} returns a {describe(output)}: leave out posterior={posterior!r}")
        return _Family(output, data, name)
    kind = str(posterior or DEFAULT)
    if kind in _GAUSSIAN:
        return _Gaussian(output, data, kind, posterior is not None, name)
    return _Logits(_one_tensor(output, data, name), kind, categories, name)


def read_by(posterior: Callable[[Any], Any], output: Any) -> Any:
    """What a user's ``posterior`` makes of an encoder's output.

    Raises:
        UsageError: it fails.
    """
    try:
        return posterior(output)
    except Exception as error:  # a user's function may raise anything
        raise UsageError(
            f"posterior({_what(output)}) fails ({type(error).__name__}: {one_line(error)}): it is given "
            f"what the encoder returns"
        ) from error


class _After:
    """What a user's function makes of the output, read in turn."""

    def __init__(self, function: Callable[[Any], Any], inner: Reading) -> None:
        self.function, self.inner = function, inner
        self.latent, self.parts = inner.latent, inner.parts

    def eta(self, output: Any) -> Tensor:
        return self.inner.eta(read_by(self.function, output))

    def posterior(self, eta: Tensor) -> Distribution:
        return self.inner.posterior(eta)


class _Rebuilt:
    """A distribution of any family: eta holds what the encoder returns, of which a user's function makes it.

    It is given tensors (*batch, ...) with any leading dimensions, replicates among them.
    """

    def __init__(
        self, function: Callable[[Any], Any], output: Any, q: Distribution, data: int, name: str
    ) -> None:
        self.function, self.name = function, name
        tensors = self._tensors(output)
        for tensor in tensors.values():
            _check_batch(tensor, data, name)
        self.kind = type(output)
        self.shapes = {key: tensor.shape[1:] for key, tensor in tensors.items()}
        parts, start = {}, 0
        for key, shape in self.shapes.items():
            parts[str(key)] = slice(start, start + shape.numel())
            start += shape.numel()
        self.parts: Parts = parts
        if q.batch_shape[:1] != (data,):
            raise UsageError(
                f"posterior(out) gives a {describe(q)} of batch shape {tuple(q.batch_shape)} for {data} "
                f"data: its first dimension must be theirs"
            )
        self.latent = q.batch_shape[1:] + q.event_shape

    def eta(self, output: Any) -> Tensor:
        return torch.cat([tensor.flatten(1) for tensor in self._tensors(output).values()], -1)

    def posterior(self, eta: Tensor) -> Distribution:
        rows = {
            key: eta[..., part].reshape(*eta.shape[:-1], *shape)
            for (key, shape), part in zip(self.shapes.items(), self.parts.values(), strict=True)
        }
        if issubclass(self.kind, Tensor):
            output: Any = rows[0]
        elif issubclass(self.kind, Mapping):
            output = rows
        else:
            output = self.kind(rows.values())
        q: Distribution = read_by(self.function, output)
        extra = len(q.batch_shape) - (eta.dim() - 1)
        return td.Independent(q, extra, validate_args=False) if extra > 0 else q

    def _tensors(self, output: Any) -> dict[Any, Tensor]:
        if isinstance(output, Tensor):
            return {0: output}
        found = dict(output) if isinstance(output, Mapping) else {}
        if type(output) in (tuple, list):
            found = dict(enumerate(output))
        if found and all(isinstance(tensor, Tensor) for tensor in found.values()):
            return found
        raise UsageError(
            f"{self.name} returns {_what(output)}: for a posterior of this family it must be a tensor, or a "
            f"tuple or dict of tensors, of which posterior= makes it"
        )


def _is_known(q: Distribution) -> bool:
    try:
        parameters_of(q)
    except TypeError:
        return False
    return True


class _Gaussian:
    """A pair, a dict or one tensor of two halves; eta = (μ, the spread as the encoder says it)."""

    def __init__(self, output: Any, data: int, kind: str, explicit: bool, name: str) -> None:
        self.name = name
        self.spread = kind.removeprefix("gaussian-")
        mean, second, found = self._halves(output, data)
        if found is not None:
            if explicit and found != self.spread:
                raise UsageError(
                    f"{name} returns {_what(output)}, whose second entry is a {found}: leave out "
                    f"posterior={kind!r}"
                )
            self.spread = found
        elif not explicit and _comes_from(second, _POSITIVE, _SCALED) and bool((second > 0).all()):
            by_name = "posterior='gaussian-scale' or 'gaussian-variance', or 'gaussian-logvar' if it is one"
            by_value = "return Normal(mean, scale), or a dict that says what it is (mu, logvar)"
            raise UsageError(
                f"{name} returns a spread that is positive by how it is made (a softplus or an exp, say), "
                f"and would be read as log σ²: {by_value if name == 'posterior' else by_name}"
            )
        self.latent = mean.shape[1:]
        size = self.latent.numel()
        spread = {"logvar": "log_variance", "logscale": "log_scale"}.get(self.spread, self.spread)
        self.parts: Parts = {"mean": slice(0, size), spread: slice(size, 2 * size)}
        if self.spread in ("scale", "variance") and not bool((second > 0).all()):
            raise UsageError(
                f"{name} returns {self.spread}s that are not positive ({float(second.detach().min()):.3g}): "
                f"posterior='gaussian-logvar' or 'gaussian-logscale' if they are logarithms"
            )

    def eta(self, output: Any) -> Tensor:
        mean, second, _ = self._halves(output, None)
        return torch.cat((mean.flatten(1), second.flatten(1)), -1)

    def posterior(self, eta: Tensor) -> Distribution:
        mean, second = eta.chunk(2, dim=-1)
        normal = td.Normal(mean, SPREADS[self.spread](second), validate_args=False)
        return td.Independent(normal, 1, validate_args=False)

    def _halves(self, output: Any, data: int | None) -> tuple[Tensor, Tensor, str | None]:
        mean, second, found = _pair(output, self.name)
        for half in (mean, second):
            _check_batch(half, data, self.name)
        try:
            mean, second = torch.broadcast_tensors(mean, second)
        except RuntimeError:
            raise UsageError(
                f"{self.name} returns a mean of shape {tuple(mean.shape)} and a spread of shape "
                f"{tuple(second.shape)}, which do not fit together"
            ) from None
        return mean, second, found


def _pair(output: Any, name: str) -> tuple[Tensor, Tensor, str | None]:
    """Mean, spread, and what the spread is where its name says so."""
    named = named_entries(output)
    if named is None and not isinstance(output, Tensor | tuple | list):
        named = _attributes(output)
    if named is not None:
        told = [entry for entry in named.values() if entry is not None]
        if len(told) == 1 and not isinstance(told[0], Tensor):  # an output that holds a posterior
            return _pair(told[0], name)
        return _pair_by_name(named, name, isinstance(output, Mapping))
    if isinstance(output, tuple | list) and len(output) == 2 and all(isinstance(o, Tensor) for o in output):
        return output[0], output[1], None
    if isinstance(output, Tensor):
        if output.dim() < 2 or output.shape[1] % 2:
            raise UsageError(
                f"{name} returns one tensor of shape {tuple(output.shape)}, which is no pair (μ, log σ²) of "
                f"two halves (B, 2D): return both, or say what it is with posterior="
            )
        mean, second = output.chunk(2, dim=1)
        return mean, second, None
    raise UsageError(
        f"{name} returns {_what(output)}, not (μ, log σ²): posterior=lambda out: (out[i], out[j]) "
        f"picks these two"
    )


def named_entries(output: Any) -> Mapping[str, Any] | None:
    """What a dict, a named tuple or a dataclass holds, by name; None of other things."""
    if isinstance(output, Mapping):
        return output
    if hasattr(output, "_asdict"):
        return dict(output._asdict())
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return None


def _attributes(output: Any) -> Mapping[str, Any] | None:
    """The mean and the spreads that an object of a class of the user's has; None where it lacks one."""
    known = (*_MEANS, *(key for keys in _KEYS.values() for key in keys))
    found = {key: getattr(output, key) for key in known if isinstance(getattr(output, key, None), Tensor)}
    return found if any(key in _MEANS for key in found) and len(found) > 1 else None


def _pair_by_name(named: Mapping[str, Any], name: str, by_key: bool) -> tuple[Tensor, Tensor, str]:
    means = [key for key in named if str(key).lower() in _MEANS]
    seconds = [(key, spread) for spread, keys in _KEYS.items() for key in named if str(key).lower() in keys]
    kinds = [spread for _, spread in seconds]
    if len(means) == 1 and seconds and len(kinds) == len(set(kinds)):  # several: one said in several ways
        mean, second = named[means[0]], named[seconds[0][0]]
        if isinstance(mean, Tensor) and isinstance(second, Tensor):
            return mean, second, seconds[0][1]
    picked = "out['a'], out['b']" if by_key else "out.a, out.b"
    raise UsageError(
        f"{name} returns {', '.join(map(str, named))}, of which no pair of a mean (mu, mean, loc) and a "
        f"spread (logvar, log_scale, scale, variance) is known: posterior=lambda out: ({picked}) picks one"
    )


class _Logits:
    """Logits, or probabilities, of Bernoulli or one-hot latents."""

    def __init__(self, output: Tensor, kind: str, categories: int | None, name: str) -> None:
        self.family, _, self.form = kind.partition("-")
        self.name = name
        if not self.form:
            check_no_probabilities(
                output, name, f"posterior='{self.family}-probs'", f"'{self.family}-logits'"
            )
        if self.form == "probs":
            check_probabilities(output, name, f"posterior='{self.family}'")
        self.latent = output.shape[1:]
        size = self.latent.numel()
        self.parts: Parts = {"probs" if self.form == "probs" else "logits": slice(0, size)}
        self.categories = self._categories(categories) if self.family == "categorical" else None

    def _categories(self, categories: int | None) -> int:
        if categories is None and len(self.latent) == 2:
            return self.latent[-1]
        if categories is None:
            raise UsageError(
                f"{self.name} returns logits of shape (B, {', '.join(map(str, self.latent))}): say how many "
                f"values each latent has, categories=K, or return (B, D, K)"
            )
        if (
            categories < 2
            or self.latent.numel() % categories
            or (len(self.latent) > 1 and self.latent[-1] != categories)
        ):
            raise UsageError(
                f"categories={categories} does not fit the logits of shape "
                f"(B, {', '.join(map(str, self.latent))})"
            )
        return categories

    def eta(self, output: Any) -> Tensor:
        return _one_tensor(output, None, self.name).flatten(1)

    def posterior(self, eta: Tensor) -> Distribution:
        argument = {"probs" if self.form == "probs" else "logits": eta}
        if self.categories is None:
            return td.Independent(td.Bernoulli(**argument, validate_args=False), 1, validate_args=False)
        argument = {key: eta.unflatten(-1, (-1, self.categories)) for key in argument}
        return td.Independent(td.OneHotCategorical(**argument, validate_args=False), 1, validate_args=False)


class _Family:
    """A distribution: eta holds the parameters it is built from, and builds it anew."""

    def __init__(self, q: Distribution, data: int, name: str) -> None:
        self.name = name
        if q.batch_shape[:1] != (data,):
            raise UsageError(
                f"{name} returns a {describe(q)} of batch shape {tuple(q.batch_shape)} for {data} data: its "
                f"first dimension must be theirs"
            )
        self.extra = len(q.batch_shape) - 1
        self.elementwise = self._is_elementwise(q)
        drawn = q.sample()
        self.latent = drawn.shape[1:]
        tensors = self._parameters(q)
        self.template = with_parameters(
            q, {name: tensor.detach() for name, tensor in parameters_of(q).items()}
        )
        self.shapes = {name: tensor.shape[1:] for name, tensor in tensors.items()}
        parts: dict[str, slice] = {}
        start = 0
        for key, tensor in tensors.items():
            end = start + self._flat(key, tensor).shape[-1]
            parts[key], start = slice(start, end), end
        self.parts: Parts = parts

    def eta(self, output: Any) -> Tensor:
        if not isinstance(output, Distribution):
            raise UsageError(f"{self.name} returns {_what(output)}, and returned a distribution before")
        return torch.cat([self._flat(key, tensor) for key, tensor in self._parameters(output).items()], -1)

    def posterior(self, eta: Tensor) -> Distribution:
        tensors = {key: self._unflat(key, eta[..., part]) for key, part in self.parts.items()}
        base = self.template
        if self.elementwise:
            base = innermost(base)
        q = with_parameters(base, tensors)
        event = self._independent(q, eta.dim() - 1)
        return td.Independent(q, event, validate_args=False) if event else q

    def _independent(self, q: Distribution, batch: int) -> int:
        return len(q.batch_shape) - batch

    def _is_elementwise(self, q: Distribution) -> bool:
        """Whether every number of z has parameters of its own, so that z can be one vector."""
        q = innermost(q)
        return not q.event_shape and all(p.shape == q.batch_shape for p in self._parameters(q).values())

    def _parameters(self, q: Distribution) -> dict[str, Tensor]:
        if isinstance(q, Layered):
            raise UsageError(
                f"{self.name} returns a {describe(q)}: let it return the tensors that this is made of, and "
                f"posterior=vae.posterior, say, a method that makes it of them"
            )
        try:
            tensors = parameters_of(q)
        except TypeError as error:
            raise UsageError(
                f"{self.name} returns a {describe(q)}: {one_line(error)}; let it return what that is "
                f"made of, and posterior=lambda out: {describe(q)}(...) make it"
            ) from None
        batch = q.batch_shape[0]
        return {
            name: tensor if tensor.dim() and len(tensor) == batch else tensor.expand(batch, *tensor.shape)
            for name, tensor in tensors.items()
        }

    def _flat(self, key: str, tensor: Tensor) -> Tensor:
        if key == "scale_tril":
            rows, columns = torch.tril_indices(*tensor.shape[-2:])
            tensor = tensor[..., rows, columns]
        return tensor.flatten(1) if tensor.dim() > 1 else tensor.unsqueeze(1)

    def _unflat(self, key: str, part: Tensor) -> Tensor:
        shape = self.shapes[key]
        if key == "scale_tril":
            rows, columns = torch.tril_indices(*shape[-2:])
            tril = part.new_zeros(*part.shape[:-1], *shape)
            tril[..., rows, columns] = part.unflatten(-1, (*shape[:-2], -1)) if shape[:-2] else part
            return tril
        if self.elementwise:
            return part
        return part.reshape(*part.shape[:-1], *shape)


def _one_tensor(output: Any, data: int | None, name: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise UsageError(f"{name} returns {_what(output)}, not one tensor of logits")
    _check_batch(output, data, name)
    return output


def _check_batch(output: Tensor, data: int | None, name: str) -> None:
    if output.dim() < 2 or (data is not None and len(output) != data):
        expected = "B" if data is None else data
        raise UsageError(
            f"{name} returns shape {tuple(output.shape)}, expected ({expected}, ...): the first dimension "
            f"is that of the data"
        )
    if data is not None and not bool(torch.isfinite(output).all()):
        raise UsageError(f"{name} returns NaN or infinity: look at its weights, or at the scale of the data")


def check_no_probabilities(output: Tensor, name: str, probabilities: str, logits: str) -> None:
    """Raise UsageError where what is to be logits comes out of a sigmoid or a softmax."""
    if _comes_from(output, _SQUASHES) and bool(((output >= 0) & (output <= 1)).all()):
        raise UsageError(
            f"{name} returns probabilities, the output of a sigmoid or a softmax: {probabilities}, or "
            f"{logits} if they are logits all the same"
        )


def _comes_from(output: Tensor, operations: tuple[str, ...], passed: tuple[str, ...] = _RESHAPES) -> bool:
    """Whether one of these was the last operation on a tensor, but for those passed over, of one input."""
    node = output.grad_fn
    while node is not None and node.name().startswith(passed):
        inputs = [before for before, _ in node.next_functions if before is not None]
        if len(inputs) != 1:
            return False
        node = inputs[0]
    return node is not None and node.name().startswith(operations)


def check_probabilities(output: Tensor, name: str, remedy: str) -> None:
    """Raise UsageError where what is to be probabilities does not lie between 0 and 1."""
    if not bool(((output >= 0) & (output <= 1)).all()):
        worst = float(output.detach().flatten()[(output - 0.5).abs().argmax()])
        raise UsageError(f"{name} returns {worst:.4g}, which is no probability: {remedy} takes logits")


def _what(output: Any) -> str:
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}" if not isinstance(output, str) else shown(output)
