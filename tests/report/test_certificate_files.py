"""What a certification leaves for the estimators' own repositories."""

from __future__ import annotations

import doctest
import json
from xml.etree import ElementTree

import pytest
import tomli_w
from certificates import declared, open_, right, rows_of, wrong
from elbograd.benchmarks.report import certificate_files
from elbograd.benchmarks.report.certificate_files import file_names, write_certificates
from elbograd.benchmarks.report.present import draw

ODD = ["<script>\"&'", "a/b\\c.py:Mine[x=1]", "..", "", "💡", "A-b", "a-B", "n" * 300]


def test_examples_in_docstrings():
    ran = doctest.testmod(certificate_files)
    assert (ran.attempted, ran.failed) == (1, 0)


def test_names_of_files_are_plain_and_all_different():
    names = file_names(ODD)
    assert list(names) == ODD
    assert len({name.lower() for name in names.values()}) == len(ODD)  # some file systems know no capitals
    for name in names.values():
        assert 0 < len(name) < 100
        assert not name.startswith((".", "-"))
        assert all(c.isascii() and (c.isalnum() or c in "-_.=,") for c in name)


def test_every_estimator_has_its_badge_and_its_entry(tmp_path):
    packages = {"elbograd": "0.1.0", "torch": "2.13.0", "numpy": "2"}
    environment = {"command": "elbograd certify", "packages": packages}
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    (tmp_path / "config.toml").write_text(tomli_w.dumps({"certify": {"seed": 3}}))
    made = [right(), wrong("src/wrong.py"), open_(ODD[0]), declared()]
    files = write_certificates(rows_of(*made), tmp_path)
    assert sorted(files) == sorted(
        p for p in tmp_path.rglob("*") if p.is_file() and p.stem not in ("environment", "config")
    )
    written = json.loads(files[0].read_text(encoding="utf-8"))
    assert list(written) == ["schema_version", "versions", "command", "seed", "certificates"]
    assert written["versions"] == {"elbograd": "0.1.0", "torch": "2.13.0"}
    assert (written["seed"], written["command"]) == (3, "elbograd certify")
    for c, entry in zip(made, written["certificates"], strict=True):
        badge = tmp_path / entry.pop("badge")
        assert entry == c.as_json()
        title = ElementTree.fromstring(badge.read_text(encoding="utf-8")).find("{*}title").text
        assert title == f"elbograd: {c.estimator}: {c.verdict}"
        assert json.loads(badge.with_suffix(".json").read_text(encoding="utf-8")) == c.badge.endpoint()
    assert (tmp_path / "badges" / "wrong.svg").exists()


@pytest.mark.parametrize("damage", ["[", "[]", "\x00", 'packages = "x"', '{"packages": "x"}'])
def test_rows_that_have_lost_their_folder_are_written_all_the_same(tmp_path, damage):
    for name in ("environment.json", "config.toml"):
        (tmp_path / name).write_text(damage)
    (written, *_) = write_certificates(rows_of(right()), tmp_path)
    values = json.loads(written.read_text(encoding="utf-8"))
    assert values["seed"] is None
    assert len(values["certificates"]) == 1


def test_they_are_written_with_the_tables_and_only_of_a_certification(tmp_path):
    said = draw(rows_of(right()), tmp_path, formats=[])
    assert f"certificates in {tmp_path / 'certificates.json'}, badges in {tmp_path / 'badges'}" in said
    other = rows_of(right()).assign(benchmark="reproduce")
    assert write_certificates(other, tmp_path / "other") == []
    assert not (tmp_path / "other").exists()
