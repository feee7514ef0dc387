"""The log's file: bounded, one writer, all or nothing in each write, and one sync for all who wait."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from pathlib import Path
from random import Random
from typing import cast

import pytest
from msgspec.structs import replace

from exchange_world import MONTH, MONTHLY
from memory_log import HERE
from spendmesh_sidecar.clock import Clock
from spendmesh_sidecar.control.client import ControlClient
from spendmesh_sidecar.control.leases import Leases
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.journal import AttemptRecord, LedgerUnwritable, Part, UnleasedRecord
from spendmesh_sidecar.core.ledger.journal_frames import read_log
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.recovery import Here, records_of, restore
from spendmesh_sidecar.core.ledger.rights import AccountState, Lease
from spendmesh_sidecar.protocol import ReportReply, ReportRequest
from spendmesh_sidecar.state.group_sync import GroupSync
from spendmesh_sidecar.state.ledger_log import ASIDE, LOCK, LOG, LedgerLog, NoLog, StateUnusable

pytestmark = pytest.mark.anyio

NODE = replace(HERE, durability="Node")
GRANTED = 10**9
STATE = AccountState(amount=GRANTED, settled=0, charged=0, resets_in_ms=10**7)


async def opened(folder: Path, here: Here = HERE, renew_bytes: int = 1 << 20) -> tuple[Ledger, LedgerLog]:
    """A process's ledger on a folder, as the sidecar opens it."""
    log = LedgerLog(folder, here, renew_bytes=renew_bytes)
    await log.lock()
    recovered = log.recover()
    ledger = Ledger(recovered.nonce if recovered else os.urandom(4).hex(), journal=log)
    if recovered is not None:
        restore(ledger, recovered, 0.0)
    log.start(lambda: (ledger.nonce, records_of(ledger)))
    ledger.set_budgets((MONTHLY,), 0.0)
    return ledger, log


def fund(ledger: Ledger) -> None:
    message = Lease(
        id="one",
        nonce=ledger.nonce,
        account=MONTH,
        unit="Cost",
        currency="USD",
        granted=GRANTED,
        ends_in_ms=10**7,
        state=STATE,
    )
    assert ledger.merge(message, 0.0)


def spend(ledger: Ledger, name: str, cost: int) -> None:
    assert not ledger.reserve((Charge(MONTH, "Cost", 2 * cost),), name, 0.0)
    ledger.settle(name, Quantities(cost, "USD"), 0.0)


def used(ledger: Ledger) -> int:
    return sum(lease.used for lease in ledger.accounts[MONTH].leases.values())


async def test_the_file_stays_small_however_many_attempts_there_were(tmp_path: Path) -> None:
    ledger, log = await opened(tmp_path, renew_bytes=10_000)
    fund(ledger)
    assert not ledger.reserve((Charge(MONTH, "Cost", 7),), "open all the time", 0.0)
    largest = 0
    for number in range(2_000):
        spend(ledger, f"r{number}", 10)
        largest = max(largest, (tmp_path / LOG).stat().st_size)
    assert 10_000 < largest < 12_000
    log.close(settled=False)
    successor, log = await opened(tmp_path)
    assert used(successor) == 2_000 * 10 + 7
    log.close(settled=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, LOG]


async def test_ends_of_attempts_are_written_soon_without_another_attempt(tmp_path: Path) -> None:
    ledger, log = await opened(tmp_path)
    fund(ledger)
    spend(ledger, "r", 10)
    written = read_log((tmp_path / LOG).read_bytes(), "").records
    assert isinstance(written[-1], AttemptRecord), "the end waits for company"
    async with asyncio.timeout(60):
        while isinstance(read_log((tmp_path / LOG).read_bytes(), "").records[-1], AttemptRecord):
            await asyncio.sleep(0.005)
    log.close(settled=False)


async def test_a_log_is_only_its_owners_to_read(tmp_path: Path) -> None:
    _, log = await opened(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
    assert modes == {0o600}
    log.close(settled=False)


async def test_a_successor_waits_a_moment_for_its_predecessor(tmp_path: Path) -> None:
    first, log = await opened(tmp_path)
    waiting = asyncio.create_task(opened(tmp_path))
    await asyncio.sleep(0)
    log.close(settled=False)
    second, log = await waiting
    assert second.nonce == first.nonce
    log.close(settled=False)


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match=r"state folder .*file/state cannot be written: Not a directory"):
        await opened(tmp_path / "file" / "state")


async def test_a_log_that_cannot_be_begun_refuses_until_it_can(tmp_path: Path) -> None:
    """What was known meanwhile is in the file that is begun then."""
    (tmp_path / f"{LOG}.new").mkdir()
    ledger, log = await opened(tmp_path)
    assert "Is a directory" in log.problem
    fund(ledger)
    with pytest.raises(LedgerUnwritable, match="Is a directory"):
        spend(ledger, "refused", 10)
    (tmp_path / f"{LOG}.new").rmdir()
    async with asyncio.timeout(60):
        while log.problem:
            await asyncio.sleep(0.01)
            log.hurry()
    spend(ledger, "served", 10)
    log.close(settled=False)
    successor, log = await opened(tmp_path)
    assert (successor.nonce, used(successor)) == (ledger.nonce, 10)
    log.close(settled=False)


async def test_only_the_last_log_that_was_abandoned_is_kept(tmp_path: Path) -> None:
    nonces = set()
    for content in (b"first", b"second"):
        (tmp_path / LOG).write_bytes(content)
        ledger, log = await opened(tmp_path)
        nonces.add(ledger.nonce)
        log.close(settled=True)
    assert len(nonces) == 2
    assert (tmp_path / ASIDE).read_bytes() == b"second"
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, ASIDE]


async def test_what_an_abandoned_log_says_that_nobody_charges_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease is charged in full without its log; what was spent without one is told by nobody else."""
    _, log = await opened(tmp_path)
    log.append(UnleasedRecord(account=MONTH, amount=70))
    log.close(settled=False)
    with (tmp_path / LOG).open("ab") as file:
        file.write(b"damage" * 10)
    _, log = await opened(tmp_path)
    log.close(settled=True)
    assert "70 of team-a/team/monthly were spent without a lease" in caplog.text


async def test_a_new_nonce_is_in_the_file_before_anything_is_spent_under_it(tmp_path: Path) -> None:
    ledger, log = await opened(tmp_path)
    fund(ledger)
    ledger.adopt("fresh")
    assert read_log((tmp_path / LOG).read_bytes(), "").header.nonce == "fresh"
    assert read_log((tmp_path / LOG).read_bytes(), "").records == ()
    log.close(settled=False)


async def test_with_durability_node_one_sync_serves_all_who_wait(tmp_path: Path) -> None:
    ledger, log = await opened(tmp_path, NODE)
    fund(ledger)

    async def call(number: int) -> None:
        assert not ledger.reserve((Charge(MONTH, "Cost", 10),), f"r{number}", 0.0)
        await log.durable()

    await asyncio.gather(*(call(number) for number in range(200)))
    assert log.syncs <= 3
    log.close(settled=False)


class Listener:
    """A coordinator that hears reports and acknowledges none."""

    def __init__(self) -> None:
        self.heard: list[ReportRequest] = []

    async def report(self, request: ReportRequest) -> ReportReply:
        self.heard.append(request)
        return ReportReply(leases=())


class Unwritable(NoLog):
    """A log on a disk that comes and goes."""

    full = True

    async def durable(self) -> None:
        if self.full:
            raise LedgerUnwritable("no space left")


async def test_what_is_not_in_the_log_is_not_told_and_silence_is_not_feigned() -> None:
    """Told and forgotten, it would make the next process look like a copy; the empty report is the sign of life."""
    listener, log = Listener(), Unwritable()
    ledger = Ledger("me", (MONTHLY,), 0.0)
    fund(ledger)
    leases = Leases(cast(ControlClient, listener), ledger, Clock(), Random(1), lambda: "other", log)
    await leases.report()
    log.full = False
    await leases.report()
    assert [[each.sequence for each in request.reports] for request in listener.heard] == [[], [1]]


class Disk:
    """A disk whose syncs end when the test says so."""

    def __init__(self) -> None:
        self.errors: list[OSError | None] = []
        self.begun = 0
        self.go = threading.Semaphore(0)

    def prepare(self) -> partial[None]:
        self.begun += 1
        return partial(self._sync, self.errors.pop(0) if self.errors else None)

    def _sync(self, error: OSError | None) -> None:
        self.go.acquire()
        if error is not None:
            raise error


async def until(condition: object) -> None:
    async with asyncio.timeout(60):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0)


async def test_who_comes_while_a_sync_runs_waits_for_the_next_one() -> None:
    """The running one may have begun before what it wrote was there."""
    disk = Disk()
    group = GroupSync(disk.prepare, LedgerUnwritable)
    early = asyncio.create_task(group.wait())
    await until(lambda: disk.begun)
    late = [asyncio.create_task(group.wait()) for _ in range(5)]
    disk.go.release()
    await early
    await asyncio.sleep(0)
    assert not any(task.done() for task in late)
    disk.go.release()
    await asyncio.gather(*late)
    assert disk.begun == 2
    group.close()


async def test_a_sync_that_failed_is_told_to_all_who_wait_also_for_the_next_one() -> None:
    """A later sync may well succeed, and says nothing of what the failed one lost."""
    disk = Disk()
    disk.errors = [OSError(5, "Input/output error")]
    told: list[str] = []

    def failed(error: OSError) -> Exception:
        told.append(str(error.strerror))
        return LedgerUnwritable(str(error.strerror))

    group = GroupSync(disk.prepare, failed)
    tasks = [asyncio.create_task(group.wait())]
    await until(lambda: disk.begun)
    tasks += [asyncio.create_task(group.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    disk.go.release()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["Input/output error"] * 4
    assert (told, disk.begun) == (["Input/output error"], 1)
    disk.go.release()
    await group.wait()
    group.close()


async def test_a_large_attempt_is_written_whole(tmp_path: Path) -> None:
    _, log = await opened(tmp_path)
    record = AttemptRecord("r" * 100, tuple(Part("", number, 0, MONTH) for number in range(3_000)))
    log.commit(record)
    assert read_log((tmp_path / LOG).read_bytes(), "").records == (record,)
    log.close(settled=False)
