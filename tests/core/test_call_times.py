"""How long a call may take: the policy's limits by operation, and the client's own patience."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import MODELS, RETRY, World, chat, policy, success, throttled
from spendmesh_sidecar.core.call_times import call_times
from spendmesh_sidecar.core.operations.headers import ClientHeaders, read_client_wait
from spendmesh_sidecar.core.outcome import broken
from spendmesh_sidecar.core.specs import OperationTimeouts, RetrySpec, TimeoutSpec
from spendmesh_sidecar.core.types import Kind, Outcome, ParsedRequest

LIMITS = TimeoutSpec(request_ms=120_000, attempt_ms=60_000, first_byte_ms=30_000, stream_idle_ms=15_000)
SHORT = OperationTimeouts(operation="models", timeouts=TimeoutSpec(request_ms=10_000, attempt_ms=4_000))
SPEC = RetrySpec(name="team-a/default", timeouts=LIMITS, operations=(SHORT,))
STREAM, WHOLE = chat(stream=True), chat()
LATE = broken(Kind.TIMEOUT)


@pytest.mark.parametrize(
    ("request_", "after", "expected"),
    [
        (WHOLE, 0.0, (60.0, 0.0, 0.0)),
        (WHOLE, 100.0, (20.0, 0.0, 0.0)),
        (STREAM, 0.0, (120.0, 30.0, 15.0)),
        (STREAM, 100.0, (20.0, 0.0, 15.0)),
        (replace(WHOLE, operation=MODELS), 0.0, (4.0, 0.0, 0.0)),
        (replace(WHOLE, client_wait_seconds=50.0), 0.0, (49.0, 0.0, 0.0)),
        (replace(WHOLE, client_wait_seconds=600.0), 0.0, (60.0, 0.0, 0.0)),
        (replace(WHOLE, client_wait_seconds=2.0), 0.0, (1.8, 0.0, 0.0)),
        (replace(STREAM, client_wait_seconds=20.0), 0.0, (120.0, 19.0, 15.0)),
        (replace(STREAM, client_wait_seconds=20.0), 10.0, (110.0, 9.0, 15.0)),
    ],
)
def test_limits_of_a_try(request_: ParsedRequest, after: float, expected: tuple[float, float, float]) -> None:
    """End, first byte and silence. A stream that has begun may go on past the client's patience: it reads already."""
    times = call_times(SPEC, request_, 1_000.0, 600.0)
    assert times.attempt(1_000.0 + after) == pytest.approx(expected)


@pytest.mark.parametrize("stream", [False, True])
def test_without_limits_only_the_process_s_own_holds(stream: bool) -> None:
    times = call_times(RetrySpec(timeouts=TimeoutSpec(request_ms=600_000)), chat(stream=stream), 0.0, 300.0)
    assert (times.deadline, times.attempt(0.0)) == (300.0, (300.0, 0.0, 0.0))


def test_an_observed_policy_changes_no_time() -> None:
    """The client keeps its own retries under it, so its patience is its own business too."""
    patient = replace(WHOLE, client_wait_seconds=20.0)
    assert call_times(replace(SPEC, mode="Observe"), patient, 0.0, 600.0).attempt(0.0) == (600.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("600", 600.0), ("0.5", 0.5), ("600.0", 600.0), ("0", 0), ("-3", 0), ("nan", 0), ("inf", 0), ("1e9", 0), ("", 0)],
)
def test_the_clients_patience_is_a_time_or_nothing(text: str, seconds: float) -> None:
    assert read_client_wait(ClientHeaders.of([("X-Stainless-Read-Timeout", text)])) == seconds


def timed(**changes: object) -> World:
    return World(policy(retry=replace(RETRY, min_retry_count=20, **changes)))


def test_a_try_that_came_too_late_is_tried_again_as_a_504() -> None:
    world = timed(timeouts=LIMITS)
    assert world.run(chat(), [LATE, success()]).recovered
    assert not timed(timeouts=LIMITS, codes=(429, 503)).run(chat(), [LATE]).exchange.retries


def test_no_try_begins_and_no_wait_goes_on_past_the_deadline() -> None:
    """linkerd1 #2369 retried for five hours past it."""
    world = timed(timeouts=TimeoutSpec(request_ms=10_000), attempts=9, backoff_ms=3_000, jitter="None")
    began = world.now
    times: list[float] = []

    def failing(attempt: object) -> Outcome:
        times.append(world.now)
        return Outcome(Kind.TRANSIENT, 503, complete=True)

    run = world.run(chat(), failing)
    assert run.exchange.retry_denied == "deadline"
    assert all(at <= began + 10.0 for at in times) and world.now <= began + 10.0


def test_the_clients_patience_bounds_retries_too() -> None:
    """Else the client sends its call anew, while ours is tried again as well: two bills for one call."""
    world = timed(jitter="None", backoff_ms=5_000)
    run = world.run(chat(client_wait_seconds=5.0), [Outcome(Kind.TRANSIENT, 503, complete=True)])
    assert (run.waits, run.exchange.retry_denied) == ([], "deadline")


def test_a_call_whose_time_is_over_before_it_is_sent_says_so() -> None:
    """It waited for a pause, and its event loop was late: nothing is sent for a client that has stopped listening."""
    world = timed(attempts=0)
    world.run(chat(model="spendmesh/economy"), [throttled(5.0)])
    waiting = world.exchange(chat(model="spendmesh/economy", client_wait_seconds=20.0))
    waiting.begin(world.now, 0)
    world.now += 30.0
    waiting.resume(world.now, 0)
    assert waiting.refusal is not None
    assert (waiting.refusal.code, waiting.refusal.status) == ("attempt_timeout", 504)
    waiting.close(world.now)
