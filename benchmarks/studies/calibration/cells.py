"""What the study measures: cases whose variance is known, at few and many replicates."""

from __future__ import annotations

from dataclasses import dataclass

LINEAR_GAUSSIAN = "linear-gaussian[latent_dim=2,data_dim=3]"


@dataclass(frozen=True)
class Cell:
    """One line of the study: how a known variance is measured.

    Attributes:
        problem: its specification.
        baseline: of the score function; None for reparameterization.
        replicates: R, or None to run to a precision.
        precision: the relative half-width to run to.
        promised: R is what another cell was told would be enough, so this one is never exempt.
    """

    problem: str
    baseline: float | None
    replicates: int | None = None
    precision: float | None = None
    promised: bool = False

    @property
    def estimator(self) -> str:
        """Its specification."""
        if self.baseline is None:
            return "reparameterization"
        return f"constant-baseline[value={self.baseline:g}]" if self.baseline else "score-function"


def cells(quick: bool = False) -> list[Cell]:
    """The study: light and heavy tails, few and many replicates, and two precisions."""
    cases: list[tuple[str, float | None]] = [
        ("quadratic", None),
        ("quadratic", 0.0),
        ("quadratic", -2.0),
        ("exponential", None),
        ("exponential", 0.0),
        ("cosine", None),
        ("cosine", 0.0),
        (LINEAR_GAUSSIAN, None),
        (LINEAR_GAUSSIAN, 0.0),
        (LINEAR_GAUSSIAN, -4.0),
    ]
    if quick:
        first, second = ("exponential", 0.0), (LINEAR_GAUSSIAN, None)
        return [Cell(*first, replicates=200), Cell(*second, replicates=1000), Cell(*first, precision=0.1)]
    fixed = [Cell(*case, replicates=r) for case in cases for r in (20, 200, 4000)]
    precise = [
        Cell(problem, baseline, precision=precision)
        for problem, baseline in (("quadratic", None), ("exponential", 0.0), (LINEAR_GAUSSIAN, None))
        for precision in (0.2, 0.05)
    ]
    return [*fixed, *precise, Cell("exponential", 0.0, precision=0.01)]
