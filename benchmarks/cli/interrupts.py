"""Being asked to end is an interrupt: what is under way is stopped, and the terminal left as it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ASKED = ("SIGTERM", "SIGHUP")  # the end of a job's time, a terminal that is closed; Windows has no SIGHUP


@contextmanager
def ending_interrupts() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP raise KeyboardInterrupt, unless they are ignored, as under ``nohup``."""
    numbers = [getattr(signal, name) for name in _ASKED if hasattr(signal, name)]
    here = threading.current_thread() is threading.main_thread()  # no other may say what signals do
    ours = [number for number in numbers if here and signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
