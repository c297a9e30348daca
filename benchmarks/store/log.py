"""A whole rows.jsonl: the cases that are finished, and what is wrong with the rest of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...estimators.errors import UsageError
from .atomic import write_atomically
from .lines import Line, NewerVersion, parse, sealed

_BEGIN = b'{"schema_version": '
DAMAGED = "rows.damaged.jsonl"
NOT_WHOLE = "rows of its case are missing"


@dataclass
class Log:
    """What a rows.jsonl says.

    Attributes:
        cases: identifier -> rows of the finished cases, in the order of the file; of a case that is there
            twice the later rows.
        torn: it ends within a case, as a killed process leaves it.
        damaged: lines that cannot be believed: number -> (bytes, why).
        text: identifier -> the lines of the case as they stand in the file.
        outdated: it holds lines of an earlier schema version, which have no checksums.
    """

    cases: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    torn: bool = False
    damaged: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    text: dict[str, bytes] = field(default_factory=dict)
    outdated: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of all finished cases."""
        return [r for rows in self.cases.values() for r in rows]

    def written(self, order: Iterable[str]) -> bytes:
        """The file that holds these cases, and nothing else."""
        return b"".join(self.text[case] for case in order)


def read_log(file: Path) -> Log:
    """Read a rows.jsonl; an empty log where there is none.

    Raises:
        OSError: it cannot be read.
        UsageError: a newer elbograd wrote it, or it is not a file.
    """
    try:
        return _read(content_of(file) or b"")
    except NewerVersion as error:
        raise UsageError(f"{file} has {error}") from None


def content_of(file: Path) -> bytes | None:
    """A file's bytes; None where there is none.

    Raises:
        OSError: it cannot be read.
        UsageError: it is a folder or a device, which might never end.
    """
    if not file.exists():
        return None
    if not file.is_file():
        raise UsageError(f"{file} is not a file")
    return file.read_bytes()


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of all finished cases of a rows.jsonl; none where there is no file."""
    return read_log(file).rows


def repair(file: Path) -> Log:
    """Leave only finished cases in a rows.jsonl, in today's form; what there was before.

    Damaged lines, which a kill does not leave, are kept in a file beside it.
    """
    log = read_log(file)
    if log.damaged:
        kept = file.with_name(DAMAGED)
        earlier = content_of(kept) or b""
        write_atomically(kept, earlier + b"".join(line + b"\n" for line, _ in log.damaged.values()))
    if log.torn or log.damaged or log.outdated:
        write_atomically(file, log.written(log.cases))
    return log


def _read(data: bytes) -> Log:
    *lines, unended = data.split(b"\n")
    log, unfinished = Log(), _Unfinished()
    for number, line_there in enumerate(lines, 1):
        text = line_there.removesuffix(b"\r")  # a checkout on Windows may have put it there
        try:
            line = parse(text)
        except ValueError as error:
            unfinished.give_up(log)
            log.damaged[number] = (text, str(error))
            continue
        if line.rows == 0:
            unfinished.give_up(log)
            log.outdated = True
            log.cases.setdefault(line.values["case"], []).append(line.values)
        else:
            unfinished.add(number, text, line, log)
    if _is_sealed(unended[:-1]) or not unended.startswith(_BEGIN[: len(unended)]):
        # Not the beginning of a line, which is all that a kill leaves.
        unfinished.give_up(log)
        log.damaged[len(lines) + 1] = (unended, "it is no line")
        unended = b""
    log.torn = bool(unended or unfinished.lines)
    if log.outdated:
        _reseal(log, torn=bool(unended))
    return log


def _is_sealed(text: bytes) -> bool:
    try:
        return parse(text).rows > 0
    except (ValueError, NewerVersion):
        return False


def _reseal(log: Log, torn: bool) -> None:
    """Give lines of versions 1 and 2 what lines have now; of a torn file the last case may lack rows."""
    if torn and log.cases:
        log.cases.popitem()
    for case, rows in log.cases.items():
        log.text[case] = sealed(rows)


class _Unfinished:
    """The case whose lines are being read."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, bytes, Line]] = []

    def add(self, number: int, text: bytes, line: Line, log: Log) -> None:
        """The next line; the case's last one moves it to the log."""
        if self.lines and not self._goes_on(line):
            self.give_up(log)
        if not self.lines and line.row != 1:
            log.damaged[number] = (text, NOT_WHOLE)
            return
        self.lines.append((number, text, line))
        if line.row == line.rows:
            case = line.values["case"]
            log.cases.pop(case, None)
            log.cases[case] = [line.values for _, _, line in self.lines]
            log.text[case] = b"".join(text + b"\n" for _, text, _ in self.lines)
            self.lines = []

    def give_up(self, log: Log) -> None:
        """Something else follows in the middle of the case."""
        log.damaged |= {number: (text, NOT_WHOLE) for number, text, _ in self.lines}
        self.lines = []

    def _goes_on(self, line: Line) -> bool:
        last = self.lines[-1][2]
        same = (line.values["case"], line.rows) == (last.values["case"], last.rows)
        return same and line.row == last.row + 1
