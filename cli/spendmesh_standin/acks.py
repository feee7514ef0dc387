"""Streams that wait: chunk k+1 leaves only after somebody has acknowledged chunk k."""

from __future__ import annotations

import asyncio


class Gate:
    """Counts what was acknowledged of one stream."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self._changed = asyncio.Event()

    def acknowledge(self, count: int) -> None:
        self.acknowledged += count
        self._changed.set()

    async def wait(self, chunks: int) -> None:
        """Return as soon as this many chunks are acknowledged."""
        while self.acknowledged < chunks:
            self._changed.clear()
            await self._changed.wait()


class Acks:
    """The gates of running streams, by the serial in their ids."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def open(self, serial: str) -> Gate:
        return self._gates.setdefault(serial, Gate())

    def close(self, serial: str) -> None:
        self._gates.pop(serial, None)

    def find(self, identifier: str) -> Gate | None:
        """The gate of a stream, by any id that its answer carries: `req_…`, `chatcmpl-…`, `msg_…`."""
        return self._gates.get(identifier.replace("-", "_").rpartition("_")[2])
