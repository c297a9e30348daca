"""What one case of the throughput benchmark is. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...estimators.plugins.registry import label_of
from ...estimators.plugins.specification import parse


@dataclass(frozen=True)
class ThroughputCase:
    """One thing to time.

    Attributes:
        problem: its specification.
        estimator: its specification.
        num_samples: S.
        batch_size: B; None for the problem's default.
        device: "cpu", "cuda", "cuda:1", ...
        dtype: floating-point type.
        mode: "eager", "compiled" or "cuda-graph".
        seed: of data order and draws.
        id: identifier, for the column ``case`` of the results.
    """

    problem: str
    estimator: str
    num_samples: int = 1
    batch_size: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    mode: str = "eager"
    seed: int = 0
    id: str = ""

    @property
    def problem_label(self) -> str:
        """What results call the problem."""
        return label_of(parse(self.problem))

    @property
    def estimator_label(self) -> str:
        """What results call the estimator."""
        return label_of(parse(self.estimator))

    @property
    def settings(self) -> tuple[str, ...]:
        """Where and how it runs, in words; dtype and seed where they are not the usual ones."""
        dtype = (self.dtype,) if self.dtype != "float32" else ()
        seed = (f"seed={self.seed}",) if self.seed else ()
        return (self.device, self.mode, *dtype, *seed)

    def label(self, without: Sequence[str] = ()) -> str:
        """Its name among cases of the same problem, batch size and settings ``without``."""
        settings = [setting for setting in self.settings if setting not in without]
        return " ".join((self.estimator_label, f"S={self.num_samples}", *settings))

    @property
    def name(self) -> str:
        """Its name among all cases."""
        batch = "" if self.batch_size is None else f", B={self.batch_size}"
        return f"{self.problem_label}{batch}, {self.label()}"

    def columns(self) -> dict[str, Any]:
        """The columns of the results that are known before it is measured."""
        settings = {key: value for key, value in asdict(self).items() if key != "id"}
        return {**settings, "problem": self.problem_label, "estimator": self.estimator_label, "case": self.id}
