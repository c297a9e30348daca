"""Timing, peak memory, the modes, and the run through pytest-benchmark."""

from __future__ import annotations

import copy
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.rows.schema import COLUMNS
from elbograd.benchmarks.throughput.clock import MIN_BLOCK_SECONDS, MIN_BLOCKS, time_block, time_in_turn
from elbograd.benchmarks.throughput.measure import (
    ThroughputCase,
    ThroughputResult,
    measure_throughput,
    rows_from_json,
    run_throughput,
)
from elbograd.benchmarks.throughput.modes import make_step
from elbograd.benchmarks.throughput.peak_memory import highest, peak_memory
from elbograd.benchmarks.throughput.rows import Rate
from elbograd.benchmarks.throughput.workload import Workload
from elbograd.estimators import Estimate, Estimator, UsageError, create

METRICS = {
    "steps_per_second": "1/s",
    "steps_per_second_iqr": "1/s",
    "gradients_per_second": "1/s",
    "gradients_per_second_iqr": "1/s",
    "peak_memory": "B",
    "warmup_seconds": "s",
}
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler"
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Clock:
    """Stands still, except that `work` lets it pass."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> None:
        self.now += seconds
        self.log.append(name)


class Sleeper(Estimator):
    """Takes a known time, and a known amount of memory."""

    def __init__(self, seconds: float = 0.0, floats: int = 0) -> None:
        super().__init__()
        self.seconds, self.floats = seconds, floats

    def forward(self, q, target, num_samples):
        time.sleep(self.seconds)
        torch.empty(self.floats)
        value = target.log_likelihood(q.rsample((num_samples,))).mean(0)
        return Estimate(value, value)


# ---- the clock


def test_seconds_are_those_of_one_call():
    clock = Clock()
    slow, fast = time_in_turn(
        [lambda: clock.work("slow", 1e-3), lambda: clock.work("fast", 1e-5)], seconds=0.1, clock=clock
    )
    assert [block.wall for block in slow] == pytest.approx([1e-3] * len(slow))
    assert [block.wall for block in fast] == pytest.approx([1e-5] * len(fast))
    assert slow[0].gpu is None


def test_blocks_alternate_and_are_long_enough():
    clock = Clock()
    blocks, _ = time_in_turn(
        [lambda: clock.work("a", 3e-4), lambda: clock.work("b", 3e-4)], seconds=0.05, clock=clock
    )
    runs = "".join(clock.log).replace("ab", "a b").replace("ba", "b a").split()
    timed = runs[-2 * len(blocks) :]
    assert timed == [timed[0], timed[1]] * len(blocks)
    assert len(timed[0]) * 3e-4 >= MIN_BLOCK_SECONDS


def test_slow_calls_are_timed_often_enough_for_an_interval():
    clock = Clock()
    (blocks,) = time_in_turn([lambda: clock.work("a", 10.0)], seconds=1.0, clock=clock)
    assert len(blocks) == MIN_BLOCKS


def test_garbage_is_not_collected_while_timing():
    seen = []
    time_block(lambda: seen.append(gc.isenabled()), calls=2)
    assert seen == [False, False]
    assert gc.isenabled()


def test_rate_is_the_median_with_its_interval_and_quartiles():
    rate = Rate.of([1 / r for r in (4.0, 7.0, 1.0, 6.0, 5.0, 100.0, 2.0, 8.0, 3.0)])
    assert rate.median == pytest.approx(5.0)
    # P(Binomial(9, 1/2) <= 1) = 10/512 < 2.5%: of independent ones the second and the eighth of nine.
    assert rate.ci_low <= 2.0
    assert 8.0 <= rate.ci_high <= 100.1
    assert (rate.q1, rate.q3, rate.n) == pytest.approx((3.0, 7.0, 9))


# ---- peak memory


def test_peak_memory_of_known_allocations():
    def step():
        first = torch.empty(1_000_000, dtype=torch.uint8)
        second = torch.empty(500_000, dtype=torch.uint8)
        del first
        third = torch.empty(250_000, dtype=torch.uint8)
        del second, third

    assert highest([100, 50, -100, 80, -130]) == 150
    assert peak_memory(step, torch.device("cpu")) == (1_500_000, "")


def test_peak_memory_does_not_count_what_was_there_before():
    held = [torch.empty(1_000_000, dtype=torch.uint8)]
    peak, _ = peak_memory(lambda: held[0].add_(1)[:600_000].clone(), torch.device("cpu"))
    assert peak == 600_000


def test_peak_memory_of_a_step_counts_its_temporaries():
    floats = 1_000_000
    small = measure_throughput("quadratic", Sleeper(), seconds=0.01).peak_memory
    large = measure_throughput("quadratic", Sleeper(floats=floats), seconds=0.01).peak_memory
    assert small is not None
    assert large is not None
    # The temporary is gone before anything else is allocated: it is the peak.
    assert 4 * floats <= large <= 4 * floats + small


# ---- measure_throughput


@pytest.fixture(autouse=True)
def not_in_parallel(monkeypatch):
    """pytest-benchmark in a test is not told that the tests themselves run on several processes."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture(scope="module")
def result() -> ThroughputResult:
    return measure_throughput(
        "linear-gaussian", "learned-baseline", num_samples=2, batch_size=8, seconds=0.05
    )


def test_rates_are_positive_and_ordered(result):
    for rate in (result.steps_per_second, result.gradients_per_second):
        assert 0 < rate.q1 <= rate.median <= rate.q3
        assert 0 < rate.ci_low <= rate.median <= rate.ci_high
        assert rate.n >= MIN_BLOCKS
    assert result.warmup_seconds > 0


def test_rows_follow_the_schema(result):
    rows = result.rows()
    assert {r["metric"]: r["unit"] for r in rows} == METRICS
    for r in rows:
        assert list(r) == list(COLUMNS)
        assert (r["benchmark"], r["problem"], r["estimator"]) == (
            "throughput",
            "linear-gaussian",
            "learned-baseline",
        )
        assert (r["num_samples"], r["batch_size"], r["latent_dim"], r["seed"]) == (2, 8, 4, 0)
        assert (r["device"], r["dtype"], r["mode"], r["status"]) == ("cpu", "float32", "eager", "done")
        assert r["value"] > 0
        if r["metric"] in ("steps_per_second", "gradients_per_second"):
            assert 0 < r["ci_low"] <= r["value"] <= r["ci_high"]
            assert r["n"] >= MIN_BLOCKS


def test_a_step_takes_at_least_the_time_its_estimator_sleeps():
    result = measure_throughput("quadratic", Sleeper(seconds=5e-3), seconds=0.05)
    for rate in (result.steps_per_second, result.gradients_per_second):
        assert 2 < rate.median <= 1 / 5e-3


def test_problem_estimator_and_generator_are_left_alone():
    problem, estimator = load_problem("linear-gaussian"), create("learned-baseline")
    x = next(iter(problem.batches("train", 8)))
    estimator.init(problem.posterior(problem.encoder(x)), problem.target(x))
    estimator.eval()
    next(problem.decoder.parameters()).requires_grad_(False)
    modules = (problem.encoder, problem.decoder, estimator)
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    trainable = [[p.requires_grad for p in module.parameters()] for module in modules]
    draws = torch.random.get_rng_state()

    measure_throughput(problem, estimator, x, dtype="float64", seconds=0.01)

    assert torch.equal(draws, torch.random.get_rng_state())
    assert not estimator.training
    for module, state, flags in zip(modules, before, trainable, strict=True):
        assert module.state_dict().keys() == state.keys()
        assert all(torch.equal(module.state_dict()[name], state[name]) for name in state)
        assert all(module.state_dict()[name].dtype == state[name].dtype for name in state)
        assert [p.requires_grad for p in module.parameters()] == flags
        assert all(p.grad is None for p in module.parameters())


def test_several_batches_are_cycled_through():
    seen = []

    class Watcher(Sleeper):
        def forward(self, q, target, num_samples):
            seen.append(target.features.clone())
            return super().forward(q, target, num_samples)

    workload = Workload("linear-gaussian", Watcher(), batch_size=4)
    seen.clear()
    for _ in range(16):
        workload.gradients()
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(a, b) for a, b in zip(seen[:8], seen[8:], strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "jit"}, "unknown mode 'jit': choose from eager, compiled, cuda-graph"),
        ({"mode": "cuda-graph"}, "mode cuda-graph needs a cuda device, not cpu: choose eager or compiled"),
        ({"device": "tpu"}, "unknown device 'tpu': choose from cpu"),
        ({"dtype": "float8"}, "unknown dtype 'float8': choose from float32, float64, bfloat16, float16"),
        ({"batch_size": 10**6}, "batch size 1000000 exceeds the 1000 training data"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, not 0"),
        ({"num_samples": 0}, "num_samples must be an integer of at least 1, not 0"),
        ({"seconds": 0.0}, "seconds must be a positive number, not 0.0"),
        ({"x": torch.zeros(3, 10), "batch_size": 4}, "batch_size=4 is not the 3 data of x"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(arguments, message):
    with pytest.raises(UsageError) as caught:
        measure_throughput("linear-gaussian", "reparameterization", **arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_absent_device_is_told_in_one_line():
    with pytest.raises(UsageError, match=r"^device cuda is not available here: choose cpu$"):
        measure_throughput("linear-gaussian", "reparameterization", device="cuda")


def test_unsupported_estimator_is_told_in_one_line():
    with pytest.raises(UsageError, match="at least 2, not 1"):
        measure_throughput("linear-gaussian", "leave-one-out", num_samples=1)


# ---- modes


def _gradients(mode, device="cpu"):
    """Gradients of an estimator without noise, after warm-up."""
    problem, estimator = load_problem("linear-gaussian"), create("exact")
    problem.encoder.to(device, torch.float64), problem.decoder.to(device, torch.float64)
    batches = [x.to(device, torch.float64) for x in list(problem.batches("train", 16))[:2]]
    step = make_step(problem, estimator, 1, mode, batches)
    step.gradients(batches[1])
    return [p.grad.clone() for p in (*problem.encoder.parameters(), *problem.decoder.parameters())]


@needs_compiler
def test_compiled_gradients_are_the_eager_ones():
    for compiled, eager in zip(_gradients("compiled"), _gradients("eager"), strict=True):
        torch.testing.assert_close(compiled, eager)


@needs_compiler
def test_compiled_mode_trains_all_parts_of_an_estimator():
    """Separate passes for φ, θ and the baseline's own parameters, in one graph.

    In a process of its own, since the checks of shapes here cannot be traced.
    """
    code = """
from elbograd.benchmarks.throughput.workload import Workload
workload = Workload("quadratic", "learned-baseline[hidden=2]", batch_size=4, mode="compiled")
workload.step()
assert workload.case["mode"] == "compiled"
assert workload.note == "", workload.note
assert all(p.grad is not None for p in workload._step.own)
assert all(p.grad is not None for p in workload._step.phi)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_compiler
def test_a_broken_graph_is_noted():
    """`time.sleep` cannot be traced: what is around it is compiled."""
    workload = Workload("quadratic", Sleeper(), mode="compiled")
    workload.step()
    assert workload.note.startswith("torch.compile broke the graph of the step ")
    assert all(p.grad is not None for p in workload._step.phi)


def test_what_cannot_be_compiled_is_told_in_one_line(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("No working C++ compiler found\nand a long story")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UsageError) as caught:
        measure_throughput("quadratic", "reparameterization", mode="compiled")
    assert str(caught.value) == (
        "mode compiled cannot be used here: RuntimeError: No working C++ compiler found"
    )


@needs_cuda
def test_replayed_gradients_are_the_eager_ones():
    pairs = zip(_gradients("cuda-graph", "cuda"), _gradients("eager", "cuda"), strict=True)
    for replayed, eager in pairs:
        torch.testing.assert_close(replayed, eager)


@needs_cuda
@pytest.mark.parametrize("mode", ["eager", "compiled", "cuda-graph"])
def test_gpu_is_timed_by_its_own_clock_too(mode):
    result = measure_throughput("vae", "learned-baseline", device="cuda", mode=mode, seconds=0.05)
    assert {r["metric"] for r in result.rows()} == {*METRICS, "gpu_seconds"}
    assert result.peak_memory


# ---- pytest-benchmark

BROKEN = """
from elbograd.estimators import Estimator


class Broken(Estimator):
    def forward(self, q, target, num_samples):
        raise ValueError("no idea\\nat all")
"""
SCRIPT = """
import json, sys
from pathlib import Path
from elbograd.benchmarks.throughput.measure import ThroughputCase, run_throughput
cases = [ThroughputCase(**case) for case in json.loads(sys.argv[1])]
code, rows = run_throughput(cases, Path("out"), compare=sys.argv[2] or None, quick=True)
Path("rows.json").write_text(json.dumps(rows))
sys.exit(code)
"""
GOOD = {"problem": "quadratic", "estimator": "reparameterization", "batch_size": 2, "id": "a"}
BAD = {"problem": "quadratic", "estimator": "broken.py", "id": "b"}


def _run(folder: Path, cases: list[dict[str, object]], compare: str = "") -> tuple[int, str]:
    # Whatever the user's own pytest settings say must not matter.
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\nrequired_plugins = none-such\n")
    (folder / "conftest.py").write_text("raise RuntimeError('a conftest was loaded')\n")
    (folder / "broken.py").write_text(BROKEN)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(cases), compare],
        cwd=folder,
        env={**os.environ, "PYTEST_ADDOPTS": "--benchmark-disable -n 4", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_run_through_pytest_benchmark(tmp_path):
    code, output = _run(tmp_path, [GOOD, BAD])
    assert code == 1, output
    assert "benchmark 'training step: quadratic, B=2, cpu, eager'" in output
    assert "benchmark 'gradient: quadratic, B=2, cpu, eager'" in output
    assert "failed: quadratic, broken.py S=1 cpu eager: ValueError: no idea" in output
    assert "Traceback" not in output

    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows == rows_from_json(tmp_path / "out" / "throughput.json")
    assert {r["metric"] for r in rows if r["case"] == "a"} == METRICS.keys()
    assert all(r["value"] > 0 for r in rows if r["case"] == "a")
    (failed,) = (r for r in rows if r["case"] == "b")
    assert (failed["status"], failed["reason"], failed["value"]) == ("failed", "ValueError: no idea", None)
    assert (failed["estimator"], failed["metric"]) == ("broken.py", "steps_per_second")

    content = json.loads((tmp_path / "out" / "throughput.json").read_text())
    steps, _ = sorted(content["benchmarks"], key=lambda benchmark: benchmark["group"], reverse=True)
    assert steps["name"] == "reparameterization S=1"
    assert steps["stats"]["rounds"] == len(steps["stats"]["data"]) >= MIN_BLOCKS
    known = {"seed": 0, "num_samples": 1, "batch_size": 2, "problem": "quadratic", "torch": torch.__version__}
    assert known.items() <= steps["extra_info"].items()
    assert {"device_name", "threads", "peak_memory"} <= steps["extra_info"].keys()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        "broken.py",
        "conftest.py",
        "out",
        "pytest.ini",
        "rows.json",
    ]

    # The next run replaces the file that it is compared with.
    code, output = _run(tmp_path, [GOOD], compare="out")
    assert code == 0, output
    table = [line for line in output.splitlines() if line.startswith(("reparameterization", "Name", "---"))]
    assert sum("reparameterization S=1 (then)" in line for line in table) == 2
    assert sum("reparameterization S=1 (NOW)" in line for line in table) == 2
    assert "note:" not in output
    assert max(map(len, table)) <= 100


def test_nothing_measured_leaves_a_readable_file(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    case = ThroughputCase("quadratic", str(tmp_path / "broken.py"))
    script = (
        "import sys; from pathlib import Path; from elbograd.benchmarks.throughput.measure import *;"
        f"code, rows = run_throughput([{case!r}], Path('out'), quick=True);"
        "assert [r['status'] for r in rows] == ['failed'], rows; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    assert [r["status"] for r in rows_from_json(tmp_path / "out" / "throughput.json")] == ["failed"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "cannot be read as JSON"),
        ("[]", "not a throughput result"),
        ('{"benchmarks": [{"fullname": "a", "stats": {}}]}', "not a throughput result"),
    ],
)
def test_a_file_that_cannot_be_compared_with_is_told_before_anything_runs(tmp_path, content, message):
    path = tmp_path / "earlier.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message):
        run_throughput([ThroughputCase(**GOOD)], tmp_path / "out", compare=str(path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "jit"}, "unknown mode 'jit'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"dtype": "int8"}, "unknown dtype 'int8'"),
        ({"estimator": "none-such"}, "unknown estimator 'none-such'"),
        ({"problem": "none-such"}, "unknown problem 'none-such'"),
    ],
)
def test_a_wrong_case_is_told_before_anything_runs(tmp_path, change, message):
    cases = [ThroughputCase(**GOOD), ThroughputCase(**{**GOOD, **change})]
    with pytest.raises(UsageError, match=message):
        run_throughput(cases, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_cases_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="no cases"):
        run_throughput([], tmp_path)


def test_rows_are_read_without_torch():
    script = (
        "import sys; from elbograd.benchmarks.throughput.rows import rows_from_json;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
