"""Steps on files of the state directory whose order and flags matter: locking, replacing, syncing. No decisions."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def try_lock(lock: int) -> bool:
    """Take an open file for this process, until it is closed or the process ends. False: another one has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def replace_file(path: Path, data: bytes, *, sync: bool) -> int:
    """
    A file with this content in place of the one that is there, in one step, open for more.

    `sync`: on the disk when this returns. Raises OSError, and then the old file stays.
    """
    new = path.with_name(f"{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    file = os.open(new, flags, 0o600)
    try:
        write_all(file, data)
        if sync:
            os.fsync(file)
        new.replace(path)
        if sync:
            _sync_folder(path.parent)
    except OSError:
        os.close(file)
        new.unlink(missing_ok=True)
        raise
    return file


def write_all(file: int, data: bytes) -> None:
    """Write all of it; a short write is followed by the error that made it short. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def sync_and_close(file: int) -> None:
    """Put what was written on the disk. Raises OSError."""
    try:
        os.fdatasync(file)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
