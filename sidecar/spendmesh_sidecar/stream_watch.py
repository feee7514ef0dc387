"""Ends an attempt whose stream does not begin, or falls silent: timers beside its time limit, none for each chunk."""

from __future__ import annotations

import asyncio

from spendmesh_sidecar.time_limit import TimeLimit


class StreamWatch:
    """Watches one stream. `heard` at every chunk; `close` in the end, whatever happened."""

    __slots__ = ("_heard_at", "_idle_seconds", "_limit", "_loop", "_timer")

    def __init__(self, limit: TimeLimit, first_byte_seconds: float, idle_seconds: float) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._idle_seconds = idle_seconds
        self._heard_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if first_byte_seconds:
            self._timer = self._loop.call_later(first_byte_seconds, self._end)

    def heard(self) -> None:
        """A chunk came."""
        if self._heard_at is None:
            self.close()
            if self._idle_seconds:
                self._timer = self._loop.call_later(self._idle_seconds, self._look)
        self._heard_at = self._loop.time()

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """One timer for all chunks: it comes back for what is left since the last one."""
        assert self._heard_at is not None
        left = self._heard_at + self._idle_seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._end()

    def _end(self) -> None:
        self._timer = None
        self._limit.end()


def stream_watch(limit: TimeLimit, first_byte_seconds: float, idle_seconds: float) -> StreamWatch | None:
    """A watch, where there is something to watch for; durations of 0 are no limit."""
    return StreamWatch(limit, first_byte_seconds, idle_seconds) if first_byte_seconds or idle_seconds else None
