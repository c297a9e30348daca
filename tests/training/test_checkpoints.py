"""One training trajectory for all estimators: what is kept of it, and how far each point is from the best."""

from __future__ import annotations

import json

import pytest
import torch
from elbograd.benchmarks import load_results, measure_variance
from elbograd.benchmarks.cases.variance import Variance
from elbograd.benchmarks.cli.main import main
from elbograd.benchmarks.problems import load_problem
from elbograd.benchmarks.training import checkpoints
from elbograd.benchmarks.training.checkpoints import Checkpoints, given_problem_at, steps_in
from elbograd.benchmarks.training.trajectory import state_of, walk
from elbograd.estimators import create
from elbograd.estimators.errors import UsageError
from torch.distributions import Independent, Normal

PROBLEM = "linear-gaussian"


def same(a, b):
    return all(torch.equal(a[side][key], b[side][key]) for side in a for key in a[side])


def test_the_trajectory_is_plain_training():
    kept = walk(load_problem(PROBLEM), (0, 3), seed=5)
    problem = load_problem(PROBLEM)
    assert same(kept.states[0], state_of(problem))
    parameters = [*problem.encoder.parameters(), *problem.decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    teacher = create("reparameterization")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for x in list(problem.batches("train", 64, torch.Generator().manual_seed(5)))[:3]:
            q, target = problem.posterior(problem.encoder(x)), problem.target(x)
            optimizer.zero_grad()
            (-teacher(q, target, 1).value.mean()).backward()
            optimizer.step()
    assert same(kept.states[3], state_of(problem))


def test_a_state_does_not_depend_on_which_others_are_kept():
    alone, together = walk(load_problem(PROBLEM), (7,), 0), walk(load_problem(PROBLEM), (0, 2, 7, 40), 0)
    assert same(alone.states[7], together.states[7])
    assert not same(together.states[2], together.states[7])
    assert alone.heldout[7] == together.heldout[7]


def test_the_gap_is_to_the_best_of_the_whole_trajectory():
    steps = (0, 10, 200)
    trajectory = walk(load_problem(PROBLEM), steps, 0)
    assert set(trajectory.heldout) == {*steps, *range(0, 201, 10)}
    best = max(trajectory.heldout.values())
    kept = Checkpoints()
    for step in steps:
        objective, gap = kept.heldout_gap(PROBLEM, step, 0, steps)
        assert objective == trajectory.heldout[step]
        assert gap == pytest.approx(best - objective)
    # Training pays, by far more than a nat a datum.
    assert kept.heldout_gap(PROBLEM, 0, 0, steps)[1] > 1 > kept.heldout_gap(PROBLEM, 200, 0, steps)[1] >= 0
    assert kept.heldout_gap(PROBLEM, 0, 0) is None


def test_it_is_trained_once_and_kept_for_other_processes(tmp_path, monkeypatch):
    problem = Checkpoints(tmp_path).problem_at(PROBLEM, 4, 0, (0, 4, 9))

    def fail(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(checkpoints, "walk", fail)
    assert same(state_of(Checkpoints(tmp_path).problem_at(PROBLEM, 4, 0, (0, 4, 9))), state_of(problem))
    assert Checkpoints(tmp_path).heldout_gap(PROBLEM, 9, 0, (0, 4, 9)) is not None
    (folder,) = tmp_path.iterdir()
    assert sorted(f.name for f in folder.iterdir()) == ["0.pt", "4.pt", "9.pt", "heldout.json"]
    assert steps_in(folder) == (0, 4, 9)
    # What one run keeps another can take.
    assert same(state_of(given_problem_at(PROBLEM, 4, folder)), state_of(problem))


def test_a_discrete_posterior_has_a_teacher_too():
    trajectory = walk(load_problem("bernoulli-vae[latent_dim=2,hidden=4]"), (0, 40), 0)
    assert trajectory.heldout[40] > trajectory.heldout[0]


def test_a_diverged_trajectory_is_told(monkeypatch):
    monkeypatch.setattr("elbograd.benchmarks.training.trajectory._LEARNING_RATE", 1e30)
    with pytest.raises(UsageError, match="diverged before step"):
        walk(load_problem(PROBLEM), (0, 20), 0)


def test_a_posterior_that_validates_its_parameters_can_diverge_too(monkeypatch):
    monkeypatch.setattr("elbograd.benchmarks.training.trajectory._LEARNING_RATE", 1e30)
    problem = load_problem("quadratic")
    problem.posterior = lambda eta: Independent(
        Normal(eta[..., :1], eta[..., 1:2].exp(), validate_args=True), 1
    )
    with pytest.raises(UsageError, match="diverged before step"):
        walk(problem, (0, 20), 0)


# What is measured along it


def test_sweeps_add_up_and_do_not_multiply():
    cases = Variance(
        estimator=("reparameterization",),
        num_samples=(1, 4, 16),
        batch_size=(64, 4, 16),
        step=(0, 10, 100, 1000),
        latent_dim=(2, 32),
    ).grid()
    settings = [(c.step, c.problem, c.num_samples, c.batch_size) for c in cases]
    assert len(set(settings)) == len(settings)
    base = [(step, "vae", s, 64) for step in (0, 1000) for s in (1, 4, 16)]
    between = [(step, "vae", 4, 64) for step in (10, 100)]
    sizes = [(1000, f"vae[latent_dim={d}]", 4, 64) for d in (2, 32)]
    batches = [(1000, "vae", 4, b) for b in (4, 16)]
    assert set(settings) == {*base, *between, *sizes, *batches}


def test_another_trajectory_is_another_case():
    def case(*steps):
        return next(c for c in Variance(step=steps).grid() if c.step == 10)

    assert case(0, 10).id == case(10, 0).id
    assert case(0, 10).id != case(0, 10, 20).id  # its gap is to another best


def command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["elbograd", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_rows_say_how_far_each_point_is(tmp_path, monkeypatch, capsys):
    code = command(
        monkeypatch, "variance", "-p", PROBLEM, "-e", "reparameterization", "-s", "2", "-r", "50",
        "--step", "0,5,60", "--batch-size", "8,4", "-o", tmp_path / "run",
    )  # fmt: skip
    assert code == 0
    assert "S=2, B=8, linear-gaussian at step 5" in capsys.readouterr().err
    rows = load_results(tmp_path / "run")
    gaps = rows[(rows["metric"] == "heldout_gap") & (rows["batch_size"] == 8)].set_index("step")["value"]
    objectives = rows[(rows["metric"] == "heldout_objective") & (rows["batch_size"] == 8)]
    assert list(gaps.index) == [0, 5, 60]
    best = gaps + objectives.set_index("step")["value"]
    assert best.tolist() == pytest.approx([best[0]] * 3)
    assert gaps[0] > gaps[60] >= 0
    assert set(rows.loc[rows["batch_size"] == 4, "step"]) == {60}
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert steps_in(folder) == (0, 5, 60)
    assert (tmp_path / "run" / "figures" / "variance-along-training.png").is_file()


@pytest.fixture
def saved(tmp_path):
    """A trajectory of the user's own, at odd steps."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for step, state in walk(load_problem(PROBLEM), (3, 30), 1).states.items():
        torch.save(state, folder / f"{step}.pt")
    return folder


def test_a_trajectory_of_the_user_s_own(saved, tmp_path, monkeypatch):
    code = command(
        monkeypatch, "variance", "-p", PROBLEM, "-e", "reparameterization", "-s", "2", "-r", "50",
        "--batch-size", "8", "--trajectory", saved, "-o", tmp_path / "run",
    )  # fmt: skip
    assert code == 0
    rows = load_results(tmp_path / "run")
    assert set(rows["step"]) == {3, 30}
    for step in (3, 30):
        problem = given_problem_at(PROBLEM, step, saved)
        v = measure_variance(problem, "reparameterization", num_samples=2, replicates=50, batch_size=8)
        total = rows[(rows["metric"] == "variance") & (rows["parameter"] == "") & (rows["step"] == step)]
        assert total["value"].item() == pytest.approx(v.total)
    gaps = rows[rows["metric"] == "heldout_gap"].set_index("step")["value"]
    assert gaps[30] == 0 < gaps[3]
    (saved / "heldout.json").write_text(json.dumps({"3": -20.0, "30": -15.0, "50": -12.0}))
    assert Checkpoints().given_heldout_gap(PROBLEM, 30, 0, saved) == (-15.0, 3.0)


def test_a_trajectory_that_cannot_be_used_is_one_line(saved, tmp_path, monkeypatch, capsys):
    def complaint(*arguments):
        start = ("variance", "-p", PROBLEM, "-e", "reparameterization", "-s", "2", "-r", "50")
        code = command(monkeypatch, *start, *arguments, "-o", tmp_path / "run")
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return code, " ".join((captured.err + captured.out).split())

    code, said = complaint("--trajectory", tmp_path / "nowhere")
    assert code == 2
    assert f"no checkpoints in {tmp_path / 'nowhere'}: expected files called STEP.pt" in said
    code, said = complaint("--trajectory", saved, "--step", "4")
    assert code == 2
    assert "--step 4: no such checkpoint" in said
    assert "choose from 3, 30" in said
    code, said = complaint("--trajectory", saved, "--latent-dim", "2")
    assert code == 2
    assert "--latent-dim cannot be combined with --trajectory" in said
    for content, why in (
        (
            {"encoder": {}, "decoder": {}},
            r'another model does not fit this problem: encoder: Missing key.*"$',
        ),
        ({"encoder": [], "decoder": {}}, r"another model does not fit this problem: encoder: .*list"),
        ([1], 'expected a dict of "encoder" and "decoder"'),
    ):
        torch.save(content, saved / "3.pt")
        with pytest.raises(UsageError, match=why) as raised:
            given_problem_at(PROBLEM, 3, saved)
        assert "\n" not in str(raised.value)
    # What the unpickler raises depends on the bytes: a ValueError, KeyError, IndexError, ...
    for junk in (
        b"nothing",
        b"junk",
        b"",
        b"hello world, not a checkpoint\n",
        bytes(range(256)),
        b"\x80\x02h\x05.",
    ):
        (saved / "3.pt").write_bytes(junk)
        with pytest.raises(UsageError, match=r"3\.pt: not a checkpoint") as raised:
            given_problem_at(PROBLEM, 3, saved)
        assert "\n" not in str(raised.value)


def test_a_checkpoint_of_other_shapes_is_one_line_with_the_first_mismatch():
    state = state_of(Checkpoints().problem_at(PROBLEM, 0, 0))
    wider = {side: {k: v.repeat(2, *[1] * (v.dim() - 1)) for k, v in p.items()} for side, p in state.items()}
    with pytest.raises(UsageError) as raised:
        checkpoints._load(load_problem(PROBLEM), wider)
    said = str(raised.value)
    assert "\n" not in said
    assert said.startswith(
        "a checkpoint of another model does not fit this problem: encoder: size mismatch for "
    )
    assert said.count("size mismatch") == 1


def test_junk_at_a_step_not_asked_for_spoils_nothing(saved, tmp_path, monkeypatch, capsys):
    (saved / "7.pt").write_bytes(b"junk")
    code = command(
        monkeypatch, "variance", "-p", PROBLEM, "-e", "reparameterization", "-s", "2", "-r", "50",
        "--batch-size", "8", "--trajectory", saved, "--step", "3,30", "-o", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, capsys.readouterr()
    gaps = load_results(tmp_path / "run").query("metric == 'heldout_gap'").set_index("step")["value"]
    assert gaps[30] == 0 < gaps[3]
