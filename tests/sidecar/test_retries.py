"""Failed attempts are tried again where that helps, as often as the policy pays for, and elsewhere when it does not."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import openai
import pytest

from raw_provider import RawConnection, RawProvider
from sidecar_beside import chat, eventually, message
from sidecar_manifests import provider, retries, routing
from sidecar_world import World
from spendmesh_sidecar.limits import Limits
from spendmesh_standin import FaultRule, Settings as StandInSettings

pytestmark = pytest.mark.anyio

TWO_PROVIDERS = StandInSettings(providers={"main": "", "backup": "/backup"})


def with_backup(world: World) -> tuple[dict[str, Any], ...]:
    """A second provider that takes over with priority 1."""
    targets = [
        {"name": "first", "provider": "openai", "model": "medium-1"},
        {"name": "second", "provider": "backup", "model": "medium-1", "priority": 1},
    ]
    tiers = [{"name": "standard", "targets": targets}]
    route = routing("openai", "backup", tiers=tiers, rules=[], bounds=[], defaultTier="standard")
    return provider("backup", f"{world.standin.url}/backup/v1"), route


async def start_with_backup(world: World, **retry: Any) -> World:
    await world.start(sidecar=False, standin=TWO_PROVIDERS)
    await world.apply(*with_backup(world), retries(**retry))
    await world.start_sidecar()
    return world


async def raw(world: World, **more: Any) -> Any:
    return await world.openai.chat.completions.with_raw_response.create(**chat(**more))


def ended(answer: Any) -> tuple[str, str, str]:
    headers = answer.headers
    return headers["x-spendmesh-attempts"], headers["x-spendmesh-model"], headers["x-spendmesh-reason"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
async def test_a_failure_before_the_first_byte_is_tried_again(world: World, status: int) -> None:
    world.standin.faults(FaultRule("status", status=status, first=1))
    assert ended(await raw(world)) == ("2", "openai/medium-1", "default")
    assert await world.total("spendmesh_retries_total") == 1


async def test_a_failure_before_a_stream_begins_is_tried_again(world: World) -> None:
    world.standin.faults(FaultRule("status", status=529, first=1))
    async with world.anthropic.messages.stream(**message()) as stream:
        assert await stream.get_final_text()
    assert await world.total("spendmesh_retries_total") == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 501])
async def test_what_the_policy_does_not_list_is_not_tried_again(world: World, status: int) -> None:
    world.standin.faults(FaultRule("status", status=status))
    with pytest.raises(openai.APIStatusError) as failed:
        await raw(world)
    assert failed.value.status_code == status
    assert failed.value.response.headers["x-should-retry"] == "false"
    assert len(world.provider_requests()) == 1


async def test_no_more_attempts_than_the_policy_says(world: World) -> None:
    world.standin.faults(FaultRule("status", status=503))
    with pytest.raises(openai.InternalServerError) as failed:
        await raw(world)
    assert failed.value.response.headers["x-spendmesh-attempts"] == "3"
    assert len(world.provider_requests()) == 3


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule("status", status=429, retry_after=1, first=1),
        FaultRule("status", status=429, retry_after_ms=600, first=1),
    ],
    ids=["seconds", "milliseconds"],
)
async def test_retry_after_is_the_least_pause(world: World, rule: FaultRule) -> None:
    world.standin.faults(rule)
    await raw(world)
    first, second = (seen.time for seen in world.provider_requests())
    assert second - first >= (rule.retry_after or 0.6)


@pytest.mark.parametrize("nonsense", ["-5", "NaN", "soon", "1e999"])
async def test_a_retry_after_that_is_none_is_not_waited_for(world: World, nonsense: str) -> None:
    world.standin.faults(FaultRule("status", status=429, retry_after=nonsense, first=1))
    assert ended(await raw(world))[0] == "2"


async def test_a_retry_after_longer_than_we_wait_goes_to_the_client(world: World) -> None:
    world.standin.faults(FaultRule("status", status=429, retry_after=3600))
    with pytest.raises(openai.RateLimitError) as failed:
        await raw(world)
    assert failed.value.response.headers["retry-after"] == "3600"
    assert len(world.provider_requests()) == 1


async def test_a_retry_after_longer_than_we_wait_goes_to_the_next_target(empty_world: World) -> None:
    world = await start_with_backup(empty_world)
    world.standin.faults(FaultRule("status", provider="main", status=429, retry_after=3600))
    assert ended(await raw(world)) == ("2", "backup/medium-1", "failover")


async def test_retries_stay_within_their_budget_and_denials_are_counted(empty_world: World) -> None:
    world = await empty_world.start(retries(percent=10, minimum=1, failures=0))
    world.standin.faults(FaultRule("status", status=503))
    failed = await asyncio.gather(*(raw(world) for _ in range(60)), return_exceptions=True)
    assert {type(error) for error in failed} == {openai.InternalServerError}
    reached = sum(getattr(error, "code", "") != "budget_unverifiable" for error in failed)
    tried = await world.total("spendmesh_retries_total")
    assert 0 < tried <= reached * 0.10 + 3
    assert len(world.provider_requests()) == reached + tried
    assert await world.total("spendmesh_retry_denied_total", reason="budget") >= reached - tried > 0


async def test_an_observed_retry_budget_retries_nothing_and_leaves_the_provider_s_word(empty_world: World) -> None:
    world = await empty_world.start(retries(mode="Observe"))
    world.standin.faults(FaultRule("status", status=503, should_retry=True))
    with pytest.raises(openai.InternalServerError) as failed:
        await raw(world)
    assert failed.value.response.headers["x-should-retry"] == "true"
    assert len(world.provider_requests()) == 1


async def test_a_provider_that_cannot_be_reached_is_passed_over_at_once_and_costs_nothing(empty_world: World) -> None:
    world = await empty_world.start(sidecar=False, standin=TWO_PROVIDERS)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        backup, route = with_backup(world)
        await world.apply(provider("openai", nobody), backup, route)
        await world.start_sidecar()
        assert ended(await raw(world)) == ("2", "backup/medium-1", "failover")
    assert await world.settled() == world.invoice_nanos > 0


async def test_a_lone_provider_that_cannot_be_reached_is_said_in_our_own_words(empty_world: World) -> None:
    world = await empty_world.start(sidecar=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        await world.apply(provider("openai", f"http://127.0.0.1:{taken.getsockname()[1]}/v1"))
        await world.start_sidecar()
        with pytest.raises(openai.InternalServerError) as failed:
            await raw(world)
    assert (failed.value.status_code, failed.value.code) == (503, "target_unavailable")
    assert await world.settled() == 0


async def stalled_error(connection: RawConnection) -> None:
    await connection.request()
    await connection.send(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 100\r\n\r\n{")
    await connection.gone()


async def test_an_error_whose_body_stalls_is_a_timeout_in_our_own_words(empty_world: World) -> None:
    stalling = RawProvider(stalled_error)
    await empty_world.serve(stalling)
    world = await empty_world.start(sidecar=False)
    await world.apply(provider("openai", f"{stalling.url}/v1"))
    await world.start_sidecar(limits=Limits(request_seconds=1.0))
    with pytest.raises(openai.InternalServerError) as failed:
        await raw(world)
    assert (failed.value.status_code, failed.value.code) == (504, "attempt_timeout")
    assert failed.value.response.headers["x-spendmesh-attempts"] == "1"


async def test_a_client_that_leaves_during_a_failing_try_is_not_failed_over(empty_world: World) -> None:
    """The next target would be called, and billed, for nobody."""
    released = asyncio.Event()

    async def fail_late(connection: RawConnection) -> None:
        await connection.request()
        await released.wait()
        await connection.send(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}")
        await connection.gone()

    failing = RawProvider(fail_late)
    await empty_world.serve(failing)
    world = await empty_world.start(sidecar=False, standin=TWO_PROVIDERS)
    backup, route = with_backup(world)
    await world.apply(provider("openai", f"{failing.url}/v1"), backup, route, retries(attempts=1))
    await world.start_sidecar()
    call = asyncio.create_task(raw(world))
    await eventually(lambda: failing.requests)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await eventually(lambda: world.sidecar.plane.draining)
    released.set()
    await world.quiet()
    assert world.provider_requests() == []


async def test_a_failing_target_is_ejected_and_others_take_over_until_it_recovers(empty_world: World) -> None:
    world = await start_with_backup(empty_world, failures=3, minimum=100)
    world.standin.faults(FaultRule("status", provider="main", status=500))
    while (await world.status())["breakers"].get("openai/medium-1") != "ejected":
        assert ended(await raw(world))[1] == "backup/medium-1", "a client sees no failure"
    before = len([seen for seen in world.provider_requests() if seen.provider == "main"])
    assert ended(await raw(world)) == ("1", "backup/medium-1", "failover")
    assert len([seen for seen in world.provider_requests() if seen.provider == "main"]) == before
    assert await world.total("spendmesh_breaker_state", target="openai/medium-1") == 2
    world.standin.faults()

    async def back() -> bool:
        return ended(await raw(world))[1] == "openai/medium-1"

    await eventually(back, "the target was not tried again")
    assert (await world.status())["breakers"]["openai/medium-1"] == "serving"


async def test_model_names_from_clients_are_no_labels_of_their_own(empty_world: World) -> None:
    """Contract §5: labels are bounded; what no policy names is shown together."""
    world = await empty_world.start(retries(attempts=0, failures=1))
    world.standin.faults(FaultRule("status", status=500, first=1))
    for model in ("gpt-4o", "gpt-4o-mini", "medium-1"):
        await asyncio.gather(raw(world, model=model), return_exceptions=True)
    assert (await world.status())["breakers"] == {"other": "ejected", "openai/medium-1": "serving"}
    shown = [name for name in await world.metrics() if name.startswith("spendmesh_breaker_state")]
    assert len(shown) == 2


async def test_when_every_target_is_ejected_the_client_is_told_when_to_come_back(empty_world: World) -> None:
    world = await empty_world.start(retries(failures=1, attempts=0, on_all_ejected="Deny"))
    world.standin.faults(FaultRule("status", status=500))
    with pytest.raises(openai.InternalServerError):
        await raw(world)
    with pytest.raises(openai.InternalServerError) as refused:
        await raw(world)
    assert refused.value.code == "target_unavailable"
    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 2
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert len(world.provider_requests()) == 1


async def test_a_storm_of_billed_failures_is_survived_within_the_retry_budget(empty_world: World) -> None:
    world = await empty_world.start(retries(percent=20, minimum=2, failures=0))
    world.standin.faults(
        FaultRule("status", status=500, probability=0.15, bill="full"),
        FaultRule("status", status=429, probability=0.15),
    )
    answers = await asyncio.gather(*(raw(world) for _ in range(150)), return_exceptions=True)
    good = [ended(answer)[0] for answer in answers if not isinstance(answer, openai.APIStatusError)]
    recovered = sum(attempts != "1" for attempts in good)
    tried = await world.total("spendmesh_retries_total")
    assert recovered > 0
    assert 0 < tried <= 150 * 0.20 + 6
    assert len(world.provider_requests()) == 150 + tried
    assert await world.settled() >= world.invoice_nanos > 0
