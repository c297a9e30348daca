"""The command line as people type it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from elbograd.benchmarks import certify, load_results
from elbograd.benchmarks.rows.certificates import certificates

QUICK = ["-p", "quadratic", "-s", "2", "-r", "50"]


@pytest.fixture
def figures():
    """Asked for by a test that wants a run's figures drawn."""


@pytest.fixture(autouse=True)
def no_figures(request, monkeypatch):
    """Figures have tests of their own, and take longer than the runs here."""
    if "figures" not in request.fixturenames:
        monkeypatch.setattr("elbograd.benchmarks.plots.draw_all", lambda *_: [])


def planned(out):
    """The cases that a dry run has printed, without their times."""
    beside = re.compile(r": reference for the bias|: (\d+ trials of .*, then )?\d+ runs of [\d,]+ steps")
    *cases, total = [line for line in out.splitlines() if not beside.search(line)]
    assert re.match(rf"{len(cases)} cases? to run: about ", total)
    assert all(re.search(r": about \d+(\.\d)? (s|min)$", line) for line in cases)
    return [line.rpartition(": ")[0] for line in cases]


def write_plugin(path, body, name="MyIdea"):
    path.write_text(
        "import torch\nfrom elbograd.estimators import Estimate, Estimator\n"
        f"class {name}(Estimator):\n    def forward(self, q, target, num_samples):\n        {body}\n"
    )
    return path


def test_help_and_list_name_everything(elbograd):
    code, out, _ = elbograd("--help")
    assert code == 0
    commands = (
        "bench",
        "variance",
        "certify",
        "convergence",
        "throughput",
        "list",
        "new-estimator",
        "new-problem",
        "check-problem",
        "data",
        "report",
    )
    for command in commands:
        assert command in out
    code, out, _ = elbograd("list")
    assert code == 0
    for name in ("reparameterization", "optimal-baseline", "exact", "bernoulli-vae", "linear-gaussian"):
        assert name in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["variance", "-e", "reinforce"], "unknown estimator 'reinforce': choose from reparameterization"),
        (["variance", "-p", "mnist"], "unknown problem 'mnist': choose from vae"),
        (["variance", "-e", "score-function[kl"], "malformed 'score-function[kl'"),
        (
            ["variance", "-e", "score-function[gain=1]"],
            "unknown parameter 'gain' of score-function: choose from kl",
        ),
        (["variance", "-e", "leave-one-out", "-s", "1"], "needs num_samples of at least 2, not 1"),
        (["variance", "-s", "0"], "--num-samples must be at least 1, not 0"),
        (
            ["variance", "--seed", "18446744073709551616"],
            "--seed must be at most 4294967295, not 18446744073709551616",
        ),
        (["variance", "-s", ","], "--num-samples ,: expected an integer"),
        (["convergence", "--learning-rate", ","], "--learning-rate ,: expected a number"),
        (["variance", "-s", "two"], "--num-samples two: expected an integer"),
        (["variance", "-e", "reparameterization", "-p", "bernoulli-vae"], "Bernoulli is not"),
        (["variance", "--device", "cuda:9"], "device cuda:9 is not available here: choose cpu"),
        (["variance", "--device", "tpu"], "unknown device 'tpu': choose from cpu"),
        (["variance", "--dtype", "float8"], "unknown dtype 'float8': choose from float32"),
        (["variance", "-r", "0"], "--replicates must be at least 2, not 0"),
        (["variance", "-r", "many"], "many"),
        (["variance", "--route", "scenic"], "--route 'scenic' is not one of factorized, full"),
        (["variance", "--route", "full", "--chunk", "8"], "--chunk cannot be combined with --route full"),
        (["variance", "--precision", "7"], "--precision must be between 0 and 1"),
        (["certify", "--tolerance", "2"], "tolerance must be between 0 and 1, not 2.0"),
        (["certify", "--confidence", "99"], "confidence must be between 0.5 and 1, not 99.0"),
        (["certify", "--budget", "0"], "budget must be a positive number of seconds, not 0.0"),
        (["certify", "--budget", "soon"], "'soon' is not a number"),
        (["certify", "-e", "reinforce"], "unknown estimator 'reinforce'"),
        (["certify", "-p", "mnist"], "unknown problem 'mnist'"),
        (["certify", "-e", "reparameterization", "-p", "bernoulli-vae"], "Bernoulli is not"),
        (["variance", "--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["variance", "--batch-size", "9999"], "batch size 9999 exceeds the 1500 training data"),
        (["variance", "--latent-dim", "3", "-p", "quadratic"], "has no parameter latent_dim"),
        (["variance", "--config", "nowhere.toml"], "nowhere.toml"),
        (["variance", "--unknown"], "No such option"),
        (["variance", "-e", "nowhere.py"], "nowhere.py: no such file"),
        (["variance", "--plugin", "no_such_module"], "does not load"),
        (["variance", "-j", "0"], "--jobs must be at least 1, not 0"),
        (["convergence", "--optimizer", "lion"], "unknown optimizer 'lion': choose from adam, sgd"),
        (["convergence", "--learning-rate", "-1"], "--learning-rate must be positive"),
        (["convergence", "--steps", "0"], "--steps must be at least 1, not 0"),
        (["throughput", "--mode", "warp"], "warp"),
        (["throughput", "--compare", "nowhere.json"], "nowhere.json"),
        (["report", "nowhere"], "no results in nowhere"),
        (["new-estimator", "Not Kebab"], "Not Kebab"),
        (["new-problem", "my_model"], "problem name 'my_model' is not kebab-case"),
        (["new-problem", "vae"], "problem name 'vae' is taken"),
        (["check-problem", "vea"], "unknown problem 'vea': did you mean vae?"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_writes_nothing(elbograd, tmp_path, arguments, message):
    code, out, err = elbograd(*arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err + out
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder(tmp_path):
    # Root may write anywhere, so the folder is one that cannot exist: below a file.
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "elbograd.benchmarks.cli.main"]
    code = "from elbograd.benchmarks.cli.main import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "variance",
        *QUICK,
        "-e",
        "exact",
        "-o",
        str(tmp_path / "file" / "run"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("elbograd: error: cannot use folder")
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("figures")
def test_a_run_leaves_rows_tables_and_figures(elbograd, tmp_path):
    code, out, err = elbograd(
        "variance", *QUICK, "-e", "reparameterization", "-e", "score-function", "-o", "run"
    )
    assert code == 0
    assert "reparameterization" in out
    assert "[2/2]" in err
    run = tmp_path / "run"
    environment = json.loads((run / "environment.json").read_text())
    assert environment["packages"]["torch"]
    rows = load_results(run)
    assert set(rows["estimator"]) == {"reparameterization", "score-function"}
    for metric in (
        "variance",
        "snr",
        "gradient_norm",
        "bias",
        "bias_bound",
        "seconds",
        "evaluations",
        "work_normalized_variance",
    ):
        assert (rows["metric"] == metric).any(), metric
    totals = rows[(rows["metric"] == "variance") & (rows["parameter"] == "")]
    assert ((totals["ci_low"] < totals["value"]) & (totals["value"] < totals["ci_high"])).all()
    assert set(rows["batch_size"]) == {1}
    assert list((run / "figures").glob("variance*.png"))
    assert (run / "tables" / "tables.md").read_text()
    assert (run / "rows.parquet").is_file()
    code, out, _ = elbograd("report", "run")
    assert code == 0


def test_the_same_command_goes_on_where_it_stopped(elbograd, tmp_path):
    arguments = ["variance", *QUICK, "-e", "reparameterization", "-e", "score-function", "-o", "run"]
    elbograd(*arguments)
    file = tmp_path / "run" / "rows.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    first = json.loads(lines[0])["case"]
    file.write_text("".join(line for line in lines if json.loads(line)["case"] == first) + lines[-1][:30])
    code, _, err = elbograd(*arguments)
    assert code == 0
    assert "not written whole was dropped" in err
    assert "[2/2]" in err
    assert "[1/2]" not in err

    def untimed(text):
        rows = [json.loads(line) for line in text]
        return [r for r in rows if r["metric"] not in ("seconds", "work_normalized_variance")]

    assert untimed(file.read_text().splitlines()) == untimed(lines)
    code, _, err = elbograd("variance", *QUICK[:-1], "60", "-e", "exact", "-o", "run")
    assert code == 2
    assert "other settings" in err


def test_jobs_do_not_change_the_numbers(elbograd, tmp_path):
    arguments = [
        "variance",
        "-p",
        "quadratic",
        "-s",
        "2",
        "-r",
        "500",
        "-e",
        "score-function",
        "-e",
        "leave-one-out",
    ]
    elbograd(*arguments, "-o", "one")
    code, _, _ = elbograd(*arguments, "-o", "two", "-j", "2")
    assert code == 0
    key = ["estimator", "metric", "parameter"]
    values = [
        load_results(run).query("metric in ('variance', 'snr', 'bias')").set_index(key)["value"].sort_index()
        for run in ("one", "two")
    ]
    assert values[0].to_dict() == pytest.approx(values[1].to_dict(), rel=1e-6)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise RuntimeError('the sky fell')", "RuntimeError: the sky fell"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("return 3", "forward returned a int, not an Estimate"),
        (
            "v = target.log_likelihood(q.rsample((num_samples,))); return Estimate(v, v)",
            "surrogate has shape",
        ),
        (
            "v = target.log_likelihood(q.sample((num_samples,))).mean(0); return Estimate(v, v)",
            "has no gradient",
        ),
        (
            "v = target.log_likelihood(q.rsample((num_samples,))).mean(0) * float('nan'); return Estimate(v, v)",
            "not finite",
        ),
        (
            "v = target.log_likelihood(q.rsample((num_samples,))).mean(0); return Estimate(v, None)",
            "value is a NoneType",
        ),
    ],
)
def test_a_failing_plugin_is_a_failed_row_and_the_others_go_on(elbograd, tmp_path, body, reason):
    plugin = write_plugin(tmp_path / "broken.py", body)
    code, out, err = elbograd("variance", *QUICK, "-e", plugin, "-e", "reparameterization", "-o", "run")
    assert code == 1
    assert "Traceback" not in err + out
    rows = load_results("run")
    failed = rows[rows["status"] == "failed"]
    assert failed["estimator"].tolist() == ["broken.py"]
    assert reason in failed["reason"].iloc[0]
    assert (rows["estimator"] == "reparameterization").sum() > 5
    code, _, _ = elbograd("convergence", "-p", "quadratic", "--quick", "-e", plugin, "-o", "training")
    if "NoneType" not in reason:
        trained = set(load_results("training")["status"])
        assert trained & {"failed", "diverged"}
        assert code == int("failed" in trained)


def test_a_working_plugin_beside_the_others(elbograd, tmp_path):
    plugin = write_plugin(
        tmp_path / "my_idea.py",
        "v = target.log_likelihood(q.rsample((num_samples,))).mean(0); return Estimate(v, v)",
    )
    code, _, _ = elbograd("variance", *QUICK, "-e", plugin, "-e", "reparameterization", "-o", "run")
    assert code == 0
    rows = (
        load_results("run").query("metric == 'variance' and parameter == ''").set_index("estimator")["value"]
    )
    # One formula, one seed: common random numbers give one answer.
    assert rows["my_idea.py"] == pytest.approx(rows["reparameterization"])


def test_convergence_rows(elbograd):
    code, _out, _ = elbograd(
        "convergence", "-p", "linear-gaussian", "-e", "reparameterization", "--steps", "20", "--seeds", "2",
        "--tuning-steps", "5", "-o", "run",
    )  # fmt: skip
    assert code == 0
    everything = load_results("run")
    assert everything["parameter"].str.startswith("trial").any()
    rows = everything[everything["parameter"] == ""]
    assert set(rows["seed"]) == {0, 1}
    held_out = rows[rows["metric"] == "heldout_objective"]
    assert set(held_out["step"]) == set(range(21))
    assert (rows["metric"] == "heldout_log_likelihood").sum() == 2


def test_configuration_file(elbograd, tmp_path):
    (tmp_path / "options.toml").write_text(
        '[variance]\nestimator = ["exact"]\nproblem = ["quadratic"]\nnum-samples = [1, 2]\nreplicates = 60\n'
    )
    code, out, _ = elbograd("variance", "--config", "options.toml", "--dry-run")
    assert code == 0
    assert planned(out) == [f"variance: exact, S={s}, quadratic at step 0" for s in (1, 2)]
    code, out, _ = elbograd("variance", "--config", "options.toml", "-s", "4", "--dry-run")
    assert planned(out) == ["variance: exact, S=4, quadratic at step 0"]
    (tmp_path / "bad.toml").write_text("replicate = 3\n")
    code, _, err = elbograd("variance", "--config", "bad.toml")
    assert code == 2
    assert "unknown key 'replicate': choose from" in err
    (tmp_path / "scalar.toml").write_text(
        'num_samples = 2\nestimator = "exact"\nproblem = "quadratic"\nquick = true\n'
    )
    code, out, _ = elbograd("variance", "--config", "scalar.toml", "--dry-run")
    assert planned(out) == ["variance: exact, S=2, quadratic at step 0"]
    (tmp_path / "bad.toml").write_text("jobs = [1, 2]\n")
    code, _, err = elbograd("variance", "--config", "bad.toml")
    assert code == 2
    assert "jobs takes one value, not [1, 2]" in err


def test_a_runs_own_configuration_repeats_it(elbograd, tmp_path):
    elbograd("variance", *QUICK, "-e", "exact", "-o", "run")
    code, out, _ = elbograd("variance", "--config", tmp_path / "run" / "config.toml", "--dry-run")
    assert code == 0
    assert planned(out) == ["variance: exact, S=2, quadratic at step 0"]


def test_new_estimator_runs_as_it_is(elbograd, tmp_path):
    code, _out, _ = elbograd("new-estimator", "my-idea")
    assert code == 0
    assert {f.name for f in tmp_path.iterdir()} == {"my_idea.py", "test_my_idea.py"}
    code, _, _ = elbograd("variance", *QUICK, "-e", "my_idea.py", "-o", "run")
    assert code == 0
    code, _, _err = elbograd("new-estimator", "my-idea")
    assert code == 2


MODEL = """
import torch
from torch import nn
from elbograd.estimators import Target

class Model:
    latent_dim = 2
    def __init__(self, broken=False):
        self.encoder, self.decoder, self.broken = nn.Linear(3, 4), nn.Linear(2, 3), broken
    def posterior(self, eta):
        if self.broken:
            raise RuntimeError("no posterior today")
        return torch.distributions.Independent(torch.distributions.Normal(eta[..., :2], eta[..., 2:].exp()), 1)
    def target(self, x):
        return Target(lambda z: -((x - self.decoder(z)) ** 2).sum(-1))
    def batches(self, split, batch_size, generator):
        yield torch.ones(batch_size, 3)
"""


def test_a_model_of_ones_own(elbograd, tmp_path):
    (tmp_path / "my_model.py").write_text(MODEL)
    code, _, _ = elbograd(
        "variance", "-p", "my_model.py", "-e", "leave-one-out", "-s", "2", "-r", "100", "-o", "run"
    )
    assert code == 0
    assert set(load_results("run")["problem"]) == {"my_model.py"}
    code, _, err = elbograd(
        "variance", "-p", "my_model.py:Model[broken=true]", "-e", "leave-one-out", "-s", "2"
    )
    assert code == 2
    assert err.strip().endswith("posterior fails for shape (64, 4) (RuntimeError: no posterior today)")


def test_a_full_disk_is_one_line(elbograd, monkeypatch):
    from elbograd.benchmarks.store import RunFolder

    def full(self, rows):
        raise OSError(28, "No space left on device", "rows.jsonl")

    monkeypatch.setattr(RunFolder, "append", full)
    code, _, err = elbograd("variance", *QUICK, "-e", "exact", "-o", "run")
    assert code == 1
    assert err.strip().splitlines()[-1] == "elbograd: error: rows.jsonl: No space left on device"


def test_ratios_to_another_estimator(elbograd):
    arguments = ["variance", "-p", "quadratic", "-s", "2", "-r", "2000", "--relative-to", "score-function"]
    names = ["score-function", "leave-one-out", "reparameterization"]
    code, out, _ = elbograd(*arguments, *(part for name in names for part in ("-e", name)), "-o", "run")
    assert code == 0
    assert "ratio" in out
    rows = load_results("run")
    ratios = rows[rows["metric"] == "variance_ratio"].set_index("estimator")
    assert set(ratios.index) == {"leave-one-out", "reparameterization"}
    assert set(ratios["parameter"]) == {"score-function"}
    totals = rows[(rows["metric"] == "variance") & (rows["parameter"] == "")].set_index("estimator")["value"]
    for name, line in ratios.iterrows():
        # Both are estimates, of 2000 replicates each; the interval is far wider than their difference.
        assert line["ci_low"] < totals[name] / totals["score-function"] < line["ci_high"]
    code, _, err = elbograd(*arguments[:-1], "reinforce", "-e", "score-function")
    assert code == 2
    assert "unknown estimator 'reinforce'" in err
    code, _, err = elbograd(*arguments[:-1], "score-function[kl=[analytic,sampled]]", "-e", "score-function")
    assert code == 2
    assert "expected one estimator, not 2" in err


def test_a_ratio_to_what_cannot_be_used_here_is_skipped_with_the_reason(elbograd):
    code, _, _ = elbograd(
        "variance", "-p", "quadratic", "-s", "1", "-r", "50", "-e", "score-function",
        "--relative-to", "leave-one-out", "-o", "run",
    )  # fmt: skip
    assert code == 0
    line = load_results("run").query("metric == 'variance_ratio'").squeeze()
    assert line["status"] == "skipped"
    assert "needs num_samples of at least 2" in line["reason"]


def test_batch_sizes_are_a_list(elbograd):
    code, out, _ = elbograd(
        "variance", "-p", "linear-gaussian", "-e", "exact", "-s", "1", "--batch-size", "8,4", "--dry-run"
    )
    assert code == 0
    assert planned(out) == [f"variance: exact, S=1, B={b}, linear-gaussian at step 0" for b in (8, 4)]
    code, out, _ = elbograd(
        "bench", "-p", "linear-gaussian", "-e", "reparameterization", "--batch-size", "8,4", "--dry-run"
    )
    assert code == 0
    assert [line.rpartition(", linear")[0] for line in planned(out) if "S=2" in line] == [
        f"{benchmark}: reparameterization, S=2, B=8" for benchmark in ("convergence", "throughput")
    ]
    assert any("S=4, B=4" in line for line in out.splitlines())


CERTIFY = ["certify", "-p", "quadratic[loc=0.7,scale=0.6,k=1.5]", "--tolerance", "0.3", "-o", "run"]


@pytest.mark.usefixtures("unchecked_shapes")
def test_certify_prints_the_verdict_of_the_api_and_goes_on_where_it_stopped(elbograd, tmp_path):
    code, out, err = elbograd(*CERTIFY, "-e", "reparameterization", "-j", "1")
    assert code == 0
    assert re.search(r"reparameterization +holds +≤ [\d.]+% +\d+ of \d+", out)
    assert re.search(r"% \[0%, [\d.]+%\] on quadratic\[", out)
    assert "The chance" in out
    assert re.search(r"\[1/2\] reparameterization, conformance suite: (\d+) of \1 checks hold", err)
    rows = load_results(tmp_path / "run")
    assert set(rows["metric"]) == {"check", "relative_bias", "unbiased"}
    assert "## Certification" in (tmp_path / "run" / "tables" / "tables.md").read_text()
    again = elbograd(*CERTIFY, "-e", "reparameterization")
    assert again[0] == 0
    assert "[1/2]" not in again[2]
    assert load_results(tmp_path / "run").equals(rows)
    (read,) = certificates(rows)
    direct = certify("reparameterization", CERTIFY[2], tolerance=0.3)
    # A pilot's least squares may differ in the last bits from process to process.
    told = [
        [(str(check), check.holds, check.draws, check.exact) for check in c.checks] for c in (read, direct)
    ]
    assert told[0] == told[1]
    assert read.verdict == direct.verdict
    written = json.loads((tmp_path / "run" / "certificates.json").read_text(encoding="utf-8"))
    assert (written["seed"], written["certificates"][0]["verdict"]) == (0, "holds")
    badge = tmp_path / "run" / written["certificates"][0]["badge"]
    assert badge.read_text(encoding="utf-8") == direct.badge.svg(
        f"elbograd: {direct.estimator}: {direct.verdict}"
    )
    assert elbograd("variance", "-p", "quadratic", "-r", "8", "-o", "run", "--force")[0] == 0
    assert not badge.exists()  # it was of the run that was begun anew
    assert [str(check) for check in read.checks] == [str(check) for check in direct.checks]


@pytest.mark.usefixtures("unchecked_shapes")
def test_certify_fails_a_wrong_estimator_with_the_numbers(elbograd, tmp_path):
    body = "z = q.mean + q.variance * torch.randn(num_samples, *q.mean.shape, dtype=q.mean.dtype); "
    body += "f = target.log_likelihood(z).mean(0); return Estimate(f, f)"
    plugin = write_plugin(tmp_path / "wrong.py", body)
    code, out, _ = elbograd(*CERTIFY, "-e", plugin)
    assert code == 1
    assert "fails" in out
    assert re.search(
        r"S = 1, B = 1: gradient of datum 0, coordinate 1, is [-\d.]+ ± [-\de.]+, exactly",
        " ".join(out.split()),
    )
    assert "Traceback" not in out


def test_reproduce_lists_refuses_and_fails(elbograd, tmp_path, monkeypatch):
    code, out, _ = elbograd("reproduce")
    assert code == 0
    assert "importance-weighted-snr" in out
    code, _, err = elbograd("reproduce", "cold-fusion")
    assert code == 2
    assert err.startswith(
        "elbograd: error: unknown reproduction 'cold-fusion': choose from gradient-variance"
    )
    code, out, _ = elbograd("reproduce", "sticking-the-landing", "--quick", "-o", "run")
    assert code == 0
    assert "pass: sticking-the-landing" in out
    assert (tmp_path / "run" / "figures" / "sticking-the-landing.png").exists()
    code, out, _ = elbograd("reproduce", "sticking-the-landing", "--quick", "-o", "run")
    assert "done before" in out
    from elbograd.estimators.methods import sticking_the_landing

    monkeypatch.setattr(sticking_the_landing, "cut", lambda q: q)
    code, out, _ = elbograd("reproduce", "sticking-the-landing", "--quick", "-o", "other")
    assert code == 1
    assert "FAIL: sticking-the-landing" in out


def test_bench_measures_everything_and_writes_a_report(tmp_path):
    code = (  # figures have their own tests; in a process of its own, as pytest-xdist disables benchmarks in its own
        "import elbograd.benchmarks.plots as p; p.draw_all = lambda *_: []\n"
        "from elbograd.benchmarks.cli.main import main; main()"
    )
    command = ["bench", "--quick", "-p", "quadratic", "-e", "reparameterization", "-o", "run"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = load_results(tmp_path / "run")
    assert set(rows["benchmark"]) == {"variance", "convergence", "throughput"}
    assert set(rows["status"]) == {"done"}
    assert "report in run/report.html" in done.stdout
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Convergence" in page
    assert "Throughput" in page


def test_throughput_without_timings_is_a_failure(elbograd, tmp_path, monkeypatch):
    monkeypatch.setattr("elbograd.benchmarks.throughput.measure.run_throughput", lambda *_, **__: (0, []))
    run = tmp_path / "run"
    code, _, _ = elbograd("throughput", "-p", "quadratic", "-e", "reparameterization", "-o", run)
    assert code == 1
    (failed,) = load_results(run).to_dict("records")
    assert (failed["status"], failed["reason"]) == ("failed", "pytest-benchmark gave no timings")
