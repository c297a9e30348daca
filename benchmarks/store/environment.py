"""Where a run was made: versions, machine, commit, command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from functools import cache
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


@cache
def _cpu() -> str:
    """The processor's name, told as pytest-benchmark tells it; asked once, for that starts processes."""
    try:
        from cpuinfo import get_cpu_info

        name: str = get_cpu_info().get("brand_raw", "")
    except Exception:  # on a processor it does not know it raises just that
        name = ""
    return name or platform.processor()
