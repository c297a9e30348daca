"""Writes the table of planted bugs in docs/certification.md: each bug, what caught it, after how many draws.

    python docs/scripts/bug_table.py

Each bug is put before the conformance suite up to the first check that fails, and before the problems given
here, at the level of a certification with these alone: a whole one takes longer and catches the same. Those
that are wrong in one corner alone are put before the one of the two that is to show it.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from unittest import SkipTest

from elbograd.benchmarks.certification.candidate import Given, builder
from elbograd.benchmarks.certification.levels import Settings, confirm_level
from elbograd.benchmarks.certification.problem import certify_problem
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.rows.certificate_checks import Check
from elbograd.estimators.testing import estimator_checks

ROOT = Path(__file__).parents[2]
WRONG = ROOT / "tests" / "helpers" / "wrong_estimators.py"
WRONG_DISCRETE = WRONG.with_name("wrong_discrete_estimators.py")
WRONG_CORNERS = WRONG.with_name("wrong_corners.py")
PAGE = ROOT / "docs" / "certification.md"
BEGIN, END = "<!-- planted bugs -->\n", "<!-- end of planted bugs -->\n"
_PROBLEMS = {
    "gaussian": ["quadratic[loc=0.7,scale=0.6,k=1.5]", "small-vae"],
    "discrete": ["small-vae[posterior=bernoulli]"],
    "gamma": ["gamma-poisson"],
    "multi-sample": ["linear-gaussian[latent_dim=1,data_dim=2]"],
    "relaxed": ["binary-toy[latent_dim=3,target=0.4,probability=0.3]", "small-vae[posterior=bernoulli]"],
}

_TOLERANCE = 0.05  # how long is gone on where nothing is wrong
_SECONDS = 120  # that a failure is looked for on a problem
_SECONDS_MORE = 10  # the same, of what has failed before the suite already

#: class -> (what people do, problems).
BUGS = {
    "SquaredScale": ("z = μ + σ² ε, reparameterized", "gaussian"),
    "SquaredScaleInScore": ("z = μ + σ² ε, score function", "gaussian"),
    "AttachedSample": ("score function at a sample that still carries the gradient", "gaussian"),
    "UndetachedCost": ("the surrogate's cost not detached", "discrete"),
    "DetachedPosterior": ("log q detached", "discrete"),
    "ScoreAveragedOverLatents": ("log q averaged over latents, not summed", "gaussian"),
    "ChainRuleDropped": ("the derivative in σ handed to log σ", "gaussian"),
    "NoKl": ("KL missing", "discrete"),
    "DoubledKl": ("KL doubled", "gaussian"),
    "NegativeKl": ("KL with the wrong sign", "gaussian"),
    "LogSigmaInKl": ("log σ for log σ² in the closed-form KL", "gaussian"),
    "KlAveragedOverLatents": ("KL averaged over latents, not summed", "gaussian"),
    "WeightIgnored": ("the weight of the KL left at 1", "gaussian"),
    "StandardPrior": ("KL against N(0, I) whatever the prior", "gaussian"),
    "InventedPrior": ("KL against N(0, I) where there is no prior", "gaussian"),
    "SumOverSamples": ("sum over S for the mean", "gaussian"),
    "OneDrawForAllSamples": ("one draw copied S times", "discrete"),
    "GreedySample": ("the mode for a sample", "discrete"),
    "StraightThrough": ("straight-through, claimed to be unbiased", "discrete"),
    "ImplicitDerivativeMissing": ("a Gamma treated as location-scale", "gamma"),
    "RelaxesSilently": ("the target evaluated at probabilities", "discrete"),
    "LeaveNothingOut": ("leave-one-out that leaves nothing out", "gaussian"),
    "LeaveOneOutTwiceNormalized": ("leave-one-out normalized twice", "gaussian"),
    "BaselineOfOwnSample": ("a baseline that depends on its own sample", "gaussian"),
    "OptimalBaselineOfSameSamples": ("the optimal baseline fitted on the samples it serves", "gaussian"),
    "AntitheticLeaveOneOut": ("leave-one-out with antithetic pairs", "gaussian"),
    "AverageOfCurrentBatch": ("a moving average that includes the current costs", "discrete"),
    "MovedInForward": ("the moving average moved in forward", "discrete"),
    "BatchMeanBaseline": ("the batch mean as baseline, coupling undeclared", "discrete"),
    "CouplesReplicates": ("coupling over replicates as well", "discrete"),
    "ControlVariateWithMean": ("a control variate whose expectation is not zero", "gaussian"),
    "ClipsInTraining": ("costs clipped in training mode alone", "discrete"),
    "ClipsInRealSteps": ("costs clipped where θ is trained as well", "discrete"),
    "ValueOffWhereFrozen": ("another value while θ is held fixed", "discrete"),
    "ValueDetachedInTraining": ("value detached in training mode alone", "discrete"),
    "SurrogateTrainsBaseline": ("the surrogate trains the baseline", "discrete"),
    "AuxLossReachesPhi": ("the baseline's loss reaches φ", "discrete"),
    "AuxLossReachesTheta": ("the baseline's loss reaches θ", "discrete"),
    "ValueWithoutKl": ("value without the KL", "gaussian"),
    "DetachedValue": ("value detached: θ never learns", "discrete"),
    "MeasureValuedWrongConstant": ("a measure-valued derivative with the wrong constant", "gaussian"),
    "FalseAntitheticPairs": ("antithetic pairs that are not", "gaussian"),
    "FalseAntitheticBits": ("antithetic pairs of bits that are not", "discrete"),
    "AntitheticCalledIid": ("antithetic pairs claimed to be independent", "gaussian"),
    "SystematicBitsCalledIid": ("systematic samples claimed to be independent", "discrete"),
    "NoiseSharedOverData": ("one noise for all data", "gaussian"),
    "NoiseSharedOverReplicates": ("one noise for all replicates", "gaussian"),
    "StratifiedOverBatch": ("one stratified sequence dealt over the batch", "gaussian"),
    "SqueezesOneReplicate": ("a single replicate squeezed away", "discrete"),
    "ShiftedWithoutReplicates": ("another value where the batch has no replicates", "discrete"),
    "LastReplicateOfFive": ("replicates three at a time, the rest summed over samples", "discrete"),
    "RestOfTheChunksForgotten": ("data 16 at a time, the rest forgotten", "discrete"),
    "WrongForFourData": ("half of the gradient at four data alone", "discrete"),
    "ReseedsGlobally": ("torch.manual_seed in forward", "discrete"),
    "ReseedsItsGenerator": ("a reseeded generator: every draw the same", "gaussian"),
    "OwnGenerator": ("a generator of its own, moved by forward", "gaussian"),
    "NumpyNoise": ("noise that torch's seed does not govern", "gaussian"),
    "Autocast": ("costs rounded to bfloat16 under float32", "discrete"),
    "LogOfExponential": ("an exponential that float32 cannot hold", "discrete"),
    "LogOfZero": ("a value of −∞ once in a thousand estimates", "discrete"),
    "DefaultDtypeNoise": ("noise in the global default dtype", "gaussian"),
    "WearsOut": ("wrong after 2,000 calls, counted in the class", "discrete"),
    "WearsOutByModule": ("the same, counted in a variable of the file", "discrete"),
    "WearsOutByClosure": ("the same, counted in a closure", "discrete"),
    "WearsOutByDefault": ("the same, counted in an argument's default", "discrete"),
    "WearsOutByObject": ("the same, counted by an object of the file", "discrete"),
    "WrongWhenAged": ("wrong after 2,000 updates", "discrete"),
    "ForgetsInStateDict": ("state that state_dict does not hold", "discrete"),
    "DerivativeDenied": ("a derivative of the target used and denied", "gaussian"),
    "MeanOfLogs": ("mean of logs for log of means (multi-sample bound)", "multi-sample"),
    "WeightsNotDetached": ("importance weights not detached", "multi-sample"),
    "DirectTermForgotten": ("the direct term of the multi-sample bound forgotten", "multi-sample"),
}

#: The same in the file of those for discrete latents.
DISCRETE_BUGS = {
    "RebarConditionalFixed": ("REBAR's conditional noise held fixed while φ moves", "discrete"),
    "TaylorNotAddedBack": ("MuProp's expansion subtracted, its gradient not added back", "discrete"),
    "ClippedRatio": ("the ratio of an antithetic pair's probabilities clipped", "discrete"),
    "ProductOfMeans": ("the mean of f times the mean of the score", "discrete"),
    "DividedByDeviation": ("the learning signal divided by its running deviation (NVIL)", "discrete"),
    "ScoreTermOfTheWholeBatch": ("VIMCO's score term summed where the rest is averaged", "discrete"),
    "LogSumOverData": ("logsumexp taken over the data as well", "discrete"),
    "ConcreteKlTwice": ("the KL of Concrete variables weighted twice", "relaxed"),
    "OddSampleUncounted": ("S/2 pairs averaged whose odd sample is not counted", "discrete"),
    "GroupsOfThree": ("means of groups of samples added up: wrong from the fourth on", "discrete"),
    "LogarithmOfProbabilities": ("log q from probabilities that may be 0", "discrete"),
    "SmoothedProbabilities": ("probabilities lifted off zero before drawing", "discrete"),
}

#: The same in the file of those wrong in one corner alone, with what shows it: a problem or the suite.
CORNER_BUGS = {
    name: (f"{corner.mistake} ({corner.where})", [corner.problem])
    for name, corner in runpy.run_path(str(WRONG_CORNERS))["CORNERS"].items()
    if corner.caught
}


_SUITE = ""  # in the place of a problem: the conformance suite


def planted() -> list[tuple[str, str, list[str]]]:
    """Class with its file, what people do, and what is to catch it: the suite, problems."""
    found = []
    for file, bugs in ((WRONG, BUGS), (WRONG_DISCRETE, DISCRETE_BUGS)):
        for name, (mistake, kind) in bugs.items():
            found.append((f"{file}:{name}", mistake, [_SUITE, *_PROBLEMS[kind]]))
    found += [(f"{WRONG_CORNERS}:{name}", *bug) for name, bug in CORNER_BUGS.items()]
    return found


def table() -> list[str]:
    """The lines of the table; every bug must be caught."""
    lines = ["| what people do | caught by | draws |", "|---|---|---:|"]
    for estimator, mistake, catchers in planted():
        failed: list[Check] = []
        for catcher in catchers:
            failed += _failures(estimator, catcher, _SECONDS_MORE if failed else _SECONDS)
        assert failed, f"{estimator} was not caught"
        oracle = [check for check in failed if check.problem]
        caught = [str(check) for check in (*[c for c in failed if not c.problem], *oracle[:1])]
        drawn = [_drawn(oracle[0])] if oracle and oracle[0].draws else []
        drawn += [f"{int(n):,}" for n in re.findall(r"\((\d+) draws\)", failed[0].reason)]
        mistake = mistake.replace("|", "\\|")  # as in p(x|z)
        lines.append(f"| {mistake} | {'; '.join(caught)} | {drawn[0] if drawn else ''} |")
        print(lines[-1], flush=True)
    return lines


def _drawn(check: Check) -> str:
    return "a proof" if check.exact else f"{check.draws:,}"


def _failures(estimator: Given, catcher: str, seconds: float) -> Iterator[Check]:
    """The first check that fails, of a problem within so many seconds."""
    settings = Settings(tolerance=_TOLERANCE, confirm_level=confirm_level(1, 1), seconds=seconds)
    build = builder(estimator)
    if catcher != _SUITE:
        found = certify_problem(build, load_problem(catcher), catcher, settings).checks
        yield from [check for check in found if check.holds is False][:1]
        return
    for check in estimator_checks(build, confirm_level=settings.confirm_level):
        try:
            check()
        except SkipTest:
            continue
        except AssertionError as error:
            yield Check(check.name, False, str(error))
            return


def main() -> None:
    """Put the table into the page."""
    lines = table()
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
