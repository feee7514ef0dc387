"""What stands beside a sidecar in its tests: SDK clients, a collector, providers that are told what to say."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import anthropic
import openai
from aiohttp import web

from spendmesh_sidecar.clock import Clock

DEADLINE_SECONDS = 60.0


class MovedClock(Clock):
    """Real time, and what was skipped."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self.monotonic = lambda: time.monotonic() + self._skipped  # type: ignore[misc]

    def skip(self, seconds: float) -> None:
        self._skipped += seconds

    def both(self) -> tuple[float, int]:
        return self.monotonic(), int(self.unix())


async def eventually(condition: Callable[[], Any], why: str = "the awaited condition did not come true") -> Any:
    """Wait until something is so; answers what it gave. `condition` may be a coroutine function."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"{why}; last seen: {found!r}"
        await asyncio.sleep(0.005)


@cache
def _certificates() -> ssl.SSLContext:
    """Made once: loading it is most of what an SDK's client costs."""
    return ssl.create_default_context()


def openai_client(base_url: str, key: str = "injected", **options: Any) -> openai.AsyncOpenAI:
    transport = openai.DefaultAsyncHttpxClient(verify=_certificates(), trust_env=False)
    options = {"max_retries": 0, "timeout": DEADLINE_SECONDS, **options}
    return openai.AsyncOpenAI(base_url=base_url, api_key=key, http_client=transport, **options)


def anthropic_client(base_url: str, key: str = "injected", **options: Any) -> anthropic.AsyncAnthropic:
    transport = anthropic.DefaultAsyncHttpxClient(verify=_certificates(), trust_env=False)
    options = {"max_retries": 0, "timeout": DEADLINE_SECONDS, **options}
    return anthropic.AsyncAnthropic(base_url=base_url, api_key=key, http_client=transport, **options)


class Collector:
    """Takes OTLP/HTTP JSON as a collector does, and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.url = ""

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._take, access_log=None))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1/traces"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _take(self, request: web.BaseRequest) -> web.Response:
        for resource in json.loads(await request.read())["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                self.spans += scope["spans"]
        return web.Response(body=b"{}", content_type="application/json")

    def attempts(self) -> list[dict[str, Any]]:
        return [attributes(span) for span in self.spans if span["kind"] == 3]

    def cost_nanos(self) -> int:
        return sum(int(attempt["spendmesh.cost.nanos"]) for attempt in self.attempts())


class Rogue:
    """A provider that answers what the test says, whatever it is asked."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
        self._answer = status, headers or {}, body
        self.headers: list[dict[str, str]] = []
        """Of the requests that arrived, names in lower case."""
        self.url = ""

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        await request.read()
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        status, headers, body = self._answer
        return web.Response(status=status, headers=headers, body=body)


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values())) for item in span["attributes"]}


def chat(text: str = "hello [[out=5]]", model: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def message(text: str = "hello [[out=5]]", model: str = "auto", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 2048, "messages": [{"role": "user", "content": text}], **more}
