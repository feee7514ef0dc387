"""Every request of `requests/`: what has no price is named by its path, what is malformed is refused before that."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from spendmesh_sidecar.core.operations import RequestError, parse, parse_request
from spendmesh_sidecar.core.operations.fields import refused

CORPUS = {
    file.stem: json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "requests").glob("*.json"))
}
UNPRICED = {name: case for name, case in CORPUS.items() if "unpriced" in case}
MALFORMED = {name: case for name, case in CORPUS.items() if "param" in case}


def read(case: dict[str, Any]) -> tuple[str, ...]:
    body = case["text"].encode() if "text" in case else json.dumps(case["body"]).encode()
    headers = [(name, value) for name, value in case.get("headers", [])]
    return parse_request(parse("POST", case["path"]).operation, body, headers).unpriced_fields


@pytest.mark.parametrize("name", UNPRICED)
def test_what_has_no_price_is_named_by_its_path(name: str) -> None:
    """Web search, hosted tools, files, stored context, unknown members: at any depth, by the path of contract §2."""
    assert list(read(UNPRICED[name])) == UNPRICED[name]["unpriced"]


@pytest.mark.parametrize("name", UNPRICED)
def test_a_refusal_names_what_allowed_fields_would_accept(name: str) -> None:
    """The path without indexes and values, put into `allowedFields`, lets exactly this request pass."""
    for path in read(UNPRICED[name]):
        bare = re.sub(r"\[\d+\]", "[]", path.split("=")[0])
        assert refused([path], (bare,)) == ()
        assert refused([path], ("something_else", bare + "x", bare[:-1])) == (path,)


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_refused(name: str) -> None:
    """Row 23 of the reliability matrix: malformed JSON, duplicate keys, NaN, huge integers, BOM: 400 before reserve."""
    with pytest.raises(RequestError) as caught:
        read(MALFORMED[name])
    assert (caught.value.code, caught.value.status) == ("request_invalid", 400)
    assert caught.value.param == MALFORMED[name]["param"]
    assert caught.value.message


def test_row_23_a_repeated_name_among_very_many_is_found_in_time() -> None:
    """Row 23: the event loop is everybody's, so that a malformed body may not cost more than reading it."""
    chat = parse("POST", "/openai/v1/chat/completions").operation
    names = b",".join(b'"k%d":1' % number for number in range(150_000))
    with pytest.raises(RequestError, match="k149999: is there twice"):
        parse_request(chat, b"{" + names + b',"k149999":2}', [])


def test_row_23_deep_nesting_and_other_encodings_are_refused() -> None:
    """Row 23: nesting beyond the limit, at any size, and bytes that are not UTF-8, never reach a provider."""
    chat = parse("POST", "/openai/v1/chat/completions").operation
    for depth in (127, 20_000):
        nested = b'{"model":"m","messages":[],"metadata":' + b"[" * depth + b"]" * depth + b"}"
        if depth < 128:
            assert parse_request(chat, nested, []).model == "m"
            continue
        with pytest.raises(RequestError, match="nested deeper than 128"):
            parse_request(chat, nested, [])
    with pytest.raises(RequestError, match="nested deeper than 128"):
        parse_request(chat, b'{"model":"m","messages":[],"metadata":' + b"[" * 128 + b"]" * 128 + b"}", [])
    wide = (
        b'{"model":"m","messages":[],"metadata":['
        + b",".join([b'"]["'] * 500)
        + b","
        + b",".join([b"{}"] * 500)
        + b"]}"
    )
    assert parse_request(chat, wide, []).model == "m"
    with pytest.raises(RequestError, match="not UTF-8"):
        parse_request(chat, b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', [])
    with pytest.raises(RequestError, match="not UTF-8"):
        parse_request(chat, '{"model":"m","messages":[]}'.encode("utf-16"), [])


def test_a_request_has_a_largest_number_of_items() -> None:
    """A body of nothing but empty messages would keep every other call of the pod waiting."""
    chat = parse("POST", "/openai/v1/chat/completions").operation
    with pytest.raises(RequestError, match="more than 100,000 items"):
        parse_request(chat, b'{"model":"m","messages":[' + b"{}," * 100_000 + b"{}]}", [])


def test_row_31_errors_hold_no_value_of_the_body() -> None:
    """Row 31: a canary in every place that can be wrong is in no message and in no path."""
    canary = "canary prompt 4711"
    chat = parse("POST", "/openai/v1/chat/completions").operation
    shapes: list[dict[str, Any]] = [
        {"model": "m", "messages": [{"role": "user", "content": [{"type": canary}]}]},
        {"model": "m", "messages": [], canary: canary},
        {"model": "m", "messages": [{canary: 1}]},
        {"model": "m", "messages": canary},
        {"model": [canary], "messages": []},
        {"model": "m", "messages": [], "n": canary},
        {"model": "m", "messages": [], "service_tier": canary},
    ]
    for shape in shapes:
        try:
            said = " ".join(parse_request(chat, json.dumps(shape).encode(), []).unpriced_fields)
        except RequestError as error:
            said = f"{error} {error.message} {error.param}"
        assert said
        assert canary not in said
    twice = f'{{"model":"m","messages":[],"{canary}":1,"{canary}":2}}'.encode()
    with pytest.raises(RequestError) as caught:
        parse_request(chat, twice, [])
    assert canary not in caught.value.message + caught.value.param


def test_row_29_no_field_of_a_body_moves_the_upstream() -> None:
    """Row 29 in part: addresses in a body are unknown fields, and the upstream path never has a client's byte."""
    fields = read(UNPRICED["openai-base-url-in-body"])
    assert fields == ("api_base", "base_url")
    assert parse("POST", "/openai/v1/chat/completions").operation.upstream_path == "/chat/completions"
