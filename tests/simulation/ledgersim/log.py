"""
A sidecar's write-ahead log in memory: what was written survives a kill, what only waited to be written does not; and of
that the loss of the node's power leaves what was synced, and perhaps a part of the rest.

Records become the product's own bytes, and are read back by its own recovery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from ledgersim.loop import ProcessLoop
from spendmesh_sidecar.core.ledger.journal import Record
from spendmesh_sidecar.core.ledger.journal_frames import MAGIC, encode_frame
from spendmesh_sidecar.core.ledger.recovery import Here

GROUP_SECONDS = 0.05
"""Longer than the product waits: more is lost."""
SYNC_SECONDS = 0.01


class SimLog:
    """A `Journal`, and the `Log` of `Leases`."""

    problem = ""
    syncs = 0

    def __init__(self, process: ProcessLoop, here: Here) -> None:
        self.waits = here.durability == "Node"
        self.written = b""
        self.synced = b""
        self._process, self._here = process, here
        self._content: Callable[[], tuple[str, tuple[Record, ...]]] = lambda: ("", ())
        self._buffer: list[bytes] = []

    def start(self, content: Callable[[], tuple[str, tuple[Record, ...]]]) -> None:
        """Begin with what is so now."""
        self._content = content
        self.begin()

    def append(self, record: Record) -> None:
        """Written a moment later."""
        if not self._buffer:
            self._process.call_later(GROUP_SECONDS, self.hurry)
        self._buffer.append(encode_frame(record))

    def hurry(self) -> None:
        """Written now."""
        self.written += b"".join(self._buffer)
        self._buffer.clear()

    def commit(self, record: Record) -> None:
        """This and all before it."""
        self._buffer.append(encode_frame(record))
        self.hurry()

    def begin(self) -> None:
        """A new file in place of the old one."""
        nonce, records = self._content()
        self.written = b"".join((MAGIC, encode_frame(self._here.header(nonce)), *map(encode_frame, records)))
        if self.waits:
            self.synced = self.written
        self._buffer.clear()

    async def durable(self) -> None:
        """What was appended is written, and with durability Node on the disk."""
        self.hurry()
        if self.waits:
            data = self.written
            await asyncio.sleep(SYNC_SECONDS)
            if self.written.startswith(data) and len(data) > len(self.synced):  # else another file was begun
                self.synced = data

    def after_power_loss(self, rng: Random) -> bytes:
        """What is found at the next boot: of what was not synced some, or something else."""
        rest = self.written[len(self.synced) :]
        kept = rest[: rng.randint(0, len(rest))]
        return self.synced + (rng.randbytes(len(kept)) if rng.random() < 0.2 else kept)

    def close(self, *, settled: bool) -> None:
        """Nothing is held open."""
