"""Rights of one sidecar over time: top-ups, give-back, periods, fences, copies, and what is reported."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import MONTH, MONTHLY, USD, WINDOW, budget, limit
from fake_bank import Bank
from lease_samples import charge, lease, state
from spendmesh_sidecar.core.ledger import waiting
from spendmesh_sidecar.core.ledger.account import ASK_AGAIN_SECONDS, DENIED_AGAIN_SECONDS, NEXT_PERIOD_LEAD_SECONDS
from spendmesh_sidecar.core.ledger.charges import Charge, CurrencyMismatch, Quantities, Subject, charges
from spendmesh_sidecar.core.ledger.demand import IDLE_SECONDS
from spendmesh_sidecar.core.ledger.journal import NoJournal
from spendmesh_sidecar.core.ledger.lease import LedgerError
from spendmesh_sidecar.core.ledger.ledger import CLOSED_REMEMBERED, SILENCE_STANDS_SECONDS, Ledger
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Denial, LeaseState, Want
from spendmesh_sidecar.core.ledger.view import ceilings, status, tightest_left
from spendmesh_sidecar.core.specs import LimitSpec, ThresholdSpec, WindowSpec
from spendmesh_sidecar.core.types import Shortfall

BUDGETS = (MONTHLY,)
ANY = Subject("small-1", "team-a/openai")


def cost(nanos: int) -> Quantities:
    return Quantities(nanos, "USD")


def funded(granted: int = 1_000, **changes: object) -> Ledger:
    ledger = Ledger("me", BUDGETS, 0.0)
    assert ledger.merge(lease(granted, **changes), 0.0)
    return ledger


def acknowledge(ledger: Ledger, now: float, **changes: object) -> None:
    states = [LeaseState(lease=r.lease, sequence=r.sequence, **changes) for r in ledger.reports(now)]  # type: ignore[arg-type]
    ledger.acknowledged(states, now)


# --- reservations -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amount", "need"), [(1_000, 0), (1_001, 1), (3_000, 2_000)])
def test_exactly_what_is_free_fits(amount: int, need: int) -> None:
    ledger = funded(1_000)
    lacking = ledger.reserve(charge(amount), "r", 0.0)
    assert lacking == ((Shortfall("team-a/team", "monthly", need, need, amount=amount),) if need else ())


def test_held_and_used_count_against_the_rights() -> None:
    ledger = funded(1_000)
    assert not ledger.reserve(charge(600), "a", 0.0)
    assert ledger.reserve(charge(401), "b", 0.0)
    ledger.settle("a", cost(200), 0.0)
    assert not ledger.reserve(charge(800), "c", 0.0)
    assert ledger.reserve(charge(1), "d", 0.0)


def test_a_reservation_id_is_used_once_at_a_time() -> None:
    ledger = funded()
    ledger.reserve(charge(1), "a", 0.0)
    with pytest.raises(LedgerError, match="open already"):
        ledger.reserve(charge(1), "a", 0.0)


def test_an_overrun_takes_from_the_rights_of_later_calls() -> None:
    ledger = funded(1_000)
    ledger.reserve(charge(100), "a", 0.0)
    ledger.settle("a", cost(950), 0.0)
    assert ledger.reserve(charge(51), "b", 0.0) and not ledger.reserve(charge(50), "b", 0.0)
    [report] = ledger.reports(0.0)
    assert (report.used, report.overrun) == (950, 850)


def test_a_lease_of_another_unit_or_currency_is_not_used() -> None:
    ledger = Ledger("me", BUDGETS, 0.0)
    assert not ledger.merge(lease(1_000, currency="EUR"), 0.0)
    assert not ledger.merge(lease(1_000, unit="Requests", currency=""), 0.0)
    assert ledger.reserve(charge(1), "a", 0.0)


def test_a_lease_of_another_meaning_is_given_back_whole() -> None:
    """Rights that cannot be used here must not stay charged until the period ends."""
    ledger = Ledger("me", BUDGETS, 0.0)
    assert not ledger.merge(lease(1_000, currency="EUR"), 0.0)
    [report] = ledger.reports(0.0)
    assert (report.lease, report.used, report.held, report.closed) == ("one", 0, 0, True)
    acknowledge(ledger, 0.0)
    assert ledger.settled_up


MEANINGS = {
    "unit": limit("monthly", 500, unit="TotalTokens"),
    "currency": replace(limit("monthly", USD), currency="EUR"),
    "window": replace(limit("monthly", USD), window=WindowSpec(period="Day")),
    "zone": replace(limit("monthly", USD), window=WindowSpec(period="Month", time_zone="Europe/Berlin")),
}


@pytest.mark.parametrize("changed", MEANINGS.values(), ids=MEANINGS)
@pytest.mark.parametrize("gap", [True, False], ids=["removed first", "in one step"])
def test_a_limit_that_comes_back_with_another_meaning_is_not_paid_from_its_old_lease(
    changed: LimitSpec, gap: bool
) -> None:
    """Nano-dollars are no tokens: the old rights go back, what was held on them settles there."""
    ledger = funded(1_000)
    ledger.reserve(charge(400), "open", 0.0)
    if gap:
        ledger.set_budgets((), 1.0)
    ledger.set_budgets((budget(changed),), 2.0)
    other = (Charge(MONTH, changed.unit, 1),)
    assert ledger.shortfalls(other, 2.0)
    assert status(ledger, 2.0)[0].free == 0
    ledger.merge(lease(9_000), 2.0)
    assert ledger.shortfalls(other, 2.0), "a late message of the old lease changes nothing"
    ledger.set_budgets((budget(changed),), 3.0)
    ledger.set_budgets(BUDGETS, 3.0)
    assert ledger.shortfalls(charge(1), 3.0), "nor does the way back"
    ledger.settle("open", cost(300), 4.0)
    [report] = ledger.reports(4.0)
    assert (report.lease, report.used, report.closed) == ("one", 300, True)


def test_demand_of_another_meaning_is_forgotten() -> None:
    ledger = funded(USD)
    ledger.reserve(charge(USD), "large", 0.0)
    ledger.set_budgets((budget(MEANINGS["unit"]),), 1.0)
    assert [(want.need, want.want) for want in ledger.wants(1.0)] == [(0, 5)]


def test_observed_use_of_another_meaning_is_not_carried_over() -> None:
    ledger = Ledger("me", (budget(limit("monthly", USD), mode="Observe"),), 0.0)
    for name in ("a", "b"):
        ledger.reserve((Charge(MONTH, "Cost", 700, observed=True),), name, 0.0)
    ledger.settle("a", cost(700), 0.0)
    ledger.set_budgets((budget(MEANINGS["unit"], mode="Observe"),), 1.0)
    ledger.settle("b", cost(700), 1.0)
    ledger.merge(lease(10, unit="TotalTokens", currency=""), 1.0)
    [report] = ledger.reports(1.0)
    assert (report.used, report.would_block) == (0, 0)


def test_calls_that_wait_are_asked_for_in_one_want_for_each_account() -> None:
    """What is free counts for the first of them only."""
    ledger = funded(100)
    lacking = []
    for amount in (300, 400, 500):
        lacking += ledger.shortfalls(charge(amount), 0.0)
        waiting.begin(ledger.waits_of(charge(amount), 0.0))
    fits = Shortfall("team-a/team", "monthly", 0, 900)
    [want] = ledger.wants_for([*lacking, fits], 0.0)
    assert want.need == 300 + 400 + 500 - 100
    assert want.want >= 300 + 400 + 500 + 900 - 100
    [alone] = ledger.wants_for([fits], 0.0)
    assert (alone.need, alone.want) == (0, LIMIT_AHEAD)


LIMIT_AHEAD = 10 * USD // 100 - 100
"""The first want of a holder without calls, less what is free."""


def test_repeated_and_older_messages_change_nothing() -> None:
    ledger = funded(1_000)
    ledger.merge(lease(400), 1.0)
    ledger.merge(lease(1_000), 2.0)
    assert not ledger.reserve(charge(1_000), "a", 2.0)


# --- periods ----------------------------------------------------------------------------------------------


def test_a_lease_serves_its_own_period_only() -> None:
    ledger = funded(1_000, ends_in_ms=10_000)
    ledger.merge(lease(500, id="two", starts_in_ms=10_000, ends_in_ms=20_000), 0.0)
    assert ledger.reserve(charge(1_000), "early", 9.9) == ()
    ledger.settle("early", cost(1_000), 9.9)
    assert ledger.reserve(charge(1), "still early", 9.99)
    assert ledger.reserve(charge(500), "late", 10.0) == ()
    assert ledger.reserve(charge(1), "much later", 20.0)


def test_a_reservation_settles_in_the_period_it_was_made_in() -> None:
    ledger = funded(1_000, ends_in_ms=10_000)
    ledger.reserve(charge(300), "a", 9.0)
    ledger.merge(lease(500, id="two"), 11.0)
    assert not any(report.closed for report in ledger.reports(11.0)), "something is held"
    acknowledge(ledger, 11.0)
    ledger.settle("a", cost(250), 12.0)
    by_id = {report.lease: report for report in ledger.reports(12.0)}
    assert (by_id["one"].used, by_id["one"].closed) == (250, True)
    assert (by_id["two"].used, by_id["two"].closed) == (0, False)


def test_a_closed_lease_does_not_come_back() -> None:
    ledger = funded(1_000, ends_in_ms=10_000)
    acknowledge(ledger, 11.0)
    assert ledger.reports(12.0) == ()
    assert not ledger.merge(lease(5_000), 12.0)


def test_a_delayed_message_never_moves_a_period() -> None:
    """Delay adds to both times, so of several messages the earliest times are the true ones."""
    ledger = funded(1_000, ends_in_ms=10_000)
    ledger.merge(lease(1_000, id="two", starts_in_ms=10_000, ends_in_ms=20_000), 0.0)
    ledger.merge(lease(1_000, ends_in_ms=10_000), 3.0)
    ledger.merge(lease(1_000, id="two", starts_in_ms=10_000, ends_in_ms=20_000), 3.0)
    ledger.reserve(charge(1_000), "one", 9.99)
    assert ledger.reserve(charge(1_000), "two", 10.0) == ()
    ledger.void("one")
    ledger.void("two")
    assert ledger.reserve(charge(1), "three", 20.0)


def test_a_lease_that_is_new_runs_for_the_time_that_its_message_says() -> None:
    """In milliseconds from when it came."""
    ledger = Ledger("me", BUDGETS, 0.0)
    ledger.merge(lease(1_000, starts_in_ms=1_000_000, ends_in_ms=2_000_000), 10.0)
    free = [ledger.free(MONTH, now) for now in (1_009.999, 1_010.0, 2_009.999, 2_010.0)]
    assert free == [0, 1_000, 1_000, 0]


def test_a_prompt_message_corrects_the_times_of_a_delayed_one() -> None:
    ledger = Ledger("me", BUDGETS, 0.0)
    ledger.merge(lease(1_000, starts_in_ms=5_000, ends_in_ms=10_000), 3.0)  # three seconds on its way: 8 to 13
    assert ledger.reserve(charge(1), "early", 5.0)
    ledger.merge(lease(1_000, starts_in_ms=1_000, ends_in_ms=6_000), 4.0)
    assert ledger.reserve(charge(1), "early", 4.9)
    assert ledger.reserve(charge(1), "now", 5.0) == ()
    assert ledger.reserve(charge(1), "last", 9.9) == ()
    assert ledger.reserve(charge(1), "late", 10.0)


def test_next_periods_rights_are_asked_for_before_the_boundary() -> None:
    ledger = funded(10**6, ends_in_ms=1_000_000)
    ledger.reserve(charge(100), "a", 900.0)
    assert ledger.wants(900.0) == ()
    ledger.reserve(charge(100), "b", 998.0)
    [want] = ledger.wants(998.0)
    assert (want.period, want.need) == ("next", 0) and want.want >= 200
    assert ledger.wants(998.0 + ASK_AGAIN_SECONDS / 2) == ()
    assert [again.period for again in ledger.wants(998.0 + ASK_AGAIN_SECONDS)] == ["next"]
    ledger.merge(lease(500, id="two", starts_in_ms=1_000, ends_in_ms=100_000), 999.0)
    assert ledger.wants(999.9) == ()


def test_sidecars_ask_for_the_next_period_at_different_moments() -> None:
    def first_ask(nonce: str) -> int:
        ledger = Ledger(nonce, BUDGETS, 0.0)
        ledger.merge(lease(10**6, nonce=nonce, ends_in_ms=1_000_000), 0.0)
        for second in range(900, 1_000):
            ledger.reserve(charge(1), f"r{second}", float(second))
            if ledger.wants(float(second)):
                return second
        raise AssertionError("never asked")

    moments = {first_ask(f"nonce-{number}") for number in range(12)}
    assert len(moments) > 4
    assert all(1_000 - 2 * NEXT_PERIOD_LEAD_SECONDS <= at <= 1_000 - NEXT_PERIOD_LEAD_SECONDS + 1 for at in moments)
    assert min(moments) < 1_000 - 1.5 * NEXT_PERIOD_LEAD_SECONDS, "over all of the lead"


@pytest.mark.parametrize(("amount", "crowds"), [(50, False), (51, True)])
def test_a_call_leaves_what_calls_that_wait_need(amount: int, *, crowds: bool) -> None:
    """100 are free, and 50 are awaited: 10 of them are promised to one, which still are free."""
    ledger = funded(100)
    account = ledger.find(MONTH, 0.0)
    assert account is not None
    account.awaited, account.promised = 50, 10
    assert ledger.crowds(charge(amount), 0.0) == crowds


class CountedLog(NoJournal):
    """A log that only counts who is in a hurry."""

    hurried = 0

    def hurry(self) -> None:
        self.hurried += 1


@pytest.mark.parametrize(("billed", "hurried"), [(99, 0), (100, 0), (101, 1)])
def test_what_was_billed_above_its_reservation_is_written_down_at_once(billed: int, hurried: int) -> None:
    """After a crash the worst case is booked, which is less; everything else may wait for the next write."""
    log = CountedLog()
    ledger = Ledger("me", BUDGETS, 0.0, log)
    ledger.merge(lease(1_000), 0.0)
    ledger.reserve(charge(100), "r", 0.0)
    ledger.settle("r", cost(billed), 0.0)
    assert log.hurried == hurried


# --- top-ups and give-back --------------------------------------------------------------------------------


def test_the_first_want_is_a_hundredth_of_the_limit() -> None:
    assert Ledger("me", BUDGETS, 0.0).wants(0.0) == (Want(account=MONTH, need=0, want=USD // 10, overrides=()),)


def test_an_unanswered_top_up_is_asked_again_and_a_refused_one_later() -> None:
    ledger = Ledger("me", BUDGETS, 0.0)
    assert ledger.wants(0.0)
    assert not ledger.wants(ASK_AGAIN_SECONDS - 0.01)
    assert ledger.wants(ASK_AGAIN_SECONDS)
    ledger.denied([Denial(account=MONTH, reason="exhausted")], 2.0)
    assert not ledger.wants(2.0 + DENIED_AGAIN_SECONDS - 0.01)
    assert ledger.wants(2.0 + DENIED_AGAIN_SECONDS)


def test_a_top_up_that_brought_nothing_is_repeated_less_often() -> None:
    ledger = funded(1_000)
    ledger.reserve(charge(900), "a", 0.0)
    assert ledger.wants(0.0) and not ledger.wants(0.9) and ledger.wants(1.0)
    ledger.merge(lease(1_000), 1.1)
    assert not ledger.wants(5.9) and ledger.wants(6.0)
    ledger.merge(lease(1_001), 6.1)
    assert ledger.wants(6.1), "rights came: what still lacks is asked for at once"


TIGHT = state(charged=9 * USD + 1)


def test_where_little_is_left_rights_are_topped_up_to_one_more_call() -> None:
    ledger = funded(1_000, state=TIGHT)
    ledger.reserve(charge(400), "a", 1.0)
    assert ledger.wants(1.0) == ()
    ledger.reserve(charge(400), "b", 1.0)
    assert ledger.wants(1.0) == (Want(account=MONTH, need=0, want=2 * 400 - 200, overrides=()),)


def test_rights_at_low_water_are_enough() -> None:
    ledger = funded(1_000, state=TIGHT)
    ledger.reserve(charge(500), "a", 1.0)
    assert ledger.wants(1.0) == ()


def test_after_silence_the_coordinator_is_asked_again() -> None:
    ledger = funded(1_000)
    ledger.unanswered(0.0)
    assert ledger.silent(SILENCE_STANDS_SECONDS - 0.01) and not ledger.silent(SILENCE_STANDS_SECONDS)
    ledger.unanswered(10.0)
    ledger.merge(lease(1_000), 11.0)
    assert not ledger.silent(11.0), "an answer ends the silence"


@pytest.mark.parametrize(
    ("amount", "charged", "counted"),
    [(1_000, 10 * USD + 1, 0), (1_001, 10 * USD, 1), (1_001, 10 * USD - 1, 0), (1_002, 10 * USD - 1, 1), (5_000, 0, 0)],
)
def test_an_observed_limit_counts_only_what_it_would_have_refused(amount: int, charged: int, counted: int) -> None:
    """What fits the rights here, or those that could still be granted, would have been let through."""
    ledger = Ledger("me", (budget(limit("monthly", 10 * USD), mode="Observe"),), 0.0)
    ledger.merge(lease(1_000, state=state(charged=charged)), 0.0)
    ledger.reserve((Charge(MONTH, "Cost", amount, observed=True),), "a", 0.0)
    assert ledger.reports(0.0)[0].would_block == counted


def test_a_denial_brings_the_newest_state() -> None:
    ledger = funded(1_000)
    ledger.denied([Denial(account=MONTH, reason="exhausted", state=state(settled=4 * USD))], 0.0)
    assert tightest_left(ledger, BUDGETS, 0.0) == "6.00 USD; team-a/team/monthly"
    ledger.denied([Denial(account=MONTH, reason="unverifiable")], 0.0)
    assert tightest_left(ledger, BUDGETS, 0.0) == "6.00 USD; team-a/team/monthly"


@pytest.mark.parametrize(("known", "least", "most"), [(state(), 300_000, 400_000), (TIGHT, 30_000, 60_000)])
def test_a_lively_holder_asks_for_seconds_of_demand(known: AccountState, least: int, most: int) -> None:
    """20 calls a second of 1,000 each, for ten seconds: half a minute of that, three seconds where little is left."""
    ledger = funded(200_000, state=known)
    for number in range(200):
        ledger.reserve(charge(1_000), f"r{number}", number / 20)
    [want] = ledger.wants(10.0)
    assert least < want.want < most


def test_nobody_asks_for_more_than_a_fiftieth_of_the_limit_ahead() -> None:
    budgets = (budget(limit("monthly", 100_000)),)
    ledger = Ledger("me", budgets, 0.0)
    ledger.merge(lease(20_000), 0.0)
    for number in range(200):
        ledger.reserve(charge(100), f"r{number}", number / 20)
    [want] = ledger.wants(10.0)
    assert want.want == 100_000 // 50


def test_an_idle_holder_gives_back_all_but_its_largest_call() -> None:
    ledger = funded(1_000)
    ledger.reserve(charge(300), "a", 0.0)
    ledger.settle("a", cost(100), 0.0)
    assert ledger.reports(IDLE_SECONDS - 0.1)[0].released == 0
    acknowledge(ledger, IDLE_SECONDS - 0.1)
    assert ledger.reports(IDLE_SECONDS)[0].released == 1_000 - 100 - 300
    assert not ledger.wants(IDLE_SECONDS), "what was given back is not asked for again"


def test_where_little_is_left_an_idle_holder_keeps_nothing() -> None:
    ledger = funded(1_000, state=TIGHT)
    ledger.reserve(charge(300), "a", 0.0)
    ledger.settle("a", cost(100), 0.0)
    assert ledger.reports(IDLE_SECONDS)[0].released == 900
    assert ledger.wants(IDLE_SECONDS + 1) == ()


def test_a_busy_holder_gives_back_a_lasting_surplus() -> None:
    ledger = funded(10**6)
    for second in range(40):
        ledger.reserve(charge(100), f"r{second}", float(second))
        ledger.void(f"r{second}")
        acknowledge(ledger, float(second))
    [report] = ledger.reports(41.0)
    assert 10**6 - 3_100 < report.released < 10**6 - 2_000


def test_recalled_rights_are_given_back_as_far_as_they_are_free() -> None:
    ledger = funded(1_000)
    ledger.reserve(charge(700), "a", 0.0)
    acknowledge(ledger, 0.0, recalled=800)
    [report] = ledger.reports(0.0)
    assert report.released == 300
    assert ledger.reserve(charge(1), "b", 0.0)


# --- reports ----------------------------------------------------------------------------------------------


def test_a_report_is_repeated_until_it_is_acknowledged() -> None:
    ledger = funded(1_000)
    ledger.reserve(charge(100), "a", 0.0)
    first = ledger.reports(0.0)
    ledger.settle("a", cost(50), 1.0)
    assert ledger.reports(1.0) == first
    acknowledge(ledger, 1.0)
    [second] = ledger.reports(1.0)
    assert (second.sequence, second.used, second.held) == (first[0].sequence + 1, 50, 0)


def test_observed_use_without_a_lease_is_overrun_of_the_next_one() -> None:
    watched = (budget(limit("monthly", 1_000), mode="Observe"),)
    ledger = Ledger("me", watched, 0.0)
    ledger.reserve((Charge(MONTH, "Cost", 70, observed=True),), "a", 0.0)
    ledger.settle("a", cost(70), 0.0)
    ledger.merge(lease(1_000), 0.0)
    [report] = ledger.reports(0.0)
    assert (report.used, report.overrun, report.held) == (70, 70, 0)


def test_a_late_acknowledgement_of_an_older_report_acknowledges_nothing_newer() -> None:
    ledger = funded(1_000)
    acknowledge(ledger, 0.0)
    ledger.reserve(charge(100), "a", 0.0)
    [second] = ledger.reports(0.0)
    ledger.acknowledged([LeaseState(lease="one", sequence=1)], 0.0)
    ledger.settle("a", cost(1), 0.0)
    assert ledger.reports(0.0) == (second,)


def test_a_sequence_we_never_sent_means_that_we_are_a_copy() -> None:
    ledger = funded(1_000)
    ledger.acknowledged([LeaseState(lease="one", sequence=3)], 0.0)
    assert ledger.copied
    ledger.adopt("other")
    assert not ledger.copied and ledger.reserve(charge(1), "a", 0.0)


def test_a_fenced_lease_takes_no_call_and_closes_when_empty() -> None:
    ledger = funded(1_000)
    ledger.reserve(charge(100), "a", 0.0)
    acknowledge(ledger, 0.0, fenced=True)
    assert ledger.reserve(charge(1), "b", 0.0)
    ledger.settle("a", cost(70), 0.0)
    [report] = ledger.reports(0.0)
    assert (report.closed, report.used) == (True, 70)


def test_after_a_new_nonce_old_reservations_still_resolve_once() -> None:
    ledger = funded(1_000)
    ledger.reserve(charge(100), "a", 0.0)
    ledger.adopt("next")
    assert ledger.reports(0.0) == () and not ledger.settled_up
    ledger.settle("a", cost(100), 0.0)
    assert ledger.settled_up
    assert not ledger.merge(lease(1_000, id="old"), 0.0), "a grant to the old nonce is not ours"
    assert ledger.merge(lease(1_000, id="new", nonce="next"), 0.0)


def test_draining_closes_all_leases_as_calls_end() -> None:
    ledger = funded(1_000)
    ledger.reserve(charge(100), "a", 0.0)
    ledger.drain()
    assert ledger.reserve(charge(1), "b", 0.0) and ledger.wants(5.0) == ()
    acknowledge(ledger, 0.0)
    assert not ledger.settled_up
    ledger.void("a")
    acknowledge(ledger, 0.0)
    assert ledger.settled_up


def test_a_policy_that_arrives_while_draining_opens_nothing() -> None:
    ledger = funded(1_000)
    ledger.drain()
    ledger.set_budgets(BUDGETS, 0.0)
    ledger.merge(lease(500, id="two"), 0.0)
    assert ledger.reserve(charge(1), "a", 0.0)


def test_answers_on_leases_that_are_not_ours_change_nothing() -> None:
    ledger = funded(1_000)
    ledger.acknowledged([LeaseState(lease="stranger", sequence=9, fenced=True)], 0.0)
    assert not ledger.copied and not ledger.reserve(charge(1_000), "a", 0.0)


def test_only_so_many_closed_leases_are_remembered() -> None:
    ledger = Ledger("me", BUDGETS, 0.0)
    for number in range(CLOSED_REMEMBERED + 1):
        ledger.merge(lease(1, id=f"lease-{number}", ends_in_ms=0), 0.0)
        acknowledge(ledger, 0.0)
    assert not ledger.merge(lease(1, id="lease-1"), 0.0)
    assert ledger.merge(lease(1, id="lease-0"), 0.0)


def test_a_budget_that_comes_back_uses_its_lease_again() -> None:
    ledger = funded(1_000)
    ledger.set_budgets((), 0.0)
    assert ledger.reserve(charge(1), "a", 0.0)
    ledger.set_budgets(BUDGETS, 0.0)
    assert not ledger.reserve(charge(1), "a", 0.0)


# --- what others are told ---------------------------------------------------------------------------------


def test_status_has_the_sidecars_rights_and_the_accounts_figures() -> None:
    ledger = funded(1_000, state=state(settled=500, crossed_percent=80, max_tier="economy"))
    ledger.reserve(charge(300), "a", 0.0)
    ledger.settle("a", cost(100), 0.0)
    ledger.reserve(charge(200), "b", 0.0)
    [line] = status(ledger, 0.0)
    assert (line.granted, line.used, line.held, line.free) == (1_000, 100, 200, 700)
    assert (line.amount, line.settled, line.crossed_percent, line.max_tier) == (10 * USD, 600, 80, "economy")
    assert (line.budget, line.limit, line.unit, line.enforced, line.fenced) == (
        "team-a/team",
        "monthly",
        "Cost",
        True,
        False,
    )


def test_use_is_counted_once_when_the_coordinator_knows_it() -> None:
    ledger = funded(1_000)
    ledger.reserve(charge(300), "a", 0.0)
    ledger.settle("a", cost(300), 0.0)
    acknowledge(ledger, 0.0, state=state(settled=300))
    assert status(ledger, 0.0)[0].settled == 300


def test_unknown_accounts_have_no_figure() -> None:
    ledger = Ledger("me", BUDGETS, 0.0)
    assert status(ledger, 0.0)[0].settled is None
    assert tightest_left(ledger, BUDGETS, 0.0) == "" and ceilings(ledger, BUDGETS, 0.0) == ()


def test_a_denials_state_counts_until_its_period_ends() -> None:
    ledger = Ledger("me", BUDGETS, 0.0)
    denial = Denial(account=MONTH, reason="exhausted", state=state(settled=10 * USD, resets_in_ms=5_000))
    ledger.denied([denial], 0.0)
    assert tightest_left(ledger, BUDGETS, 4.9) == "0.00 USD; team-a/team/monthly"
    assert tightest_left(ledger, BUDGETS, 5.0) == ""


@pytest.mark.parametrize(("settled", "tier"), [(899, None), (900, "standard"), (949, "standard"), (950, "economy")])
def test_the_highest_stage_reached_downgrades(settled: int, tier: str | None) -> None:
    steps = (ThresholdSpec(percent=90, max_tier="standard"), ThresholdSpec(percent=95, max_tier="economy"))
    budgets = (budget(limit("monthly", 1_000, steps=steps)),)
    ledger = Ledger("me", budgets, 0.0)
    ledger.merge(lease(10, state=state(amount=1_000, settled=settled)), 0.0)
    assert [found.max_tier for found in ceilings(ledger, budgets, 0.0)] == ([tier] if tier else [])


def test_an_observed_charge_in_another_currency_is_left_out() -> None:
    euros = LimitSpec(name="eur", currency="EUR", amount=5, window=WINDOW)
    found = charges((budget(euros, mode="Observe"), MONTHLY), cost(7), ANY)
    assert [(one.account.limit, one.amount) for one in found] == [("monthly", 7)]


def test_an_enforced_charge_in_another_currency_cannot_be_made() -> None:
    euros = LimitSpec(name="eur", currency="EUR", amount=5, window=WINDOW)
    with pytest.raises(CurrencyMismatch, match="team-a/team/eur is in EUR, the price in USD"):
        charges((budget(euros),), cost(7), ANY)


def test_the_tightest_limit_is_the_one_with_the_smallest_share_left() -> None:
    calls = AccountRef(budget="team-a/team", limit="calls")
    budgets = (budget(limit("monthly", 10 * USD), limit("calls", 100, unit="Requests")),)
    ledger = Ledger("me", budgets, 0.0)
    ledger.merge(lease(10, state=state(settled=9 * USD)), 0.0)
    ledger.merge(
        lease(10, id="c", account=calls, unit="Requests", currency="", state=state(amount=100, settled=89)), 0.0
    )
    assert tightest_left(ledger, budgets, 0.0) == "1.00 USD; team-a/team/monthly"
    ledger.merge(
        lease(10, id="c", account=calls, unit="Requests", currency="", state=state(amount=100, settled=91)), 0.0
    )
    assert tightest_left(ledger, budgets, 0.0) == "9 Requests; team-a/team/calls"


def test_bank_and_ledger_agree_after_a_day_of_calls() -> None:
    """The test's own coordinator keeps the same books as the ledger, or its other verdicts mean little."""
    bank, ledger = Bank(BUDGETS), Ledger("me", BUDGETS, 0.0)
    spent = 0
    for number in range(200):
        now = number * 0.5
        for want in ledger.wants(now):
            for message in bank.acquire("me", (want,))[0]:
                ledger.merge(message, now)
        if not ledger.reserve(charge(10**6), f"r{number}", now):
            ledger.settle(f"r{number}", cost(4 * 10**5), now)
            spent += 4 * 10**5
        bank.sync(ledger, now)
    assert spent > 0 and bank.settled(MONTH) == spent <= bank.charged(MONTH) <= 10 * USD
