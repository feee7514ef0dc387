"""The official Anthropic SDK gets through the sidecar what it gets from the provider itself."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from sidecar_beside import message
from sidecar_world import World

pytestmark = pytest.mark.anyio

TOOL: Any = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tool": {"tools": [TOOL], "tool_choice": {"type": "any"}},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "stopped": {"stop_sequences": ["never"]},
    "cut by maximum": {"max_tokens": 3},
    "free fields": {
        "system": [{"type": "text", "text": "be short"}],
        "extra_body": {"temperature": 0.25, "top_k": 5},
        "metadata": {"user_id": "u"},
        "tools": [TOOL],
    },
}


def parsed(answer: Any) -> dict[str, Any]:
    """All that the SDK parsed, but for what the provider makes anew for each call."""
    found = answer.model_dump()
    found.pop("id", None)
    (found.get("message") or {}).pop("id", None)
    for block in (*(found.get("content") or ()), found.get("content_block") or {}):
        if block.get("type") == "tool_use":
            block.pop("id")
    return found


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_message_is_equal(shared_world: World, call: dict[str, Any]) -> None:
    asked = {**message("weather in Rom [[out=9]]", "claude-haiku-4-5"), **call}
    direct = await shared_world.direct_anthropic.messages.create(**asked)
    through = await shared_world.anthropic.messages.create(**asked)
    assert parsed(through) == parsed(direct)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_stream_is_equal_event_by_event(shared_world: World, call: dict[str, Any]) -> None:
    asked = {**message("weather in Rom [[out=9]]", "claude-haiku-4-5"), **call, "stream": True}
    direct = [parsed(event) async for event in await shared_world.direct_anthropic.messages.create(**asked)]
    through = [parsed(event) async for event in await shared_world.anthropic.messages.create(**asked)]
    assert through == direct
    assert len(through) > 5


async def test_the_stream_helper_gathers_the_same_message(shared_world: World) -> None:
    asked = message("[[tool]]", "claude-haiku-4-5", tools=[TOOL])
    async with shared_world.direct_anthropic.messages.stream(**asked) as stream:
        direct = await stream.get_final_message()
    async with shared_world.anthropic.messages.stream(**asked) as stream:
        through = await stream.get_final_message()
    assert parsed(through) == parsed(direct)


async def test_tokens_are_counted_and_models_listed_for_free(world: World) -> None:
    asked = {key: value for key, value in message("count me", "claude-haiku-4-5").items() if key != "max_tokens"}
    counted = await world.anthropic.messages.count_tokens(**asked)
    assert counted == await world.direct_anthropic.messages.count_tokens(**asked)
    through = [model.model_dump() async for model in world.anthropic.models.list(limit=2)]
    assert through == [model.model_dump() async for model in world.direct_anthropic.models.list(limit=2)]
    one = await world.anthropic.models.retrieve("claude-haiku-4-5")
    assert one == await world.direct_anthropic.models.retrieve("claude-haiku-4-5")
    assert await world.settled() == world.invoice_nanos == 0


async def test_a_provider_s_error_is_the_same_error(world: World) -> None:
    asked = message(model="claude-haiku-4-5", max_tokens=99_999)
    with pytest.raises(anthropic.BadRequestError) as direct:
        await world.direct_anthropic.messages.create(**asked)
    with pytest.raises(anthropic.BadRequestError) as through:
        await world.anthropic.messages.create(**asked)
    assert through.value.body["error"] == direct.value.body["error"]
    assert through.value.response.headers["x-should-retry"] == "false"
