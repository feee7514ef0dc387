"""
Weaker protocols: the product's classes with one rule taken out (facts: the five variants that a model check broke).

Each is caught by the checker, or the checker proves nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from msgspec.structs import replace as changed

from ledgersim.sidecar import WatchedLedger
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator
from spendmesh_operator.ledger.coordinator.writer import Writer
from spendmesh_sidecar.core.ledger.journal import VoidedRecord
from spendmesh_sidecar.core.ledger.journal_frames import encode_frame
from spendmesh_sidecar.core.ledger.recovery import Here, Recovered, recover
from spendmesh_sidecar.core.ledger.rights import Lease, LeaseReport, LeaseState
from spendmesh_sidecar.protocol import ReportReply, ReportRequest

T = TypeVar("T")


def _own(uid: str, number: int) -> str:
    return f"{uid}-nonce-{number}"


def _same(uid: str, number: int) -> str:
    return f"{uid}-nonce"


class RefundingCoordinator(Coordinator):
    """A holder that is silent is given up, and what it did not report is free again (Doorman, RLQS)."""

    async def sweep(self) -> None:
        now = self._clock.monotonic()

        def refund(books: Books, _: int) -> None:
            for account, lease in books.holdings.leases_of(books.holdings.holders()):
                if now - self._heard.get(lease.holder.uid, self._started_at) > self._settings.silence_seconds:
                    books.holdings.close(account, lease, lease.used)

        await self._submit(refund)
        await super().sweep()


class _HastyWriter(Writer):
    """Answers as soon as a change is in memory."""

    async def submit(self, change: Callable[[Books, int], T]) -> T:
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def hasty(books: Books, now_ms: int) -> T:
            reply = change(books, now_ms)
            if not answer.done():
                answer.set_result(reply)
            return reply

        durable = asyncio.ensure_future(super().submit(hasty))
        done, _ = await asyncio.wait({durable, answer}, return_when=asyncio.FIRST_COMPLETED)
        durable.add_done_callback(lambda task: task.cancelled() or task.exception())
        return answer.result() if answer in done else durable.result()


class HastyCoordinator(Coordinator):
    """Reveals before it is durable."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._writer = _HastyWriter(self._committer, self._settings, self._now_ms)


def forgetful(log: bytes, here: Here) -> Recovered:
    """After a kill, what was in flight counts as nothing."""
    in_flight = recover(log, here).in_flight
    return recover(log + b"".join(encode_frame(VoidedRecord(reservation)) for reservation in in_flight), here)


class DeltaLedger(WatchedLedger):
    """Reports what was used since the last report."""

    def reports(self, now: float) -> tuple[LeaseReport, ...]:
        told = self.__dict__.setdefault("told", {})
        found = []
        for report in super().reports(now):
            found.append(changed(report, used=report.used - told.get(report.lease, 0), released=0))
            told[report.lease] = report.used
        return tuple(found)


class AddingCoordinator(Coordinator):
    """Adds what reports say, however often it comes."""

    async def report(self, pod: Any, request: ReportRequest) -> ReportReply:
        self._heard[pod.uid] = self._clock.monotonic()

        def add(books: Books, _: int) -> ReportReply:
            states = []
            for report in request.reports:
                account = books.holdings.account_of(report.lease)
                if account is not None:
                    lease = account.leases[report.lease]
                    after = replace(lease, used=lease.used + report.used, held=report.held, sequence=report.sequence)
                    books.holdings.put(account, after)
                    if report.closed:
                        books.holdings.close(account, after, after.used)
                states.append(LeaseState(lease=report.lease, sequence=report.sequence, fenced=account is None))
            return ReportReply(leases=tuple(states))

        return await self._submit(add)


class UnboundLedger(WatchedLedger):
    """Takes any lease for its own."""

    def merge(self, lease: Lease, now: float) -> bool:
        return super().merge(changed(lease, nonce=self.nonce), now)


@dataclass(frozen=True)
class Broken:
    """What the world is made of. As it is by default, nothing is broken."""

    coordinator: type[Coordinator] = Coordinator
    ledger: type[WatchedLedger] = WatchedLedger
    nonce: Callable[[str, int], str] = _own
    recover: Callable[[bytes, Here], Recovered] = recover


VARIANTS = {
    "refund on expiry": Broken(coordinator=RefundingCoordinator),
    "reveal before persist": Broken(coordinator=HastyCoordinator),
    "in flight is zero": Broken(recover=forgetful),
    "delta reports": Broken(coordinator=AddingCoordinator, ledger=DeltaLedger),
    "no nonce": Broken(ledger=UnboundLedger, nonce=_same),
}
