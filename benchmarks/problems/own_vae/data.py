"""A user's data, as they have them, by index: tensors, pairs, data sets, loaders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    default_collate,
)

from ....estimators.errors import UsageError
from ....estimators.text import one_line
from ..arguments import shown
from ..data import SPLITS

_HELD_OUT = 10  # one datum in so many, where the user splits nothing
_SEED = 20131220  # of the choice of those; only has to stay the same

#: What is known of a datum: x, and y where there is one.
Pair = tuple[Tensor, Tensor | None]


class Source:
    """Data by index; never copied with a problem, for nothing changes them."""

    size: int

    def __deepcopy__(self, memo: object) -> Source:
        return self

    def gather(self, index: Tensor) -> Pair:
        """x (B, ...) and y (B, ...) of the data of an index (B,)."""
        raise NotImplementedError


class _Tensors(Source):
    def __init__(self, x: Tensor, y: Tensor | None) -> None:
        for name, tensor in (("x", x), ("y", y)):
            if tensor is not None and tensor.dim() == 0:
                raise UsageError(f"data: {name} is a tensor without dimensions, not one datum a row")
        if y is not None and len(x) != len(y):
            raise UsageError(f"data: {len(x)} x and {len(y)} y: each datum needs one of both")
        self.x, self.y, self.size = x.detach(), None if y is None else y.detach(), len(x)

    def gather(self, index: Tensor) -> Pair:
        index = index.to(self.x.device)
        return self.x[index], None if self.y is None else self.y[index.to(self.y.device)]


class _Items(Source):
    """A data set with ``len`` and ``[]``, whose items are put together as a DataLoader does."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        self.dataset, self.collate, self.size = dataset, collate, len(dataset)

    def gather(self, index: Tensor) -> Pair:
        try:
            batch = self.collate([self.dataset[i] for i in index.tolist()])
        except Exception as error:  # a user's data set may raise anything
            raise UsageError(
                f"data: items of {type(self.dataset).__name__} make no batch of tensors "
                f"({type(error).__name__}: {one_line(error)}): transform=ToTensor(), say"
            ) from error
        return _pair_of(batch)


class _Some(Source):
    """A part of other data."""

    def __init__(self, source: Source, index: Tensor) -> None:
        self.source, self.index, self.size = source, index, len(index)

    def gather(self, index: Tensor) -> Pair:
        return self.source.gather(self.index[index])


def sources(data: object) -> tuple[dict[str, Source], int | None]:
    """The data of "train" and "test", and the batch size where a loader has one.

    Where only one set is given, a tenth of it, the same under every seed, is held out as "test".

    Raises:
        UsageError: what is no data, cannot be indexed, or has an order that cannot be made to follow the
            seed.
    """
    if isinstance(data, Mapping):
        if set(data) != set(SPLITS):
            named = ", ".join(map(repr, data))
            raise UsageError(f"data has the keys {named}, expected 'train' and 'test'")
        return {split: _source(data[split]) for split in SPLITS}, _batch_size(data["train"])
    whole = _source(data)
    held_out = whole.size // _HELD_OUT or min(1, whole.size - 1)
    if not held_out:
        return dict.fromkeys(SPLITS, whole), _batch_size(data)
    order = torch.randperm(whole.size, generator=torch.Generator().manual_seed(_SEED))
    test, train = order[:held_out].sort().values, order[held_out:].sort().values
    return {"train": _Some(whole, train), "test": _Some(whole, test)}, _batch_size(data)


def _source(data: Any) -> Source:
    source = _unchecked(data)
    if source.size == 0:
        raise UsageError("data: there is none (length 0)")
    return source


def _unchecked(data: Any) -> Source:
    if data is None:
        raise UsageError("data is missing: a tensor x (N, ...), a pair (x, y), a Dataset or a DataLoader")
    if isinstance(data, DataLoader):
        return _of_loader(data)
    if isinstance(data, str | bytes):
        raise UsageError(f"data is {shown(data)}: give the data themselves, a tensor or a Dataset, say")
    if isinstance(data, Tensor) or hasattr(data, "__array__"):
        return _Tensors(_as_tensor(data), None)
    if isinstance(data, tuple):
        if len(data) != 2:
            raise UsageError(f"data is a tuple of {len(data)}, not a pair (x, y)")
        return _Tensors(_as_tensor(data[0]), _as_tensor(data[1]))
    if isinstance(data, IterableDataset):
        raise UsageError(
            f"data: {type(data).__name__} is an IterableDataset, whose order cannot be made to follow a "
            f"seed: list(...) of it has one"
        )
    if isinstance(data, torch.utils.data.TensorDataset) and len(data.tensors) <= 2:
        return _Tensors(data.tensors[0], data.tensors[1] if len(data.tensors) == 2 else None)
    if _is_pair_in_a_list(data):
        raise UsageError(
            f"data is a list of two tensors {tuple(data[0].shape)} and {tuple(data[1].shape)}, and a list is "
            f"one of data: a pair of all x and all y is a tuple, data=(x, y)"
        )
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _Items(data)
    raise UsageError(f"data is {shown(data)}, not a tensor, a pair (x, y), a Dataset or a DataLoader")


def _is_pair_in_a_list(data: object) -> bool:
    if not isinstance(data, list) or len(data) != 2 or not all(isinstance(d, Tensor) for d in data):
        return False
    x, y = data
    return x.dim() > 0 and y.dim() > 0 and x.shape != y.shape and len(x) == len(y)


def _of_loader(loader: DataLoader[Any]) -> Source:
    if isinstance(loader.dataset, IterableDataset):
        return _unchecked(loader.dataset)
    sampler: Any = loader.sampler
    standard = type(loader.batch_sampler) in (BatchSampler, type(None))
    subset = type(sampler) is SubsetRandomSampler
    plain = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    )
    if not standard or not (plain or subset):
        own = sampler if standard else loader.batch_sampler
        raise UsageError(
            f"data: the DataLoader's {type(own).__name__} has an order that cannot be made to follow the "
            f"seed: data=loader.dataset serves each datum once a pass"
        )
    default = loader.collate_fn is default_collate or loader.batch_size is None
    source = _unchecked(loader.dataset) if default else _Items(loader.dataset, loader.collate_fn)
    return _Some(source, torch.as_tensor(list(sampler.indices))) if subset else source


def _batch_size(data: object) -> int | None:
    return data.batch_size if isinstance(data, DataLoader) else None


def _pair_of(batch: Any) -> Pair:
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, tuple | list) and len(batch) == 1 and isinstance(batch[0], Tensor):
        return batch[0], None
    if isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(b, Tensor) for b in batch):
        return batch[0], batch[1]
    if isinstance(batch, Mapping):
        keys = list(map(repr, batch))
        picked = f"d[{keys[0]}]" if len(keys) == 1 else f"(d[{keys[0]}], d[{keys[1]}])"
        raise UsageError(
            f"data: an item has the keys {', '.join(keys)}: data=[{picked} for d in dataset], say"
        )
    what = f"a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
    remedy = "transform=ToTensor()"
    if isinstance(batch, tuple | list) and len(batch) > 2:
        remedy = "data=[(item[0], item[1]) for item in dataset]"
    raise UsageError(f"data: an item is {what}, neither x nor a pair (x, y) of tensors: {remedy}, say")


def _as_tensor(data: Any) -> Tensor:
    try:
        return data if isinstance(data, Tensor) else torch.as_tensor(data)
    except Exception as error:  # an array of objects, say
        raise UsageError(f"data is {shown(data)}, which makes no tensor ({one_line(error)})") from error
