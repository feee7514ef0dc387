"""Headers both ways: hints, what passes upstream, what comes back."""

from __future__ import annotations

import unicodedata

import pytest

from spendmesh_sidecar.core.operations import RequestError, headers
from spendmesh_sidecar.core.operations.headers import (
    MAX_REMEMBERED_CHARACTERS,
    MAX_REMEMBERED_NAMES,
    ClientHeaders,
    credentials,
    read_client_retry,
    read_hints,
    read_scopes,
    response_headers,
    upstream_headers,
)
from spendmesh_sidecar.core.types import Hints


def test_hints_are_read_by_their_exact_names() -> None:
    headers = [
        ("X-Spendmesh-Task", "extract"),
        ("x-spendmesh-user", " ana "),
        ("x-spendmesh-user-plan", "enterprise"),
        ("x-spendmesh-urgency", "high"),
        ("x-spendmesh-feature", "search"),
        ("x-spendmesh-session", "s-1"),
        ("x-spendmesh-unknown", "x"),
    ]
    assert read_hints(ClientHeaders.of(headers)) == Hints("extract", "ana", "enterprise", "high", "search", "s-1")


def test_row_28_a_repeated_hint_is_refused() -> None:
    """Row 28: two values of one hint would let a caller choose whose budget is believed."""
    with pytest.raises(RequestError) as caught:
        read_hints(ClientHeaders.of([("x-spendmesh-user", "a"), ("X-SPENDMESH-USER", "a")]))
    assert (caught.value.code, caught.value.status, caught.value.param) == ("request_invalid", 400, "x-spendmesh-user")


@pytest.mark.parametrize("name", ["x_spendmesh_user", "x-spendmesh_user", "x-spendmesh-user_plan", "spendmesh-user"])
def test_row_28_underscore_variants_are_other_headers(name: str) -> None:
    """Row 28: a variant neither counts as a hint nor reaches a provider or, forged by one, the client."""
    assert read_hints(ClientHeaders.of([(name, "spoof")])) == Hints()
    assert all(kept != name for kept in upstream_headers("OpenAI", ClientHeaders.of([(name, "spoof")])))


def test_row_28_hints_are_nfc_and_limited() -> None:
    """Row 28: one user is one account however it is typed; a long or unprintable value is refused."""
    composed = "Zoë"
    assert read_hints(ClientHeaders.of([("x-spendmesh-user", unicodedata.normalize("NFD", composed))])).user == composed
    assert len(read_hints(ClientHeaders.of([("x-spendmesh-user", "u" * 128)])).user) == 128
    for value in ("u" * 129, "a\x00b", "a\x7f", "\udcff"):
        with pytest.raises(RequestError, match="x-spendmesh-user"):
            read_hints(ClientHeaders.of([("x-spendmesh-user", value)]))


def test_only_listed_request_headers_pass() -> None:
    """
    Rows 29 and 30 in part: credentials, organization, project, cookies, host, lengths, our own and unknown headers
    never go upstream.
    """
    passed = {
        "accept": "application/json",
        "user-agent": "OpenAI/Python 3.54.0",
        "x-stainless-retry-count": "1",
        "x-stainless-anything": "x",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
        "idempotency-key": "k",
    }
    dropped = {
        "authorization": "Bearer app",
        "x-api-key": "app",
        "api-key": "app",
        "cookie": "a=b",
        "host": "127.0.0.1:15400",
        "content-length": "3",
        "transfer-encoding": "chunked",
        "connection": "keep-alive, traceparent",
        "openai-organization": "org",
        "openai-project": "proj",
        "anthropic-workspace-id": "w",
        "x-spendmesh-user": "ana",
        "x-forwarded-for": "10.0.0.1",
        "baggage": "prompt=x",
        "accept-encoding": "gzip, br",
        "x-goog-api-key": "app",
    }
    kept = upstream_headers("OpenAI", ClientHeaders.of([*passed.items(), *dropped.items()]))
    assert kept == {**passed, "content-type": "application/json", "accept-encoding": "identity"}


def test_a_passed_header_is_sent_once() -> None:
    """The first of a repeated header passes: two would be read differently by different servers."""
    sent = ClientHeaders.of([("Content-Type", "text/plain"), ("traceparent", "a"), ("Traceparent", "b")])
    kept = list(upstream_headers("OpenAI", sent).items())
    assert kept == [("content-type", "application/json"), ("accept-encoding", "identity"), ("traceparent", "a")]


def test_more_names_than_are_remembered_are_read_all_the_same() -> None:
    """Strangers choose names: what is remembered of them has a bound, and what they mean does not depend on it."""
    for number in range(2 * MAX_REMEMBERED_NAMES):
        strange = ("x" * (number % 100) + str(number), "v")
        assert ClientHeaders.of([strange, ("Accept", "a"), ("X-Spendmesh-Task", "t")]) == ClientHeaders(
            {"accept": "a"}, (("x-spendmesh-task", "t"),)
        )
        assert response_headers([strange, ("Connection", "close, x-a"), ("X-A", "1")]) == [strange]
        for known in (headers._uses, headers._fates):
            assert len(known) <= MAX_REMEMBERED_NAMES and max(map(len, known)) <= MAX_REMEMBERED_CHARACTERS


def test_anthropic_headers_go_to_anthropic_only() -> None:
    headers = [("anthropic-version", "2023-06-01"), ("anthropic-beta", "a, b"), ("Anthropic-Beta", "c")]
    assert ClientHeaders.of(headers).betas == ("a", "b", "c")
    to_anthropic = upstream_headers("Anthropic", ClientHeaders.of(headers))
    assert (to_anthropic["anthropic-version"], to_anthropic["anthropic-beta"]) == ("2023-06-01", "a,b,c")
    assert not upstream_headers("OpenAI", ClientHeaders.of(headers)).keys() & {"anthropic-version", "anthropic-beta"}


def test_credentials_by_dialect() -> None:
    assert credentials("OpenAI", "k") == ("authorization", "Bearer k")
    assert credentials("Anthropic", "k") == ("x-api-key", "k")


@pytest.mark.parametrize(
    ("text", "count"), [("2", 2), ("0", 0), ("-1", 0), ("1.0", 0), ("9999", 0), ("²", 0), ("x", 0)]
)
def test_the_clients_retry_count_is_a_small_number_or_nothing(text: str, count: int) -> None:
    assert read_client_retry(ClientHeaders.of([("X-Stainless-Retry-Count", text)])) == count


def test_answers_lose_what_is_of_one_hop_and_what_looks_like_ours() -> None:
    """Row 28: a provider cannot say what a call cost or who was charged, in any spelling."""
    headers = [
        ("Content-Type", "application/json"),
        ("X-Request-Id", "req_1"),
        ("x-ratelimit-remaining-tokens", "5"),
        ("Connection", "close, X-Hop"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "3"),
        ("Alt-Svc", 'h3=":443"'),
        ("X-Spendmesh-Cost", "0.000000 USD"),
        ("x_spendmesh_tier", "premium"),
        ("X-Spendmesh_Budget-Remaining", "9"),
        ("x-should-retry", "true"),
    ]
    kept = [("Content-Type", "application/json"), ("X-Request-Id", "req_1"), ("x-ratelimit-remaining-tokens", "5")]
    assert response_headers(headers) == [*kept, ("x-should-retry", "true")]
    assert response_headers(headers, "false") == [*kept, ("x-should-retry", "false")]


# --- headers that limits are divided by ---------------------------------------------------------------------

TENANT = frozenset({"x-tenant"})


def test_scope_headers_are_read_in_nfc_and_only_those_that_are_named() -> None:
    """Anything else a client sends is not a scope."""
    composed = "caf\u00e9"
    headers = [("X-Tenant", " " + unicodedata.normalize("NFD", composed)), ("x-stranger", "a")]
    assert read_scopes(headers, TENANT) == (("x-tenant", composed),)
    assert read_scopes([], TENANT) == ()


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([("x-tenant", "a"), ("X-Tenant", "a")], "send it once"),
        ([("x-tenant", "a"), ("x_tenant", "b")], "without underscores"),
        ([("x_tenant", "b")], "without underscores"),
        ([("x-tenant", "a" * 129)], "more than 128 bytes"),
        ([("x-tenant", "\u00e9" * 65)], "more than 128 bytes"),
        ([("x-tenant", "a" * 10_240)], "more than 128 bytes"),
        ([("x-tenant", "a\x01b")], "control characters"),
        ([("x-tenant", "a\udcffb")], "not UTF-8"),
    ],
)
def test_a_scope_header_that_could_be_read_two_ways_is_refused_by_name(
    headers: list[tuple[str, str]], says: str
) -> None:
    """Whose money it is, is never guessed, and no name of an account is longer than it may be."""
    with pytest.raises(RequestError, match=says) as refused:
        read_scopes(headers, TENANT)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "request_invalid", "x-tenant")


def test_a_scope_of_exactly_the_largest_size_is_read() -> None:
    assert read_scopes([("x-tenant", "\u00e9" * 64)], TENANT) == (("x-tenant", "\u00e9" * 64),)


def test_scope_headers_stay_here() -> None:
    """They say whose budget it is; providers have no business with it."""
    assert "x-tenant" not in upstream_headers("OpenAI", ClientHeaders.of([("x-tenant", "acme")]))
