"""
The load: closed loop for CPU, open loop (by intended send time) for latency, streams for CPU per event.

Raw asyncio on kept-alive connections; what it measures is not its own cost. It sends to loopback only and its
loops are bounded in count.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

BODY_BYTES = 2000


def request_bytes(path: str, stream: bool) -> bytes:
    """An ordinary chat request of about 2 KB with the headers the official SDK sends."""
    body: dict[str, object] = {
        "model": "auto",
        "messages": [{"role": "user", "content": "word " * (BODY_BYTES // 5)}],
        "max_completion_tokens": 512,
    }
    if stream:
        body["stream"] = True
    encoded = json.dumps(body, separators=(",", ":")).encode()  # as httpx writes it
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: application/json\r\n"
        f"authorization: Bearer injected\r\nuser-agent: OpenAI/Python 3.54.0\r\nx-stainless-lang: python\r\n"
        f"x-stainless-package-version: 3.54.0\r\nx-stainless-os: Linux\r\nx-stainless-arch: x64\r\n"
        f"x-stainless-runtime: CPython\r\nx-stainless-async: async:asyncio\r\nx-stainless-retry-count: 0\r\n"
        f"x-stainless-read-timeout: 600\r\nx-spendmesh-task: chat\r\ncontent-length: {len(encoded)}\r\n\r\n"
    )
    return head.encode() + encoded


class Connection:
    """One kept-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def call(self, request: bytes) -> int:
        """Send and read the whole answer; returns the body's size. Raises RuntimeError for anything but 200."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode(errors="replace") + (await self._reader.read(400)).decode(errors="replace"))
        lowered = head.lower()
        at = lowered.find(b"content-length:")
        if at >= 0:
            length = int(lowered[at + 15 : lowered.find(b"\r\n", at)])
            await self._reader.readexactly(length)
            return length
        size = 0
        while length := int(await self._reader.readline(), 16):
            await self._reader.readexactly(length + 2)
            size += length
        await self._reader.readexactly(2)
        return size

    def close(self) -> None:
        """No more calls."""
        self._writer.close()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    """A connection to a port of this machine, closed also after a call that failed."""
    connection = Connection(*await asyncio.open_connection("127.0.0.1", port, limit=2**20))
    try:
        yield connection
    finally:
        connection.close()


async def closed_loop(port: int, request: bytes, connections: int, total: int) -> float:
    """As many calls as fit, `total` in all; returns the seconds they took."""
    left = iter(range(total))

    async def worker() -> None:
        async with connect(port) as connection:
            for _ in left:
                await connection.call(request)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(connections)))
    return time.perf_counter() - began


async def open_loop(port: int, request: bytes, rate: float, total: int, connections: int = 32) -> list[float]:
    """Calls at a fixed rate; latencies in seconds from the intended send time, so that queueing is not hidden."""
    pool: asyncio.Queue[Connection] = asyncio.Queue()
    latencies: list[float] = []

    async def one(intended: float) -> None:
        connection = await pool.get()
        await connection.call(request)
        latencies.append(time.perf_counter() - intended)
        pool.put_nowait(connection)

    async with AsyncExitStack() as stack:
        for _ in range(connections):
            pool.put_nowait(await stack.enter_async_context(connect(port)))
        began = time.perf_counter()
        tasks = []
        for number in range(total):
            intended = began + number / rate
            if (pause := intended - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            tasks.append(asyncio.create_task(one(intended)))
        await asyncio.gather(*tasks)
    return sorted(latencies)


async def streams(port: int, request: bytes, concurrent: int, rounds: int) -> None:
    """Read `concurrent` streams at once, `rounds` times each."""

    async def reader() -> None:
        async with connect(port) as connection:
            for _ in range(rounds):
                await connection.call(request)

    await asyncio.gather(*(reader() for _ in range(concurrent)))
