"""Every estimator of the suite, compared: ``python -m elbograd.benchmarks.studies.whole_catalogue``.

Gaussian latents: ``training``, on the shared VAE at the start, half-way and near the optimum, over S;
``roughness``, on one-dimensional costs from smooth to rough; ``distance``, from the true posterior away.
Discrete ones, at equal evaluations of the decoder: ``discrete-cost``, the processor time that a gradient
takes; ``discrete-training``, on a Bernoulli and a categorical VAE; ``discrete-bounds``, of several samples
there; ``discrete-temperature``, what that buys and costs; ``discrete-size``, over the number of variables and
of their states. docs/choosing-an-estimator.md draws its conclusions from these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import BUILTIN_NAMES
from ..cases.base import Case
from ..cases.variance import Variance, VarianceSettings
from ..problems.specifications import specifications
from ..running.executors.choice import Engine
from ..running.suite import Run, run
from ..store import default_folder
from .discrete.cost import measure_costs
from .discrete.runs import COST, AtEqualEvaluations
from .discrete.runs import RUNS as DISCRETE_RUNS

#: Settings of the built-in estimators that are compared beside their defaults.
VARIANTS = (
    "reparameterization[kl=sampled]",
    "reparameterization[draws=antithetic]",
    "reparameterization[draws=sobol]",
    "sticking-the-landing[draws=antithetic]",
    "sticking-the-landing[draws=sobol]",
    "score-function[draws=antithetic]",
    "score-function[draws=sobol]",
    "leave-one-out[kl=sampled]",
    "measure-valued[coupled=false]",
    "linearized-hessian[hessian=full]",
    "delta-method[pilot=16]",
    "vimco[mean=arithmetic]",
    "ovis[form=asymptotic]",
    "reweighted-wake-sleep[form=doubly-reparameterized]",
)
# Without a prior these are one of the others.
_SAME_WITHOUT_PRIOR = (
    "sticking-the-landing",
    "vargrad",
    "reparameterization[kl=sampled]",
    "leave-one-out[kl=sampled]",
)


@dataclass(frozen=True)
class WholeCatalogue(Variance):
    """The variance benchmark over the whole catalogue, at every S at every step."""

    num_samples: tuple[int, ...] = (1, 4, 16)
    batch_size: tuple[int, ...] = (64,)
    step: tuple[int, ...] = (0, 500, 10_000)
    latent_dim: tuple[int, ...] = ()
    replicates: int = 2000
    compared: tuple[str, ...] = (*BUILTIN_NAMES, *VARIANTS)

    def grid(self) -> list[Case[VarianceSettings]]:
        """Every step in turn; all checkpoints are of one trajectory, as long as the last of them."""
        cases = [case for step in self.step for case in self._at(step)]
        if max(self.step) == 0:
            return cases
        steps = tuple(sorted(self.step))
        return [replace(case, settings=replace(case.settings, steps=steps)) for case in cases]

    def estimators(self) -> list[str]:
        """All that are compared; those that cannot be used somewhere are skipped there."""
        return specifications(self.compared, "estimator")

    def _at(self, step: int) -> list[Case[VarianceSettings]]:
        return Variance.grid(replace(self, step=(step,)))


RUNS: dict[str, WholeCatalogue | AtEqualEvaluations] = {
    "training": WholeCatalogue(),
    "roughness": WholeCatalogue(
        problem=("exponential[k=[0.01,0.1,1,10,100,1000]]", "cosine[k=[0.01,0.1,1,10,100]]"),
        num_samples=(4,),
        batch_size=(),
        step=(0,),
        dtype="float64",
        compared=tuple(e for e in (*BUILTIN_NAMES, *VARIANTS) if not e.startswith(_SAME_WITHOUT_PRIOR)),
    ),
    "distance": WholeCatalogue(
        problem=("conjugate[latent_dim=4,distance=[0.01,0.03,0.1,0.3,1,3]]",),
        num_samples=(16,),
        batch_size=(),
        step=(0,),
        dtype="float64",
        compared=(
            "reparameterization",
            "reparameterization[kl=sampled]",
            "sticking-the-landing",
            "iwae",
            "dreg",
            "vimco",
            "ovis",
        ),
    ),
    **DISCRETE_RUNS,
}


def main(
    which: Annotated[list[str] | None, typer.Argument(help=f"of {', '.join(RUNS)}; all by default.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="For a run folder each; the same go on there."),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", help="Processes, one thread each.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="A small run, to see that all works.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be run and stop.")] = False,
) -> None:
    """Compare every estimator of the suite: tables and figures of variance and cost."""
    folder = output or default_folder("catalogue")
    try:
        done = []
        for name, options in {name: _run(name) for name in which or RUNS}.items():
            asked = _small(options) if quick else options
            if isinstance(asked, AtEqualEvaluations) and name == COST and not dry_run:
                measure_costs(asked, folder / name, turns=6 if quick else 64)
                continue
            done.append(run(Run([asked], folder / name, Engine(jobs=jobs), dry_run=dry_run)))
            if name in DISCRETE_RUNS and not dry_run:
                _draw(folder / name)
    except UsageError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    raise typer.Exit(0 if all(done) else 1)


def _draw(folder: Path) -> None:
    """The figures that only this comparison has."""
    from .discrete.figures import draw_discrete

    draw_discrete(folder)


def _run(name: str) -> WholeCatalogue | AtEqualEvaluations:
    if name not in RUNS:
        raise UsageError(f"no comparison {name!r}: choose from {', '.join(RUNS)}")
    return RUNS[name]


def _small(options: WholeCatalogue | AtEqualEvaluations) -> WholeCatalogue | AtEqualEvaluations:
    last = tuple(re.sub(r"\[([\d.]+,)+", "[", problem) for problem in options.problem)
    if isinstance(options, AtEqualEvaluations):
        return replace(options, problem=last, step=(0,), replicates=200)
    return replace(options, problem=last, num_samples=(4,), step=(0,), replicates=200)


if __name__ == "__main__":
    typer.run(main)
