"""What runs inside a Dask worker: cases in processes beside it, as on any other machine."""

from __future__ import annotations

import threading
from typing import Any

from ...cases.base import AnyCase
from ...store.environment import version_of
from .base import Work, encode
from .child import ChildPool

LINGER = 60.0  # seconds that an idle process is kept: a run that was killed never says that it is over
_pools: dict[str, ChildPool] = {}
_lock = threading.Lock()


def measure_there(token: str, work: Work, case: AnyCase) -> dict[str, Any]:
    """Measure a case in a process of its own: a Dask worker may have several threads, and live for weeks.

    Args:
        token: of the run, for `stop_there`.
        work: of the run.
        case: to measure.
    """
    with _lock:
        pool = _pools.setdefault(token, ChildPool(work, linger=LINGER))
    return encode(pool.measure(case))


def stop_there(token: str) -> None:
    """End this run's processes."""
    with _lock:
        pool = _pools.pop(token, None)
    if pool is not None:
        pool.close()


def versions_there() -> dict[str, str | None]:
    """What must be the same everywhere for the same numbers."""
    return {name: version_of(name) for name in ("elbograd", "torch")}
