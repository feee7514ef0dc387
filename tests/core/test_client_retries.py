"""Which calls look like retries that a client makes on its own, and for how long that is told."""

from __future__ import annotations

import json

import pytest

from spendmesh_sidecar.core.failures.client_retries import MAX_FAILED, REPEAT_SECONDS, STANDING_SECONDS, ClientRetries
from spendmesh_sidecar.core.operations.parse import parse_request
from spendmesh_sidecar.core.operations.routes import parse as parse_route
from spendmesh_sidecar.core.types import ParsedRequest


def call(text: str = "hello", path: str = "/openai/v1/chat/completions") -> ParsedRequest:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 9}).encode()
    route = parse_route("POST", path)
    return parse_request(route.operation, body, (("anthropic-version", "2023-06-01"),), route.alias)


@pytest.mark.parametrize(
    ("again", "began", "repeat"),
    [
        (call(), 10.0, True),
        (call(), 10.0 + REPEAT_SECONDS, True),
        (call(), 10.1 + REPEAT_SECONDS, False),
        (call(), 9.9, False),
        (call("another"), 10.5, False),
        (call(path="/anthropic/v1/messages"), 10.5, False),
        (call(path="/providers/other/chat/completions"), 10.5, False),
    ],
    ids=["at once", "just in time", "too late", "began before the failure", "text", "operation", "provider"],
)
def test_an_equal_call_soon_after_its_failure_is_a_repeat(again: ParsedRequest, began: float, repeat: bool) -> None:
    retries = ClientRetries()
    retries.fail(call(), 10.0)
    assert retries.repeats(again, began) is repeat


def test_what_is_old_is_forgotten_so_that_calls_cost_nothing_again() -> None:
    retries = ClientRetries()
    retries.fail(call(), 0.0)
    retries.fail(call("newer"), 10.0)
    assert not retries.repeats(call(), REPEAT_SECONDS + 1.0)
    assert len(retries.failed) == 1
    assert not retries.repeats(call(), REPEAT_SECONDS + 11.0)
    assert not retries.failed


def test_a_call_that_fails_again_is_as_young_as_its_last_failure() -> None:
    retries = ClientRetries()
    for now in (0.0, 10.0):
        retries.fail(call(), now)
    assert retries.repeats(call(), 20.0)


def test_only_so_many_failures_are_remembered_the_last_ones() -> None:
    retries = ClientRetries()
    for number in range(MAX_FAILED + 1):
        retries.fail(call(str(number)), 1.0)
    assert len(retries.failed) == MAX_FAILED
    assert not retries.repeats(call("0"), 1.0)
    assert retries.repeats(call("1"), 1.0)


def test_a_client_that_retries_is_told_of_for_a_while() -> None:
    retries = ClientRetries()
    assert retries.standing(0.0) == ()
    retries.seen("unmarked", 0.0)
    retries.seen("marked", 1.0)
    assert retries.standing(STANDING_SECONDS) == ("marked", "unmarked")
    assert retries.standing(STANDING_SECONDS + 1.0) == ("marked",)
    assert retries.standing(STANDING_SECONDS + 1.1) == ()
