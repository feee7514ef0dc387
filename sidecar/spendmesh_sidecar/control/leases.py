"""
Rights to spend, fetched and accounted for: the I/O around `core.ledger.ledger`.

Three things happen here: requests that lack rights wait a bounded moment for an acquire that asks for all of them; a
loop tops rights up before they are short; a loop reports use. None decides anything: what to ask and what to report
is the ledger's. A reply lost on the way is asked for again under the same id, so that it is never granted twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from spendmesh_sidecar import protocol
from spendmesh_sidecar.clock import Clock
from spendmesh_sidecar.control.client import ControlClient, ControlRefused, ControlUnavailable
from spendmesh_sidecar.control.waiting_calls import Denials, WaitingCall, WaitingCalls, untouched
from spendmesh_sidecar.core.ledger.journal import LedgerUnwritable
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import Denial
from spendmesh_sidecar.core.types import Shortfall
from spendmesh_sidecar.state.ledger_log import Log, NoLog

TOP_UP_SECONDS = 0.25
REPORT_SECONDS = 2.0
REPAIR_SECONDS = 0.2
"""Pause before a lost call is repeated."""
SILENT_AFTER_SECONDS = 2.0
"""A busy coordinator answers once a second (contract §4); one that missed two turns does not answer."""
BUSY_SECONDS = 0.1
"""A question open for longer waits for the store: who came since is asked for beside it, so that both are answered by
the same commit."""
REPORTS_AT_ONCE = protocol.MAX_REPORTS // 2
"""So that a message stays well below what the control server reads."""
CONFLICT = 409

log = logging.getLogger("spendmesh.leases")


@dataclass(frozen=True, slots=True)
class _Answer:
    """The coordinator's word on one question."""

    denials: Denials
    ended: bool
    """Some lease is over here: it has to be closed before there is another one in its place."""
    useful: bool
    """Whether what was needed can be spent here: the lease is not over, and no other call has taken what came."""


class Leases:
    """Keeps one sidecar's `Ledger` supplied and reported."""

    def __init__(
        self,
        client: ControlClient,
        ledger: Ledger,
        clock: Clock,
        rng: Random,
        new_nonce: Callable[[], str],
        log: Log | None = None,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._new_nonce = new_nonce
        self._log = log or NoLog()
        self._began = f"{clock.unix() * 1_000_000:.0f}"
        """Tells this process's questions from those of an earlier one of the same holder, which were answered."""
        self._sequence = 0
        self._heard_at = float("-inf")
        self._waiting = WaitingCalls()
        self._questions: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.reachable = False

    async def start(self, first_seconds: float = 1.0) -> None:
        """Ask for the first rights, for at most `first_seconds`, then keep the loops running until `stop`."""
        try:
            async with asyncio.timeout(first_seconds):
                if not self._ledger.settled_up:
                    await self.report()  # an earlier process's last word again: are its leases still ours?
                    await self.report()  # and what came of them since
                await self._top_up()
        except TimeoutError:
            pass  # contract §4: a sidecar becomes ready without rights too
        self.tasks = [
            asyncio.create_task(self._serve_loop(), name="calls"),
            asyncio.create_task(self._top_up_loop(), name="leases"),
            asyncio.create_task(self._report_loop(), name="reports"),
        ]

    async def stop(self, seconds: float) -> None:
        """Give everything back: final reports for at most this long. What is not acknowledged stays charged."""
        tasks = (*self.tasks, *self._questions)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ledger.drain()
        try:
            async with asyncio.timeout(seconds):
                while not self._ledger.settled_up:
                    await self.report()
                    if not self._ledger.settled_up:
                        await self._top_up_in_time()
                        await asyncio.sleep(REPAIR_SECONDS)
        except TimeoutError:
            log.warning("stopped before every lease was closed; the coordinator keeps the rest charged")
        for name, amount in self._ledger.unbooked.items():
            log.error("%d of %s were spent without a lease and could not be told to the coordinator", amount, name)

    async def acquire(self, shortfalls: tuple[Shortfall, ...], wait_seconds: float) -> Denials | None:
        """
        Rights for one waiting request. () when some were merged, or the time was too short although the coordinator
        answers; denials when refused; None when nobody answered in time.
        """
        call = self._waiting.add(shortfalls, asyncio.get_running_loop().time() + wait_seconds)
        try:
            async with asyncio.timeout_at(call.until):
                return await call.answer
        except TimeoutError:
            now = self._clock.monotonic()
            if now - self._heard_at < SILENT_AFTER_SECONDS:
                return ()  # it was others' turn: that is no silence
            self._ledger.unanswered(now)
            return None
        finally:
            self._waiting.leave(call)

    async def report(self) -> None:
        """Tell the coordinator what is new; an empty report is the heartbeat."""
        reports = self._ledger.reports(self._clock.monotonic())
        for first in range(0, max(1, len(reports)), REPORTS_AT_ONCE):
            if not await self._tell(reports[first : first + REPORTS_AT_ONCE]):
                return

    async def _tell(self, reports: tuple[protocol.LeaseReport, ...]) -> bool:
        """Whether more can be told."""
        nonce = self._ledger.nonce
        try:
            await self._log.durable()
        except LedgerUnwritable:
            reports = ()  # what the log does not know must not be told: it would look like another's next time
        try:
            reply = await self._client.report(protocol.ReportRequest(nonce=nonce, reports=reports))
        except ControlUnavailable:
            self.reachable = False
            return False
        except ControlRefused as refused:
            self._refused(refused, nonce)
            return False
        self.reachable = True
        self._ledger.acknowledged(reply.leases, self._clock.monotonic())
        if self._ledger.copied:
            log.error("this sidecar's state is a copy of another's: starting anew with its own rights")
            self._ledger.adopt(self._new_nonce())
            return False
        return True

    async def _serve_loop(self) -> None:
        while True:
            await self._waiting.called.wait()
            while calls := self._waiting.ask():
                question = asyncio.create_task(self._serve_in_time(calls), name="question")
                self._questions.add(question)
                question.add_done_callback(self._questions.discard)
                await asyncio.wait((question,), timeout=BUSY_SECONDS)
                await asyncio.sleep(0)  # who was answered takes what came, or asks anew with fresh numbers

    async def _serve_in_time(self, calls: Sequence[WaitingCall]) -> None:
        granted = True
        try:
            async with asyncio.timeout_at(max(call.until for call in calls)):
                granted = await self._serve(calls)
        except TimeoutError:
            pass  # each of these calls gives up by itself
        finally:
            self._waiting.asked(calls, granted=granted)

    async def _serve(self, calls: Sequence[WaitingCall]) -> bool:
        """
        Ask once for all calls, since a busy coordinator answers once a second. False: not even the first had success.

        If all together are refused, ask for those that need no account of a refusal; where all do, for the first half,
        down to one call, which then has its answer. Rights that come and cannot be spent are asked for once more: each
        further question would only tie up more of the limit.
        """
        useless, holder, fenced, together = 0, self._ledger.nonce, False, calls
        while calls := [call for call in calls if not call.answer.done()]:
            lacking = (lack for call in calls for lack in call.shortfalls)
            wants = self._ledger.wants_for(lacking, self._clock.monotonic())
            answer = await self._exchange(wants)
            if answer is None and not fenced and holder != self._ledger.nonce:
                fenced = True  # the same question once more, as the new holder
            elif answer is None:
                self._waiting.answer(calls, None)
            elif answer.denials and len(calls) > 1:
                calls = untouched(calls, answer.denials) or calls[: len(calls) // 2]
            elif answer.denials:
                self._waiting.answer(calls, answer.denials)
                self._waiting.answer_alike(self._standing_denials)
                return False
            elif answer.useful or self._waiting.served(self._free_for, calls):
                self._waiting.wake(self._free_for, first=together)
            else:
                if answer.ended:
                    await self.report()  # the lease is closed with it, and its rights go back
                useless += 1
                if useless > 1:
                    self._waiting.answer(
                        calls, tuple(Denial(account=want.account, reason="in_flight") for want in wants)
                    )
                    return False
        return True

    async def _exchange(self, wants: tuple[protocol.Want, ...]) -> _Answer | None:
        """One acquire, repeated under one id until it is answered or the caller's time is up."""
        self._sequence += 1
        nonce = self._ledger.nonce
        request = protocol.AcquireRequest(id=f"{nonce}/{self._began}/{self._sequence}", nonce=nonce, wants=wants)
        asked_with = self._free(wants)
        while True:
            try:
                reply = await self._client.acquire(request)
                break
            except ControlUnavailable:
                self.reachable = False
                await asyncio.sleep(self._rng.uniform(0, 2 * REPAIR_SECONDS))
            except ControlRefused as refused:
                self._refused(refused, nonce)
                return None
        self.reachable = True
        self._heard_at = now = self._clock.monotonic()
        # A top-up that was under way may have brought these rights a moment before.
        before = map(min, asked_with, self._free(wants))
        self._ledger.assign(reply.assigned, now)
        for lease in reply.leases:
            self._ledger.merge(lease, now)
        grown = (free > least for free, least in zip(self._free(wants), before, strict=True))
        useful = all(more or not want.need for want, more in zip(wants, grown, strict=True))
        asked = (
            Shortfall(want.account.budget, want.account.limit, want.need, want.want, want.account.per) for want in wants
        )
        self._ledger.denied(reply.denials, now, tuple(asked))
        if any(denial.reason == "in_flight" for denial in reply.denials):
            self._news.set()  # part of what is in flight may be use of ours that the coordinator has not heard of
        ended = not all(self._ledger.spends(lease, now) for lease in reply.leases)
        return _Answer(reply.denials, ended, useful)

    def _free(self, wants: tuple[protocol.Want, ...]) -> list[int]:
        now = self._clock.monotonic()
        return [self._ledger.free(want.account, now) for want in wants]

    def _free_for(self, lack: Shortfall) -> int:
        return self._ledger.free(lack.account, self._clock.monotonic())

    def _standing_denials(self, lacking: tuple[Shortfall, ...]) -> Denials:
        return self._ledger.standing_denials(lacking, self._clock.monotonic())

    async def _top_up(self) -> None:
        wants = self._ledger.wants(self._clock.monotonic())
        for first in range(0, len(wants), protocol.MAX_WANTS):
            some = wants[first : first + protocol.MAX_WANTS]
            before = self._free(some)
            await self._exchange(some)
            grown = any(free > least for free, least in zip(self._free(some), before, strict=True))
            if grown or self._waiting.served(self._free_for):
                self._waiting.wake(self._free_for)

    async def _top_up_loop(self) -> None:
        while True:
            await asyncio.sleep(TOP_UP_SECONDS)
            await self._top_up_in_time()

    async def _top_up_in_time(self) -> None:
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                await self._top_up()
        except TimeoutError:
            pass  # asked again with fresh numbers

    async def _report_loop(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REPORT_SECONDS * self._rng.uniform(0.8, 1.2)):
                    await self._news.wait()
            except TimeoutError:
                pass  # the usual turn
            self._news.clear()
            await self.report()
            await asyncio.sleep(REPAIR_SECONDS)  # at most so often

    def _refused(self, refused: ControlRefused, nonce: str) -> None:
        if refused.status == CONFLICT:
            if nonce == self._ledger.nonce:  # else another call has heard it before
                log.warning("this sidecar's rights were fenced off, starting anew: %s", refused)
                self._ledger.adopt(self._new_nonce())
        else:
            log.error("rights: %s", refused)
        self.reachable = False
