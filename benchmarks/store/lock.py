"""One process at a time writes into a run folder."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ...estimators.errors import UsageError

_NAME = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


def hold(folder: Path) -> BaseFileLock | None:
    """Lock a folder for this process, for as long as what this returns is kept.

    The lock is the operating system's (``flock`` where there is one) on the file ``.lock``: it ends with the
    process, however that ends, and the file itself means nothing. This process may hold it several times.
    NFS tells other machines of it (flock(2): Linux since 2.6.12, unless mounted with ``local_lock``), and so
    do other network file systems that pass ``flock`` on. One without locks is used without, after a line
    that says so.

    Returns:
        the lock; None on a file system that has none.

    Raises:
        UsageError: another process holds it.
        OSError: the folder cannot be written.
    """
    lock = FileLock(folder.resolve() / _NAME, timeout=0, thread_local=False, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(
            f"another process is writing to {folder}: wait for it, or choose another folder with -o"
        ) from None
    except NotImplementedError:
        _warn(folder)
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _warn(folder)
        return None
    if isinstance(lock, SoftFileLock):  # what filelock falls back to outlives a killed process
        lock.release(force=True)
        _warn(folder)
        return None
    return lock


def _warn(folder: Path) -> None:
    print(f"{folder}: this file system has no locks: let no other process write there", file=sys.stderr)
