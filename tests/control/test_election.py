"""Exactly one replica leads, and hands over: `spendmesh_operator.kube.election`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import given, strategies as st

from control_plane import ControlPlane
from spendmesh_operator.kube.client import Kube, KubeUnavailable
from spendmesh_operator.kube.election import (
    LEASE_SECONDS,
    RENEW_DEADLINE_SECONDS,
    Election,
    Record,
    observe,
    step,
)


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(holder: str, seen_at: float = 0, version: str = "1") -> Record:
    return Record(version, holder, LEASE_SECONDS, 0, "https://10.0.0.1:8443", seen_at)


def test_what_a_candidate_does_next() -> None:
    assert step(None, "me", 0) == "create"
    assert step(record("me"), "me", 99) == "renew"
    assert step(record("other"), "me", LEASE_SECONDS - 1) == "wait"
    assert step(record("other"), "me", LEASE_SECONDS) == "take"
    assert step(record(""), "me", 0) == "take"


def test_a_lease_counts_from_when_this_replica_saw_it_change() -> None:
    """The leader's clock may be years off; what it writes into renewTime is not read."""
    lease: dict[str, Any] = {
        "metadata": {"resourceVersion": "7"},
        "spec": {"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": "1970-01-01T00:00:00.000000Z"},
    }
    first = observe(lease, None, 100)
    assert not first.expired(114) and first.expired(115)
    assert observe(lease, first, 110).seen_at == 100
    lease["metadata"]["resourceVersion"] = "8"
    assert observe(lease, first, 110).seen_at == 110


@given(st.floats(0, 10), st.floats(0, 10))
def test_a_leader_stops_before_another_may_begin(renewed: float, answered: float) -> None:
    """Whenever within a renewal the server wrote, nobody takes the Lease before the old leader's own deadline."""
    written = renewed + answered
    other_may_take = written + LEASE_SECONDS
    assert renewed + RENEW_DEADLINE_SECONDS < other_may_take


class FakeKube:
    """Only what a lost API server does to a leader; everything else is tested against a real one."""

    def __init__(self) -> None:
        self.lost = False
        self.lease: dict[str, Any] | None = None

    async def get(self, path: str) -> dict[str, Any]:
        if self.lost or self.lease is None:
            raise KubeUnavailable(0, "NoAnswer", path)
        return self.lease

    async def replace(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.lost:
            raise KubeUnavailable(0, "NoAnswer", path)
        self.lease = body
        return body


def test_a_leader_that_cannot_renew_stops_by_its_own_clock() -> None:
    """Also while no code of ours runs: `is_leader` asks the clock, not a flag."""
    clock, fake = Clock(), FakeKube()
    fake.lease = {"metadata": {"name": "l", "resourceVersion": "1"}, "spec": {"holderIdentity": ""}}

    async def run() -> None:
        election = candidate(fake, "me", clock)  # type: ignore[arg-type]
        await election._try_once()
        assert election.is_leader() and election.address() == "https://me:8443"
        fake.lost = True
        clock.now += RENEW_DEADLINE_SECONDS - 0.001
        assert election.is_leader()
        clock.now += 0.001
        assert not election.is_leader()
        await election._try_once()
        await asyncio.wait_for(election.deposed(), 60)

    asyncio.run(run())


def candidate(kube: Kube, name: str, clock: Clock, namespace: str = "default", lease: str = "l") -> Election:
    return Election(
        kube,
        namespace=namespace,
        name=lease,
        identity=f"{name}_1",
        own_address=f"https://{name}:8443",
        monotonic=clock,
    )


@contextlib.asynccontextmanager
async def running(election: Election) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(election.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_one_of_two_leads_the_other_knows_its_address_and_follows_it(control_plane: ControlPlane) -> None:
    """On cancellation the Lease is given back, and the other leads without waiting for it to run out."""
    control_plane.create_namespace("election-two")

    async def run() -> None:
        kube = await Kube.connect(str(control_plane.kubeconfig))
        first = candidate(kube, "first", Clock(), "election-two")
        second = candidate(kube, "second", Clock(), "election-two")
        try:
            async with running(first) as leader:
                await asyncio.wait_for(first.elected(), 60)
                async with running(second):
                    async with asyncio.timeout(60):
                        while second.address() is None:
                            await asyncio.sleep(0.05)
                    assert second.address() == "https://first:8443" and not second.is_leader()
                    leader.cancel()
                    await asyncio.wait_for(second.elected(), 60)
                    assert second.address() == "https://second:8443" and not first.is_leader()
        finally:
            await kube.close()

    asyncio.run(run())
    lease = control_plane.api.call("GET", "/apis/coordination.k8s.io/v1/namespaces/election-two/leases/l")
    assert lease["spec"]["leaseTransitions"] == 1 and not lease["spec"].get("holderIdentity")


def test_a_silent_leader_is_replaced_after_its_time(control_plane: ControlPlane) -> None:
    """A killed leader gives nothing back; others wait for as long as it promised, by their own clock."""
    control_plane.create_namespace("election-silent")

    async def run() -> None:
        kube = await Kube.connect(str(control_plane.kubeconfig))
        clock = Clock()
        killed, other = (candidate(kube, name, clock, "election-silent") for name in ("killed", "other"))
        try:
            await killed._try_once()
            await other._try_once()
            assert killed.is_leader() and not other.is_leader()
            clock.now += LEASE_SECONDS - 0.1
            await other._try_once()
            assert not other.is_leader()
            clock.now += 0.2
            await other._try_once()
            assert other.is_leader() and not killed.is_leader()
            await killed._try_once()
            assert not killed.is_leader() and killed.address() == "https://other:8443"
        finally:
            await kube.close()

    asyncio.run(run())
