"""Divided limits in a sidecar: whose account a call takes, what one user's spend means to others, and memory."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import USD, World, budget, chat, limit, policy, success
from spendmesh_sidecar.core.ledger.account import Account
from spendmesh_sidecar.core.ledger.demand import IDLE_SECONDS, Demand
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.partitions import (
    ASSIGNED_KEPT,
    PARTITIONS_KEPT,
    Partitions,
    account_ref,
    fading,
    scope_headers,
)
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Assigned, Lease, LeaseState
from spendmesh_sidecar.core.ledger.view import status
from spendmesh_sidecar.core.specs import BudgetSpec, PerSpec, ThresholdSpec
from spendmesh_sidecar.core.types import Hints, Respond, Shortfall

USER = PerSpec(type="User")
TENANT = PerSpec(type="Header", name="x-tenant")


def divided(amount: int = USD, *per: PerSpec, steps: tuple[ThresholdSpec, ...] = ()) -> BudgetSpec:
    return budget(replace(limit("each", amount, steps=steps), per=per or (USER,)))


def of(*values: str) -> AccountRef:
    return AccountRef(budget="team-a/team", limit="each", per=values)


def lease(user: str, granted: int = 1_000, **changes: object) -> Lease:
    whole = AccountState(amount=USD, settled=0, charged=0, resets_in_ms=3_600_000)
    parts: dict[str, object] = {
        "id": f"lease-{user}",
        "nonce": "me",
        "account": of(user),
        "unit": "Cost",
        "currency": "USD",
        "granted": granted,
        "ends_in_ms": 3_600_000,
        "state": whole,
    }
    return Lease(**{**parts, **changes})  # type: ignore[arg-type]


def by(user: str, **changes: object) -> object:
    return chat(hints=Hints(user=user), **changes)


# --- whose account ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per", "hints", "values"),
    [
        ((), Hints(user="ana"), ()),
        ((USER,), Hints(user="ana"), ("ana",)),
        ((USER,), Hints(), ("other",)),
        ((PerSpec(type="Feature"), USER), Hints(user="ana", feature="search"), ("search", "ana")),
        ((TENANT,), Hints(scopes=(("x-tenant", "acme"),)), ("acme",)),
        ((TENANT,), Hints(scopes=(("x-other", "acme"),)), ("other",)),
        ((TENANT,), Hints(scopes=(("x-tenant", ""),)), ("other",)),
    ],
)
def test_a_call_is_counted_under_what_it_says(per: tuple[PerSpec, ...], hints: Hints, values: tuple[str, ...]) -> None:
    """In the limit's order; what it does not say is `other`."""
    assert account_ref("team-a/team", replace(limit("each", 1), per=per), hints) == of(*values)


@pytest.mark.parametrize("type_", ["Namespace", "Workload", "Pod", "PodLabel"])
def test_what_the_pod_is_only_the_coordinator_says(type_: str) -> None:
    """A request cannot name another pod's workload or namespace."""
    part = PerSpec(type=type_, name="team")  # type: ignore[arg-type]
    forged = Hints(user="team-b", feature="team-b", scopes=(("team", "team-b"),))
    assert account_ref("team-a/team", replace(limit("each", 1), per=(part,)), forged) == of("")


def test_only_headers_that_a_limit_names_are_read() -> None:
    label = PerSpec(type="PodLabel", name="x-label")
    assert scope_headers((divided(1, TENANT, label), divided(1, USER))) == {"x-tenant"}
    assert scope_headers((budget(limit("monthly", 1)),)) == frozenset()


# --- what one user's spend means to others ------------------------------------------------------------------


def test_one_users_empty_budget_refuses_that_user_only() -> None:
    world = World(policy(budgets=(divided(10_000_000),)))
    while not (run := world.run(by("ana"), [success()])).code:
        assert world.requests < 100
    assert run.code in ("budget_exceeded", "budget_in_flight")
    assert world.run(by("ben"), [success()]).code == ""
    assert "ana" not in run.message


def test_all_limits_of_a_call_are_booked_together_or_not_at_all() -> None:
    """The team's whole budget and the user's own: what one lacks is not held on the other."""
    whole, each = limit("monthly", 10 * USD), replace(limit("each", 10), per=(USER,))
    world = World(policy(budgets=(budget(whole, each),)))
    assert world.run(by("ana"), [success()]).code == "request_exceeds_budget"
    assert world.held == 0 and world.used() == 0


def test_a_downgrade_of_one_user_does_not_touch_another() -> None:
    """Tiers and headers follow the caller's own account."""
    steps = (ThresholdSpec(percent=50, max_tier="economy"),)
    world = World(policy(budgets=(divided(10_000_000, USER, steps=steps),)))
    while world.run(by("ana"), [success()]).models != ["openai/small-1"]:
        assert world.requests < 100
    run = world.run(by("ben"), [success()])
    assert run.models == ["openai/medium-1"]
    assert run.headers["x-spendmesh-budget-remaining"].endswith("; team-a/team/each")
    left = [world.run(by(user), [success()]).headers["x-spendmesh-budget-remaining"] for user in ("ana", "ben")]
    assert float(left[0].split()[0]) < float(left[1].split()[0])


def test_values_that_share_an_account_are_reserved_there_until_the_period_ends() -> None:
    ledger = Ledger("me", (divided(),), 0.0)
    ledger.assign([Assigned(asked=of("ana"), account=of("other"), ends_in_ms=60_000)], 0.0)
    ledger.merge(lease("other"), 0.0)
    assert [ledger.free(of("ana"), now) for now in (0.0, 59.99)] == [1_000, 1_000]
    assert ledger.free(of("ana"), 60.0) == 0, "the next period begins with room"
    assert ledger.free(of("ben"), 0.0) == 0


def test_waiting_calls_of_values_that_share_an_account_ask_for_it_once() -> None:
    """Books read one want for an account; both calls' needs are in it."""
    ledger = Ledger("me", (divided(),), 0.0)
    ledger.assign([Assigned(asked=of(user), account=of("other"), ends_in_ms=1_000) for user in ("ana", "ben")], 0.0)
    waiting = [Shortfall("team-a/team", "each", 300, 300, (user,)) for user in ("ana", "ben")]
    [want] = ledger.wants_for(waiting, 0.5)
    assert (want.account, want.need) == (of("other"), 600)


def test_a_lease_belongs_to_the_account_that_it_names_also_while_its_value_shares_another() -> None:
    """
    Around a period's end a question asked before may bring ana's own account of the next period, while for this one
    she shares `other`: nobody else who shares it may spend her rights.
    """
    ledger = Ledger("me", (divided(),), 0.0)
    shared = [Assigned(asked=of(user), account=of("other"), ends_in_ms=60_000) for user in ("ana", "ben")]
    ledger.assign(shared, 0.0)
    ledger.merge(lease("ana"), 0.0)
    assert (ledger.free(of("ben"), 0.0), ledger.free(of("ana"), 0.0)) == (0, 0)
    assert ledger.free(of("ana"), 60.0) == 1_000


# --- memory -----------------------------------------------------------------------------------------------


def test_nothing_is_asked_for_before_a_value_is_used() -> None:
    """A divided limit has no account until somebody calls, so that a start asks for nothing."""
    ledger = Ledger("me", (divided(),), 0.0)
    assert ledger.accounts == {} and ledger.wants(0.0) == ()


def test_a_value_that_is_idle_gives_everything_back_and_is_forgotten() -> None:
    """Its lease closes, its account goes, and the next call begins again."""
    ledger = Ledger("me", (divided(),), 0.0)
    ledger.merge(lease("ana"), 0.0)
    assert not [report.closed for report in ledger.reports(IDLE_SECONDS - 1) if report.closed]
    [report] = ledger.reports(IDLE_SECONDS)
    ledger.acknowledged([LeaseState(lease=report.lease, sequence=report.sequence)], IDLE_SECONDS)
    [report] = ledger.reports(IDLE_SECONDS + 1)
    assert report.closed
    ledger.acknowledged([LeaseState(lease=report.lease, sequence=report.sequence)], IDLE_SECONDS + 1)
    ledger.reports(IDLE_SECONDS + 2)
    assert ledger.accounts == {} and ledger.settled_up
    assert ledger.wants(IDLE_SECONDS + 2) == ()


def test_ten_thousand_values_in_a_second_leave_a_bounded_number_of_accounts() -> None:
    """The least recently used give their rights back at the next report, whether idle or not."""
    ledger = Ledger("me", (divided(),), 0.0)
    for number in range(10_000):
        ledger.merge(lease(f"user-{number}"), number / 10_000)
    assert not any(report.closed for report in ledger.reports(1.0)), "calls may wait for these rights"
    closing = 0
    for _ in range(2):
        reports = ledger.reports(7.0)
        closing += sum(report.closed for report in reports)
        ledger.acknowledged([LeaseState(lease=each.lease, sequence=each.sequence) for each in reports], 7.0)
    ledger.reports(7.0)
    assert closing == 10_000 - PARTITIONS_KEPT
    assert len(ledger.accounts) == PARTITIONS_KEPT
    assert of("user-9999") in ledger.accounts and of("user-0") not in ledger.accounts


@pytest.mark.parametrize(
    ("beyond", "now", "given_up"),
    [
        (0, 5.6, []),
        (1, 5.4, []),
        (1, 5.5, ["user-0"]),
        (2, 5.502, ["user-0", "user-1"]),
        (1 - PARTITIONS_KEPT, 9.0, []),
    ],
)
def test_of_more_values_than_are_kept_the_least_used_are_given_up(beyond: int, now: float, given_up: list[str]) -> None:
    """As soon as nobody can wait for them any more. The first was used half a second after the start."""
    spec = divided().limits[0]
    accounts = [
        Account(of(f"user-{number}"), Demand(0.5 + number / 1_000), limit=spec)
        for number in reversed(range(PARTITIONS_KEPT + beyond))
    ]
    assert [account.ref.per[0] for account in fading(accounts, (), now)] == given_up


def test_a_value_with_a_call_on_its_way_is_never_given_up() -> None:
    world = World(policy(budgets=(divided(),)))
    exchange = world.sent(by("ana"))
    later = world.now + 10 * IDLE_SECONDS
    assert [report.closed for report in world.ledger.reports(later)] == [False]
    exchange.close(later)
    assert world.held == 0
    assert [report.closed for report in world.ledger.reports(later)] == [False], "the last one is not acknowledged"


def test_use_that_waits_for_a_lease_keeps_its_account() -> None:
    """An observed limit counts also what it had no rights for: it is not forgotten while unreported."""
    watched = BudgetSpec(name="team-a/team", mode="Observe", limits=divided().limits)
    world = World(policy(budgets=(watched,)))
    world.bank.away = True
    run = world.run(by("ana"), [success()])
    assert isinstance(run.respond, Respond) and not run.code
    later = world.now + 10 * IDLE_SECONDS
    world.ledger.reports(later)
    [want] = world.ledger.wants(later)
    assert want.account == of("ana")
    assert [each.enforced for each in status(world.ledger, later)] == [False]


def test_shared_values_are_remembered_up_to_a_bound_the_oldest_use_goes_first() -> None:
    known = Partitions()
    for number in range(ASSIGNED_KEPT + 1):
        known.assign([Assigned(asked=of(f"user-{number}"), account=of("other"), ends_in_ms=60_000)], 0.0)
        known.account_of(of("user-0"), 0.0)
    assert known.account_of(of("user-0"), 0.0) == of("other")
    assert known.account_of(of("user-1"), 0.0) == of("user-1")
    assert known.account_of(of("user-2"), 0.0) == of("other")


def test_an_undivided_account_never_fades() -> None:
    ledger = Ledger("me", (budget(limit("monthly", 10)),), 0.0)
    assert fading(ledger.accounts.values(), (), 10**6) == []


# --- what is told -----------------------------------------------------------------------------------------


def test_status_adds_values_up_and_names_none() -> None:
    """`/status` may be read by others than the user."""
    ledger = Ledger("me", (divided(),), 0.0)
    for user in ("ana", "ben"):
        ledger.merge(lease(user), 0.0)
    [line] = status(ledger, 0.0)
    assert (line.accounts, line.granted, line.amount, line.settled) == (2, 2_000, USD, None)
    assert "ana" not in repr(line) and "ben" not in repr(line)


def test_a_limit_that_is_divided_anew_takes_nothing_over() -> None:
    """Other values are another meaning: what was leased for the old ones is given back."""
    ledger = Ledger("me", (divided(),), 0.0)
    ledger.merge(lease("ana"), 0.0)
    ledger.set_budgets((divided(USD, TENANT),), 0.0)
    assert ledger.free(of("ana"), 0.0) == 0
    assert [report.closed for report in ledger.reports(0.0)] == [True]
