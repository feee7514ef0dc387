"""The control side of `run` and `demo`: the real compile, books in a file, hot reload, restarts that keep spend."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from control_samples import Client, client
from ledger_samples import ManualClock, acquire, want
from spendmesh_operator.local import LocalControl, LocalPod
from spendmesh_sidecar.policy import decode_policy, decode_price_table, digest
from spendmesh_sidecar.protocol import PATH_ACQUIRE, PATH_PRICE_TABLE, AccountRef, AcquireReply, Snapshot

SUPPORT = LocalPod("team-a", "support-1", token="support", labels={"app": "support"}, owner=("Deployment", "support"))
OTHER = LocalPod("team-b", "batch-1", token="batch", labels={"app": "batch"})
REF = AccountRef(budget="team-a/team", limit="hourly")


def budget(amount: str) -> dict[str, Any]:
    return {
        "apiVersion": "spendmesh.io/v1alpha1",
        "kind": "ModelBudget",
        "metadata": {"name": "team", "namespace": "team-a"},
        "spec": {
            "limits": [
                {
                    "name": "hourly",
                    "currency": "USD",
                    "amount": amount,
                    "window": {"type": "Calendar", "period": "Hour", "timeZone": "Etc/UTC"},
                }
            ]
        },
    }


@asynccontextmanager
async def control(state: Path | None, *objects: dict[str, Any]) -> AsyncIterator[LocalControl]:
    started = LocalControl(objects, [SUPPORT, OTHER], state, ManualClock(), random.Random())
    await started.start()
    try:
        yield started
    finally:
        await started.stop()


async def ask(caller: Client, nanos: int, request_id: str = "r") -> AcquireReply:
    _, body = await caller.post(PATH_ACQUIRE, acquire(request_id, "n", want(nanos, ref=REF)))
    return msgspec.json.decode(body, type=AcquireReply)


def test_a_sidecar_gets_its_policy_and_the_price_table_that_it_names() -> None:
    """What a person wrote arrives compiled; both documents match their digests."""

    async def scenario() -> tuple[list[int], bool, int]:
        async with control(None, budget("2.50")) as at, client(at.url, "support") as caller:
            async with caller.stream() as stream:
                event = await stream.next()
            assert isinstance(event, Snapshot)
            policy = decode_policy(bytes(event.policy))
            _, table = await caller.get(PATH_PRICE_TABLE.format(digest=policy.price_table))
            decode_price_table(table)
            amounts = [limit.amount for each in policy.budgets for limit in each.limits]
            return amounts, digest(table) == policy.price_table, len(policy.sources)

    amounts, matches, _ = asyncio.run(scenario())

    assert amounts == [2_500_000_000]
    assert matches


def test_another_teams_pod_has_nothing_to_do_with_the_budget() -> None:
    """Its policy has no such account."""

    async def scenario() -> list[str]:
        async with control(None, budget("2.50")) as at, client(at.url, "batch") as caller:
            return [denial.reason for denial in (await ask(caller, 1)).denials]

    assert asyncio.run(scenario()) == ["unknown"]


def test_an_edit_acts_while_it_runs() -> None:
    """The stream has the new amount, and so has the next acquire."""

    async def scenario() -> tuple[int, int]:
        async with control(None, budget("1")) as at, client(at.url, "support") as caller, caller.stream() as stream:
            await stream.next()
            await at.update([budget("3")])
            event = await stream.next()
            assert isinstance(event, Snapshot)
            (lease,) = (await ask(caller, 2_000_000_000)).leases
            return decode_policy(bytes(event.policy)).budgets[0].limits[0].amount, lease.granted

    assert asyncio.run(scenario()) == (3_000_000_000, 2_000_000_000)


def test_a_restart_gives_nothing_back(tmp_path: Path) -> None:
    """Books are in the state directory, which is its owner's only."""

    async def scenario() -> tuple[int, list[str]]:
        async with control(tmp_path / "state", budget("1")) as at, client(at.url, "support") as caller:
            await ask(caller, 900_000_000)
        async with control(tmp_path / "state", budget("1")) as at, client(at.url, "support") as caller:
            reply = await ask(caller, 200_000_000, "r2")
            return at.coordinator.states()["team-a/team", "hourly", ()].charged, [d.reason for d in reply.denials]

    assert asyncio.run(scenario()) == (900_000_000, ["in_flight"])
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_budget_that_becomes_unreadable_over_a_restart_keeps_its_last_meaning(tmp_path: Path) -> None:
    """Contract §1: kept with the books, a rejected edit never loosens."""

    async def scenario() -> tuple[int, list[str]]:
        async with control(tmp_path, budget("1")) as at, client(at.url, "support") as caller:
            await ask(caller, 100_000_000)
        async with control(tmp_path, budget("a lot")) as at, client(at.url, "support") as caller:
            (lease,) = (await ask(caller, 100_000_000)).leases
            denied = await ask(caller, 950_000_000, "r2")
            return lease.granted, [denial.reason for denial in denied.denials]

    assert asyncio.run(scenario()) == (100_000_000, ["in_flight"])


def test_a_budget_that_never_was_readable_refuses_as_unverifiable() -> None:
    """It does not mean "no limit"."""

    async def scenario() -> list[str]:
        async with control(None, budget("a lot")) as at, client(at.url, "support") as caller:
            async with caller.stream() as stream:
                event = await stream.next()
            assert isinstance(event, Snapshot)
            (unreadable,) = decode_policy(bytes(event.policy)).budgets
            ref = AccountRef(budget=unreadable.name, limit=unreadable.limits[0].name)
            _, body = await caller.post(PATH_ACQUIRE, acquire("r", "n", want(1, ref=ref)))
            return [denial.reason for denial in msgspec.json.decode(body, type=AcquireReply).denials]

    assert asyncio.run(scenario()) == ["unverifiable"]
