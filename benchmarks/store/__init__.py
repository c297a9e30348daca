"""A run's folder on disk: configuration, environment, rows. Reading it executes nothing.

`lines` is one line of ``rows.jsonl``, `log` the whole file, `table` the ``rows.parquet`` made of it, `lock`
what keeps a second process out, `folder` what a run writes to, `loading` what everybody reads with.
"""

from .folder import CONFIG, ENVIRONMENT, RunFolder, default_folder, finished_cases
from .loading import ROWS, TABLE, load_results
from .log import read_rows, repair

__all__ = [
    "CONFIG",
    "ENVIRONMENT",
    "ROWS",
    "TABLE",
    "RunFolder",
    "default_folder",
    "finished_cases",
    "load_results",
    "read_rows",
    "repair",
]
