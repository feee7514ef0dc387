"""The official OpenAI SDK gets through the sidecar what it gets from the provider itself."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from sidecar_beside import chat
from sidecar_world import World
from spendmesh_sidecar.limits import Limits

pytestmark = pytest.mark.anyio

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "warm": {"type": "boolean"}},
            "required": ["city", "warm"],
            "additionalProperties": False,
        },
    },
}
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "three choices": {"n": 3},
    "tool": {"tools": [TOOL], "tool_choice": "required"},
    "schema": {"response_format": SCHEMA},
    "json object": {"response_format": {"type": "json_object"}},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "cut by maximum": {"max_completion_tokens": 3},
    "old maximum": {"max_tokens": 300},
    "reasoning": {"model": "gpt-5-mini"},
    "dated model": {"model": "gpt-4o-mini-2024-07-18"},
    "free fields": {
        "temperature": 0.25,
        "top_p": 0.5,
        "seed": 7,
        "stop": ["never"],
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logit_bias": {"50256": -100},
        "parallel_tool_calls": True,
        "tools": [TOOL],
    },
}


def parsed(answer: Any) -> dict[str, Any]:
    """All that the SDK parsed, but for what the provider makes anew for each call."""
    found = answer.model_dump()
    for made_anew in ("id", "created"):
        found.pop(made_anew, None)
    for choice in found.get("choices") or ():
        for call in (choice.get("message") or choice.get("delta") or {}).get("tool_calls") or ():
            call.pop("id")
    return found


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_chat_completion_is_equal(shared_world: World, call: dict[str, Any]) -> None:
    asked = {**chat("weather in Rom [[out=9]]", "gpt-4o-mini"), **call}
    direct = await shared_world.direct_openai.chat.completions.create(**asked)
    through = await shared_world.openai.chat.completions.create(**asked)
    assert parsed(through) == parsed(direct)


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}], ids=["unasked", "usage"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_stream_is_equal_chunk_by_chunk(
    shared_world: World, call: dict[str, Any], options: dict[str, Any]
) -> None:
    asked = {**chat("weather in Rom [[out=9]]", "gpt-4o-mini"), **call, **options, "stream": True}
    direct = [parsed(chunk) async for chunk in await shared_world.direct_openai.chat.completions.create(**asked)]
    through = [parsed(chunk) async for chunk in await shared_world.openai.chat.completions.create(**asked)]
    assert through == direct
    assert len(through) > 3


@pytest.mark.parametrize("encoding", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
@pytest.mark.parametrize("text", ["one", ["one", "two"], [[1, 2, 3], [4]]], ids=["text", "texts", "tokens"])
async def test_embeddings_are_equal(shared_world: World, encoding: dict[str, Any], text: Any) -> None:
    asked = {"model": "text-embedding-3-small", "input": text, "dimensions": 8, **encoding}
    direct = await shared_world.direct_openai.embeddings.create(**asked)
    through = await shared_world.openai.embeddings.create(**asked)
    assert through.model_dump(warnings="none") == direct.model_dump(warnings="none")


async def test_models_are_listed_and_found_for_free(world: World) -> None:
    direct = [model.model_dump() async for model in world.direct_openai.models.list()]
    through = [model.model_dump() async for model in world.openai.models.list()]
    assert through == direct
    one = await world.openai.models.retrieve("gpt-4o")
    assert one.model_dump() == (await world.direct_openai.models.retrieve("gpt-4o")).model_dump()
    assert await world.settled() == world.invoice_nanos == 0


async def test_a_provider_s_error_is_the_same_error(world: World) -> None:
    asked = chat(model="gpt-4o", max_completion_tokens=99_999)
    with pytest.raises(openai.BadRequestError) as direct:
        await world.direct_openai.chat.completions.create(**asked)
    with pytest.raises(openai.BadRequestError) as through:
        await world.openai.chat.completions.create(**asked)
    assert through.value.body == direct.value.body
    assert through.value.response.headers["x-should-retry"] == "false"


async def test_a_body_too_long_to_be_held_arrives_whole_without_a_cost_header(empty_world: World) -> None:
    world = await empty_world.start(limits=Limits(held_answer_bytes=20_000))
    asked = {"model": "text-embedding-3-small", "input": ["x"] * 4, "encoding_format": "float"}
    direct = await world.direct_openai.embeddings.create(**asked)
    through = await world.openai.embeddings.with_raw_response.create(**asked)
    assert len(through.content) > 20_000
    assert through.parse() == direct
    assert "x-spendmesh-cost" not in through.headers
    assert await world.settled() == world.invoice_nanos / 2 > 0
