"""Admission, reservation, settlement and refusals of whole exchanges, driven without an event loop."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from exchange_world import (
    BACKUP,
    CONNECT,
    MONTH,
    MONTHLY,
    OPENAI,
    ROUTING,
    UNIX,
    USD,
    World,
    budget,
    chat,
    failure,
    limit,
    policy,
    price,
    success,
    throttled,
)
from fake_bank import Held
from lease_samples import lease
from spendmesh_sidecar.core.admission import DEFAULT_OUTPUT_TOKENS
from spendmesh_sidecar.core.exchange import ExchangeError
from spendmesh_sidecar.core.ledger.reservation import OUTPUT_FLOOR_TOKENS
from spendmesh_sidecar.core.ledger.rights import AccountRef, Denial
from spendmesh_sidecar.core.phases import LEASE_WAIT_SECONDS
from spendmesh_sidecar.core.refusals import STATUS
from spendmesh_sidecar.core.specs import (
    BudgetSpec,
    LimitSpec,
    ModelPrice,
    ProviderSpec,
    RoutingSpec,
    TargetSpec,
    TierSpec,
)
from spendmesh_sidecar.core.types import Acquire, Attempt, Bounds, Kind, Outcome, Usage

WORST = 1_000 * 2_000 + 100 * 8_000
"""Of the sample chat call on medium-1, in nano-dollars."""


def small(amount: int, **changes: object) -> World:
    """A world with one limit in USD nano-units."""
    return World(policy(budgets=(budget(limit("monthly", amount)),), **changes))


def costly_writes(model: str) -> ModelPrice:
    """A price at which input that is written to a cache costs more than plain input."""
    plain = price(model, 2, 8)
    return replace(plain, rows=(replace(plain.rows[0], prices=replace(plain.rows[0].prices, cache_write=9 * USD)),))


def spent_elsewhere(world: World, amount: int, *, held: int = 0) -> None:
    world.bank.leases[(MONTH, "other")] = Held("other", granted=amount + held, used=amount, closed=held == 0)


def test_the_worst_case_is_held_while_the_attempt_runs() -> None:
    world = World()
    exchange = world.sent(chat())
    assert (world.held, world.used()) == (WORST, 0)
    exchange.observe(success(500, 50), world.now, UNIX)
    assert (world.held, world.used()) == (0, 500 * 2_000 + 50 * 8_000)
    exchange.close(world.now)


def test_enough_rights_need_no_call_to_the_coordinator() -> None:
    world = World()
    world.run(chat(), [success()])
    asked = world.bank.acquires
    assert world.run(chat(), [success()]).acquires == [] and world.bank.acquires == asked


def test_too_few_rights_ask_once_for_what_lacks() -> None:
    world = World()
    run = world.run(chat(), [success()])
    [acquire] = run.acquires
    [lack] = acquire.shortfalls
    assert (lack.budget, lack.limit, lack.need, acquire.wait_seconds) == ("team-a/team", "monthly", WORST, 2.0)


def test_an_exhausted_budget_is_402_and_says_what_is_left_and_when_it_resets() -> None:
    world = small(USD)
    spent_elsewhere(world, USD - WORST + 1)
    run = world.run(chat())
    refusal = run.exchange.refusal
    assert refusal is not None and (refusal.code, refusal.status) == ("budget_exceeded", 402)
    assert refusal.retry_after_seconds is None
    assert "team-a/team/monthly has 0.002799 USD left" in refusal.message
    assert "can take 0.002800 USD" in refusal.message and "resets in 1 h" in refusal.message
    assert world.held == 0 and run.headers["x-spendmesh-error"] == "budget_exceeded"


def test_the_last_worst_case_that_fits_is_let_through() -> None:
    world = small(USD)
    spent_elsewhere(world, USD - WORST)
    assert world.run(chat(), [success()]).code == ""


def test_pressure_alone_is_in_flight_with_retry_after() -> None:
    world = small(USD)
    spent_elsewhere(world, 0, held=USD - WORST + 1)
    run = world.run(chat())
    assert run.code == "budget_in_flight"
    assert run.exchange.refusal is not None and run.exchange.refusal.retry_after_seconds == 1.0
    assert "team-a/team/monthly has 1.00 USD left" in run.message and "hold 0.997200 USD of it" in run.message
    assert "can take 0.002800 USD" in run.message and "resets in 1 h" in run.message
    assert run.headers["x-spendmesh-budget-remaining"] == "1.00 USD; team-a/team/monthly"


def test_a_call_larger_than_the_whole_budget_says_so() -> None:
    run = small(WORST - 1).run(chat())
    assert run.code == "request_exceeds_budget" and "budget team-a/team/monthly of 0.002799 USD" in run.message
    assert "of which 0.002799 USD is left" in run.message and "resets in 1 h" in run.message


@pytest.mark.parametrize("settled", [0, 7_000, USD // 2])  # with 7,000 the last token takes exactly what is left
def test_the_output_maximum_that_a_refusal_names_fits_and_one_more_does_not(settled: int) -> None:
    """What would fit is said in words that a client can act on, also where most is spent."""
    refusing = small(USD)
    spent_elsewhere(refusing, settled)
    run = refusing.run(chat("named-1", maximum=10**6))
    named = re.search(r"With an output maximum of (\d+) tokens it fits", run.message)
    assert run.code == "request_exceeds_budget" and named is not None
    codes = []
    for more in (0, 1):
        world = small(USD)
        spent_elsewhere(world, settled)
        codes.append(world.run(chat("named-1", maximum=int(named[1]) + more), [success()]).code)
    assert codes[0] == "" and codes[1] in ("budget_exceeded", "request_exceeds_budget")


def test_where_no_output_would_fit_no_maximum_is_advised() -> None:
    tight = small(USD // 1_000)
    spent_elsewhere(tight, USD // 1_000 - 5)
    assert "Send less input" in tight.run(chat()).message
    empty = small(USD)
    spent_elsewhere(empty, USD)
    assert "fits" not in empty.run(chat()).message and "less input" not in empty.run(chat()).message


def test_an_absent_coordinator_is_unverifiable_after_the_wait() -> None:
    world = World()
    world.bank.away = True
    began = world.now
    run = world.run(chat())
    assert run.code == "budget_unverifiable" and world.now - began == 2.0
    assert run.exchange.refusal is not None and run.exchange.refusal.retry_after_seconds == 5.0


def test_rights_in_hand_are_spent_while_the_coordinator_is_away() -> None:
    world = World()
    world.run(chat(), [success()])
    world.bank.away = True
    assert world.run(chat(), [success()]).code == ""


@pytest.mark.parametrize("reason", ["unverifiable", "unknown"])
def test_denials_that_say_nothing_about_money_are_unverifiable(reason: str) -> None:
    world = World()
    world.bank.reasons[MONTH] = reason
    assert world.run(chat()).code == "budget_unverifiable"


def test_the_denial_that_waiting_helps_least_speaks() -> None:
    world = World(policy(budgets=(budget(limit("monthly", USD), limit("calls", 100, unit="Requests")),)))
    world.bank.reasons[MONTH] = "in_flight"
    world.bank.reasons[AccountRef(budget="team-a/team", limit="calls")] = "exhausted"
    run = world.run(chat())
    assert run.code == "budget_exceeded" and "team-a/team/calls" in run.message


def test_a_fresh_denial_answers_the_next_calls_without_a_round_trip() -> None:
    world = small(USD)
    spent_elsewhere(world, USD)
    world.run(chat())
    asked = world.bank.acquires
    assert world.run(chat()).code == "budget_exceeded" and world.bank.acquires == asked
    world.now += 1.0
    assert world.run(chat()).code == "budget_exceeded" and world.bank.acquires == asked + 1


def test_a_smaller_call_than_the_denied_one_is_asked_for() -> None:
    world = small(USD)
    spent_elsewhere(world, USD - WORST + 1)
    assert world.run(chat()).code == "budget_exceeded"
    assert world.run(chat(maximum=10), [success(500, 5)]).code == ""


def test_all_limits_must_fit_and_nothing_is_booked_where_one_lacks() -> None:
    world = World(policy(budgets=(MONTHLY, budget(limit("calls", 1, unit="Requests"), name="team-a/calls"))))
    assert world.run(chat(), [success()]).code == ""
    world.bank.sync(world.ledger, world.now)
    run = world.run(chat())
    assert run.code == "budget_exceeded" and "team-a/calls/calls has 0 Requests left" in run.message
    assert world.held == 0


@pytest.mark.parametrize(
    ("unit", "used"),
    [("InputTokens", 500), ("OutputTokens", 50), ("TotalTokens", 550), ("Requests", 1)],
)
def test_every_unit_settles_in_its_own_measure(unit: str, used: int) -> None:
    world = World(policy(budgets=(budget(limit("monthly", 100_000, unit=unit)),)))
    world.run(chat(), [success(500, 50)])
    assert world.used() == used and world.held == 0


@pytest.mark.parametrize(
    "outcome",
    [throttled(), failure(401, kind=Kind.NON_RETRYABLE), failure(404, kind=Kind.NON_RETRYABLE), CONNECT],
    ids=["429", "401", "404", "connect"],
)
def test_what_is_documented_as_free_is_void(outcome: Outcome) -> None:
    world = World(policy(routing=one_target()))
    world.run(chat(), [outcome] * 3)
    assert world.used() == 0 and world.held == 0


def one_target() -> RoutingSpec:
    tier = TierSpec(name="only", targets=(TargetSpec(name="m", provider="openai", model="medium-1"),))
    return RoutingSpec(name="team-a/one@1", tiers=(tier,), default_tier="only", models=ROUTING.models)


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(Kind.CUT, 200, committed=True, output_bytes=40),
        Outcome(Kind.CLIENT_GONE, 200, committed=True, output_bytes=40),
        Outcome(Kind.TIMEOUT),
        Outcome(Kind.SUCCESS, 200, committed=True, complete=True),
    ],
    ids=["cut", "client gone", "timeout", "no usage"],
)
def test_an_unknown_outcome_settles_at_the_worst_case(outcome: Outcome) -> None:
    world = World()
    run = world.run(chat(), [outcome])
    [settled] = run.exchange.decision.settlements
    assert (settled.source, settled.cost_nanos) == ("worst", WORST) and world.used() == WORST


def test_usage_that_was_final_before_the_client_left_is_exact() -> None:
    world = World()
    run = world.run(chat(), [replace(success(500, 50), kind=Kind.CLIENT_GONE)])
    assert run.exchange.decision.settlements[0].source == "exact"
    assert world.used() == 500 * 2_000 + 50 * 8_000


def test_closing_in_the_middle_settles_at_worst_once() -> None:
    world = World()
    exchange = world.sent(chat())
    exchange.close(world.now)
    exchange.close(world.now)
    assert (world.held, world.used()) == (0, WORST)
    [settled] = exchange.decision.settlements
    assert (settled.kind, settled.source) == (Kind.CLIENT_GONE, "worst")


@pytest.mark.parametrize(
    ("claimed", "charged"),
    [
        ((1_000, 9_000), WORST),
        ((9_000, 100), WORST),
        ((1_001, 10), 1_001 * 2_000 + 10 * 8_000),
        ((500, 101), 500 * 2_000 + 101 * 8_000),
        ((10, 10**10), WORST),
    ],
)
def test_a_report_above_the_physical_maximum_is_recorded_and_charged_at_most_as_reserved(
    claimed: tuple[int, int], charged: int
) -> None:
    """Contract §4: recorded, alerted, trips the target, and is not charged to the budgets above."""
    tokens = budget(limit("tokens", 10**6, unit="OutputTokens"), name="team-a/tokens")
    world = World(policy(budgets=(MONTHLY, tokens)))
    run = world.run(chat(), [success(*claimed)])
    [settled] = run.exchange.decision.settlements
    cost = claimed[0] * 2_000 + claimed[1] * 8_000
    assert (settled.usage.input_tokens, settled.usage.output_tokens) == claimed
    assert (settled.cost_nanos, settled.overrun_nanos) == (charged, max(0, cost - WORST))
    assert settled.source == "estimated"
    assert (world.used(), world.used("tokens", "team-a/tokens")) == (charged, min(100, claimed[1]))
    assert all(lease.overrun == 0 for lease in world.ledger.accounts[MONTH].leases.values())
    assert world.breakers.of("openai/medium-1", world.policy.retry.breaker).state(world.now) == "ejected"


def test_more_than_reserved_that_is_possible_is_charged_and_recorded_as_overrun() -> None:
    """A class that costs more than any that the request asked for: no lie, and it is on the invoice."""
    openai = replace(OPENAI, prices=(costly_writes("medium-1"),))
    world = World(policy(providers=(openai, BACKUP)))
    usage = Usage(cache_write_tokens=1_000, output_tokens=100)
    run = world.run(chat(), [replace(success(), usage=usage)])
    [settled] = run.exchange.decision.settlements
    cost = 1_000 * 9_000 + 100 * 8_000
    assert (settled.cost_nanos, settled.overrun_nanos, settled.source) == (cost, cost - WORST, "exact")
    [lease] = world.ledger.accounts[MONTH].leases.values()
    assert (lease.used, lease.overrun) == (cost, cost - WORST)


@pytest.mark.parametrize(
    "budgets", [(MONTHLY,), (budget(limit("tokens", 10**6, unit="InputTokens")),), ()], ids=["cost", "tokens", "none"]
)
def test_a_field_that_no_bound_knows_makes_no_report_impossible(budgets: tuple[BudgetSpec, ...]) -> None:
    """A stored file that the platform allows counts more input than the body has bytes; that ejects nobody."""
    openai = replace(OPENAI, allowed_fields=("messages[].content[].type",))
    world = World(policy(providers=(openai, BACKUP), budgets=budgets))
    request = chat(unpriced_fields=("messages[0].content[1].type=file",))
    run = world.run(request, [success(40_000, 5)])
    [settled] = run.exchange.decision.settlements
    cost = 40_000 * 2_000 + 5 * 8_000
    assert (settled.cost_nanos, settled.source, settled.usage.input_tokens) == (cost, "exact", 40_000)
    assert world.run(request, [success(40_000, 5)]).models == ["openai/medium-1"]
    for spec in budgets:
        assert world.used(spec.limits[0].name, spec.name) == 2 * (cost if spec is MONTHLY else 40_000)


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2)])
def test_a_price_that_begins_while_a_call_runs_is_settled_at_the_dearer(before: int, after: int) -> None:
    """Nobody says by which of the two a provider bills, and the dearer one was reserved."""
    old, new = price("medium-1", before, before), price("medium-1", after, after)
    dated = replace(old, rows=(*old.rows, replace(new.rows[0], since=UNIX + 60)))
    world = World(policy(providers=(replace(OPENAI, prices=(dated,)), BACKUP)))
    exchange = world.sent(chat())
    exchange.observe(success(500, 50), world.now, UNIX + 60)
    exchange.close(world.now)
    assert world.used() == 550 * 4_000


def test_a_report_that_is_proven_false_is_charged_at_the_worst_case() -> None:
    world = World()
    lie = replace(success(), usage=Usage(), output_bytes=20)
    [settled] = world.run(chat(), [lie]).exchange.decision.settlements
    assert (settled.cost_nanos, settled.source, world.used()) == (WORST, "estimated", WORST)
    calls = World(policy(budgets=(budget(limit("calls", 10, unit="Requests")),)))
    [unbounded] = calls.run(chat(maximum=None), [lie]).exchange.decision.settlements
    assert unbounded.usage.output_tokens == 1_000, "as much as was reserved, where no maximum was sent"
    watched = World(policy(budgets=(budget(limit("monthly", USD), mode="Observe"),)))
    [seen] = watched.run(chat(), [lie]).exchange.decision.settlements
    assert (seen.usage.input_tokens, seen.usage.output_tokens, seen.source) == (250, 5, "estimated")


def test_reports_out_of_order_are_a_defect() -> None:
    world = World()
    exchange = world.sent(chat())
    with pytest.raises(ExchangeError, match="observe"):
        exchange.resume(world.now, UNIX)
    exchange.observe(success(), world.now, UNIX)
    with pytest.raises(ExchangeError):
        exchange.observe(success(), world.now, UNIX)
    exchange.close(world.now)


# --- the output maximum -----------------------------------------------------------------------------------


def test_without_a_clients_maximum_the_models_is_injected() -> None:
    run = World().run(chat(maximum=None), [success()])
    assert [attempt.max_output_tokens for attempt in run.attempts] == [1_000]


def test_a_clients_maximum_is_left_alone() -> None:
    run = World().run(chat("named-1", maximum=77), [success()])
    assert [attempt.max_output_tokens for attempt in run.attempts] == [None]


def test_a_clients_maximum_is_cut_to_what_the_model_that_policy_chose_can_write() -> None:
    """A Downgrade or a rule must not turn a call into the smaller model's 400; what was asked by name is left alone."""
    world = World()
    run = world.run(chat(maximum=5_000), [success(500, 50)])
    assert [attempt.max_output_tokens for attempt in run.attempts] == [1_000]
    assert run.acquires[0].shortfalls[0].need == 1_000 * 2_000 + 1_000 * 8_000
    named = world.run(chat(model="named-1", maximum=5_000), [success(500, 50)])
    assert [attempt.max_output_tokens for attempt in named.attempts] == [None]
    short = small(1_000 * 2_000 + 900 * 8_000)
    assert short.run(chat(maximum=5_000)).code == "request_exceeds_budget", "it does not shrink to a budget"


@pytest.mark.parametrize("unit", ["InputTokens", "OutputTokens", "TotalTokens"])
def test_a_field_that_cannot_be_bounded_is_refused_under_a_limit_in_tokens(unit: str) -> None:
    """A file by its id may be any number of tokens."""
    field = "messages[0].content[1].type=file"
    world = World(policy(budgets=(budget(limit("tokens", 10_000, unit=unit)),)))
    run = world.run(chat(unpriced_fields=(field,)))
    assert run.code == "field_not_allowed" and field in run.message and "tokens" in run.message
    calls = World(policy(budgets=(budget(limit("calls", 10, unit="Requests")),)))
    assert calls.run(chat(unpriced_fields=(field,)), [success()]).code == ""


def test_nothing_is_injected_where_no_limit_needs_a_bound() -> None:
    observed = World(policy(budgets=(budget(limit("monthly", USD), mode="Observe"),)))
    calls = World(policy(budgets=(budget(limit("calls", 10, unit="Requests")),)))
    for world in (observed, calls):
        assert world.run(chat(maximum=None), [success()]).attempts[0].max_output_tokens is None


def test_an_injected_maximum_shrinks_to_what_is_left() -> None:
    world = small(USD)
    world.bank.share = 1
    left = 1_000 * 2_000 + 500 * 8_000 + 7_999
    spent_elsewhere(world, USD - left)
    run = world.run(chat(maximum=None), [success(500, 50)])
    assert run.attempts[0].max_output_tokens == 500
    assert run.acquires[0].shortfalls[0].need == 1_000 * 2_000 + OUTPUT_FLOOR_TOKENS * 8_000
    assert run.acquires[0].shortfalls[0].want == 1_000 * 2_000 + 1_000 * 8_000


def test_an_injected_maximum_is_refused_below_the_floor() -> None:
    world = small(USD)
    spent_elsewhere(world, USD - (1_000 * 2_000 + OUTPUT_FLOOR_TOKENS * 8_000) + 1)
    assert world.run(chat(maximum=None)).code == "budget_exceeded"


def test_a_clients_maximum_does_not_shrink() -> None:
    world = small(USD)
    spent_elsewhere(world, USD - (1_000 * 2_000 + 500 * 8_000))
    assert world.run(chat(maximum=1_000)).code == "budget_exceeded"


def test_while_the_coordinator_is_silent_a_call_that_can_shrink_does_not_wait_again() -> None:
    world = World()
    world.bank.share = 0
    world.run(chat(maximum=500), [throttled(), throttled(), throttled()])
    world.bank.away = True
    first = world.run(chat(maximum=None), [success()])
    second = world.run(chat(maximum=None), [success()])
    assert len(first.acquires) == 1 and second.acquires == []
    assert all(256 <= run.attempts[0].max_output_tokens < 1_000 for run in (first, second))  # type: ignore[operator]


# --- what cannot be checked is refused ---------------------------------------------------------------------


def test_an_unpriced_model_is_refused_under_a_limit_in_money_only() -> None:
    run = World().run(chat("mystery-9"))
    assert (run.code, run.attempts) == ("model_unpriced", []) and "mystery-9" in run.message
    assert World(policy(budgets=())).run(chat("mystery-9"), [success()]).models == ["openai/mystery-9"]
    tokens = World(policy(budgets=(budget(limit("t", 10_000, unit="TotalTokens")),)))
    assert tokens.run(chat("mystery-9"), [success()]).models == ["openai/mystery-9"]
    observed = World(policy(budgets=(budget(limit("m", USD), mode="Observe"),)))
    assert observed.run(chat("mystery-9"), [success()]).models == ["openai/mystery-9"]


def test_a_price_in_another_currency_counts_as_unpriced() -> None:
    euros = replace_currency("EUR")
    run = World(policy(budgets=(BudgetSpec(name="team-a/team", limits=(euros,)),))).run(chat())
    assert run.code == "model_unpriced" and "CurrencyMismatch" in run.message


def replace_currency(currency: str) -> LimitSpec:
    made = limit("monthly", USD)
    return LimitSpec(name=made.name, amount=made.amount, window=made.window, currency=currency)


def test_an_unpriced_target_is_passed_over_for_a_priced_one() -> None:
    bare = ProviderSpec(alias="openai", ref="team-a/openai", dialect="OpenAI", base_url="https://one.example/v1")
    run = World(policy(providers=(bare, BACKUP))).run(chat(), [success()])
    assert run.models == ["backup/medium-2"]
    assert "openai/medium-1" in [one.target for one in run.exchange.passed_over]


def test_a_field_without_a_price_is_refused_by_name_under_a_limit_in_money() -> None:
    request = chat(unpriced_fields=("tools[0].type=web_search",))
    run = World().run(request)
    assert run.code == "field_not_allowed" and run.exchange.refusal is not None
    assert run.exchange.refusal.param == "tools[0].type=web_search"
    assert World(policy(budgets=())).run(request, [success()]).code == ""
    calls = World(policy(budgets=(budget(limit("calls", 10, unit="Requests")),)))
    assert calls.run(request, [success()]).code == ""


def test_a_service_tier_without_a_price_is_refused() -> None:
    request = chat()
    priority = replace(request, bounds=replace(request.bounds, service_tiers=("priority", "standard")))
    run = World().run(priority)
    assert run.code == "field_not_allowed" and "service_tier=priority" in run.message
    assert "built-in price table" in run.message, "advice that can be followed: a ModelProvider's prices have no tiers"
    assert World(policy(budgets=())).run(priority, [success()]).code == ""


def test_a_model_without_a_known_maximum_gets_a_default_one() -> None:
    bare = price("medium-1", 2, 8, maximum=0)
    provider = ProviderSpec(
        alias="openai", ref="team-a/openai", dialect="OpenAI", base_url="https://one.example/v1", prices=(bare,)
    )
    run = World(policy(providers=(provider, BACKUP))).run(chat(maximum=None), [success()])
    assert run.attempts[0].max_output_tokens == DEFAULT_OUTPUT_TOKENS


def test_a_provider_can_allow_a_field() -> None:
    allowing = ProviderSpec(
        alias="openai",
        ref="team-a/openai",
        dialect="OpenAI",
        base_url="https://one.example/v1",
        allowed_fields=("tools[].type",),
        prices=OPENAI.prices,
    )
    request = chat(unpriced_fields=("tools[0].type=web_search",))
    assert World(policy(providers=(allowing, BACKUP))).run(request, [success()]).models == ["openai/medium-1"]


def test_unbudgeted_calls_can_be_denied() -> None:
    observed = budget(limit("monthly", USD), mode="Observe")
    for budgets in ((), (observed,)):
        assert World(policy(budgets=budgets, unbudgeted="Deny")).run(chat()).code == "policy_missing"
        assert World(policy(budgets=budgets)).run(chat(), [success()]).code == ""


def test_calls_without_a_budget_are_metered() -> None:
    run = World(policy(budgets=())).run(chat(), [success(500, 50)])
    assert run.headers["x-spendmesh-cost"] == "0.001400 USD"
    assert "x-spendmesh-budget-remaining" not in run.headers


# --- observe ----------------------------------------------------------------------------------------------


def observing(amount: int) -> World:
    return World(policy(budgets=(budget(limit("monthly", amount), mode="Observe"),)))


def lease_ahead(world: World) -> None:
    for want in world.ledger.wants(world.now):
        for granted in world.bank.acquire("holder", (want,))[0]:
            assert world.ledger.merge(granted, world.now)


def test_an_observed_budget_refuses_nothing_and_counts_what_it_would_have_refused() -> None:
    world = observing(2 * WORST)
    lease_ahead(world)
    for _ in range(6):
        assert world.run(chat(), [success(1_000, 100)]).acquires == []
        world.bank.sync(world.ledger, world.now)
    [lease] = world.ledger.accounts[MONTH].leases.values()
    assert lease.used == 6 * WORST
    assert lease.would_block > 0
    assert lease.used + lease.held <= lease.granted - lease.released + lease.overrun


def test_observed_use_before_any_lease_is_not_lost() -> None:
    world = observing(USD)
    world.run(chat(), [success(500, 50)])
    lease_ahead(world)
    assert world.used() == 500 * 2_000 + 50 * 8_000


def test_use_that_observe_does_not_see_is_estimated() -> None:
    world = observing(USD)
    run = world.run(chat(), [Outcome(Kind.SUCCESS, 200, committed=True, complete=True, output_bytes=400)])
    [settled] = run.exchange.decision.settlements
    assert (settled.source, settled.usage.output_tokens) == ("estimated", 100)


def test_usage_is_asked_for_unless_everything_observes() -> None:
    streaming = chat(stream=True, usage_asked=False)
    assert World().run(streaming, [success()]).attempts[0].include_usage
    assert not World().run(chat(stream=True), [success()]).attempts[0].include_usage
    lone = RoutingSpec(**{**{f: getattr(ROUTING, f) for f in ROUTING.__struct_fields__}, "mode": "Observe"})
    silent = World(policy(routing=lone, budgets=()))
    named = chat("named-1", stream=True, usage_asked=False)
    assert not silent.run(named, [success()]).attempts[0].include_usage


# --- policy swap, races, headers ---------------------------------------------------------------------------


def test_a_policy_swap_in_flight_settles_where_it_was_reserved() -> None:
    world = World()
    exchange = world.sent(chat())
    world.swap(policy(budgets=(budget(limit("new", USD)),)))
    exchange.observe(success(500, 50), world.now, UNIX)
    exchange.close(world.now)
    assert world.used() == 500 * 2_000 + 50 * 8_000 and world.held == 0
    world.bank.budgets = (MONTHLY,)
    world.bank.sync(world.ledger, world.now)
    assert MONTH not in world.ledger.accounts, "the account's lease is closed and forgotten"


def test_rights_taken_by_a_faster_call_are_asked_for_again_until_the_wait_is_over() -> None:
    world = World()
    exchange = world.exchange(chat())
    step = exchange.begin(world.now, UNIX)
    assert isinstance(step, Acquire)
    again = exchange.acquired((), world.now + 1.5, UNIX)
    assert isinstance(again, Acquire) and again.wait_seconds == 0.5
    exchange.acquired((), world.now + 2.0, UNIX)
    assert exchange.refusal is not None and exchange.refusal.code == "budget_in_flight"
    assert "team-a/team/monthly has " in exchange.refusal.message
    exchange.close(world.now + 2.0)


NO_RIGHTS: tuple[Denial, ...] = ()
EXHAUSTED = (Denial(account=MONTH, reason="exhausted"),)


@pytest.mark.parametrize(("heard", "after"), [(NO_RIGHTS, 2.0), (EXHAUSTED, 1.6)], ids=["nothing", "denied"])
def test_a_call_that_waited_over_a_periods_end_is_asked_for_once_more(heard: tuple[Denial, ...], after: float) -> None:
    """What was granted or denied until then was the last period's; the new one has its whole amount."""
    world = World()
    exchange = world.exchange(chat())
    exchange.begin(world.now, UNIX)
    assert world.ledger.merge(lease(10, nonce="holder", ends_in_ms=1_500), world.now)

    again = exchange.acquired(heard, world.now + after, UNIX)
    assert isinstance(again, Acquire)
    assert again.wait_seconds == LEASE_WAIT_SECONDS

    world.ledger.merge(lease(10, id="two", nonce="holder", ends_in_ms=1_500), world.now + after)
    exchange.acquired(heard, world.now + 2 * after, UNIX)
    assert exchange.refusal is not None, "periods may be short: it does not wait for ever"
    exchange.close(world.now + 2 * after)


@pytest.mark.parametrize(
    ("after", "deadline_seconds"), [(1.4, 600.0), (1.6, 1.6)], ids=["the period runs", "the call's own time is over"]
)
def test_a_denial_is_not_asked_about_again_without_cause_or_time(after: float, deadline_seconds: float) -> None:
    world = World()
    exchange = world.exchange(chat(), deadline_seconds=deadline_seconds)
    exchange.begin(world.now, UNIX)
    world.ledger.merge(lease(10, nonce="holder", ends_in_ms=1_500), world.now)

    exchange.acquired(EXHAUSTED, world.now + after, UNIX)

    assert exchange.refusal is not None
    exchange.close(world.now + after)


@pytest.mark.parametrize(("before", "waits"), [(1.9, True), (2.1, False)])
def test_who_came_after_a_periods_end_waits_behind_those_who_waited_over_it(before: float, *, waits: bool) -> None:
    """They are served first with what comes, and had to ask twice."""
    world = World()
    assert world.ledger.merge(lease(10, nonce="holder", ends_in_ms=1_000), world.now)
    world.now += 1.0 + before
    exchange = world.exchange(chat())
    exchange.begin(world.now, UNIX)

    assert isinstance(exchange.acquired((), world.now + 2.0, UNIX), Acquire) is waits
    exchange.close(world.now + 2.0)


def test_the_second_wait_ends_with_the_calls_own_time() -> None:
    world = World()
    exchange = world.exchange(chat(), deadline_seconds=3.0)
    exchange.begin(world.now, UNIX)
    world.ledger.merge(lease(10, nonce="holder", ends_in_ms=1_500), world.now)

    again = exchange.acquired((), world.now + 2.0, UNIX)

    assert isinstance(again, Acquire)
    assert again.wait_seconds == 1.0
    exchange.close(world.now + 2.0)


def test_a_settlement_meanwhile_can_make_room_despite_a_denial() -> None:
    world = small(2 * WORST - 1)
    first = world.sent(chat())
    second = world.exchange(chat())
    step = second.begin(world.now, UNIX)
    assert isinstance(step, Acquire)
    _, denials = world.bank.acquire("holder", world.ledger.wants_for(step.shortfalls, world.now))
    first.observe(throttled(), world.now, UNIX)
    first.close(world.now)
    assert isinstance(second.acquired(denials, world.now, UNIX), Attempt)
    second.close(world.now)


def test_an_answer_that_came_before_the_money_ran_out_is_what_the_client_gets() -> None:
    """A retry that cannot be reserved is not made; the provider's error says more than our refusal."""
    world = small(WORST)
    run = world.run(chat(), [failure(502)])
    assert run.respond is not None and run.respond.refusal is None and len(run.attempts) == 1
    assert world.retry_budgets.of(world.policy.retry).retries == 0, "the paid retry is refunded"


def test_headers_of_a_whole_answer() -> None:
    run = World().run(chat(), [success(500, 50)])
    assert run.headers == {
        "x-spendmesh-request-id": "req-1",
        "x-spendmesh-policy": "team-a/support@7",
        "x-spendmesh-tier": "standard",
        "x-spendmesh-model": "openai/medium-1",
        "x-spendmesh-reason": "default",
        "x-spendmesh-attempts": "1",
        "x-spendmesh-cost": "0.001400 USD",
        "x-spendmesh-budget-remaining": "9.99 USD; team-a/team/monthly",
    }


def test_a_stream_that_begins_has_no_cost_yet() -> None:
    world = World()
    exchange = world.sent(chat(stream=True))
    names = [name for name, _ in exchange.response_headers(final=False)]
    assert "x-spendmesh-cost" not in names and "x-spendmesh-tier" in names
    exchange.close(world.now)


def test_the_tightest_limit_is_in_the_header() -> None:
    world = World(policy(budgets=(MONTHLY, budget(limit("calls", 4, unit="Requests"), name="team-a/calls"))))
    assert world.run(chat(), [success()]).headers["x-spendmesh-budget-remaining"] == "3 Requests; team-a/calls/calls"


def test_every_refusal_code_has_the_status_of_the_contract() -> None:
    by_status: dict[int, set[str]] = {}
    for code, status in STATUS.items():
        by_status.setdefault(status, set()).add(code)
    assert by_status == {
        400: {"request_invalid", "field_not_allowed", "no_capable_target"},
        402: {"budget_exceeded", "budget_in_flight", "request_exceeds_budget"},
        403: {"model_unpriced", "model_denied"},
        404: {"operation_unsupported"},
        413: {"request_too_large"},
        422: {"idempotency_key_reused"},
        503: {"budget_unverifiable", "policy_missing", "target_unavailable", "ledger_unwritable"},
        504: {"attempt_timeout"},
    }


def test_an_operation_without_output_holds_input_only() -> None:
    world = World()
    embeddings = replace(chat("named-1"), bounds=Bounds(input_tokens=1_000))
    exchange = world.sent(embeddings)
    assert world.held == 1_000 * 3_000
    exchange.close(world.now)
