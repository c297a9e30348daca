"""Problems at points of one training trajectory that all estimators share, to be compared there."""

from __future__ import annotations

import hashlib
import json
import textwrap
import zipfile
import zlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create_under
from ..problems.protocol import Problem
from ..problems.registry import load_under
from ..store.atomic import replacing, write_atomically
from .state import State
from .state_along import StateDict, train_state_along
from .trajectory import Trajectory, heldout_objective, walk

HELDOUT = "heldout.json"
_StateKey = tuple[str, int, tuple[int, ...], str, int, int]
_IN_MEMORY = 8  # trajectories
_CHECKSUM = "crc32"  # of the values, in a heldout.json that the suite wrote; a user's needs none


class Checkpoints:
    """Trajectories, each trained or read once while this object lives.

    Args:
        folder: where checkpoints are kept between processes; None to keep them in memory only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._trained = lru_cache(maxsize=_IN_MEMORY)(self._train)
        self._states: dict[_StateKey, dict[int, StateDict]] = {}
        self._given_heldout = lru_cache(maxsize=_IN_MEMORY)(_heldout_along)

    def problem_at(self, specification: str, step: int, seed: int, steps: tuple[int, ...] = ()) -> Problem:
        """The problem after ``step`` steps of the trajectory that `trajectory.walk` trains.

        Args:
            specification: of the problem.
            step: 0 for the initialization.
            seed: of the trajectory.
            steps: others that the trajectory is wanted at, trained in one go.

        Raises:
            UsageError: no teacher supports the problem, or its training diverged.
        """
        problem = load_under(seed, specification)
        if step > 0:
            _load(problem, self._trained(specification, seed, _union(steps, step)).states[step])
        return problem

    def estimator_state(
        self,
        specification: str,
        step: int,
        seed: int,
        steps: tuple[int, ...],
        estimator: str,
        num_samples: int,
        x: Tensor,
    ) -> StateDict:
        """An estimator's own state at a step, trained along the trajectory (see `state_along`).

        Args:
            specification: of the problem.
            step: above 0.
            seed: of the trajectory.
            steps: others that are wanted, trained in one go.
            estimator: its specification.
            num_samples: S.
            x: (B, ...), what will be measured there, the same for all steps.

        Raises:
            UsageError: the estimator cannot be used here, or the trajectory diverges.
            EstimatorError: it breaks the protocol.
        """
        wanted = tuple(s for s in _union(steps, step) if s > 0)
        key = specification, seed, wanted, estimator, num_samples, len(x)
        if key not in self._states:
            self._states[key] = self._state_along(key, x)
        return self._states[key][step]

    def _state_along(self, key: _StateKey, x: Tensor) -> dict[int, StateDict]:
        specification, seed, steps, estimator, num_samples, _ = key
        name = hashlib.sha256("|".join(map(str, key)).encode()).hexdigest()[:12]
        file = None if self._folder is None else self._folder / f"state-{name}.pt"
        if file is not None and file.exists():
            with suppress(UsageError):  # damaged: the same training makes the same again
                return {int(step): state for step, state in _read_file(file).items()}
        problem = load_under(seed, specification)
        states = train_state_along(problem, create_under(seed, estimator), x, num_samples, steps, seed)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as unfinished:
                torch.save({str(step): state for step, state in states.items()}, unfinished)
        return states

    def heldout_gap(
        self, specification: str, step: int, seed: int, steps: tuple[int, ...] = ()
    ) -> tuple[float, float] | None:
        """Held-out objective at a step, and how far below the best of the trajectory it is, in nats a datum.

        None where the trajectory is only its beginning, or the problem has no held-out data.
        """
        if max((*steps, step)) == 0:
            return None
        return _gap(self._trained(specification, seed, _union(steps, step)).heldout, step)

    def given_heldout_gap(
        self, specification: str, step: int, seed: int, folder: Path
    ) -> tuple[float, float] | None:
        """As `heldout_gap`; the best is that of the folder's usable checkpoints, or of its heldout.json."""
        return _gap(self._given_heldout(specification, seed, folder), step)

    def _train(self, specification: str, seed: int, steps: tuple[int, ...]) -> Trajectory:
        """One trajectory with the states at ``steps``, from the folder where an earlier process kept it."""
        if self._folder is None:
            return walk(load_under(seed, specification), steps, seed)
        key = hashlib.sha256(f"{specification}|{seed}|{steps}".encode()).hexdigest()[:12]
        kept = self._folder / key
        if (kept / HELDOUT).exists():  # written last
            with suppress(UsageError):  # damaged: the same training makes the same again
                return Trajectory({step: _read(kept / f"{step}.pt") for step in steps}, _read_heldout(kept))
        trajectory = walk(load_under(seed, specification), steps, seed)
        write(kept, trajectory)
        return trajectory


def steps_in(folder: Path) -> tuple[int, ...]:
    """The steps of a saved trajectory: a folder of STEP.pt, dicts of "encoder" and "decoder" state dicts.

    Raises:
        UsageError: there are none.
    """
    found = sorted(int(file.stem) for file in folder.glob("*.pt") if file.stem.isdecimal())
    if not found:
        raise UsageError(f"no checkpoints in {folder}: expected files called STEP.pt, such as 500.pt")
    return tuple(found)


def _union(steps: tuple[int, ...], step: int) -> tuple[int, ...]:
    return tuple(sorted({*steps, step}))


def write(folder: Path, trajectory: Trajectory) -> None:
    """Save a trajectory in the format of `steps_in`, with the held-out objectives beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for step, state in trajectory.states.items():
        with replacing(folder / f"{step}.pt") as unfinished:  # other processes may be about to write the same
            torch.save(state, unfinished)
    values = {str(step): value for step, value in trajectory.heldout.items()}
    write_atomically(folder / HELDOUT, json.dumps({**values, _CHECKSUM: _checksum(values)}))


def _read_heldout(folder: Path) -> dict[int, float]:
    file = folder / HELDOUT
    try:
        content = json.loads(file.read_bytes())
        if _CHECKSUM in content and content.pop(_CHECKSUM) != _checksum(content):
            raise UsageError(f"{file}: damaged: its checksum does not match")
        return {int(step): float(value) for step, value in content.items()}
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except UsageError:
        raise
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{file}: not a JSON object of steps and held-out objectives") from error


def _checksum(values: dict[str, float]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def given_problem_at(specification: str, step: int, folder: Path, seed: int = 0) -> Problem:
    """The problem at a step of a trajectory that the user saved, in the format of `steps_in`.

    What the checkpoint does not hold, such as data that were drawn, is made under the seed.

    Raises:
        UsageError: there is no such checkpoint, or it is of another model.
    """
    problem = load_under(seed, specification)
    _load(problem, _read(folder / f"{step}.pt"))
    return problem


def _heldout_along(specification: str, seed: int, folder: Path) -> dict[int, float]:
    """Step -> held-out objective of a trajectory that the user saved."""
    if (folder / HELDOUT).exists():
        return _read_heldout(folder)
    values = {}
    for step in steps_in(folder):
        with suppress(UsageError):  # of a checkpoint that cannot be used: said where that step is asked for
            values[step] = heldout_objective(given_problem_at(specification, step, folder, seed), seed)
    return {step: value for step, value in values.items() if value is not None}


def _gap(heldout: dict[int, float], step: int) -> tuple[float, float] | None:
    if step not in heldout:
        return None
    return heldout[step], max(heldout.values()) - heldout[step]


def _read(file: Path) -> State:
    state: State = _read_file(file)
    if not {"encoder", "decoder"} <= state.keys():
        raise UsageError(f'{file}: expected a dict of "encoder" and "decoder" state dicts')
    return state


def _read_file(file: Path) -> dict[str, dict[str, Tensor]]:
    """A dict of state dicts that torch saved."""
    try:
        if zipfile.is_zipfile(file) and not _is_whole(file):
            raise UsageError(f"{file}: damaged: a checksum in it does not match")
        states = torch.load(file, weights_only=True, map_location="cpu")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except UsageError:
        raise
    except Exception as error:  # bytes that are no checkpoint make the unpickler raise anything
        raise UsageError(f"{file}: not a checkpoint that torch.load(..., weights_only=True) reads") from error
    if not isinstance(states, dict):
        raise UsageError(f'{file}: expected a dict of "encoder" and "decoder" state dicts')
    return states


def _is_whole(file: Path) -> bool:
    """Whether the bytes are those that torch saved; torch writes checksums and does not look at them."""
    with zipfile.ZipFile(file) as archive:
        return archive.testzip() is None


def _load(problem: Problem, state: State) -> None:
    for side, module in (("encoder", problem.encoder), ("decoder", problem.decoder)):
        try:
            module.load_state_dict(state[side])
        except (RuntimeError, TypeError, AttributeError) as error:
            what = f"{side}: {_first_mismatch(error)}"
            raise UsageError(f"a checkpoint of another model does not fit this problem: {what}") from error


def _first_mismatch(error: Exception) -> str:
    """Of the lines that load_state_dict writes, a heading and one a mismatch, the first that tells one."""
    lines = [" ".join(line.split()) for line in str(error).splitlines()]
    first = next((line for line in (*lines[1:], *lines[:1]) if line), type(error).__name__)
    return textwrap.shorten(first.rstrip(". "), 200, placeholder=" …")  # one mismatch can be many names
