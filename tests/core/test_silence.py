"""What may be spent while the coordinator is silent: what is kept for it, what is allowed, and what never is."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import MONTH, USD, World, budget, chat, limit, policy, success
from lease_samples import HOUR, charge, lease
from memory_log import again, logged
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.ledger import SILENCE_STANDS_SECONDS, Ledger
from spendmesh_sidecar.core.ledger.rights import Denial, LeaseState, report_digest
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, Mode, WindowSpec

ALLOWED = replace(limit("monthly", 10 * USD), on_unverifiable="Allow", allow_cap=500)
KEPT = replace(limit("monthly", 10 * USD), on_unverifiable="Survival", survival_percent=5)


def holding(spec: LimitSpec, granted: int, survival: int = 0) -> Ledger:
    ledger = Ledger("me", (budget(spec),), 0.0)
    assert ledger.merge(lease(granted, survival=survival), 0.0)
    return ledger


def fits(ledger: Ledger, amount: int, now: float = 0.0) -> bool:
    return ledger.shortfalls(charge(amount), now) == ()


# --- kept rights ------------------------------------------------------------------------------------------


def test_what_is_kept_for_silence_is_spent_in_silence_only() -> None:
    ledger = holding(KEPT, 1_000, 300)
    assert fits(ledger, 700) and not fits(ledger, 701)
    ledger.unanswered(0.0)
    assert fits(ledger, 1_000) and not fits(ledger, 1_001)
    ledger.merge(lease(1_000, survival=300), 1.0)
    assert fits(ledger, 700) and not fits(ledger, 701)


@pytest.mark.parametrize("word", ["report", "denial", "lease"])
def test_any_word_of_the_coordinator_ends_the_silence(word: str) -> None:
    """A silence is not a time: it lasts until something is heard."""
    ledger = holding(KEPT, 1_000, 300)
    ledger.unanswered(0.0)
    assert fits(ledger, 1_000, 3_000.0)
    if word == "report":
        [report] = ledger.reports(3_000.0)
        ledger.acknowledged([LeaseState(lease=report.lease, sequence=report.sequence, survival=300)], 3_000.0)
    elif word == "denial":
        ledger.denied([Denial(account=MONTH, reason="exhausted")], 3_000.0)
    else:
        ledger.merge(lease(1_000, survival=300), 3_000.0)
    assert not fits(ledger, 701, 3_000.0)


@pytest.mark.parametrize(("now", "stands"), [(10.0, True), (14.9, True), (15.0, False)])
def test_for_a_moment_nobody_asks_again_a_coordinator_that_did_not_answer(now: float, stands: bool) -> None:
    """A call that would be served without an answer does not wait for one; one word, and all ask again."""
    assert SILENCE_STANDS_SECONDS == 5.0
    ledger = holding(KEPT, 1_000, 300)
    assert not ledger.silent(10.0)
    ledger.unanswered(10.0)
    assert ledger.silent(now) is stands
    ledger.merge(lease(1_000, survival=300), now)
    assert not ledger.silent(now)


def test_kept_rights_are_not_given_back_when_idle_but_when_they_are_recalled() -> None:
    """An idle sidecar is ready for silence too; an overdrawn limit takes everything."""
    ledger = holding(KEPT, 1_000, 300)
    [report] = ledger.reports(1_000.0)
    assert report.released == 700
    state = LeaseState(lease="one", sequence=report.sequence, survival=0, recalled=300)
    ledger.acknowledged([state], 1_000.0)
    [report] = ledger.reports(1_000.0)
    assert report.released == 1_000


def test_what_was_spent_of_it_is_no_longer_kept() -> None:
    """The coordinator says what is still to be kept; what is left beyond that is as any other right."""
    ledger = holding(KEPT, 1_000, 300)
    ledger.unanswered(0.0)
    ledger.reserve(charge(900), "r", 0.0)
    ledger.settle("r", Quantities(900, "USD"), 0.0)
    [report] = ledger.reports(0.0)
    ledger.acknowledged([LeaseState(lease="one", sequence=report.sequence, survival=100)], 0.0)
    assert not fits(ledger, 1)
    ledger.merge(lease(1_250, survival=300), 0.0)
    assert fits(ledger, 50) and not fits(ledger, 51)


# --- spending without rights ------------------------------------------------------------------------------


def test_without_rights_a_sidecar_spends_its_cap_and_no_more() -> None:
    """Only while nobody answers, counting what is under way, and over all silences of the period."""
    ledger = holding(ALLOWED, 100)
    assert not fits(ledger, 101)
    ledger.unanswered(0.0)
    assert ledger.reserve(charge(350), "a", 0.0) == ()
    assert ledger.unverified("a")
    assert fits(ledger, 250) and not fits(ledger, 251)
    ledger.settle("a", Quantities(300, "USD"), 0.0)
    assert fits(ledger, 300) and not fits(ledger, 301)
    ledger.merge(lease(100), 0.0)
    ledger.unanswered(1.0)
    assert fits(ledger, 300, 1.0) and not fits(ledger, 301, 1.0)


@pytest.mark.parametrize(("cost", "unheld"), [(101, 1), (350, 250)])
def test_a_call_that_rights_cover_in_part_is_counted_once(cost: int, unheld: int) -> None:
    """What is beyond them went without; so also for the next process, at its worst."""
    ledger, log = logged("me", (budget(ALLOWED),), 0.0)
    ledger.merge(lease(100), 0.0)
    ledger.unanswered(0.0)
    assert ledger.reserve(charge(cost), "a", 0.0) == ()
    successor, _ = again(log.crash(), (budget(ALLOWED),), 1.0)
    ledger.settle("a", Quantities(cost, "USD"), 0.0)
    for survivor in (ledger, successor):
        survivor.merge(lease(100), 1.0)
        [told] = survivor.reports(1.0)
        assert (told.used, told.unheld) == (cost, unheld)


def test_a_call_without_rights_that_costs_nothing_gives_the_cap_back() -> None:
    ledger = holding(ALLOWED, 0)
    ledger.unanswered(0.0)
    ledger.reserve(charge(500), "a", 0.0)
    assert not fits(ledger, 1)
    ledger.void("a")
    assert fits(ledger, 500) and not fits(ledger, 501)
    assert not ledger.unbooked


def test_the_debt_is_reported_as_its_own_number_with_the_next_lease() -> None:
    """Also if there was no lease at all; and the cap is not refilled by booking it."""
    ledger = Ledger("me", (budget(ALLOWED),), 0.0)
    ledger.unanswered(0.0)
    ledger.reserve(charge(400), "a", 0.0)
    ledger.settle("a", Quantities(400, "USD"), 0.0)
    assert ledger.wants(10_000.0), "it asks for a lease to report in, however idle it is"
    ledger.merge(lease(0), 10_000.0)
    [report] = ledger.reports(10_000.0)
    assert (report.used, report.overrun, report.unheld) == (400, 400, 400)
    ledger.unanswered(10_001.0)
    assert fits(ledger, 100, 10_001.0) and not fits(ledger, 101, 10_001.0)


def test_the_cap_is_full_again_in_the_next_period() -> None:
    ledger = holding(ALLOWED, 0)
    ledger.unanswered(0.0)
    ledger.reserve(charge(400), "a", 0.0)
    ledger.settle("a", Quantities(400, "USD"), 0.0)
    assert not fits(ledger, 101, HOUR / 1000 - 1)
    assert fits(ledger, 500, HOUR / 1000)


def test_a_coordinator_that_does_not_read_the_debt_finds_the_same_digest() -> None:
    """Sidecars and operators are upgraded in any order; a difference would look like a copied state."""
    ledger = holding(ALLOWED, 0)
    ledger.unanswered(0.0)
    ledger.reserve(charge(400), "a", 0.0)
    ledger.settle("a", Quantities(400, "USD"), 0.0)
    [report] = ledger.reports(0.0)
    assert report.unheld and report_digest(report) == report_digest(replace(report, unheld=0))


def test_an_answered_call_has_no_credit() -> None:
    """An empty budget refuses: only silence opens the cap."""
    ledger = holding(ALLOWED, 0)
    ledger.unanswered(0.0)
    ledger.denied([Denial(account=MONTH, reason="exhausted")], 0.0)
    assert not fits(ledger, 1)


# --- several limits, and what clients see -----------------------------------------------------------------


def away(*specs: LimitSpec) -> World:
    budgets = tuple(BudgetSpec(name=f"team-a/{spec.on_unverifiable}", limits=(spec,)) for spec in specs)
    world = World(policy(budgets=budgets))
    world.bank.away = True
    return world


ROOMY = replace(ALLOWED, allow_cap=USD)
DENIES = limit("monthly", 10 * USD)


@pytest.mark.parametrize(
    ("specs", "served"),
    [((ROOMY,), True), ((DENIES,), False), ((ROOMY, DENIES), False), ((KEPT,), False), ((ROOMY, KEPT), False)],
)
def test_the_strictest_limit_decides(specs: tuple[LimitSpec, ...], served: bool) -> None:
    """Deny refuses whatever another limit allows; Survival serves from what it has, here nothing."""
    run = away(*specs).run(chat(), [success()])
    assert run.code == ("" if served else "budget_unverifiable")
    assert bool(run.attempts) is served


def test_an_answer_that_nobody_verified_carries_no_budget_header_and_the_next_calls_do_not_wait() -> None:
    world = away(ROOMY)
    first = world.run(chat(), [success()])
    began = world.now
    second = world.run(chat(), [success()])
    assert "x-spendmesh-budget-remaining" not in first.headers | second.headers
    assert len(first.acquires) == 1 and second.acquires == []
    assert world.now - began == world.attempt_seconds
    world.bank.away = False
    assert "x-spendmesh-cost" in first.headers


# --- a holder that is fenced off after a silence ----------------------------------------------------------


@pytest.mark.parametrize(("reported", "carried"), [(False, 250), (True, 0)], ids=["not reported", "reported"])
def test_what_was_spent_without_rights_enters_the_books_though_its_lease_is_fenced(
    reported: bool, carried: int
) -> None:
    """A fenced lease is charged its rights and what was reported of it; the rest goes with the new holder, once."""
    ledger = holding(ALLOWED, 100)
    ledger.unanswered(0.0)
    assert ledger.reserve(charge(350), "a", 0.0) == ()
    ledger.settle("a", Quantities(350, "USD"), 0.0)
    if reported:
        [told] = ledger.reports(0.0)
        ledger.acknowledged([LeaseState(lease="one", sequence=told.sequence)], 0.0)
    ledger.adopt("anew")
    ledger.merge(lease(100, id="two", nonce="anew"), 1.0)
    [told] = ledger.reports(1.0)
    assert (told.lease, told.used, told.unheld) == ("two", carried, carried)


def test_a_debt_outlives_that_its_budget_is_taken_away_and_applied_again() -> None:
    """Deleting a budget and applying it again never resets what was spent (contract §4)."""
    ledger = Ledger("me", (budget(ALLOWED),), 0.0)
    ledger.unanswered(0.0)
    assert ledger.reserve(charge(350), "a", 0.0) == ()
    ledger.settle("a", Quantities(350, "USD"), 0.0)
    ledger.set_budgets((), 1.0)
    ledger.acknowledged((), 2.0)
    ledger.set_budgets((budget(ALLOWED),), 3.0)
    ledger.merge(lease(100), 4.0)
    [told] = ledger.reports(4.0)
    assert (told.used, told.unheld) == (350, 350)


@pytest.mark.parametrize(
    ("worst", "bill", "carried"), [(350, 350, 250), (350, 90, 0), (350, 600, 500), (100, 100, 0), (60, 130, 30)]
)
def test_what_an_attempt_in_flight_at_a_fence_costs_beyond_the_fenced_rights_is_not_lost(
    worst: int, bill: int, carried: int
) -> None:
    """Observed beyond its rights, or billed above its bound: a fenced lease of 100 is charged 100 and no more."""
    ledger, log = logged("me", (budget(ALLOWED, mode="Observe"),), 0.0)
    ledger.merge(lease(100), 0.0)
    assert ledger.reserve((Charge(MONTH, "Cost", worst, observed=True),), "a", 0.0) == ()
    ledger.adopt("anew")
    ledger.settle("a", Quantities(bill, "USD"), 0.5)
    log.flush()
    successor, _ = again(log.crash(), (budget(ALLOWED, mode="Observe"),), 0.6)
    assert successor.accounts[MONTH].debt.unleased == carried

    ledger.merge(lease(1_000, id="two", nonce="anew"), 1.0)
    [told] = ledger.reports(1.0)
    assert (told.lease, told.used, told.unheld) == ("two", carried, 0)


def test_an_attempt_in_flight_at_a_fence_and_at_a_crash_costs_its_worst_beyond_the_fenced_rights() -> None:
    watched = (budget(ALLOWED, mode="Observe"),)
    ledger, log = logged("me", watched, 0.0)
    ledger.merge(lease(100), 0.0)
    assert ledger.reserve((Charge(MONTH, "Cost", 350, observed=True),), "a", 0.0) == ()
    ledger.adopt("anew")
    successor, _ = again(log.crash(), watched, 1.0)
    assert successor.accounts[MONTH].debt.unleased == 250


@pytest.mark.parametrize("mode", ["Enforce", "Observe"])
def test_what_was_spent_without_a_lease_asks_for_one_at_the_end(mode: Mode) -> None:
    """A shutdown would lose it: one lease without rights comes, is told all of it, and closes at once."""
    ledger = Ledger("me", (budget(ALLOWED, mode=mode),), 0.0)
    ledger.unanswered(0.0)
    observed = (Charge(MONTH, "Cost", 350, observed=mode == "Observe"),)
    assert ledger.reserve(observed, "a", 0.0) == ()
    ledger.drain()
    assert ledger.wants(0.0) == () and not ledger.settled_up, "it is still under way"
    ledger.settle("a", Quantities(350, "USD"), 0.0)

    [want] = ledger.wants(0.0)
    assert (want.account, want.need, want.want) == (MONTH, 0, 0)
    assert ledger.wants(0.5) == (), "asked a moment ago"
    assert not ledger.settled_up
    assert ledger.unbooked == {"team-a/team/monthly": 350}

    ledger.merge(lease(0), 0.6)
    [told] = ledger.reports(0.6)
    assert (told.used, told.unheld, told.closed) == (350, 350 if mode == "Enforce" else 0, True)
    ledger.acknowledged([LeaseState(lease="one", sequence=told.sequence)], 0.7)
    assert ledger.settled_up and not ledger.unbooked


def test_a_shutdown_does_not_wait_for_a_lease_of_a_budget_that_was_taken_away() -> None:
    """Nobody would grant one: what it had observed is said in the log instead."""
    ledger = Ledger("me", (budget(ALLOWED, mode="Observe"),), 0.0)
    assert ledger.reserve((Charge(MONTH, "Cost", 350, observed=True),), "a", 0.0) == ()
    ledger.settle("a", Quantities(350, "USD"), 0.0)
    ledger.set_budgets((), 0.0)
    ledger.drain()
    assert ledger.wants(0.0) == () and ledger.settled_up
    assert ledger.unbooked == {"team-a/team/monthly": 350}


def test_what_ends_during_a_shutdown_is_told_in_a_lease_that_is_about_to_close() -> None:
    """It takes no reservation any more, but its last word is not said yet."""
    ledger = holding(ALLOWED, 100)
    assert ledger.reserve(charge(100), "b", 0.0) == ()
    ledger.unanswered(0.0)
    assert ledger.reserve(charge(350), "a", 0.0) == ()
    ledger.drain()
    ledger.settle("a", Quantities(350, "USD"), 0.0)
    assert ledger.wants(0.0) == ()
    ledger.settle("b", Quantities(100, "USD"), 0.0)
    [told] = ledger.reports(0.0)
    assert (told.used, told.unheld, told.closed) == (450, 350, True)


@pytest.mark.parametrize(
    "other",
    [
        replace(ALLOWED, window=WindowSpec(period="Day")),
        replace(ALLOWED, currency="EUR"),
        replace(ALLOWED, unit="Requests", currency=""),
    ],
    ids=["window", "currency", "unit"],
)
def test_of_a_limit_with_another_meaning_nothing_is_owed_and_the_cap_is_whole(other: LimitSpec) -> None:
    """It is another limit. What is owed is part of what waits for a lease, so neither is left without the other."""
    ledger, log = logged("me", (budget(ALLOWED),), 0.0)
    ledger.unanswered(0.0)
    assert ledger.reserve(charge(350), "a", 0.0) == ()
    ledger.settle("a", Quantities(350, "USD"), 0.0)
    ledger.set_budgets((budget(other),), 1.0)
    assert (ledger.accounts[MONTH].debt.unleased, ledger.accounts[MONTH].debt.owed) == (0, 0)
    assert ledger.shortfalls((Charge(MONTH, other.unit, 500),), 1.0) == ()
    log.flush()
    successor, _ = again(log.crash(), (budget(other),), 1.5)
    assert (successor.accounts[MONTH].debt.unleased, successor.accounts[MONTH].debt.owed) == (0, 0)

    ledger.merge(lease(100, unit=other.unit, currency=other.currency), 2.0)
    [told] = ledger.reports(2.0)
    assert (told.used, told.overrun, told.unheld) == (0, 0, 0)


def test_a_cap_that_is_used_up_stays_so_though_its_budget_is_taken_away_and_applied_again() -> None:
    """Its lease is told and closed meanwhile: in the same period there is no second cap."""
    ledger = holding(ALLOWED, 0)
    ledger.unanswered(0.0)
    assert ledger.reserve(charge(500), "a", 0.0) == ()
    ledger.settle("a", Quantities(500, "USD"), 0.0)
    ledger.set_budgets((), 1.0)
    [told] = ledger.reports(1.0)
    ledger.acknowledged([LeaseState(lease="one", sequence=told.sequence)], 1.0)
    ledger.set_budgets((budget(ALLOWED),), 2.0)
    ledger.unanswered(2.0)
    assert not fits(ledger, 1, 2.0)
    ledger.set_budgets((), 3.0)
    ledger.acknowledged([], 3_700.0)
    assert not ledger.accounts, "the period is over: nothing of it is kept"


def test_a_rolling_window_allows_its_cap_once_in_its_length() -> None:
    """Its parts are accounts of the coordinator's; the cap is the window's, whenever in it silences fall."""
    rolling = replace(ALLOWED, window=WindowSpec(type="Rolling", duration_seconds=86_400))
    ledger = holding(rolling, 100)
    ledger.unanswered(0.0)
    assert ledger.reserve(charge(600), "a", 0.0) == ()
    ledger.settle("a", Quantities(600, "USD"), 0.0)
    ledger.merge(lease(100, id="two", starts_in_ms=0), 3_601.0)
    ledger.unanswered(3_602.0)
    assert fits(ledger, 100, 3_602.0) and not fits(ledger, 101, 3_602.0)
    assert fits(ledger, 500, 91_000.0), "a day after the part in which it was spent"
