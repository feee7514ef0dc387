"""A RetryBudget of scope Cluster with real sidecars and a real control server: one bound for all pods together."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import openai
import pytest

from sidecar_beside import MovedClock, chat, eventually
from sidecar_manifests import NAMESPACE, retries
from sidecar_world import OPENAI_KEY, POD, World
from spendmesh_operator.local import LocalPod
from spendmesh_sidecar import protocol
from spendmesh_sidecar.control.client import ControlUnavailable
from spendmesh_sidecar.control.retry_shares import RetrySharing
from spendmesh_sidecar.core.failures.retry_share import SharedRetryBudget
from spendmesh_sidecar.core.specs import RetrySpec
from spendmesh_sidecar.keys import StaticKeys
from spendmesh_sidecar.process import Sidecar
from spendmesh_sidecar.settings import Address, Settings
from spendmesh_standin import FaultRule

pytestmark = pytest.mark.anyio

SECOND = LocalPod(NAMESPACE, "app-2", token="token-of-the-second-pod")
NAME = f"{NAMESPACE}/default"
HOUR = 3600.0


def shared(floor: int = 3, expired: str = "Deny", **spec: Any) -> dict[str, Any]:
    """So many retries in an hour for all pods together, whatever succeeds."""
    return retries(
        failures=0,
        scope="Cluster",
        cluster={"leaseDuration": "5m", "refreshInterval": "1s", "onLeaseExpired": expired},
        retryConstraint={
            "budget": {"percent": 0, "interval": "1h"},
            "minRetryRate": {"count": floor, "interval": "1h"},
        },
        **spec,
    )


async def second_sidecar(world: World) -> Sidecar:
    await world.control.admit(SECOND)
    settings = Settings(control_url=world.control_url, listen=Address("127.0.0.1", 0), admin=Address("127.0.0.1", 0))
    return await Sidecar.start(settings, keys=StaticKeys({"openai": OPENAI_KEY}), token=SECOND.token, rng=Random(8))


def share_of(sidecar: Sidecar) -> SharedRetryBudget:
    (found,) = sidecar.plane.shared_retries
    return found


async def fail(client: openai.AsyncOpenAI, times: int) -> list[str]:
    """Calls that end in the provider's error; why each was not tried again."""
    why = []
    for _ in range(times):
        with pytest.raises(openai.InternalServerError) as failed:
            await client.chat.completions.create(**chat())
        why.append(failed.value.response.headers["x-spendmesh-retry-denied"])
    return why


async def test_all_pods_together_retry_no_more_than_one_budget_pays_for(empty_world: World) -> None:
    """Also in an outage in which every pod would like to retry each call twice."""
    world = await empty_world.start(shared(floor=3))
    other = await second_sidecar(world)
    try:
        client = await world.client(f"http://{other.address}/openai/v1")
        await eventually(lambda: share_of(world.sidecar).held.number > 1 and share_of(other).held.number > 1)
        world.standin.faults(FaultRule("status", status=503))
        why = await asyncio.gather(fail(world.openai, 8), fail(client, 8))
    finally:
        await other.stop()
    retried = len(world.provider_requests()) - 16
    assert 0 < retried <= 3
    assert set(why[0][3:] + why[1][3:]) == {"budget"}
    assert retried == sum(each.plane.retry_budgets.of(share_of(each).spec).retries for each in (world.sidecar, other))


async def test_without_an_answer_first_tries_go_on_and_retries_do_as_the_policy_says(empty_world: World) -> None:
    world = await empty_world.start(shared(floor=3, expired="Deny"), sidecar=False)
    clock = MovedClock()
    await world.start_sidecar(clock=clock)
    await eventually(lambda: share_of(world.sidecar).held.number > 0)
    await world.stop_control()
    clock.skip(HOUR)
    world.standin.faults(FaultRule("status", status=503, first=2))
    assert await fail(world.openai, 2) == ["budget", "budget"]
    await world.openai.chat.completions.create(**chat())
    assert len(world.provider_requests()) == 3
    assert await world.total("spendmesh_retry_share_leased", budget=NAME) == 0


async def test_the_scope_can_change_while_pods_run(empty_world: World) -> None:
    """For each pod, shared, and back: the budget that pays is the one that the policy says, without a restart."""
    alone = retries(failures=0)
    world = await empty_world.start(alone)
    world.standin.faults(FaultRule("status", status=503))
    assert await fail(world.openai, 1) == ["attempts"]
    await world.apply(shared(floor=1))
    await world.programmed()
    await eventually(lambda: share_of(world.sidecar).leased(world.sidecar.plane.clock.monotonic()))
    assert await fail(world.openai, 2) == ["budget", "budget"]
    await world.apply(alone)
    await world.programmed()
    assert world.sidecar.plane.shared_retries == ()
    assert await fail(world.openai, 1) == ["attempts"]


async def test_an_observed_shared_budget_is_supplied_and_changes_nothing(empty_world: World) -> None:
    observed = shared(floor=1, mode="Observe")
    observed["metadata"] = {**observed["metadata"], "name": "trial"}
    world = await empty_world.start(retries(failures=0), observed)
    await eventually(lambda: share_of(world.sidecar).leased(world.sidecar.plane.clock.monotonic()))
    world.standin.faults(FaultRule("status", status=503))
    assert await fail(world.openai, 1) == ["attempts"]
    assert await world.total("spendmesh_observed_retries_total", decision="retry") == 1
    assert await world.total("spendmesh_observed_retries_total", decision="budget") == 1


async def test_a_sidecar_that_stops_gives_its_share_back(empty_world: World) -> None:
    """The next pod need not wait for the lease to run out."""
    world = await empty_world.start(shared(floor=3))
    await eventually(lambda: share_of(world.sidecar).held.number > 0)
    await world.stop_sidecar()
    (pool,) = world.control.retries.views()
    assert (pool.name, pool.granted) == (NAME, 0)


class Coordinator:
    """Stands where a control client does; answers while `answers`, and counts what it is asked."""

    def __init__(self) -> None:
        self.answers = True
        self.asked: list[protocol.ShareRequest] = []

    async def share(self, request: protocol.ShareRequest) -> protocol.ShareReply:
        self.asked.append(request)
        if not self.answers:
            raise ControlUnavailable("nobody there")
        return protocol.ShareReply(grants=())


async def test_without_a_shared_budget_the_coordinator_hears_nothing() -> None:
    """And as soon as there is one, it is asked at once, and again after a failure."""
    shares: tuple[SharedRetryBudget, ...] = ()
    clock, coordinator = MovedClock(), Coordinator()
    looked = 0

    def budgets() -> tuple[SharedRetryBudget, ...]:
        nonlocal looked
        looked += 1
        return shares

    sharing = RetrySharing(coordinator, budgets, clock, Random(1), "i")  # type: ignore[arg-type]
    await sharing.start()
    await eventually(lambda: looked > 2)
    assert coordinator.asked == []
    coordinator.answers = False
    shares = (SharedRetryBudget(RetrySpec(name=NAME, scope="Cluster")),)
    await eventually(lambda: len(coordinator.asked) == 1)
    coordinator.answers = True
    clock.skip(10.0)
    await eventually(lambda: len(coordinator.asked) == 2)
    await sharing.stop()
    assert [report.sequence for request in coordinator.asked for report in request.reports] == [1, 2]
    assert POD.token not in repr(coordinator.asked)
