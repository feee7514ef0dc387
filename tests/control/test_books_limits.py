"""Limits that change, periods that end, the ladder, Observe, corrections, and what survives a restart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists, sampled_from, tuples
from msgspec.structs import replace

from ledger_desk import DAY_MS, HOUR_MS, Desk, holder
from ledger_samples import BUDGET, REF, START_MS, budget, limit, limits_of, report, want
from spendmesh_operator.ledger.books.accounts import BadRequest, HolderFenced
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.correcting import correct
from spendmesh_operator.ledger.books.periods import span_at
from spendmesh_operator.ledger.document.sections import decode, encode
from spendmesh_sidecar.core.specs import LimitSpec, Period, ThresholdSpec, WindowSpec
from spendmesh_sidecar.protocol import (
    AccountRef,
    LeaseReport,
    Want,
)

# --- limits that change -------------------------------------------------------------------------------------


def test_a_raised_limit_acts_at_once() -> None:
    """The next acquire has the new amount."""
    desk = Desk(100)
    desk.grant(holder("pod-b"), 100)
    desk.limits = limits_of(budget(200))

    assert desk.grant(holder(), 100).granted == 100


def test_a_lowered_limit_stops_grants_and_takes_nothing_back() -> None:
    """Charged stays what it is."""
    desk = Desk()
    desk.grant(holder("pod-b"), 500)
    desk.limits = limits_of(budget(400))

    assert desk.refused(holder(), want(1)) == ["in_flight"]
    assert desk.state.charged == 500


def test_deleting_and_applying_a_budget_again_does_not_reset_spend() -> None:
    """The account's name is its identity, not a uid."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    desk.tell(holder(), report(lease.id, 100, closed=1))
    desk.books.remember({}, ())
    desk.books.remember({BUDGET: budget(1000)}, (BUDGET,))

    assert desk.grant(holder(), 1).state.settled == 100


def test_a_limit_with_another_meaning_is_refused_until_the_period_of_the_old_one_ends() -> None:
    """Removed and added again as something else: first the old one must end."""
    desk = Desk()
    desk.grant(holder(), 100)
    for other in (
        replace(limit(500), models=("gpt-*",)),
        replace(limit(500), providers=("team-a/openai",)),
        limit(500, window=WindowSpec(period="Day")),
    ):
        desk.limits = limits_of(budget(limits=(other,)))
        assert desk.refused(holder(), want(1)) == ["unverifiable"]
    desk.now_ms += HOUR_MS
    assert desk.grant(holder(), 1).granted == 1


def test_an_unreadable_budget_keeps_what_it_last_meant_and_a_deleted_one_does_not() -> None:
    """Contract §1: a rejected edit never loosens."""
    books = Books("test")
    books.remember({BUDGET: budget(1000), "team-b/x": budget(1)}, (BUDGET, "team-b/x"))

    books.remember({}, (BUDGET,))

    assert books.remembered == {BUDGET: budget(1000)}


def test_a_remembered_amount_acts_before_anyone_asks() -> None:
    """A lowered limit shows in the next state."""
    desk = Desk()
    desk.grant(holder(), 100)

    desk.books.remember({BUDGET: budget(400)}, (BUDGET,))

    assert desk.state.amount == 400


# --- periods ------------------------------------------------------------------------------------------------


def test_a_new_period_is_a_new_account_and_open_leases_stay_with_theirs() -> None:
    """Never a reset: streams over the boundary are charged to where they were reserved. Row 17."""
    desk = Desk()
    old = desk.grant(holder(), 900)
    desk.now_ms += HOUR_MS

    fresh = desk.grant(holder(), 900)
    desk.now_ms += 1000
    (told,) = desk.tell(holder(), report(old.id, 900, closed=1))

    assert fresh.id != old.id
    assert told.state is not None and told.state.resets_in_ms == 0, "it has ended, and does not end again"
    assert desk.state.settled == 0
    assert sorted(account.settled for account in desk.books.holdings.accounts.values()) == [0, 900]


def test_rights_of_the_next_period_are_granted_before_it_begins() -> None:
    """A coordinator that is away at midnight refuses nothing that it had granted."""
    desk = Desk()
    desk.now_ms += HOUR_MS - 60_000

    (lease,) = desk.ask(holder(), Want(account=REF, need=0, want=20, period="next")).leases

    assert (lease.granted, lease.starts_in_ms, lease.ends_in_ms) == (20, 60_000, HOUR_MS + 60_000)
    assert desk.books.states(desk.now_ms) == {}


def test_an_ended_period_is_kept_one_retention_and_settles_quarantined_leases_in_full() -> None:
    """Then it is dropped, and can never be opened again."""
    desk = Desk()
    desk.grant(holder(), 100)
    desk.books.quarantine(["pod-a"], "gone")
    desk.pass_time(2 * HOUR_MS - 1)
    assert len(desk.books.holdings.accounts) == 1

    desk.pass_time(1)
    assert desk.books.holdings.accounts == {}
    assert desk.books.pods.records == {}


def test_an_ended_period_is_kept_while_a_holder_still_spends_from_it() -> None:
    """A long stream ends in its own period's account."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    desk.pass_time(5 * HOUR_MS)

    (state,) = desk.tell(holder(), report(lease.id, 70, closed=1))

    assert not state.fenced


def test_a_clock_that_goes_back_cannot_open_a_dropped_period_again() -> None:
    """Row 10: that would be a reset."""
    desk = Desk()
    lease = desk.grant(holder(), 1000)
    desk.tell(holder(), report(lease.id, 1000, closed=1))
    desk.pass_time(2 * HOUR_MS)
    desk.now_ms -= 2 * HOUR_MS

    assert desk.refused(holder(), want(1)) == ["unverifiable"]


@given(
    period=sampled_from(["Hour", "Day", "Week", "Month", "Quarter", "Year"]),
    steps=lists(tuples(floats(0.0001, 0.5), integers(-400, 4000)), max_size=60),
)
def test_no_clock_makes_the_books_drop_a_period_before_it_is_over(
    period: Period, steps: list[tuple[float, int]]
) -> None:
    """Row 10, for every period: each step is a part of the period in truth, and the days that the clock is off."""
    desk = Desk()
    desk.limits = limits_of(budget(limits=(limit(window=WindowSpec(period=period)),)))
    span = span_at(WindowSpec(period=period, time_zone="UTC"), desk.now_ms // 1000)
    truth = desk.now_ms = span.start * 1000
    desk.pass_time(0)
    lease = desk.grant(holder(), 1000)
    desk.tell(holder(), report(lease.id, 1000, closed=1))

    for part, days_off in steps:
        elapsed = int(part * (span.end - span.start) * 1000)
        truth += elapsed
        desk.books.sweep(truth + days_off * DAY_MS, elapsed)
        desk.now_ms = truth
        if truth < span.end * 1000:
            assert desk.refused(holder(), want(1)) == ["exhausted"]


def test_a_clock_that_was_months_ahead_has_dropped_nothing() -> None:
    """Row 10: the running month goes on with what was spent in it; what the clock made the books say is told."""
    desk = Desk()
    desk.limits = limits_of(budget(limits=(limit(window=WindowSpec(period="Month")),)))
    desk.pass_time(60_000)
    lease = desk.grant(holder(), 400)
    desk.tell(holder(), report(lease.id, 400, closed=1))

    desk.now_ms += 70 * DAY_MS
    for _ in range(3):
        desk.pass_time(8 * HOUR_MS)
    desk.now_ms -= 70 * DAY_MS
    desk.pass_time(60_000)

    assert desk.grant(holder(), 600).state.settled == 400
    assert [alarm for alarm in desk.books.take_alarms() if "hours ahead of the books" in alarm] == [
        "the clock is 1672 hours ahead of the books; no period that ended since is dropped yet"
    ]


def test_books_that_nobody_kept_for_long_drop_what_has_ended_in_half_that_time() -> None:
    """Their clock is right after all; a restart in between does not begin the wait anew."""
    desk = Desk()
    desk.pass_time(60_000)
    desk.now_ms += 10 * DAY_MS
    lease = desk.grant(holder(), 10)
    desk.tell(holder(), report(lease.id, 10, closed=1))

    kept = []
    for _ in range(7):
        desk.pass_time(DAY_MS)
        desk.books = decode(encode(desk.books), "test")
        kept.append(len(desk.books.holdings.accounts))

    assert kept == [1, 1, 1, 1, 1, 0, 0]


def test_a_clock_that_goes_back_finds_the_account_as_it_was() -> None:
    """No second budget for the same hour."""
    desk = Desk()
    lease = desk.grant(holder(), 1000)
    desk.tell(holder(), report(lease.id, 1000, closed=1))
    desk.now_ms += HOUR_MS
    desk.grant(holder(), 10)
    desk.now_ms -= HOUR_MS

    assert desk.refused(holder(), want(1)) == ["exhausted"]


# --- ladder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "crossed", "tier"),
    [
        (0, 0, ""),
        (799, 0, ""),
        (800, 80, ""),
        (899, 80, ""),
        (900, 90, "economy"),
        (999, 90, "economy"),
        (1000, 100, "economy"),
    ],
)
def test_the_stage_follows_what_is_settled(used: int, crossed: int, tier: str) -> None:
    """80 %: notify; 90 %: downgrade; 100: exhausted. At the step itself, not after it."""
    desk = Desk()
    desk.limits = limits_of(budget(limits=(limit(1000, max_tier="economy"),)))
    lease = desk.grant(holder(), 1000)

    (state,) = desk.tell(holder(), report(lease.id, used))

    assert state.state is not None
    assert (state.state.crossed_percent, state.state.max_tier) == (crossed, tier)


def test_quarantined_rights_count_for_the_stage_and_free_ones_do_not() -> None:
    """What is only lent out has not been spent."""
    desk = Desk()
    desk.grant(holder(), 950)
    assert desk.state.crossed_percent == 0

    desk.books.quarantine(["pod-a"], "gone")

    assert desk.state.crossed_percent == 90


# --- observe ------------------------------------------------------------------------------------------------


def test_an_observed_budget_never_refuses_and_counts_what_it_would_have() -> None:
    """It changes nothing but the numbers."""
    desk = Desk()
    desk.limits = limits_of(budget(1000, mode="Observe"))
    lease = desk.grant(holder(), 5000)

    (state,) = desk.tell(holder(), report(lease.id, 4000, would_block=7))

    assert state.state is not None
    assert (state.state.observed, state.state.settled, state.recalled) == (True, 4000, 0)
    assert desk.books.current(desk.now_ms)[0].would_block == 7
    assert desk.grant(holder("pod-b"), 100).granted == 100


def test_enforcing_an_observed_budget_counts_what_was_spent_under_it() -> None:
    """Same account: the switch starts from the truth."""
    desk = Desk()
    desk.limits = limits_of(budget(1000, mode="Observe"))
    lease = desk.grant(holder(), 5000)
    desk.tell(holder(), report(lease.id, 4000, closed=1))
    desk.limits = limits_of(budget(1000))

    assert desk.refused(holder(), want(1)) == ["exhausted"]


# --- corrections, invariants, document ----------------------------------------------------------------------


def test_a_correction_counts_once_and_is_kept_with_its_evidence() -> None:
    """Append-only: the closed lease's use stays what it was."""
    desk = Desk()
    lease = desk.grant(holder(), 100)
    desk.tell(holder(), report(lease.id, 100, closed=1))
    (account,) = desk.books.current(desk.now_ms)

    for _ in range(2):
        correct(desk.books, account.key, "invoice-7", -30, "provider's invoice of January", desk.now_ms)

    assert (account.closed_used, desk.state.settled) == (100, 70)
    assert [each.evidence for each in account.corrections] == ["provider's invoice of January"]
    with pytest.raises(BadRequest, match="takes back more"):
        correct(desk.books, account.key, "invoice-8", -71, "typing error", desk.now_ms)


def test_sums_that_do_not_hold_stop_grants_of_that_account_only() -> None:
    """I7 violated: unverifiable and an alarm, never a wrong grant, and the process goes on."""
    desk = Desk()
    other = AccountRef(budget=BUDGET, limit="other")
    desk.limits = limits_of(budget(limits=(limit(), limit(name="other"))))
    desk.grant(holder(), 10)
    next(iter(desk.books.holdings.accounts.values())).totals.charged -= 5

    assert desk.refused(holder("pod-b"), want(1)) == ["unverifiable"]
    assert desk.ask(holder("pod-b"), want(1, ref=other)).leases
    assert any("sums differ" in alarm for alarm in desk.books.take_alarms())


def test_the_books_survive_their_document() -> None:
    """All that matters comes back: charges, quarantines, answers, retired nonces, memory, corrections."""
    desk = Desk()
    lease = desk.grant(holder(nonce="old"), 100)
    desk.tell(holder(nonce="old"), report(lease.id, 30, overrun=2, would_block=1))
    desk.ask(holder(nonce="new"), want(10), request_id="r")
    correct(desk.books, desk.books.current(desk.now_ms)[0].key, "c", 5, "evidence", 1)
    desk.books.remember({BUDGET: budget()}, (BUDGET,))

    copy = decode(encode(desk.books), "test")

    assert encode(copy) == encode(desk.books)
    assert copy.states(desk.now_ms) == desk.books.states(desk.now_ms)
    desk.books = copy
    assert desk.ask(holder(nonce="new"), want(10), request_id="r").leases[0].granted == 10
    with pytest.raises(HolderFenced):
        desk.ask(holder(nonce="old"), want(1))


def test_all_that_a_budget_means_is_remembered_over_a_restart() -> None:
    """What counts, and what becomes of the rest, also where the manifest has become unreadable meanwhile."""
    books = Books("test")
    meant = replace(
        budget(limits=(replace(limit(500), models=("gpt-*",), providers=("team-a/openai",)),)), unpriced_models="Allow"
    )
    books.remember({BUDGET: meant}, (BUDGET,))
    assert decode(encode(books), "test").remembered == {BUDGET: meant}


def test_a_clamp_is_told_from_its_threshold_on_and_an_edit_of_it_acts_at_once() -> None:
    """The least of all reached steps; hysteresis is the amount's."""

    def stepped(*tokens: int) -> LimitSpec:
        steps = (ThresholdSpec(percent=50 + 10 * place, max_output_tokens=each) for place, each in enumerate(tokens))
        return replace(limit(1000), thresholds=tuple(steps))

    desk = Desk()
    desk.limits = limits_of(budget(limits=(stepped(400, 300),)))
    lease = desk.grant(holder(), 700)
    told = [(spent, desk.tell(holder(), one)) for spent, one in _growing(lease.id, 499, 500, 600)]
    assert [(spent, state.state.max_output_tokens) for spent, (state,) in told if state.state is not None] == [
        (499, 0),
        (500, 400),
        (600, 300),
    ]
    desk.books.remember({BUDGET: budget(limits=(stepped(400, 900),))}, (BUDGET,))
    assert desk.state.max_output_tokens == 400


def _growing(lease: str, *used: int) -> Iterator[tuple[int, LeaseReport]]:
    last: LeaseReport | None = None
    for each in used:
        last = report(lease, each, after=last)
        yield each, last


@pytest.mark.parametrize("changes", [{"window": WindowSpec(period="Day")}, {"models": ("gpt-*",)}], ids=str)
def test_rights_that_were_fetched_ahead_and_came_back_do_not_hold_a_changed_meaning_up(changes: dict[str, Any]) -> None:
    """A limit is edited in its period's last minute: the next period, in which nothing was spent, is its own."""
    desk = Desk()
    desk.now_ms = START_MS + HOUR_MS - 30_000
    leases = desk.ask(holder(), want(10), Want(account=REF, need=0, want=10, period="next")).leases
    desk.tell(holder(), report(leases[0].id, 5, closed=1), report(leases[1].id, 0, closed=1))
    desk.limits = limits_of(budget(limits=(replace(limit(1000), **changes),)))

    assert desk.refused(holder(), want(1)) == ["unverifiable"], "something was spent in this period"
    desk.now_ms += 31_000
    assert desk.refused(holder(), want(1)) == []
    assert decode(encode(desk.books), "test").states(desk.now_ms) == desk.books.states(desk.now_ms)
