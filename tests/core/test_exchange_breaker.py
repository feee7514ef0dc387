"""What ejection means for whole calls: which target gets one, and what happens when every target is ejected."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import RETRY, UNIX, Run, World, chat, failure, policy, success, throttled
from spendmesh_sidecar.core.failures.breaker import FORCED_RETRY_SECONDS, Breaker
from spendmesh_sidecar.core.specs import BreakerSpec
from spendmesh_sidecar.core.types import Acquire, Attempt

ECONOMY = "spendmesh/economy"
"""A tier with one target, openai/small-1; the standard tier has two."""


def world(attempts: int = 0, **breaker: object) -> World:
    """No retries unless said, so that each call shows one choice."""
    spec = replace(RETRY, attempts=attempts, breaker=BreakerSpec(**breaker))  # type: ignore[arg-type]
    return World(policy(retry=spec))


def small(pod: World) -> Breaker:
    return breaker(pod, "openai/small-1")


def breaker(pod: World, key: str) -> Breaker:
    return pod.breakers.of(key, pod.policy.retry.breaker)


def fail(pod: World, count: int = 5, model: str = ECONOMY) -> list[Run]:
    return [pod.run(chat(model=model), lambda _: failure(500)) for _ in range(count)]


def test_a_tiers_last_target_is_called_although_it_is_ejected() -> None:
    pod = world()
    fail(pod)
    assert small(pod).state(pod.now) == "ejected"
    assert pod.run(chat(model=ECONOMY), [success()]).models == ["openai/small-1"]
    assert small(pod).bypasses == 1


def test_the_way_back_of_a_target_that_is_called_all_the_time_is_still_one_probe() -> None:
    """Calls beside an ejection decide nothing: only the call that asks after its time is a probe."""
    pod = world()
    fail(pod)
    for _ in range(5):
        pod.run(chat(model=ECONOMY), [success()])
    assert small(pod).state(pod.now) == "ejected"
    pod.now += 8.0
    pod.run(chat(model=ECONOMY), [success()])
    assert (small(pod).state(pod.now), small(pod).probes) == ("serving", 1)


@pytest.mark.parametrize(
    ("first", "second"), [("openai/medium-1", "backup/medium-2"), ("backup/medium-2", "openai/medium-1")]
)
def test_where_all_are_ejected_the_one_that_is_due_first_gets_the_call(first: str, second: str) -> None:
    pod = world(base_ejection_ms=60_000)
    breaker(pod, first).trip(pod.now, pod.rng, "ratio")
    pod.now += 40.0
    breaker(pod, second).trip(pod.now, pod.rng, "ratio")
    assert pod.run(chat(), [success()]).models == [first]


def test_a_retry_where_all_are_ejected_goes_to_the_other_one() -> None:
    pod = world(attempts=1)
    for key in ("openai/medium-1", "backup/medium-2"):
        breaker(pod, key).trip(pod.now, pod.rng, "ratio")
    run = pod.run(chat(), [failure(500), success()])
    assert sorted(run.models) == ["backup/medium-2", "openai/medium-1"] and run.recovered


def test_a_target_that_asked_for_a_pause_is_waited_for_and_not_left_for_an_ejected_one() -> None:
    """It lives, and says when it takes calls again."""
    pod = world()
    breaker(pod, "backup/medium-2").trip(pod.now, pod.rng, "ratio")
    pod.run(chat(), [throttled(3.0)])
    run = pod.run(chat(), [success()])
    assert run.models == ["openai/medium-1"] and 2.0 < run.waits[0] < 4.0
    assert breaker(pod, "backup/medium-2").bypasses == 0


def test_a_pause_is_kept_also_where_every_target_is_ejected() -> None:
    pod = world()
    pod.run(chat(model=ECONOMY), [throttled(3.0)])
    small(pod).trip(pod.now, pod.rng, "ratio")
    run = pod.run(chat(model=ECONOMY), [success()])
    assert run.models == ["openai/small-1"] and 2.0 < run.waits[0] < 4.0
    assert small(pod).bypasses == 1


def test_deny_answers_at_once_with_the_time_of_the_next_try() -> None:
    pod = world(on_all_ejected="Deny")
    fail(pod)
    refused = pod.run(chat(model=ECONOMY))
    assert (refused.code, refused.attempts, small(pod).bypasses) == ("target_unavailable", [], 0)
    assert refused.exchange.refusal is not None
    assert refused.exchange.refusal.retry_after_seconds == pytest.approx(small(pod).reopens_in(pod.now))


def test_a_target_that_lies_about_usage_is_not_called_even_as_the_last_one() -> None:
    """Its bill is not to be trusted: better no answer than that."""
    pod = world()
    pod.run(chat(model=ECONOMY), [success(500, 9_000)])
    assert pod.run(chat(model=ECONOMY)).code == "target_unavailable"
    assert small(pod).ejected_for == {"dishonest_usage": 1}


def test_observe_decides_and_counts_and_changes_nothing() -> None:
    pod, free = world(mode="Observe"), world(consecutive_5xx_errors=0)
    for each in (pod, free):
        assert {run.models[0] for run in fail(each, 8, model="auto")} == {"openai/medium-1"}
    assert breaker(pod, "openai/medium-1").ejected_for == {"consecutive": 1}
    assert breaker(pod, "openai/medium-1").bypasses == 3
    assert breaker(free, "openai/medium-1").ejected_for == {}
    pod.now += 8.0
    assert pod.run(chat(), [success()]).models == ["openai/medium-1"]
    assert breaker(pod, "openai/medium-1").state(pod.now) == "serving", "the call after the ejection was its probe"


def test_an_observed_retry_budget_observes_its_breaker() -> None:
    pod = World(policy(retry=replace(RETRY, mode="Observe")))
    assert {run.models[0] for run in fail(pod, 8, model="auto")} == {"openai/medium-1"}
    assert breaker(pod, "openai/medium-1").ejected_for == {"consecutive": 1}


def test_forced_open_stops_every_call_and_says_who_can_end_it() -> None:
    pod = world(mode="ForcedOpen", consecutive_5xx_errors=0)
    refused = pod.run(chat())
    assert (refused.code, refused.attempts, pod.held) == ("target_unavailable", [], 0)
    assert "RetryBudget team-a/default says circuitBreaker.mode ForcedOpen" in refused.message
    assert refused.exchange.refusal is not None
    assert refused.exchange.refusal.retry_after_seconds == FORCED_RETRY_SECONDS


def test_forced_open_that_is_only_observed_stops_nothing() -> None:
    spec = replace(RETRY, mode="Observe", breaker=BreakerSpec(mode="ForcedOpen"))
    assert World(policy(retry=spec)).run(chat(), [success()]).models == ["openai/medium-1"]


def test_throttling_ejects_by_its_share_alone_and_not_in_a_row() -> None:
    pod = world(min_requests=20)
    for number in range(1, 20):
        pod.run(chat(), [throttled()])
        assert breaker(pod, "openai/medium-1").state(pod.now) == "serving", number
    pod.run(chat(), [throttled()])
    assert breaker(pod, "openai/medium-1").ejected_for == {"ratio": 1}


@pytest.mark.parametrize(("streamed", "ejections"), [(True, {"ratio": 1}), (False, {})])
def test_only_a_streamed_answer_can_begin_too_late(streamed: bool, ejections: dict[str, int]) -> None:
    """Another answer's first byte comes when it is whole, and long answers are no fault."""
    pod = world(slow_first_byte_ms=2_000, min_requests=1)
    exchange = pod.sent(chat(stream=streamed))
    exchange.started(pod.now + 2.1)
    exchange.observe(success(), pod.now + 3, UNIX)
    exchange.close(pod.now + 3)
    assert breaker(pod, "openai/medium-1").ejected_for == ejections


def test_a_call_that_waits_for_rights_keeps_the_last_target() -> None:
    pod = world()
    waiting = pod.exchange(chat(model=ECONOMY))
    assert isinstance(waiting.begin(pod.now, UNIX), Acquire)
    small(pod).trip(pod.now, pod.rng, "ratio")
    pod.run(chat(model=ECONOMY), [success()])
    step = waiting.acquired((), pod.now, UNIX)
    assert isinstance(step, Attempt) and step.model == "small-1"
    waiting.close(pod.now)


def test_a_call_that_nobody_answers_says_so_also_where_its_last_target_is_ejected_meanwhile() -> None:
    pod = world()
    waiting = pod.exchange(chat(model=ECONOMY))
    step = waiting.begin(pod.now, UNIX)
    assert isinstance(step, Acquire)
    small(pod).trip(pod.now, pod.rng, "ratio")
    pod.now += step.wait_seconds
    waiting.acquired(None, pod.now, UNIX)
    assert waiting.refusal is not None and waiting.refusal.code == "budget_unverifiable"
    waiting.close(pod.now)
