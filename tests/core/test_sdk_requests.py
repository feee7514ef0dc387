"""What the official SDKs really send has no unpriced field, and what they parse is what our changes leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from pydantic import BaseModel

from spendmesh_sidecar.core.operations import parse, parse_request, rewrite
from spendmesh_sidecar.core.types import ParsedRequest

Captured = list[ParsedRequest]
PICTURE = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"type": "function", "function": {"name": "w", "description": "d", "parameters": SCHEMA, "strict": True}}


class City(BaseModel):
    city: str


@contextmanager
def capture() -> Iterator[tuple[Captured, httpx2.Client]]:
    """A client whose requests are parsed instead of sent; every one of them is answered with 418."""
    captured: Captured = []

    def take(request: httpx2.Request) -> httpx2.Response:
        route = parse(request.method, request.url.raw_path.decode())
        headers = [(name.decode(), value.decode()) for name, value in request.headers.raw]
        captured.append(parse_request(route.operation, request.content, headers, route.alias))
        return httpx2.Response(418, json={"error": {"message": "captured"}})

    with httpx2.Client(transport=httpx2.MockTransport(take)) as client:
        yield captured, client


def openai_call(call: Callable[[openai.OpenAI], object], base: str = "/openai/v1") -> ParsedRequest:
    with capture() as (captured, http):
        client = openai.OpenAI(api_key="k", base_url=f"http://127.0.0.1:15400{base}", http_client=http, max_retries=0)
        with pytest.raises(openai.APIStatusError):
            call(client)
    return captured[0]


def anthropic_call(call: Callable[[anthropic.Anthropic], object], base: str = "/anthropic") -> ParsedRequest:
    with capture() as (captured, http):
        client = anthropic.Anthropic(
            api_key="k", base_url=f"http://127.0.0.1:15400{base}", http_client=http, max_retries=0
        )
        with pytest.raises(anthropic.APIStatusError):
            call(client)
    return captured[0]


OPENAI_CHATS: dict[str, dict[str, Any]] = {
    "plain": {"messages": [{"role": "user", "content": "hi"}]},
    "roles": {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
            {"role": "system", "content": "s", "name": "n"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": "hello", "refusal": None, "audio": None, "function_call": None},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "annotations": []},
            {
                "role": "assistant",
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "w", "arguments": "{}"}},
                    {"id": "d", "type": "custom", "custom": {"name": "x", "input": "y"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "rain"}]},
            {"role": "function", "name": "w", "content": "rain"},
        ]
    },
    "picture": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                ],
            }
        ]
    },
    "every free option": {
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "logit_bias": {"50256": -100},
        "logprobs": True,
        "top_logprobs": 2,
        "stop": ["\n"],
        "seed": 7,
        "user": "u",
        "metadata": {"k": "v"},
        "store": True,
        "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}},
        "tools": [FUNCTION, {"type": "custom", "custom": {"name": "x", "format": {"type": "text"}}}],
        "tool_choice": {"type": "function", "function": {"name": "w"}},
        "parallel_tool_calls": False,
        "reasoning_effort": "low",
        "verbosity": "low",
        "safety_identifier": "s",
        "prompt_cache_key": "p",
        "prompt_cache_retention": "24h",
        "modalities": ["text"],
        "n": 2,
        "max_completion_tokens": 64,
        "service_tier": "default",
    },
    "older options": {
        "messages": [{"role": "user", "content": "hi"}],
        "functions": [{"name": "w", "parameters": SCHEMA}],
        "function_call": "auto",
        "max_tokens": 5,
        "stop": "x",
        "tool_choice": "none",
    },
    "prediction": {
        "messages": [{"role": "user", "content": "hi"}],
        "prediction": {"type": "content", "content": [{"type": "text", "text": "old"}]},
    },
    "stream": {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
    },
}


@pytest.mark.parametrize("name", OPENAI_CHATS)
def test_openai_chat_calls_pass(name: str) -> None:
    request = openai_call(lambda client: client.chat.completions.create(model="gpt-4o", **OPENAI_CHATS[name]))
    assert (request.operation.name, request.model, request.unpriced_fields) == ("chat", "gpt-4o", ())
    assert request.bounds.input_tokens > 0


def test_openai_helpers_pass() -> None:
    """`parse` with a pydantic model, the streaming helper, and a client whose base URL names a provider."""
    said: Any = [{"role": "user", "content": "hi"}]
    parsed = openai_call(lambda client: client.chat.completions.parse(model="m", messages=said, response_format=City))

    def streamed(client: openai.OpenAI) -> None:
        with client.chat.completions.stream(model="m", messages=said):
            pytest.fail("the call was answered with 418")

    named = openai_call(lambda client: client.chat.completions.create(model="m", messages=said), "/providers/small-ai")
    assert parsed.unpriced_fields == openai_call(streamed).unpriced_fields == named.unpriced_fields == ()
    assert named.provider == "small-ai"


@pytest.mark.parametrize("value", ["text", ["a", "b"], [1, 2, 3], [[1, 2], [3]]])
def test_openai_embeddings_pass(value: Any) -> None:
    """The SDK asks for base64 by itself."""
    request = openai_call(
        lambda client: client.embeddings.create(model="text-embedding-3-small", input=value, dimensions=8, user="u")
    )
    assert (request.operation.name, request.unpriced_fields) == ("embeddings", ())
    assert b'"encoding_format":"base64"' in request.body


def test_model_lists_pass() -> None:
    assert openai_call(lambda client: client.models.list()).operation.name == "models"
    assert openai_call(lambda client: client.models.retrieve("gpt-4o")).operation.upstream_path == "/models/gpt-4o"
    assert anthropic_call(lambda client: client.models.list(limit=5)).operation.upstream_path == "/v1/models?limit=5"
    retrieved = anthropic_call(lambda client: client.models.retrieve("claude-haiku-4-5"))
    assert retrieved.operation.upstream_path == "/v1/models/claude-haiku-4-5"


ANTHROPIC_MESSAGES: dict[str, dict[str, Any]] = {
    "plain": {"messages": [{"role": "user", "content": "hi"}]},
    "blocks": {
        "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hi", "citations": None},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                    {
                        "type": "document",
                        "source": {"type": "text", "media_type": "text/plain", "data": "d"},
                        "citations": {"enabled": True},
                        "title": "t",
                    },
                    {
                        "type": "search_result",
                        "source": "s",
                        "title": "t",
                        "content": [{"type": "text", "text": "x"}],
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "…", "signature": "s"},
                    {"type": "redacted_thinking", "data": "d"},
                    {"type": "tool_use", "id": "t", "name": "w", "input": {"a": 1}, "caller": {"type": "direct"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t",
                        "is_error": False,
                        "content": [
                            {"type": "text", "text": "rain"},
                            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                        ],
                        "cache_control": {"type": "ephemeral"},
                    }
                ],
            },
        ],
    },
    "every free option": {
        "system": "s",
        "messages": [{"role": "user", "content": "hi"}],
        "metadata": {"user_id": "u"},
        "stop_sequences": ["x"],
        "extra_body": {"temperature": 0.5, "top_p": 0.9, "top_k": 5},  # no longer arguments of this SDK
        "thinking": {"type": "enabled", "budget_tokens": 1_024},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "tools": [
            {"name": "w", "description": "d", "input_schema": SCHEMA, "strict": True},
            {"type": "custom", "name": "v", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}},
            {"type": "bash_20250124", "name": "bash"},
            {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool", "max_characters": 100},
            {"type": "memory_20250818", "name": "memory"},
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "service_tier": "standard_only",
    },
    "stream": {"messages": [{"role": "user", "content": "hi"}], "stream": True},
}


@pytest.mark.parametrize("name", ANTHROPIC_MESSAGES)
def test_anthropic_calls_pass(name: str) -> None:
    fields = ANTHROPIC_MESSAGES[name]
    request = anthropic_call(
        lambda client: client.messages.create(model="claude-haiku-4-5", max_tokens=2_048, **fields)
    )
    assert (request.operation.name, request.model, request.unpriced_fields) == ("messages", "claude-haiku-4-5", ())
    assert request.bounds.max_output_tokens == 2_048


def test_anthropic_helpers_pass() -> None:
    """The streaming helper, the beta client with known betas, token counts, and a base URL that names a provider."""
    said: Any = [{"role": "user", "content": "hi"}]

    def streamed(client: anthropic.Anthropic) -> None:
        with client.messages.stream(model="m", max_tokens=5, messages=said):
            pytest.fail("the call was answered with 418")

    beta = anthropic_call(
        lambda client: client.beta.messages.create(
            model="m", max_tokens=5, messages=said, betas=["prompt-caching-2024-07-31"]
        )
    )
    count = anthropic_call(lambda client: client.messages.count_tokens(model="m", messages=said))
    named = anthropic_call(
        lambda client: client.messages.create(model="m", max_tokens=5, messages=said), "/providers/claude"
    )
    assert anthropic_call(streamed).stream
    assert beta.unpriced_fields == named.unpriced_fields == ()
    assert (beta.operation.name, count.operation.name, named.provider) == ("messages", "count_tokens", "claude")


def test_an_sdk_request_survives_every_change() -> None:
    """What was not to be changed is byte for byte what the SDK wrote."""
    request = openai_call(
        lambda client: client.chat.completions.create(model="m", **OPENAI_CHATS["roles"], stream=True)
    )
    changed = rewrite(request, "other", 9, True)
    reparsed = parse_request(request.operation, changed, [])
    assert bytes(reparsed.fields["messages"]) == bytes(request.fields["messages"])
    assert (reparsed.model, reparsed.bounds.max_output_tokens, reparsed.usage_asked) == ("other", 9, True)
