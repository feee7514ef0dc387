"""Calls that wait for rights: asked for together, answered apart, and never taken for the coordinator's silence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any, cast

import pytest
from msgspec.structs import replace

from exchange_world import MONTH, USD, budget, limit
from fake_bank import Bank
from sidecar_beside import eventually
from spendmesh_sidecar.clock import Clock
from spendmesh_sidecar.control.client import ControlClient, ControlRefused
from spendmesh_sidecar.control.leases import REPORTS_AT_ONCE, Leases
from spendmesh_sidecar.core.ledger import waiting
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.specs import BudgetSpec, PerSpec
from spendmesh_sidecar.protocol import MAX_WANTS, AccountRef, AcquireReply, AcquireRequest, ReportReply, ReportRequest

pytestmark = pytest.mark.anyio

LIMIT = 10 * USD
BUDGETS = (budget(limit("monthly", LIMIT)),)
SOON = 0.1


class Counter:
    """A coordinator that answers a question when the test says so, by the rules of `Bank`."""

    def __init__(self, share: int, budgets: tuple[BudgetSpec, ...] = BUDGETS) -> None:
        self.bank = Bank(budgets, share=share)
        self.reported: list[int] = []
        """Reports of each message."""
        self.asked: list[AcquireRequest] = []
        self._open: dict[str, asyncio.Future[AcquireReply]] = {}
        self.at_once = False
        self.late = False
        """Its clock is behind: it grants rights of a period that has ended here."""
        self.closed = self.reports = 0
        self.refuses: ControlRefused | None = None

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        self.asked.append(request)
        if self.at_once:
            return self._decide(request)
        self._open[request.id] = asyncio.get_running_loop().create_future()
        return await self._open[request.id]

    async def report(self, request: ReportRequest) -> ReportReply:
        self.reports += 1
        self.reported.append(len(request.reports))
        self.closed += sum(report.closed for report in request.reports)
        return ReportReply(leases=self.bank.report(request.nonce, request.reports))

    def answer(self, number: int = -1) -> None:
        """Answer one question, the newest if nothing is said."""
        request = self.asked[number]
        future = self._open.pop(request.id)
        if future.done():
            return  # nobody waits for it any more
        if self.refuses is not None:
            future.set_exception(self.refuses)
        else:
            future.set_result(self._decide(request))

    def decide_early(self, number: int) -> tuple[AcquireReply, Callable[[], None]]:
        """The answer to a question, and how to send it later."""
        request = self.asked[number]
        reply = self._decide(request)
        return reply, lambda: self._open.pop(request.id).set_result(reply)

    def answer_in_disorder(self) -> None:
        """Decide the open questions from the newest to the oldest, and answer the oldest first."""
        replies = {name: self._decide(self._asked(name)) for name in reversed(self._open)}
        for name in list(self._open):
            self._open.pop(name).set_result(replies[name])

    def _asked(self, name: str) -> AcquireRequest:
        return next(request for request in self.asked if request.id == name)

    def answer_from_now_on(self) -> None:
        """Answer what is open, and every later question at once."""
        self.at_once = True
        for request in [request for request in self.asked if request.id in self._open]:
            self.answer(self.asked.index(request))

    def _decide(self, request: AcquireRequest) -> AcquireReply:
        leases, denials = self.bank.acquire(request.nonce, request.wants)
        if self.late:
            leases = tuple(replace(lease, ends_in_ms=0) for lease in leases)
        return AcquireReply(leases=leases, denials=denials)

    @property
    def waits(self) -> bool:
        """Some question is open."""
        return bool(self._open)

    @property
    def needs(self) -> list[int]:
        """Of each question so far."""
        return [sum(want.need for want in request.wants) for request in self.asked]


class Watch(Clock):
    """Time that can be put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


class Desk:
    """`Leases` between a ledger and that coordinator, with calls as an exchange makes them."""

    def __init__(self, share: int = 0, budgets: tuple[BudgetSpec, ...] = BUDGETS) -> None:
        self.counter = Counter(share, budgets)
        self.clock = Watch()
        self.ledger = Ledger("first", budgets, self.clock.monotonic())
        self.nonces = iter(("second", "third"))
        client = cast(ControlClient, self.counter)
        self.leases = Leases(client, self.ledger, self.clock, Random(3), lambda: next(self.nonces))
        self._calls = self.waits = 0

    def spend_unasked(self, amount: int) -> None:
        """An observed call that nobody granted anything for."""
        assert not self.ledger.reserve((Charge(MONTH, "Cost", amount, observed=True),), "unasked", 0.0)
        self.ledger.settle("unasked", Quantities(amount, "USD"), 0.0)

    def hear_before(self, number: int) -> Callable[[], None]:
        """The rights that answer a question come with another answer; what is returned lets its own arrive."""
        reply, arrive = self.counter.decide_early(number)
        for lease in reply.leases:
            self.ledger.merge(lease, self.clock.monotonic())
        return arrive

    async def start(self) -> None:
        """With the first top-up answered, and none due for a while."""
        starting = asyncio.create_task(self.leases.start())
        await eventually(lambda: self.counter.asked)
        self.counter.answer()
        await starting
        self.counter.asked.clear()

    async def call(self, amount: int, wait: float = 60.0, account: AccountRef = MONTH) -> str:
        """Reserve, asking as often as there is time; how it went."""
        self._calls += 1
        name, until = f"call-{self._calls}", self.clock.monotonic() + wait
        charges = (Charge(account, "Cost", amount),)
        while lacking := self.ledger.reserve(charges, name, self.clock.monotonic()):
            left = until - self.clock.monotonic()
            if left <= 0:
                return "in flight"
            self.waits += 1
            waits = self.ledger.waits_of(charges, self.clock.monotonic())
            waiting.begin(waits)
            denials = await self.leases.acquire(lacking, left)
            waiting.end(waits)
            if denials is None:
                return "silence"
            if denials:
                return denials[0].reason
        return "served"

    def calls(self, *amounts: int, **options: Any) -> list[asyncio.Task[str]]:
        return [asyncio.create_task(self.call(amount, **options)) for amount in amounts]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """Nothing is granted but what a call needs, so that each question is a call's."""
    async for made in opened(Desk()):
        yield made


@pytest.fixture
async def generous_desk() -> AsyncIterator[Desk]:
    """Rights are granted ahead."""
    async for made in opened(Desk(share=2)):
        yield made


@pytest.fixture
def watched_desk() -> Desk:
    """A limit that is only observed; nothing was asked for yet."""
    return Desk(budgets=(budget(limit("monthly", LIMIT), mode="Observe"),))


async def opened(desk: Desk) -> AsyncIterator[Desk]:
    await desk.start()
    yield desk
    desk.counter.answer_from_now_on()
    await desk.leases.stop(0.0)


def free(desk: Desk) -> int:
    return desk.ledger.accounts[MONTH].free(desk.clock.monotonic())


async def test_calls_that_wait_are_asked_for_together(desk: Desk) -> None:
    """A busy coordinator answers once a second: twelve calls at once must not take twelve turns."""
    had = free(desk)
    calls = desk.calls(*[USD // 2] * 12)
    await eventually(lambda: desk.counter.asked)
    desk.counter.answer()
    while not all(call.done() for call in calls):
        await eventually(lambda: desk.counter.waits or all(call.done() for call in calls))
        if desk.counter.waits:
            desk.counter.answer()
    assert {call.result() for call in calls} == {"served"}
    assert len(desk.counter.asked) <= 2
    assert sum(desk.counter.needs) == 12 * (USD // 2) - had, "what is free is reckoned once"


async def test_who_comes_while_a_question_is_open_is_in_the_next(desk: Desk) -> None:
    first = desk.calls(USD)
    await eventually(lambda: desk.counter.asked)
    others = desk.calls(USD, 2 * USD, USD)
    await asyncio.sleep(0)
    desk.counter.answer()
    await eventually(lambda: len(desk.counter.asked) == 2)
    assert desk.counter.needs[1] == 4 * USD
    desk.counter.answer()
    assert await asyncio.gather(*first, *others) == ["served"] * 4


async def test_a_question_that_stays_open_does_not_hold_up_who_comes_later(desk: Desk) -> None:
    """A busy store answers at its turns: who came between two of them is served by the next, not by the one after."""
    [over] = desk.calls(USD)
    await eventually(lambda: desk.counter.waits)
    desk.counter.answer()
    assert await over == "served"
    desk.ledger.void("call-1")
    assert free(desk) == USD
    desk.counter.asked.clear()
    [first] = desk.calls(2 * USD)
    await eventually(lambda: desk.counter.asked)
    [second] = desk.calls(3 * USD)
    await eventually(lambda: len(desk.counter.asked) == 2)
    assert desk.counter.needs == [USD, 3 * USD], "what is free goes to the first"
    desk.counter.answer(0)
    assert await first == "served"
    assert not second.done()
    desk.counter.answer(1)
    assert await second == "served"
    assert desk.waits == 3, "nobody is sent to ask again before its own answer: that would tie up more of the limit"


async def test_what_comes_for_one_call_sends_no_other_to_ask_again(desk: Desk) -> None:
    """Also where it would be enough for the other: the one who was asked for takes it."""
    [first] = desk.calls(USD)
    await eventually(lambda: desk.counter.asked)
    [second] = desk.calls(2 * USD)
    await eventually(lambda: len(desk.counter.asked) == 2)
    desk.counter.answer(1)
    assert await second == "served"
    desk.counter.answer(0)
    assert await first == "served"
    assert desk.waits == 2


async def test_questions_that_are_answered_in_disorder_serve_all(desk: Desk) -> None:
    """`granted` is cumulative: the later question's answer serves the earlier one's call, too."""
    calls = desk.calls(USD)
    await eventually(lambda: desk.counter.asked)
    calls += desk.calls(2 * USD)
    await eventually(lambda: len(desk.counter.asked) == 2)
    before = desk.counter.reports
    desk.counter.answer_in_disorder()
    assert await asyncio.gather(*calls) == ["served"] * 2
    await asyncio.sleep(0)
    assert (desk.counter.reports, len(desk.counter.asked)) == (before, 2)


async def test_together_too_much_is_asked_for_in_halves_and_who_fits_is_served(desk: Desk) -> None:
    desk.counter.at_once = True
    calls = desk.calls(*[2 * USD] * 8)
    results = await asyncio.gather(*calls)
    assert results.count("served") == 5, "ten dollars hold five calls"
    assert set(results) == {"served", "in_flight"}


async def test_one_call_that_never_fits_does_not_stand_in_the_way_of_others(desk: Desk) -> None:
    desk.counter.at_once = True
    assert await asyncio.gather(*desk.calls(LIMIT + 1, USD, LIMIT + 2, USD)) == [
        "too_large",
        "served",
        "too_large",
        "served",
    ]


async def test_many_calls_on_an_empty_budget_are_answered_with_few_questions(desk: Desk) -> None:
    desk.counter.at_once = True
    desk.counter.bank.reasons[MONTH] = "exhausted"
    assert set(await asyncio.gather(*desk.calls(*[USD] * 64))) == {"exhausted"}
    assert len(desk.counter.asked) <= 8


async def test_a_turn_that_comes_too_late_is_not_the_coordinators_silence(desk: Desk) -> None:
    """It answers, only not this call in time: try again soon, and nothing shrinks for it."""
    [first] = desk.calls(USD)
    await eventually(lambda: desk.counter.asked)
    [late] = desk.calls(USD, wait=SOON)
    await asyncio.sleep(0)
    desk.counter.answer()
    assert await late == "in flight"
    assert not desk.ledger.silent(desk.clock.monotonic())
    assert await first == "served"


async def test_no_answer_at_all_is_silence(desk: Desk) -> None:
    desk.clock.ahead += 2.0
    assert await asyncio.gather(*desk.calls(USD, USD, wait=SOON)) == ["silence"] * 2
    assert desk.ledger.silent(desk.clock.monotonic())


async def test_after_a_silence_the_next_call_is_asked_for(desk: Desk) -> None:
    desk.clock.ahead += 2.0
    assert await asyncio.gather(*desk.calls(USD, wait=SOON)) == ["silence"]
    desk.counter.at_once = True
    assert await asyncio.gather(*desk.calls(USD)) == ["served"]


async def test_a_call_does_not_wait_for_a_top_up(generous_desk: Desk) -> None:
    desk = generous_desk
    desk.ledger.reserve((Charge(MONTH, "Cost", free(desk)),), "all", desk.clock.monotonic())
    await eventually(lambda: desk.counter.asked)
    assert desk.counter.needs == [0], "a top-up, which stays open"
    [call] = desk.calls(USD)
    await eventually(lambda: len(desk.counter.asked) == 2)
    desk.counter.answer()
    assert await call == "served"


async def test_a_call_takes_what_a_top_up_brings(generous_desk: Desk) -> None:
    """Rights are rights: whoever asked for them, a call that waits need not wait for its own answer."""
    desk = generous_desk
    desk.ledger.reserve((Charge(MONTH, "Cost", free(desk)),), "all", desk.clock.monotonic())
    await eventually(lambda: desk.counter.asked)
    [call] = desk.calls(USD // 100)
    await eventually(lambda: len(desk.counter.asked) == 2)
    desk.counter.answer(0)
    assert await call == "served"
    assert desk.counter.waits, "its own question is still open"


async def test_rights_that_an_overtaking_top_up_has_told_already_are_no_useless_answer(generous_desk: Desk) -> None:
    """`granted` is cumulative, so the later of two answers may bring nothing new: no reason to report and ask anew."""
    desk = generous_desk
    desk.ledger.reserve((Charge(MONTH, "Cost", free(desk)),), "all", desk.clock.monotonic())
    await eventually(lambda: desk.counter.asked)
    [call] = desk.calls(USD)
    await eventually(lambda: len(desk.counter.asked) == 2)
    before = desk.counter.reports
    desk.counter.answer_in_disorder()
    assert await call == "served"
    await asyncio.sleep(0)
    assert (desk.counter.reports, len(desk.counter.asked)) == (before, 2)


async def test_rights_that_came_with_another_answer_serve_a_call_when_its_own_brings_nothing_new(desk: Desk) -> None:
    """Though less is free then than when it was asked for: another call has taken what it counted on."""
    [over] = desk.calls(5 * USD)
    await eventually(lambda: desk.counter.waits)
    desk.counter.answer()
    assert await over == "served"
    desk.ledger.void("call-1")
    [larger] = desk.calls(6 * USD)
    await eventually(lambda: len(desk.counter.asked) == 2)
    [call] = desk.calls(3 * USD)
    await eventually(lambda: len(desk.counter.asked) == 3)
    desk.counter.answer(1)
    assert await larger == "served" and free(desk) == 0
    arrive = desk.hear_before(2)
    before = desk.counter.reports
    arrive()
    assert await call == "served"
    await asyncio.sleep(0)
    assert (desk.counter.reports, len(desk.counter.asked)) == (before, 3)


async def test_rights_that_another_call_has_taken_are_asked_for_again_at_once(desk: Desk) -> None:
    """The store may be busy for a second: an answer to a report, which nothing depends on here, is not waited for."""
    [call] = desk.calls(3 * USD)
    await eventually(lambda: desk.counter.waits)
    arrive = desk.hear_before(0)
    desk.ledger.reserve((Charge(MONTH, "Cost", 3 * USD),), "another", desk.clock.monotonic())
    before = desk.counter.reports
    arrive()
    await eventually(lambda: len(desk.counter.asked) == 2)
    assert desk.counter.reports == before
    desk.counter.answer()
    assert await call == "served"


async def test_a_fence_that_is_heard_twice_starts_anew_once(generous_desk: Desk) -> None:
    desk = generous_desk
    desk.ledger.reserve((Charge(MONTH, "Cost", free(desk)),), "all", desk.clock.monotonic())
    await eventually(lambda: desk.counter.asked)
    [call] = desk.calls(USD, wait=1.0)
    await eventually(lambda: len(desk.counter.asked) == 2)
    desk.counter.refuses = ControlRefused(409, "fenced")
    desk.counter.answer(0)
    desk.counter.answer(1)
    desk.clock.ahead += 2.0
    assert await call == "silence"
    assert desk.ledger.nonce == "second"


@pytest.mark.parametrize("amounts", [[USD], [USD] * 8], ids=["one call", "many"])
async def test_rights_that_cannot_be_spent_here_are_not_asked_for_again_and_again(
    desk: Desk, amounts: list[int]
) -> None:
    """One call must not tie up a whole limit in a lease that has ended by the sidecar's clock."""
    desk.counter.at_once = desk.counter.late = True
    assert set(await asyncio.gather(*desk.calls(*amounts))) == {"in_flight"}
    assert len(desk.counter.asked) == 2
    assert desk.counter.closed, "so that the rights go back"


async def test_use_without_a_lease_is_told_before_the_end(watched_desk: Desk) -> None:
    """Observed while the coordinator was away: a shutdown asks for a lease to tell it in."""
    watched_desk.spend_unasked(70)
    watched_desk.counter.at_once = True
    await watched_desk.leases.stop(60.0)
    assert [held.used for held in watched_desk.counter.bank.leases.values()] == [70]
    assert watched_desk.ledger.settled_up


async def test_what_could_not_be_told_before_the_end_is_said_in_the_log(
    watched_desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    watched_desk.spend_unasked(70)
    await watched_desk.leases.stop(SOON)
    assert "70 of team-a/team/monthly were spent without a lease" in caplog.text


async def test_a_refusal_of_all_is_not_remembered_for_one(desk: Desk) -> None:
    """What is too much for ten calls together may be there for one."""
    desk.counter.bank.reasons[MONTH] = "exhausted"
    calls = desk.calls(USD, USD)
    await eventually(lambda: desk.counter.asked)
    assert desk.counter.needs[0] > USD
    desk.counter.answer()
    await eventually(lambda: len(desk.counter.asked) == 2)
    [lack] = desk.ledger.shortfalls((Charge(MONTH, "Cost", USD),), desk.clock.monotonic())
    assert desk.ledger.standing_denials((lack,), desk.clock.monotonic()) == ()
    desk.counter.bank.reasons.clear()
    desk.counter.answer()
    desk.counter.answer_from_now_on()
    assert await asyncio.gather(*calls) == ["served"] * 2


# --- divided limits -----------------------------------------------------------------------------------------

DIVIDED = (budget(replace(limit("each", USD), per=(PerSpec(type="User"),))),)


def of(user: str) -> AccountRef:
    return AccountRef(budget="team-a/team", limit="each", per=(user,))


@pytest.fixture
async def divided_desk() -> AsyncIterator[Desk]:
    """One limit for each user; nothing is asked for before a call."""
    made = Desk(budgets=DIVIDED)
    made.counter.at_once = True
    await made.leases.start()
    assert made.counter.asked == []
    yield made
    await made.leases.stop(0.0)


async def test_one_users_refusal_does_not_hold_up_other_users(divided_desk: Desk) -> None:
    """Who needs no account of the refusal is asked for again at once, all together."""
    desk = divided_desk
    empty = [desk.call(2 * USD, account=of("ana")) for _ in range(8)]
    others = [desk.call(USD // 2, account=of(f"user-{number}")) for number in range(24)]
    results = await asyncio.gather(*empty, *others)
    assert results == ["too_large"] * 8 + ["served"] * 24
    assert len(desk.counter.asked[0].wants) == 25 and len(desk.counter.asked[1].wants) == 24


async def test_many_values_are_asked_for_and_reported_in_messages_that_are_read(divided_desk: Desk) -> None:
    """The coordinator reads 64 wants and 1,024 reports of one message, and refuses more."""
    desk = divided_desk
    users = 2 * REPORTS_AT_ONCE + 1
    calls = (desk.call(1, wait=90.0, account=of(f"user-{n}")) for n in range(users))
    assert set(await asyncio.gather(*calls)) == {"served"}
    for number in range(1, users + 1):  # news of all of them at once: some may have been reported on the way here
        desk.ledger.settle(f"call-{number}", Quantities(1, "USD"), desk.clock.monotonic())
    desk.counter.reported.clear()
    await desk.leases.report()
    # The loop of reports may have been in the middle of one.
    assert max(desk.counter.reported) == REPORTS_AT_ONCE and sum(desk.counter.reported) >= users
    await desk.leases._top_up()
    assert max(len(request.wants) for request in desk.counter.asked) == MAX_WANTS
