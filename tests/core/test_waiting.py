"""Who waits for rights is served before who came later: `spendmesh_sidecar.core.ledger.waiting`."""

from __future__ import annotations

from msgspec.structs import replace

from exchange_world import MONTH, MONTHLY, UNIX, World, budget, chat, limit, policy
from lease_samples import charge, lease
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.reservation import OUTPUT_FLOOR_TOKENS
from spendmesh_sidecar.core.ledger.rights import AccountRef, Assigned
from spendmesh_sidecar.core.ledger.waiting import begin
from spendmesh_sidecar.core.specs import PerSpec
from spendmesh_sidecar.core.types import Acquire, Attempt, Hints, Respond, Step

PER_TOKEN = 8_000
"""Nano-units of an output token of the default tier's model, whose largest output is 1,000."""


class Desk:
    """A sidecar with rights for so many tokens of output, and calls of nothing but output that are driven by hand."""

    def __init__(self, tokens: int) -> None:
        self.world = World(policy(budgets=(budget(limit("monthly", 10**9 * PER_TOKEN)),)))
        self._granted = 0
        self.grant(tokens)

    def grant(self, tokens: int) -> None:
        """So many more."""
        self._granted += tokens * PER_TOKEN
        message = lease(self._granted, nonce=self.world.ledger.nonce, account=MONTH)
        assert self.world.ledger.merge(message, self.world.now)

    def call(self, tokens: int | None) -> tuple[Exchange, Step]:
        """None: its maximum is ours to choose."""
        exchange = self.world.exchange(chat(maximum=tokens, input_tokens=0))
        return exchange, exchange.begin(self.world.now, UNIX)

    def answered(self, exchange: Exchange, *, refused: bool = False) -> Step:
        """The coordinator's answer arrived."""
        denials = None if refused else ()
        return exchange.acquired(denials, self.world.now, UNIX)

    @property
    def free(self) -> int:
        """Tokens."""
        return self.world.ledger.free(MONTH, self.world.now) // PER_TOKEN


def lacking(step: Step) -> int:
    """Tokens that a call has to wait for."""
    assert isinstance(step, Acquire), step
    [lack] = step.shortfalls
    return lack.need // PER_TOKEN


def sent(step: Step) -> int | None:
    """The output that a call was sent with."""
    assert isinstance(step, Attempt), step
    return step.max_output_tokens


def test_what_a_waiting_call_counts_on_is_not_another_calls() -> None:
    """A stream of small calls would else take, one by one, what a larger one waits to see completed."""
    desk = Desk(300)
    large, step = desk.call(500)
    assert lacking(step) == 200
    small, step = desk.call(100)
    assert lacking(step) == 100, "all of it: nothing of what is free is its own"
    desk.grant(200)
    assert sent(desk.answered(large)) is not None
    assert lacking(desk.answered(small)) == 100


def test_what_nobody_counts_on_is_free_for_who_comes() -> None:
    desk = Desk(0)
    large, step = desk.call(500)
    assert lacking(step) == 500
    desk.grant(600)
    _, step = desk.call(100)
    assert isinstance(step, Attempt)
    assert isinstance(desk.answered(large), Attempt)
    assert desk.free == 0


def test_the_shares_of_all_who_wait_are_each_one_s_own() -> None:
    """What three lack together is what makes all three fit."""
    desk = Desk(450)
    waiting = [desk.call(tokens) for tokens in (500, 300, 200)]
    needs = [lacking(step) for _, step in waiting]
    assert needs == [50, 300, 200]
    desk.grant(sum(needs))
    for exchange, _ in reversed(waiting):
        assert isinstance(desk.answered(exchange), Attempt)


def test_a_call_that_can_shrink_leaves_others_what_they_wait_for() -> None:
    """Rights that came for two are not taken by the first, only because its output may be as long as they last."""
    desk = Desk(0)
    first, step = desk.call(None)
    assert lacking(step) == OUTPUT_FLOOR_TOKENS
    second, step = desk.call(300)
    assert lacking(step) == 300
    desk.grant(700)
    assert sent(desk.answered(first)) == 400
    assert isinstance(desk.answered(second), Attempt)


def test_it_is_sent_with_its_least_where_there_is_no_more_than_that_beside_others() -> None:
    desk = Desk(0)
    first, _ = desk.call(None)
    desk.call(300)
    desk.grant(OUTPUT_FLOOR_TOKENS)
    assert sent(desk.answered(first)) == OUTPUT_FLOOR_TOKENS


def test_a_client_that_leaves_leaves_its_share() -> None:
    desk = Desk(300)
    large, _ = desk.call(500)
    large.close(desk.world.now)
    _, step = desk.call(300)
    assert isinstance(step, Attempt)


def test_a_refused_calls_share_serves_who_waits_behind_it() -> None:
    desk = Desk(300)
    large, _ = desk.call(500)
    small, step = desk.call(100)
    assert lacking(step) == 100
    assert isinstance(desk.answered(large, refused=True), Respond)
    assert isinstance(desk.answered(small, refused=True), Attempt)


def test_who_waits_when_promised_rights_are_gone_takes_nothing_of_what_was_promised() -> None:
    """300 that a call counts on were asked back, and come again: beside it 400 of the next 700 are free."""
    ledger = Ledger("me", (MONTHLY,), 0.0)
    ledger.merge(lease(300), 0.0)
    begin(ledger.waits_of(charge(500), 0.0))
    ledger.accounts[MONTH].leases["one"].give_back(300)
    begin(ledger.waits_of(charge(100), 0.0))
    ledger.merge(lease(1_000), 0.0)
    assert not ledger.shortfalls(charge(400), 0.0)
    assert ledger.shortfalls(charge(401), 0.0)


def test_values_of_which_nobody_has_said_yet_that_they_share_an_account_share_it() -> None:
    """Rights came for two users who are both counted on `other`; only of the one whose answer is here that is known."""
    world, ana, ben = waiting_with("ben")

    def shares(user: str) -> Assigned:
        return Assigned(asked=each(user), account=each("other"), ends_in_ms=60_000)

    world.ledger.assign([shares("ben")], world.now)
    granted = (OUTPUT_FLOOR_TOKENS + 300) * PER_TOKEN
    assert world.ledger.merge(lease(granted, nonce=world.ledger.nonce, account=each("other")), world.now)
    assert sent(ben.acquired((), world.now, UNIX)) == OUTPUT_FLOOR_TOKENS
    world.ledger.assign([shares("ana")], world.now)
    assert sent(ana.acquired((), world.now, UNIX)) == 300


def test_beside_values_that_may_share_an_account_what_they_wait_for_is_left_to_the_unit() -> None:
    ledger = Ledger("me", (budget(replace(limit("each", 10**9), per=(PerSpec(type="User"),))),), 0.0)
    ledger.merge(lease(1_000, account=each("other")), 0.0)
    assert [ledger.crowds(charge(amount, each("other")), 0.0) for amount in (1_000, 1_001)] == [False, True]
    begin(ledger.waits_of(charge(300, each("ana")), 0.0))
    assert [ledger.crowds(charge(amount, each("other")), 0.0) for amount in (700, 701)] == [False, True]


def test_a_value_with_an_account_of_its_own_waits_for_nobody_elses() -> None:
    """Its call was served; what is in `other` is free again for whom it was granted."""
    world, ana, ben = waiting_with("other")
    for user, tokens in (("ana", 300), ("other", 700)):
        message = lease(tokens * PER_TOKEN, id=user, nonce=world.ledger.nonce, account=each(user))
        assert world.ledger.merge(message, world.now)
    assert sent(ana.acquired((), world.now, UNIX)) == 300
    assert sent(ben.acquired((), world.now, UNIX)) == 700


def waiting_with(user: str) -> tuple[World, Exchange, Exchange]:
    """A limit for each user on which nobody has rights: a call of ana waits, and one of this user that may shrink."""
    world = World(policy(budgets=(budget(replace(limit("each", 10**9 * PER_TOKEN), per=(PerSpec(type="User"),))),)))
    ana, other = (
        world.exchange(chat(maximum=tokens, input_tokens=0, hints=Hints(user=name)))
        for name, tokens in (("ana", 300), (user, None))
    )
    for exchange in (ana, other):
        assert isinstance(exchange.begin(world.now, UNIX), Acquire)
    return world, ana, other


def each(user: str) -> AccountRef:
    return AccountRef(budget="team-a/team", limit="each", per=(user,))
