"""One line of rows.jsonl: a row, its place in its case, and a checksum over both.

A line is the JSON object of the row's columns, then ``row`` and ``rows`` (this is the third of 17) and last
``crc32``, of all bytes of the line before it. A case is finished when all its lines are there.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..rows.migration import migrate
from ..rows.schema import SCHEMA_VERSION, checked

_SEAL = re.compile(rb', "crc32": "([0-9a-f]{8})"\}\Z')
UNSEALED = (1, 2)  # schema versions whose lines had neither place nor checksum


class NewerVersion(Exception):
    """Rows of a schema version that this elbograd does not know."""

    def __init__(self, version: int) -> None:
        super().__init__(f"schema version {version}, this elbograd reads up to {SCHEMA_VERSION}: update it")


class Line(NamedTuple):
    """What a line says: a row, and that it is number ``row`` of ``rows`` of its case; 0 of 0 without seal."""

    values: dict[str, Any]
    row: int
    rows: int


def sealed(rows: Sequence[dict[str, Any]]) -> bytes:
    """The lines of one case.

    Raises:
        ValueError: what is not a row, which is the caller's mistake.
    """
    written = [_sealed({**checked(r), "row": k, "rows": len(rows)}) for k, r in enumerate(rows, 1)]
    return b"".join(written)


def parse(line: bytes) -> Line:
    """What a line says, or why it cannot be believed.

    Raises:
        ValueError: the line is damaged; says how.
        NewerVersion: it was written by a newer elbograd.
    """
    seal = _SEAL.search(line)
    if seal is not None and zlib.crc32(line[: seal.start()]) != int(seal[1], 16):
        raise ValueError("its checksum does not match")
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if type(version) is not int:
        raise ValueError("it is not a row")
    if version > SCHEMA_VERSION:
        raise NewerVersion(version)
    if version in UNSEALED:
        return Line(checked(migrate(values)), 0, 0)
    if seal is None:
        raise ValueError("it has no checksum")
    row, rows = values.pop("row", None), values.pop("rows", None)
    values.pop("crc32")
    if type(row) is not int or type(rows) is not int or not 1 <= row <= rows:
        raise ValueError("it has no place in its case")
    return Line(checked(migrate(values)), row, rows)


def _sealed(values: dict[str, Any]) -> bytes:
    body = json.dumps(values)[:-1].encode()
    return body + b', "crc32": "%08x"}\n' % zlib.crc32(body)
