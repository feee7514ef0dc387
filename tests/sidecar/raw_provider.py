"""A provider that sends bytes exactly as a test has them, split where it wants, and counts what it is asked."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Sequence


class RawConnection:
    """The provider's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The next request with its body; empty when the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        return head + await self.reader.readexactly(length)

    async def send(self, *parts: bytes) -> None:
        """Each part in a packet of its own, as far as the kernel does not join them."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until the client has closed; what it still sends is read."""
        while await self.reader.read(65536):
            pass

    def finish(self) -> None:
        """Close in order (FIN)."""
        self.writer.close()

    def reset(self) -> None:
        """Close with RST."""
        at_once = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.writer.transport.abort()


Script = Callable[[RawConnection], Awaitable[None]]


class RawProvider:
    """Plays `script` on every connection. `requests` is all it was asked, connection by connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[list[bytes]] = []
        self.open = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.server_names: list[str | None] = []
        self.failures: list[Exception] = []

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen on a free port of loopback."""
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{self.port}"
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Close everything; raises what a script raised."""
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        if self.failures:
            raise self.failures[0]

    def shut_down(self) -> None:
        """Close every connection's sending side now, before any event loop turns."""
        for writer in self.writers:
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as same:
                same.shutdown(socket.SHUT_WR)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        connection = RawConnection(reader, writer)
        log: list[bytes] = []
        self.requests.append(log)
        self.writers.append(writer)
        original = connection.request

        async def logged() -> bytes:
            if request := await original():
                log.append(request)
            return request

        connection.request = logged  # type: ignore[method-assign]
        try:
            await self.script(connection)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client closed first, or the test is over
        except Exception as failure:  # noqa: BLE001 - `stop` raises it in the test
            self.failures.append(failure)
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort()


def answering(*parts: bytes, close: bool = False) -> Script:
    """Answer every request with the same bytes, then close or wait for the next request."""

    async def script(connection: RawConnection) -> None:
        while await connection.request():
            await connection.send(*parts)
            if close:
                connection.finish()
                return

    return script


def bytewise(data: bytes) -> Sequence[bytes]:
    """Every byte apart."""
    return [data[place : place + 1] for place in range(len(data))]
