"""A tox runner for environments that share one virtual environment on disk.

tox recreates a folder that another environment has set up, because it records the environment's name
there. Environments with this runner record a common name instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tox.plugin import impl
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner
from tox.tox_env.register import ToxEnvRegister


class SharedInfo(Info):
    """What tox records about an environment, less the environment's own name."""

    @contextmanager
    def compare(self, value: Any, section: str, sub_section: str | None = None) -> Iterator[tuple[bool, Any]]:
        """Compare as tox does, under a common name."""
        if section == "ToxEnv":
            value = {**value, "name": "shared"}
        with super().compare(value, section, sub_section) as result:
            yield result


class SharedVirtualEnvRunner(VirtualEnvRunner):
    """A virtual environment that several environments may use in turn."""

    @staticmethod
    def id() -> str:
        """Name for ``runner =`` in tox.ini."""
        return "shared-virtualenv"

    @property
    def cache(self) -> Info:
        """The record of the last set-up."""
        return SharedInfo(self.env_dir)


@impl
def tox_register_tox_env(register: ToxEnvRegister) -> None:
    """Make the runner known to tox."""
    register.add_run_env(SharedVirtualEnvRunner)
