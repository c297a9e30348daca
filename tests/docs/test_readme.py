"""What the README shows is run: its Python, its command lines, its tox environments."""

from __future__ import annotations

import configparser
import re
import shlex
import sys
from pathlib import Path

import pytest
from elbograd.benchmarks.cli.main import main
from elbograd.estimators.testing import check_estimator
from pages import Page

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    line
    for language, text in BLOCKS
    if language == "console"
    for line in text.splitlines()
    if line.startswith("elbograd ") and " report " not in line
]


def python_block(containing):
    (block,) = [b for b in PYTHON if containing in b]
    return block


@pytest.mark.parametrize("containing", ["measure_variance", "optimizer.zero_grad"])
def test_python_examples_run(containing, capsys):
    exec(compile(python_block(containing), "README.md", "exec"), {})


@pytest.mark.parametrize("name", ["MyIdea", "MyPathwiseIdea"])
def test_the_example_estimators_conform(tmp_path, name):
    file = tmp_path / "my_ideas.py"
    file.write_text("\n\n".join(python_block(f"class {n}(") for n in ("MyIdea", "MyPathwiseIdea")))
    ran = check_estimator(f"{file}:{name}")
    assert any("unbiased" in name for name in ran)


def test_the_problem_protocol_is_the_real_one():
    from elbograd.benchmarks.problems import Problem

    shown = set(re.findall(r"(?:def )?(\w+)(?:\(self|: nn)", python_block("class Problem")))
    assert shown == {"encoder", "decoder", "posterior", "target", "batches"}
    assert all(hasattr(Problem, n) or n in Problem.__annotations__ for n in shown)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("elbograd.benchmarks.running.forecast.PILOT_SECONDS", 0)  # has tests of its own
    arguments = shlex.split(command)
    plans = arguments[1] not in ("list", "new-estimator", "new-problem", "check-problem")
    if "my_idea.py" in command:
        (tmp_path / "my_idea.py").write_text(python_block("class MyIdea("))
    if "my_model.py" in command:
        page = Page("docs/bring-your-own-model.md")
        (tmp_path / "my_model.py").write_text(page.code("class ConvVAE"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [*arguments, *(["--dry-run"] if plans else [])])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0


def test_tox_environments_exist_and_are_described():
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(Path(__file__).parents[2] / "tox.ini")
    named = {name for names in re.findall(r"tox -e ([\w,-]+)", README) for name in names.split(",")}
    assert {"bench", "test", "variance", "convergence", "throughput"} <= named
    for name in named | {"lint", "types"}:
        assert tox[f"testenv:{name}"]["description"]


def test_files_that_are_linked_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        if not link.startswith("http"):
            assert (Path(__file__).parents[2] / link).exists(), link


def test_the_table_is_that_of_the_published_rows():
    from elbograd.benchmarks import load_results
    from elbograd.benchmarks.studies.readme_table import main, table

    made = table(load_results(Path(__file__).parents[2] / "results" / "published"))
    assert made in README
    assert " to -" not in made  # a range of seeds would read as an interval
    assert main(["no-such-folder"]) == 2
