"""Clusters that write the same books, one of which does not hear what became of its write."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable

import pytest

from coordinator_samples import AT_ONCE, OTHER, POD, THIRD, coordinator, granted, virtually
from ledger_samples import acquire, report, want
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator, NotServing
from spendmesh_operator.ledger.coordinator.writer import REFRESH_SECONDS
from spendmesh_operator.ledger.document.sections import decode
from spendmesh_operator.ledger.stores.base import Commit, MemoryStore, Stored, Unavailable, check_expected
from spendmesh_sidecar.protocol import ReportRequest


class Shared:
    """What PostgreSQL keeps: one version of the sections, and of each cluster its epoch and its newest commit."""

    def __init__(self) -> None:
        self.stored = Stored()
        self.clusters: dict[str, tuple[int, str]] = {}
        self.version = 0

    def charged(self) -> int:
        """Of the one account."""
        [account] = decode(self.stored.sections, "test").holdings.accounts.values()
        return account.charged


class Cluster(MemoryStore):
    """One cluster's way to it. `meanwhile` happens after the next write, whose answer is lost."""

    def __init__(self, shared: Shared, name: str) -> None:
        super().__init__()
        self.shared, self.name = shared, name
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.reads = 0

    async def read(self) -> Stored:
        self.reads += 1
        stored, known = self.shared.stored, self.shared.clusters.get(self.name)
        epoch, commits = (known[0], frozenset({known[1]})) if known else (0, frozenset())
        return Stored(stored.version, stored.sections, epoch, commits)

    async def write(self, commit: Commit) -> str:
        shared, (epoch, _) = self.shared, self.shared.clusters.get(self.name, (0, ""))
        check_expected(commit, shared.stored.version, epoch)
        shared.version += 1
        kept = {name: each for name, each in shared.stored.sections.items() if name not in commit.drop}
        shared.stored = Stored(str(shared.version), {**kept, **commit.put})
        shared.clusters[self.name] = commit.epoch, commit.id
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
            raise Unavailable("the reply was lost")
        return shared.stored.version


def member(shared: Shared, name: str, seed: int) -> tuple[Cluster, Coordinator]:
    store = Cluster(shared, name)
    return store, coordinator(store, seed, settings=dataclasses.replace(AT_ONCE, member=name))


@pytest.mark.parametrize("lost", ["a grant", "the start"])
def test_a_cluster_that_finds_its_lost_write_keeps_what_another_one_wrote_after_it(lost: str) -> None:
    """Else its next write would take the other one's grants out of the books, and they could be granted again."""

    async def scenario() -> tuple[int, int]:
        shared = Shared()
        (store, one), (_, two) = member(shared, "one", 1), member(shared, "two", 2)
        await two.start()

        async def grant() -> None:
            await two.acquire(OTHER, acquire("o", "m", want(400)))

        if lost == "the start":
            store.meanwhile = grant
        await one.start()
        if lost == "a grant":
            store.meanwhile = grant
        answers = [await one.acquire(POD, acquire(name, "n", want(100))) for name in ("r", "s")]
        await one.stop()
        await two.stop()
        return granted(answers[-1]), shared.charged()

    assert asyncio.run(scenario()) == (200, 600)


def test_no_lease_id_comes_twice_if_only_one_of_two_clusters_lost_what_it_wrote() -> None:
    """The store is restored to what the first one wrote last: it notices nothing, and goes on in its own life."""

    async def scenario() -> tuple[str, str]:
        shared = Shared()
        (_, one), (_, two) = member(shared, "one", 1), member(shared, "two", 2)
        await one.start()
        await two.start()
        await one.acquire(POD, acquire("r", "n", want(100)))
        backup = shared.stored, dict(shared.clusters)
        (lost,) = (await two.acquire(OTHER, acquire("s", "m", want(100)))).leases
        shared.stored, shared.clusters = backup
        (other,) = (await one.acquire(THIRD, acquire("t", "o", want(100)))).leases
        await one.stop()
        await two.stop()
        return lost.id, other.id

    lost, other = asyncio.run(scenario())

    assert lost != other


@pytest.mark.parametrize("ended", ["before a decision", "after a refusal"])
def test_whoever_is_being_served_when_the_books_turn_out_to_be_anothers_is_told_to_ask_again(ended: str) -> None:
    """It would wait for ever; what tells the books of pods and budgets tells nothing more while it waits."""

    async def scenario() -> None:
        shared = Shared()
        (_, one), (_, two) = member(shared, "one", 1), member(shared, "one", 2)
        await one.start()
        if ended == "after a refusal":
            await one.acquire(POD, acquire("r", "n", want(600)))
            await one.acquire(POD, acquire("s", "n", want(100)))
        await two.start()
        if ended == "before a decision":
            await asyncio.sleep(REFRESH_SECONDS)
        with pytest.raises(NotServing, match="retry"):
            async with asyncio.timeout(5):
                await one.acquire(OTHER, acquire("o", "m", want(900)))
        await one.stop()
        await two.stop()

    virtually(scenario())


def test_what_another_cluster_gave_back_a_moment_ago_is_granted_here() -> None:
    """Before a refusal the books are read again, however fresh they are: what is free in them is refused to nobody."""

    async def scenario() -> list[str]:
        shared = Shared()
        (_, one), (_, two) = member(shared, "one", 1), member(shared, "two", 2)
        await one.start()
        await two.start()
        (lease,) = (await one.acquire(POD, acquire("r", "n", want(900)))).leases
        answers = [await two.acquire(OTHER, acquire("first", "m", want(500)))]
        closing = ReportRequest(nonce="n", reports=(report(lease.id, 100, closed=1),))
        await one.report(POD, closing)
        answers.append(await two.acquire(OTHER, acquire("second", "m", want(500))))
        await one.stop()
        await two.stop()
        return [each.denials[0].reason if each.denials else "granted" for each in answers]

    assert virtually(scenario()) == ["in_flight", "granted"]


def test_what_others_may_have_written_is_read_once_a_second_while_nothing_is_refused() -> None:
    """Reads do not grow with the number of sidecars."""

    async def scenario() -> list[int]:
        store, at = member(Shared(), "one", 1)
        await at.start()
        await asyncio.sleep(2 * REFRESH_SECONDS)
        began, reads = store.reads, []
        for number, pause in enumerate((0.0, 0.0, REFRESH_SECONDS, 0.0)):
            await asyncio.sleep(pause)
            await at.acquire(POD, acquire(f"r{number}", "n", want(10)))
            reads.append(store.reads - began)
        await at.stop()
        return reads

    assert virtually(scenario()) == [1, 1, 2, 2]
