"""Streams that hold their output slice by slice: what is held when, when they wait, and when they are ended."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import MONTH, OPENAI, UNIX, USD, World, budget, chat, limit, policy, price
from fake_bank import Held
from memory_log import again, logged
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.exposure import extend
from spendmesh_sidecar.core.ledger.metering import LEAD_TOKENS, Meter
from spendmesh_sidecar.core.ledger.rights import AccountState, Denial, Lease
from spendmesh_sidecar.core.ledger.slices import SLICE_TOKENS
from spendmesh_sidecar.core.ledger.waiting import begin
from spendmesh_sidecar.core.specs import LimitSpec
from spendmesh_sidecar.core.types import Kind, Outcome, ParsedRequest, Refusal, Usage

INPUT, OUTPUT = 2_000, 8_000
"""Of medium-1, in nano-dollars a token."""
MAXIMUM = 10_000
AMOUNT = 10 * USD
STREAMING = replace(limit("monthly", AMOUNT), reservation="Streaming", overshoot_percent=100)


def worst(output: int) -> int:
    """Of the sample call with so much output."""
    return 1_000 * INPUT + output * OUTPUT


def streamed(**changes: object) -> ParsedRequest:
    return chat(maximum=MAXIMUM, stream=True, **changes)


def world(*limits: LimitSpec, mode: str = "Enforce") -> World:
    """A sidecar with rights enough that nothing is refused, unless a test takes them away."""
    longer = replace(OPENAI, prices=(price("medium-1", 2, 8, 16_000),))
    built = World(policy(providers=(longer,), budgets=(budget(*(limits or (STREAMING,)), mode=mode),), routing=None))
    built.policy = policy(providers=(longer,), budgets=built.policy.budgets)
    built.run(chat(), [Outcome(Kind.SUCCESS, 200, True, True, Usage(500, output_tokens=50), 50)])
    return built


def held(built: World, name: str = "monthly") -> int:
    accounts = (account for ref, account in built.ledger.accounts.items() if ref.limit == name)
    return sum(lease.held for account in accounts for lease in account.leases.values())


def begun(built: World, request: ParsedRequest | None = None) -> tuple[Exchange, Meter]:
    exchange = built.sent(request or streamed())
    meter = exchange.meter()
    assert meter is not None
    return exchange, meter


def leave(built: World, amount: int) -> None:
    """So much of the limit is left, in this sidecar's hands; others have spent the rest."""
    free = built.ledger.free(MONTH, built.now)
    assert built.ledger.reserve((Charge(MONTH, "Cost", free - amount),), "bulk", built.now) == ()
    built.ledger.settle("bulk", Quantities(free - amount, "USD"), built.now)
    built.bank.sync(built.ledger, built.now)
    rest = AMOUNT - built.bank.charged(MONTH)
    built.bank.leases[(MONTH, "other")] = Held("other", granted=rest, used=rest, closed=True)


def refusal_of(meter: Meter, built: World, seen: int) -> Refusal | None:
    """The stream has shown so much, and the bank is asked for what lacks."""
    lacking = meter.extend(seen, built.now)
    if not lacking:
        return None
    if built.bank.away:
        built.ledger.unanswered(built.now)
        return meter.answered(None, built.now)
    leases, denials = built.bank.acquire("holder", built.ledger.wants_for(lacking, built.now))
    for lease in leases:
        built.ledger.merge(lease, built.now)
    return meter.answered(denials, built.now)


# --- what is held -----------------------------------------------------------------------------------------


def test_a_stream_holds_its_input_and_the_first_slice_and_then_ahead_of_what_it_shows() -> None:
    built = world()
    exchange, meter = begun(built)
    assert (held(built), meter.covers) == (worst(SLICE_TOKENS), SLICE_TOKENS - LEAD_TOKENS)
    assert meter.extend(600, built.now) == ()
    assert (held(built), meter.covers) == (worst(600 + SLICE_TOKENS), 600 + SLICE_TOKENS - LEAD_TOKENS)
    assert meter.extend(9_500, built.now) == () and held(built) == worst(MAXIMUM), "never more than the worst case"
    assert exchange.meter() is None, "nothing is left to be held"
    exchange.observe(Outcome(Kind.SUCCESS, 200, True, True, Usage(500, output_tokens=9_000), 9_500), built.now, UNIX)
    assert held(built) == 0
    exchange.close(built.now)


@pytest.mark.parametrize("changes", [{"stream": False}, {"maximum": SLICE_TOKENS, "stream": True}])
def test_what_is_no_stream_or_is_short_holds_all(changes: dict[str, object]) -> None:
    built = world()
    request = chat(**{"maximum": MAXIMUM, **changes})  # type: ignore[arg-type]
    exchange = built.sent(request)
    assert exchange.meter() is None
    assert held(built) == worst(request.bounds.max_output_tokens or 0)
    exchange.close(built.now)


def test_a_stream_is_no_reason_to_hold_less_on_a_limit_that_goes_by_what_is_expected() -> None:
    built = world(replace(STREAMING, reservation="Expected"))
    exchange = built.sent(streamed())
    assert held(built) == worst(MAXIMUM) and exchange.meter() is None
    exchange.close(built.now)


def test_every_choice_has_its_slice() -> None:
    built = world()
    request = streamed()
    request = replace(request, bounds=replace(request.bounds, choices=3))
    exchange, meter = begun(built, request)
    assert held(built) == 1_000 * INPUT + 3 * SLICE_TOKENS * OUTPUT
    assert meter.extend(5_000, built.now) == ()
    assert held(built) == 1_000 * INPUT + 3 * -(-(5_000 + SLICE_TOKENS) // 3) * OUTPUT
    exchange.close(built.now)


def test_a_stream_that_would_expose_more_than_the_overshoot_holds_all() -> None:
    built = world(replace(STREAMING, overshoot_percent=1))
    exchange = built.sent(streamed())
    assert held(built) == worst(MAXIMUM) and exchange.meter() is None
    exchange.close(built.now)


def test_each_limit_of_a_stream_grows_in_its_own_unit() -> None:
    tokens = replace(limit("tokens", 10**6, "TotalTokens"), reservation="Streaming", overshoot_percent=100)
    built = world(STREAMING, tokens, limit("strict", AMOUNT))
    exchange, meter = begun(built)
    assert [held(built, name) for name in ("tokens", "strict")] == [1_000 + SLICE_TOKENS, worst(MAXIMUM)]
    assert meter.extend(600, built.now) == ()
    assert (held(built), held(built, "tokens")) == (worst(600 + SLICE_TOKENS), 1_600 + SLICE_TOKENS)
    assert held(built, "strict") == worst(MAXIMUM)
    exchange.close(built.now)


def test_a_stream_that_shows_one_more_holds_one_more() -> None:
    tokens = replace(limit("tokens", 10**6, "OutputTokens"), reservation="Streaming", overshoot_percent=100)
    built = world(STREAMING, tokens)
    exchange, meter = begun(built)
    for seen in (600, 601):
        assert meter.extend(seen, built.now) == ()
    assert held(built, "tokens") == 601 + SLICE_TOKENS
    exchange.close(built.now)


def test_a_stream_that_shows_no_more_lacks_nothing() -> None:
    """Also where more is promised to calls that wait than is free any more."""
    built = world()
    exchange, meter = begun(built)
    assert meter.extend(600, built.now) == ()
    free = built.ledger.free(MONTH, built.now)
    begin(built.ledger.waits_of((Charge(MONTH, "Cost", free),), built.now))
    [rights] = built.ledger.accounts[MONTH].leases.values()
    assert rights.give_back(free)
    assert meter.extend(600, built.now) == ()
    [lack] = meter.extend(601, built.now)
    assert lack.need == OUTPUT
    exchange.close(built.now)


def test_a_stream_is_extended_on_all_its_limits_or_on_none() -> None:
    tokens = replace(limit("tokens", 10**6, "OutputTokens"), reservation="Streaming", overshoot_percent=100)
    built = world(STREAMING, tokens)
    exchange, meter = begun(built)
    leave(built, 0)
    before = held(built), held(built, "tokens")
    [lack] = meter.extend(600, built.now)
    assert (lack.limit, lack.need) == ("monthly", 600 * OUTPUT)
    assert (held(built), held(built, "tokens")) == before
    exchange.close(built.now)


# --- when it ends -----------------------------------------------------------------------------------------


def test_a_stream_waits_for_rights_and_goes_on_with_them() -> None:
    built = world()
    exchange, meter = begun(built)
    free = built.ledger.free(MONTH, built.now)
    built.ledger.reserve((Charge(MONTH, "Cost", free),), "bulk", built.now)
    assert refusal_of(meter, built, 600) is None
    assert built.bank.acquires > 0 and meter.covers == 600 + SLICE_TOKENS - LEAD_TOKENS
    exchange.close(built.now)


def test_a_stream_that_nothing_is_left_for_is_ended_and_charged_at_its_worst() -> None:
    """The provider may bill all of it whatever becomes of the connection."""
    built = world()
    exchange, meter = begun(built)
    leave(built, 0)
    used = built.used()
    refusal = refusal_of(meter, built, 600)
    assert refusal is not None and refusal.code == "budget_in_flight", "what is left is what this call holds"
    assert refusal.message.startswith("The answer was ended before its end: more of it was not covered. Budget ")
    exchange.stop(refusal)
    step = exchange.observe(Outcome(Kind.STOPPED, 200, True, output_bytes=700), built.now, UNIX)
    assert (exchange.refusal, getattr(step, "refusal", None)) == (refusal, refusal)
    [settlement] = exchange.decision.settlements
    assert (settlement.source, settlement.cost_nanos, settlement.overrun_nanos) == ("worst", worst(MAXIMUM), 0)
    assert built.used() - used == worst(MAXIMUM)
    assert exchange.retries == 0
    exchange.close(built.now)


@pytest.mark.parametrize(
    ("denials", "code"),
    [
        ((Denial(account=MONTH, reason="in_flight"),), "budget_in_flight"),
        ((Denial(account=MONTH, reason="exhausted"),), "budget_exceeded"),
        ((), "budget_in_flight"),
        (None, "budget_unverifiable"),
    ],
)
def test_the_reason_of_the_end_is_the_one_that_a_call_would_hear(denials: tuple[Denial, ...] | None, code: str) -> None:
    built = world()
    exchange, meter = begun(built)
    leave(built, 0)
    assert meter.extend(600, built.now)
    refusal = meter.answered(denials, built.now)
    assert refusal is not None and refusal.code == code
    exchange.close(built.now)


def test_where_calls_may_go_without_rights_a_stream_is_not_ended_for_want_of_an_answer() -> None:
    """What it costs is exposed already: `allowCap` is not touched."""
    built = world(replace(STREAMING, on_unverifiable="Allow", allow_cap=1))
    exchange, meter = begun(built)
    leave(built, 0)
    built.bank.away = True
    assert refusal_of(meter, built, 600) is None and meter.covers == 600 + SLICE_TOKENS
    built.bank.away = False
    exchange.close(built.now)


def test_a_stream_over_the_end_of_its_period_is_not_ended() -> None:
    """It belongs to the period that it began in, where it is exposed within the bound; no more can be had there."""
    built = world()
    exchange, meter = begun(built)
    leave(built, 0)
    built.now += 7_200.0
    assert meter.extend(600, built.now) == ()
    exchange.close(built.now)


def test_an_observed_limit_ends_no_stream() -> None:
    built = world(mode="Observe")
    exchange = built.sent(streamed())
    if (meter := exchange.meter()) is not None:
        leave(built, 0)
        assert refusal_of(meter, built, 9_000) is None
    exchange.close(built.now)


# --- in the log -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("renewed", [False, True])
def test_a_stream_that_was_extended_survives_a_kill_at_its_worst(renewed: bool) -> None:
    budgets = (budget(STREAMING),)
    ledger, log = logged("me", budgets, 0.0)
    state = AccountState(amount=AMOUNT, settled=0, charged=0, resets_in_ms=3_600_000)
    message = Lease(
        id="one", nonce="me", account=MONTH, unit="Cost", currency="USD", granted=1_000, ends_in_ms=9_000, state=state
    )
    ledger.merge(message, 0.0)
    assert ledger.reserve((Charge(MONTH, "Cost", 600, least=100),), "r", 0.0) == ()
    [entry] = ledger.open_attempts.entries("r")
    assert extend([(entry, 300)], 0.0) == () and ledger.free(MONTH, 0.0) == 600
    assert ledger.reserve((Charge(MONTH, "Cost", 600),), "other", 0.0) == ()
    if renewed:
        log.begin()
    ledger.settle("other", Quantities(100, "USD"), 0.0)
    log.flush()
    successor, _ = again(log.crash(), budgets, 1.0)
    [report] = successor.reports(1.0)
    assert (report.used, report.held) == (700, 0) and report.overrun >= 200
