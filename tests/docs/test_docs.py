"""What the pages under docs/ show is run, and the numbers it gives are held against each other."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from certificates import open_, right, rows_of, wrong
from elbograd.benchmarks import load_results, measure_variance
from elbograd.benchmarks.certification.candidate import builder
from elbograd.benchmarks.cli.main import main
from elbograd.benchmarks.variance.result import VarianceResult
from elbograd.estimators import FreeBits
from pages import ROOT, Page

OWN_MODEL = Page("docs/bring-your-own-model.md")
CERTIFICATION, REPRODUCTIONS = Page("docs/certification.md"), Page("docs/reproductions.md")
CHOOSING = Page("docs/choosing-an-estimator.md")
MANY_CASES = Page("docs/running-many-cases.md")
PAGES = [Page(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The page's my_model.py, in the working folder and importable."""
    (tmp_path / "my_model.py").write_text(OWN_MODEL.code("class ConvVAE"), encoding="utf-8")
    (tmp_path / "my_vae.py").write_text(OWN_MODEL.code("problem = from_vae(model.encode"), encoding="utf-8")
    (tmp_path / "my_pyro.py").write_text(OWN_MODEL.code("from_pyro(vae"), encoding="utf-8")
    (tmp_path / "my_hierarchy.py").write_text(OWN_MODEL.code("class Hierarchy"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield importlib.import_module("my_model")
    sys.modules.pop("my_model")
    sys.modules.pop("my_vae", None)


def run(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0


def test_the_model_is_what_the_page_says(model):
    problem = model.problem
    x = next(problem.batches("train", 6, torch.Generator().manual_seed(0)))
    eta = problem.encoder(x)
    assert (x.shape, eta.shape) == ((6, 1, 8, 8), (6, 8))
    q = problem.posterior(eta.expand(3, 6, 8))
    z = q.rsample((2,))
    assert (q.batch_shape, q.event_shape, z.shape) == ((3, 6), (4,), (2, 3, 6, 4))
    f = problem.target(x).log_likelihood(z)
    assert f.shape == (2, 3, 6)
    bernoulli = torch.distributions.Bernoulli(logits=problem.decoder(z)).log_prob(x).sum((-1, -2, -3))
    torch.testing.assert_close(f, bernoulli)


def test_python_examples_run(model, capsys):
    before = {n: v.clone() for n, v in model.problem.encoder.state_dict().items()}
    for containing in ("measure_variance", "surrogate"):
        code = re.sub(r"replicates=\d+", "replicates=64", OWN_MODEL.code(containing))
        exec(compile(code.replace("range(200)", "range(20)"), "bring-your-own-model.md", "exec"), {})
    out = capsys.readouterr().out
    assert "torch.Size([8, 1, 3, 3])" in out
    after = model.problem.encoder.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)


def test_the_vae_is_sound_in_python_too(model, capsys):
    exec(compile(OWN_MODEL.code("examine_problem"), "bring-your-own-model.md", "exec"), {})
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "VAEProblem: sound"
    assert last == "True []"


def test_weights_of_the_kl_are_those_of_the_page(model):
    made = {}
    exec(compile(OWN_MODEL.code("beta_vae"), "bring-your-own-model.md", "exec"), made)
    x = next(made["beta_vae"].batches("train", 6))
    weights = [made[name].target(x).kl_weight for name in ("beta_vae", "free_bits")]
    assert weights == [4, FreeBits(0.1)]


def test_a_file_to_start_from_and_a_module_that_is_not_wrapped(model, monkeypatch, capsys):
    shown = [command for command in OWN_MODEL.commands if " variance " not in command]
    assert [command.split()[1] for command in shown] == ["new-problem", "check-problem"]
    for command in shown:
        run(command, monkeypatch)
    assert "my_digits.py: sound" in capsys.readouterr().out
    bare = re.search(r"`(elbograd check-problem my_vae\.py:model)`", OWN_MODEL.text)[1]
    monkeypatch.setattr(sys, "argv", shlex.split(bare))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "problem = from_vae(model, data=data)" in capsys.readouterr().out


@pytest.mark.parametrize("command", [c for c in OWN_MODEL.commands if " variance " in c])
def test_commands_run(command, model, monkeypatch, tmp_path):
    if "my_pyro" in command:
        pytest.importorskip("pyro", reason="Pyro is not installed: pip install pyro-ppl")
    monkeypatch.setattr("elbograd.benchmarks.plots.draw_all", lambda *_: [])  # figures have their own tests
    run(f"{command} -r 32 --batch-size 4 -o {tmp_path / 'run'}", monkeypatch)
    rows = load_results(tmp_path / "run")
    totals = rows[(rows["metric"] == "variance") & (rows["parameter"].fillna("") == "")]
    estimators = {
        e for flag, e in zip(shlex.split(command), shlex.split(command)[1:], strict=False) if flag == "-e"
    }
    assert set(totals["estimator"]) == estimators
    assert (totals["value"] > 0).all()


def test_the_two_routes_agree_on_it(model):
    """The 99.9% interval of the full route holds what 20 times the replicates give: false alarm 1e-3."""
    x = next(model.problem.batches("test", 8))
    fast = measure_variance(model.problem, "leave-one-out", x, num_samples=2, replicates=30_000)
    full = measure_variance(model.problem, "leave-one-out", x, num_samples=2, replicates=1500, route="full")
    low, high = full.moments[""].interval(0.999)
    assert low < fast.total < high
    assert not low < 1.5 * fast.total < high
    assert sum(m.mean for m in fast.by_layer.values()) == pytest.approx(fast.total, rel=1e-4)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path.name)
def test_links_lead_somewhere_and_names_exist(page):
    assert page.missing_links == []
    attributes = set(VarianceResult.__dataclass_fields__) | {"rows", "warning"}
    assert set(re.findall(r"\bv\.(\w+)", page.text)) <= attributes


@pytest.mark.parametrize(
    "command",
    [*CERTIFICATION.commands, *REPRODUCTIONS.commands, *CHOOSING.commands, *MANY_CASES.commands],
)
def test_commands_are_accepted(command, model, monkeypatch, tmp_path):
    monkeypatch.setattr("elbograd.benchmarks.running.forecast.PILOT_SECONDS", 0)  # has tests of its own
    monkeypatch.setattr(sys, "argv", ["elbograd", "new-estimator", "my-idea"])
    with pytest.raises(SystemExit):
        main()
    measures = not command.startswith("elbograd list")
    run(f"{command.split('#')[0]}{' --dry-run' if measures else ''}", monkeypatch)


def test_the_python_of_the_choosing_page_runs(model, capsys):
    exec(compile(CHOOSING.code("advise("), "choosing-an-estimator.md", "exec"), {})
    out = capsys.readouterr().out
    assert "gradient of the ELBO" in out
    assert out.splitlines()[-1] in ("reparameterization", "leave-one-out")


def test_the_verdict_on_the_page_is_the_one_printed(capsys):
    code = CERTIFICATION.code("certify(")
    names = {}
    exec(compile(code, "certification.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()[0]
    shown = re.sub(r"\n# ?", " ", re.search(r"print\(c\)((\n#.*)+)", code)[1]).strip()
    # Another processor may draw other numbers, at another speed; the words and the checks are the same.
    drawn = r"[\de.-]+%| on quadratic.*?\)|, in \d+ \w+"
    assert re.sub(drawn, "", printed) == re.sub(drawn, "", shown)
    exec(compile(CERTIFICATION.code("as_json"), "certification.md", "exec"), names)
    text, message = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"bias ≤ [\de.-]+%", message)
    keys = CERTIFICATION.text.partition("`certificates.json` is an object")[2].partition("In Python")[0]
    assert set(json.loads(text)) | {"badge"} <= set(re.findall(r"`(\w+)`", keys))


def test_the_continuous_integration_of_the_page_insists_on_holds(tmp_path):
    """Its filter, on what a certification writes: false as soon as one verdict is another."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    from elbograd.benchmarks.report.certificate_files import write_certificates

    (command,) = re.findall(
        r"run: jq --exit-status '(.*)' certificate/certificates\.json", CERTIFICATION.text
    )
    for name, made, status in (("a", [right()], 0), ("b", [right(), open_()], 1), ("c", [wrong()], 1)):
        write_certificates(rows_of(*made), tmp_path / name)
        file = tmp_path / name / "certificates.json"
        done = subprocess.run(["jq", "--exit-status", command, str(file)], capture_output=True, check=False)
        assert done.returncode == status


def test_every_planted_bug_of_the_table_is_one_of_the_collection():
    import bug_table

    rows = CERTIFICATION.text.split(bug_table.BEGIN)[1].split(bug_table.END)[0].splitlines()[2:]
    for (estimator, mistake, _), row in zip(bug_table.planted(), rows, strict=True):
        assert builder(estimator)
        what, caught, _ = (cell.strip() for cell in row.strip("|").split(" | "))
        assert what == mistake.replace("|", "\\|")
        assert caught
    for page in ("README.md", "CHANGELOG.md"):
        assert f"{len(rows)} planted bugs" in (ROOT / page).read_text(encoding="utf-8")


def test_the_corners_on_the_page_are_those_tried():
    import corners_table
    from elbograd.benchmarks.certification.levels import confirm_level

    assert corners_table.page_with_table(CERTIFICATION.text) == CERTIFICATION.text
    formula = Page("docs/statistics.md").text
    suite, problem = re.search(
        r"estimators} \\times \((\d+) \+ (\d+) \\times \\text{problems}\)", formula
    ).groups()
    assert 1 / confirm_level(4, 3) == pytest.approx(3 * (int(suite) + 4 * int(problem)))


def test_no_draws_on_the_page_are_of_other_places():
    import draws_table

    rows = CERTIFICATION.text.split(draws_table.BEGIN)[1].split(draws_table.END)[0].splitlines()[2:]
    shown = [tuple(cell.strip(" `") for cell in row.strip("|").split("|")[:3]) for row in rows]
    assert shown == [(problem, estimator, str(s)) for problem, estimator, s in draws_table.PLACES]


def test_every_reproduction_has_a_section_and_a_figure():
    from elbograd.benchmarks.studies.reproductions.catalogue import REPRODUCTIONS as NAMES

    assert re.findall(r"^## (.+)$", REPRODUCTIONS.text, flags=re.MULTILINE) == list(NAMES)
    for name in NAMES:
        assert f"results/published/reproductions/{name}.png" in REPRODUCTIONS.text


def test_the_tables_on_choosing_are_those_of_the_published_rows():
    import choosing_tables

    text = choosing_tables.PAGE.read_text(encoding="utf-8")
    assert choosing_tables.page_with_tables(text) == text
