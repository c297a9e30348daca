"""Run folders: what is written is read back, torn lines are mended, other runs are not mixed in."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from elbograd.benchmarks import load_results
from elbograd.benchmarks.schema import COLUMNS, SCHEMA_VERSION, row
from elbograd.benchmarks.store import ROWS, RunFolder, read_rows, repair
from elbograd.estimators import UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

CONFIG = {"variance": {"replicates": 10, "estimator": ["a"]}}


def some_rows(case, **values):
    return [row(case=case, metric="variance", value=v, **values) for v in (1.5, None)]


def test_rows_come_back_with_their_types(tmp_path):
    folder = RunFolder(tmp_path / "run", CONFIG, {"command": "x"})
    folder.append(some_rows("one", estimator="<script>alert(1)</script>", num_samples=3))
    frame = folder.finish()
    again = load_results(tmp_path / "run" / "rows.parquet")
    for loaded in (frame, again, load_results(tmp_path / "run")):
        assert list(loaded.columns) == list(COLUMNS)
        assert loaded["num_samples"].tolist() == [3, 3]
        assert loaded["value"].iloc[0] == 1.5
        assert loaded["value"].isna().tolist() == [False, True]
        assert loaded["run"].tolist() == ["run", "run"]
        assert loaded["estimator"].iloc[0] == "<script>alert(1)</script>"
        assert str(loaded["schema_version"].dtype) == "Int64"


def test_a_torn_last_line_is_dropped_and_the_rest_kept(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    folder.append(some_rows("one"))
    whole = (tmp_path / ROWS).read_bytes()
    for cut in range(1, len(whole) // 2):
        (tmp_path / ROWS).write_bytes(whole + whole[:cut])
        assert RunFolder(tmp_path, CONFIG, {}).torn
        assert (tmp_path / ROWS).read_bytes() == whole
    assert not RunFolder(tmp_path, CONFIG, {}).torn


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("fuzz") / ROWS
    file.write_bytes(data)
    repair(file)
    try:
        load_results(file)
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017 - both outcomes are right


def test_finished_failed_and_forgotten_cases(tmp_path):
    folder = RunFolder(tmp_path, CONFIG, {})
    folder.append(some_rows("good"))
    folder.append(some_rows("bad", status="failed"))
    assert folder.finished() == {"good"}
    folder.forget({"bad"})
    assert {r["case"] for r in read_rows(tmp_path / ROWS)} == {"good"}


def test_the_same_benchmark_with_other_settings_is_refused(tmp_path):
    RunFolder(tmp_path, CONFIG, {}).append(some_rows("one"))
    RunFolder(tmp_path, {"convergence": {"steps": 3}}, {})  # another benchmark may join
    with pytest.raises(UsageError, match=r"other settings \(replicates\).*--force"):
        RunFolder(tmp_path, {"variance": {"replicates": 20, "estimator": ["a"]}}, {})
    assert len(read_rows(tmp_path / ROWS)) == 2
    RunFolder(tmp_path, {"variance": {"replicates": 20}}, {}, force=True)
    assert read_rows(tmp_path / ROWS) == []


def test_another_schema_version_is_refused(tmp_path):
    (tmp_path / ROWS).write_text(json.dumps({**row(case="x"), "schema_version": SCHEMA_VERSION + 1}) + "\n")
    with pytest.raises(UsageError, match=f"schema version {SCHEMA_VERSION + 1}"):
        load_results(tmp_path)


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
    pd.DataFrame(lines).to_parquet(tmp_path / "old.parquet")
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


def test_an_unknown_column_is_a_mistake():
    with pytest.raises(KeyError, match="valeu"):
        row(valeu=1)


def test_force_deletes_nothing_that_is_not_a_run(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.png").write_text("precious")
    RunFolder(tmp_path, CONFIG, {}, force=True)
    assert (tmp_path / "figures" / "mine.png").read_text() == "precious"
