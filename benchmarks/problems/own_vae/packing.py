"""x and its condition y as one tensor (B, n), for batches are one tensor each; and apart again."""

from __future__ import annotations

import torch
from torch import Tensor

_BASE = 256  # integers below are exact in every floating-point dtype, bfloat16 among them


class Plain:
    """Nothing to pack: a batch is x."""

    def pack(self, x: Tensor, y: Tensor | None) -> Tensor:
        """X itself."""
        return x

    def unpack(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """X itself, and no condition."""
        return batch, None


class Packing:
    """Rows of x, then rows of y.

    Where one holds integers and the other does not, the integers are kept by their digits in base 256.

    Args:
        x, y: data for the shapes and dtypes, (N, ...) each.
    """

    def __init__(self, x: Tensor, y: Tensor) -> None:
        mixed = x.is_floating_point() != y.is_floating_point()
        self.x, self.y = _Rows(x, mixed), _Rows(y, mixed)

    def pack(self, x: Tensor, y: Tensor | None) -> Tensor:
        """(B, n)."""
        assert y is not None
        return torch.cat((self.x.pack(x), self.y.pack(y)), 1)

    def unpack(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, ...) and y (B, ...), those that hold integers as they were."""
        return self.x.unpack(batch[:, : self.x.width]), self.y.unpack(batch[:, self.x.width :])


class _Rows:
    """(B, ...) as rows (B, n)."""

    def __init__(self, data: Tensor, mixed: bool) -> None:
        self.shape, self.dtype = data.shape[1:], data.dtype
        self.digits = data.element_size() if mixed and not data.is_floating_point() else 0
        self.width = self.shape.numel() * max(1, self.digits)

    def pack(self, data: Tensor) -> Tensor:
        rows = data.flatten(1) if data.dim() > 1 else data.unsqueeze(1)
        if not self.digits:
            return rows
        digits = [(rows.long() >> (8 * k)) & (_BASE - 1) for k in range(self.digits)]
        return torch.stack(digits, -1).flatten(1).to(torch.get_default_dtype())

    def unpack(self, rows: Tensor) -> Tensor:
        if self.digits:
            digits = rows.detach().round().long().unflatten(1, (-1, self.digits)).unbind(-1)
            rows = sum((d << (8 * k) for k, d in enumerate(digits)), torch.zeros_like(digits[0])).to(
                self.dtype
            )
        return rows.reshape(-1, *self.shape).contiguous()  # users call `view`
