"""The rest of a RetryBudget: jitter, what the client gets where nothing is paid, its own retries, and mode Observe."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from exchange_world import RETRY, World, budget, chat, failure, limit, policy, success, throttled
from spendmesh_sidecar.core.failures.backoff import backoff
from spendmesh_sidecar.core.specs import RetryCostSpec, RetrySpec
from spendmesh_sidecar.core.types import Kind

NONE_LEFT = replace(RETRY, min_retry_count=0)


class Chance:
    """The same every time."""

    def __init__(self, drawn: float) -> None:
        self._drawn = drawn

    def random(self) -> float:
        return self._drawn


# --- pauses between tries ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("jitter", "drawn", "waits"),
    [
        ("Full", 0.0, [0.0, 0.0, 0.0, 0.0]),
        ("Full", 0.5, [0.5, 1.0, 2.0, 2.5]),
        ("Equal", 0.0, [0.5, 1.0, 2.0, 2.5]),
        ("Equal", 1.0, [1.0, 2.0, 4.0, 5.0]),
        ("None", 0.5, [1.0, 2.0, 4.0, 5.0]),
        ("Decorrelated", 0.0, [1.0, 1.0, 1.0, 1.0]),
        ("Decorrelated", 1.0, [1.0, 3.0, 5.0, 5.0]),
    ],
)
def test_how_pauses_grow(jitter: str, drawn: float, waits: list[float]) -> None:
    spec = RetrySpec(backoff_ms=1_000, max_backoff_ms=5_000, jitter=jitter)  # type: ignore[arg-type]
    last, found = 0.0, []
    for number in range(1, 5):
        last = backoff(spec, number, last, Chance(drawn), throttled=False)
        found.append(last)
    assert found == waits


@given(
    st.sampled_from(["Full", "Equal", "Decorrelated", "None"]),
    st.integers(1, 3_600_000),
    st.integers(1, 3_600_000),
    st.integers(1, 10_000),
    st.integers(),
)
def test_no_pause_is_negative_or_longer_than_the_longest(
    jitter: str, base: int, longest: int, number: int, seed: int
) -> None:
    spec = RetrySpec(backoff_ms=base, max_backoff_ms=longest, jitter=jitter)  # type: ignore[arg-type]
    rng, last = random.Random(seed), 0.0
    for tried in range(number, number + 5):
        last = backoff(spec, tried, last, rng, throttled=bool(seed % 2))
        assert 0 <= last <= longest / 1000


def test_a_provider_that_throttles_without_a_hint_is_left_alone_longer() -> None:
    spec = replace(RETRY, jitter="None", backoff_ms=10, throttled_backoff_ms=4_000, max_wait_ms=1)
    assert World(policy(retry=spec)).run(chat(), [throttled(), success()]).waits == [4.0]
    assert World(policy(retry=spec)).run(chat(), [failure(502), success()]).waits == [0.01]


# --- nothing is paid --------------------------------------------------------------------------------------


def test_an_unpaid_retry_passes_the_last_answer_through_and_says_why() -> None:
    run = World(policy(retry=NONE_LEFT)).run(chat(), [failure(502)])
    assert run.respond is not None and run.respond.refusal is None
    assert run.headers["x-spendmesh-retry-denied"] == "budget"


@pytest.mark.parametrize("spec", [NONE_LEFT, replace(RETRY, max_retry_cost=RetryCostSpec(amount=1, currency="USD"))])
def test_an_unpaid_retry_is_a_503_of_ours_where_the_policy_wants_that(spec: RetrySpec) -> None:
    """GEP-3388 wants a 503; it names the object, and says when to come back."""
    run = World(policy(retry=replace(spec, on_exhausted="ServiceUnavailable"))).run(chat(), [failure(502)])
    assert run.exchange.refusal is not None
    assert (run.code, run.exchange.refusal.status, run.exchange.refusal.retry_after_seconds) == (
        "target_unavailable",
        503,
        10.0,
    )
    assert "RetryBudget team-a/default" in run.message and "502" in run.message


def test_a_failure_that_nobody_would_retry_is_passed_through_either_way() -> None:
    spec = replace(NONE_LEFT, on_exhausted="ServiceUnavailable")
    run = World(policy(retry=spec)).run(chat(), [failure(400, kind=Kind.NON_RETRYABLE)])
    assert run.code == "" and "x-spendmesh-retry-denied" not in run.headers


# --- retries of clients -----------------------------------------------------------------------------------


def test_a_clients_retry_is_paid_for_like_one_of_ours() -> None:
    world = World(policy(retry=replace(RETRY, min_retry_count=1)))
    charged = world.run(chat(client_retry=1), [success()])
    refused = world.run(chat(client_retry=2))
    assert (charged.exchange.client_retry, charged.exchange.retries) == ("charged", 0)
    assert (refused.exchange.client_retry, refused.code, refused.attempts) == ("denied", "target_unavailable", [])
    assert "max_retries=0" in refused.message
    assert world.run(chat(), [success()]).code == "", "a first try is never blocked"


def test_a_clients_retry_weighs_as_one_after_a_timeout() -> None:
    """It obeys x-should-retry, so it comes only when an answer did not."""
    world = World(policy(retry=replace(RETRY, min_retry_count=0, budget_percent=100)))
    for _ in range(5):
        world.run(chat(), [success()])
    outcomes = [world.run(chat(client_retry=1), [success()]).exchange.client_retry for _ in range(2)]
    assert outcomes == ["charged", "denied"]


@pytest.mark.parametrize(
    "spec", [replace(NONE_LEFT, client_retries="Count"), replace(NONE_LEFT, mode="Observe")], ids=["count", "observe"]
)
def test_a_clients_retry_is_only_counted_where_the_policy_says_so(spec: RetrySpec) -> None:
    run = World(policy(retry=spec)).run(chat(client_retry=1), [success()])
    assert (run.exchange.client_retry, run.code) == ("counted", "")


def test_a_clients_retry_that_is_never_sent_is_refunded() -> None:
    world = World(policy(budgets=(budget(limit("monthly", 1)),)))
    assert world.run(chat(client_retry=1)).code == "request_exceeds_budget"
    assert world.retry_budgets.of(world.policy.retry).retries == 0


def test_a_marked_call_makes_no_more_attempts_than_one_call_may() -> None:
    """Upstream attempts ≤ 1 + attempts for one logical call is each request's law; a marked one pays for its first."""
    world = World(policy(retry=replace(RETRY, min_retry_count=3, budget_percent=0, attempts=2)))
    attempts = [len(world.run(chat(client_retry=number), [failure(503)] * 3).attempts) for number in range(3)]
    assert attempts == [3, 1, 0]


# --- mode Observe -----------------------------------------------------------------------------------------


def test_an_observed_retry_budget_says_what_it_would_have_done_and_changes_nothing() -> None:
    observed = replace(RETRY, name="team-a/next", mode="Observe", attempts=1, codes=(502,), min_retry_count=1)
    world = World(policy(observed_retry=observed))
    plain = World()
    outcomes = [failure(502), failure(502), failure(503)]
    runs = [each.run(chat(), list(outcomes)) for each in (world, plain)]
    assert runs[0].models == runs[1].models and runs[0].waits == runs[1].waits
    assert list(runs[0].exchange.observed_retries) == ["retry", "attempts", "never"]
    again = world.run(chat(), [failure(502), success()])
    assert list(again.exchange.observed_retries) == ["budget"]
    assert list(runs[1].exchange.observed_retries) == []


def test_an_observed_retry_budget_earns_and_spends_on_its_own() -> None:
    observed = replace(RETRY, name="team-a/next", mode="Observe", min_retry_count=0, budget_percent=100)
    world = World(policy(observed_retry=observed, retry=replace(RETRY, attempts=0)))
    for _ in range(2):
        world.run(chat(), [success()])
    judged = [list(world.run(chat(), [failure(502)]).exchange.observed_retries) for _ in range(2)]
    assert judged == [["retry"], ["budget"]]
    assert world.retry_budgets.of(world.policy.retry).retries == 0


def test_a_clients_own_retry_earns_an_observed_retry_budget_nothing() -> None:
    observed = replace(RETRY, name="team-a/next", mode="Observe", min_retry_count=0, budget_percent=100)
    world = World(policy(observed_retry=observed))
    for _ in range(3):
        world.run(chat(client_retry=1), [success()])
    assert world.retry_budgets.of(observed).deposits == 0


def test_a_lone_observed_retry_budget_is_evaluated_too() -> None:
    world = World(policy(retry=replace(RETRY, mode="Observe", min_retry_count=1, ambiguous="Never")))
    judged = [
        list(world.run(chat(), [outcome]).exchange.observed_retries)
        for outcome in (
            failure(502),
            failure(502),
            failure(500, kind=Kind.AMBIGUOUS),
            failure(400, kind=Kind.NON_RETRYABLE),
        )
    ]
    assert judged == [["retry"], ["budget"], ["ambiguous"], ["never"]]


def test_no_policy_at_all_is_nothing_to_observe() -> None:
    run = World(policy(retry=RetrySpec())).run(chat(), [failure(502), success()])
    assert list(run.exchange.observed_retries) == []
