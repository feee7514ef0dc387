"""Proxies that break what passes: in front of an API server (HTTP) and of PostgreSQL (TCP). They know no store."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from random import Random

import aiohttp
from aiohttp import web

from control_plane import ControlPlane

API_FAULTS = ("409", "422", "429", "500", "503", "drop before", "drop after commit", "late", "slow", "stale")
TCP_FAULTS = ("drop before", "drop after commit", "slow")
LATE_SECONDS = 0.05


class Faults:
    """Which fault comes next, from a seed; `happened` says which ones really met a request."""

    def __init__(self, seed: int, kinds: tuple[str, ...], rate: float = 0.4) -> None:
        self._rng = Random(seed)
        self._kinds = kinds
        self.rate = rate
        self.happened: Counter[str] = Counter()

    def draw(self) -> str:
        """A fault, or empty for none."""
        return self._rng.choice(self._kinds) if self._rng.random() < self.rate else ""


class _ApiProxy:
    def __init__(self, plane: ControlPlane, session: aiohttp.ClientSession, faults: Faults) -> None:
        self._plane = plane
        self._session = session
        self._faults = faults
        self._earlier: dict[str, tuple[int, bytes]] = {}
        self._late: set[asyncio.Task[tuple[int, bytes]]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self._faults.draw()
        if fault == "stale" and request.method == "GET" and request.path_qs in self._earlier:
            self._faults.happened[fault] += 1
            return _answer(*self._earlier[request.path_qs])
        if fault and fault != "stale" and (request.method != "GET" or fault in ("429", "500", "503", "slow")):
            self._faults.happened[fault] += 1
            return await self._broken(request, body, fault)
        status, text = await self._forward(request, body)
        return _answer(status, text)

    async def _broken(self, request: web.Request, body: bytes, fault: str) -> web.StreamResponse:
        if fault.isdigit():
            text = json.dumps({"kind": "Status", "reason": "Fault", "message": "made by the proxy"})
            return web.Response(status=int(fault), text=text, headers={"Retry-After": "0"})
        if fault == "slow":
            await asyncio.sleep(LATE_SECONDS)
            return _answer(*await self._forward(request, body))
        if fault == "drop after commit":
            await self._forward(request, body)
        elif fault == "late":
            task = asyncio.create_task(self._forward(request, body, LATE_SECONDS))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    async def _forward(self, request: web.Request, body: bytes, after_seconds: float = 0.0) -> tuple[int, bytes]:
        await asyncio.sleep(after_seconds)
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        url = self._plane.url + request.path_qs
        async with self._session.request(request.method, url, data=body, headers=headers) as response:
            status, text = response.status, await response.read()
        # What a stale cache would give for a while.
        keeps = request.path_qs not in self._earlier or self._faults.draw()
        if request.method == "GET" and status == 200 and keeps:
            self._earlier[request.path_qs] = (status, text)
        return status, text

    async def close(self) -> None:
        await asyncio.gather(*self._late, return_exceptions=True)


def _answer(status: int, text: bytes) -> web.Response:
    return web.Response(status=status, body=text, content_type="application/json")


@asynccontextmanager
async def api_proxy(plane: ControlPlane, faults: Faults) -> AsyncIterator[str]:
    """The URL of a proxy that acts as the administrator and has these faults."""
    context = ssl.create_default_context(cafile=str(plane.authority_file))
    context.load_cert_chain(plane.folder / "admin.crt", plane.folder / "admin.key")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        proxy = _ApiProxy(plane, session, faults)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", proxy.handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()
            await proxy.close()


class _TcpProxy:
    """Breaks connections around a COMMIT: before it arrives, or after it was carried out."""

    def __init__(self, port: int, faults: Faults) -> None:
        self._port = port
        self._faults = faults

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
            muted = asyncio.Event()
            down = asyncio.create_task(self._down(up_reader, writer, muted))
            try:
                while data := await reader.read(65_536):
                    fault = self._faults.draw() if b"COMMIT" in data else ""
                    if fault:
                        self._faults.happened[fault] += 1
                    if fault == "drop before":
                        break
                    if fault == "slow":
                        await asyncio.sleep(LATE_SECONDS)
                    if fault == "drop after commit":
                        muted.set()
                    up_writer.write(data)
                    await up_writer.drain()
                    if muted.is_set():
                        await down
                        break
            finally:
                up_writer.close()
                writer.transport.abort()
                down.cancel()
                await asyncio.gather(down, return_exceptions=True)

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, muted: asyncio.Event) -> None:
        while data := await reader.read(65_536):
            if muted.is_set():
                return
            writer.write(data)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def tcp_proxy(port: int, faults: Faults) -> AsyncIterator[int]:
    """The port of a proxy in front of PostgreSQL on `port`."""
    proxy = _TcpProxy(port, faults)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # A server of asyncio's streams takes a cancelled handler for a crash, and says so on stderr.
        with suppress(asyncio.CancelledError):
            await proxy.handle(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
