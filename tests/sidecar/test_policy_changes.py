"""Policies change under running calls; one that cannot be obeyed changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import openai
import pytest

from sidecar_beside import chat, eventually
from sidecar_manifests import budget, routing
from sidecar_world import POD, World
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

NANOS = 10**9


async def tier(world: World) -> str:
    answer = await world.openai.chat.completions.with_raw_response.create(**chat())
    return answer.headers["x-spendmesh-tier"]


async def test_a_policy_edit_takes_effect_without_a_restart(world: World) -> None:
    assert await tier(world) == "standard"
    await world.apply(routing(defaultTier="economy"))
    await world.programmed()
    assert await tier(world) == "economy"
    answer = await world.openai.chat.completions.with_raw_response.create(**chat())
    assert answer.headers["x-spendmesh-policy"] == "team-a/support@2"


async def test_a_call_in_flight_ends_under_the_policy_it_began_with(world: World) -> None:
    world.standin.faults(FaultRule("withhold", stream=True))
    stream = await world.openai.chat.completions.create(**chat("[[out=3]]"), stream=True)
    first = await anext(aiter(stream))
    del world.objects[("ModelBudget", "team")]
    await world.apply(budget(name="other"))
    await world.programmed()
    world.standin.acknowledge(first.id, 10)
    assert [chunk async for chunk in stream]
    await world.stop_sidecar()
    settled = {view.key.budget: view.state.settled for view in world.control.coordinator.views()}
    assert settled["team-a/team"] == world.invoice_nanos > 0
    assert settled.get("team-a/other", 0) == 0


async def test_an_object_that_breaks_keeps_its_last_good_meaning(world: World) -> None:
    await world.apply(routing(defaultTier="no-such-tier"))
    (verdict,) = [v for key, v in world.control.compiled.verdicts.items() if key.kind == "RoutingPolicy"]
    assert not verdict.accepted
    assert await tier(world) == "standard"


@pytest.mark.parametrize(
    ("change", "wrong", "reason"),
    [
        ({"requires": ("telepathy/1",)}, {}, "telepathy/1"),
        ({"price_table": "0" * 64}, {}, "price table"),
        ({"namespace": "team-b"}, {"digest": "f" * 64}, "digest"),
        ({"providers": ()}, {}, "providers"),
    ],
    ids=["feature", "prices", "digest", "reference"],
)
async def test_a_policy_that_cannot_be_accepted_is_refused_and_the_old_one_stays(
    world: World, change: dict[str, Any], wrong: dict[str, Any], reason: str
) -> None:
    before = (await world.status())["policy"]
    policy = world.sidecar.plane.installed.policy
    sent = world.publish(msgspec.structs.replace(policy, **change), **wrong)
    if reason == "price table":  # nobody has it: asked for again, never obeyed
        await eventually(lambda: world.sidecar.policy.last_error)
    else:
        nack = await eventually(lambda: world.control.hub.nacks().get(POD.identity.uid))
        assert nack.digest == sent and reason in nack.error
    assert (await world.status())["policy"] == before
    assert await tier(world) == "standard"


async def test_without_any_policy_a_call_is_refused_and_the_sidecar_is_not_ready(empty_world: World) -> None:
    world = await empty_world.start(sidecar=False)
    await world.stop_control()
    starting = asyncio.create_task(world.start_sidecar(first_policy_seconds=0.2))
    try:
        with pytest.raises(openai.InternalServerError) as refused:
            await starting
            await world.openai.chat.completions.create(**chat())
        assert refused.value.code == "policy_missing"
        async with world.http.get(f"{world.admin_url}/readyz") as response:
            assert response.status == 503
    finally:
        await starting
