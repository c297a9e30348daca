"""rows.parquet: the rows as a table, with a checksum over them in its metadata."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..rows.migration import FINGERPRINTS, migrate
from ..rows.schema import COLUMNS, SCHEMA_VERSION, checked
from .atomic import replacing
from .lines import UNSEALED, NewerVersion

_CHECKSUM = b"elbograd.sha256"
_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}
_OF_VERSION_3 = [name for name in COLUMNS if name not in FINGERPRINTS]
_OF_VERSION_1 = [name for name in _OF_VERSION_3 if name != "objective"]
_SCHEMA = pa.schema([(name, _TYPES[kind]) for name, (kind, _, _) in COLUMNS.items()])


def write_table(rows: list[dict[str, Any]], file: Path) -> None:
    """Write rows to a parquet file, whole or not at all."""
    table = pa.Table.from_pylist(rows, schema=_SCHEMA)
    table = table.replace_schema_metadata({_CHECKSUM: _checksum(rows), b"pandas": _pandas_types()})
    with replacing(file) as unfinished:
        pq.write_table(table, unfinished)


def read_table(file: Path) -> list[dict[str, Any]]:
    """The rows of a parquet file of this schema version or an earlier one.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no table of rows, or does not say what was written.
        NewerVersion: a newer elbograd wrote it.
    """
    table = _read(file)
    stored = table.to_pylist()
    checksum = (table.schema.metadata or {}).get(_CHECKSUM)
    if checksum is not None and checksum != _checksum(stored):
        raise ValueError("its checksum does not match")
    versions = {r["schema_version"] for r in stored} - {None}
    if versions and max(versions) > SCHEMA_VERSION:
        raise NewerVersion(max(versions))
    if checksum is None and versions - set(UNSEALED):
        raise ValueError("it has no checksum")
    return [checked(migrate(r)) for r in stored]


def _read(file: Path) -> pa.Table:
    try:
        with pq.ParquetFile(file) as opened:
            _check_columns(opened.schema_arrow)  # before anything of another type is even decoded
            return opened.read(use_threads=False)
    except (pa.ArrowException, MemoryError, RecursionError, KeyError, TypeError) as error:
        raise ValueError(f"it is not a parquet file ({type(error).__name__})") from error


def _check_columns(schema: pa.Schema) -> None:
    if schema.names not in (list(COLUMNS), _OF_VERSION_3, _OF_VERSION_1):
        version = "; a newer elbograd may have written it" if set(schema.names) > set(COLUMNS) else ""
        raise ValueError(f"its columns are not those of rows{version}")
    for entry in schema:
        kind = COLUMNS[entry.name][0]
        if entry.type not in (_TYPES[kind], *((pa.large_string(),) if kind is str else ())):
            raise ValueError(f"its column {entry.name} is of another type")


def _checksum(rows: list[dict[str, Any]]) -> bytes:
    digest = hashlib.sha256()
    for r in rows:
        digest.update(json.dumps(list(r.values())).encode() + b"\n")
    return digest.hexdigest().encode()


def _pandas_types() -> bytes:
    """What makes ``pandas.read_parquet`` keep whole numbers whole where some are missing."""
    columns = [
        {"name": name, "field_name": name, "pandas_type": "int64", "numpy_type": "Int64", "metadata": None}
        for name, (kind, _, _) in COLUMNS.items()
        if kind is int
    ]
    return json.dumps({"index_columns": [], "column_indexes": [], "columns": columns}).encode()
