"""Where a run was made: versions, machine, commit, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("elbograd", "torch", "numpy", "scipy", "pandas", "seaborn", "scikit-learn", "pytest-benchmark")


def describe_environment(device: str) -> dict[str, Any]:
    """What a reader needs to judge or repeat a run, as JSON-ready values."""
    import torch

    described: dict[str, Any] = {
        "command": shlex.join([*_program(), *sys.argv[1:]]),
        "commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: version_of(name) for name in _PACKAGES},
    }
    if device.startswith("cuda"):
        described |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return described


def _program() -> list[str]:
    """``elbograd``, or ``python -m`` and the module that was run."""
    module = getattr(sys.modules.get("__main__"), "__spec__", None)
    if module is None or not module.name.startswith("elbograd.benchmarks"):
        return ["elbograd"]
    return ["python", "-m", module.name.removesuffix(".__main__")]


def version_of(package: str) -> str | None:
    """The version that is installed, if any."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout this code runs from, if it is one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
