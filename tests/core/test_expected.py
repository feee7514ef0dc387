"""Limits that hold what calls cost as a rule: what is learned, when it is held, and what is held and charged else."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

import lease_samples
from exchange_world import MONTH, UNIX, USD, World, budget, chat, limit, policy, success
from fake_bank import Held
from lease_samples import state
from memory_log import again, logged
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities, Subject
from spendmesh_sidecar.core.ledger.expectation import KEPT_CALLS, LEAST_CALLS, MAX_KEPT, Expectations
from spendmesh_sidecar.core.ledger.exposure import extend
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.rights import AccountRef, Lease, LeaseState
from spendmesh_sidecar.core.ledger.waiting import begin
from spendmesh_sidecar.core.specs import BudgetSpec, OverrideSpec, PerSpec, Unit
from spendmesh_sidecar.core.types import Kind, Outcome

EXPECTED = replace(limit("monthly", 10_000), reservation="Expected", overshoot_percent=10)
BUDGETS = (budget(EXPECTED),)
ANY = Subject("medium-1", "team-a/openai")
WORST = 1_000 * 2_000 + 100 * 8_000
"""Of the sample chat call on medium-1, in nano-dollars."""
HALF = 500 * 2_000 + 50 * 8_000
"""What `success()` costs."""


def lease(granted: int, **changes: object) -> Lease:
    whole = state(amount=EXPECTED.amount, charged=granted)
    return lease_samples.lease(granted, **{"state": whole, **changes})


def funded(granted: int = 1_000, budgets: tuple[BudgetSpec, ...] = BUDGETS) -> Ledger:
    ledger = Ledger("me", budgets, 0.0)
    assert ledger.merge(lease(granted), 0.0)
    return ledger


def expects(worst: int, least: int, account: AccountRef = MONTH) -> tuple[Charge, ...]:
    return (Charge(account, "Cost", worst, least=least),)


def held(ledger: Ledger, name: str) -> int:
    return sum(entry.held for entry in ledger.open_attempts.entries(name))


def booked(ledger: Ledger, worst: int, least: int, name: str) -> int:
    """What is held for a call that fits."""
    assert ledger.reserve(expects(worst, least), name, 0.0) == ()
    return held(ledger, name)


# --- what is learned --------------------------------------------------------------------------------------


def learned(*shares: int) -> Charge:
    """A charge of 64,000 after calls that cost so many sixty-fourths of their worst case."""
    found = Expectations()
    for share in shares:
        found.learn(BUDGETS, ANY, Quantities(64_000, "USD"), Quantities(share * 1_000, "USD"))
    [charge] = found.reduced((Charge(MONTH, "Cost", 64_000),), BUDGETS, ANY)
    return charge


@pytest.mark.parametrize(
    ("shares", "least"),
    [
        ((), None),
        ((1,) * (LEAST_CALLS - 1), None),
        ((1,) * LEAST_CALLS, 1_000),
        ((1,) * 95 + (40,) * 5, 1_000),
        ((1,) * 94 + (40,) * 6, 40_000),
        ((1,) * 485 + (40,) * 26, 40_000),
        ((1,) * 486 + (40,) * 25, 1_000),
        ((1,) * 94 + (64,) * 6, None),
        ((0,) * LEAST_CALLS, 0),
        ((80,) * LEAST_CALLS, None),
    ],
)
def test_what_covers_nineteen_of_twenty_calls_is_expected(shares: tuple[int, ...], least: int | None) -> None:
    """None: all is held; before enough is known, and where calls cost what they can, or more."""
    assert learned(*shares).least == least


@pytest.mark.parametrize(("calls", "least"), [(1_087, 50_000), (1_088, 1_000)])
def test_what_a_model_was_used_for_before_is_forgotten(calls: int, least: int) -> None:
    """By half each time: of 512 calls 16 are left when 304 of another use are known."""
    assert learned(*(50,) * KEPT_CALLS, *(1,) * calls).least == least


@pytest.mark.parametrize(
    ("worst", "actual", "amount", "least"),
    [
        pytest.param(0, 0, 64, None, id="what costs nothing teaches nothing"),
        pytest.param(1, 0, 64, 0, id="the smallest call that may cost anything does"),
        pytest.param(100, 1, 64, 1, id="a share is rounded up"),
        pytest.param(64, 1, 65, 2, id="and so is what is held"),
    ],
)
def test_a_share_of_what_a_call_may_cost_is_learned(worst: int, actual: int, amount: int, least: int | None) -> None:
    found = Expectations()
    for _ in range(LEAST_CALLS):
        found.learn(BUDGETS, ANY, Quantities(worst, "USD"), Quantities(actual, "USD"))
    [charge] = found.reduced((Charge(MONTH, "Cost", amount),), BUDGETS, ANY)
    assert charge.least == least


@pytest.mark.parametrize(
    ("unit", "currency", "least"), [("Cost", "USD", 32), ("Cost", "EUR", None), ("OutputTokens", "EUR", 16)]
)
def test_a_limit_learns_in_its_own_unit_and_currency(unit: Unit, currency: str, least: int | None) -> None:
    budgets = (budget(replace(EXPECTED, unit=unit, currency="USD" if unit == "Cost" else "")),)
    found = Expectations()
    for _ in range(LEAST_CALLS):
        worst, actual = Quantities(64, currency, 0, 64), Quantities(32, currency, 0, 16)
        found.learn(budgets, ANY, worst, actual)
    [charge] = found.reduced((Charge(MONTH, unit, 64),), budgets, ANY)
    assert charge.least == least


def test_a_limit_learns_only_what_it_counts_and_by_model_and_provider() -> None:
    found = Expectations()
    some = (budget(replace(EXPECTED, models=("medium-*",))),)
    for _ in range(LEAST_CALLS):
        for model in ("medium-1", "large-1"):
            found.learn(some, Subject(model, "team-a/openai"), Quantities(64, "USD"), Quantities(1, "USD"))
    for subject in (Subject("large-1", "team-a/openai"), Subject("medium-1", "team-a/backup")):
        [charge] = found.reduced((Charge(MONTH, "Cost", 64),), some, subject)
        assert charge.least is None
    [charge] = found.reduced((Charge(MONTH, "Cost", 64),), some, ANY)
    assert charge.least == 1


def test_names_of_models_that_clients_invent_do_not_pile_up() -> None:
    """What is forgotten for them is held in full again: nothing is loosened."""
    found = Expectations()
    for number in range(LEAST_CALLS + MAX_KEPT):
        subject = ANY if number < LEAST_CALLS else Subject(f"invented-{number}", "team-a/openai")
        found.learn(BUDGETS, subject, Quantities(64, "USD"), Quantities(1, "USD"))
    [charge] = found.reduced((Charge(MONTH, "Cost", 64),), BUDGETS, ANY)
    assert (charge.least, len(found._shares)) == (None, MAX_KEPT)


# --- when it is held --------------------------------------------------------------------------------------


def test_less_is_held_as_long_as_all_calls_together_expose_no_more_than_the_overshoot() -> None:
    """Ten percent of 1,000 rights: two calls that may cost 50 more than they hold, and the third holds all."""
    ledger = funded()
    assert [booked(ledger, 100, 50, name) for name in ("one", "two", "three")] == [50, 50, 100]
    ledger.settle("one", Quantities(10, "USD"), 0.0)
    assert booked(ledger, 150, 100, "four") == 100, "what ended exposes nothing any more"
    ledger.void("two")
    assert booked(ledger, 101, 50, "five") == 101, "one more than is left"
    assert booked(ledger, 100, 50, "six") == 50


def test_rights_that_were_given_back_are_no_reason_to_hold_less() -> None:
    """Ten percent of what is left of them, 500."""
    ledger = funded()
    ledger.accounts[MONTH].leases["one"].give_back(500)
    assert [booked(ledger, 100, least, f"least {least}") for least in (49, 50)] == [100, 50]


@pytest.mark.parametrize(
    ("free", "promised", "lacks"), [(80, 0, 0), (79, 0, 1), (100, 20, 0), (100, 21, 1), (100, 50, 30), (0, 0, 80)]
)
def test_an_open_call_holds_more_of_what_is_free_and_no_waiting_call_counts_on(
    free: int, promised: int, lacks: int
) -> None:
    ledger = funded()
    booked(ledger, 150, 50, "r")
    assert ledger.reserve((Charge(MONTH, "Cost", 950 - free),), "bulk", 0.0) == ()
    begin(ledger.waits_of((Charge(MONTH, "Cost", promised),), 0.0))
    [entry] = ledger.open_attempts.entries("r")
    assert [lack.need for lack in extend([(entry, 80)], 0.0)] == ([lacks] if lacks else [])
    assert held(ledger, "r") == (50 if lacks else 130)


def test_without_rights_the_whole_is_asked_for() -> None:
    [lack] = Ledger("me", BUDGETS, 0.0).shortfalls(expects(100, 10), 0.0)
    assert lack.need == 100


def test_a_call_of_which_more_is_expected_than_is_free_lacks_what_is_expected() -> None:
    ledger = funded()
    assert ledger.reserve((Charge(MONTH, "Cost", 980),), "large", 0.0) == ()
    [lack] = ledger.reserve(expects(100, 50), "r", 0.0)
    assert (lack.need, lack.want) == (30, 30)


def test_rights_are_fetched_ahead_for_what_is_held() -> None:
    ledger = funded()
    booked(ledger, 100, 50, "r")
    assert ledger.accounts[MONTH].demand.peak == 50


def test_a_limit_that_became_strict_holds_all() -> None:
    ledger = funded()
    ledger.set_budgets((budget(replace(EXPECTED, reservation="Strict", overshoot_percent=0)),), 0.0)
    assert booked(ledger, 100, 50, "r") == 100


def test_rights_that_back_open_calls_are_not_given_back() -> None:
    """Another holder would expose the same part of the amount once more."""
    ledger = funded()
    booked(ledger, 150, 50, "r")
    [report] = ledger.reports(1.0)
    ledger.acknowledged([LeaseState(lease="one", sequence=report.sequence, recalled=1_000)], 1.0)
    assert ledger.free(MONTH, 1.0) == 950
    ledger.settle("r", Quantities(50, "USD"), 2.0)
    [report] = ledger.reports(2.0)
    ledger.acknowledged([LeaseState(lease="one", sequence=report.sequence, recalled=900)], 2.0)
    assert ledger.free(MONTH, 2.0) == 50


def test_each_open_call_is_backed_by_ten_times_what_it_exposes() -> None:
    """The overshoot is ten percent of the rights that are here."""
    ledger = funded()
    booked(ledger, 100, 50, "one")
    booked(ledger, 80, 50, "two")
    lease_book = ledger.accounts[MONTH].leases["one"]
    assert lease_book.give_back(1_000) == 1_000 - (50 + 30) * 10
    ledger.settle("one", Quantities(10, "USD"), 0.0)
    assert lease_book.give_back(1_000) == 50 * 10


@pytest.mark.parametrize("observed", [False, True])
def test_what_is_above_the_reservation_is_charged_and_a_number_of_its_own(observed: bool) -> None:
    ledger = funded(budgets=(budget(EXPECTED, mode="Observe"),) if observed else BUDGETS)
    [charge] = expects(100, 40)
    assert ledger.reserve((replace(charge, observed=observed),), "r", 0.0) == ()
    ledger.settle("r", Quantities(90, "USD"), 0.0)
    [report] = ledger.reports(0.0)
    assert (report.used, report.overrun, report.held, report.would_block) == (90, 50, 0, 0)


def test_an_override_is_drained_by_what_is_held_and_the_rest_is_the_limits() -> None:
    spec = replace(EXPECTED, overrides=(OverrideSpec(name="launch", amount=100, starts=0, ends=10**10),))
    ledger = funded(budgets=(budget(spec),))
    ledger.merge(lease(60, id="two", account=replace(MONTH, override="launch")), 0.0)
    booked(ledger, 150, 80, "r")
    extra, own = ledger.open_attempts.entries("r")
    assert (extra.held, own.held, own.worst, own.exposed) == (60, 20, 90, 70)
    ledger.settle("r", Quantities(150, "USD"), 0.0)
    used = {report.lease: (report.used, report.overrun) for report in ledger.reports(0.0)}
    assert used == {"two": (60, 0), "one": (90, 70)}


def test_what_goes_without_rights_in_a_silence_is_held_in_full() -> None:
    """`allowCap` is a cap: nothing comes on top of it."""
    ledger = funded(budgets=(budget(replace(EXPECTED, on_unverifiable="Allow", allow_cap=100)),))
    assert ledger.reserve((Charge(MONTH, "Cost", 990),), "large", 0.0) == ()
    ledger.unanswered(0.0)
    assert ledger.reserve(expects(111, 20), "r", 0.0) != ()
    assert booked(ledger, 110, 20, "r") == 110


@pytest.mark.parametrize(("least", "whole"), [(50, 50), (70, 70), (71, 110)])
def test_what_overrides_still_have_is_held_before_anything_goes_without_rights(least: int, whole: int) -> None:
    spec = replace(EXPECTED, overrides=(OverrideSpec(name="launch", amount=100, starts=0, ends=10**10),))
    ledger = funded(budgets=(budget(replace(spec, on_unverifiable="Allow", allow_cap=100)),))
    assert ledger.reserve((Charge(MONTH, "Cost", 990),), "large", 0.0) == ()
    ledger.merge(lease(60, id="two", account=replace(MONTH, override="launch")), 0.0)
    ledger.unanswered(0.0)
    assert booked(ledger, 110, least, "r") == whole, "10 and 60 are free"


def test_each_value_of_a_divided_limit_has_an_exposure_of_its_own() -> None:
    ledger = Ledger("me", (budget(replace(EXPECTED, per=(PerSpec(type="User"),))),), 0.0)
    ana, ben = (replace(MONTH, per=(user,)) for user in ("ana", "ben"))
    for number, account in enumerate((ana, ben)):
        ledger.merge(lease(1_000, id=f"lease-{number}", account=account), 0.0)
    for name, account in (("one", ana), ("two", ben)):
        assert ledger.reserve(expects(150, 50, account), name, 0.0) == ()
    assert (held(ledger, "one"), held(ledger, "two")) == (50, 50)
    assert ledger.reserve(expects(150, 50, ana), "three", 0.0) == () and held(ledger, "three") == 150


# --- what is never lost -----------------------------------------------------------------------------------


def test_a_killed_sidecar_charges_what_its_calls_may_have_cost_not_what_they_held() -> None:
    ledger, log = logged("me", BUDGETS, 0.0)
    ledger.merge(lease(1_000), 0.0)
    booked(ledger, 150, 50, "r")
    successor, _ = again(log.crash(), BUDGETS, 1.0)
    [report] = successor.reports(1.0)
    assert (report.used, report.overrun) == (150, 100)


def test_what_a_call_cost_above_rights_that_were_fenced_meanwhile_waits_for_the_next_lease() -> None:
    """The coordinator charges the old lease with its rights, and no more."""
    ledger, log = logged("me", BUDGETS, 0.0)
    ledger.merge(lease(1_000), 0.0)
    ledger.reserve((Charge(MONTH, "Cost", 930),), "large", 0.0)
    booked(ledger, 150, 60, "r")
    ledger.adopt("anew")
    ledger.settle("r", Quantities(150, "USD"), 0.0)
    ledger.settle("large", Quantities(930, "USD"), 0.0)
    log.flush()
    successor, _ = again(log.crash(), BUDGETS, 0.0)
    for survivor in (ledger, successor):
        survivor.merge(lease(500, id="next", nonce="anew"), 1.0)
        [report] = survivor.reports(1.0)
        assert (report.lease, report.used) == ("next", 80)


# --- whole exchanges --------------------------------------------------------------------------------------


def expecting_world(amount: int = 10 * USD, *, calls: int = LEAST_CALLS, **changes: object) -> World:
    """A world that has seen some calls at half of their worst case."""
    spec = replace(limit("monthly", amount), reservation="Expected", overshoot_percent=10)
    strict = limit("strict", 100 * USD)
    world = World(policy(budgets=(budget(replace(spec, **changes), strict),)))  # type: ignore[arg-type]
    for _ in range(calls):
        world.run(chat(), [success()])
    return world


def of_limit(world: World, name: str) -> int:
    """What is held on one limit."""
    accounts = (account for ref, account in world.ledger.accounts.items() if ref.limit == name)
    return sum(each.held for account in accounts for each in account.leases.values())


def test_each_limit_of_a_call_holds_by_its_own_reservation() -> None:
    world = expecting_world()
    exchange = world.sent(chat())
    assert (of_limit(world, "monthly"), of_limit(world, "strict")) == (HALF, WORST)
    exchange.observe(success(1_000, 100), world.now, UNIX)
    assert (of_limit(world, "monthly"), of_limit(world, "strict")) == (0, 0)
    [settlement] = exchange.decision.settlements
    assert (settlement.cost_nanos, settlement.overrun_nanos) == (WORST, 0), "within what it could cost"
    exchange.close(world.now)


def test_calls_that_end_unseen_teach_that_all_may_be_needed() -> None:
    world = expecting_world()
    for _ in range(2):
        world.run(chat(), [Outcome(Kind.CUT, committed=True)])
    exchange = world.sent(chat())
    assert of_limit(world, "monthly") == WORST
    exchange.close(world.now)


def test_what_was_never_billed_teaches_nothing() -> None:
    world = expecting_world(calls=0)
    for _ in range(2 * LEAST_CALLS):
        world.run(chat(), [Outcome(Kind.THROTTLED, 401, complete=True)])
    exchange = world.sent(chat())
    assert of_limit(world, "monthly") == WORST
    exchange.close(world.now)


def spend_down(world: World, left: int) -> None:
    """Leave so much of the limit, in this sidecar's hands."""
    amount = world.ledger.free(MONTH, world.now) - left
    assert world.ledger.reserve((Charge(MONTH, "Cost", amount),), "bulk", world.now) == ()
    world.ledger.settle("bulk", Quantities(amount, "USD"), world.now)
    world.bank.sync(world.ledger, world.now)
    rest = world.policy.budgets[0].limits[0].amount - world.bank.charged(MONTH)
    world.bank.leases[(MONTH, "other")] = Held("other", granted=rest, used=rest, closed=True)


@pytest.mark.parametrize(("changes", "sent"), [({}, True), ({"reservation": "Strict", "overshoot_percent": 0}, False)])
def test_near_the_end_a_call_is_served_that_strict_refuses(changes: dict[str, object], sent: bool) -> None:
    """Three quarters of its worst case are left, of which half is expected."""
    world = expecting_world(100 * WORST, **changes)
    spend_down(world, WORST * 3 // 4)
    run = world.run(chat(), [success()])
    assert bool(run.attempts) is sent
    assert sent or (run.code == "budget_exceeded" and "this call can take 0.0028" in run.message)


def test_a_refusal_says_what_has_to_be_reserved() -> None:
    world = expecting_world(100 * WORST)
    spend_down(world, WORST // 4)
    run = world.run(chat(), [success()])
    assert run.code == "budget_exceeded" and "this call has to reserve 0.0014" in run.message
