"""Locks that the system frees when a process dies. Standard library only.

    in_use(file, ...)   a lock file, which says who works in its folder, for how long it takes
    alone(folder, ...)  the folder itself, for a moment

They are two locks: who holds the first can wait for the second. Systems and disks that know no such
locks go on without.
"""

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mainspring.errors import BadData, BadOption

try:
    import fcntl
except ImportError:  # a system without
    fcntl = None  # type: ignore[assignment]

UNABLE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what disks say that know no locks


@contextmanager
def in_use(
    file: Path, doing: str, otherwise: str, *, shared: bool = False, passing: bool = False
) -> Iterator[None]:
    """Holds the lock `file` of its folder; others are told what the process is `doing`. BadOption
    where another process holds it, with what to do `otherwise`.

    Those who hold it `shared` do not keep each other out. A `passing` lock file goes with the lock.
    """
    with _locked(file, otherwise, shared) as stream:
        if stream.writable():
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            stream.truncate(0)
            stream.write(json.dumps({"process": os.getpid(), "doing": doing, "since": now}) + "\n")
            stream.flush()
        try:
            yield
        finally:
            if passing:
                with suppress(OSError):
                    file.unlink()  # while it is ours: who has it open already sees that it is gone


@contextmanager
def alone(folder: Path, wait: bool) -> Iterator[bool]:
    """Holds the lock on a folder, or not: whether it does."""
    if fcntl is None:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield _taken(handle, wait=wait)
    finally:
        os.close(handle)  # and with it the lock


def _taken(handle: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Locks an open file; False where another process has it."""
    if fcntl is None:
        return True
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, kind | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNABLE:
            raise
    return True


def _locked(file: Path, otherwise: str, shared: bool) -> IO[str]:
    """The lock file, open and locked."""
    while True:
        stream = _opened(file, shared)
        if not _taken(stream.fileno(), shared=shared):
            with stream:
                raise BadOption(f"{file.parent} is in use: {_holder(stream)}; {otherwise}")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(stream.fileno()), file.stat()):
                return stream
        stream.close()  # whoever had it took it away just now


def _opened(file: Path, shared: bool) -> IO[str]:
    """The file to lock; who shares it need not be able to write it."""
    try:
        return file.open("a+", encoding="utf-8")
    except OSError as error:
        if not shared or not file.exists():
            raise BadData(f"cannot be written ({error.strerror})", file=file) from error
        return file.open(encoding="utf-8")


def _holder(stream: IO[str]) -> str:
    """Who holds the lock, as far as it says so."""
    stream.seek(0)
    try:
        who = json.loads(stream.readline())
        return f"process {who['process']} is {who['doing']} (since {who['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process has it open"
