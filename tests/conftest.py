"""What all tests share: shapes are checked, a busy machine fails none, and the command line."""

import sys

import jaxtyping
import pytest
from hypothesis import HealthCheck, settings
from shapes import check_shapes

check_shapes()  # before anything of elbograd is imported

from elbograd.benchmarks.cli.main import main  # noqa: E402

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture
def unchecked_shapes():
    """For thousands of small calls, which the checks of shapes would double; other tests make the same calls."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def elbograd(monkeypatch, capsys, tmp_path):
    """Run a command line in an empty folder: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["elbograd", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return run
