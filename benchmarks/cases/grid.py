"""Which cases to run: every estimator, on every problem, at every point and number of samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import REGISTRY as ESTIMATORS
from ...estimators.plugins.registry import create, label_of
from ...estimators.plugins.specification import Specification, expand
from ...estimators.text import clean
from ..problems.registry import REGISTRY as PROBLEMS
from ..rows.schema import row


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        benchmark: "variance", "convergence", "throughput" or "certify".
        problem: its specification; "" for the conformance suite, which has problems of its own.
        estimator: its specification.
        num_samples: S; certification tries several from it on.
        batch_size: B; None for the problem's default.
        seed: base seed.
        device: where.
        dtype: floating-point type.
        settings: what only this benchmark needs.
    """

    benchmark: str
    problem: str
    estimator: str
    num_samples: int
    batch_size: int | None
    seed: int
    device: str
    dtype: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The same for the same case, on any machine and in any run."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def title(self) -> str:
        """What a progress line shows."""
        if self.benchmark == "certify":
            what = label_of_text(self.problem) if self.problem else "conformance suite"
            return clean(f"{label_of_text(self.estimator)}, {what}")
        step = self.settings.get("step")
        where = "" if step is None else f" at step {step}"
        batch = "" if self.batch_size is None else f", B={self.batch_size}"
        sizes = f"S={self.num_samples}{batch}"
        return clean(f"{label_of_text(self.estimator)}, {sizes}, {label_of_text(self.problem)}{where}")

    def row(self, **values: Any) -> dict[str, Any]:
        """A row that this case says something about, where nothing was measured."""
        known = {
            "case": self.id,
            "benchmark": self.benchmark,
            "problem": self.problem and label_of_text(self.problem),
            "estimator": label_of_text(self.estimator),
            "num_samples": self.num_samples,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "step": self.settings.get("step"),
            "objective": objective_of(self.estimator) if self.benchmark == "variance" else "",
            "device": self.device,
            "dtype": self.dtype,
        }
        return row(**{**known, **values})

    def complete(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Measured rows with what identifies the case filled in."""
        problem = self.problem and label_of_text(self.problem)
        labels = {"problem": problem, "estimator": label_of_text(self.estimator)}
        return [{**r, **labels, "case": self.id, "parameters": self._settings_with(r)} for r in rows]

    def _settings_with(self, measured: dict[str, Any]) -> str:
        return json.dumps({**self.settings, **json.loads(measured["parameters"])}, sort_keys=True)


def objective_of(specification: str) -> str:
    """What an estimator differentiates; "" where it cannot be built."""
    try:
        return create(specification).objective
    except Exception:  # a plugin may raise anything
        return ""


def label_of_text(specification: str) -> str:
    """What results call a specification."""
    return label_of(expand(specification)[0])


def specifications(texts: Sequence[str], kind: str) -> list[str]:
    """Every specification that the user's texts stand for, each known to exist; grids opened.

    Args:
        texts: as given on the command line.
        kind: "estimator" or "problem".

    Raises:
        UsageError: malformed, unknown, or two that results could not tell apart.
    """
    registry = ESTIMATORS if kind == "estimator" else PROBLEMS
    found: dict[str, Specification] = {}
    for specification in (s for text in texts for s in expand(text)):
        registry.find(specification.name)
        label = label_of(specification)
        if label in found and str(found[label]) != str(specification):
            raise UsageError(
                f"{found[label]} and {specification} would both be called {label} in the results"
            )
        found[label] = specification
    return [str(s) for s in found.values()]


def with_latent_dim(problem: str, latent_dim: int) -> str:
    """The same problem at another latent dimension.

    Raises:
        UsageError: the problem has no parameter latent_dim.
    """
    specification = expand(problem)[0]
    if not PROBLEMS.accepts(specification, "latent_dim"):
        raise UsageError(f"problem {problem!r} has no parameter latent_dim to vary")
    return str(Specification(specification.name, {**specification.parameters, "latent_dim": latent_dim}))
