"""The tutorial and the guides: their Python is run, their commands are planned, their numbers are the rows'."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys

import pytest
import yaml
from elbograd.benchmarks import load_results
from elbograd.benchmarks.cli.main import main
from elbograd.benchmarks.problems.datasets.catalogue import DATA_SETS
from elbograd.benchmarks.rows.text import interval, number
from elbograd.estimators import catalogue, create
from elbograd.estimators.plugins.registry import REGISTRY
from elbograd.estimators.testing import estimator_checks
from pages import ROOT, Page

TUTORIAL, ADDING = Page("docs/tutorial.md"), Page("docs/add-an-estimator.md")
COMPARING, STATISTICS = Page("docs/comparing-runs.md"), Page("docs/statistics.md")
CITING, REAL_DATA = Page("docs/citing.md"), Page("docs/real-data.md")
#: Whose commands are tested in test_docs.py, or below where they need a finished run.
ELSEWHERE = {
    "bring-your-own-model", "certification", "reproductions", "choosing-an-estimator", "comparing-runs",
    "real-data",
}  # fmt: skip
COMMANDS = [
    (page, command)
    for page in (Page(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md")))
    if page.path.stem not in ELSEWHERE
    for command in page.commands
]
#: What tells the Python blocks apart that a test below runs.
RUN = {
    TUTORIAL: (".sample()\nf =", "by_hand", 'measure_variance("vae"', "class MyIdea"),
    ADDING: (
        '"""My idea',
        "class WrongMean",
        "import estimator_checks",
        "for weight in",
        "class ByHand",
        "register(",
        "= check_estimator(",
    ),
    COMPARING: (),
    CITING: (),
    REAL_DATA: ('load_problem("vae[validation=300',),
}
RUNS = ROOT / "results" / "published" / "tutorial"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with the files that the page on adding an estimator has one save."""
    for name, containing in {
        "my_idea.py": '"""My idea',
        "wrong_mean.py": "class WrongMean",
        "test_my_idea.py": "estimator_checks",
        "by_hand.py": "class ByHand",
    }.items():
        (tmp_path / name).write_text(ADDING.code(containing), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_idea", None)


def printed(code, name):
    """What a block of Python prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, name, "exec"), {"__name__": name})
    return out.getvalue()


def said_in(code):
    """What the comments behind its prints say that it prints."""
    return re.findall(r"^print\(.*\)  # (.+)$", code, flags=re.MULTILINE)


def output_after(page, command):
    """The block of output that follows a command or a piece of code."""
    return re.search(r"```text\n(.*?)^```", page.text.partition(command)[2], re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.path.stem)
def test_no_block_of_python_is_left_out(page):
    blocks = [text for language, text in page.blocks if language == "python"]
    assert [sum(mark in text for mark in RUN[page]) for text in blocks] == [1] * len(RUN[page])


@pytest.mark.parametrize(
    ("page", "command"), COMMANDS, ids=lambda value: value if isinstance(value, str) else value.path.stem
)
def test_commands_are_accepted(page, command, folder, monkeypatch, capsys):
    plans = ["--dry-run"] if command.split()[1] not in ("list", "compare", "new-estimator") else []
    assert elbograd(" ".join([command, *plans]), monkeypatch) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", [c for c in REAL_DATA.commands if " data get " not in c])
def test_commands_on_real_data_are_accepted(command, monkeypatch, tmp_path, capsys):
    pytest.importorskip("mlxtend", reason="mlxtend is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("elbograd.benchmarks.running.forecast.PILOT_SECONDS", 0)  # has tests of its own
    plan = "" if " data " in command else " --dry-run"
    assert elbograd(f"{command}{plan}", monkeypatch) == 0
    assert capsys.readouterr().out


def test_the_table_of_data_is_that_of_the_catalogue():
    rows = re.findall(
        r"^\| `([\w-]+)` \| .+? \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", REAL_DATA.text, re.MULTILINE
    )
    numbers = {name: [int(number.replace(",", "")) for number in row] for name, *row in rows}
    assert numbers == {
        name: [data.sizes["train"] - data.validation, data.validation, data.sizes["test"]]
        for name, data in DATA_SETS.items()
    }


def test_real_data_are_split_as_the_page_says():
    lines = printed(REAL_DATA.code("load_problem"), "real-data").splitlines()
    assert lines == ["train (64, 64) 1200", "validation (64, 64) 300", "test (64, 64) 297"]


def test_a_sample_stops_backpropagation_as_the_tutorial_says():
    code = TUTORIAL.code(".sample()")
    assert printed(code, "tutorial").splitlines() == said_in(code) == ["False"]


def test_the_cost_done_by_hand(monkeypatch):
    """20,000 replicates for the page's 400,000: the exact variance is in a 99.9% interval, false alarm 2e-3."""
    from elbograd.benchmarks import measure_variance

    shown = output_after(TUTORIAL, TUTORIAL.code("by_hand"))
    pattern = r"(.+): measured ([\d.]+) \[([\d.]+), ([\d.]+)\], by hand ([\d.]+)"
    lines = {name: [*map(float, numbers)] for name, *numbers in re.findall(pattern, shown)}
    again = printed(TUTORIAL.code("by_hand").replace("400_000", "64"), "tutorial")
    assert re.findall(r"by hand ([\d.]+)", again) == re.findall(r"by hand ([\d.]+)", shown)
    for name, (value, low, high, exact) in lines.items():
        assert low < value < high
        assert low < exact < high
        v = measure_variance("quadratic[loc=0.7,scale=0.6,k=1.5]", name, num_samples=1, replicates=20_000)
        ends = v.moments[""].interval(0.999)
        assert ends[0] < exact < ends[1]
        assert not ends[0] < exact / 2 < ends[1]


@pytest.mark.parametrize(("run", "tables"), [("first-plot", 2), ("more-samples", 1)])
def test_the_tutorial_s_tables_are_those_of_its_rows(run, tables):
    rows = load_results(RUNS / run / "rows.parquet")
    totals = rows[(rows["metric"] == "variance") & (rows["parameter"].fillna("") == "")]
    shown = output_after(TUTORIAL, f"-o {run}")
    assert shown.count("Gradient variance") == tables
    for line in totals.to_dict("records"):
        written = (
            rf"^{line['estimator']} .*{re.escape(interval(line['value'], line['ci_low'], line['ci_high']))}"
        )
        assert re.search(written, shown, flags=re.MULTILINE), written
    assert f"elbograd {' '.join(shlex.split(_command(run))[1:])}" in TUTORIAL.text


def _command(run):
    import json

    return json.loads((RUNS / run / "environment.json").read_text(encoding="utf-8"))["command"]


def test_the_factors_in_the_tutorial_are_those_of_its_rows():
    def total(run, estimator, **case):
        rows = load_results(RUNS / run / "rows.parquet")
        rows = rows[(rows["metric"] == "variance") & (rows["parameter"].fillna("") == "")]
        for column, wanted in {"estimator": estimator, **case}.items():
            rows = rows[rows[column] == wanted]
        (value,) = rows["value"]
        return value

    text = " ".join(TUTORIAL.text.split())
    said = re.search(r"factor of (\d+) to (\d+), where it was over ([\d,]+) at the start", text)
    gains = {
        step: sorted(
            total("first-plot", "score-function", step=step) / total("first-plot", name, step=step)
            for name in ("leave-one-out", "learned-baseline")
        )
        for step in (0, 1000)
    }
    assert [round(gain) for gain in gains[1000]] == [int(said[1]), int(said[2])]
    assert gains[0][0] > int(said[3].replace(",", ""))
    falls_by = re.findall(r"`([\w-]+)` (?:falls by a factor of|by|falls by) ([\d.]+\d)", text)
    assert len(falls_by) == 3
    for name, falls in falls_by:
        ratio = total("more-samples", name, num_samples=2) / total("more-samples", name, num_samples=32)
        digits = len(falls.partition(".")[2])
        assert round(ratio, digits) == float(falls), name


def test_the_tutorial_s_last_measurements():
    code = TUTORIAL.code('measure_variance("vae"')
    shown = output_after(TUTORIAL, code).splitlines()
    again = printed(code, "tutorial").splitlines()
    # Another processor may round otherwise; the two intervals are of the same draws.
    values = [float(lines[0].split()[0]) for lines in (shown, again)]
    assert values[1] == pytest.approx(values[0], rel=0.05)
    assert sum(map(float, re.findall(r": ([\d.]+)", again[1]))) == pytest.approx(values[1], abs=0.002)


def test_the_tutorial_s_estimator_conforms(tmp_path):
    (tmp_path / "my_idea.py").write_text(TUTORIAL.code("class MyIdea"), encoding="utf-8")
    for check in estimator_checks(str(tmp_path / "my_idea.py")):
        if check.name.endswith("[bernoulli]"):  # the guide's own is checked under all three
            check()
    assert len(TUTORIAL.code("class MyIdea").partition("def forward")[2].splitlines()) <= 10


def test_the_guide_s_estimator_conforms(folder):
    code = ADDING.code("check_estimator(")
    assert printed(code, "guide").splitlines() == said_in(code)


def test_the_guide_s_weights_are_as_shown(folder):
    code = ADDING.code("for weight in")
    assert printed(code, "guide").splitlines() == re.findall(r"^# (.+)$", code, flags=re.MULTILINE)


def test_the_guide_s_test_file_asks_for_every_check(folder):
    names = {"__file__": str(folder / "test_my_idea.py"), "__name__": "test_my_idea"}
    exec(compile(ADDING.code("import estimator_checks"), names["__file__"], "exec"), names)
    (mark,) = names["test_my_idea"].pytestmark
    assert len(mark.args[1]) == 122
    names["test_my_idea"](mark.args[1][0])


def test_the_citation_is_that_of_the_file():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    shown = CITING.text.replace("{ELBO}", "ELBO")
    for field in (
        citation["title"],
        citation["version"],
        citation["license"],
        citation["authors"][0]["name"],
    ):
        assert f"{{{field}}}" in shown


def test_the_gradient_written_out_is_that_of_the_score_function(folder):
    import torch

    loc, scale = (torch.rand(3, 2, dtype=torch.float64).add(0.3).requires_grad_() for _ in range(2))
    q = torch.distributions.Independent(torch.distributions.Normal(loc, scale), 1)
    from elbograd.estimators import Target

    target = Target(log_likelihood=lambda z: -(z - 1).square().sum(-1))
    gradients = []
    for name in ("by_hand.py", "score-function"):
        torch.manual_seed(0)
        surrogate = create(name)(q, target, num_samples=5).surrogate.sum()
        gradients.append(torch.cat(torch.autograd.grad(surrogate, (loc, scale))))
    torch.testing.assert_close(*gradients)
    assert create("by_hand.py").supports(torch.distributions.Bernoulli(0.3), target, 5).startswith("needs a")


def test_the_planted_mistake_is_caught_with_the_message_shown(folder):
    shown = re.search(r"^14 of 119 checks failed:\n(.*?)^```", ADDING.text, flags=re.MULTILINE | re.DOTALL)[1]
    lines = []
    checks = estimator_checks("wrong_mean.py:WrongMean")
    assert len(checks) == 119
    assert len([check for check in checks if check.name.startswith("unbiased")]) == 10
    for check in checks:
        if re.fullmatch(
            r"(unbiased.*|every-size)\[gaussian\]", check.name
        ):  # check_estimator runs all, and all that hold
            with pytest.raises(AssertionError) as caught:
                check()
            lines.append(f"  {check.name}: {caught.value}")
    assert len(lines) == 4
    # Another processor may draw other numbers: the check, the column and the exact value are the same.
    for line in shown.splitlines():
        start, end = line.partition(": biased: ")[0], re.search(r"exactly \S+", line)[0]
        assert any(found.startswith(start) and end in found for found in lines), line


def test_the_registered_name(folder, monkeypatch):
    code = ADDING.code("register(")
    monkeypatch.setattr(REGISTRY, "registered", {})
    assert printed(code, "guide").splitlines() == said_in(code)
    monkeypatch.setattr(REGISTRY, "registered", {})
    (folder / "registered.py").write_text(code, encoding="utf-8")
    plugin = "--plugin registered.py"
    assert plugin in ADDING.text
    assert elbograd(f"elbograd variance -e my-own-name -s 4 {plugin} --dry-run", monkeypatch) == 0


def test_every_form_of_a_name_is_understood(folder, monkeypatch):
    package = folder / "my_ideas"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "leave_one.py").write_text(ADDING.code('"""My idea'), encoding="utf-8")
    forms = re.findall(r"^\| `([^`]+)` \|", ADDING.text.partition("## Names")[2], flags=re.MULTILINE)
    assert len(forms) == 5
    assert all(create(form) for form in forms)
    for name in ("my_ideas", "my_ideas.leave_one"):
        sys.modules.pop(name, None)


def test_the_package_is_listed_as_shown(folder, monkeypatch):
    import tomllib

    (text,) = [text for language, text in ADDING.blocks if language == "toml"]
    project = tomllib.loads(text)["project"]
    info = folder / "my_ideas-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    points = project["entry-points"]["elbograd.estimators"]
    (info / "entry_points.txt").write_text(
        "[elbograd.estimators]\n" + "".join(f"{name} = {place}\n" for name, place in points.items())
    )
    assert f"  {'my-idea':<30}  {catalogue()['my-idea']}\n" in ADDING.text


def elbograd(command, monkeypatch):
    """The exit status of a command line."""
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_the_guard_of_the_page_on_comparing(folder, monkeypatch, capsys):
    """The page's commands for real, on a model of known gradient and with fewer replicates."""
    monkeypatch.setattr("elbograd.benchmarks.plots.draw_all", lambda *_: [])  # figures have their own tests
    (diff,) = [text for language, text in COMPARING.blocks if language == "diff"]
    was, becomes = (line[1:] for line in diff.splitlines())
    code = (folder / "my_idea.py").read_text(encoding="utf-8")
    assert was in code
    measuring = [command for command in COMPARING.commands if command.startswith("elbograd variance")]
    assert [command.rpartition(" ")[2] for command in measuring] == ["before", "after"]
    for command, text in zip(measuring, (code, code.replace(was, becomes)), strict=True):
        (folder / "my_idea.py").write_text(text, encoding="utf-8")
        assert (
            elbograd(command.replace("4000", "1000").replace("-p vae", "-p linear-gaussian"), monkeypatch)
            == 0
        )
    capsys.readouterr()
    guard = "elbograd compare before after --fail-if 'variance>1.1'"
    assert guard in COMPARING.commands
    assert elbograd("elbograd compare before after", monkeypatch) == 0
    assert re.search(r"my_idea.py +variance .*higher", capsys.readouterr().out)
    assert elbograd(guard, monkeypatch) == 1
    out = capsys.readouterr().out
    assert "failed: my_idea.py" in out
    assert "failed: reparameterization" not in out
    assert elbograd(guard.replace("after", "before"), monkeypatch) == 0
    assert "identical" in capsys.readouterr().out
    assert elbograd(guard.replace("variance>", "varianse>"), monkeypatch) == 2
    assert capsys.readouterr().err.strip() in COMPARING.text


def test_the_numbers_said_of_a_comparison_are_those_printed():
    printed_change = re.search(r"my_idea.py +variance .*× ([\d.]+) \[", COMPARING.text)[1]
    (said,) = re.findall(r"has ([\d.]+) times its old variance", " ".join(COMPARING.text.split()))
    assert float(said) == round(float(printed_change), 2)


def test_the_workflow_runs_the_page_s_own_commands():
    (text,) = [text for language, text in COMPARING.blocks if language == "yaml"]
    steps = yaml.safe_load(text)["jobs"]["guard"]["steps"]
    commands = [step["run"] for step in steps if "elbograd " in step.get("run", "")]
    assert len(commands) == 2
    assert set(commands) <= set(COMPARING.commands)


@pytest.mark.parametrize("command", [c for c in COMPARING.commands if c.startswith("elbograd throughput")])
def test_throughput_is_planned(command, folder, monkeypatch):
    assert elbograd(f"{command} --dry-run", monkeypatch) == 0


@pytest.mark.parametrize("code", [text for language, text in STATISTICS.blocks if language == "python"])
def test_the_statistics_print_what_they_are_said_to_print(code):
    """To the last digit where no model is drawn from; a measured ratio to 1%."""
    shown = said_in(code) or output_after(STATISTICS, code).splitlines()
    again = printed(code, "statistics").splitlines()
    if "measure_ratio" not in code:
        assert again == shown
        return
    pattern = r"([\d.]+) \[([\d.]+), ([\d.]+)\]"
    paired, apart = ([float(end) for end in re.fullmatch(pattern, line).groups()] for line in again)
    for line, measured in zip(shown, (paired, apart), strict=True):
        assert measured == pytest.approx([*map(float, re.fullmatch(pattern, line).groups())], rel=0.01)
    assert paired[2] - paired[1] < 0.6 * (apart[2] - apart[1])


def test_files_named_with_the_statistics_exist():
    named = set(re.findall(r"`((?:benchmarks|estimators)/[\w/.]+)`", STATISTICS.text))
    assert len(named) > 8
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_numbers_are_written_as_the_tables_write_them():
    assert number(2.3741) in TUTORIAL.text
