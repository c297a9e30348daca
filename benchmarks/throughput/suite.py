"""The throughput of many cases through pytest-benchmark, in this process."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ...estimators.errors import UsageError
from ...estimators.plugins.registry import create
from ..problems.placement import check_device, check_dtype
from ..problems.registry import load_problem
from .case import ThroughputCase
from .modes import check_mode
from .plugin import ThroughputPlugin
from .rows import read_json, rows_from_json

_SWEEPS = 3
_QUICK_SECONDS = 0.05
_STUB = "elbograd_throughput"  # a module name that nobody else has
_WIDTHS = {"median": 22, "iqr": 22, "rounds": 8, "ops": 24, "min": 22}  # of the table's columns, about
_TABLE_WIDTH = 100


def run_throughput(
    cases: Sequence[ThroughputCase],
    output: Path,
    *,
    compare: str | None = None,
    seconds: float = 1.0,
    quick: bool = False,
) -> tuple[int, list[dict[str, Any]]]:
    """Time training steps and gradients of every case; print pytest-benchmark's tables.

    The cases are timed in turn, three times over: each sweep gives every case a third of its seconds, and
    the rounds of the sweeps are put together, so that a machine that slows down meets all cases alike.
    Neither the user's pytest configuration nor other pytest plugins take part.

    Args:
        cases: what to time. A case that goes wrong leaves a failed row; the others go on.
        output: folder for ``throughput.json``, which is replaced.
        compare: an earlier ``throughput.json``, or its folder, shown beside the new rates.
        seconds: of timing for the steps of a case, and again for its gradients; up to three times as many
            where the first sweeps were noisy.
        quick: at most 0.05 seconds each: a look whether everything works.

    Returns:
        The exit status (0, or 1 when a case failed), and the rows.

    Raises:
        UsageError: before anything runs: no cases, an unknown name, device, dtype or mode, a file to
            compare with that is missing or broken.
    """
    if not seconds > 0:
        raise UsageError(f"seconds={seconds!r} is not positive")
    cases = list(dict.fromkeys(cases))
    _check(cases)
    earlier = None if compare is None else earlier_result(compare)
    plugin = ThroughputPlugin(cases, min(seconds, _QUICK_SECONDS) if quick else seconds, _SWEEPS)
    output.mkdir(parents=True, exist_ok=True)
    result = output / "throughput.json"
    with tempfile.TemporaryDirectory() as name, _own_pytest_settings():
        folder = Path(name)
        arguments = _arguments(folder, result, plugin)
        if earlier is not None:
            # A copy, since it may be the very file that is about to be replaced.
            shutil.copyfile(earlier, folder / "then.json")
            arguments.append(f"--benchmark-compare={folder / 'then.json'}")
        result.unlink(missing_ok=True)
        code = pytest.main(arguments, plugins=[plugin])
        sys.modules.pop(_STUB, None)
    _check_exit(code)
    if not result.exists():  # pytest-benchmark writes nothing when there is nothing to write
        result.write_text(json.dumps({"benchmarks": [], **plugin.not_measured()}, indent=4))
    return int(bool(plugin.failures)), rows_from_json(result)


def _check(cases: Sequence[ThroughputCase]) -> None:
    """Build every problem and estimator once, so that a slip shows before the first second is spent."""
    if not cases:
        raise UsageError("no cases to time")
    for case in cases:
        check_mode(case.mode, check_device(case.device))
        check_dtype(case.dtype)
    for problem in dict.fromkeys(case.problem for case in cases):
        load_problem(problem)
    for estimator in dict.fromkeys(case.estimator for case in cases):
        create(estimator)


def earlier_result(compare: str) -> Path:
    """The file that ``compare`` means, a throughput.json or a folder with one.

    Raises:
        UsageError: it is missing or broken.
    """
    path = Path(compare).expanduser()
    path = path / "throughput.json" if path.is_dir() else path
    read_json(path)
    return path


def _arguments(folder: Path, result: Path, plugin: ThroughputPlugin) -> list[str]:
    """Arguments that leave nothing to the user's configuration; ``folder`` is empty and temporary."""
    # pytest imports what it is given by path, which would load this package under a second name; a
    # stub outside the package imports it under its own.
    stub = folder / f"{_STUB}.py"
    stub.write_text(f"from {__package__}.pytest_file import *\n")
    (folder / "pytest.ini").write_text("[pytest]\n")
    return [
        str(stub),
        f"--rootdir={folder}",
        f"-c={folder / 'pytest.ini'}",
        "--noconftest",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "-p",
        "pytest_benchmark.plugin",
        "-qq",
        "--no-header",
        "--tb=no",
        "--disable-warnings",
        "--benchmark-enable",
        f"--benchmark-json={result.resolve()}",
        # Nothing is stored there; another folder would be created.
        f"--benchmark-storage=file://{Path.cwd()}",
        "--benchmark-sort=min",
        "--benchmark-group-by=group",
        "--benchmark-name=short",
        f"--benchmark-columns={','.join(_columns(plugin.labels))}",
        "-rN",
    ]


def _columns(labels: Sequence[str]) -> list[str]:
    """As many columns of the table as 100 characters hold beside the longest label."""
    room = _TABLE_WIDTH - max(map(len, labels)) - len(" (then)") - 3
    shown = []
    for column, width in _WIDTHS.items():
        room -= width
        if room >= 0 or column in ("median", "iqr", "rounds"):
            shown.append(column)
    return [column for column in ("min", "median", "iqr", "ops", "rounds") if column in shown]


@contextmanager
def _own_pytest_settings() -> Iterator[None]:
    """Inside, the environment asks pytest for no options and no plugins."""
    ours = {"PYTEST_ADDOPTS": None, "PYTEST_PLUGINS": None, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    before = {name: os.environ.get(name) for name in ours}
    _set(ours)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _check_exit(code: int) -> None:
    if code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {pytest.ExitCode(code).name}")
