"""How a target's limit moves, row by row, and what a call meets at it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import CONNECT, RETRY, UNIX, World, chat, failure, policy, success, throttled
from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.failures.breaker import Breaker
from spendmesh_sidecar.core.failures.concurrency import MAX_LIMITERS, Limiter, LimiterError, Limiters
from spendmesh_sidecar.core.specs import BreakerSpec, ConcurrencySpec
from spendmesh_sidecar.core.types import Attempt, Kind, Outcome

SPEC = ConcurrencySpec(minimum=2, maximum=20, decrease_percent=50)
ECONOMY = "spendmesh/economy"
"""A tier with one target; the standard tier has two."""
SMALL, MEDIUM, BACKUP = "openai/small-1", "openai/medium-1", "backup/medium-2"


def busy(count: int, spec: ConcurrencySpec = SPEC) -> tuple[Limiter, list]:
    limiter = Limiter(spec)
    return limiter, [limiter.take() for _ in range(count)]


def test_a_target_that_never_throttles_is_never_limited_below_the_maximum() -> None:
    limiter, slots = busy(20)
    assert not limiter.has_room
    for slot in slots:
        limiter.good(slot)
    assert (limiter.limit, limiter.in_flight) == (20.0, 0)


def test_throttling_takes_its_part_off_what_was_in_flight() -> None:
    """Not off a limit that nobody came near: that would be felt many round trips later (RFC 5681: FlightSize)."""
    limiter, slots = busy(10)
    limiter.throttled(slots[0], 1.0, 0.0)
    assert limiter.limit == 5.0


def test_one_round_trip_takes_off_once() -> None:
    limiter, slots = busy(10)
    for slot in slots:
        limiter.throttled(slot, 1.0, 0.0)
    assert limiter.limit == 5.0
    limiter.throttled(limiter.take(), 2.0, 0.0)
    assert limiter.limit == 2.0, "the next round trip takes off again, down to the minimum"


def test_calls_within_the_pause_that_was_asked_for_say_nothing_new() -> None:
    limiter, slots = busy(10)
    limiter.throttled(slots[0], 1.0, 30.0)
    limiter.throttled(limiter.take(), 30.9, 0.0)
    assert limiter.limit == 5.0
    limiter.throttled(limiter.take(), 31.0, 0.0)
    assert limiter.limit < 5.0


def test_good_calls_add_one_in_a_round_trip_while_the_limit_is_in_use() -> None:
    limiter, slots = busy(10)
    limiter.throttled(slots[0], 1.0, 0.0)
    limiter.good(slots[1])
    assert limiter.limit == pytest.approx(5.2)
    for slot in slots[2:]:
        limiter.done(slot)
    before = limiter.limit
    limiter.good(limiter.take())
    assert limiter.limit == before, "one call at a time proves nothing about five"


def test_the_last_step_to_the_maximum_does_not_pass_it() -> None:
    limiter, slots = busy(1, ConcurrencySpec(maximum=2, increase=5))
    limiter.limit = 1.5
    limiter.good(slots[0])
    assert limiter.limit == 2.0


@pytest.mark.parametrize("ends", [1, 9])
def test_what_is_neither_good_nor_throttled_moves_nothing(ends: int) -> None:
    limiter, slots = busy(10)
    for slot in slots[:ends]:
        limiter.done(slot)
    assert (limiter.limit, limiter.in_flight) == (20.0, 10 - ends)


def test_a_slot_is_given_back_once() -> None:
    limiter, slots = busy(2)
    limiter.done(slots[0])
    for again in (limiter.done, limiter.good):
        with pytest.raises(LimiterError):
            again(slots[0])
    assert limiter.in_flight == 1


def test_another_spec_keeps_what_was_learned_within_its_bounds() -> None:
    limiter, slots = busy(10)
    limiter.throttled(slots[0], 1.0, 0.0)
    limiter.obey(replace(SPEC, maximum=8))
    assert limiter.limit == 5.0
    limiter.obey(replace(SPEC, maximum=4))
    assert limiter.limit == 4.0
    limiter.obey(replace(SPEC, minimum=6))
    assert limiter.limit == 6.0


def test_names_that_clients_invent_are_bounded_and_never_cost_a_call_in_flight() -> None:
    limiters = Limiters()
    slot = limiters.of("policy/target", SPEC).take()
    for number in range(2 * MAX_LIMITERS):
        limiters.of(f"made-up/{number}", SPEC)
    assert len(dict(limiters.items())) == MAX_LIMITERS
    limiters.of("policy/target", SPEC).done(slot)
    assert limiters.of("policy/target", SPEC).in_flight == 0


# --- whole calls ----------------------------------------------------------------------------------------------


def world(on_limit: str = "Deny", maximum: int = 1, attempts: int = 0, **breaker: object) -> World:
    limits = ConcurrencySpec(maximum=maximum, on_limit=on_limit)  # type: ignore[arg-type]
    spec = replace(RETRY, attempts=attempts, concurrency=limits, breaker=BreakerSpec(**breaker))  # type: ignore[arg-type]
    return World(policy(retry=spec))


def limiter_of(pod: World, key: str) -> Limiter:
    assert pod.policy.retry.concurrency is not None
    return pod.limiters.of(key, pod.policy.retry.concurrency)


def breaker_of(pod: World, key: str) -> Breaker:
    return pod.breakers.of(key, pod.policy.retry.breaker)


def end(pod: World, *running: Exchange) -> None:
    for exchange in running:
        exchange.observe(success(), pod.now, UNIX)
        exchange.close(pod.now)


def test_a_full_target_passes_the_call_to_the_next_one() -> None:
    pod = world()
    running = pod.sent(chat())
    run = pod.run(chat(), [success()])
    assert (run.models, run.exchange.decision.reason) == ([BACKUP], "failover")
    assert [(one.target, one.reason) for one in run.exchange.passed_over] == [
        (MEDIUM, "at its limit of 1 calls at once")
    ]
    end(pod, running)
    assert pod.run(chat(), [success()]).models == [MEDIUM]


def test_where_every_target_is_full_the_call_is_refused_at_once() -> None:
    """Nothing waits, so that nothing is refused late."""
    pod = world()
    running = pod.sent(chat(model=ECONOMY))
    held = pod.held
    run = pod.run(chat(model=ECONOMY))
    assert (run.code, run.attempts, run.waits) == ("target_unavailable", [], [])
    assert "openai/small-1: at its limit of 1 calls at once" in run.message
    assert run.exchange.refusal is not None and run.exchange.refusal.retry_after_seconds == 1.0
    assert pod.held == held, "a refused call reserves nothing"
    end(pod, running)


def test_serve_sends_it_all_the_same() -> None:
    pod = world(on_limit="Serve")
    running = [pod.sent(chat(model=ECONOMY)) for _ in range(3)]
    assert limiter_of(pod, SMALL).in_flight == 3
    end(pod, *running)
    assert limiter_of(pod, SMALL).in_flight == 0


@pytest.mark.parametrize(
    "outcome",
    [success(), failure(500), failure(400, kind=Kind.NON_RETRYABLE), throttled(), CONNECT, Outcome(Kind.KEY_MISSING)],
    ids=lambda outcome: outcome.kind.value,
)
def test_every_end_gives_the_place_back(outcome: Outcome) -> None:
    pod = world()
    pod.run(chat(model=ECONOMY), lambda _: outcome)
    assert limiter_of(pod, SMALL).in_flight == 0


def test_an_exchange_that_is_only_closed_gives_the_place_back() -> None:
    """The client left, or the driver failed."""
    pod = world()
    running = pod.sent(chat(model=ECONOMY))
    running.close(pod.now)
    running.close(pod.now)
    assert limiter_of(pod, SMALL).in_flight == 0


def test_only_throttling_lowers_the_limit() -> None:
    pod = world(maximum=10)
    for outcome in (failure(500), failure(503), CONNECT):
        pod.run(chat(model=ECONOMY), [outcome])
    assert limiter_of(pod, SMALL).limit == 10.0
    pod.run(chat(model=ECONOMY), [throttled()])
    assert limiter_of(pod, SMALL).limit == 1.0


def test_openai_s_token_limit_lowers_it_too() -> None:
    """Its class is ambiguous, because one request may be larger than the limit; many at once are what it is for."""
    pod = world(maximum=10)
    pod.run(chat(model=ECONOMY), [failure(429, kind=Kind.AMBIGUOUS)])
    assert limiter_of(pod, SMALL).limit == 1.0


def test_a_retry_holds_no_place_while_it_waits() -> None:
    pod = world(attempts=2)
    exchange = pod.sent(chat(model=ECONOMY))
    exchange.observe(failure(502), pod.now, UNIX)
    assert limiter_of(pod, SMALL).in_flight == 0
    assert pod.run(chat(model=ECONOMY), [success()]).models == [SMALL]
    exchange.close(pod.now)


def test_a_retry_that_finds_every_target_full_hands_the_answer_back() -> None:
    pod = world(attempts=2)
    exchange = pod.sent(chat(model=ECONOMY))
    limiter_of(pod, SMALL).limit = 2.0
    others = [pod.sent(chat(model=ECONOMY))]
    limiter_of(pod, SMALL).limit = 1.0
    exchange.observe(failure(502), pod.now, UNIX)
    assert exchange.retry_denied == "concurrency" and exchange.refusal is None
    exchange.close(pod.now)
    end(pod, *others)


def test_a_full_target_is_not_left_for_one_that_is_ejected() -> None:
    """Being busy is no failure: the ejected one is no better."""
    pod = world()
    breaker_of(pod, BACKUP).trip(pod.now, pod.rng, "ratio")
    running = pod.sent(chat())
    assert pod.run(chat()).code == "target_unavailable"
    assert breaker_of(pod, BACKUP).bypasses == 0
    end(pod, running)


def test_the_last_ejected_target_has_its_limit_too() -> None:
    pod = world()
    breaker_of(pod, SMALL).trip(pod.now, pod.rng, "ratio")
    running = pod.sent(chat(model=ECONOMY))
    assert pod.run(chat(model=ECONOMY)).code == "target_unavailable"
    end(pod, running)


def test_an_observed_retry_budget_limits_nothing() -> None:
    pod = World(policy(retry=replace(RETRY, mode="Observe", concurrency=ConcurrencySpec(maximum=1))))
    running = [pod.sent(chat()) for _ in range(3)]
    assert {exchange.decision.model for exchange in running} == {MEDIUM}
    end(pod, *running)


def test_a_place_that_is_taken_while_a_call_waits_for_rights_is_another_ones() -> None:
    pod = world()
    waiting = pod.exchange(chat(model=ECONOMY))
    waiting.begin(pod.now, UNIX)
    running = pod.sent(chat(model=ECONOMY))
    assert not isinstance(waiting.acquired((), pod.now, UNIX), Attempt)
    assert waiting.refusal is not None and waiting.refusal.code == "target_unavailable"
    waiting.close(pod.now)
    end(pod, running)
