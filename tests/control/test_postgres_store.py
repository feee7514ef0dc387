"""The books in PostgreSQL: restarts, clusters that share a budget, tables of other versions, and what is never said."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import pytest

from coordinator_samples import AT_ONCE, OTHER, POD, charged, coordinator, granted
from ledger_samples import BUDGET, ManualClock, acquire, budget, report, want
from postgres import Postgres
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator
from spendmesh_operator.ledger.stores.base import Commit, Fenced, Unavailable
from spendmesh_operator.ledger.stores.postgres import PostgresStore
from spendmesh_operator.ledger.stores.postgres_schema import MIGRATIONS
from spendmesh_sidecar.protocol import ReportRequest

T = TypeVar("T")
SECRET = "canary-password"


@asynccontextmanager
async def opened(dsn: str, member: str = "one", domain: str = "prod") -> AsyncIterator[PostgresStore]:
    store = PostgresStore(lambda: dsn, domain, member)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
def dsn(postgres: Postgres) -> str:
    """A new database."""
    return postgres.create(f"test-{uuid.uuid4().hex[:12]}")


def commit(number: int, expected: str, *, epoch: int = 1, **put: dict[str, Any]) -> Commit:
    return Commit(f"commit-{number}", epoch, expected, put)


async def on(dsn: str, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
    connection = await asyncpg.connect(dsn)
    try:
        return await work(connection)
    finally:
        await connection.close()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_a_restart_of_the_server_loses_nothing_and_needs_no_help(
    postgres: Postgres, dsn: str, by: signal.Signals
) -> None:
    """Row 15: a fail-over is an unknown outcome or none; the store connects again by itself."""

    async def scenario() -> dict[str, Any]:
        async with opened(dsn) as store:
            await store.write(commit(1, "", head={"n": 1}))
            postgres.stop(by)
            with pytest.raises(Unavailable):
                await store.read()
            postgres.start()
            stored = await store.read()
            await store.write(commit(2, stored.version, more={"n": 2}))
            return dict((await store.read()).sections)

    assert asyncio.run(scenario()) == {"head": {"n": 1}, "more": {"n": 2}}


def test_ten_replicas_that_start_at_once_make_the_tables_once(dsn: str) -> None:
    """Of several clusters: no start fails because of another one."""

    async def scenario() -> int:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(dsn)) for _ in range(10)]
            await asyncio.gather(*(store.read() for store in stores))
        return int(await on(dsn, lambda connection: connection.fetchval("SELECT count(*) FROM spendmesh_schema")))

    assert asyncio.run(scenario()) == 1


def test_tables_of_a_newer_version_are_refused_with_the_fix(dsn: str) -> None:
    """Row 33: an older operator after a roll-back writes nothing."""

    async def scenario() -> None:
        async with opened(dsn) as store:
            await store.read()
        newer = f"UPDATE spendmesh_schema SET version = {len(MIGRATIONS) + 1}"
        await on(dsn, lambda connection: connection.execute(newer))
        async with opened(dsn) as store:
            await store.read()

    with pytest.raises(Unavailable, match="upgrade it"):
        asyncio.run(scenario())


def test_a_server_that_may_forget_what_it_acknowledged_is_refused(postgres: Postgres, dsn: str) -> None:
    """With fsync off a power cut gives spent money back."""

    async def scenario() -> None:
        async with opened(dsn) as store:
            await store.read()

    postgres.stop()
    postgres.start("fsync=off")
    try:
        with pytest.raises(Unavailable, match=r"fsync off.*set it on"):
            asyncio.run(scenario())
    finally:
        postgres.stop()
        postgres.start()


def test_a_commit_is_synchronous_also_where_the_server_is_not(postgres: Postgres, dsn: str) -> None:
    """`synchronous_commit = off` as a server's default would lose the last moments before a crash."""

    async def scenario() -> int:
        async with opened(dsn) as store:
            version = await store.write(commit(0, "", head={"n": 0}))
            for number in range(1, 21):
                version = await store.write(commit(number, version, head={"n": number}))
            postgres.stop(signal.SIGKILL)
        postgres.start("synchronous_commit=off", "wal_writer_delay=10s")
        async with opened(dsn) as store:
            return int((await store.read()).sections["head"]["n"])

    postgres.stop()
    postgres.start("synchronous_commit=off", "wal_writer_delay=10s")
    try:
        assert asyncio.run(scenario()) == 20
    finally:
        postgres.stop()
        postgres.start()


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/x",
        f"postgresql://me:{SECRET}@[::1:5432/x",
        f"mysql://me:{SECRET}@127.0.0.1/x",
        f"postgresql://me:{SECRET}@127.0.0.1/x?sslmode={SECRET}",
        "",
    ],
)
def test_an_address_that_does_not_work_is_an_error_without_the_password(address: str) -> None:
    """Row 30: not in the message, nor in what an error log would show of its causes."""

    async def scenario() -> None:
        async with opened(address) as store:
            await store.read()

    with pytest.raises(Unavailable) as caught:
        asyncio.run(scenario())
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__


def test_a_standby_is_read_but_not_written(postgres: Postgres, dsn: str) -> None:
    """The outcome is known to be nothing; the coordinator tries again."""

    async def scenario() -> None:
        async with opened(dsn) as store:
            version = await store.write(commit(1, "", head={}))
            database = dsn.rpartition("/")[2]
            await on(dsn, lambda it: it.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on'))
        async with opened(dsn) as store:
            assert (await store.read()).version == version
            with pytest.raises(Unavailable, match="read-only"):
                await store.write(commit(2, version, head={}))

    asyncio.run(scenario())


# --- several clusters on one database ---------------------------------------------------------------------


def test_members_do_not_fence_each_other_and_see_each_others_sections(dsn: str) -> None:
    """Each cluster has its own leaders, and so its own epochs."""

    async def scenario() -> None:
        async with opened(dsn, "one") as one, opened(dsn, "two") as two:
            version = await one.write(commit(1, "", epoch=7, head={"by": "one"}))
            stored = await two.read()
            assert (stored.version, stored.epoch, stored.sections) == (version, 0, {"head": {"by": "one"}})
            version = await two.write(commit(2, version, epoch=1, head={"by": "two"}))
            assert (await one.read()).commits == {"commit-1"}
            await one.write(commit(3, version, epoch=7, head={"by": "one"}))
            with pytest.raises(Fenced):
                await one.write(commit(4, version, epoch=6))

    asyncio.run(scenario())


def test_two_operators_on_one_database_share_one_budget(dsn: str) -> None:
    """The second one's commit finds another version, reads again and decides anew: together never above the limit."""

    async def scenario() -> tuple[int, list[str], int]:
        async with opened(dsn, "one", "test") as first, opened(dsn, "two", "test") as second:
            one, two = member(first, "one"), member(second, "two")
            await one.start()
            await two.start()
            lease = granted(await one.acquire(POD, acquire("r", "n", want(700))))
            reply = await two.acquire(OTHER, acquire("o", "m", want(700)))
            rest = granted(await two.acquire(OTHER, acquire("o2", "m", want(300))))
            assert one.serving and two.serving
            total = charged(two)
            await one.stop()
            await two.stop()
            return lease + rest, [denial.reason for denial in reply.denials], total

    assert asyncio.run(scenario()) == (1000, ["in_flight"], 1000)


def member(store: PostgresStore, name: str, *, clock: ManualClock | None = None) -> Coordinator:
    """The coordinator of one of several clusters."""
    settings = dataclasses.replace(AT_ONCE, member=name)
    return coordinator(store, hash(name) % 1000, clock=clock, settings=settings)


@asynccontextmanager
async def clusters(dsn: str, clock: ManualClock | None = None) -> AsyncIterator[tuple[Coordinator, Coordinator]]:
    """Two clusters with the same domain on one database."""
    async with opened(dsn, "one", "test") as first, opened(dsn, "two", "test") as second:
        one, two = member(first, "one", clock=clock), member(second, "two", clock=clock)
        await one.start()
        await two.start()
        try:
            yield one, two
        finally:
            await one.stop()
            await two.stop()


def test_one_cluster_does_not_declare_the_other_ones_pods_gone_or_silent(dsn: str) -> None:
    """It cannot know: only who runs a pod hears it, and sees it deleted."""

    async def scenario() -> tuple[dict[str, str], dict[str, str]]:
        def holders(at: Coordinator) -> dict[str, str]:
            return {each.pod: each.quarantined for each in at.views()[0].holders}

        clock = ManualClock()
        async with clusters(dsn, clock) as (one, two):
            await one.acquire(POD, acquire("r", "n", want(10)))
            await two.acquire(OTHER, acquire("o", "m", want(10)))
            await two.pods_are([OTHER.uid])
            clock.advance(120)
            await two.report(OTHER, ReportRequest(nonce="m", reports=()))
            await two.sweep()
            before = holders(two)
            await one.pods_are([])
            await two.acquire(OTHER, acquire("o2", "m", want(20)))
            return before, holders(two)

    mine, others = f"team-a/{OTHER.name}", f"team-a/{POD.name}"
    assert asyncio.run(scenario()) == ({mine: "", others: ""}, {mine: "", others: "gone"})


def test_what_the_other_cluster_gave_back_is_granted_at_once(dsn: str) -> None:
    """No false refusal: before it says no, a coordinator looks what others wrote meanwhile."""

    async def scenario() -> int:
        async with clusters(dsn) as (one, two):
            (lease,) = (await one.acquire(POD, acquire("r", "n", want(900)))).leases
            assert (await two.acquire(OTHER, acquire("o", "m", want(500)))).denials
            await one.report(POD, ReportRequest(nonce="n", reports=(report(lease.id, 100, closed=1),)))
            return granted(await two.acquire(OTHER, acquire("o2", "m", want(500))))

    assert asyncio.run(scenario()) == 500


def test_each_cluster_remembers_its_own_budgets(dsn: str) -> None:
    """A budget that one of them does not have is not forgotten for the other."""

    async def scenario() -> tuple[object, object]:
        async with clusters(dsn) as (one, two):
            await one.remember({BUDGET: budget(1)}, {BUDGET})
            await two.remember({BUDGET: budget(2)}, {BUDGET})
            both = one.remembered(), two.remembered()
            assert both == ({BUDGET: budget(1)}, {BUDGET: budget(2)})
            await one.remember({}, ())
            return one.remembered(), two.remembered()

    assert asyncio.run(scenario()) == ({}, {BUDGET: budget(2)})


def test_clusters_that_define_a_budget_differently_grant_nothing_until_both_are_equal(dsn: str) -> None:
    """Contract §4: and each says where they differ (all fields: test_diverging)."""

    async def scenario() -> tuple[list[str], int]:
        async with clusters(dsn) as (one, two):
            await one.remember({BUDGET: budget(1000)}, {BUDGET})
            await two.remember({BUDGET: budget(2000)}, {BUDGET})
            denied = (await one.acquire(POD, acquire("r", "n", want(10)))).denials
            said = [one.differences()[BUDGET], two.differences()[BUDGET], denied[0].why]
            await two.remember({BUDGET: budget(1000)}, {BUDGET})
            return said, granted(await one.acquire(POD, acquire("r2", "n", want(10))))

    other = "spec.limits[hourly].amount is not the same in cluster {!r}, which has the same books"
    assert asyncio.run(scenario()) == ([other.format("two"), other.format("one"), other.format("two")], 10)


def test_two_operators_race_for_the_last_of_a_budget(dsn: str) -> None:
    """Exact under concurrency: what both have granted is what the books hold, and not more than the limit."""

    async def scenario() -> tuple[int, int]:
        async with opened(dsn, "one", "test") as first, opened(dsn, "two", "test") as second:
            both = [member(first, "one"), member(second, "two")]
            for each in both:
                await each.start()
            replies = await asyncio.gather(
                *(
                    at.acquire(pod, acquire(f"r{number}", f"n-{pod.uid}", want(100)))
                    for number in range(8)
                    for at, pod in zip(both, (POD, OTHER), strict=True)
                )
            )
            told: dict[str, int] = {}
            for reply in replies:
                for lease in reply.leases:
                    told[lease.id] = max(told.get(lease.id, 0), lease.granted)
            async with opened(dsn, "three", "test") as third:
                reader = member(third, "three")
                await reader.start()
                total = charged(reader)
                await reader.stop()
            for each in both:
                await each.stop()
            return sum(told.values()), total

    assert asyncio.run(scenario()) == (1000, 1000)
