"""Run folders with anything in them: the right rows or one line, and nothing that they hold is executed."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from elbograd.benchmarks import load_results
from elbograd.benchmarks.cli.main import main
from elbograd.benchmarks.rows.schema import COLUMNS, row
from elbograd.benchmarks.store import ROWS, TABLE, RunFolder, read_rows, repair
from elbograd.benchmarks.store.lines import sealed
from elbograd.benchmarks.training.checkpoints import Checkpoints, given_problem_at
from elbograd.benchmarks.training.trajectory import state_of
from elbograd.estimators import UsageError
from hypothesis import example, given, settings
from hypothesis import strategies as st

CONFIG = {"variance": {"replicates": 10}}
CASES = ("one", "two", "three")
PROBLEM = "linear-gaussian"
WORDS = ("problem", "estimator", "objective", "parameter", "reason", "unit")


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Without waiting for the disk, which a killed process does not need."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def rows_of(case):
    common = {"case": case, "benchmark": "variance", "estimator": "exact", "problem": "quadratic"}
    values = (1.25, None, float("inf"))
    return [row(**common, metric="variance", value=v, n=7, num_samples=1, reason="é") for v in values]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run: its folder, its rows by case, the bytes of its files."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = RunFolder(folder, CONFIG, {"command": "x"})
    for case in CASES:
        run.append(rows_of(case))
    frame = run.finish()
    right = {case: frame[frame["case"] == case].reset_index(drop=True) for case in CASES}
    return folder, right, {file.name: file.read_bytes() for file in folder.iterdir()}


def laid_out(tmp_path_factory, files, **others):
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    folder.mkdir()
    for name, content in {**files, **others}.items():
        (folder / name).write_bytes(content)
    return folder


def one_line(error):
    return len(str(error).splitlines()) == 1


@st.composite
def broken(draw, content):
    """Bytes after a few accidents."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["cut", "flip", "junk", "line lost", "line twice", "zeros", "number"]))
        lines = content.splitlines(keepends=True)
        line = draw(st.integers(0, max(0, len(lines) - 1)))
        if kind == "cut":
            content = content[:at]
        elif kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ 1 << draw(st.integers(0, 7))]) + content[at + 1 :]
        elif kind == "junk":
            content = content[:at] + draw(st.binary(max_size=20)) + content[at:]
        elif kind == "line lost":
            content = b"".join(lines[:line] + lines[line + 1 :])
        elif kind == "line twice":
            content = b"".join(lines[: line + 1] + lines[line:])
        elif kind == "zeros":
            content = content[:at] + bytes(len(content) - at)
        else:
            wild = draw(
                st.sampled_from([b"NaN", b"1e999", b"9" * 5000, b"[" * 9999, b'"x"', b"{}", b"null", b"\xff"])
            )
            content = content.replace(b"1.25", wild, 1)
    return content


# Rows


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_broken_rows_are_read_right_or_refused_and_the_run_goes_on(whole, tmp_path_factory, data):
    _, right, files = whole
    folder = laid_out(tmp_path_factory, files, **{ROWS: data.draw(broken(files[ROWS]))})
    try:
        frame = load_results(folder)
    except UsageError as error:
        assert one_line(error)  # noqa: PT017 - both outcomes are right
    else:
        for case, found in frame.groupby("case"):
            assert found.reset_index(drop=True).equals(right[case])
    run = RunFolder(folder, CONFIG, {"command": "x"})
    finished = run.finished()
    for case in CASES:
        if case not in finished:
            run.append(rows_of(case))
    ended = run.finish(CASES)
    assert sorted(ended["case"].unique()) == sorted(CASES)
    for case, found in ended.groupby("case"):
        assert found.reset_index(drop=True).equals(right[case])
    assert load_results(folder).equals(ended)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
@example(b"[" * 100_000 + b"\n")
@example(b"1" * 5000 + b"\n")
@example(b'{"schema_version": 1' + b"0" * 4000 + b"}\n")
@example(b'{"case": "x", "status": "done"}\n')
@example(b"\xff\xfe\n\n\x00\n")
@example(b"null\n")
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("fuzz") / ROWS
    file.write_bytes(content)
    try:
        assert load_results(file).empty
    except UsageError as error:
        assert one_line(error)  # noqa: PT017 - both outcomes are right
    with contextlib.suppress(UsageError):  # of a newer version
        repair(file)
        assert read_rows(file) == []


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_broken_table_is_read_right_or_refused(whole, tmp_path_factory, data):
    folder, _, files = whole
    file = laid_out(tmp_path_factory, {TABLE: data.draw(broken(files[TABLE]))}) / TABLE
    try:
        assert load_results(file).equals(load_results(folder))
    except UsageError as error:
        assert one_line(error)  # noqa: PT017 - both outcomes are right


def test_a_table_with_another_value_is_refused(whole, tmp_path):
    table = pq.read_table(whole[0] / TABLE)
    value = table.column_names.index("value")
    changed = table.set_column(value, "value", pa.array([1.26, *table["value"].to_pylist()[1:]]))
    pq.write_table(changed, tmp_path / TABLE)
    with pytest.raises(UsageError, match="its checksum does not match"):
        load_results(tmp_path / TABLE)
    pq.write_table(changed.replace_schema_metadata(None), tmp_path / TABLE)
    with pytest.raises(UsageError, match="it has no checksum"):
        load_results(tmp_path / TABLE)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_broken_settings_are_refused_in_one_line_or_are_the_same(whole, tmp_path_factory, data):
    _, _, files = whole
    name = data.draw(st.sampled_from(["config.toml", "environment.json", ".lock"]))
    content = data.draw(st.binary(max_size=60) | broken(files[name]))
    folder = laid_out(tmp_path_factory, {**files, name: content})
    try:
        RunFolder(folder, CONFIG, {"command": "x"})
    except UsageError as error:
        assert one_line(error)  # noqa: PT017 - both outcomes are right
        assert name == "config.toml"
        RunFolder(folder, CONFIG, {"command": "x"}, force=True)
        assert load_results(laid_out(tmp_path_factory, files)).shape[0] == 9
    assert json.loads((folder / "environment.json").read_bytes())["command"] == "x"


@pytest.fixture
def report(monkeypatch, capsys):
    def run(folder):
        monkeypatch.setattr("elbograd.benchmarks.plots.FIGURES", ())
        monkeypatch.setattr(sys, "argv", ["elbograd", "report", str(folder)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return stop.value.code, captured.err

    return run


def test_report_of_broken_folders(whole, tmp_path_factory, report):
    _, _, files = whole
    rows = files[ROWS]
    damaged = rows.replace(b"1.25", b"1.26", 1)
    old = b"".join(json.dumps({**r, "schema_version": 2}).encode() + b"\n" for r in rows_of("one"))
    for content, code, said in (
        (rows, 0, ""),
        (rows[:-30], 0, ""),
        (old, 0, ""),
        (damaged, 2, "line 1 is damaged (2 more with it): its checksum does not match"),
        (
            old.replace(b'"done"', b'"perhaps"'),
            2,
            "line 1 is damaged (2 more with it): it has no case, an unknown",
        ),
        (b"", 2, "no rows in"),
        (b"\xff\xff\n", 2, "it is not JSON"),
    ):
        folder = laid_out(tmp_path_factory, files, **{ROWS: content})
        found, err = report(folder)
        assert (found, said in err) == (code, True), err
        assert len(err.splitlines()) == (code > 0)
    odd = row(case="x", benchmark="certify", metric="check", parameters='{"confidence": "high"}')
    (folder / ROWS).write_bytes(sealed([odd]))
    assert report(folder) == (
        2,
        f"elbograd: error: cannot show the rows of {folder}: ValueError: Unknown format code 'g' for object of type 'str'\n",
    )
    (folder / ROWS).unlink()
    assert report(folder)[0] == 0  # from its table
    (folder / ROWS).mkdir()
    assert report(folder) == (2, f"elbograd: error: {folder / ROWS} is not a file\n")


def test_strings_of_a_file_do_nothing_to_the_terminal(whole, tmp_path_factory, monkeypatch, capsys):
    escape = "\x1b]0;title\x07\x1b[2J"
    settings = json.dumps({"point": escape, "objective": escape})
    odd = [
        row(
            case="x", benchmark="variance", metric="variance", **dict.fromkeys(WORDS, escape), status="failed"
        ),
        row(case="y", benchmark="variance", metric="variance", **dict.fromkeys(WORDS, escape), value=1.0),
        row(
            case="z", benchmark="certify", metric="check", **dict.fromkeys(WORDS, escape), parameters=settings
        ),
        row(case="w", benchmark="certify", metric="check", **dict.fromkeys(WORDS, escape), status="skipped"),
    ]
    lines = b"".join(sealed([r]) for r in odd)
    folder = laid_out(tmp_path_factory, whole[2], **{ROWS: lines})
    monkeypatch.setattr("elbograd.benchmarks.plots.FIGURES", ())
    monkeypatch.setattr(sys, "argv", ["elbograd", "report", str(folder)])
    with pytest.raises(SystemExit):
        main()
    out, err = capsys.readouterr()
    assert out.count("title") == 6  # cells of the tables, and each reason once
    assert not [c for c in out + err if not c.isprintable() and c != "\n"]


# Checkpoints


@pytest.fixture
def kept(tmp_path):
    """The run's own trajectory, and the states in it."""
    state = state_of(Checkpoints(tmp_path).problem_at(PROBLEM, 2, 0, (0, 2)))
    (folder,) = tmp_path.iterdir()
    return folder, state


def test_half_written_or_changed_checkpoints_are_trained_again(kept, tmp_path):
    folder, state = kept
    files = {file: file.read_bytes() for file in folder.iterdir()}
    weights = files[folder / "2.pt"]
    inside = weights.index(state["encoder"]["weight"].numpy().tobytes()[:16])
    flipped = weights[: inside + 2] + bytes([weights[inside + 2] ^ 1]) + weights[inside + 3 :]
    heldout = files[folder / "heldout.json"]
    for name, content in (
        ("2.pt", flipped),  # torch.load itself does not see this
        ("2.pt", weights[: len(weights) // 2]),
        ("2.pt", b""),
        ("2.pt", None),
        ("heldout.json", heldout.replace(b"-1", b"-2", 1)),
        ("heldout.json", heldout[:10]),
        ("heldout.json", b""),
        ("heldout.json", b'{"0": null}'),
        ("heldout.json", None),
    ):
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        found = state_of(Checkpoints(tmp_path).problem_at(PROBLEM, 2, 0, (0, 2)))
        assert all(torch.equal(found[side][key], state[side][key]) for side in state for key in state[side])
        assert {file: file.read_bytes() for file in folder.iterdir()} == files


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_given_trajectory_that_is_broken_is_one_line(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("given")
    torch.save(state_of(Checkpoints().problem_at(PROBLEM, 0, 0)), folder / "0.pt")
    content = (folder / "0.pt").read_bytes()
    (folder / "0.pt").write_bytes(data.draw(st.just(content) | broken(content)))
    (folder / "heldout.json").write_bytes(data.draw(broken(b'{"0": -1.25, "3": -1.0}')))
    for use in (
        lambda: given_problem_at(PROBLEM, 0, folder),
        lambda: Checkpoints().given_heldout_gap(PROBLEM, 0, 0, folder),
    ):
        with contextlib.suppress(UsageError), warnings.catch_warnings(action="ignore"):
            use()


# Results are data


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


def test_a_planted_pickle_is_never_loaded(whole, tmp_path, tmp_path_factory, report):
    mark = tmp_path / "executed"
    trap = pickle.dumps(Trap(mark))
    pickle.loads(trap).close()  # the trap works
    assert mark.exists()
    mark.unlink()
    _, _, files = whole
    names = (
        "rows.pkl",
        "rows.pickle",
        "environment.json",
        "figures.pkl",
        "rows.damaged.jsonl",
        "report.html",
    )
    folder = laid_out(tmp_path_factory, files, **dict.fromkeys(names, trap))
    assert report(folder)[0] == 0
    RunFolder(folder, CONFIG, {})
    for name in (ROWS, TABLE):
        (folder / name).write_bytes(trap)
        with pytest.raises(UsageError):
            load_results(folder / name)
    # An extension type of a table was once unpickled by pyarrow (CVE-2023-47248).
    extension = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": trap}
    fields = [pa.field(name, pa.string(), metadata=extension) for name in COLUMNS]
    table = pa.table([pa.array(["x"])] * len(fields), schema=pa.schema(fields, {"pandas": trap}))
    pq.write_table(table, folder / TABLE)
    with pytest.raises(UsageError, match="of another type"):
        load_results(folder / TABLE)
    for save in (
        torch.save,
        lambda state, file: torch.save(state, file, _use_new_zipfile_serialization=False),
    ):
        save({"encoder": Trap(mark), "decoder": {}}, folder / "3.pt")
        with pytest.raises(UsageError, match="not a checkpoint"):
            given_problem_at(PROBLEM, 3, folder)
    assert not mark.exists()


def test_planted_modules_are_never_imported(whole, tmp_path, tmp_path_factory):
    _, _, files = whole
    mark = tmp_path / "executed"
    code = f"open({str(mark)!r}, 'w')\n".encode()
    modules = (
        "json",
        "pandas",
        "pyarrow",
        "tomllib",
        "torch",
        "conftest",
        "sitecustomize",
        "matplotlib",
        "plugin",
    )
    folder = laid_out(tmp_path_factory, files, **{f"{name}.py": code for name in modules})
    script = "from elbograd.benchmarks import load_results; print(len(load_results('.')))"
    command = [
        sys.executable,
        "-P",
        "-c",
        script,
    ]  # as the installed command starts: not from where it stands
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout == "9\n", done.stderr
    assert not mark.exists()


def test_no_code_that_reads_results_could_execute_them():
    forbidden = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    calls = {"eval", "exec", "read_pickle", "literal_eval"}
    for file in sorted((Path(__file__).parents[2] / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not forbidden & {alias.name.split(".")[0] for alias in node.names}, file
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").split(".")[0] not in forbidden, file
            elif isinstance(node, ast.Call):
                function = node.func
                name = getattr(function, "attr", getattr(function, "id", ""))
                assert name not in calls or (isinstance(function, ast.Attribute) and name == "eval"), file
                given_arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert given_arguments.get("allow_pickle", "False") == "False", file
                if ast.unparse(function) == "torch.load":
                    assert given_arguments.get("weights_only") == "True", file


def test_a_line_is_what_every_machine_and_later_version_can_read():
    # A change here changes the format: SCHEMA_VERSION goes up, and old lines are still to be read.
    assert sealed([row(case="x", value=0.1, reason="é")]) == (
        b'{"schema_version": 4, "run": "", "case": "x", "benchmark": "", "problem": "", "estimator": "", "objective": "", '
        b'"parameters": "{}", "num_samples": null, "batch_size": null, "latent_dim": null, "seed": null, '
        b'"step": null, "device": "cpu", "dtype": "float32", "mode": "eager", "weights": "", "batch": "", "parameter": "", "metric": "", '
        b'"value": 0.1, "stderr": null, "ci_low": null, "ci_high": null, "n": null, "unit": "", '
        b'"status": "done", "reason": "\\u00e9", "row": 1, "rows": 1, "crc32": "54432c2d"}\n'
    )
