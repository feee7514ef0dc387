"""The single writer among others and on a store that fails: one winner, nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio

import pytest

from coordinator_samples import (
    OTHER,
    POD,
    GatedStore,
    RestoredStore,
    charged,
    coordinator,
    failing,
    granted,
    serving,
    virtually,
)
from ledger_samples import REF, ManualClock, acquire, want
from spendmesh_operator.ledger.coordinator.coordinator import NotServing
from spendmesh_operator.ledger.document.sections import LedgerUnreadable
from spendmesh_operator.ledger.stores.base import Commit, Fault, MemoryStore, Stored
from spendmesh_sidecar.protocol import AcquireReply, LeaseReport, ReportRequest


def test_of_two_coordinators_on_one_store_the_older_stops_and_nothing_is_granted_twice() -> None:
    """Row 4: a paused leader wakes up. Its next write is fenced and its caller hears "retry"."""

    async def scenario() -> tuple[int, str, bool, int]:
        store = MemoryStore()
        async with serving(store, 1) as old, serving(store, 2) as new:
            first = granted(await new.acquire(OTHER, acquire("o", "m", want(900))))
            with pytest.raises(NotServing):
                await old.acquire(POD, acquire("r", "n", want(900)))
            return first, await old.wait_ended(), old.serving, charged(new)

    first, reason, still_serving, total = asyncio.run(scenario())

    assert (first, still_serving, total) == (900, False, 900)
    assert "epoch 2 has begun" in reason


def test_a_fenced_coordinator_serves_again_after_start() -> None:
    """While it is still elected it takes a newer epoch, with the books as the other left them."""

    async def scenario() -> tuple[int, int]:
        store = MemoryStore()
        async with serving(store, 1) as old, serving(store, 2) as new:
            await new.acquire(OTHER, acquire("o", "m", want(900)))
            await old.start()
            return old.epoch, len((await old.acquire(POD, acquire("r", "n", want(200)))).denials)

    assert asyncio.run(scenario()) == (3, 1)


@pytest.mark.parametrize(
    "faults",
    [
        ("conflict",),
        ("conflict", "conflict", "unavailable"),
        ("unavailable",),
        ("drop-after-commit",),
        ("drop-after-commit", "drop-after-commit"),
        ("unavailable", "drop-after-commit"),
    ],
)
def test_a_faulty_store_neither_loses_nor_doubles_a_grant(faults: tuple[Fault, ...]) -> None:
    """Row 12: conflicts are evaluated anew, a lost reply is found again by its commit id."""

    async def scenario() -> tuple[int, int, int]:
        store = MemoryStore(failing(*faults))
        async with serving(store) as at:
            one, two = await asyncio.gather(
                at.acquire(POD, acquire("r", "n", want(10))), at.acquire(OTHER, acquire("o", "m", want(20)))
            )
            return granted(one), granted(two), await stored_charge(store)

    assert virtually(scenario()) == (10, 20, 30)


def test_a_write_that_met_another_one_is_made_again_within_a_fifth_of_a_second() -> None:
    """Callers wait for it; how long exactly is left to chance, so that two writers do not meet again."""

    async def scenario(seed: int) -> float:
        async with serving(MemoryStore(failing("conflict")), seed) as at:
            began = asyncio.get_running_loop().time()
            await at.acquire(POD, acquire("r", "n", want(10)))
            return asyncio.get_running_loop().time() - began

    waited = [virtually(scenario(seed)) for seed in range(8)]

    assert max(waited) <= 0.2
    assert len(set(waited)) == 8


async def stored_charge(store: MemoryStore) -> int:
    """What the next coordinator would find."""
    async with serving(store, 9) as again:
        return charged(again)


def test_a_denial_stays_a_denial_when_the_group_must_be_evaluated_anew() -> None:
    """k8s#141904: a retry must not look at a part only and let the denied one pass."""

    async def scenario() -> tuple[int, list[str]]:
        async with serving(MemoryStore(failing("conflict"))) as at:
            one, two = await asyncio.gather(
                at.acquire(POD, acquire("r", "n", want(900))), at.acquire(OTHER, acquire("o", "m", want(200)))
            )
            return granted(one), [denial.reason for denial in two.denials]

    assert virtually(scenario()) == (900, ["in_flight"])


def test_a_denial_that_is_evaluated_anew_tells_no_rights_of_books_that_were_never_durable() -> None:
    """I3: what stood beside it was granted in a commit that failed."""

    async def scenario() -> list[AcquireReply]:
        async with serving(MemoryStore(failing("conflict"))) as at:
            return await asyncio.gather(
                at.acquire(POD, acquire("r1", "n", want(900))), at.acquire(POD, acquire("r2", "n", want(200)))
            )

    granted_reply, denied = virtually(scenario())

    assert granted(granted_reply) == 900
    assert ([denial.reason for denial in denied.denials], denied.leases) == (["in_flight"], ())


def test_a_store_that_stays_away_refuses_callers_and_the_same_request_succeeds_later() -> None:
    """Row 9: nobody hears of a grant whose outcome is unknown; repeating it under its id is safe."""

    async def scenario() -> tuple[int, int]:
        away = True
        store = MemoryStore(lambda: "unavailable" if away and store.writes else None)
        async with serving(store) as at:
            with pytest.raises(NotServing, match="retry under the same id"):
                await at.acquire(POD, acquire("r", "n", want(10)))
            away = False
            reply = await at.acquire(POD, acquire("r", "n", want(10)))
            return granted(reply), charged(at)

    assert virtually(scenario()) == (10, 10)


def test_whoever_asks_when_a_store_is_back_and_another_leads_is_told_to_ask_again() -> None:
    """The books are read before the decision, and are another's: nobody is left waiting for an answer."""

    async def scenario() -> None:
        away = True
        store = MemoryStore(lambda: "unavailable" if away and store.writes else None)
        async with serving(store, 1) as old:
            with pytest.raises(NotServing):
                await old.acquire(POD, acquire("r", "n", want(10)))
            away = False
            async with serving(store, 2):
                with pytest.raises(NotServing, match="retry"):
                    async with asyncio.timeout(5):
                        await old.acquire(POD, acquire("r", "n", want(10)))

    virtually(scenario())


def test_books_restored_from_a_backup_take_a_later_epoch_and_grant_nothing_for_a_while() -> None:
    """Row 13: a sidecar has seen a later epoch than the store holds."""

    async def scenario() -> tuple[int, list[str], int]:
        clock = ManualClock()
        async with serving(MemoryStore(), clock=clock) as at:
            await at.raise_epoch(41)
            early = await at.acquire(POD, acquire("r1", "n", want(1)))
            clock.advance(20)
            late = await at.acquire(POD, acquire("r2", "n", want(1)))
            return at.epoch, [denial.reason for denial in early.denials], granted(late)

    assert asyncio.run(scenario()) == (42, ["unverifiable"], 1)


async def granted_after_a_copy(store: MemoryStore, clock: ManualClock) -> tuple[Stored, str]:
    """A coordinator that granted 600 after its store was copied: the copy, and the lease."""
    async with serving(store, 1, clock=clock) as at:
        copy = await store.read()
        (lease,) = (await at.acquire(POD, acquire("r", "n", want(600)))).leases
    return copy, lease.id


def remembering(lease: str) -> ReportRequest:
    told = LeaseReport(lease=lease, sequence=3, previous="01", used=50, held=0, account=REF, granted=600)
    return ReportRequest(nonce="n", reports=(told,))


def test_rights_that_a_restore_forgot_are_charged_again_while_their_holders_are_waited_for() -> None:
    """Also for a holder that reports before any sidecar said what it has seen. Row 13."""

    async def scenario() -> tuple[bool, bool, int, int, int]:
        clock, store = ManualClock(), MemoryStore()
        copy, lease = await granted_after_a_copy(store, clock)
        async with serving(RestoredStore(copy), 2, clock=clock) as at:
            (early,) = (await at.report(POD, remembering(lease))).leases
            await at.raise_epoch(at.epoch + 1)
            (late,) = (await at.report(POD, remembering(lease))).leases
            clock.advance(20)
            denied = await at.acquire(OTHER, acquire("o", "m", want(500)))
            return early.fenced, late.fenced, late.sequence, charged(at), len(denied.denials)

    assert asyncio.run(scenario()) == (False, False, 3, 600, 1)


def test_without_a_restore_a_lease_that_the_books_do_not_know_is_fenced() -> None:
    """As soon as a coordinator would have heard of one."""

    async def scenario() -> tuple[bool, dict[object, object]]:
        clock, store = ManualClock(), MemoryStore()
        copy, lease = await granted_after_a_copy(store, clock)
        async with serving(RestoredStore(copy), 2, clock=clock) as at:
            clock.advance(15)
            (state,) = (await at.report(POD, remembering(lease))).leases
            return state.fenced, dict(at.states())

    assert asyncio.run(scenario()) == (True, {})


def test_a_coordinator_whose_store_goes_back_under_it_begins_anew_and_waits_for_holders() -> None:
    """It knows what it wrote: no sidecar has to say so, and no lease id is given twice."""

    async def scenario() -> tuple[str, int, list[str], int]:
        clock, store = ManualClock(), RestoredStore(Stored())
        async with serving(store, 1, clock=clock) as at:
            copy = await store.read()
            (lease,) = (await at.acquire(POD, acquire("r", "n", want(600)))).leases
            store.restore(copy)
            with pytest.raises(NotServing):
                await at.acquire(OTHER, acquire("o", "m", want(10)))
            reason = await at.wait_ended()
            await at.start()
            denied = await at.acquire(OTHER, acquire("o2", "m", want(10)))
            await at.report(POD, remembering(lease.id))
            return reason, at.epoch, [denial.reason for denial in denied.denials], charged(at)

    reason, epoch, denials, total = asyncio.run(scenario())

    assert "restored" in reason
    assert (epoch, denials, total) == (2, ["unverifiable"], 600)


def test_one_pod_cannot_stop_everybodys_grants_again_and_again() -> None:
    """Its word raises the epoch at most once a minute, and stops grants at most once an hour."""

    async def scenario() -> tuple[list[int], int]:
        clock = ManualClock()
        epochs = []
        async with serving(MemoryStore(), clock=clock) as at:
            for seconds in (0, 20, 50):
                clock.advance(seconds)
                await at.raise_epoch(at.epoch + 1)
                epochs.append(at.epoch)
            return epochs, granted(await at.acquire(POD, acquire("r", "n", want(1))))

    assert asyncio.run(scenario()) == ([3, 3, 5], 1)


@pytest.mark.parametrize("seen", [0, 1, 10**7])
def test_an_epoch_that_is_not_newer_or_not_credible_changes_nothing(seen: int) -> None:
    """One pod cannot push everybody's epoch to the end of the numbers."""

    async def scenario() -> int:
        async with serving(MemoryStore()) as at:
            await at.raise_epoch(seen)
            return at.epoch

    assert asyncio.run(scenario()) == 1


def test_damaged_books_are_not_served() -> None:
    """They are never read as empty."""

    async def scenario() -> None:
        store = MemoryStore()
        await store.write(Commit("commit", 3, "", {"head": {"epoch": 3, "format": 2, "domain": "test"}, "pods/0": {}}))
        await coordinator(store).start()

    with pytest.raises(LedgerUnreadable, match="damaged"):
        asyncio.run(scenario())


def test_who_still_waits_when_it_stops_hears_that_nothing_is_known() -> None:
    """And may repeat the same request elsewhere."""

    async def scenario() -> None:
        store = GatedStore()
        at = coordinator(store)
        await at.start()
        store.gate.clear()
        store.reached.clear()
        waiting = asyncio.create_task(at.acquire(POD, acquire("r", "n", want(10))))
        await store.reached.wait()
        await at.stop()
        await waiting

    with pytest.raises(NotServing):
        asyncio.run(scenario())


def test_before_start_nothing_is_served() -> None:
    """A follower's coordinator answers 503."""
    with pytest.raises(NotServing):
        asyncio.run(coordinator(MemoryStore()).acquire(POD, acquire("r", "n", want(1))))
