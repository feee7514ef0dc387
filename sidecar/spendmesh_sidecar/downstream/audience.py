"""
Everybody who hears the answer of one call: its own client, and those who joined it while it ran or read it afterwards.

Who may join what is `core.joins.joining`'s to decide. The original's own client gets its answer as if it were alone;
who joins reads from the first byte what has passed, at its own speed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from spendmesh_sidecar.core.joins.joining import Joins
from spendmesh_sidecar.core.joins.originals import Original, Reader
from spendmesh_sidecar.downstream.client import Downstream
from spendmesh_sidecar.errors import ClientGone

Headers = Sequence[tuple[str, str]]
Relabel = Callable[[Headers], list[tuple[str, str]]]
"""The original's headers, as the one who joined gets them."""


class Audience:
    """`Downstream` of a call that others may join: somebody is there as long as one of them is."""

    records = True
    """See `Downstream.records`."""

    def __init__(self, client: Downstream, joins: Joins, original: Original) -> None:
        self._client = client
        self._joins = joins
        self._original = original
        self._on_gone: Callable[[], None] | None = None
        self._on_back: Callable[[], None] | None = None
        original.joined, original.deserted = self._joined, self._deserted
        client.when_gone(self._left)

    @property
    def gone(self) -> bool:
        """See `Downstream.gone`."""
        return self._client.gone and not self._original.readers

    def when_gone(self, callback: Callable[[], None] | None, back: Callable[[], None] | None = None) -> None:
        """See `Downstream.when_gone`."""
        self._on_gone, self._on_back = callback, back
        if callback is not None and self.gone:
            callback()

    async def start(self, status: int, headers: Headers) -> None:
        """See `Downstream.start`; raises nothing, as `write`."""
        self._joins.start(self._original, status, headers)
        if not self._client.gone:
            try:
                await self._client.start(status, headers)
            except ClientGone:
                self._left()

    async def write(self, chunk: bytes) -> None:
        """See `Downstream.write`; raises nothing, because somebody may join yet."""
        self._joins.write(self._original, chunk)
        if not self._original.left:
            try:
                await self._client.write(chunk)
            except ClientGone:
                self._left()

    async def finish(self, complete: bool) -> None:
        """See `Downstream.finish`."""
        self._joins.finish(self._original, complete)
        if not self._client.gone:
            await self._client.finish(complete)
            if complete and not self._client.gone:
                self._joins.has(self._original)

    async def send(self, status: int, headers: Headers, body: bytes) -> None:
        """See `Downstream.send`."""
        self._joins.send(self._original, status, headers, body)
        try:
            await self._client.send(status, headers, body)
        except ClientGone:
            self._left()
            if not self._original.readers:
                raise
        else:
            self._joins.has(self._original)

    def _left(self) -> None:
        """The original's own client is gone."""
        self._original.left = True
        if self._on_gone is not None and self.gone:
            self._on_gone()

    def _joined(self) -> None:
        if self._original.left and self._on_back is not None:
            self._on_back()

    def _deserted(self) -> None:
        if self._on_gone is not None and self.gone:
            self._on_gone()


async def follow(client: Downstream, joins: Joins, original: Original, relabel: Relabel) -> int | None:
    """
    Give a client the answer of another call; its status. None: that call was given up before it had one, and nothing
    was sent. Raises ClientGone.
    """
    more = asyncio.Event()
    reader = Reader(more.set)
    joins.join(original, reader)
    client.when_gone(more.set)
    got = False
    try:
        while not original.started and original.running:
            await _next(more, client)
        if not original.started:
            return None
        if not original.streamed:
            await client.send(original.status, relabel(original.headers), joins.take(original, reader))
        else:
            await _stream(client, joins, original, reader, relabel, more)
        got = original.whole and not reader.cut
        return original.status
    finally:
        client.when_gone(None)
        joins.leave(original, reader, got=got)


async def _stream(
    client: Downstream, joins: Joins, original: Original, reader: Reader, relabel: Relabel, more: asyncio.Event
) -> None:
    await client.start(original.status, relabel(original.headers))
    while not reader.cut:
        if data := joins.take(original, reader):
            await client.write(data)
        elif original.answered or not original.running:
            break
        else:
            await _next(more, client)
    await client.finish(original.whole and not reader.cut)


async def _next(more: asyncio.Event, client: Downstream) -> None:
    if client.gone:
        raise ClientGone
    await more.wait()
    more.clear()
    if client.gone:
        raise ClientGone
