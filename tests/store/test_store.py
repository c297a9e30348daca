"""Run folders: what is written is read back, torn lines are mended, other runs are not mixed in."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from elbograd.benchmarks import load_results
from elbograd.benchmarks.rows.schema import COLUMNS, SCHEMA_VERSION, row
from elbograd.benchmarks.store import ROWS, TABLE, RunFolder, default_folder, read_rows
from elbograd.benchmarks.store.atomic import replacing, write_atomically
from elbograd.benchmarks.store.lines import sealed
from elbograd.benchmarks.store.log import read_log
from elbograd.estimators import UsageError

CONFIG = {"variance": {"replicates": 10, "estimator": ["a"]}}
OTHER = {"variance": {"replicates": 20, "estimator": ["a"]}}


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Without waiting for the disk, which a killed process does not need."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def some_rows(case, **values):
    return [row(case=case, metric="variance", value=v, **values) for v in (1.5, None)]


def old_lines(*cases, version=1):
    """As versions 1 and 2 wrote them."""
    rows = [{**r, "schema_version": version} for case in cases for r in some_rows(case)]
    if version == 1:
        rows = [{k: v for k, v in r.items() if k != "objective"} for r in rows]
    return "".join(json.dumps(r) + "\n" for r in rows)


def test_rows_come_back_with_their_types(tmp_path):
    folder = RunFolder(tmp_path / "run", CONFIG, {"command": "x"})
    folder.append(some_rows("one", estimator="<script>alert(1)</script>", num_samples=3))
    folder.append([row(case="two", value=float("nan"), ci_low=float("-inf"), reason="é \ud800\n", n=2**62)])
    frame = folder.finish()
    again = load_results(tmp_path / "run" / TABLE)
    for loaded in (frame, again, load_results(tmp_path / "run")):
        assert list(loaded.columns) == list(COLUMNS)
        assert loaded["num_samples"].tolist() == [3, 3, pd.NA]
        assert loaded["value"].iloc[0] == 1.5
        assert loaded["value"].isna().tolist() == [False, True, True]
        assert loaded["ci_low"].iloc[2] == float("-inf")
        assert loaded["n"].iloc[2] == 2**62  # a float would round it
        assert loaded["run"].tolist() == ["run"] * 3
        assert loaded["estimator"].iloc[0] == "<script>alert(1)</script>"
        assert loaded["reason"].iloc[2] == "é \\ud800\n"
        assert str(loaded["schema_version"].dtype) == "Int64"
        assert loaded.equals(frame)
    assert str(pd.read_parquet(tmp_path / "run" / TABLE)["num_samples"].dtype) == "Int64"
    (tmp_path / "run" / ROWS).unlink()
    assert load_results(tmp_path / "run").equals(frame)  # as results are published


def test_lines_say_what_they_are(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    folder.append([*some_rows("one"), *some_rows("two")])
    lines = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    assert [(r["case"], r["row"], r["rows"]) for r in lines] == [
        (case, k, 2) for case in ("one", "two") for k in (1, 2)
    ]
    assert {r["schema_version"] for r in lines} == {SCHEMA_VERSION}
    assert pd.read_json(tmp_path / ROWS, lines=True)["value"].tolist()[:1] == [1.5]  # others can read it too


def test_a_torn_case_is_dropped_and_the_rest_kept(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    folder.append(some_rows("one"))
    whole = (tmp_path / ROWS).read_bytes()
    torn = sealed(some_rows("two"))
    ends = {1, len(torn) // 2 + 1, torn.index(b"\n"), torn.index(b"\n") + 1, len(torn) - 1}
    for cut in (*range(1, len(torn), 37), *ends):
        (tmp_path / ROWS).write_bytes(whole + torn[:cut])
        assert load_results(tmp_path)["case"].tolist() == ["one", "one"]
        assert RunFolder(tmp_path, CONFIG, {}).torn
        assert (tmp_path / ROWS).read_bytes() == whole
    assert not RunFolder(tmp_path, CONFIG, {}).torn


def test_finished_failed_and_forgotten_cases(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    folder.append(some_rows("good"))
    folder.append(some_rows("bad", status="failed"))
    assert folder.finished() == {"good"}
    folder.forget({"bad"})
    assert {r["case"] for r in read_rows(tmp_path / ROWS)} == {"good"}


def test_a_case_that_is_there_twice_counts_once(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    folder.append(some_rows("one", status="failed"))
    folder.append(some_rows("two"))
    folder.append(some_rows("one"))
    assert folder.finished() == {"one", "two"}
    assert load_results(tmp_path)["case"].tolist() == ["two", "two", "one", "one"]


def test_rows_end_in_the_order_asked_for(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    for case in ("c", "before", "a", "b"):
        folder.append(some_rows(case))
    assert folder.finish(["a", "b", "c"])["case"].unique().tolist() == ["before", "a", "b", "c"]
    assert load_results(tmp_path).equals(load_results(tmp_path / TABLE))


def test_the_same_benchmark_with_other_settings_is_refused(tmp_path):
    RunFolder(tmp_path, CONFIG, {}).append(some_rows("one"))
    RunFolder(tmp_path, {"convergence": {"steps": 3}}, {})  # another benchmark may join
    with pytest.raises(UsageError, match=r"other settings \(replicates\).*--force"):
        RunFolder(tmp_path, {"variance": {"replicates": 20, "estimator": ["a"]}}, {})
    assert len(read_rows(tmp_path / ROWS)) == 2
    RunFolder(tmp_path, {"variance": {"replicates": 20}}, {}, force=True)
    assert read_rows(tmp_path / ROWS) == []


def test_rows_without_their_settings_are_not_added_to(tmp_path):
    RunFolder(tmp_path, CONFIG, {}).append(some_rows("one", benchmark="variance"))
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(UsageError, match=r"does not say how its variance rows were made.*--force"):
        RunFolder(tmp_path, CONFIG, {})
    (tmp_path / "config.toml").unlink()
    RunFolder(tmp_path, CONFIG, {}, force=True)
    assert read_rows(tmp_path / ROWS) == []


def test_rows_of_several_environments_are_told(tmp_path):
    def environment():
        return json.loads((tmp_path / "environment.json").read_text())

    old = {"command": "a", "packages": {"torch": "1"}, "cpu": "x"}
    RunFolder(tmp_path, CONFIG, old)
    assert RunFolder(tmp_path, CONFIG, {**old, "cpu": "y"}).changed == []  # nothing was measured there
    run = RunFolder(tmp_path, CONFIG, old)
    run.append(some_rows("one"))
    assert RunFolder(tmp_path, CONFIG, {**old, "command": "b"}).changed == []
    assert "earlier" not in environment()
    new = {**old, "packages": {"torch": "2"}}
    for _ in range(2):
        assert RunFolder(tmp_path, CONFIG, new).changed == ["packages"]
        assert environment() == {**new, "earlier": [{**old, "command": "b"}]}
    (tmp_path / "environment.json").write_text("junk")
    assert RunFolder(tmp_path, CONFIG, new).changed == []


# Versions


def test_a_newer_schema_version_is_refused_and_left_alone(tmp_path):
    newer = json.dumps({**row(case="x"), "schema_version": SCHEMA_VERSION + 1}) + "\n"
    (tmp_path / ROWS).write_text(newer)
    for use in (load_results, lambda path: RunFolder(path, CONFIG, {})):
        with pytest.raises(UsageError, match=f"has schema version {SCHEMA_VERSION + 1}, this elbograd reads"):
            use(tmp_path)
    assert (tmp_path / ROWS).read_text() == newer
    frame = pd.DataFrame([{**row(case="x"), "schema_version": SCHEMA_VERSION + 1}])
    frame = frame.astype({name: "Int64" for name, (kind, _, _) in COLUMNS.items() if kind is int})
    frame = frame.astype({name: "float64" for name, (kind, _, _) in COLUMNS.items() if kind is float})
    frame.to_parquet(tmp_path / TABLE)
    with pytest.raises(UsageError, match=f"has schema version {SCHEMA_VERSION + 1}"):
        load_results(tmp_path / TABLE)
    frame.assign(new=1).to_parquet(tmp_path / TABLE)
    with pytest.raises(UsageError, match="a newer elbograd may have written it"):
        load_results(tmp_path / TABLE)


@pytest.mark.parametrize("version", [1, 2])
def test_older_versions_are_read_and_go_on_as_today_s(tmp_path, version):
    old = old_lines("one", "two", version=version)
    (tmp_path / ROWS).write_text(old)
    frame = load_results(tmp_path)
    assert frame["case"].tolist() == ["one", "one", "two", "two"]
    assert set(frame["schema_version"]) == {SCHEMA_VERSION}
    folder = RunFolder(tmp_path, CONFIG, {})
    assert not folder.torn
    assert folder.finished() == {"one", "two"}
    assert not read_log(tmp_path / ROWS).outdated
    assert load_results(tmp_path).equals(frame)
    # It did not say how many rows a case has: of a torn file the last case is not believed to be whole.
    (tmp_path / ROWS).write_text(old[:-20])
    assert load_results(tmp_path)["case"].tolist() == ["one", "one"]
    assert RunFolder(tmp_path, CONFIG, {}).finished() == {"one"}


def test_the_published_rows_are_read():
    published = os.path.join(os.path.dirname(__file__), "..", "..", "results", "published")
    assert len(load_results(published)) > 1000


# What cannot be read


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"value": "1.5"}, "its value is not a number"),
        ({"value": True}, "its value is not a number"),
        ({"value": 10**400}, "its value is not a number of 64 bits"),
        ({"n": 1.5}, "its n is not a number"),
        ({"n": 2**63}, "its n is not a number of 64 bits"),
        ({"metric": None}, "its metric is not a text"),
        ({"case": ""}, "it has no case"),
        ({"status": "perhaps"}, "an unknown status"),
        ({"parameters": "{"}, "parameters that are not JSON"),
        ({"parameters": "[" * 100_000}, "parameters that are not JSON"),
        ({"schema_version": 0}, "no known schema version"),
        ({"schema_version": None}, "it is not a row"),
        ({"valeu": 1}, "its columns are not those of a row"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_a_row_of_other_types_is_refused_however_well_it_is_sealed(tmp_path, change, why):
    from elbograd.benchmarks.store import lines

    values = {**row(case="x"), **change, "row": 1, "rows": 1}
    for sealed_line in (lines._sealed(values), lines._sealed({**values, "schema_version": 1})):
        if "schema_version" in change and b'"schema_version": 1,' in sealed_line:
            continue
        (tmp_path / ROWS).write_bytes(sealed_line)
        if b'"schema_version": 1,' in sealed_line:
            why = "its columns are not those of a row"  # version 1 knew no seal
        with pytest.raises(UsageError, match=f"rows.jsonl: line 1 is damaged: .*{why}") as raised:
            load_results(tmp_path)
        assert "\n" not in str(raised.value)


def test_damage_in_the_middle_is_told_and_mended_by_the_run(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    for case in ("one", "two", "three"):
        folder.append(some_rows(case))
    lines = (tmp_path / ROWS).read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"null", b"4.25", 1)  # a value where there was none: valid JSON, a valid row
    (tmp_path / ROWS).write_bytes(b"".join([*lines[:4], b"junk\n", *lines[4:]]))
    message = r"rows.jsonl: line 4 is damaged \(2 more with it\): its checksum does not match"
    with pytest.raises(UsageError, match=message):
        load_results(tmp_path)
    folder = RunFolder(tmp_path, CONFIG, {})
    assert (folder.torn, folder.damaged) == (False, 3)
    assert folder.finished() == {"one", "three"}
    assert (tmp_path / "rows.damaged.jsonl").read_bytes() == b"".join([*lines[2:4], b"junk\n"])
    assert load_results(tmp_path)["case"].tolist() == ["one", "one", "three", "three"]


def test_windows_ends_of_lines_are_no_damage(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    for case in ("one", "two"):
        folder.append(some_rows(case))
    right, text = load_results(tmp_path), (tmp_path / ROWS).read_bytes()
    (tmp_path / ROWS).write_bytes(text.replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(load_results(tmp_path), right)
    folder = RunFolder(tmp_path, CONFIG, {})
    assert (folder.torn, folder.damaged, folder.finished()) == (False, 0, {"one", "two"})
    folder.append(some_rows("three"))
    pd.testing.assert_frame_equal(folder.finish(["two", "one", "three"]), load_results(tmp_path))
    assert list(load_results(tmp_path)["case"].unique()) == ["two", "one", "three"]


def test_whatever_moment_force_is_killed_at_nothing_of_the_old_run_stays_in_the_end(tmp_path, monkeypatch):
    def old(folder):
        run = RunFolder(folder, CONFIG, {})
        run.append(some_rows("one"))
        run.finish()
        kept = ("figures/old.png", "tables/old.md", "checkpoints/1/1.pt", "report.html", "advice.txt")
        for name in (*kept, "certificates.json", "badges/old.svg"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("old")

    def dying(function):
        def delete(*arguments, **options):
            if next(left) == 0:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return delete

    died = 0
    for moments in range(16):
        folder = tmp_path / str(moments)
        old(folder)
        left = iter(range(moments, -1, -1))
        with monkeypatch.context() as patch:
            patch.setattr("shutil.rmtree", dying(shutil.rmtree))
            patch.setattr(Path, "unlink", dying(Path.unlink))
            with contextlib.suppress(KeyboardInterrupt):
                RunFolder(folder, OTHER, {}, force=True)
                break
            died += 1
        RunFolder(folder, OTHER, {}, force=True)
        left_over = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
        assert left_over == {".lock", "config.toml", "environment.json"}
    assert died == 13


def test_rows_of_version_1_are_brought_up_to_date(tmp_path):
    old = {k: v for k, v in row(case="x", benchmark="variance").items() if k != "objective"}
    said = "of the objective iwae, not to be compared with the ELBO's"
    lines = [
        {**old, "schema_version": 1, "reason": "not enough replicates (at least 9)"},
        {**old, "schema_version": 1, "reason": said},
        {**old, "schema_version": 1, "reason": f"{said}; not enough replicates (at least 9)"},
        {**old, "schema_version": 1, "benchmark": "convergence"},
    ]
    (tmp_path / ROWS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    loaded = load_results(tmp_path)
    assert list(loaded["objective"]) == ["elbo", "iwae", "iwae", ""]
    few = "not enough replicates (at least 9)"
    assert list(loaded["reason"]) == [few, "", few, ""]
    assert set(loaded["schema_version"]) == {SCHEMA_VERSION}
    typed = loaded.assign(schema_version=1, reason=[line["reason"] for line in lines])
    typed.drop(columns=["objective", "weights", "batch"]).to_parquet(tmp_path / "old.parquet")
    pd.testing.assert_frame_equal(load_results(tmp_path / "old.parquet"), loaded)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(UsageError, match="no results in"):
        load_results(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot use folder"):
        RunFolder(tmp_path / "file", CONFIG, {})
    (tmp_path / "config.toml").write_text("not = = toml")
    with pytest.raises(UsageError, match="cannot use folder"):
        RunFolder(tmp_path, CONFIG, {})


@pytest.mark.parametrize("name", [ROWS, "config.toml", "environment.json", ".lock", TABLE])
def test_a_folder_in_a_file_s_place_is_one_line(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises((UsageError, IsADirectoryError), match=name) as raised:
        RunFolder(tmp_path, CONFIG, {}).finish()
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(UsageError):
        load_results(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_a_file_s_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ROWS)
    for use in (load_results, lambda path: RunFolder(path, CONFIG, {})):
        with pytest.raises(UsageError, match=r"rows\.jsonl is not a file"):
            use(tmp_path)


def test_what_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    # Root may read anything, so the refusal is feigned.
    RunFolder(tmp_path, CONFIG, {}).append(some_rows("one"))

    def refuse(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(UsageError, match=r"cannot read .*: Permission denied"):
        load_results(tmp_path)
    with pytest.raises(UsageError, match=r"cannot use folder .*: config.toml: Permission denied"):
        RunFolder(tmp_path, CONFIG, {})


def test_an_unknown_column_is_a_mistake():
    with pytest.raises(KeyError, match="valeu"):
        row(valeu=1)


def test_force_deletes_nothing_that_is_not_a_run(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.png").write_text("precious")
    RunFolder(tmp_path, CONFIG, {}, force=True)
    assert (tmp_path / "figures" / "mine.png").read_text() == "precious"


# Full disks, other processes


def limited(size):
    """Inside, no file grows beyond so many bytes: the kernel writes what fits, then refuses."""
    from contextlib import contextmanager

    resource = pytest.importorskip("resource", reason="needs Unix")

    @contextmanager
    def limit():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit()


def test_a_case_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    folder.append(some_rows("one"))
    whole = (tmp_path / ROWS).read_bytes()
    for room in range(0, len(whole), 100):
        with limited(len(whole) + room), pytest.raises(OSError, match=r"rows\.jsonl"):
            folder.append(some_rows("two"))
        assert (tmp_path / ROWS).read_bytes() == whole
    folder.append(some_rows("two"))
    assert folder.finished() == {"one", "two"}


def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path):
    file = tmp_path / "file.txt"
    write_atomically(file, "before")
    with limited(100), pytest.raises(OSError, match=r"file\.txt"):
        write_atomically(file, "after" * 1000)
    with pytest.raises(ZeroDivisionError), replacing(file) as unfinished:
        unfinished.write_text(f"half of it and {1 / 0}")
    assert [f.name for f in tmp_path.iterdir()] == ["file.txt"]
    assert file.read_text() == "before"
    folder = RunFolder(tmp_path / "run", CONFIG, {})
    folder.append(some_rows("one"))
    with limited(2000), pytest.raises(OSError, match=r"rows\.parquet"):
        folder.finish()
    assert not (tmp_path / "run" / TABLE).exists()
    assert len(folder.finish()) == 2


def test_what_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(os, "fsync", lambda handle: order.append("sync"))
    replace = type(tmp_path).replace
    monkeypatch.setattr(
        type(tmp_path), "replace", lambda self, to: (order.append("replace"), replace(self, to))[1]
    )
    write_atomically(tmp_path / "file", "x")
    assert order == ["sync", "replace", "sync"]  # the bytes; the name; the folder that holds the name
    folder = RunFolder(tmp_path, CONFIG, {})
    del order[:]
    folder.append(some_rows("one"))
    assert order == ["sync", "sync"]  # the rows, and the new file's name
    folder.append(some_rows("two"))
    assert order == ["sync", "sync", "sync"]


def test_what_a_kill_left_behind_is_removed(tmp_path):
    (tmp_path / "figures").mkdir(parents=True)
    leftovers = [tmp_path / ".unfinished-7-rows.parquet", tmp_path / "figures" / ".unfinished-7-bias.png"]
    elsewhere = tmp_path / "mine" / ".unfinished-7-thought.txt"
    elsewhere.parent.mkdir()
    for leftover in (*leftovers, elsewhere):
        leftover.write_text("half")
    RunFolder(tmp_path, CONFIG, {})
    assert not any(leftover.exists() for leftover in leftovers)
    assert elsewhere.exists()


HOLDER = """
import sys, time
from pathlib import Path
from elbograd.benchmarks.store import RunFolder
folder = RunFolder(Path(sys.argv[1]), {"variance": {"replicates": 10, "estimator": ["a"]}}, {})
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    RunFolder(tmp_path, CONFIG, {}).append(some_rows("one"))
    before = (tmp_path / ROWS).read_bytes()
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        for force in (False, True):
            with pytest.raises(UsageError, match=f"another process is writing to {tmp_path}: wait for it"):
                RunFolder(tmp_path, CONFIG, {}, force=force)
        assert (tmp_path / ROWS).read_bytes() == before
        assert len(load_results(tmp_path)) == 2  # to read is always allowed
        holder.kill()
    folder = RunFolder(tmp_path, CONFIG, {})  # no stale lock: it ended with the process
    assert folder.finished() == {"one"}


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch, capsys):
    import fcntl

    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    RunFolder(tmp_path, CONFIG, {}).append(some_rows("one"))
    assert capsys.readouterr().err == (
        f"{tmp_path}: this file system has no locks: let no other process write there\n"
    )


def test_dated_folders_are_taken_in_one_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [default_folder("x") for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(folder.is_dir() for folder in folders)
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UsageError, match="cannot use folder results"):
        default_folder("x")
