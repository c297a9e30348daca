"""Downloading one file: resumed where it stopped, there under its name only as a whole and with its checksum.

Not by pooch, which verifies too but begins anew after each failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from ....estimators.errors import UsageError
from ....estimators.text import one_line
from .catalogue import Download
from .checksums import checksum_of

#: Told bytes there are, and bytes there will be, None where that is not known.
Progress = Callable[[int, int | None], None]
_BLOCK = 1 << 16
_SECONDS = 30.0  # without a byte
_PARTIAL, _RANGE_NOT_SATISFIABLE = 206, 416


def download(file: Download, path: Path, progress: Progress = lambda done, total: None) -> None:
    """Fetch a file to ``path``, going on with what there is in ``path`` + ".part".

    Args:
        file: where it is, and its checksum.
        path: in a folder that exists.
        progress: called as bytes come.

    Raises:
        UsageError: no server sends the whole of the file, and why; what came stays for the next time.
        OSError: the file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    reasons = []
    for url in file.urls:
        reason = _fetch(url, file, part, progress)
        if not reason:
            part.replace(path)
            return
        reasons.append(f"{url} {reason}")
    raise UsageError(
        f"cannot download {file.file}: {'; '.join(reasons)}. Run the command again to go on, or put the file "
        f"into {path.parent} yourself"
    )


def _fetch(url: str, file: Download, part: Path, progress: Progress) -> str:
    """Why ``part`` is not the whole file with its checksum; "" where it is."""
    resumed = part.exists()
    reason = _transfer(url, file.size, part, progress)
    if reason:
        return reason
    found = checksum_of(part, file.checksum.partition(":")[0])
    if found == file.checksum:
        return ""
    part.unlink()
    if resumed:  # what was there may have been of another file
        return _fetch(url, file, part, progress)
    return f"sends another file, of checksum {found} for {file.checksum}"


def _transfer(url: str, size: int | None, part: Path, progress: Progress) -> str:
    """Bring ``part`` to its end; why that failed, "" where it did not."""
    there = part.stat().st_size if part.exists() else 0
    if size is not None and there >= size:
        return ""  # its checksum tells whether that is it
    headers = {"User-Agent": "elbograd"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=_SECONDS)
    except HTTPError as error:
        error.close()
        ended = error.code == _RANGE_NOT_SATISFIABLE and there
        return "" if ended else f"answers {error.code} {error.reason}"
    except URLError as error:
        return f"cannot be reached ({_why(error.reason)})"
    except (OSError, HTTPException) as error:
        return f"cannot be reached ({_why(error)})"
    with response:
        goes_on = response.status == _PARTIAL and _first_byte(response) == there
        if response.status == _PARTIAL and not goes_on:
            return "sends another part of the file than it was asked for"
        begin = there if goes_on else 0
        length = response.headers.get("Content-Length", "")
        total = begin + int(length) if length.isdecimal() else size
        return _write(response, part, begin, total, progress)


def _write(response: HTTPResponse, part: Path, begin: int, total: int | None, progress: Progress) -> str:
    done, reason = begin, ""
    with part.open("ab" if begin else "wb") as file:
        while True:
            try:
                block = response.read1(_BLOCK)
            except (OSError, HTTPException) as error:
                reason = f" ({_why(error)})"
                break
            if not block:
                break
            file.write(block)
            done += len(block)
            progress(done, total)
        file.flush()
        os.fsync(file.fileno())  # its bytes are on the disk before it gets its name
    if reason or (total is not None and done < total):
        return f"stopped after {done:,} of {'?' if total is None else f'{total:,}'} bytes{reason}"
    return ""


def _first_byte(response: HTTPResponse) -> int | None:
    """Where a part begins, of "bytes 100-199/200"."""
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else None


def _why(reason: object) -> str:
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return one_line(reason) if isinstance(reason, BaseException) else str(reason)
