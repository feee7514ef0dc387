"""How attempts end and what they are billed: the tables of both dialects, and usage that cannot be true."""

from __future__ import annotations

import json
from typing import Any

import pytest

from spendmesh_sidecar.core.billing import CHARGES, ChargeRule
from spendmesh_sidecar.core.failures.error_classes import ERROR_CLASSES, INSIDE, TREATMENTS, error_class
from spendmesh_sidecar.core.outcome import actual, answered, broken, charge, estimate
from spendmesh_sidecar.core.specs import Dialect
from spendmesh_sidecar.core.types import Bounds, Kind, Outcome, Usage
from spendmesh_sidecar.core.usage.observation import Observation

NOW = 1_795_305_600
BOUNDS = Bounds(input_tokens=1_000, choices=2, output_field="max_tokens", cache_writes=("default",))
USED = Usage(input_tokens=10, output_tokens=20)


def openai_error(status: int, code: str | None = None, kind: str | None = None, **headers: str) -> Outcome:
    body = {"error": {"message": "m", "type": kind, "param": None, "code": code}}
    return answered("OpenAI", status, list(headers.items()), json.dumps(body).encode(), NOW)


def anthropic_error(status: int, kind: str, *headers: tuple[str, str], **members: Any) -> Outcome:
    body = {"type": "error", "error": {"type": kind, "message": "m", **members}, "request_id": "r"}
    return answered("Anthropic", status, headers, json.dumps(body).encode(), NOW)


def success(usage: Usage | None, *, complete: bool = True, output_bytes: int = 0) -> Outcome:
    return answered("OpenAI", 200, [], b"", NOW, Observation(usage, complete, output_bytes), committed=True)


# --- kinds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "kind", "code"),
    [
        (openai_error(400, "invalid_value", "invalid_request_error"), Kind.NON_RETRYABLE, "invalid_value"),
        (openai_error(401, "invalid_api_key"), Kind.NON_RETRYABLE, "invalid_api_key"),
        (openai_error(403), Kind.NON_RETRYABLE, ""),
        (openai_error(404, "model_not_found"), Kind.NON_RETRYABLE, "model_not_found"),
        (openai_error(408), Kind.TIMEOUT, ""),
        (openai_error(409), Kind.TRANSIENT, ""),
        (openai_error(413), Kind.NON_RETRYABLE, ""),
        (openai_error(422), Kind.NON_RETRYABLE, ""),
        (openai_error(429, "rate_limit_exceeded", "requests"), Kind.THROTTLED, "rate_limit_exceeded"),
        (openai_error(429, "rate_limit_exceeded", "tokens"), Kind.AMBIGUOUS, "rate_limit_exceeded"),
        (openai_error(402), Kind.UNPAID, ""),
        (openai_error(500, "content_filter"), Kind.NON_RETRYABLE, "content_filter"),
        (openai_error(429, "context_length_exceeded"), Kind.NON_RETRYABLE, "context_length_exceeded"),
        (openai_error(429, "slow_down"), Kind.THROTTLED, "slow_down"),
        (openai_error(429, None, "insufficient_quota"), Kind.UNPAID, "insufficient_quota"),
        (openai_error(429, "billing_hard_limit_reached", "x"), Kind.UNPAID, "billing_hard_limit_reached"),
        (openai_error(429, "credit_balance_exhausted"), Kind.UNPAID, "credit_balance_exhausted"),
        (openai_error(429, "new_code", "insufficient_quota"), Kind.UNPAID, "new_code"),
        (openai_error(429, "project_spend_limit_exceeded"), Kind.UNPAID, "project_spend_limit_exceeded"),
        (openai_error(500, None, "server_error"), Kind.AMBIGUOUS, "server_error"),
        (openai_error(502), Kind.TRANSIENT, ""),
        (openai_error(503, "server_is_overloaded"), Kind.TRANSIENT, "server_is_overloaded"),
        (openai_error(503, **{"Retry-After": "2"}), Kind.THROTTLED, ""),
        (openai_error(504), Kind.TIMEOUT, ""),
        (openai_error(307), Kind.NON_RETRYABLE, ""),
        (anthropic_error(400, "invalid_request_error"), Kind.NON_RETRYABLE, "invalid_request_error"),
        (anthropic_error(402, "billing_error"), Kind.UNPAID, "billing_error"),
        (anthropic_error(413, "request_too_large"), Kind.NON_RETRYABLE, "request_too_large"),
        (anthropic_error(429, "rate_limit_error"), Kind.THROTTLED, "rate_limit_error"),
        (
            anthropic_error(429, "rate_limit_error", details={"error_code": "enforced_spend_limit_reached"}),
            Kind.UNPAID,
            "enforced_spend_limit_reached",
        ),
        (anthropic_error(500, "api_error"), Kind.AMBIGUOUS, "api_error"),
        (anthropic_error(529, "overloaded_error", ("retry-after", "3")), Kind.THROTTLED, "overloaded_error"),
    ],
)  # fmt: skip
def test_what_an_error_means(outcome: Outcome, kind: Kind, code: str) -> None:
    """Retry, wait, or give up: a spent quota is a 429 that no waiting mends."""
    assert (outcome.kind, outcome.error_code) == (kind, code)
    assert not outcome.complete


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"error":"rate limited"}', b'{"error":[1]}', b'{"error":{"code":5}}']
)
def test_an_error_without_a_readable_body_goes_by_its_status(body: bytes) -> None:
    outcome = answered("OpenAI", 429, [("Retry-After", "7")], body, NOW)
    assert (outcome.kind, outcome.retry_after_seconds) == (Kind.THROTTLED, 7.0)


def test_row_31_an_error_code_is_an_identifier_or_nothing() -> None:
    """Row 31 in part: error codes go to spans and metrics, so text in their place is dropped."""
    assert openai_error(400, "canary prompt 4711").error_code == ""


@pytest.mark.parametrize(
    ("dialect", "code", "kind", "like"),
    [
        ("Anthropic", "overloaded_error", Kind.THROTTLED, 529),
        ("Anthropic", "rate_limit_error", Kind.THROTTLED, 429),
        ("Anthropic", "timeout_error", Kind.TIMEOUT, 504),
        ("Anthropic", "api_error", Kind.AMBIGUOUS, 500),
        ("Anthropic", "invalid_request_error", Kind.NON_RETRYABLE, 400),
        ("Anthropic", "billing_error", Kind.UNPAID, None),
        ("OpenAI", "slow_down", Kind.THROTTLED, 503),
        ("OpenAI", "server_is_overloaded", Kind.TRANSIENT, 503),
        ("OpenAI", "insufficient_quota", Kind.UNPAID, None),
        ("OpenAI", "content_filter", Kind.NON_RETRYABLE, None),
        ("OpenAI", "something_new", Kind.AMBIGUOUS, 500),
    ],
)
def test_an_error_inside_a_200_has_the_class_of_its_code(
    dialect: Dialect, code: str, kind: Kind, like: int | None
) -> None:
    """Row 20: a good head does not make an error good; `codes` of a policy know it by its usual status."""
    outcome = answered(dialect, 200, [], b"", NOW, Observation(error_code=code))
    assert (outcome.kind, outcome.status, outcome.like_status) == (kind, 200, like)


def test_an_answer_without_an_error_is_a_success() -> None:
    assert answered("OpenAI", 200, [], b"", NOW, Observation(complete=True)).kind is Kind.SUCCESS


def test_an_answer_that_came_too_late_is_a_504_to_a_policy() -> None:
    assert broken(Kind.TIMEOUT, status=200).like_status == 504


def test_google_writes_its_errors_into_a_list_with_the_wait_inside() -> None:
    """The OpenAI endpoint of Gemini: no header says how long to wait."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "31.5s"}]
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "m", "details": details}
    outcome = answered("OpenAI", 429, [], json.dumps([{"error": error}]).encode(), NOW)
    assert outcome.kind is Kind.THROTTLED
    assert (outcome.error_code, outcome.retry_after_seconds) == ("RESOURCE_EXHAUSTED", 31.5)


@pytest.mark.parametrize("dialect", ["OpenAI", "Anthropic"])
def test_every_status_has_a_class_and_every_class_a_treatment_and_a_source(dialect: Dialect) -> None:
    for status in (*range(300, 600), INSIDE):
        row = error_class(dialect, status)
        assert row.source and row.kind in TREATMENTS
        assert row.kind is not Kind.SUCCESS
    assert TREATMENTS.keys() == set(Kind)


@pytest.mark.parametrize("row", range(len(ERROR_CLASSES)))
def test_no_row_of_the_table_is_in_the_shadow_of_another(row: int) -> None:
    """Each row speaks for some answer; the table holds nothing that could be left out."""
    one = ERROR_CLASSES[row]
    answers = (
        (dialect, status, (code,) if code else (), one.hinted)
        for dialect in ("OpenAI", "Anthropic")
        for status in one.statuses or {400, 429}
        for code in one.codes or {""}
    )
    assert any(error_class(*each) is one for each in answers)  # type: ignore[arg-type]


# --- charges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["OpenAI", "Anthropic"])
def test_which_failures_are_free(dialect: Dialect) -> None:
    """Contract §4: 401, 403, 404, 413, 429 and 529 before output cost nothing; 5xx and timeouts are not known to."""
    for status in (401, 403, 404, 413, 429, 529):
        assert charge(dialect, answered(dialect, status, [], b"", NOW)) == "void"
    for status in (408, 500, 502, 503, 504, 520):
        assert charge(dialect, answered(dialect, status, [], b"", NOW)) == "worst"
    assert charge(dialect, broken(Kind.CONNECT)) == "void"
    for kind in (Kind.CUT, Kind.TIMEOUT, Kind.CLIENT_GONE):
        assert charge(dialect, broken(kind)) == "worst"


def test_a_400_by_dialect() -> None:
    """Anthropic charges no failed request; behind OpenAI's wire Azure does where the model had read it."""
    assert charge("Anthropic", anthropic_error(400, "invalid_request_error")) == "void"
    assert charge("OpenAI", openai_error(400, "unsupported_parameter")) == "void"
    assert charge("OpenAI", openai_error(400, "content_filter")) == "input"
    assert charge("OpenAI", openai_error(400)) == "input"


def test_a_break_after_final_usage_is_exact_and_any_other_is_not() -> None:
    final = Observation(USED, complete=True, output_bytes=50)
    partial = Observation(USED, complete=False, output_bytes=50)
    for kind in (Kind.CUT, Kind.TIMEOUT, Kind.CLIENT_GONE):
        assert charge("Anthropic", broken(kind, final, 200, committed=True)) == "exact"
        assert charge("Anthropic", broken(kind, partial, 200, committed=True)) == "worst"
    assert charge("OpenAI", success(None)) == "worst"
    assert charge("OpenAI", success(USED, complete=False)) == "worst"


def test_an_error_after_output_is_not_free() -> None:
    seen = Observation(Usage(input_tokens=5, output_tokens=1), output_bytes=9, error_code="overloaded_error")
    assert charge("Anthropic", answered("Anthropic", 200, [], b"", NOW, seen, committed=True)) == "worst"


def test_the_table_can_be_overridden_and_every_row_has_a_source() -> None:
    rule = ChargeRule(charge="void", statuses=frozenset({500}), source="our contract with the provider")
    assert charge("OpenAI", openai_error(500), (rule, *CHARGES)) == "void"
    assert all(row.source for row in CHARGES)


# --- settling ---------------------------------------------------------------------------------------------


def test_what_each_charge_settles_at() -> None:
    void = actual("OpenAI", openai_error(429), BOUNDS, 100)
    assert (void.usage, void.source) == (Usage(), "void")
    worst = actual("OpenAI", broken(Kind.CUT), BOUNDS, 100)
    assert (worst.usage, worst.source) == (Usage(input_tokens=1_000, output_tokens=200), "worst")
    exact = actual("OpenAI", success(USED, output_bytes=80), BOUNDS, 100)
    assert (exact.usage, exact.source, exact.excess) == (USED, "exact", False)
    read = actual("OpenAI", openai_error(400, "content_filter"), BOUNDS, 100)
    assert (read.usage, read.source) == (Usage(cache_write_tokens=1_000), "estimated")


@pytest.mark.parametrize(
    ("usage", "output_bytes"),
    [
        (Usage(), 40),
        (Usage(output_tokens=9, reasoning_tokens=9, service_tier="flex"), 40),
        (Usage(input_tokens=10), 40),
        (Usage(input_tokens=10, output_tokens=1), 129),
        (Usage(input_tokens=10, output_tokens=1), 9_999),
    ],
)
def test_usage_below_what_the_text_proves_is_estimated_at_the_worst(usage: Usage, output_bytes: int) -> None:
    """
    Contract §4: zero usage with text, or a token for more bytes than any token has, is not believed. Nothing of such
    a report is: the output that nobody sees may be as large as the request allows.
    """
    found = actual("OpenAI", success(usage, output_bytes=output_bytes), BOUNDS, 100)
    assert found.usage == Usage(cache_write_tokens=1_000, output_tokens=200)
    assert (found.source, found.deficit, found.excess) == ("estimated", True, False)


def test_long_tokens_are_not_lies() -> None:
    """128 spaces are one token of o200k_base."""
    found = actual("OpenAI", success(Usage(input_tokens=1, output_tokens=1), output_bytes=128), BOUNDS, 100)
    assert found.source == "exact"


@pytest.mark.parametrize(
    ("usage", "excess"),
    [
        (Usage(input_tokens=1_000, output_tokens=200), False),
        (Usage(input_tokens=600, cache_read_tokens=401, output_tokens=1), True),
        (Usage(input_tokens=1, output_tokens=201), True),
    ],
)
def test_usage_above_the_physical_maximum_is_recorded_and_marked(usage: Usage, excess: bool) -> None:
    """Contract §4: it stays in the record as it was reported; what is done about it is the exchange's."""
    found = actual("OpenAI", success(usage, output_bytes=4), BOUNDS, 100)
    assert (found.usage, found.source, found.excess) == (usage, "exact", excess)


def test_estimates_are_for_calls_that_nothing_was_reserved_for() -> None:
    assert estimate(Outcome(Kind.CUT, output_bytes=41), BOUNDS) == Usage(input_tokens=250, output_tokens=11)
    partial = Usage(cache_read_tokens=7, output_tokens=30, service_tier="standard")
    assert estimate(Outcome(Kind.CUT, output_bytes=41, usage=partial), BOUNDS) == partial
