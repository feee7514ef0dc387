"""After any storm of cancelled, cut and failing calls nothing is left: no task, no connection, no reservation."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

import anthropic
import httpx2
import openai
import psutil
import pytest

from sidecar_beside import chat, eventually, message
from sidecar_manifests import retries
from sidecar_world import World
from spendmesh_sidecar.limits import Limits
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio


def connections_to(port: int) -> int:
    return sum(1 for found in psutil.Process().net_connections("tcp") if found.raddr and found.raddr.port == port)


async def call(world: World, number: int) -> str:
    """One call; every third leaves at some moment."""
    stream, in_openai = number % 2 == 0, number % 4 < 2
    try:
        if in_openai:
            answer: Any = await world.openai.chat.completions.create(
                **chat("[[out=40]]", max_tokens=300), stream=stream
            )
        else:
            answer = await world.anthropic.messages.create(**message("[[out=40]]"), stream=stream)
        if stream:
            async for _ in answer:
                pass
    except (openai.APIError, anthropic.APIError, httpx2.TransportError) as error:
        return type(error).__name__
    return "ok"


async def test_a_storm_leaves_nothing_behind(empty_world: World) -> None:
    world = await empty_world.start(retries(failures=0), limits=Limits(drain_seconds=0.2, request_seconds=2.0))
    await call(world, 0)
    await call(world, 2)
    await world.quiet()
    tasks_before = {task.get_name() for task in asyncio.all_tasks() if not task.get_name().startswith("Task-")}
    world.standin.faults(
        FaultRule("status", status=500, probability=0.1, bill="full"),
        FaultRule("status", status=429, probability=0.05),
        FaultRule("reset", probability=0.05, bill="full"),
        FaultRule("reset_after_chunks", chunks=5, probability=0.1, bill="full"),
        FaultRule("stall", chunks=7, probability=0.05, bill="full"),
        FaultRule("slow", chunk_seconds=0.002, probability=0.3),
        seed=3,
    )
    rng = Random(3)
    outcomes: list[Any] = []
    for _ in range(4):
        calls = [asyncio.create_task(call(world, number)) for number in range(40)]
        for one in calls[::3]:
            asyncio.get_running_loop().call_later(rng.random() * 0.1, one.cancel)
        outcomes += await asyncio.gather(*calls, return_exceptions=True)
    assert "ok" in outcomes and any(isinstance(each, asyncio.CancelledError) for each in outcomes)
    await world.openai.close()
    await world.anthropic.close()
    await world.quiet()
    await eventually(lambda: not world.standin.in_flight)
    assert world.rights.held == 0
    assert world.rights.used >= world.invoice_nanos > 0

    async def no_client() -> bool:
        return (await world.status())["requests"] == {"active": 0, "draining": 0, "reserved": 0}

    await eventually(no_client)
    data_port = world.sidecar.address.port
    await eventually(lambda: connections_to(data_port) == 0, "a client's connection is still open")
    await world.stop_sidecar()
    await eventually(lambda: connections_to(world.standin.port) == 0, "a provider's connection is still open")
    account = world.account()
    assert (account.held, account.quarantined) == (0, 0)
    assert account.state.settled == world.collector.cost_nanos() >= world.invoice_nanos
    after = {task.get_name() for task in asyncio.all_tasks() if not task.get_name().startswith("Task-")}
    assert after <= tasks_before - {"leases", "reports", "policy", "telemetry"}


async def test_a_client_may_leave_at_any_byte_of_a_stream(world: World) -> None:
    """Row 21: whatever was read, the call is settled once, at what the provider bills."""
    body = json.dumps(chat("[[out=8]]", stream=True)).encode()
    head = b"POST /openai/v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    address = world.sidecar.address

    async def leave_after(size: int) -> int:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(head + body)
        got = b""
        while len(got) < size and (more := await reader.read(size - len(got))):
            got += more
            if got.endswith(b"0\r\n\r\n"):
                break
        writer.transport.abort()
        return len(got)

    whole = await leave_after(1_000_000)
    assert whole > 2000
    sizes = range(0, whole, 61)
    for start in range(0, len(sizes), 10):
        await asyncio.gather(*(leave_after(size) for size in sizes[start : start + 10]))
    assert await world.settled() == world.invoice_nanos > 0
    assert len(world.standin.invoice().lines) == len(sizes) + 1
    assert await world.close_the_books() == world.invoice_nanos
