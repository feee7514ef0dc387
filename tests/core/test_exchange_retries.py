"""Retry, failover and ejection of whole exchanges, driven without an event loop."""

from __future__ import annotations

import itertools
import math

import pytest
from msgspec.structs import replace

from exchange_world import CONNECT, RETRY, UNIX, Run, World, chat, failure, policy, success, throttled
from spendmesh_sidecar.core.outcome import answered, broken
from spendmesh_sidecar.core.specs import BreakerSpec, RetryCostSpec, RetrySpec, WeightSpec
from spendmesh_sidecar.core.types import Acquire, Attempt, Kind, Outcome, Respond


def retry(**changes: object) -> RetrySpec:
    return RetrySpec(**{**{field: getattr(RETRY, field) for field in RETRY.__struct_fields__}, **changes})


def test_a_success_needs_one_attempt_and_settles_what_was_used() -> None:
    world = World()
    run = world.run(chat(), [success(500, 50)])
    assert run.models == ["openai/medium-1"]
    assert run.respond is not None and run.respond.refusal is None
    [settled] = run.exchange.decision.settlements
    assert (settled.source, settled.cost_nanos) == ("exact", 500 * 2_000 + 50 * 8_000)
    assert world.used() == settled.cost_nanos and world.held == 0


def test_a_retryable_error_is_tried_again_on_the_same_target_after_a_wait() -> None:
    world = World()
    run = world.run(chat(), [failure(502), success()])
    assert run.models == ["openai/medium-1", "openai/medium-1"]
    assert len(run.waits) == 1 and 0 < run.waits[0] <= 0.5
    assert run.recovered and run.exchange.retries == 1
    assert run.headers["x-spendmesh-attempts"] == "2"


def test_the_last_retry_goes_to_the_next_target_without_a_wait() -> None:
    world = World()
    run = world.run(chat(), [failure(502), failure(502), success()])
    assert run.models == ["openai/medium-1", "openai/medium-1", "backup/medium-2"]
    assert len(run.waits) == 1
    assert run.exchange.decision.reason == "failover"
    assert run.headers["x-spendmesh-model"] == "backup/medium-2"


def test_no_connection_fails_over_at_once_and_costs_nothing() -> None:
    world = World()
    run = world.run(chat(), [CONNECT, success()])
    assert run.models == ["openai/medium-1", "backup/medium-2"] and run.waits == []
    assert [one.source for one in run.exchange.decision.settlements] == ["void", "exact"]


def test_after_the_last_attempt_the_providers_answer_goes_to_the_client() -> None:
    run = World().run(chat(), [failure(503), failure(503), failure(503)])
    assert run.respond is not None and run.respond.refusal is None and run.respond.should_retry == "false"
    assert run.exchange.retry_denied == "attempts" and len(run.waits) == 1


def test_each_attempt_reserves_and_settles_on_its_own() -> None:
    """Billing after a 5xx: an unknown outcome is charged at the worst case, each time."""
    world = World()
    run = world.run(chat(), [failure(500, kind=Kind.AMBIGUOUS), failure(502), success()])
    settled = run.exchange.decision.settlements
    assert [one.number for one in settled] == [1, 2, 3]
    assert len({one.reservation for one in settled}) == 3
    assert world.used() == sum(one.cost_nanos for one in settled) and world.held == 0
    for one in settled[:2]:
        assert one.source == "void" or one.cost_nanos == one.reserved_nanos


@pytest.mark.parametrize(
    "outcome",
    [
        failure(400, kind=Kind.NON_RETRYABLE),
        failure(401, kind=Kind.NON_RETRYABLE),
        failure(429, kind=Kind.NON_RETRYABLE),
        failure(501),
        Outcome(Kind.TRANSIENT, 502, committed=True),
        Outcome(Kind.CUT, 200, committed=True, output_bytes=10),
        Outcome(Kind.CUT),
        Outcome(Kind.TIMEOUT),
        Outcome(Kind.CLIENT_GONE, committed=True),
    ],
    ids=lambda outcome: f"{outcome.kind.value}-{outcome.status}-{outcome.committed}",
)
def test_what_a_retry_cannot_help_is_not_retried(outcome: Outcome) -> None:
    run = World().run(chat(), [outcome])
    assert len(run.attempts) == 1 and run.waits == [] and run.exchange.retries == 0


@pytest.mark.parametrize(
    ("outcome", "code", "status"),
    [
        (Outcome(Kind.TIMEOUT), "attempt_timeout", 504),
        (Outcome(Kind.CUT), "target_unavailable", 503),
        (Outcome(Kind.CUT, 200), "target_unavailable", 503),
    ],
)
def test_an_attempt_without_an_answer_becomes_ours(outcome: Outcome, code: str, status: int) -> None:
    run = World().run(chat(), [outcome])
    assert run.exchange.refusal is not None
    assert (run.code, run.exchange.refusal.status) == (code, status)
    assert "openai/medium-1" in run.message


def test_no_connection_anywhere_is_target_unavailable() -> None:
    run = World().run(chat(), [CONNECT, CONNECT, CONNECT])
    assert run.code == "target_unavailable" and run.exchange.retries == 2


def test_retry_after_is_a_minimum() -> None:
    run = World().run(chat(), [throttled(3.0), success()])
    assert run.models == ["openai/medium-1"] * 2
    assert 3.0 <= run.waits[0] <= 3.5


def test_a_retry_after_longer_than_we_wait_fails_over() -> None:
    run = World().run(chat(), [throttled(300.0), success()])
    assert run.models == ["openai/medium-1", "backup/medium-2"] and run.waits == []


def test_a_retry_after_longer_than_we_wait_goes_back_where_there_is_no_other_target() -> None:
    run = World().run(chat(model="spendmesh/economy"), [throttled(300.0)])
    assert len(run.attempts) == 1 and run.exchange.retry_denied == "retry_after"
    assert run.respond is not None and run.respond.refusal is None


@pytest.mark.parametrize("nonsense", [-5.0, math.nan, 0.0])
def test_a_nonsense_retry_after_counts_as_none(nonsense: float) -> None:
    run = World().run(chat(), [throttled(nonsense), success()])
    assert run.recovered and 0 <= run.waits[0] <= 0.5


def test_an_infinite_retry_after_is_not_waited_for() -> None:
    run = World().run(chat(model="spendmesh/economy"), [throttled(math.inf)])
    assert run.waits == [] and run.exchange.retry_denied == "retry_after"


def test_waits_grow_and_never_pass_max_backoff() -> None:
    many = retry(attempts=9, max_backoff_ms=2_000, min_retry_count=20, breaker=BreakerSpec(consecutive_5xx_errors=0))
    run = World(policy(retry=many)).run(chat(model="spendmesh/economy"), [failure(502)] * 9 + [success()])
    assert len(run.waits) == 9
    assert all(wait <= min(2.0, 0.5 * 2**number) for number, wait in enumerate(run.waits))
    assert max(run.waits) > 0.5


def test_the_deadline_is_checked_before_a_wait() -> None:
    run = World().run(chat(), [throttled(3.0)], deadline_seconds=2.0)
    assert run.waits == [] and run.exchange.retry_denied == "deadline"


def test_an_attempt_may_take_what_is_left_until_the_deadline() -> None:
    run = World().run(chat(), [throttled(3.0), success()], deadline_seconds=30.0)
    assert run.attempts[0].timeout_seconds == 30.0
    assert run.attempts[1].timeout_seconds == pytest.approx(30.0 - 0.5 - run.waits[0])


def test_an_empty_retry_budget_hands_the_answer_back() -> None:
    run = World(policy(retry=retry(min_retry_count=0))).run(chat(), [failure(502)])
    assert len(run.attempts) == 1 and run.exchange.retry_denied == "budget"
    assert run.respond is not None and run.respond.refusal is None


def test_retries_follow_successes_in_percent_by_weight() -> None:
    """Of 40 credits in hundredths, 10 % pay for four throttled retries, two after a server's error, or one timeout."""
    spec = retry(min_retry_count=0, budget_percent=10, attempts=1, breaker=BreakerSpec(consecutive_5xx_errors=0))
    late = replace(broken(Kind.TIMEOUT), status=None)
    for outcome, paid in ((throttled(), 4), (failure(502), 2), (late, 1)):
        world = World(policy(retry=spec))
        world.attempt_seconds = 0.0
        for _ in range(40):
            world.run(chat(), [success()])
        failing = [world.run(chat(), [outcome] * 2).exchange.retry_denied for _ in range(6)]
        assert failing == ["attempts"] * paid + ["budget"] * (6 - paid)


def test_failures_earn_no_retries_unless_the_policy_counts_every_call() -> None:
    """In a whole outage retries decay to the floor (deposit on success), or stay at percent (deposit on request)."""
    parts = {"min_retry_count": 0, "budget_percent": 100, "attempts": 1, "weights": WeightSpec(transient=1)}
    outage = World(policy(retry=retry(**parts)))
    assert outage.run(chat(), [failure(502)]).exchange.retry_denied == "budget"
    counted = World(policy(retry=retry(**parts, deposit_on="Request")))
    assert counted.run(chat(), [failure(502), success()]).recovered


@pytest.mark.parametrize("deposit_on", ["Success", "Request"])
def test_a_clients_own_retry_does_not_earn_retries(deposit_on: str) -> None:
    world = World(policy(retry=retry(min_retry_count=1, budget_percent=100, deposit_on=deposit_on)))
    world.run(chat(client_retry=1), [success()])
    assert world.retry_budgets.of(world.policy.retry).deposits == 0
    world.run(chat(), [success()])
    assert world.retry_budgets.of(world.policy.retry).deposits == 1


def test_retries_cost_no_more_than_their_bound_in_money() -> None:
    """The worst case is held when a retry is decided, and what it did cost stays: 9 of 10 cents cannot pay a second."""
    dear = RetryCostSpec(amount=3_000_000, currency="USD", interval_ms=60_000)
    world = World(policy(retry=retry(max_retry_cost=dear, min_retry_count=50)))
    first = world.run(chat(), [failure(502), success(500, 50)])  # at worst 2.8 million nano-USD, in the end 1.4
    second = world.run(chat(), [failure(502)])
    assert (first.recovered, second.exchange.retry_denied) == (True, "cost")
    world.now += 70.0
    assert world.run(chat(), [failure(502), success()]).recovered, "an interval later it is free again"


def test_a_bound_in_another_currency_pays_for_nothing() -> None:
    """What has no price there cannot be counted, so it is not tried again."""
    euros = RetryCostSpec(amount=10**12, currency="EUR")
    run = World(policy(retry=retry(max_retry_cost=euros))).run(chat(), [failure(502)])
    assert run.exchange.retry_denied == "cost"


def test_a_refunded_retry_gives_its_money_back() -> None:
    dear = RetryCostSpec(amount=3_000_000, currency="USD", interval_ms=60_000)
    world = World(policy(retry=retry(max_retry_cost=dear)))
    exchange = world.sent(chat())
    exchange.observe(failure(502), world.now, 0)
    assert world.run(chat(), [failure(502)]).exchange.retry_denied == "cost", "it is held while the retry waits"
    exchange.close(world.now)
    assert world.run(chat(), [failure(502), success()]).recovered


@pytest.mark.parametrize(("ambiguous", "tries"), [("Never", 1), ("Once", 2), ("AsRetryable", 4)])
def test_an_ambiguous_failure_is_tried_again_as_often_as_the_policy_says(ambiguous: str, tries: int) -> None:
    """A 500 may have been billed, and a poisoned request fails each time."""
    spec = retry(ambiguous=ambiguous, attempts=3, min_retry_count=20)
    run = World(policy(retry=spec)).run(chat(), [failure(500, kind=Kind.AMBIGUOUS)] * tries)
    assert len(run.attempts) == tries
    assert run.exchange.retry_denied == ("attempts" if ambiguous == "AsRetryable" else "ambiguous")


def test_the_one_retry_after_an_ambiguous_failure_goes_to_the_next_target() -> None:
    run = World().run(chat(), [failure(500, kind=Kind.AMBIGUOUS), success()])
    assert run.models == ["openai/medium-1", "backup/medium-2"]


@pytest.mark.parametrize(("like", "tries"), [(529, 2), (400, 1)])
def test_an_error_inside_a_200_is_retried_as_what_it_is_like(like: int, tries: int) -> None:
    """Row 20: nothing of it went to the client, so the class decides and not the head."""
    inside = Outcome(Kind.THROTTLED if like == 529 else Kind.NON_RETRYABLE, 200, like_status=like)
    assert len(World().run(chat(), [inside, success()][:tries]).attempts) == tries


def test_a_paid_retry_that_is_never_sent_is_refunded() -> None:
    world = World()
    exchange = world.sent(chat())
    exchange.observe(failure(502), world.now, 0)
    spent = world.retry_budgets.of(world.policy.retry).retries
    exchange.close(world.now)
    assert (spent, world.retry_budgets.of(world.policy.retry).retries) == (1, 0)


def test_a_lone_observe_retry_budget_retries_nothing_and_leaves_should_retry() -> None:
    world = World(policy(retry=retry(mode="Observe")))
    for _ in range(10):
        run = world.run(chat(), [failure(502)])
        assert run.respond is not None
        assert (len(run.attempts), run.respond.should_retry) == (1, "upstream")
        assert run.models == ["openai/medium-1"], "an observed breaker must not eject"


def eject(world: World, count: int = 5) -> list[Run]:
    """Fail the economy tier's only target until its breaker ejects it."""
    return [world.run(chat(model="spendmesh/economy"), [failure(500)]) for _ in range(count)]


DENY = BreakerSpec(on_all_ejected="Deny")


def no_retries() -> World:
    return World(policy(retry=retry(attempts=0, breaker=DENY)))


def test_consecutive_errors_eject_a_target() -> None:
    world = no_retries()
    eject(world)
    run = world.run(chat(model="spendmesh/economy"))
    assert run.code == "target_unavailable" and run.attempts == []
    assert run.exchange.refusal is not None and run.exchange.refusal.retry_after_seconds is not None
    assert 4.0 < run.exchange.refusal.retry_after_seconds <= 7.5
    assert [one.target for one in run.exchange.passed_over] == ["openai/small-1"]


def test_an_ejected_target_is_passed_over_for_the_next_priority() -> None:
    world = no_retries()
    for _ in range(5):
        world.run(chat(), [failure(500)])
    run = world.run(chat(), [success()])
    assert run.models == ["backup/medium-2"]
    assert run.exchange.decision.reason == "failover"


def test_successes_between_errors_keep_a_target() -> None:
    world = no_retries()
    eject(world, 4)
    world.run(chat(model="spendmesh/economy"), [success()])
    eject(world, 4)
    assert world.run(chat(model="spendmesh/economy"), [success()]).models == ["openai/small-1"]


@pytest.mark.parametrize("outcome", [throttled(), failure(400, kind=Kind.NON_RETRYABLE), Outcome(Kind.CLIENT_GONE)])
def test_what_says_nothing_about_the_target_does_not_eject_it(outcome: Outcome) -> None:
    world = no_retries()
    for _ in range(8):
        world.run(chat(model="spendmesh/economy"), [outcome])
    assert world.run(chat(model="spendmesh/economy"), [success()]).models == ["openai/small-1"]


def test_one_probe_brings_a_target_back() -> None:
    world = no_retries()
    eject(world)
    world.now += 8.0
    probe = world.sent(chat(model="spendmesh/economy"))
    assert world.run(chat(model="spendmesh/economy")).code == "target_unavailable", "only one probe at a time"
    probe.observe(success(), world.now, 0)
    probe.close(world.now)
    assert world.run(chat(model="spendmesh/economy"), [success()]).models == ["openai/small-1"]


def test_a_probe_whose_client_leaves_decides_nothing() -> None:
    world = no_retries()
    eject(world)
    world.now += 8.0
    world.run(chat(model="spendmesh/economy"), [Outcome(Kind.CLIENT_GONE)])
    assert world.breakers.of("openai/small-1", world.policy.retry.breaker).state(world.now) == "probing"
    assert world.run(chat(model="spendmesh/economy"), [success()]).models == ["openai/small-1"]


def test_a_probe_that_streams_for_minutes_ends_with_its_first_byte() -> None:
    world = no_retries()
    eject(world)
    world.now += 8.0
    slow = world.sent(chat(model="spendmesh/economy"))
    slow.started(world.now)
    assert world.run(chat(model="spendmesh/economy"), [success()]).models == ["openai/small-1"]
    slow.observe(success(), world.now + 100, 0)
    slow.close(world.now)


def test_a_retry_after_holds_also_by_way_of_another_target() -> None:
    world = World(policy(retry=retry(attempts=3, min_retry_count=20)))
    world.attempt_seconds = 0.0
    called: list[tuple[str, float]] = []

    def busy(attempt: Attempt) -> Outcome:
        called.append((attempt.provider.alias, world.now))
        return throttled(10.0)

    run = world.run(chat(), busy)
    assert len({alias for alias, _ in called}) == 2 and len(called) == 4
    for alias in ("openai", "backup"):
        times = [at for name, at in called if name == alias]
        assert all(later - earlier >= 10.0 for earlier, later in itertools.pairwise(times)), called
    assert run.exchange.retry_denied == "attempts"


def test_a_target_whose_retry_after_is_too_long_is_not_come_back_to() -> None:
    """The last word is the provider's: nobody waits longer than the policy says."""
    world = World(policy(retry=retry(attempts=3, min_retry_count=20)))
    run = world.run(chat(), [throttled(61.0), throttled(61.0)])
    assert run.models == ["openai/medium-1", "backup/medium-2"]
    assert run.exchange.retry_denied == "retry_after" and run.waits == []


def test_nobody_tries_again_for_a_client_that_has_left() -> None:
    """A second target would be called, and billed, for nobody."""
    world = World()
    exchange = world.sent(chat())
    left = world.held
    step = exchange.observe(failure(503), world.now, 0, client_gone=True)
    assert isinstance(step, Respond)
    exchange.close(world.now)
    assert (len(exchange.decision.settlements), world.held, world.used()) == (1, 0, left)


@pytest.mark.parametrize("status", [None, 200, 429, 500, 504])
def test_an_answer_that_stalls_to_the_deadline_is_a_timeout_whatever_its_head_said(status: int | None) -> None:
    run = no_retries().run(chat(), [broken(Kind.TIMEOUT, status=status)])
    assert run.exchange.refusal is not None
    assert (run.code, run.exchange.refusal.status) == ("attempt_timeout", 504)


def test_a_whole_504_of_the_provider_is_passed_on() -> None:
    run = no_retries().run(chat(), [answered("OpenAI", 504, [], b"{}", 0)])
    assert run.exchange.refusal is None


def test_a_target_that_reports_the_impossible_is_ejected_at_once() -> None:
    world = no_retries()
    run = world.run(chat(maximum=100, input_tokens=1_000), [success(500, 9_000)])
    [settled] = run.exchange.decision.settlements
    assert settled.overrun_nanos > 0
    assert world.run(chat(), [success()]).models == ["backup/medium-2"]


def test_a_target_that_is_ejected_while_a_call_waits_for_rights_is_passed_over() -> None:
    world = no_retries()
    world.attempt_seconds = 0.1
    waiting = world.exchange(chat())
    step = waiting.begin(world.now, UNIX)
    assert isinstance(step, Acquire)
    for _ in range(5):
        world.run(chat(), [failure(500)])
    world.now += 0.1
    step = waiting.acquired((), world.now, UNIX)
    assert isinstance(step, Attempt) and step.provider.alias == "backup"
    waiting.close(world.now)
