"""
The sidecar's write-ahead log as a file of the state directory. I/O shell of `core.ledger.journal` and its recovery.

One writer (a lock beside it), appended to, begun anew with a snapshot when it has grown or could not be written. All
that fails here ends in one of two ways: nothing that costs is sent until the file can be written again, or the file
is kept aside and the sidecar goes on under a new nonce, with what the old one held charged in full.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from spendmesh_sidecar.core.ledger.journal import Journal, LedgerUnwritable, NoJournal, Record
from spendmesh_sidecar.core.ledger.journal_frames import MAGIC, encode_frame
from spendmesh_sidecar.core.ledger.recovery import Abandoned, Here, Recovered, recover
from spendmesh_sidecar.state.files import replace_file, sync_and_close, try_lock, write_all
from spendmesh_sidecar.state.group_sync import GroupSync, Sync

LOG = "ledger.log"
ASIDE = "ledger.log.abandoned"
"""The last log that could not be continued, for a person to look at."""
LOCK = "ledger.lock"
LOCK_WAIT_SECONDS = 3.0
"""A container's successor may start while its predecessor is still being reaped."""
RENEW_BYTES = 1 << 20
"""About ten thousand attempts; with its successor beside it far below the 32 MiB of the injected volume."""
GROUP_SECONDS = 0.05
"""How long the ends of attempts are gathered. A kill within it charges them at their worst."""
RETRY_SECONDS = 1.0
"""Between two tries to begin anew a log that could not be written."""

log = logging.getLogger("spendmesh.ledger")

Content = Callable[[], tuple[str, tuple[Record, ...]]]
"""The nonce, and all records that a new file begins with."""


class StateUnusable(ValueError):
    """The state directory cannot be used at all; the message says why and what to do."""


class Log(Journal, Protocol):
    """What the shell needs of a log besides writing to it."""

    @property
    def problem(self) -> str:
        """Why it cannot be written; empty: it can."""

    @property
    def waits(self) -> bool:
        """An attempt has to wait for `durable` before it is sent."""

    async def durable(self) -> None:
        """Return when all that was given before survives what was configured. Raises LedgerUnwritable."""

    def close(self, *, settled: bool) -> None:
        """The end. With all settled nothing is kept: the next start then is a new holder."""


class NoLog(NoJournal):
    """Without a state directory: rights of a killed sidecar stay charged until their period ends."""

    problem = ""
    waits = False

    async def durable(self) -> None:
        """Nothing is kept."""

    def close(self, *, settled: bool) -> None:
        """Nothing is kept."""


class LedgerLog:
    """A log on a disk. `lock`, `recover`, `start`; then the ledger writes to it."""

    def __init__(self, folder: Path, here: Here, *, renew_bytes: int = RENEW_BYTES) -> None:
        self._folder = folder
        self._here = here
        self._renew_bytes = renew_bytes
        self._lock: int | None = None
        self._file: int | None = None
        self._content: Content = lambda: ("", ())
        self._size = self._size_max = 0
        self._buffer: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._retry_at = 0.0
        self._group = GroupSync(self._sync, self._failed) if here.durability == "Node" else None
        self.problem = ""

    @property
    def waits(self) -> bool:
        """With durability Node an attempt waits for the disk."""
        return self._group is not None

    @property
    def syncs(self) -> int:
        """How often the disk was waited for."""
        return self._group.syncs if self._group is not None else 0

    # --- start and end ----------------------------------------------------------------------------------------

    async def lock(self) -> None:
        """Become the only writer. Raises StateUnusable when another process stays it, or for a folder without room."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LOCK_WAIT_SECONDS
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateUnusable(f"state folder {self._folder} cannot be written: {error.strerror}") from error
        while not try_lock(self._lock):
            if loop.time() >= until:
                os.close(self._lock)
                self._lock = None
                raise StateUnusable(
                    f"state folder {self._folder} is in use by another process: stop that one, or give this one a "
                    "folder of its own"
                )
            await asyncio.sleep(0.05)

    def recover(self) -> Recovered | None:
        """What the last process left; None: nothing, or nothing that can be continued (said in the log)."""
        path = self._folder / LOG
        try:
            return _said(recover(path.read_bytes(), self._here))
        except FileNotFoundError:
            return None
        except OSError as error:
            why = error.strerror
        except Abandoned as abandoned:
            why = str(abandoned)
            for name, amount in abandoned.unbooked.items():
                log.error("%d of %s were spent without a lease, by that log, and are in no books", amount, name)
        log.error("%s is not continued: %s. What it held stays charged in full; a copy is kept as %s", LOG, why, ASIDE)
        try:
            path.replace(self._folder / ASIDE)
        except OSError as error:
            log.error("%s could not be kept: %s", ASIDE, error.strerror)
        return None

    def start(self, content: Content) -> None:
        """Begin a file with this content, and from now on each new one. A problem shows in `problem`."""
        self._content = content
        self.begin()

    def close(self, *, settled: bool) -> None:
        """See `Log.close`."""
        if self._timer is not None:
            self._timer.cancel()
        if self._file is not None:
            try:
                if settled:
                    (self._folder / LOG).unlink(missing_ok=True)
                else:
                    self._flush()
                    os.fsync(self._file)
            except (OSError, LedgerUnwritable) as error:
                log.error("%s was not ended well: %s", LOG, error)
            os.close(self._file)
            self._file = None
        if self._group is not None:
            self._group.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- writing ----------------------------------------------------------------------------------------------

    def append(self, record: Record) -> None:
        """See `Journal.append`. While there is a problem nothing is kept: the next file has it all."""
        if self.problem or self._file is None:
            return
        self._buffer.append(encode_frame(record))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GROUP_SECONDS, self._flush_group)

    def hurry(self) -> None:
        """See `Journal.hurry`."""
        try:
            self._flush()
        except LedgerUnwritable:
            pass  # said once; the next file has it all

    def commit(self, record: Record) -> None:
        """See `Journal.commit`: one write, before the attempt's first byte."""
        if self.problem:
            self._retry()
        elif self._size > self._size_max:
            self._renew()
        self._buffer.append(encode_frame(record))
        self._write()

    def begin(self) -> None:
        """See `Journal.begin`."""
        try:
            self._renew()
        except LedgerUnwritable:
            pass  # said once; it is tried again, and until then nothing that costs is sent

    async def durable(self) -> None:
        """See `Log.durable`."""
        self._flush()
        if self._group is not None:
            await self._group.wait()

    def _flush_group(self) -> None:
        self._timer = None
        self.hurry()

    def _flush(self) -> None:
        if self.problem:
            self._retry()
        elif self._buffer:
            self._write()

    def _write(self) -> None:
        """All that is buffered. What is written in part is this file's torn end: the next write begins another one."""
        assert self._file is not None, "start() comes first"
        data = b"".join(self._buffer)
        self._buffer.clear()
        try:
            write_all(self._file, data)
        except OSError as error:
            raise self._failed(error) from error
        self._size += len(data)

    def _renew(self) -> None:
        """A new file with what is so now, in place of the old one in one step. Raises LedgerUnwritable."""
        nonce, records = self._content()
        data = b"".join((MAGIC, encode_frame(self._here.header(nonce)), *map(encode_frame, records)))
        try:
            file = replace_file(self._folder / LOG, data, sync=self.waits)
        except OSError as error:
            raise self._failed(error) from error
        if self._file is not None:
            os.close(self._file)
        self._file, self._size = file, len(data)
        self._size_max = self._renew_bytes + 2 * len(data)
        self._buffer.clear()
        if self.problem:
            log.warning("%s can be written again", LOG)
        self.problem = ""

    def _retry(self) -> None:
        if asyncio.get_running_loop().time() < self._retry_at:
            raise LedgerUnwritable(self.problem)
        self._renew()

    def _failed(self, error: OSError) -> LedgerUnwritable:
        if not self.problem:
            log.error("%s cannot be written, calls that cost are refused: %s", LOG, error.strerror)
        self.problem = f"the sidecar's ledger log cannot be written: {error.strerror}"
        self._buffer.clear()
        self._retry_at = asyncio.get_running_loop().time() + RETRY_SECONDS
        return LedgerUnwritable(self.problem)

    def _sync(self) -> Sync:
        """A duplicate of the file, because this one may be closed for a new one while the disk works."""
        assert self._file is not None
        return partial(sync_and_close, os.dup(self._file))


def _said(recovered: Recovered) -> Recovered:
    if recovered.torn_bytes:
        log.warning("%s ended within a record: %d bytes are cut off", LOG, recovered.torn_bytes)
    if recovered.in_flight:
        log.warning("%d attempts were in flight: they are charged at their worst", len(recovered.in_flight))
    log.info("continuing %d leases from %s", len(recovered.leases), LOG)
    return recovered
