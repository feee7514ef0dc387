"""BudgetLedger objects: what happens when answers get lost, when a commit stops half-way, and when an object is lost.

What all stores must do is in test_ledger_store.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from control_plane import ControlPlane
from ledger_samples import ManualClock, SamplePublished, acquire, budget, sample_policy, want
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.kube.client import Kube, KubeUnavailable
from spendmesh_operator.kube.ledger_store import WRITES_AT_ONCE, BudgetLedgerStore
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.stores.base import Commit, Conflict, Document, Fenced, Stored, Unavailable

Json = dict[str, Any]
LEDGERS = "/apis/spendmesh.io/v1alpha1/namespaces/default/budgetledgers"
WRITES = ("POST", "PUT", "DELETE")


class LosingKube(Kube):
    """A real client whose n-th write from now on gets lost: the request, or only its answer."""

    lose_request = lose_answer = 0
    writes = 0

    async def _request(self, method: str, path: str, *arguments: Any) -> Json:
        if method not in WRITES:
            return await super()._request(method, path, *arguments)
        self.writes += 1
        self.lose_request -= 1
        self.lose_answer -= 1
        if self.lose_request == 0:
            raise KubeUnavailable(0, "NoAnswer", "the request was lost")
        answer = await super()._request(method, path, *arguments)
        if self.lose_answer == 0:
            raise KubeUnavailable(0, "NoAnswer", "the answer was lost")
        return answer


def run(plane: ControlPlane, name: str, work: Callable[[LosingKube, BudgetLedgerStore], Awaitable[None]]) -> None:
    async def with_store() -> None:
        kube = await LosingKube.connect(str(plane.kubeconfig))
        assert isinstance(kube, LosingKube)
        try:
            await work(kube, BudgetLedgerStore(kube, "default", name))
        finally:
            await kube.close()

    asyncio.run(with_store())


def sized(kilobytes: int, note: str = "") -> Document:
    """A section of some size."""
    return {"note": note, "text": "x" * (kilobytes * 1024)}


def commit(number: int, expected: str, *, epoch: int = 1, drop: tuple[str, ...] = (), **put: Document) -> Commit:
    return Commit(f"commit-{number}", epoch, expected, put, frozenset(drop))


def notes(stored: Stored) -> dict[str, str]:
    return {name: document["note"] for name, document in stored.sections.items()}


async def objects(kube: Kube, domain: str) -> dict[str, Json]:
    """All objects of a domain, by the end of their names."""
    items, _ = await kube.list(LEDGERS)
    named = {one["metadata"]["name"]: one["spec"] for one in items}
    return {name.removeprefix(domain): spec for name, spec in named.items() if name.startswith(domain)}


@pytest.mark.parametrize("first", [True, False])
def test_a_lost_answer_is_found_by_the_commits_id(kinds: ControlPlane, first: bool) -> None:
    """The write was done: reading again says so, and the store goes on from there."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        expected = "" if first else await store.write(commit(0, "", head=sized(0)))
        kube.lose_answer = 3 if first else 1
        with pytest.raises(Unavailable):
            await store.write(commit(1, expected, head=sized(0, "new")))
        stored = await store.read()
        assert "commit-1" in stored.commits and notes(stored) == {"head": "new"}
        await store.write(commit(2, stored.version, head=sized(0, "newer")))

    run(kinds, f"lost-answer-{first}".lower(), work)


def test_a_lost_request_is_an_unknown_outcome(kinds: ControlPlane) -> None:
    """It may still arrive: only the coordinator may decide to send it again."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write(commit(0, "", head=sized(0)))
        kube.lose_request = 1
        with pytest.raises(Unavailable):
            await store.write(commit(1, version, head=sized(0, "new")))
        stored = await store.read()
        assert (stored.version, stored.commits) == (version, {"commit-0"})
        await store.write(commit(1, version, head=sized(0, "new")))

    run(kinds, "lost-request", work)


def test_a_write_that_arrives_late_finds_another_version(kinds: ControlPlane) -> None:
    """Given up is not undone: the next commit writes that object again, whatever it is about."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write(commit(0, "", small=sized(1), large=sized(95)))
        before = await objects(kube, "late-write")
        kube.lose_request = 1
        with pytest.raises(Unavailable):
            await store.write(commit(1, version, small=sized(1, "late")))
        await store.write(commit(2, (await store.read()).version, large=sized(95, "other")))
        after = await objects(kube, "late-write")
        assert [name for name in before if name and before[name] == after[name]] == []

    run(kinds, "late-write", work)


def grown(version: str) -> Commit:
    """A commit that does all at once: changes, adds, moves, drops, and empties an object."""
    return commit(
        2,
        version,
        drop=("gone",),
        moving=sized(120, "new"),
        small=sized(1, "new"),
        fresh=sized(90, "new"),
    )


OLD = {"moving": sized(90, "old"), "small": sized(1, "old"), "beside": sized(90, "old"), "gone": sized(95, "old")}


@pytest.mark.parametrize("lost", ["lose_request", "lose_answer"])
def test_a_commit_that_stops_anywhere_leaves_every_section_whole(kinds: ControlPlane, lost: str) -> None:
    """
    Whatever write is the last one: each section is the old or the new one, none is missing, none is there twice; and
    the commit's id is there only with all of it. The next process, and this one, can go on.
    """

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        domain, number = store._domain, 0
        while True:
            number += 1
            store = BudgetLedgerStore(kube, "default", f"{domain}-{number}")
            version = await store.write(commit(0, "", **OLD))
            version = await store.write(commit(1, version, moving=sized(100, "old"), beside=sized(91, "old")))
            kube.writes = 0
            setattr(kube, lost, number)
            try:
                await store.write(grown(version))
            except Unavailable:
                pass
            setattr(kube, lost, 0)
            reader = store if number % 2 else BudgetLedgerStore(kube, "default", f"{domain}-{number}")
            stored = await reader.read()
            found = notes(stored)
            assert found.keys() - {"fresh", "gone"} == {"moving", "small", "beside"}
            if "commit-2" in stored.commits:
                found.pop("gone", None)
                assert found == {"moving": "new", "small": "new", "beside": "old", "fresh": "new"}
            await reader.write(commit(3, stored.version, epoch=2, small=sized(1, "next"), last=sized(1, "next")))
            after = notes(await BudgetLedgerStore(kube, "default", f"{domain}-{number}").read())
            assert after == {**found, **({"gone": "old"} if "gone" in after else {}), "small": "next", "last": "next"}
            if kube.writes < number:
                break
        assert number > 5

    run(kinds, f"half-way-{lost[5:]}", work)


def test_a_commit_writes_the_objects_of_its_sections_only(kinds: ControlPlane) -> None:
    """Writes do not grow with the books."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write(commit(0, "", a=sized(90), b=sized(90), c=sized(90)))
        kube.writes = 0
        await store.write(commit(1, version, b=sized(90, "new")))
        assert kube.writes == 1

    run(kinds, "few-writes", work)


class MeetingKube(LosingKube):
    """A real client whose first two writes of parts wait for each other."""

    both: asyncio.Event
    running = most = 0

    async def _request(self, method: str, path: str, *arguments: Any) -> Json:
        if method != "PUT" or ".shard-" not in path:
            return await super()._request(method, path, *arguments)
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == 2:
            self.both.set()
        async with asyncio.timeout(60):
            await self.both.wait()
        answer = await super()._request(method, path, *arguments)
        self.running -= 1
        return answer


def test_a_new_epoch_writes_a_few_objects_at_once(kinds: ControlPlane) -> None:
    """One after the other, large books would take longer than the coordinator waits for its store."""

    async def scenario() -> int:
        kube = await MeetingKube.connect(str(kinds.kubeconfig))
        assert isinstance(kube, MeetingKube)
        kube.both = asyncio.Event()
        try:
            store = BudgetLedgerStore(kube, "default", "at-once")
            version = await store.write(commit(0, "", **{f"s{number}": sized(90) for number in range(12)}))
            await store.write(commit(1, version, epoch=2))
            return kube.most
        finally:
            await kube.close()

    assert 2 <= asyncio.run(scenario()) <= WRITES_AT_ONCE


def test_no_object_grows_beyond_its_share(kinds: ControlPlane) -> None:
    """Row 14: sections move out long before an object meets the API server's limit."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = ""
        for kilobytes in (5, 30, 60, 100):
            put = {f"s{number}": sized(kilobytes) for number in range(8)}
            version = await store.write(commit(kilobytes, version, **put))
        spec = await objects(kube, "growing")
        assert max(len(str(one)) for one in spec.values()) <= 256 * 1024
        assert len((await BudgetLedgerStore(kube, "default", "growing").read()).sections) == 8

    run(kinds, "growing", work)


def test_the_index_is_written_seldom_and_still_tells_an_old_object(kinds: ControlPlane) -> None:
    """A shard that went back by many writes is Fenced for a process that has never seen it, at once for its writer."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write(commit(0, "", head=sized(0)))
        old = await kube.get(f"{LEDGERS}/went-back.shard-0")
        kube.writes = 0
        for number in range(1, 100):
            version = await store.write(commit(number, version, head=sized(0, str(number))))
        assert kube.writes == 99 + 1
        now = await kube.get(f"{LEDGERS}/went-back.shard-0")
        await kube.replace(f"{LEDGERS}/went-back.shard-0", {**old, "metadata": now["metadata"]})
        for reader in (store, BudgetLedgerStore(kube, "default", "went-back")):
            with pytest.raises(Fenced, match=r"went-back\.shard-0 has version"):
                await reader.read()

    run(kinds, "went-back", work)


def test_objects_that_went_back_a_little_hold_no_commit_of_the_process_that_wrote_them(kinds: ControlPlane) -> None:
    """So it knows that the books were restored, and waits for holders, whatever the index says. It can go on then."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write(commit(0, "", head=sized(0), beside=sized(95)))
        path = f"{LEDGERS}/went-back-a-little.shard-0"
        old = await kube.get(path)
        await store.write(commit(1, version, head=sized(0, "new"), beside=sized(95, "new")))
        now = await kube.get(path)
        await kube.replace(path, {**old, "metadata": now["metadata"]})
        for _ in range(2):
            stored = await store.read()
            assert (stored.commits, stored.partial) == (frozenset(), frozenset())
        version = await store.write(commit(2, stored.version, epoch=2))
        assert (await store.read()).commits == {"commit-2"}

    run(kinds, "went-back-a-little", work)


@pytest.mark.parametrize("name", ["", ".shard-0"])
def test_a_missing_object_is_never_read_as_zero(kinds: ControlPlane, name: str) -> None:
    """Row 13: what was in it is spent all the same. The message says what to do."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        domain = f"missing{len(name)}"
        store = BudgetLedgerStore(kube, "default", domain)
        version = await store.write(commit(0, "", head=sized(0)))
        path = f"{LEDGERS}/{domain}{name}"
        await kube.delete(path, (await kube.get(path))["metadata"]["resourceVersion"])
        for reader in (store, BudgetLedgerStore(kube, "default", domain)):
            with pytest.raises(Fenced, match="restore"):
                await reader.read()
            with pytest.raises(Fenced, match="restore"):
                await reader.write(commit(1, version, head=sized(0)))

    run(kinds, "missing", work)


def test_a_restored_index_of_an_older_epoch_is_fenced(kinds: ControlPlane) -> None:
    """One object out of a backup does not fit the others."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write(commit(0, "", head=sized(0)))
        old = await kube.get(f"{LEDGERS}/old-index")
        await store.write(commit(1, version, epoch=2))
        now = await kube.get(f"{LEDGERS}/old-index")
        await kube.replace(f"{LEDGERS}/old-index", {**old, "metadata": now["metadata"]})
        with pytest.raises(Fenced, match=r"epoch 1.*epoch 2"):
            await BudgetLedgerStore(kube, "default", "old-index").read()

    run(kinds, "old-index", work)


def test_a_paused_leader_can_write_no_object_once_the_next_one_has_begun(kinds: ControlPlane) -> None:
    """Row 4: also not one that the next one has not changed."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write(commit(0, "", a=sized(90), b=sized(90)))
        following = BudgetLedgerStore(kube, "default", "paused")
        await following.write(commit(1, (await following.read()).version, epoch=2))
        for name in ("a", "b", "c"):
            with pytest.raises(Fenced):
                await store.write(commit(2, version, **{name: sized(90, "late")}))
        assert notes(await following.read()) == {"a": "", "b": ""}

    run(kinds, "paused", work)


def test_a_paused_leader_does_not_write_over_a_part_that_the_next_one_has_added(kinds: ControlPlane) -> None:
    """Both would call it by the same number."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write(commit(0, "", a=sized(90)))
        following = BudgetLedgerStore(kube, "default", "same-number")
        began = await following.write(commit(1, (await following.read()).version, epoch=2))
        await following.write(commit(2, began, epoch=2, theirs=sized(90, "granted")))
        with pytest.raises(Fenced):
            await store.write(commit(3, version, ours=sized(90, "late")))
        assert notes(await following.read()) == {"a": "", "theirs": "granted"}

    run(kinds, "same-number", work)


def test_a_leader_that_begins_notices_a_write_of_the_one_before(kinds: ControlPlane) -> None:
    """It has read the books, and then one more grant was made durable: it must read them again."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write(commit(0, "", a=sized(90), b=sized(90)))
        following = BudgetLedgerStore(kube, "default", "begins")
        seen = await following.read()
        await store.write(commit(1, version, b=sized(90, "granted")))
        with pytest.raises(Conflict):
            await following.write(commit(2, seen.version, epoch=2))
        stored = await following.read()
        await following.write(commit(3, stored.version, epoch=stored.epoch + 1))
        assert notes(await following.read())["b"] == "granted"

    run(kinds, "begins", work)


def test_the_books_of_the_version_before_are_read_and_become_parts(kinds: ControlPlane) -> None:
    """An upgrade keeps what was spent, wherever it stops; an older operator then says that it is too old."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        document = {"format": 1, "epoch": 6, "accounts": []}
        spec = {"format": 1, "epoch": 6, "commit": "before", "books": document}
        body = {"apiVersion": "spendmesh.io/v1alpha1", "kind": "BudgetLedger", "metadata": {"name": "upgrade"}}
        await kube.create(LEDGERS, {**body, "spec": spec})
        for stops_after in (1, 2, 3):
            before = await store.read()
            assert (before.sections, before.epoch) == ({"books": document}, 5 + stops_after)
            kube.lose_request = stops_after
            upgrade = commit(1, before.version, epoch=before.epoch + 1, drop=("books",), head=sized(0, "new"))
            if stops_after > 1:
                with pytest.raises(Unavailable):
                    await store.write(upgrade)
                continue
            with pytest.raises(Unavailable):
                await store.write(upgrade)
            # The epoch is not raised by a request that was lost.
            kube.lose_answer = 1
            with pytest.raises(Unavailable):
                await store.write(upgrade)
        before = await store.read()
        await store.write(commit(2, before.version, epoch=before.epoch + 1, drop=("books",), head=sized(0, "new")))
        assert notes(await store.read()) == {"head": "new"}
        assert (await objects(kube, "upgrade"))[""]["books"] == {}

    run(kinds, "upgrade", work)


def test_books_of_a_newer_format_are_not_read_as_empty(kinds: ControlPlane) -> None:
    """An older operator after a roll-back must not begin new books."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        await store.write(commit(0, "", head=sized(0)))
        patch = [{"op": "replace", "path": "/spec/format", "value": 3}]
        await kube.json_patch(f"{LEDGERS}/newer-format", patch)
        with pytest.raises(Unavailable, match="upgrade it"):
            await store.read()

    run(kinds, "newer-format", work)


def test_without_the_right_nothing_is_assumed(kinds: ControlPlane) -> None:
    async def refused() -> None:
        kube = await Kube.connect(str(kinds.kubeconfig_for("ledger-nobody")))
        try:
            with pytest.raises(Unavailable, match="Forbidden"):
                await BudgetLedgerStore(kube, "default", "x").read()
        finally:
            await kube.close()

    asyncio.run(refused())


def test_another_cluster_name_starts_new_books_and_the_old_ones_stay(kinds: ControlPlane) -> None:
    """As values.yaml says: spend so far is no longer counted until the name is set back; nothing stands still."""

    async def work(kube: LosingKube, _: BudgetLedgerStore) -> None:
        async def charged_under(domain: str, request: str, amount: int) -> int:
            store = BudgetLedgerStore(kube, "default", domain)
            policy = SamplePublished(sample_policy(budget(1000)))
            settings = CoordinatorSettings(commit_interval_seconds=0.0, sweep_seconds=3600.0)
            at = Coordinator(store, ManualClock(), random.Random(1), lambda _: policy, domain, settings)
            await at.start()
            try:
                if amount:
                    await at.acquire(PodIdentity("team-a", "p", "u"), acquire(request, "n", want(amount)))
                return sum(state.charged for state in at.states().values())
            finally:
                await at.stop()

        assert await charged_under("domain-one", "r1", 700) == 700
        assert await charged_under("domain-two", "r2", 400) == 400
        assert await charged_under("domain-one", "", 0) == 700

    run(kinds, "domains", work)
