"""Parts go away and come back, processes die: calls go on as far as they may, and nothing spent is given back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import pytest

from sidecar_beside import Rogue, chat, eventually
from sidecar_manifests import budget
from sidecar_world import OPENAI_KEY, World
from spendmesh_sidecar.settings import Address
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

NANOS = 10**9


async def tier(world: World) -> str:
    answer = await world.openai.chat.completions.with_raw_response.create(**chat())
    return answer.headers["x-spendmesh-tier"]


# --- control goes away ------------------------------------------------------------------------------------


async def test_with_control_away_calls_go_on_with_the_rights_that_are_held(empty_world: World) -> None:
    world = await empty_world.start(budget("0.50"))
    await world.openai.chat.completions.create(**chat(max_tokens=256))
    held = world.rights.granted
    port = urlsplit(world.control_url).port
    await world.stop_control()
    answered = 0
    while True:
        try:
            await world.openai.chat.completions.create(**chat("[[out=200]]", max_tokens=256))
            answered += 1
        except openai.InternalServerError as error:
            refused = error
            break
    assert answered > 5
    assert refused.code == "budget_unverifiable" and "retry-after" in refused.response.headers
    assert 0.9 * held - 600_000 <= await world.settled() <= held
    await world.start_control(port or 0)
    await eventually(lambda: world.sidecar.plane.leases.reachable)
    assert (await world.openai.chat.completions.create(**chat(max_tokens=256))).choices
    await world.quiet()
    assert await world.close_the_books() == world.invoice_nanos


async def test_a_client_that_leaves_while_rights_are_awaited_gets_no_attempt(empty_world: World) -> None:
    world = await empty_world.start(budget("0.50"), shutdown_seconds=0.2)
    await world.stop_control()
    held = world.rights.granted
    call = asyncio.create_task(world.openai.chat.completions.create(**chat(max_tokens=held // 2000 + 1)))
    await eventually(lambda: world.sidecar.plane.active)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await world.quiet()
    assert world.provider_requests() == []
    assert (world.rights.used, world.rights.held) == (0, 0)
    assert await world.total("spendmesh_requests_total", status="499") == 1


async def test_a_control_server_that_talks_nonsense_is_no_control_server(empty_world: World) -> None:
    world, rogue = empty_world, Rogue(200, body=b"nonsense\n")
    await world.start(sidecar=False)
    await world.serve(rogue)
    await world.start_sidecar(control_url=rogue.url, first_policy_seconds=0.1)
    await eventually(lambda: len(rogue.headers) > 3, "it was not asked again")
    async with world.http.get(f"{world.admin_url}/healthz") as response:
        assert response.status == 200
    with pytest.raises(openai.InternalServerError) as refused:
        await world.openai.chat.completions.create(**chat())
    assert refused.value.code == "policy_missing"


async def test_a_restarted_container_starts_from_its_saved_policy_while_the_operator_is_away(
    empty_world: World, tmp_path: Any
) -> None:
    world = await empty_world.start(sidecar=False)
    del world.objects[("ModelBudget", "team")]
    await world.apply()
    state = tmp_path / "state"
    state.mkdir()
    await world.start_sidecar(state_dir=state)
    await world.stop_sidecar()
    await world.stop_control()
    await world.start_sidecar(state_dir=state)
    assert await tier(world) == "standard"
    assert OPENAI_KEY not in (state / "policy").read_text()


# --- processes end ----------------------------------------------------------------------------------------


async def test_a_clean_restart_continues_the_same_books(empty_world: World) -> None:
    world = await empty_world.start(budget("0.02"))
    for _ in range(3):
        for _ in range(5):
            await world.openai.chat.completions.create(**chat("[[out=100]]"))
        await world.stop_sidecar()
        account = world.account()
        assert (account.state.settled, account.held, account.quarantined) == (world.invoice_nanos, 0, 0)
        await world.start_sidecar()
    assert world.rights.settled == world.invoice_nanos


async def test_a_stop_lets_a_running_stream_end_and_takes_no_new_call(world: World) -> None:
    world.standin.faults(FaultRule("withhold", stream=True))
    stream = await world.openai.chat.completions.create(**chat("[[out=3]]"), stream=True)
    first = await anext(aiter(stream))
    stopping = asyncio.create_task(world.stop_sidecar())
    await eventually(lambda: world.sidecar.plane.stopping)
    async with world.http.get(f"{world.admin_url}/readyz") as response:
        assert response.status == 503
    with pytest.raises(openai.APIConnectionError):
        await world.openai.chat.completions.create(**chat())
    world.standin.acknowledge(first.id, 10)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "stop"
    await stopping
    assert world.account().state.settled == world.invoice_nanos > 0


async def test_a_stream_that_outlasts_the_stop_is_cut_and_charged(empty_world: World) -> None:
    world = await empty_world.start(shutdown_seconds=0.1)
    world.standin.faults(FaultRule("stall", chunks=2, bill="full"))
    stream = await world.openai.chat.completions.create(**chat("[[out=500]]"), stream=True)
    with pytest.raises((openai.APIConnectionError, httpx2.TransportError)):
        await anext(aiter(stream))
        await world.stop_sidecar()
        async for _ in stream:
            pass
    await eventually(lambda: not world.standin.in_flight)
    account = world.account()
    assert (account.held, account.quarantined) == (0, 0)
    assert account.state.settled >= world.invoice_nanos > 0


async def test_a_start_that_fails_leaves_nothing_open(empty_world: World) -> None:
    world = await empty_world.start(sidecar=False)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="address already in use"):
        await world.start_sidecar(listen=Address("127.0.0.1", taken.getsockname()[1]))
    named = {task.get_name() for task in asyncio.all_tasks()}
    assert not named & {"leases", "reports", "policy", "telemetry"}
    account = world.account()
    assert (account.held, account.quarantined) == (0, 0), "rights that came early went back"


async def test_background_work_that_has_ended_makes_the_container_unhealthy(world: World) -> None:
    async def health() -> int:
        async with world.http.get(f"{world.admin_url}/healthz") as response:
            return response.status

    assert await health() == 200
    (reports,) = (task for task in asyncio.all_tasks() if task.get_name() == "reports")
    reports.cancel()

    async def unhealthy() -> bool:
        return await health() == 500

    await eventually(unhealthy)


async def test_a_sidecar_killed_in_the_middle_of_a_stream_leaves_the_ledger_at_or_above_the_invoice(
    empty_world: World,
) -> None:
    world = await empty_world.start(budget("0.50"), sidecar=False)
    child = await world.start_sidecar_process()
    await world.openai.chat.completions.create(**chat("[[out=100]]"))
    world.standin.faults(FaultRule("withhold", stream=True))
    stream = await world.openai.chat.completions.create(**chat("[[out=900]]"), stream=True)
    await anext(aiter(stream))
    os.kill(child.pid, signal.SIGKILL)
    await eventually(lambda: not world.standin.in_flight)
    account = world.account()
    assert account.state.charged >= world.invoice_nanos > 900 * 2000
    world.standin.faults()
    await world.start_sidecar_process()
    await world.openai.chat.completions.create(**chat("[[out=100]]"))
    account = world.account()
    assert account.quarantined > 0, "what the killed one held stays charged"
    assert account.state.settled + account.quarantined >= world.invoice_nanos


async def test_a_limit_holds_over_sidecars_that_are_killed_again_and_again(empty_world: World) -> None:
    world = await empty_world.start(budget("0.01"), sidecar=False)
    for _ in range(3):
        child = await world.start_sidecar_process()
        try:
            for _ in range(10):
                await world.openai.chat.completions.create(**chat("[[out=200]]"))
        except openai.APIStatusError as error:
            assert error.status_code == 402
        os.kill(child.pid, signal.SIGKILL)
    account = world.account()
    assert world.invoice_nanos <= account.state.charged <= NANOS // 100


async def test_a_control_process_killed_and_restarted_gives_nothing_back(empty_world: World) -> None:
    world = await empty_world.start(budget("0.02"), control=False)
    control = await world.start_control_process()
    sidecar = await world.start_sidecar_process()
    world.standin.faults(FaultRule("withhold", stream=True))
    stream = await world.openai.chat.completions.create(**chat("[[out=50]]"), stream=True)
    first = await anext(aiter(stream))
    os.kill(control.pid, signal.SIGKILL)
    await control.stop()
    world.standin.acknowledge(first.id, 100)
    assert [chunk async for chunk in stream]
    control = await world.start_control_process(urlsplit(world.control_url).port or 0)

    async def reachable() -> bool:
        return (await world.status())["control"]["leases"] == "reachable"

    await eventually(reachable)
    refused = ""
    while refused not in ("budget_exceeded", "request_exceeds_budget"):
        try:
            await world.openai.chat.completions.create(**chat("[[out=250]]"))
        except openai.APIStatusError as error:
            refused = error.code or ""
            await asyncio.sleep(0.02)
    await sidecar.stop()
    await control.stop()
    (account,) = json.loads(world.books.read_text())
    assert (account["settled"], account["quarantined"]) == (world.invoice_nanos, 0)
    assert 0.95 * account["amount"] <= account["settled"] <= account["amount"]


# --- surroundings -----------------------------------------------------------------------------------------


async def test_a_proxy_in_the_environment_changes_nothing(empty_world: World) -> None:
    world = await empty_world.start(sidecar=False)
    nobody = "http://127.0.0.1:9"
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    await world.start_sidecar_process(**dict.fromkeys(names, nobody), NO_PROXY="", no_proxy="")
    assert await tier(world) == "standard"
    await eventually(lambda: world.collector.attempts())


async def test_a_key_that_is_rotated_is_used_without_a_restart(empty_world: World, tmp_path: Any) -> None:
    world = await empty_world.start(sidecar=False)
    await world.start_sidecar_process()
    key = tmp_path / "keys" / "openai"
    key.write_text("sk-wrong")

    async def refused() -> bool:
        try:
            await tier(world)
        except openai.AuthenticationError:
            return True
        return False

    await eventually(refused, "the old key is still used")
    key.write_text(OPENAI_KEY)

    async def served() -> bool:
        return not await refused()

    await eventually(served, "the new key is not used")
