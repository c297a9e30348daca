"""Killed runs go on and end as if nobody had killed them; 50 kills are ``tox -e kills``, here are a few."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs Unix")
def test_killed_runs_end_as_undisturbed_ones():
    kills = Path(__file__).parent / "kills.py"
    command = [sys.executable, str(kills), "--kills", "3", "1", "--jobs", "1", "2", "--figures", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("4 kills: nothing lost, doubled or changed\n")
