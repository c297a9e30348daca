"""How far a run is: a display that fits any terminal and that nothing tears, plain lines elsewhere."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys

import pytest
from elbograd.benchmarks.cases.base import Case
from elbograd.benchmarks.cases.throughput import Throughput, ThroughputSettings
from elbograd.benchmarks.rows.durations import duration
from elbograd.benchmarks.running import remaining
from elbograd.benchmarks.running.progress import Display, RunProgress
from elbograd.benchmarks.running.remaining import Remaining
from elbograd.estimators.text import one_line
from rich.console import Console

QUIET = 0.1  # seconds without output: what is on the screen is whole then
NOISY = """
import time, warnings
from elbograd.estimators import Estimate, Estimator
class Noisy(Estimator):
    derivatives = 1
    calls = 0
    def forward(self, q, target, num_samples):
        Noisy.calls += 1
        if Noisy.calls in (2, 4):
            warnings.warn(f"mind the gap {Noisy.calls}")
            print("printed in between", flush=True)
            time.sleep(1)
        v = target.log_likelihood(q.rsample((num_samples,))).mean(0)
        return Estimate(v, v)
"""


def cases(number, **values):
    given = {"problem": "quadratic", "estimator": "score-function", "num_samples": 2, **values}
    rest = {"batch_size": None, "device": "cpu", "dtype": "float32", "settings": ThroughputSettings("eager")}
    return [Case(Throughput, **given, **rest, seed=k) for k in range(number)]


# On a terminal


def on_terminal(command, columns, environment):
    """Run a command in a pseudo-terminal: (what the screen showed whenever it was quiet, its history, status)."""
    pty = pytest.importorskip("pty", reason="needs a Unix terminal")
    pyte = pytest.importorskip("pyte", reason="pyte is not installed")
    import fcntl
    import struct
    import termios

    screen = pyte.HistoryScreen(columns, 24, history=1000)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "COLUMNS", "LINES")}
    kept |= {"TERM": "xterm-256color", **environment}
    shown, raw = [], b""
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=kept) as process:
        os.close(slave)
        while True:
            if not select.select([master], [], [], QUIET)[0]:
                shown.append([line.rstrip() for line in screen.display])
                select.select([master], [], [])
            try:
                part = os.read(master, 65536)
            except OSError:
                break
            if not part:
                break
            raw += part
            stream.feed(part)
    os.close(master)
    past = ["".join(line[k].data for k in range(columns)).rstrip() for line in screen.history.top]
    return shown, past + [line.rstrip() for line in screen.display], raw, process.returncode


def command(tmp_path, *arguments):
    (tmp_path / "noisy.py").write_text(NOISY)
    code = (
        "import elbograd.benchmarks.plots as p; p.draw_all = lambda *_: []\n"
        "from elbograd.benchmarks.cli.main import main; main()"
    )
    run = [
        "variance",
        "-p",
        "quadratic",
        "-r",
        "20",
        "-e",
        "score-function",
        "-e",
        str(tmp_path / "noisy.py"),
    ]
    return [sys.executable, "-c", code, *run, "-s", "2", "-o", str(tmp_path / "run"), *arguments]


@pytest.mark.parametrize(("columns", "arguments"), [(80, []), (40, ["-j", "2"])])
def test_the_display_fits_and_is_not_torn(tmp_path, columns, arguments):
    shown, history, _, code = on_terminal(command(tmp_path, *arguments), columns, {})
    assert code == 0
    live = [screen for screen in shown if any("/2 done" in line for line in screen)]
    assert live
    for screen in live:
        at = [k for k, line in enumerate(screen) if re.match(r"\d/2 done", line)]
        assert len(at) == 1, screen  # one display, not the remains of several
        assert "━" in screen[at[0] - 1]
        assert sum("━" in line for line in screen) == 1
        assert len(screen[at[0]]) <= columns
    assert any("  noisy.py, S=2, quadratic at step 0" in screen for screen in live)
    assert any(re.search(r"about \d+ s left", line) for screen in live for line in screen)
    text = "".join(history)  # as the terminal wraps, so can warnings be put together again
    for said in ("mind the gap 2", "mind the gap 4", "printed in between"):
        assert said in text
    assert "/2 done" not in text
    assert "[1/2]" not in text


class Terminal:
    """A standard error that is a terminal."""

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text
        return len(text)

    def flush(self):
        pass


@pytest.mark.parametrize(
    ("environment", "live"),
    [({}, True), ({"CI": "1"}, False), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_live_on_a_terminal_alone(monkeypatch, environment, live):
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    (one,) = cases(1)
    with RunProgress([one], 1, lambda: []) as shown:
        shown.finish(one, "variance 2", failed=False)
    assert ("\x1b" in terminal.text) == live
    assert ("[1/1] score-function, S=2, quadratic: variance 2 (0 s)\n" in terminal.text) != live


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_every_line_fits(columns):
    todo = cases(30, estimator="leave-one-out[a_very_long_parameter=0.12345,another=1]")
    shown = RunProgress(todo, 123, lambda: todo[:7])
    shown.failed = 12
    shown._remaining.seconds = lambda: 7384.0
    console = Console(width=columns, height=24)
    with console.capture() as capture:
        console.print(Display(shown, console))
    lines = capture.get().splitlines()
    assert all(len(line) <= columns for line in lines)
    counts = [line for line in lines[1:] if not line.startswith("  ")]
    assert " · ".join(counts) == "93/123 done · 12 failed · 7 running · about 2.1 h left"
    assert len(counts) == (1 if columns >= 80 else 2 if columns == 40 else 4)
    assert lines[-1] == "  and 3 more"
    assert len(lines) == 1 + len(counts) + 5


def test_of_each_case_being_measured_what_is_done_is_told():
    todo = cases(3)
    shown = RunProgress(todo, 4, lambda: todo[:2])
    shown.tell(todo[0], "training", 0.25)
    shown.tell(todo[1], "tuning", 0.5)
    assert shown.completed == 1.75
    doing = [text.plain for text in shown.lines(80, 24)][1:]
    assert doing == ["  training", "  tuning"]
    shown.finish(todo[0], "variance 2", failed=False)
    shown.again(todo[1], "it vanished", 1)
    assert shown.completed == 2


def test_plain_lines_where_there_is_no_terminal(capsys):
    todo = cases(2)
    with RunProgress(todo, 3, lambda: []) as shown:
        shown.again(todo[0], "it vanished", 1)
        shown.finish(todo[0], "failed: it vanished", failed=True)
        shown.finish(todo[1], "variance 2", failed=False)
    title = "score-function, S=2, quadratic"
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{title}: it vanished; trying again (1)"
    assert lines[1] == f"[2/3] {title}: failed: it vanished"
    assert re.fullmatch(re.escape(f"[3/3] {title}: variance 2 (") + r"\d+ s\)", lines[2])


def test_names_and_reasons_move_no_cursor(capsys):
    (one,) = cases(1, estimator="a\nb\x1bc.py")
    reason = one_line(ValueError("\x1b]0;title\x07boom"))
    with RunProgress([one], 1, lambda: []) as shown:
        shown.finish(one, f"failed: {reason}", failed=True)
    assert capsys.readouterr().err == "[1/1] a b c.py, S=2, quadratic: failed: ]0;title boom\n"


# Time left


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(remaining.time, "monotonic", lambda: now[0])
    return now


def test_time_left_of_one_case_after_another(clock):
    todo = cases(4)
    left = Remaining(todo)
    left.look(todo[:1])
    clock[0] = 5.0
    assert left.seconds() is None
    clock[0] = 10.0
    left.finish(todo[0])
    left.look(todo[1:2])
    assert left.seconds() == pytest.approx(30)
    clock[0] = 14.0
    assert left.seconds() == pytest.approx(26)


def test_time_left_of_cases_side_by_side_is_that_much_shorter(clock):
    todo = cases(6)
    left = Remaining(todo)
    left.look(todo[:2])
    clock[0] = 10.0
    for case in todo[:2]:
        left.finish(case)
    left.look(todo[2:4])
    assert left.seconds() == pytest.approx(20)


def test_time_left_goes_by_the_cases_most_alike(clock):
    quick, slow = cases(2), cases(3, estimator="optimal-baseline")
    left = Remaining([*quick, *slow])
    clock[0] = 1.0
    left.finish(quick[0])
    assert left.seconds() == pytest.approx(4)  # nothing else is known
    clock[0] = 31.0
    left.finish(slow[0])
    assert left.seconds() == pytest.approx(1 + 2 * 30)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (59, "59 s"), (60, "1 min"), (3599, "60 min"), (5400, "1.5 h"), (200_000, "2.3 days")],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words
