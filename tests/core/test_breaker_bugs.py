"""
One test for each bug that other breakers had on the way back from an ejection, or in telling failures apart.

The name before the dash is where it was found; docs/resilience.md has the same list.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import CONNECT, RETRY, UNIX, World, chat, failure, policy, success, throttled
from spendmesh_sidecar.core.failures.breaker import (
    PROBE_LEASE_SECONDS,
    Breaker,
    BreakerError,
    Permit,
    Verdict,
)
from spendmesh_sidecar.core.failures.breaker_states import Event
from spendmesh_sidecar.core.outcome import broken
from spendmesh_sidecar.core.specs import BreakerSpec
from spendmesh_sidecar.core.types import Kind, Outcome, Respond

SPEC = BreakerSpec(consecutive_5xx_errors=3, base_ejection_ms=5_000, max_ejection_ms=30_000)
DENY = replace(SPEC, on_all_ejected="Deny")
ECONOMY = "spendmesh/economy"
"""A tier with one target."""
SMALL = "openai/small-1"


class NoChance:
    """Ejections without jitter."""

    def random(self) -> float:
        return 0.0


NONE = NoChance()


def result(breaker: Breaker, verdict: Verdict, now: float) -> None:
    permit = breaker.permit(now)
    assert permit is not None
    breaker.settle(permit, verdict, now, NONE)


def ejected(spec: BreakerSpec = SPEC) -> Breaker:
    """Until 5.0."""
    breaker = Breaker(spec)
    breaker.trip(0.0, NONE, "ratio")
    return breaker


def probe(breaker: Breaker, now: float) -> Permit:
    permit = breaker.permit(now)
    assert permit is not None and permit.probe
    return permit


def pod(spec: BreakerSpec = DENY) -> World:
    """A pod whose economy target is due for a probe."""
    world = World(policy(retry=replace(RETRY, attempts=0, breaker=spec)))
    of(world).trip(world.now - spec.max_ejection_ms / 1000, NONE, "ratio")
    assert of(world).state(world.now) == "probing"
    return world


def of(world: World) -> Breaker:
    return world.breakers.of(SMALL, world.policy.retry.breaker)


# --- probes that were lost, or believed too much --------------------------------------------------------------


def test_resilience4j_544__an_ignored_result_of_the_last_probe_is_not_the_end_of_probing() -> None:
    breaker = ejected()
    breaker.settle(probe(breaker, 5.0), Verdict.NEUTRAL, 5.0, NONE)
    assert breaker.state(5.0) == "probing" and probe(breaker, 5.0)


def test_resilience4j_935__a_probe_that_takes_for_ever_is_given_up() -> None:
    breaker = ejected()
    lost = probe(breaker, 5.0)
    assert breaker.permit(5.0 + PROBE_LEASE_SECONDS - 0.1) is None
    second = probe(breaker, 5.0 + PROBE_LEASE_SECONDS)
    breaker.settle(lost, Verdict.FAILURE, 66.0, NONE)
    assert breaker.state(66.0) == "probing", "the lost probe's late result decides nothing"
    breaker.settle(second, Verdict.SUCCESS, 66.0, NONE)
    assert breaker.state(66.0) == "serving"


def test_omniroute_13836__a_probe_whose_driver_fails_is_settled() -> None:
    """A half-open breaker refused 49,607 calls in six days: its probe had ended in a way that settled nothing."""
    world = pod()
    exchange = world.sent(chat(model=ECONOMY))
    exchange.close(world.now)
    assert world.run(chat(model=ECONOMY), [success()]).models == [SMALL]
    assert of(world).state(world.now) == "serving"


def test_polly_1979__a_client_that_leaves_does_not_bring_a_target_back() -> None:
    world = pod()
    world.run(chat(model=ECONOMY), [Outcome(Kind.CLIENT_GONE)])
    assert of(world).state(world.now) == "probing"


def test_polly_216__slow_answers_from_before_the_ejection_do_not_decide_the_probe() -> None:
    breaker = Breaker(SPEC)
    slow, slower = breaker.permit(0.0), breaker.permit(0.0)
    assert slow is not None and slower is not None
    breaker.trip(0.0, NONE, "ratio")
    good = probe(breaker, 5.0)
    breaker.settle(slow, Verdict.SUCCESS, 5.0, NONE)
    assert breaker.state(5.0) == "probing"
    breaker.settle(slower, Verdict.FAILURE, 5.0, NONE)
    assert breaker.state(5.0) == "probing"
    breaker.settle(good, Verdict.SUCCESS, 5.0, NONE)
    assert breaker.state(5.0) == "serving"


def test_polly_217__an_answer_from_before_the_ejection_does_not_count_after_the_way_back() -> None:
    breaker = Breaker(SPEC)
    late = [breaker.permit(0.0) for _ in range(3)]
    breaker.trip(0.0, NONE, "ratio")
    breaker.settle(probe(breaker, 5.0), Verdict.SUCCESS, 5.0, NONE)
    for permit in late:
        assert permit is not None
        breaker.settle(permit, Verdict.FAILURE, 6.0, NONE)
    assert breaker.state(6.0) == "serving"


def test_resilience4j_674__no_transition_leads_from_probing_to_probing() -> None:
    breaker = ejected()
    probe(breaker, 5.0)
    before = breaker.generation
    with pytest.raises(BreakerError, match="due cannot happen to a target that is probing"):
        breaker._move(Event.DUE)
    assert (breaker.state(5.0), breaker.generation) == ("probing", before)


def test_aiobreaker__an_excluded_failure_is_no_success() -> None:
    """A 400 to a probe says that the caller erred, not that the target works."""
    world = pod()
    world.run(chat(model=ECONOMY), [failure(400, kind=Kind.NON_RETRYABLE)])
    assert of(world).state(world.now) == "probing"


def test_aiobreaker__half_open_lets_one_call_through_and_not_all() -> None:
    world = pod()
    first = world.sent(chat(model=ECONOMY))
    assert [world.run(chat(model=ECONOMY)).code for _ in range(5)] == ["target_unavailable"] * 5
    assert of(world).probes == 1
    first.close(world.now)


def test_purgatory__each_generation_has_one_probe_at_a_time() -> None:
    breaker, seen = ejected(), []
    for now in (5.0, 5.0, 20.0, 20.0):
        if permit := breaker.permit(now):
            seen.append((permit.generation, now))
            breaker.settle(permit, Verdict.FAILURE, now, NONE)
    assert [now for _, now in seen] == [5.0, 20.0] and len({generation for generation, _ in seen}) == 2


def test_backon_26__calls_beside_the_probe_decide_nothing() -> None:
    """Calls went on while half open, and their results moved the breaker."""
    world = pod(replace(SPEC, on_all_ejected="Serve"))
    first = world.sent(chat(model=ECONOMY))
    for outcome in (success(), failure(500), failure(500), failure(500)):
        world.run(chat(model=ECONOMY), [outcome])
    assert (of(world).state(world.now), of(world).probes, of(world).bypasses) == ("probing", 1, 4)
    first.observe(success(), world.now, UNIX)
    first.close(world.now)
    assert of(world).state(world.now) == "serving"


def test_linkerd_unified__a_throttled_probe_brings_nothing_back() -> None:
    """Every call would return to a target that has just said it has no room."""
    world = pod()
    world.run(chat(model=ECONOMY), [throttled()])
    assert of(world).state(world.now) == "ejected"


def test_a_streams_probe__ends_with_its_first_byte_and_its_break_still_counts() -> None:
    """A stream lasts for minutes: as long as the probe would last, and so would the ejection."""
    world = pod()
    stream = world.sent(chat(model=ECONOMY, stream=True))
    stream.started(world.now)
    assert of(world).state(world.now) == "serving"
    for _ in range(2):
        world.run(chat(model=ECONOMY), [failure(500)])
    assert isinstance(stream.observe(broken(Kind.CUT, status=200, committed=True), world.now, UNIX), Respond)
    stream.close(world.now)
    assert of(world).state(world.now) == "ejected", "third failure in a row"


# --- permits --------------------------------------------------------------------------------------------------


def test_tokens_returned_twice__a_permit_settles_once() -> None:
    """Whatever way a call ends, its end is told once: here by its answer, and again by the end of the exchange."""
    world = pod()
    exchange = world.sent(chat(model=ECONOMY))
    exchange.observe(success(), world.now, UNIX)
    exchange.close(world.now)
    exchange.close(world.now)
    assert of(world).state(world.now) == "serving"
    permit = of(world).permit(world.now)
    assert permit is not None
    of(world).settle(permit, Verdict.NEUTRAL, world.now, NONE)
    with pytest.raises(BreakerError):
        of(world).settle(permit, Verdict.NEUTRAL, world.now, NONE)


def test_pybreaker__calls_of_one_target_do_not_wait_for_each_other() -> None:
    """It held a lock while the call ran."""
    world = World()
    running = [world.sent(chat()) for _ in range(3)]
    assert all(exchange.decision.model == "openai/medium-1" for exchange in running)
    for exchange in running:
        exchange.close(world.now)


def test_litellm_rs_1281__our_own_refusals_are_no_failures_of_the_provider() -> None:
    world = pod(replace(DENY, consecutive_5xx_errors=1))
    for outcome in (Outcome(Kind.KEY_MISSING), Outcome(Kind.UNWRITTEN)):
        world.run(chat(model=ECONOMY), [outcome])
        assert of(world).state(world.now) == "probing"
    assert world.run(chat(model=ECONOMY, input_tokens=10**9)).code == "request_exceeds_budget"
    assert of(world).probes == 2, "a call that the budget refuses takes no leave"
    assert world.run(chat(model=ECONOMY), [success()]).models == [SMALL]


# --- when to eject --------------------------------------------------------------------------------------------


def test_linkerd_ewma__a_tight_burst_of_failures_is_not_averaged_away() -> None:
    breaker = Breaker(BreakerSpec(consecutive_5xx_errors=1_000, failure_interval_ms=10_000, min_requests=10))
    for _ in range(50):
        result(breaker, Verdict.SUCCESS, 0.0)
    for number in range(50):
        result(breaker, Verdict.FAILURE, 9.0 + number * 1e-6)
    assert breaker.ejected_for == {"ratio": 1}


def test_litellm_calendar_minute__failures_around_a_boundary_count_together() -> None:
    breaker = Breaker(BreakerSpec(consecutive_5xx_errors=1_000, failure_interval_ms=10_000, min_requests=6))
    for now in (57.0, 58.0, 59.0, 60.0, 61.0, 62.0):
        assert breaker.state(now) == "serving"
        result(breaker, Verdict.FAILURE, now)
    assert breaker.state(62.0) == "ejected"


def test_resilience4j_903__more_calls_may_be_required_than_any_buffer_holds() -> None:
    """The window was a buffer of fewer calls than the minimum, so that nothing ever ejected."""
    breaker = Breaker(BreakerSpec(consecutive_5xx_errors=10_000, min_requests=5_000))
    for _ in range(4_999):
        result(breaker, Verdict.FAILURE, 0.0)
    assert breaker.state(0.0) == "serving"
    result(breaker, Verdict.FAILURE, 0.0)
    assert breaker.state(0.0) == "ejected"


def test_litellm__a_target_that_cannot_be_reached_is_ejected() -> None:
    """Connection errors never cooled a deployment down."""
    world = World(policy(retry=replace(RETRY, attempts=0, breaker=SPEC)))
    for _ in range(3):
        world.run(chat(model=ECONOMY), [CONNECT])
    assert of(world).state(world.now) == "ejected"


def test_litellm__one_throttled_call_ejects_nothing() -> None:
    world = World(policy(retry=replace(RETRY, attempts=0, breaker=replace(SPEC, consecutive_5xx_errors=1))))
    world.run(chat(model=ECONOMY), [throttled(1.0)])
    assert of(world).state(world.now) == "serving"


# --- time -----------------------------------------------------------------------------------------------------


def test_aiobreaker_wall_clock__an_ejection_ends_by_the_monotonic_clock() -> None:
    """A clock that was set back an hour kept targets ejected for an hour."""
    world = World(policy(retry=replace(RETRY, attempts=0, breaker=DENY)))
    of(world).trip(world.now, NONE, "ratio")
    world.now += 5.0
    exchange = world.exchange(chat(model=ECONOMY))
    exchange.begin(world.now, UNIX - 3600)
    assert exchange.refusal is None
    exchange.close(world.now)


def test_linkerd_3aa8923__looking_at_an_ejected_target_does_nothing() -> None:
    """An ejected endpoint spun on a closed channel. Here nothing runs while a target is ejected: time is handed in."""
    breaker = ejected()
    before = (breaker.generation, breaker.probes, breaker.ejections)
    for number in range(100):
        assert breaker.permit(number * 0.05) is None and breaker.state(number * 0.05) == "ejected"
    assert (breaker.generation, breaker.probes, breaker.ejections) == before
