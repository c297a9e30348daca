"""The parent's end of worker processes: ask one for a case, and notice when it is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict

from ....estimators.text import clean
from ...cases.base import AnyCase, Output
from ...cases.session import Tell, silent
from .base import Failure, Work, decode

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LAST_WORDS = 20  # lines

Relay = Callable[[str], object]


class Child:
    """A process of this machine that measures one case at a time.

    A process of its own, and not one that is forked or shared, since cases draw from torch's global
    generator, plugins may do anything, and what dies takes one case with it.

    Args:
        work: of the run.
        relay: given each line that the process prints; None to let it print where this one does.
    """

    def __init__(self, work: Work, relay: Relay | None) -> None:
        self._process = subprocess.Popen(
            # -P: a random.py in the user's folder must not stand in for the library's
            [sys.executable, "-P", "-m", f"{__package__}.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if relay is None else subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(work.threads))},
            start_new_session=True,  # an interrupt of the terminal is for the parent
        )
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._listener: threading.Thread | None = None
        if relay is not None:
            self._listener = threading.Thread(target=self._listen, args=(relay,), daemon=True)
            self._listener.start()
        self._send(asdict(work))

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, case: AnyCase, tell: Tell = silent) -> Output | Failure:
        """Have a case measured, and wait for it; ``tell`` hears meanwhile what is being done."""
        assert self._process.stdout is not None
        if self._send(case.as_json()):
            while (line := self._process.stdout.readline()).endswith("\n"):
                values = json.loads(line)
                if "told" not in values:
                    return decode(values)
                tell(*values["told"])
        return Failure("vanished", self._how_it_ended())

    def kill(self) -> None:
        """End the process."""
        self._process.kill()

    def _send(self, values: object) -> bool:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(values) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):  # the pipe is broken, or closed
            return False
        return True

    def _listen(self, relay: Relay) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._last_words.append(line)
            relay(line.rstrip("\n"))

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        if self._listener is not None:
            self._listener.join(timeout=1)
        if status < 0:
            name = signal.Signals(-status).name
            memory = ", as when memory runs out" if -status == signal.SIGKILL else ""
            return f"the worker process was ended by {name}{memory}"
        last = next((said for line in reversed(self._last_words) if (said := clean(line))), "no message")
        return f"the worker process ended with status {status}: {last}"


class ChildPool:
    """As many children as there are threads asking; each is kept for the next case.

    Args:
        work: of the run.
        relay: as for `Child`.
        linger: seconds after which a child that has nothing to do is ended; None for never.
    """

    def __init__(self, work: Work, relay: Relay | None = None, linger: float | None = None) -> None:
        self._work, self._relay, self._linger = work, relay, linger
        self._timers: dict[Child, threading.Timer] = {}
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._closed = False

    def measure(self, case: AnyCase, tell: Tell = silent) -> Output | Failure:
        """Have an idle child measure a case; a new one where there is none. See `Child.ask`."""
        try:
            child = self._take()
        except OSError as error:  # no memory for another process
            return Failure("vanished", f"a worker process cannot be started: {error.strerror}")
        outcome = child.ask(case, tell)
        with self._lock:
            if child.alive and not self._closed:
                self._rest(child)
            else:
                self._all.discard(child)
        return outcome

    def close(self) -> None:
        """End all children; cases under way come back as failures."""
        with self._lock:
            self._closed = True
            for timer in self._timers.values():
                timer.cancel()
            for child in self._all:
                child.kill()

    def _take(self) -> Child:
        with self._lock:
            while self._idle:
                child = self._idle.pop()
                if timer := self._timers.pop(child, None):
                    timer.cancel()
                if child.alive:
                    return child
                self._all.discard(child)
            child = Child(self._work, self._relay)
            self._all.add(child)
            if self._closed:
                child.kill()
            return child

    def _rest(self, child: Child) -> None:
        self._idle.append(child)
        if self._linger is not None:
            timer = self._timers[child] = threading.Timer(self._linger, self._retire, (child,))
            timer.daemon = True
            timer.start()

    def _retire(self, child: Child) -> None:
        """End a child that is still idle."""
        with self._lock:
            if child in self._idle and self._timers.get(child) is threading.current_thread():
                del self._timers[child]
                self._idle.remove(child)
                self._all.discard(child)
                child.kill()
