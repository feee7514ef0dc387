"""A target that fails and recovers, with a real sidecar, and a clock that a test can move past an ejection."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from raw_provider import RawConnection, RawProvider
from sidecar_beside import MovedClock, chat, eventually
from sidecar_manifests import provider, retries, routing
from sidecar_world import World
from spendmesh_sidecar.limits import Limits
from spendmesh_standin import FaultRule, Settings as StandInSettings

pytestmark = pytest.mark.anyio

MAIN, BACKUP = "openai/medium-1", "backup/medium-1"
HOUR = 3600.0
BREAKER = {"consecutive5xxErrors": 3, "baseEjectionTime": "30m", "maxEjectionTime": "1h"}
"""An ejection that no test outlives: it ends when the test moves the clock."""
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "medium-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()


class Main:
    """The first provider: fails while `failing`, and answers once `released`."""

    def __init__(self) -> None:
        self.failing = True
        self.released = asyncio.Event()
        self.calls = 0
        self.server = RawProvider(self._script)

    async def _script(self, connection: RawConnection) -> None:
        while await connection.request():
            self.calls += 1
            if self.failing:
                await connection.send(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}")
                continue
            await self.released.wait()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n"
            await connection.send(head.encode() + ANSWER)


def tier(*names: str) -> dict[str, Any]:
    """One model at these providers in order of priority."""
    targets = [{"name": name, "provider": name, "model": "medium-1", "priority": at} for at, name in enumerate(names)]
    return {"name": "standard", "targets": targets}


async def start(world: World, *urls: str, clock: MovedClock) -> World:
    """The targets of one tier in order of priority, at these base URLs."""
    names = ("openai", "backup")[: len(urls)]
    route = routing(*names, tiers=[tier(*names)], rules=[], bounds=[])
    providers = [provider(name, url) for name, url in zip(names, urls, strict=True)]
    await world.apply(*providers, route, retries(attempts=1, circuitBreaker=BREAKER))
    await world.start_sidecar(clock=clock, limits=Limits(drain_seconds=0.05))
    return world


async def target_of(world: World) -> str:
    """Where one call got its answer."""
    answer = await world.openai.chat.completions.with_raw_response.create(**chat())
    return answer.headers["x-spendmesh-model"]


async def state_of(world: World) -> str:
    return (await world.status())["breakers"][MAIN]


async def test_nothing_reaches_an_ejected_target_then_one_probe_and_then_all(empty_world: World) -> None:
    main, clock = Main(), MovedClock()
    await empty_world.serve(main.server)
    world = await empty_world.start(sidecar=False, standin=StandInSettings(providers={"backup": "/backup"}))
    await start(world, f"{main.server.url}/v1", f"{world.standin.url}/backup/v1", clock=clock)

    assert [await target_of(world) for _ in range(3)] == [BACKUP] * 3
    assert (main.calls, await state_of(world)) == (3, "ejected")
    assert set(await asyncio.gather(*(target_of(world) for _ in range(20)))) == {BACKUP}
    assert main.calls == 3, "no call reaches a target while it is ejected"

    clock.skip(HOUR)
    assert await target_of(world) == BACKUP, "the probe failed, and its call went on to the next target"
    assert (main.calls, await state_of(world)) == (4, "ejected")

    main.failing = False
    clock.skip(HOUR)
    probe = asyncio.create_task(target_of(world))
    await eventually(lambda: main.calls == 5)
    assert set(await asyncio.gather(*(target_of(world) for _ in range(20)))) == {BACKUP}
    assert main.calls == 5, "one probe at a time, whoever else calls"
    main.released.set()
    assert await probe == MAIN
    assert set(await asyncio.gather(*(target_of(world) for _ in range(10)))) == {MAIN}
    assert (main.calls, await state_of(world)) == (15, "serving")

    assert await world.total("spendmesh_breaker_ejections_total", target=MAIN, reason="consecutive") == 1
    assert await world.total("spendmesh_breaker_ejections_total", target=MAIN, reason="probe") == 1
    assert await world.total("spendmesh_breaker_probes_total", target=MAIN) == 2
    assert await world.total("spendmesh_breaker_bypasses_total") == 0


async def test_a_probe_whose_client_leaves_lets_the_next_call_probe(empty_world: World) -> None:
    """resilience4j #544, Polly #1979: such a probe was lost for ever, or brought the target back unproven. Here the
    provider says nothing for as long as anybody reads on."""
    main, clock = Main(), MovedClock()
    await empty_world.serve(main.server)
    world = await empty_world.start(sidecar=False, standin=StandInSettings(providers={"backup": "/backup"}))
    await start(world, f"{main.server.url}/v1", f"{world.standin.url}/backup/v1", clock=clock)
    for _ in range(3):
        await target_of(world)
    main.failing = False
    clock.skip(HOUR)
    leaving = asyncio.create_task(target_of(world))
    await eventually(lambda: main.calls == 4)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await world.quiet()
    assert await state_of(world) == "probing"
    main.released.set()
    assert (await target_of(world), await state_of(world)) == (MAIN, "serving")
    assert main.calls == 5


async def test_a_target_at_its_limit_passes_calls_on_and_then_refuses_them_at_once(empty_world: World) -> None:
    main, clock = Main(), MovedClock()
    main.failing = False
    await empty_world.serve(main.server)
    world = await empty_world.start(sidecar=False, standin=StandInSettings(providers={"backup": "/backup"}))
    await start(world, f"{main.server.url}/v1", f"{world.standin.url}/backup/v1", clock=clock)
    await world.apply(retries(adaptiveConcurrency={"max": 2}))
    await world.programmed()
    running = [asyncio.create_task(target_of(world)) for _ in range(2)]
    await eventually(lambda: main.calls == 2)
    assert await target_of(world) == BACKUP
    assert await world.total("spendmesh_concurrency_in_flight", target=MAIN) == 2
    await world.apply(routing("openai", tiers=[tier("openai")], rules=[], bounds=[]))
    await world.programmed()
    with pytest.raises(openai.InternalServerError, match="at its limit of 2 calls at once") as refused:
        await target_of(world)
    assert (refused.value.code, refused.value.response.headers["retry-after"]) == ("target_unavailable", "1")
    main.released.set()
    assert await asyncio.gather(*running) == [MAIN, MAIN]
    assert await target_of(world) == MAIN
    assert await world.total("spendmesh_concurrency_in_flight", target=MAIN) == 0
    assert await world.total("spendmesh_concurrency_limit", target=MAIN) == 2
    assert await world.total("spendmesh_concurrency_full_total", target=MAIN) > 0


async def test_the_last_target_is_called_on_and_the_metrics_say_so(empty_world: World) -> None:
    world, clock = await empty_world.start(sidecar=False), MovedClock()
    await start(world, world.standin.openai_url, clock=clock)
    world.standin.faults(FaultRule("status", status=500, first=6))
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            await target_of(world)
    assert await state_of(world) == "ejected"
    assert [await target_of(world) for _ in range(2)] == [MAIN, MAIN]
    assert await world.total("spendmesh_breaker_bypasses_total", target=MAIN) >= 2
    assert await state_of(world) == "ejected", "calls beside an ejection decide nothing"


async def test_a_stop_for_all_calls_acts_at_once_and_is_taken_back(empty_world: World) -> None:
    world, clock = await empty_world.start(sidecar=False), MovedClock()
    await start(world, world.standin.openai_url, clock=clock)
    assert await target_of(world) == MAIN
    await world.apply(retries(circuitBreaker={"mode": "ForcedOpen"}))
    await world.programmed()
    with pytest.raises(openai.InternalServerError, match=r"circuitBreaker\.mode ForcedOpen") as refused:
        await target_of(world)
    assert (refused.value.status_code, refused.value.code) == (503, "target_unavailable")
    assert refused.value.response.headers["retry-after"] == "60"
    await world.apply(retries())
    await world.programmed()
    assert await target_of(world) == MAIN
    assert len(world.provider_requests()) == 2
