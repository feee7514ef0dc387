"""A line between a client and a server that a test can hold, shut or break at the moment it wants."""

from __future__ import annotations

import asyncio


class Relay:
    """Passes bytes both ways; those of the server only while it is not held."""

    def __init__(self, port: int, *, held: bool = False) -> None:
        self._target = port
        self._flows = asyncio.Event()
        if not held:
            self._flows.set()
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self) -> None:
        """From now on nothing comes back."""
        self._flows.clear()

    def release(self) -> None:
        """All that was held comes, and what follows."""
        self._flows.set()

    def shut(self) -> None:
        """From now on new connections wait before they get through."""
        self._open.clear()

    def open(self) -> None:
        """They get through."""
        self._open.set()

    def cut(self) -> None:
        """Break every connection that is open now, on both sides."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        await self._open.wait()
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        both = {writer, back}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, back, held=False))
                group.create_task(self._pass(there, writer, held=True))
        except* (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for each in both:
                each.transport.abort()
            self._writers -= both
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, held: bool) -> None:
        while data := await reader.read(65536):
            if held:
                await self._flows.wait()
            writer.write(data)
            await writer.drain()
        writer.transport.abort()
        raise ConnectionResetError
