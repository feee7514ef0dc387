"""Well-formed requests: their bounds, and the few changes that a body may see."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from spendmesh_sidecar.core.operations import (
    RequestError,
    anthropic as anthropic_fields,
    openai as openai_fields,
    parse,
    parse_request,
    rewrite,
)
from spendmesh_sidecar.core.operations.reading import REQUEST_TOKENS
from spendmesh_sidecar.core.types import Bounds, ParsedRequest

CHAT = parse("POST", "/openai/v1/chat/completions").operation
EMBEDDINGS = parse("POST", "/openai/v1/embeddings").operation
MESSAGES = parse("POST", "/anthropic/v1/messages").operation
COUNT = parse("POST", "/anthropic/v1/messages/count_tokens").operation
MODELS = parse("GET", "/openai/v1/models").operation
USER = {"role": "user", "content": "hi"}


def chat(**fields: Any) -> ParsedRequest:
    return parse_request(CHAT, json.dumps({"model": "m", "messages": [USER], **fields}).encode(), [])


def messages(*headers: tuple[str, str], **fields: Any) -> ParsedRequest:
    body = {"model": "m", "max_tokens": 100, "messages": [USER], **fields}
    return parse_request(MESSAGES, json.dumps(body).encode(), headers)


# --- bounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field", "maximum", "choices"),
    [
        ({}, "max_completion_tokens", None, 1),
        ({"max_tokens": None, "n": None}, "max_completion_tokens", None, 1),
        ({"max_tokens": 7}, "max_tokens", 7, 1),
        ({"max_completion_tokens": 7, "n": 3}, "max_completion_tokens", 7, 3),
        ({"max_completion_tokens": 7, "max_tokens": None}, "max_completion_tokens", 7, 1),
    ],
)
def test_the_output_is_bounded_by_the_field_that_the_client_set(
    fields: dict[str, Any], field: str, maximum: int | None, choices: int
) -> None:
    bounds = chat(**fields).bounds
    assert (bounds.output_field, bounds.max_output_tokens, bounds.choices) == (field, maximum, choices)


@pytest.mark.parametrize(
    ("tier", "tiers"),
    [
        (None, ("standard", "flex", "priority")),
        ("auto", ("standard", "flex", "priority")),
        ("default", ("standard",)),
        ("flex", ("flex", "standard")),
        ("priority", ("priority", "standard")),
        ("fast", ("fast", "priority", "standard")),
    ],
)
def test_openai_service_tiers_by_value(tier: str | None, tiers: tuple[str, ...]) -> None:
    """`auto`, also unsaid, is the project's setting, which nobody here knows: the dearest is reserved."""
    assert chat(**({} if tier is None else {"service_tier": tier})).bounds.service_tiers == tiers


def test_anthropic_service_tiers_and_speed_by_value() -> None:
    assert messages().bounds.service_tiers == ("standard", "priority")
    assert messages(service_tier="auto").bounds.service_tiers == ("standard", "priority")
    assert messages(service_tier="standard_only").bounds.service_tiers == ("standard",)
    assert messages(speed="fast").bounds.service_tiers == ("fast", "standard", "priority")
    assert messages(speed="standard").unpriced_fields == ()


def test_cache_lifetimes_are_found_at_every_depth() -> None:
    """`cache_control` in system, tools, content, nested tool results and at the top, by its lifetime."""
    five, hour = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    text = {"type": "text", "text": "x"}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{**text, "cache_control": hour}]}
    cases: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({}, ()),
        ({"cache_control": None}, ()),
        ({"cache_control": five}, ("default",)),
        ({"cache_control": {"type": "ephemeral", "ttl": None}}, ("default",)),
        ({"cache_control": {"type": "ephemeral", "ttl": "5m"}}, ("default",)),
        ({"cache_control": hour}, ("long",)),
        ({"system": [{**text, "cache_control": hour}]}, ("long",)),
        ({"tools": [{"name": "f", "input_schema": {}, "cache_control": five}]}, ("default",)),
        ({"messages": [{"role": "user", "content": [result]}]}, ("long",)),
        (
            {"messages": [{"role": "user", "content": [result]}], "system": [{**text, "cache_control": five}]},
            ("default", "long"),
        ),
    ]
    for fields, expected in cases:
        request = messages(**fields)
        assert (request.bounds.cache_writes, request.unpriced_fields) == (expected, ())


def test_openai_models_may_write_their_cache_unasked() -> None:
    part = {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "12h"}}
    assert chat().bounds.cache_writes == ("default",)
    assert chat(prompt_cache_options={"mode": "explicit"}).bounds.cache_writes == ("default",)
    assert chat(messages=[{"role": "user", "content": [part]}]).bounds.cache_writes == ("default", "long")


def test_a_picture_is_bounded_for_itself_not_by_its_bytes() -> None:
    """Contract §4: a megabyte of base64 is one picture, and so is its address."""
    sizes = {}
    for name, url in {"data": "data:image/png;base64," + "A" * 10**6, "address": "https://example.com/a.png"}.items():
        picture = {"type": "image_url", "image_url": {"url": url, "detail": "high"}}
        request = chat(messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, picture]}])
        assert request.unpriced_fields == ()
        sizes[name] = request.bounds.input_tokens
    assert sizes["data"] == sizes["address"]
    assert openai_fields.IMAGE_TOKENS < sizes["data"] < openai_fields.IMAGE_TOKENS + 1_000
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 10**6}
    blocks = [{"type": "image", "source": source}, {"type": "image", "source": {"type": "url", "url": "https://e/x"}}]
    bound = messages(messages=[{"role": "user", "content": blocks}]).bounds.input_tokens
    assert 2 * anthropic_fields.IMAGE_TOKENS < bound < 2 * anthropic_fields.IMAGE_TOKENS + 1_000


def test_a_prediction_adds_output_for_each_choice() -> None:
    prediction = {"type": "content", "content": "x" * 1_000}
    bounds = chat(prediction=prediction, n=2, max_completion_tokens=10).bounds
    assert bounds.extra_output_tokens >= 2 * 1_000
    assert chat(prediction={"type": "content", "content": [{"type": "text", "text": "x"}]}).unpriced_fields == ()


def test_a_thinking_budget_above_the_maximum_is_reserved_too() -> None:
    thinking = {"type": "enabled", "budget_tokens": 5_000}
    assert messages(thinking=thinking).bounds.extra_output_tokens == 4_900
    assert messages(thinking=thinking, max_tokens=6_000).bounds.extra_output_tokens == 0
    assert messages(thinking={"type": "adaptive"}).bounds.extra_output_tokens == 0


def test_betas_that_cost_nothing_pass_and_a_wider_window_bounds_nothing() -> None:
    request = messages(("anthropic-beta", "prompt-caching-2024-07-31,context-1m-2025-08-07"))
    assert request.unpriced_fields == ()
    assert not request.bounds.context_bound
    assert messages().bounds.context_bound


def test_built_in_client_tools_have_a_schema_that_the_request_does_not_show() -> None:
    plain = messages(tools=[{"name": "f", "input_schema": {}}]).bounds.input_tokens
    built_in = messages(tools=[{"type": "computer_20250124", "name": "computer"}]).bounds.input_tokens
    assert built_in >= plain + 1_500


@pytest.mark.parametrize("value", ["text", ["a", "b {"], [1, 2, 3], [[1, 2], [3]]])
def test_embeddings_are_bounded_by_the_request(value: object) -> None:
    """Texts and token numbers in every shape; no context window, since a request may hold many inputs."""
    body = json.dumps({"model": "e", "input": value, "encoding_format": "base64", "dimensions": 8}).encode()
    request = parse_request(EMBEDDINGS, body, [])
    assert request.unpriced_fields == ()
    assert request.bounds == Bounds(input_tokens=len(body) + REQUEST_TOKENS, context_bound=False)
    assert request.bounds.output_field == ""


def test_free_operations_are_neither_bounded_nor_refused() -> None:
    counted = parse_request(COUNT, b'{"model":"m","messages":[],"tools":[{"type":"web_search_20250305"}]}', [])
    assert (counted.model, counted.unpriced_fields, counted.bounds.input_tokens) == ("m", (), 0)
    listed = parse_request(MODELS, b"", [("x-spendmesh-task", "t")], "alias")
    assert (listed.model, listed.fields, listed.provider, listed.hints.task) == ("", {}, "alias", "t")
    with pytest.raises(RequestError, match="takes no body"):
        parse_request(MODELS, b"{}", [])


def test_streams_know_whether_usage_was_asked() -> None:
    for fields, asked in [
        ({}, True),
        ({"stream": False}, True),
        ({"stream": True}, False),
        ({"stream": True, "stream_options": None}, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, False),
        ({"stream": True, "stream_options": {"include_usage": None}}, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
    ]:
        request = chat(**fields)
        assert (request.stream, request.usage_asked) == (bool(fields.get("stream")), asked)
    assert messages(stream=True).usage_asked


# --- rewriting --------------------------------------------------------------------------------------------


def test_an_untouched_body_is_the_same_object() -> None:
    """Also where odd spaces, escapes and number forms would not survive a reading and writing."""
    body = b' { "mod\\u0065l" : "m" , "messages" : [ ] , "temperature" : 1.0e0 , "n" : 2, "max_tokens":5 }\n'
    request = parse_request(CHAT, body, [])
    assert rewrite(request, "m", None, False) is body
    assert rewrite(request, "m", 5, True) is body  # the client's own maximum, and no stream


def test_only_what_is_named_changes_and_the_order_stays() -> None:
    body = (
        b'{"messages":[ {"role":"user","content":"\\u00e9 1.0"} ],"stream":true,"model":"auto","seed":1.50,"user":"u"}'
    )
    request = parse_request(CHAT, body, [])
    assert rewrite(request, "small-1", 16, True) == (
        b'{"messages":[ {"role":"user","content":"\\u00e9 1.0"} ],"stream":true,"model":"small-1","seed":1.50,'
        b'"user":"u","max_completion_tokens":16,"stream_options":{"include_usage":true}}'
    )


def test_the_maximum_goes_into_the_clients_own_field() -> None:
    request = chat(max_tokens=900)
    assert msgspec.json.decode(rewrite(request, "m", 100, False))["max_tokens"] == 100
    assert "max_completion_tokens" not in msgspec.json.decode(rewrite(request, "m", 100, False))
    assert msgspec.json.decode(rewrite(messages(), "m", 50, False))["max_tokens"] == 50


def test_stream_options_keep_their_other_members() -> None:
    request = chat(stream=True, stream_options={"include_obfuscation": False, "include_usage": False})
    changed = msgspec.json.decode(rewrite(request, "m", None, True))
    assert changed["stream_options"] == {"include_obfuscation": False, "include_usage": True}
    asked = chat(stream=True, stream_options={"include_usage": True})
    assert rewrite(asked, "m", None, True) is asked.body


def test_an_operation_without_output_takes_no_maximum() -> None:
    request = parse_request(EMBEDDINGS, b'{"model":"e","input":"x"}', [])
    with pytest.raises(ValueError, match="no output maximum"):
        rewrite(request, "e", 5, False)
