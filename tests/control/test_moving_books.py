"""Books that move to another store with all that was spent, cut short anywhere, and back."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from coordinator_samples import AT_ONCE, OTHER, POD, charged, coordinator, granted, serving, virtually
from ledger_samples import BUDGET, acquire, budget, report, want
from ledger_stores import budget_ledger, postgres
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator
from spendmesh_operator.ledger.coordinator.serving import NotServing
from spendmesh_operator.ledger.document.moves import NotMoved, Place, Sections, decide, marked
from spendmesh_operator.ledger.document.sections import LedgerUnreadable, decode
from spendmesh_operator.ledger.stores.base import Commit, Fenced, LedgerStoreError, MemoryStore, Unavailable
from spendmesh_operator.ledger.stores.moving import Kept, MovingStore
from spendmesh_sidecar.protocol import LeaseReport, ReportRequest

OBJECTS, DATABASE = Place("BudgetLedger objects", ""), Place("PostgreSQL", "eu")
IN_DATABASE = dataclasses.replace(AT_ONCE, member="eu")


class Stores:
    """Both, and the coordinators on them. `writes_left` of both together: what comes after them is lost."""

    def __init__(self) -> None:
        self.objects, self.database = Counted(self), Counted(self)
        self.writes_left: int | None = None
        self.answers_lost = False
        self._starts = 0

    def to_database(self) -> MovingStore:
        return MovingStore(Kept(self.database, DATABASE), Kept(self.objects, OBJECTS))

    def to_objects(self) -> MovingStore:
        return MovingStore(Kept(self.objects, OBJECTS), Kept(self.database, DATABASE))

    def on_database(self) -> Any:
        self._starts += 1
        return serving(self.to_database(), self._starts, settings=IN_DATABASE)

    def on_objects(self) -> Any:
        self._starts += 1
        return serving(self.to_objects(), self._starts)


class Counted(MemoryStore):
    """A store of `Stores`."""

    def __init__(self, stores: Stores) -> None:
        super().__init__()
        self._stores = stores

    async def write(self, commit: Commit) -> str:
        if self._stores.writes_left is None:
            return await super().write(commit)
        self._stores.writes_left -= 1
        if self._stores.writes_left < -1 or (self._stores.writes_left == -1 and not self._stores.answers_lost):
            raise Unavailable("the power is out")
        version = await super().write(commit)
        if self._stores.writes_left == -1:
            raise Unavailable("the power went out after it")
        return version


async def spend(at: Coordinator, amount: int, *, closed: bool = True) -> LeaseReport:
    """Lease so much, and use it up; the last report."""
    (lease,) = (await at.acquire(POD, acquire(f"r{amount}", "n", want(amount)))).leases
    said = report(lease.id, amount, closed=closed)
    await at.report(POD, ReportRequest(nonce="n", reports=(said,)))
    return said


async def many(at: Coordinator, pods: int) -> None:
    """A lease of ten for each of so many pods."""
    known = [PodIdentity("team-a", f"pod-{number}", f"uid-{number}") for number in range(1, pods + 1)]
    asked = [at.acquire(pod, acquire(f"r-{pod.uid}", f"n-{pod.uid}", want(10))) for pod in known]
    assert {granted(reply) for reply in await asyncio.gather(*asked)} == {10}


def test_all_that_was_spent_and_leased_moves_along() -> None:
    """A sidecar goes on with the lease that it has, and no more is granted than was left."""

    async def scenario() -> tuple[int, bool, int, list[str]]:
        stores = Stores()
        async with stores.on_objects() as at:
            said = await spend(at, 300, closed=False)
            await at.remember({BUDGET: budget(1000)}, {BUDGET})
        async with stores.on_database() as at:
            moved = charged(at)
            closing = ReportRequest(nonce="n", reports=(report(said.lease, 300, after=said, closed=1),))
            (state,) = (await at.report(POD, closing)).leases
            (denial,) = (await at.acquire(OTHER, acquire("o", "m", want(701)))).denials
            rest = granted(await at.acquire(OTHER, acquire("o2", "m", want(700))))
            return moved, state.fenced, rest, [denial.reason, *at.remembered()]

    assert virtually(scenario()) == (300, False, 700, ["exhausted", BUDGET])


def test_pods_that_moved_along_are_this_clusters() -> None:
    """In PostgreSQL each cluster says of its own pods alone that they are gone."""

    async def scenario() -> tuple[int, int]:
        stores = Stores()
        async with stores.on_objects() as at:
            await at.acquire(POD, acquire("r", "n", want(100)))
        async with stores.on_database() as at:
            await at.pods_are(())
            there = at.views()[0].quarantined
            await at.acquire(OTHER, acquire("o", "m", want(50)))
        async with stores.on_objects() as at:
            await at.pods_are(())
            return there, at.views()[0].quarantined

    assert virtually(scenario()) == (100, 150)


@pytest.mark.parametrize("answers_lost", [False, True])
@pytest.mark.parametrize("writes", range(5))
@pytest.mark.parametrize("then", ["again", "back"])
def test_a_move_that_is_cut_short_anywhere_loses_nothing(writes: int, answers_lost: bool, then: str) -> None:
    """Whether it is begun again or given up, all that was spent counts, and at most one store grants."""

    async def scenario() -> tuple[int, int, int]:
        stores, spent = Stores(), 300
        async with stores.on_objects() as at:
            await spend(at, 300)
        stores.writes_left, stores.answers_lost = writes, answers_lost
        try:
            async with stores.on_database() as at:
                await spend(at, 200)
                spent += 200
        except (LedgerStoreError, NotServing):
            pass
        stores.writes_left = None
        first, second = stores.on_database, stores.on_objects
        if then == "back":
            first, second = second, first
        async with first() as at:
            found = charged(at)
        async with second() as at:
            return spent, found, charged(at)

    spent, found, moved_on = virtually(scenario())
    assert spent <= found == moved_on <= 500


def test_who_still_writes_to_the_old_store_is_fenced() -> None:
    """A replica of before the change that wakes up late."""

    async def scenario() -> int:
        stores = Stores()
        async with stores.on_objects() as late:
            await spend(late, 300)
            async with stores.on_database() as at:
                await spend(at, 200)
                with pytest.raises(NotServing, match="ended"):
                    await late.acquire(OTHER, acquire("o", "m", want(10)))
                return charged(at)

    assert virtually(scenario()) == 500


def test_books_move_there_and_back_with_what_was_spent_in_both() -> None:
    """And there again, over what was left of the first time."""

    async def scenario() -> list[int]:
        stores, found = Stores(), []
        for number, on in enumerate([stores.on_objects, stores.on_database] * 3):
            async with on() as at:
                await spend(at, 10 + number)
                found.append(charged(at))
        return found

    assert virtually(scenario()) == [10, 21, 33, 46, 60, 75]


OPEN: Sections = {"head": {"format": 2, "domain": "test", "epoch": 3}}
COPY_OF_A: Sections = {"head": marked(OPEN["head"], "copy", "a", OBJECTS)}
CLOSED_BY_A: Sections = {"head": marked(OPEN["head"], "closed", "a", DATABASE)}
CLOSED_BY_B: Sections = {"head": marked(OPEN["head"], "closed", "b", DATABASE)}
OLD: Sections = {"books": {"format": 1}}
SHARED: Sections = {"head": {**OPEN["head"], "members": {"eu": 1, "us": 2}}}


@pytest.mark.parametrize(
    ("here", "there", "verdict"),
    [
        (OPEN, OPEN, "use"),
        (OPEN, {}, "use"),
        (OLD, CLOSED_BY_A, "use"),
        ({}, {}, "use"),
        ({}, OPEN, "copy"),
        (COPY_OF_A, OPEN, "copy"),
        (CLOSED_BY_A, OPEN, "copy"),
        (COPY_OF_A, CLOSED_BY_A, "open"),
        (CLOSED_BY_A, COPY_OF_A, "open"),
        ({}, CLOSED_BY_A, "the books here are missing, those in PostgreSQL are closed, because they were moved"),
        ({}, COPY_OF_A, "missing, those in PostgreSQL are an unfinished copy"),
        (CLOSED_BY_A, {}, "closed, because they were moved, those in PostgreSQL are missing"),
        (COPY_OF_A, {}, "an unfinished copy, those in PostgreSQL are missing"),
        (COPY_OF_A, CLOSED_BY_B, "an unfinished copy, those in PostgreSQL are closed"),
        (CLOSED_BY_A, CLOSED_BY_B, "closed, because they were moved, those in PostgreSQL are closed"),
        (COPY_OF_A, COPY_OF_A, "an unfinished copy, those in PostgreSQL are an unfinished copy"),
        ({}, OLD, "of an older version: start the operator on them once"),
        ({}, SHARED, "also those of us: they cannot move"),
    ],
)
def test_what_both_stores_say_decides(here: Sections, there: Sections, verdict: str) -> None:
    """Where no open books are to be found, nothing is read as zero."""
    if verdict in ("use", "copy", "open"):
        assert decide(here, there, DATABASE) == verdict
    else:
        with pytest.raises(NotMoved, match=verdict):
            decide(here, there, DATABASE)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (CLOSED_BY_A, "the books were moved to PostgreSQL: use that store, or name it beside this one"),
        (COPY_OF_A, "the books have not wholly come from BudgetLedger objects: name it beside this store"),
    ],
)
def test_books_that_are_not_open_are_no_books(sections: Sections, words: str) -> None:
    """An operator that knows one store alone grants nothing, and says what to do."""
    with pytest.raises(LedgerUnreadable, match=words):
        decode(sections, "test")


def test_a_database_that_is_gone_is_not_read_as_zero() -> None:
    """Nor is another, empty one: nothing is granted until it is back."""

    async def scenario() -> int:
        stores = Stores()
        async with stores.on_objects() as at:
            await spend(at, 300)
        async with stores.on_database() as at:
            await spend(at, 200)
        gone, stores.database = stores.database, Counted(stores)
        with pytest.raises(Fenced, match="the books here are missing"):
            await coordinator(stores.to_database(), 9, settings=IN_DATABASE).start()
        stores.database = gone
        async with stores.on_database() as at:
            return charged(at)

    assert virtually(scenario()) == 500


def test_books_that_nobody_counts_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """A second cluster comes to a database that has books already: what it had spent is not in them."""

    async def scenario() -> int:
        stores = Stores()
        async with stores.on_objects() as at:
            await spend(at, 300)
        async with serving(stores.database, 8, settings=IN_DATABASE) as at:
            await spend(at, 10)
        async with stores.on_database() as at:
            return charged(at)

    assert virtually(scenario()) == 10
    assert caplog.text.count("there are other books in BudgetLedger objects, which count for nothing here") == 1


@pytest.mark.real
def test_books_of_thousands_of_leases_move_between_real_stores(request: pytest.FixtureRequest) -> None:
    """From objects of an API server to PostgreSQL and back, each within what a store may take for one write."""
    of_objects, of_database = budget_ledger(request), postgres(request)

    async def scenario() -> list[tuple[int, int]]:
        found = []
        async with of_objects.opened() as objects, of_database.opened() as database:
            here, there = Kept(objects, OBJECTS), Kept(database, DATABASE)
            async with serving(objects, 1, amount=10**6) as at:
                await many(at, 3000)
            for number, settings, store in (
                (2, IN_DATABASE, MovingStore(there, here)),
                (3, AT_ONCE, MovingStore(here, there)),
            ):
                async with serving(store, number, settings=settings, amount=10**6) as at:
                    found.append((charged(at), len(at.books.pods.records)))
        return found

    assert asyncio.run(scenario()) == [(30_000, 3000)] * 2
