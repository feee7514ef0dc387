"""A running stand-in for each test, in a thread of its own, with the official SDKs as clients."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anthropic
import openai
import pytest

from spendmesh_standin import DEFAULT_KEYS, FaultRule, InvoiceLine, Settings, StandIn

Result = TypeVar("Result")
_DEADLINE_SECONDS = 60.0
OPENAI_KEY, ANTHROPIC_KEY = DEFAULT_KEYS[0].secret, DEFAULT_KEYS[1].secret


@dataclass(frozen=True)
class Answer:
    """A raw HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Stage:
    """One stand-in and its clients."""

    def __init__(self, standin: StandIn, loop: asyncio.AbstractEventLoop, clients: Clients) -> None:
        self.standin = standin
        self._loop = loop
        self.openai = clients.openai.with_options(base_url=standin.openai_url)
        self.anthropic = clients.anthropic.with_options(base_url=standin.url)

    def within(self, action: Callable[[], Result]) -> Result:
        """Run something in the stand-in's own loop."""

        async def act() -> Result:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self._loop).result(_DEADLINE_SECONDS)

    def stop(self) -> None:
        """End the stand-in; its invoice can still be read."""
        asyncio.run_coroutine_threadsafe(self.standin.stop(), self._loop).result(_DEADLINE_SECONDS)

    def faults(self, *rules: FaultRule, seed: int = 0) -> None:
        self.within(lambda: self.standin.faults(*rules, seed=seed))

    def lines(self) -> tuple[InvoiceLine, ...]:
        return self.within(self.standin.invoice).lines

    def line(self) -> InvoiceLine:
        """The only line of the invoice, as soon as it is there."""
        eventually(lambda: len(self.lines()) > 0)
        (line,) = self.lines()
        return line

    def raw(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request without an SDK, with a good OpenAI key unless headers are given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.standin.port, timeout=_DEADLINE_SECONDS)
        try:
            sent = {"authorization": f"Bearer {OPENAI_KEY}"} if headers is None else headers
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    @contextmanager
    def socket(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> Iterator[socket.socket]:
        """A connection over which this request has been sent."""
        raw = json.dumps(body).encode()
        fields = ("host: x", f"authorization: Bearer {OPENAI_KEY}", f"content-length: {len(raw)}")
        head = "\r\n".join((f"POST {path} HTTP/1.1", *fields, "", ""))
        with socket.create_connection(("127.0.0.1", self.standin.port), timeout=_DEADLINE_SECONDS) as connection:
            connection.sendall(head.encode() + raw)
            yield connection


@dataclass(frozen=True)
class Clients:
    """The official SDKs, made once: most of their cost is loading certificates."""

    openai: openai.OpenAI
    anthropic: anthropic.Anthropic


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something is so; fails at the deadline."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail("the awaited condition did not come true")
        time.sleep(0.005)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[[Callable[[], bool]], None]:
    return eventually


@pytest.fixture(scope="session")
def clients() -> Iterator[Clients]:
    options: Any = {"base_url": "http://127.0.0.1:1", "max_retries": 0, "timeout": _DEADLINE_SECONDS}
    with (
        openai.OpenAI(api_key=OPENAI_KEY, **options) as for_openai,
        anthropic.Anthropic(api_key=ANTHROPIC_KEY, **options) as for_anthropic,
    ):
        yield Clients(for_openai, for_anthropic)


@contextmanager
def staged(clients: Clients, settings: Settings | None = None, **options: Any) -> Iterator[Stage]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    standin = StandIn(settings, **options)
    try:
        asyncio.run_coroutine_threadsafe(standin.start(), loop).result(_DEADLINE_SECONDS)
        yield Stage(standin, loop, clients)
    finally:
        asyncio.run_coroutine_threadsafe(standin.stop(), loop).result(_DEADLINE_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_DEADLINE_SECONDS)
        loop.close()


@pytest.fixture
def stage(clients: Clients) -> Iterator[Stage]:
    """A stand-in with its default settings."""
    with staged(clients) as running:
        yield running


@pytest.fixture
def open_stage(clients: Clients) -> Callable[..., Any]:
    """Opens a stand-in with other settings, as a context manager."""
    return lambda settings=None, **options: staged(clients, settings, **options)
