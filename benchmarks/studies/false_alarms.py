"""How often certification raises a false alarm: whole runs over correct estimators, each under a fresh seed.

    python -m elbograd.benchmarks.studies.false_alarms --runs 200

Each run certifies the estimators given on the problems given, with the conformance suite, at the levels of
`elbograd certify`, and stops at a loose bound: the false-alarm rate does not depend on how long a run goes
on, which only adds looks that the level already counts.
"""

from __future__ import annotations

import argparse
import sys
import time

from ..certification.candidate import builder
from ..certification.contract import certify_contract
from ..certification.levels import Settings, confirm_level
from ..certification.problem import certify_problem
from ..problems.registry import load_problem
from ..rows.certificate import ALARM_RATE
from ..seeds import derived

_ESTIMATORS = ("reparameterization", "score-function", "leave-one-out", "sticking-the-landing")
_PROBLEMS = ("quadratic[loc=0.7,scale=0.6,k=1.5]", "small-vae", "small-vae[posterior=bernoulli]")
_TOLERANCE = 0.3
_MAX_EVALUATIONS = 3e5


def one_run(estimators: list[str], problems: list[str], seed: int) -> tuple[int, list[str]]:
    """Checks that ran in a whole run, and the alarms among them."""
    settings = Settings(
        tolerance=_TOLERANCE,
        confirm_level=confirm_level(len(problems), len(estimators)),
        seed=seed,
        max_evaluations=_MAX_EVALUATIONS,
    )
    ran, alarms = 0, []
    for name in estimators:
        build = builder(name)
        parts = [certify_contract(build, settings)]
        parts += [certify_problem(build, load_problem(p), p, settings) for p in problems]
        ran += sum(part.ran for part in parts)
        alarms += [f"{name}: {line}" for part in parts for line in part.failures]
    return ran, alarms


def main() -> None:
    """Print a line a run with an alarm, and how many there were."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("-e", "--estimator", action="append")
    parser.add_argument("-p", "--problem", action="append")
    given = parser.parse_args()
    estimators, problems = given.estimator or list(_ESTIMATORS), given.problem or list(_PROBLEMS)
    runs_with_alarm, checks, start = 0, 0, time.monotonic()
    for run in range(given.runs):
        ran, alarms = one_run(estimators, problems, derived(1_000_003 * given.seed, "false alarms", run))
        checks += ran
        runs_with_alarm += bool(alarms)
        for line in alarms:
            print(f"run {run}: {line}", flush=True)
        if (run + 1) % 10 == 0:
            print(f"{run + 1} runs, {runs_with_alarm} with an alarm, {checks} checks", file=sys.stderr)
    print(
        f"{runs_with_alarm} of {given.runs} whole runs raised an alarm ({checks} checks ran; at most "
        f"{ALARM_RATE:g} a run is claimed; {time.monotonic() - start:.0f} s)"
    )


if __name__ == "__main__":
    main()
