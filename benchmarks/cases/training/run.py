"""One case of the convergence benchmark: tuning, the runs that are reported, and the same runs untuned."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial

from ...problems.protocol import Problem
from ...problems.specifications import label_of_text
from ...rows.schema import row
from ...seeds import derived
from ...training.annealed import annealed_log_likelihood
from ...training.batches import evaluation_data
from ...training.begin import Planned
from ...training.checkpoints import write
from ...training.exact_likelihood import exact_log_likelihood
from ...training.held_out import importance_weighted_log_likelihood
from ...training.many import train_planned
from ...training.result import TrainResult
from ...training.step import out_of_domain
from ...training.step_cost import step_cost
from ...training.trajectory import Trajectory
from ...training.trials import at_edge, planned_trials, with_own
from ...training.tuning import Trial, best_of, run_trials, split_to_choose_by
from ..base import Case, Row, untimed
from ..session import Session
from .settings import ConvergenceSettings, arguments, run_steps

#: The reason of rows whose model seeds itself: what seeds vary is then the order of data and the draws alone.
SHARED_WEIGHTS = "all seeds begin with the same weights, which the model fixes itself"
UNTUNED = "untuned"
_UNTUNED_RATE = 3e-3  # the usual one of Adam for models of this size
_AT_ONCE = 10  # runs that are reported: what a kill loses at most
_TRIAL_EVALUATIONS, _EVALUATIONS = 5, 20
_CHOSEN_ON_TRAINING = "chosen on training data: the problem has no data for validation"
_IMPORTANCE_SAMPLES = 256
_CHECKED, _CHAINS = 16, 16  # data, and samples of each, of the check by annealing


class ConvergenceRun:
    """What is measured of a case.

    Args:
        case: which one.
        session: keeps the parts that have ended, and is told how far it is.
        model: the problem of a specification under a seed.
    """

    def __init__(
        self, case: Case[ConvergenceSettings], session: Session, model: Callable[[str, int], Problem]
    ) -> None:
        self._case, self._own, self._session = case, case.settings, session
        self._model = partial(model, case.problem)
        self._kept = session.partial(case.id)
        self._done = 0  # steps of all runs that have ended

    def rows(self) -> list[Row]:
        """Long rows: of the runs that are reported, of those untuned, and of each trial."""
        if not self._own.tuned:
            return self._reported(self._own.learning_rates[0], self._case.estimator)
        trials = self._trials()
        best = best_of(trials)
        chosen = best or min(trials, key=lambda trial: trial.learning_rate)
        estimator = with_own(self._case.estimator, chosen.own)
        rows = self._reported(chosen.learning_rate, estimator, self._note(chosen, best is None))
        return rows + self._untuned() + [each for trial in trials for each in trial.rows]

    @cached_property
    def _split(self) -> str:
        return split_to_choose_by(self._model(self._case.seed))

    def _trials(self) -> list[Trial]:
        own = self._own
        low, high = own.learning_rates
        planned = planned_trials(self._case.estimator, own.trials, (low, high), self._case.seed)
        trials = run_trials(
            planned,
            self._model,
            self._case.estimator,
            split=self._split,
            keep=self._kept.keep,
            on_step=lambda ended, step: self._tell(
                f"trials from {ended + 1} on, of {own.trials}: step {step:,} of {own.tuning_steps:,}",
                ended * own.tuning_steps,
            ),
            steps=own.tuning_steps,
            optimizer=own.optimizer,
            evaluate_every=max(1, own.tuning_steps // _TRIAL_EVALUATIONS),
            **arguments(self._case),
        )
        self._done += own.trials * own.tuning_steps
        return trials

    def _note(self, chosen: Trial, none_good: bool) -> str:
        """What has to be known of how the rate was chosen."""
        edge = at_edge(chosen.learning_rate, self._own.learning_rates)  # type: ignore[arg-type]
        said = [
            "every trial diverged: the lowest rate tried is used" if none_good else "",
            f"tuned rate at the {edge} edge of its range" if edge else "",
            ", ".join(f"tuned {name} {value:g}" for name, value in chosen.own.items()),
            _CHOSEN_ON_TRAINING if self._split == "train" else "",
        ]
        return "; ".join(filter(None, said))

    def _reported(self, rate: float, estimator: str, note: str = "") -> list[Row]:
        """Rows of the runs at a learning rate, with a note on how that was found.

        Args:
            rate: of φ and θ.
            estimator: its specification, with what was tuned of its own.
            note: in a few words.
        """
        return _with_note(self._in_groups("runs", rate, estimator), note)

    def _untuned(self) -> list[Row]:
        """Rows of the same runs at the usual rate. They take as long as the others, which is told there."""
        rows = self._in_groups(UNTUNED, _UNTUNED_RATE, self._case.estimator)
        return [{**each, "parameter": UNTUNED} for each in rows if each["metric"] != "seconds"]

    def _in_groups(self, what: str, rate: float, estimator: str) -> list[Row]:
        seeds = [derived(self._case.seed, "repetition", k) for k in range(self._own.seeds)]
        what_kept = what if self._session.timings else f"{what}-not-timed"
        rows: list[Row] = []
        for start in range(0, len(seeds), _AT_ONCE):
            some = seeds[start : start + _AT_ONCE]
            name = f"{what_kept}-{start + 1}-{start + len(some)}"
            rows += self._kept.keep(name, partial(self._trained, some, rate, estimator, what == UNTUNED))
            self._done += len(some) * self._own.steps
        return _with_shared_weights_told(rows)

    def _trained(self, seeds: Sequence[int], rate: float, estimator: str, untuned: bool) -> list[Row]:
        own, every = self._own, max(1, self._own.steps // _EVALUATIONS)
        kept_at = _kept_steps(own.steps, every) if own.save and not untuned else ()
        planned = [Planned(self._model(seed), seed, rate) for seed in seeds]
        what = "untuned runs" if untuned else "runs"
        results = train_planned(
            planned,
            estimator,
            steps=own.steps,
            optimizer=own.optimizer,
            evaluate_every=every,
            importance_samples=_IMPORTANCE_SAMPLES,
            on_step=lambda step: self._tell(
                f"{len(seeds)} {what}: step {step:,} of {own.steps:,}", step * len(seeds)
            ),
            kept_at=kept_at,
            **arguments(self._case),
        )
        timed = self._session.timings and not untuned
        cost = step_cost(planned[0], estimator, own.optimizer, timed=timed, **arguments(self._case))
        rows: list[Row] = []
        for seed, result in zip(seeds, results, strict=True):
            rows += _timed(result.rows(), cost.seconds, self._session.timings)
            rows += _evaluations(result, cost.evaluations)
            if not untuned:
                rows += _checks(result, seed)
                self._save(result, seed)
        return rows

    def _save(self, result: TrainResult, seed: int) -> None:
        if self._session.folder is None or not result.states:
            return
        objectives = {point.step: point.heldout_objective for point in result.history}
        name = re.sub(r"[^a-z0-9]+", "-", label_of_text(self._case.estimator).lower()).strip("-")
        folder = self._session.folder / "trained" / f"{name[:40]}-{self._case.id}" / f"seed-{seed}"
        write(folder, Trajectory(result.states, objectives))

    def _tell(self, text: str, more: int = 0) -> None:
        share = min((self._done + more) / run_steps(self._own), 1.0)
        self._session.tell(f"{self._case.title}: {text}", share)


def _kept_steps(steps: int, every: int) -> set[int]:
    """The initialization, about each quarter, and the end."""
    return {0, steps, *(max(1, round(steps * k / 4 / every)) * every for k in (1, 2, 3))}


def _timed(rows: list[Row], seconds: float, timings: bool) -> list[Row]:
    """Seconds of training as a run takes them that is alone, whichever others were trained beside it."""
    timed = [{**r, "value": r["step"] * seconds} if r["metric"] == "seconds" else r for r in rows]
    return timed if timings else [untimed(r) if r["metric"] == "seconds" else r for r in timed]


def _evaluations(result: TrainResult, of_a_step: int) -> Iterator[Row]:
    for point in result.history:
        if point.step != result.diverged:
            yield row(
                **result.case, step=point.step, metric="evaluations", value=float(point.step * of_a_step)
            )


def _checks(result: TrainResult, seed: int) -> Iterator[Row]:
    """How good the importance-weighted bound at the end is: against the exact value, and by annealing."""
    if result.diverged is not None or result.heldout_log_likelihood is None or result.heldout is None:
        return
    step = result.history[-1].step
    x = evaluation_data(result.problem, "test", _CHECKED)
    try:
        annealed = annealed_log_likelihood(result.problem, x, chains=_CHAINS, seed=seed)
    except (ValueError, RuntimeError) as error:
        if not out_of_domain(error):
            raise
        annealed = None  # the moves have left what the model can be asked about
    bound = importance_weighted_log_likelihood(result.problem, x, _IMPORTANCE_SAMPLES, seed)
    found = {
        "exact_log_likelihood": exact_log_likelihood(result.problem, result.heldout),
        "annealed_gain": None if annealed is None or bound is None else annealed - bound,
    }
    for metric, value in found.items():
        if value is not None:
            yield row(**result.case, step=step, metric=metric, value=value, unit="nat")


def _with_note(rows: list[Row], note: str) -> list[Row]:
    return [
        {**r, "reason": "; ".join(filter(None, (r["reason"], note)))} if r["metric"] == "learning_rate" else r
        for r in rows
    ]


def _with_shared_weights_told(rows: list[Row]) -> list[Row]:
    """Where several seeds began with the same weights the rows say so: their interval tells of less."""
    seeds, weights = ({r[column] for r in rows} for column in ("seed", "weights"))
    if len(seeds) < 2 or len(weights) > 1:
        return rows
    return [{**r, "reason": r["reason"] or SHARED_WEIGHTS} if r["status"] == "done" else r for r in rows]
