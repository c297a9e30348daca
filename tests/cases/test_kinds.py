"""A kind of benchmark is one file: a toy, defined here alone, gets all that the others have."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
from elbograd.benchmarks import cases, load_results
from elbograd.benchmarks.cases import kinds
from elbograd.benchmarks.cases.base import Benchmark, Case, Output, Settings
from elbograd.benchmarks.cases.certify import Certify
from elbograd.benchmarks.cases.kinds import case_from_json
from elbograd.benchmarks.cases.options import option
from elbograd.benchmarks.cases.throughput import Throughput
from elbograd.benchmarks.cases.variance import Variance
from elbograd.benchmarks.problems.specifications import specifications
from elbograd.benchmarks.running.suite import Run, run
from elbograd.estimators.errors import UsageError

ALL = tuple(kinds.kinds().values())
IDS = {
    "variance": "ed222393eabd",
    "convergence": "ea3f8717f109",
    "throughput": "6fbe1e1ca20e",
}
CERTIFIED = "4bf9dad48d76"
CHOSEN = "5eb1c221f5c3"


@dataclass(frozen=True)
class ToySettings(Settings):
    power: int


@dataclass(frozen=True)
class ToyPilot:
    unit: float

    def seconds(self, case):
        return self.unit * case.settings.power


@dataclass(frozen=True)
class Toy(Benchmark[ToySettings]):
    """Raise S to a power."""

    name: ClassVar[str] = "test-only-toy"
    settings: ClassVar[type[Settings]] = ToySettings
    headline: ClassVar[str] = "gradient_norm"

    power: int = option(2, "--power", help="Of S.")

    def quick(self):
        return replace(self, power=1)

    def grid(self):
        self.check()
        sizes = [(p, s) for p in specifications(self.problem, "problem") for s in self.num_samples]
        return [case for p, s in sizes for case in self.cases(p, s, None, ToySettings(self.power))]

    @classmethod
    def execute(cls, case, session):
        value = float(case.num_samples**case.settings.power)
        return case.complete([case.row(metric=cls.headline, value=value)])

    @classmethod
    def pilot(cls, case):
        return ToyPilot(100.0)


@dataclass(frozen=True)
class Page(Toy):
    """Say what a power is, in a text."""

    name: ClassVar[str] = "test-only-page"
    alone: ClassVar[bool] = True
    text_file: ClassVar[str] = "page.txt"
    measured: ClassVar[list[Case[ToySettings]]] = []

    def measure_together(self, cases, session):
        for case in cases:
            self.measured.append(case)
            session.tell(f"raising {case.num_samples}", 0.5)
            stop = case.num_samples == 99
            yield case, Output(self.execute(case, session), f"A power of {case.num_samples}.", stop)


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(kinds, "_registered", {})
    monkeypatch.setattr("elbograd.benchmarks.plots.draw_all", lambda *_: [])
    monkeypatch.setattr(Page, "measured", [])
    kinds.register(Toy)
    kinds.register(Page)


@pytest.fixture
def folder_of_kinds(monkeypatch, tmp_path):
    """A folder whose files are looked at as those of cases/ are."""
    folder = tmp_path / "more-cases"
    folder.mkdir()
    both = [*cases.__path__, str(folder)]
    monkeypatch.setattr(cases, "__path__", both)
    monkeypatch.setattr(kinds, "_folder", both)
    kinds._defined_here.cache_clear()
    yield folder
    kinds._defined_here.cache_clear()


COMMAND = (
    "test-only-toy",
    "-p",
    "quadratic",
    "-e",
    "score-function",
    "-e",
    "exact",
    "-s",
    "2,3",
    "--power",
    "3",
)


@pytest.mark.usefixtures("toys")
def test_a_toy_kind_runs_and_goes_on_where_it_stopped(elbograd):
    code, out, err = elbograd(*COMMAND, "-o", "run")
    assert code == 0, err
    assert "[4/4]" in err
    assert "score-function, S=3, quadratic: gradient norm 27 (" in err
    rows = load_results("run")
    assert rows["value"].tolist() == [8.0, 8.0, 27.0, 27.0]
    assert set(rows["benchmark"]) == {"test-only-toy"}
    assert {json.loads(p)["power"] for p in rows["parameters"]} == {3}
    assert "all tables in run/tables/tables.md" in out
    page = Path("run/tables/tables.md").read_text()
    assert "## Test only toy\n\nquadratic" in page
    assert "| 2 | `exact` | 8.00 |" in page
    assert "| 3 | `score-function` | 27.0 |" in page
    lines = pd.read_csv("run/tables/test-only-toy.csv")
    assert lines["gradient_norm"].tolist() == [8.0, 8.0, 27.0, 27.0]
    assert "Test only toy · quadratic" in out
    assert "exact           3           27.0" in out
    assert elbograd("report", "run", "--formats", "svg")[0] == 0
    assert "Test only toy" in Path("run/report.html").read_text()
    assert elbograd("compare", "run", "run") == (
        2,
        "",
        "elbograd: error: run and run have no measured case in common: nothing to compare was measured in either; "
        "test-only-toy: no comparison is known for this kind of benchmark\n",
    )
    again = elbograd(*COMMAND, "-o", "run")
    assert again[0] == 0
    assert "/4]" not in again[2]
    assert load_results("run").equals(rows)


@pytest.mark.usefixtures("toys")
def test_a_study_s_own_variant_of_a_kind_goes_on_too(tmp_path):
    class Cubes(Toy):
        power = 3

    for _ in range(2):
        assert run(Run([Cubes(estimator=("exact",), problem=("quadratic",))], tmp_path / "run"))
    assert load_results(tmp_path / "run")["value"].tolist() == [1.0]


@pytest.mark.usefixtures("toys")
def test_a_toy_kind_has_options_a_quick_variant_and_a_forecast(elbograd):
    code, out, _ = elbograd("test-only-toy", "--help")
    assert code == 0
    assert "Raise S to a power." in out
    assert "--power INTEGER" in " ".join(out.split())
    for option_of_all in ("--estimator", "--batch-size", "--jobs", "--output", "--dry-run"):
        assert option_of_all in out
    assert "test-only-toy " in elbograd("--help")[1]
    code, out, _ = elbograd(*COMMAND, "--dry-run")
    assert code == 0
    assert "test-only-toy: exact, S=3, quadratic: about 5 min" in out.splitlines()
    assert out.splitlines()[-1].startswith("4 cases to run: about 20 min of measuring")
    assert "about 2 min" in elbograd(*COMMAND, "--quick", "--dry-run")[1].splitlines()[0]
    code, _, err = elbograd("test-only-toy", "--power", "two")
    assert (code, "'two' is not an integer" in err) == (2, True)


@pytest.mark.usefixtures("toys")
def test_a_kind_that_is_read_as_a_text_prints_it_and_keeps_it(elbograd, tmp_path):
    command = ["test-only-page", "-p", "quadratic", "-e", "exact", "-s", "2,3", "-o", "run"]
    code, out, err = elbograd(*command)
    assert code == 0
    assert out.startswith("A power of 2.\n\nA power of 3.\n\n")
    assert "[ 50%] raising 2" in err
    assert (tmp_path / "run" / "page.txt").read_text() == "A power of 2.\n\nA power of 3.\n"
    code, out, _ = elbograd(*command)
    assert (code, out.strip(), len(Page.measured)) == (0, "A power of 2.\n\nA power of 3.", 2)
    code, out, err = elbograd("test-only-page", *command[1:5], "-s", "2,99,3", "-o", "stopped")
    assert code == 130
    assert err.strip().endswith("elbograd: stopped")
    assert load_results("stopped")["num_samples"].tolist() == [2, 99]
    assert not (tmp_path / "stopped" / "page.txt").exists()
    assert elbograd("test-only-page", *command[1:5], "-s", "2,99,3", "-o", "stopped")[0] == 130  # begun anew
    assert [case.num_samples for case in Page.measured[-4:]] == [2, 99, 2, 99]


@pytest.mark.usefixtures("toys")
def test_what_is_nothing_but_timings_has_no_executor(elbograd):
    code, _, err = elbograd("test-only-page", "-j", "2")
    assert code == 2
    assert "No such option" in err


def test_a_name_is_given_once(monkeypatch):
    monkeypatch.setattr(kinds, "_registered", {})
    assert kinds.register(Variance) is Variance

    class Other(Variance):
        name = "variance"

    with pytest.raises(UsageError, match="called 'variance' already"):
        kinds.register(Other)
    with pytest.raises(
        UsageError, match="unknown kind of benchmark 'test-only-toy': choose from variance, convergence"
    ):
        kinds.find("test-only-toy")


def test_the_kinds_are_the_files():
    folder = Path(kinds.__file__).parent
    files = {
        f.stem for f in folder.glob("*.py") if re.search(r"^class \w+\(Benchmark\b", f.read_text(), re.M)
    }
    assert {kind.__module__.rpartition(".")[2] for kind in ALL} == files
    assert [kind.name for kind in ALL[:5]] == ["variance", "convergence", "throughput", "certify", "advise"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "class Unfinished(",
            "benchmarks/cases/unfinished_kind.py: does not load: line 1: '(' was never closed",
        ),
        ("import nowhere", "benchmarks/cases/unfinished_kind.py: does not load: ModuleNotFoundError"),
    ],
)
def test_a_file_that_does_not_load_is_one_line(elbograd, folder_of_kinds, text, message):
    (folder_of_kinds / "unfinished_kind.py").write_text(text)
    code, _, err = elbograd("--help")
    assert (code, len(err.splitlines())) == (2, 1)
    assert message in err


@pytest.mark.parametrize("kind", ALL)
def test_a_case_survives_the_way_to_a_worker(kind):
    for case in (*kind(problem=("quadratic",)).quick().grid(), *kind().grid()):
        sent = case_from_json(json.loads(json.dumps(case.as_json())))
        assert sent == case
        assert sent.id == case.id


def test_a_case_is_the_same_in_every_version():
    """Otherwise old runs would not go on: these are the ids of the cases of the first release.

    All but those of a certificate, whose levels are shared out over as many looks as the suite has, and of
    training, which has since been tuned by random search.
    """
    found = {name: kinds.find(name)().grid()[0].id for name in IDS}
    assert found == IDS
    certified = kinds.find("certify")(estimator=("score-function",), problem=("quadratic",))
    assert certified.grid()[1].id == CERTIFIED
    chosen = Variance(problem=("quadratic",), step=(0,), latent_dim=(), chunk=3, relative_to="score-function")
    assert replace(chosen, precision=0.1).grid()[-1].id == CHOSEN


def test_settings_that_came_later_change_no_earlier_case():
    @dataclass(frozen=True)
    class Later(ToySettings):
        base: str | None = None

    assert Later(2).as_json() == ToySettings(2).as_json()
    assert Later(2, "S").as_json() == {"power": 2, "base": "S"}
    assert Later.from_json({"power": 2}) == Later(2)


def test_seconds_that_are_asked_for_need_no_pilot():
    (eager, compiled) = Throughput(estimator=("exact",), seconds=3.0, mode=("eager", "compiled")).grid()
    throughput = Throughput(seconds=3.0)
    assert [throughput.expected_seconds(case) for case in (eager, compiled)] == [6.0, None]
    suite, problem = Certify(estimator=("exact",), problem=("quadratic",), budget=5.0).grid()
    assert [Certify().expected_seconds(case) for case in (suite, problem)] == [1.5, 3.5]


@pytest.mark.parametrize("module", ["cases.kinds", "cli.main", "running.suite"])
def test_cases_import_no_torch(module):
    code = (
        f"import sys, elbograd.benchmarks.{module}\n"
        "from elbograd.benchmarks.cases.kinds import kinds\n"
        "for kind in kinds().values(): kind()\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
