"""Cases run anywhere: the same rows everywhere, none lost with a worker, and the reason where there are none."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from elbograd.benchmarks import load_results
from elbograd.benchmarks.cases.base import Case, Output
from elbograd.benchmarks.cases.convergence import Convergence, ConvergenceSettings
from elbograd.benchmarks.cases.variance import Variance, VarianceSettings
from elbograd.benchmarks.cli.main import main
from elbograd.benchmarks.rows.schema import NOT_TIMED
from elbograd.benchmarks.running.executors import slurm
from elbograd.benchmarks.running.executors.base import Executor, Failure, Work
from elbograd.benchmarks.running.executors.child import ChildPool
from elbograd.benchmarks.running.executors.choice import Engine
from elbograd.benchmarks.running.executors.dask import DaskExecutor, check_versions
from elbograd.benchmarks.running.executors.measure import measure, open_session
from elbograd.benchmarks.running.plan import Plan
from elbograd.benchmarks.running.runner import run_plan
from elbograd.benchmarks.store import ROWS, RunFolder, read_rows
from elbograd.estimators import UsageError

TIMED = ("seconds", "work_normalized_variance")
PATHWISE = "v = target.log_likelihood(q.rsample((num_samples,))).mean(0); return Estimate(v, v)"
ESTIMATORS = ("-e", "my_idea.py", "-e", "my-registered", "--plugin", "registered.py")
GRID = ("variance", "-p", "quadratic", "-r", "300", *ESTIMATORS)
SETTINGS = VarianceSettings(replicates=50, precision=None, route="factorized", step=0)


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch, tmp_path):
    monkeypatch.setattr("elbograd.benchmarks.plots.draw_all", lambda *_: [])
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as running:
        yield running


def plugin(name, body=PATHWISE, before="", register=""):
    """Write an estimator to the working folder."""
    decorator = f"@register({register!r})\n" if register else ""
    with open(name, "w") as file:
        file.write(
            "import os, signal, sys, time, warnings\nfrom pathlib import Path\nimport torch\n"
            f"from elbograd.estimators import Estimate, Estimator, register\n{before}\n{decorator}"
            f"class Mine(Estimator):\n    derivatives = 1\n    def forward(self, q, target, num_samples):\n"
            f"        {body}\n"
        )


def rows_of(folder):
    return read_rows(Path(folder) / ROWS)


def untimed(folder):
    """Every row but those of seconds, by case; nothing that names the run."""
    rows = [{**r, "run": ""} for r in rows_of(folder) if r["metric"] not in TIMED]
    cases = {}
    for r in rows:
        cases.setdefault(r["case"], []).append(r)
    return cases


def case(estimator="score-function"):
    return Case(Variance, "quadratic", estimator, 2, None, 0, "cpu", "float32", SETTINGS)


def work(**values):
    return Work(**{"folder": os.getcwd(), "directory": os.getcwd(), **values})


def measured(case, of):
    return measure(case, open_session(of), of.threads)


# The same rows everywhere


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder with plugins, and what the grid gives in this process."""
    from elbograd.estimators.plugins.registry import REGISTRY

    folder = tmp_path_factory.mktemp("alone")
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr("elbograd.benchmarks.plots.draw_all", lambda *_: [])
        plugin("my_idea.py")
        plugin("registered.py", register="my-registered")
        patch.setattr(sys, "argv", ["elbograd", *GRID, "-s", "2,4", "-o", "alone"])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0
        yield folder, untimed("alone")
    REGISTRY.registered.pop("my-registered", None)


def check_same_rows(elbograd, alone, num_samples, *executor):
    folder, expected = alone
    with contextlib.chdir(folder):
        run = f"run-{executor[1]}-{num_samples}"
        code, out, err = elbograd(*GRID, "-s", num_samples, "-o", run, *executor)
        assert code == 0
        found = untimed(run)
        assert found == {
            case: rows for case, rows in expected.items() if str(rows[0]["num_samples"]) in num_samples
        }
        assert f"[{len(found)}/{len(found)}]" in err
        assert not os.path.exists(f"{run}/slurm")  # what submitit wrote is of no use any more
        return [r for r in rows_of(run) if r["metric"] in TIMED], out, err


def test_processes_of_this_machine_give_the_same_rows(elbograd, alone):
    timed, _, _ = check_same_rows(elbograd, alone, "2,4", "-j", "2")
    assert all(r["value"] > 0 for r in timed)


def test_a_dask_cluster_gives_the_same_rows_and_no_timings(elbograd, alone, cluster):
    address = cluster.scheduler_address
    timed, out, err = check_same_rows(elbograd, alone, "2,4", "--executor", "dask", "--scheduler", address)
    assert "cases run on 2 Dask workers, 2 cases at a time" in err
    check_no_timings(timed, out, err)


def test_slurm_jobs_on_this_machine_give_the_same_rows_and_no_timings(elbograd, alone):
    pytest.importorskip("submitit", reason="submitit is not installed")
    here = ["--executor", "slurm", "--slurm-option", "cluster=local", "-j", "2"]
    check_no_timings(*check_same_rows(elbograd, alone, "4", *here))


SLURM = {  # stand-ins that run a job file here, each task of an array at once
    "sbatch": """
cp $1 $FAKE_SLURM
export SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
for k in $(seq $(sed -n 's/^#SBATCH --array=\\([0-9]*\\)-\\([0-9]*\\).*/\\1 \\2/p' $1)); do
    SLURM_JOB_ID=$$$k SLURM_ARRAY_JOB_ID=$$ SLURM_ARRAY_TASK_ID=$k setsid bash $1 > /dev/null 2>&1 &
done
echo Submitted batch job $$
""",
    "srun": """
while [[ $1 == --* ]]; do if [[ $1 == --output || $1 == --error ]]; then shift; fi; shift; done
exec "$@"
""",
    "sacct": "echo 'JobID|State|NodeList'",
    "scancel": "true",
}


def test_slurm_itself_is_asked_with_the_options_given(elbograd, alone, monkeypatch, tmp_path):
    pytest.importorskip("submitit", reason="submitit is not installed")
    for name, text in SLURM.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path / "job.sh"))
    monkeypatch.setitem(slurm._LOOK, "slurm", 0.1)
    options = ["partition=long", "time=7", "mail-type=END", "reservation=ours"]
    given = ["--executor", "slurm", "-j", "3", *(part for o in options for part in ("--slurm-option", o))]
    check_no_timings(*check_same_rows(elbograd, alone, "2", *given))
    asked = (tmp_path / "job.sh").read_text()
    for option in (*options, "array=0-1%2", "cpus-per-task=1", "job-name=elbograd"):
        assert f"#SBATCH --{option}\n" in asked


def check_no_timings(timed, out, err):
    assert {(r["value"], r["ci_low"], r["status"], r["reason"]) for r in timed} == {
        (None, None, "skipped", NOT_TIMED)
    }
    assert f"{NOT_TIMED} (--allow-shared-timings measures them)" in err
    assert NOT_TIMED in out
    assert "var × ms" not in out


def test_training_has_no_seconds_on_shared_machines():
    settings = ConvergenceSettings(3, 1, "adam", (0.01,), 2, 2)
    training = Case(Convergence, "quadratic", "score-function", 2, None, 0, "cpu", "float32", settings)
    with_seconds, without = (measured(training, work(timings=timings)).rows for timings in (True, False))
    assert [r for r in without if r["metric"] != "seconds"] == [
        r for r in with_seconds if r["metric"] != "seconds"
    ]
    assert {r["value"] for r in without if r["metric"] == "seconds"} == {None}
    assert all(r["value"] is not None for r in with_seconds if r["metric"] == "seconds")


def test_timings_are_for_machines_of_ones_own_unless_asked_for():
    assert Engine().timings
    assert Engine(jobs=2).timings
    assert not Engine(executor="dask", scheduler="x").timings
    assert not Engine(executor="slurm").timings
    assert Engine(executor="slurm", allow_shared_timings=True).timings


def test_a_bench_leaves_throughput_out_on_shared_machines(elbograd, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed")
    monkeypatch.setattr("elbograd.benchmarks.running.runner.run_plan", lambda *_, **__: True)
    monkeypatch.setattr("elbograd.benchmarks.running.suite._show", lambda *_, **__: None)
    monkeypatch.setattr(RunFolder, "finish", lambda *_: pd.DataFrame())
    code, _, err = elbograd(
        "bench", "-p", "quadratic", "-e", "score-function", "--quick", "-o", "run",
        "--executor", "slurm", "--slurm-option", "cluster=local",
    )  # fmt: skip
    assert code == 0
    assert "throughput: left out, it is nothing but timings" in err
    assert not os.path.exists("run/throughput.json")


def test_a_case_computes_with_so_many_threads_and_no_trace_is_left():
    import torch
    from elbograd.benchmarks.running.threads import computing_threads

    before = torch.get_num_threads()
    with computing_threads(before + 2):
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before


def test_files_are_shipped_where_they_cannot_be_seen():
    """A worker that has neither the folder nor the file, as on another machine."""
    plugin("my_idea.py")
    with open("my_idea.py") as file:
        there = work(directory="/nowhere", folder="/nowhere/run", sources={"my_idea.py": file.read()})
    expected = measured(case("my_idea.py"), work(timings=False))
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    pool = ChildPool(Work(**{**vars(there), "timings": False}), relay=lambda _: None)
    try:
        assert pool.measure(case("my_idea.py")) == expected
        assert not os.path.exists("/nowhere")
    finally:
        pool.close()


# What goes wrong


ONCE = """
def die(flag, how):
    if not Path(flag).exists():
        Path(flag).write_text(f"{os.getpid()} {os.getppid()}")
        how()
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_vanishes_is_begun_again_and_given_up_with_its_reason(elbograd):
    here = os.getcwd()
    plugin("once.py", f"die({here!r} + '/flag', kill); {PATHWISE}", ONCE)
    plugin("always.py", "kill()", ONCE)
    command = ["variance", "-p", "quadratic", "-s", "2", "-r", "50", "-o", "run", "-j", "2", "--retries", "1"]
    estimators = ["-e", "once.py", "-e", "always.py", "-e", "reparameterization"]
    code, out, err = elbograd(*command, *estimators)
    assert code == 1
    assert "Traceback" not in out + err
    rows = load_results("run")
    (failed,) = rows[rows["status"] == "failed"].to_dict("records")
    assert failed["estimator"] == "always.py"
    assert failed["reason"].startswith("the worker process was ended by SIGKILL")
    assert failed["reason"].endswith("(2 times)")
    assert err.count("always.py, S=2, quadratic at step 0: the worker process was ended by SIGKILL") == 1
    assert err.count("trying again") == 2
    totals = rows[(rows["metric"] == "variance") & (rows["parameter"] == "") & (rows["status"] == "done")]
    # One formula, one seed: what was begun again gives what was never disturbed.
    assert sorted(totals["estimator"]) == ["once.py", "reparameterization"]
    assert totals["value"].nunique() == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_is_done_within_a_case_is_told_by_every_process(tmp_path, jobs):
    settings = ConvergenceSettings(3, 1, "adam", (0.01,), 2, 2)
    training = Case(Convergence, "quadratic", "score-function", 2, None, 0, "cpu", "float32", settings)
    told = []
    with Engine(jobs=jobs).open(work(folder=str(tmp_path))) as executor:
        executor.tell = lambda *values: told.append(values)
        executor.submit(training)
        ((_, outcome),) = executor.outcomes()
    assert isinstance(outcome, Output)
    assert {of.id for of, _, _ in told} == {training.id}
    assert all(text and 0 <= share <= 1 for _, text, share in told)


def test_what_a_dying_process_said_last_is_the_reason():
    with open("dies.py", "w") as file:
        file.write("import os\nos.write(2, b'out of luck\\n')\nos._exit(3)\n")
    heard = []
    pool = ChildPool(work(plugins=("dies.py",)), relay=heard.append)
    try:
        failure = pool.measure(case())
    finally:
        pool.close()
    assert failure == Failure("vanished", "the worker process ended with status 3: out of luck")
    assert heard == ["out of luck"]


def test_a_plugin_that_does_not_load_there_is_a_reason():
    with open("broken.py", "w") as file:
        file.write("raise RuntimeError('not here')\n")
    pool = ChildPool(work(plugins=("broken.py",)), relay=None)
    try:
        failure = pool.measure(case())
    finally:
        pool.close()
    assert failure == Failure("refused", "broken.py: does not load: RuntimeError: not here")


def test_a_process_with_nothing_to_do_ends_and_is_replaced():
    pool = ChildPool(work(timings=False), linger=0.5)
    try:
        first = pool.measure(case())
        (child,) = pool._all
        deadline = time.monotonic() + 60
        while child.alive:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert pool.measure(case()) == first
        assert child not in pool._all
        assert len(pool._all) == 1
    finally:
        pool.close()


def test_a_process_at_work_for_longer_than_that_is_left_alone(monkeypatch):
    pool = ChildPool(work(), linger=0.3)
    monkeypatch.setattr("elbograd.benchmarks.running.executors.child.Child", Slow)
    try:
        assert [pool.measure(wait) for wait in (0.0, 1.0, 0.0)] == [1, 2, 3]  # one child throughout
    finally:
        pool.close()


class Slow:
    """A child whose case is how long it takes, in seconds; it answers how many it was asked for."""

    def __init__(self, work, relay):
        self.alive, self.asked = True, 0

    def ask(self, seconds, tell):
        time.sleep(seconds)
        self.asked += 1
        return self.asked

    def kill(self):
        self.alive = False


class Scripted(Executor):
    """Ends each case as the script says, in turn."""

    def __init__(self, script):
        self.script, self.waiting = script, []

    def submit(self, case):
        self.waiting.append(case)

    def outcomes(self):
        while self.waiting:
            case = self.waiting.pop(0)
            yield case, self.script[case.estimator].pop(0)

    def running(self):
        return self.waiting[:1]

    def close(self):
        pass


@pytest.mark.parametrize(
    ("kind", "retries", "tries"),
    [("vanished", 2, 3), ("vanished", 0, 1), ("raised", 2, 2), ("raised", 0, 1), ("refused", 2, 1)],
)
def test_how_often_a_case_is_tried(kind, retries, tries, capsys, tmp_path):
    bad, good = case("bad"), case("good")
    row = Output([good.row(metric="variance", value=2.0)])
    executor = Scripted({"bad": [Failure(kind, "it broke")] * 9, "good": [row]})
    folder = RunFolder(tmp_path / "run", {}, {})
    assert not run_plan(Plan(Variance(), [bad, good], []), folder, executor, retries=retries)
    assert len(executor.script["bad"]) == 9 - tries
    counts = Counter((r["case"], r["status"]) for r in rows_of("run"))
    assert counts == {(bad.id, "failed"): 1, (good.id, "done"): 1}
    (failed,) = [r for r in rows_of("run") if r["status"] == "failed"]
    assert failed["reason"] == ("it broke" if tries == 1 else f"it broke ({tries} times)")
    err = capsys.readouterr().err
    assert err.count("bad, S=2, quadratic at step 0: it broke; trying again") == tries - 1


def test_a_case_that_comes_good_leaves_only_its_rows(tmp_path):
    one = case("one")
    row = Output([one.row(metric="variance", value=2.0)])
    executor = Scripted({"one": [Failure("vanished", "gone"), Failure("raised", "no"), row]})
    folder = RunFolder(tmp_path / "run", {}, {})
    # An exception after a vanished worker is the second try, and would not be tried again.
    assert not run_plan(Plan(Variance(), [one], []), folder, executor)
    executor = Scripted({"one": [Failure("vanished", "gone"), Failure("vanished", "gone"), row]})
    assert run_plan(Plan(Variance(), [one], []), folder, executor)
    assert [(r["status"], r["value"]) for r in rows_of("run")] == [("done", 2.0)]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("raise RuntimeError('the sky fell')", "raised"),
        ("raise SystemExit(0)", "raised"),
        ("return 3", "refused"),
    ],
)
def test_an_exception_may_be_an_accident_but_a_broken_protocol_is_not(body, kind):
    plugin(f"{kind}.py", body)
    assert measured(case(f"{kind}.py"), work()).kind == kind


def test_what_a_plugin_sets_for_its_process_changes_no_other_number(elbograd):
    everything = "torch.set_default_dtype(torch.float64); os.chdir('/')"
    plugin("early.py", before=everything)
    plugin("late.py", f"{everything}; {PATHWISE}")
    grid = ["variance", "-p", "quadratic", "-r", "50", "-s", "1", "-e", "score-function"]
    assert elbograd(*grid, "-o", "without")[0] == 0
    assert elbograd(*grid, "-e", "early.py", "-e", "late.py", "-o", "serial")[0] == 0
    assert elbograd(*grid, "-e", "early.py", "-e", "late.py", "-o", "jobs", "-j", "2")[0] == 0
    assert untimed("serial") == untimed("jobs")
    assert untimed("without").items() <= untimed("serial").items()
    assert torch.get_default_dtype() is torch.float32


def test_a_dask_worker_killed_in_mid_run_loses_nothing(elbograd, cluster):
    here = os.getcwd()
    plugin("my_idea.py", f"die({here!r} + '/flag', lambda: time.sleep(600)); {PATHWISE}", ONCE)
    command = ["variance", "-p", "quadratic", "-s", "2,4", "-r", "50", "-e", "score-function"]
    pids = []

    def kill_when_it_is_at_work():
        while not os.path.exists("flag") or not (text := open("flag").read()):  # noqa: SIM115
            time.sleep(0.05)
        pids.extend(map(int, text.split()))
        os.kill(pids[1], signal.SIGKILL)

    killer = threading.Thread(target=kill_when_it_is_at_work, daemon=True)
    killer.start()
    code, out, err = elbograd(
        *command, "-e", "my_idea.py", "-o", "run",
        "--executor", "dask", "--scheduler", cluster.scheduler_address,
    )  # fmt: skip
    killer.join()
    assert code == 0
    assert "Traceback" not in out + err
    assert elbograd(*command, "-e", "my_idea.py", "-o", "undisturbed")[0] == 0
    assert untimed("run") == untimed("undisturbed")
    assert len({json.dumps(r) for r in rows_of("run")}) == len(rows_of("run"))
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)  # what the worker had begun has ended with it


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGHUP])
def test_being_asked_to_end_is_an_interrupt(elbograd, monkeypatch, asked):
    def app(**_):
        os.kill(os.getpid(), asked)
        time.sleep(60)

    monkeypatch.setattr("elbograd.benchmarks.cli.main.application", lambda: app)
    before = signal.signal(asked, signal.SIG_DFL)  # whoever runs the tests may have it ignored
    try:
        code, _, err = elbograd("variance")
        assert signal.getsignal(asked) is signal.SIG_DFL
    finally:
        signal.signal(asked, before)
    assert code == 130
    assert "elbograd: stopped" in err


def test_a_run_under_nohup_outlives_the_terminal(elbograd, monkeypatch):
    hang_up = lambda **_: os.kill(os.getpid(), signal.SIGHUP)  # noqa: E731
    monkeypatch.setattr("elbograd.benchmarks.cli.main.application", lambda: hang_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert elbograd("variance")[0] == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_stops_at_once_and_the_same_command_goes_on(elbograd):
    plugin("sleepy.py", f"os.environ.get('SLEEPY') and time.sleep(600); {PATHWISE}")
    code = (  # what runs the tests in the background may have them ignore interrupts, and their children too
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import elbograd.benchmarks.plots as p; p.draw_all = lambda *_: []\n"
        "from elbograd.benchmarks.cli.main import main; main()"
    )
    arguments = ["variance", "-p", "quadratic", "-s", "2", "-r", "50", "-j", "2", "-o", "run"]
    command = [sys.executable, "-c", code, *arguments, "-e", "score-function", "-e", "sleepy.py"]
    environment = {**os.environ, "SLEEPY": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        said = ""
        while "[1/2]" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "finished cases are kept, the same command with -o run goes on from here" in rest
    assert "Traceback" not in said + rest
    before = rows_of("run")
    assert {r["estimator"] for r in before} == {"score-function"}
    status, _, err = elbograd(*arguments[:-4], "-o", "run", "-e", "score-function", "-e", "sleepy.py")
    assert status == 0
    assert "[1/2]" not in err
    after = rows_of("run")
    assert after[: len(before)] == before
    assert {r["estimator"] for r in after[len(before) :]} == {"sleepy.py"}


# What cannot be


def test_a_process_that_may_not_use_the_folder_leaves_the_jobs_of_the_one_that_does():
    pytest.importorskip("submitit")
    os.mkdir("slurm")
    with Engine(executor="slurm", slurm_option=("cluster=local",)).open(work()):
        pass  # the folder is locked: nothing is submitted
    assert os.path.isdir("slurm")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--executor", "ray"], "--executor 'ray' is not one of local, dask, slurm"),
        (["--executor", "dask"], "--executor dask needs --scheduler ADDRESS, such as tcp://"),
        (["--executor", "dask", "--scheduler", "tcp://localhost:1"], "--scheduler tcp://localhost:1: "),
        (["--executor", "dask", "--scheduler", "x", "-j", "2"], "--jobs cannot be combined with --executor"),
        (["--scheduler", "tcp://localhost:1"], "--scheduler is for --executor dask, not local"),
        (["--slurm-option", "partition=long"], "--slurm-option is for --executor slurm, not local"),
        (["--executor", "slurm"], "--executor slurm: no sbatch on this machine"),
        (
            ["--executor", "slurm", "--slurm-option", "partition"],
            "--slurm-option partition: expected key=value",
        ),
        (["--executor", "slurm", "--slurm-option", "time=soon"], "time=soon: expected whole minutes"),
        (["--executor", "slurm", "--slurm-option", "cluster=x"], "cluster=x is not one of slurm, local"),
        (["--threads", "0"], "--threads must be at least 1, not 0"),
        (["--retries", "-1"], "--retries must be at least 0, not -1"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(elbograd, monkeypatch, arguments, message):
    for package in ("distributed", "submitit"):
        if package[:4] in " ".join(arguments).replace("dask", "dist").replace("slurm", "subm"):
            pytest.importorskip(package)
    monkeypatch.setattr("elbograd.benchmarks.running.executors.dask.PATIENCE", 0.5)
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    code, out, err = elbograd("variance", "-p", "quadratic", "-e", "score-function", "-o", "run", *arguments)
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err + out
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("distributed", ["--executor", "dask", "--scheduler", "tcp://localhost:1"], "dask"),
        ("submitit", ["--executor", "slurm"], "slurm"),
    ],
)
def test_a_missing_extra_is_told_with_the_command(elbograd, monkeypatch, package, arguments, extra):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    code, _, err = elbograd("variance", "-p", "quadratic", "-e", "score-function", *arguments)
    assert code == 2
    assert err.strip().endswith(f"pip install 'elbograd[{extra}]'")
    assert len(err.strip().splitlines()) == 1


def test_no_more_processes_than_cores(monkeypatch, capsys):
    monkeypatch.setattr("elbograd.benchmarks.running.executors.choice.cores", lambda: 4)
    for engine, told in (
        (Engine(jobs=4), ""),
        (Engine(jobs=9), "--jobs 9: there are 4 cores here, so 4 at a time"),
        (Engine(jobs=3, threads=2), "--jobs 3 of 2 threads: there are 4 cores here, so 2 at a time"),
    ):
        with engine.open(work()) as executor:
            assert executor.workers == f"{min(engine.jobs, 4 // engine.threads)} processes"
        assert capsys.readouterr().err.strip() == told


def test_what_a_scheduler_that_is_gone_had_is_refused_and_not_waited_for():
    lost = DaskExecutor.__new__(DaskExecutor)
    lost._client, lost._glanced = SimpleNamespace(status="running"), float("inf")
    lost._ended, lost._pending = SimpleQueue(), {"before": (case("before"), object())}
    lost._client.status = "closed"
    lost.submit(case("after"))
    outcomes = {given.estimator: outcome for given, outcome in lost.outcomes()}
    assert outcomes == dict.fromkeys(("before", "after"), Failure("refused", "the Dask scheduler is gone"))


def test_dask_workers_of_another_version_are_refused():
    ours = {"elbograd": "1.0", "torch": "2.13"}
    check_versions(ours, {"tcp://a": dict(ours)})
    with pytest.raises(UsageError, match=r"^Dask worker tcp://b has torch 2.12, not 2.13$"):
        check_versions(ours, {"tcp://a": ours, "tcp://b": {**ours, "torch": "2.12"}})
    missing = ModuleNotFoundError("No module named 'elbograd'")
    with pytest.raises(
        UsageError, match=r"^Dask worker tcp://b cannot run elbograd: No module named 'elbograd'$"
    ):
        check_versions(ours, {"tcp://a": ours, "tcp://b": missing})
