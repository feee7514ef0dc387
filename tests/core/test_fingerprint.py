"""Which calls are the same: what could change an answer, or who pays for it, tells calls apart, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from exchange_world import CHAT, MESSAGES
from spendmesh_sidecar.core.joins.fingerprint import Call, call_of
from spendmesh_sidecar.core.operations import parse_request
from spendmesh_sidecar.core.types import Operation

CHAT_BODY = b'{"model":"auto","messages":[{"role":"user","content":"hi"}]}'
MESSAGE_BODY = b'{"model":"auto","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'


def call(
    body: bytes = CHAT_BODY, operation: Operation = CHAT, alias: str = "", policy: str = "p", **headers: str
) -> Call:
    told = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    parsed = parse_request(operation, body, told, alias, frozenset({"x-team"}))
    return call_of(parsed, "id", policy)


@pytest.mark.parametrize(
    "other",
    [
        {"body": CHAT_BODY.replace(b"hi", b"ho")},
        {"body": CHAT_BODY + b" "},
        {"body": CHAT_BODY.replace(b'"model"', b'"stream":true,"model"')},
        {"body": MESSAGE_BODY, "operation": MESSAGES},
        {"alias": "openai"},
        {"policy": "q"},
        {"x_spendmesh_user": "ada"},
        {"x_spendmesh_session": "s1"},
        {"x_spendmesh_user_plan": "pro"},
        {"x_spendmesh_task": "extract"},
        {"x_team": "blue"},
        {"accept": "text/event-stream"},
        {"idempotency_key": "k"},
    ],
    ids=repr,
)
def test_what_an_answer_or_its_bill_depends_on_tells_calls_apart(other: dict[str, Any]) -> None:
    assert call(**other).fingerprint != call().fingerprint


@pytest.mark.parametrize("header", ["anthropic_version", "anthropic_beta"])
def test_the_version_of_the_api_tells_calls_apart(header: str) -> None:
    ask = {"body": MESSAGE_BODY, "operation": MESSAGES}
    assert call(**ask, **{header: "2099-01-01"}).fingerprint != call(**ask).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        {"x_stainless_retry_count": "2"},
        {"x_stainless_read_timeout": "3"},
        {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
        {"user_agent": "other"},
        {"authorization": "Bearer anything"},
    ],
    ids=repr,
)
def test_what_an_sdk_writes_anew_for_each_try_does_not(other: dict[str, str]) -> None:
    assert call(**other).fingerprint == call().fingerprint


def test_values_cannot_be_shifted_from_one_place_to_the_next() -> None:
    """A user who could write another one's session into its own name would get that one's answers."""
    shifted = [
        call(x_spendmesh_user="ab", x_spendmesh_session="c"),
        call(x_spendmesh_user="a", x_spendmesh_session="bc"),
        call(x_spendmesh_user="abc"),
        call(x_spendmesh_session="abc"),
    ]
    assert len({each.fingerprint for each in shifted}) == 4


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"body": CHAT_BODY + b" "}, True),
        ({"x_spendmesh_session": "s1"}, True),
        ({"x_spendmesh_user": "ada"}, False),
        ({"x_team": "blue"}, False),
        ({"policy": "q"}, False),
        ({"idempotency_key": "l"}, False),
        ({"body": MESSAGE_BODY, "operation": MESSAGES}, False),
    ],
    ids=repr,
)
def test_a_key_belongs_to_who_pays_and_to_one_policy(other: dict[str, Any], same: bool) -> None:
    """What it stands for may differ; then it is a mistake. Between two users it is two keys."""
    assert (call(**{"idempotency_key": "k", **other}).key == call(idempotency_key="k").key) is same


def test_no_key_is_none_and_bytes_that_are_no_text_are_one() -> None:
    assert call().key == call(idempotency_key="").key == b""
    assert call(idempotency_key="\udcff").key != call(idempotency_key="\udcfe").key
