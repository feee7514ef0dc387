"""Anthropic's messages and token counts as sent and read on the wire; the event stream has its own module."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

from spendmesh_standin import tokens as text
from spendmesh_standin.anthropic_stream import MessageShape, frames
from spendmesh_standin.errors import invalid
from spendmesh_standin.generation import Choice, Wanted, generate
from spendmesh_standin.prices import Tokens
from spendmesh_standin.prompt_cache import Breakpoint, CacheUse
from spendmesh_standin.reply import (
    Context,
    Reply,
    Reported,
    billed,
    fees_nanos,
    price_percent,
    reported,
    take_bool,
    take_int,
)

_FIELD_NAMES = (
    "cache_control container context_management diagnostics inference_geo max_tokens mcp_servers messages metadata "
    "model output_config service_tier speed stop_sequences stream system temperature thinking tool_choice tools "
    "top_k top_p user_profile_id workspace_id"
)
_FIELDS = frozenset(_FIELD_NAMES.split())
_PROMPT = ("tools", "system", "messages")
_MIN_THINKING = 1024  # Anthropic's own lower bound on budget_tokens
_DEFAULT_THINKING = 8  # what the model thinks when thinking is on and nobody asks for more
_LONG_CONTEXT_BETA = "context-1m"
_LONG_CONTEXT_TOKENS = 1_000_000

CacheReader = Callable[[Sequence[Breakpoint]], CacheUse]


def messages(body: Mapping[str, Any], context: Context, cache: CacheReader) -> Reply:
    """Answer one message request. Raises ApiError for what Anthropic would refuse."""
    prompt, directives, prompt_tokens = _read(body, context)
    limit = _output_limit(body, context, prompt_tokens)
    thinking = _thinking(body, limit)
    reasoning = directives.reasoning if directives.reasoning is not None else _DEFAULT_THINKING
    seed = text.seed_of(context.model.name, prompt)
    answer = generate(
        Wanted(
            seed,
            context.default_output_tokens if directives.output is None else directives.output,
            min(reasoning, thinking),
            limit,
            [stop for stop in body.get("stop_sequences") or () if isinstance(stop, str)],
            _tool(body, directives.tool),
            _schema(body.get("output_config")),
        )
    )[0]
    counts = _input_classes(body, prompt_tokens, directives.cached, cache)
    generated = replace(counts, output=len(answer.pieces), reasoning=len(answer.reasoning))
    consumed, outside = billed(generated, context.effects, limit - generated.completion)
    usage = reported(consumed, outside, context.effects, context.model, directives.input)
    rule = context.effects.get("tier_upgrade")
    tier = "standard" if rule is None else rule.tier
    shape = MessageShape(context, None if usage is None else usage_json(usage, tier, context))
    stream = take_bool(body, "stream")
    return Reply(
        operation="messages",
        tokens=consumed,
        tier=tier,
        body=None if stream else _message(shape, answer),
        frames=frames(shape, answer) if stream else None,
        thinking_streams=True,
        price_percent=price_percent(context.effects),
        fees_nanos=fees_nanos(context.effects),
    )


def count_tokens(body: Mapping[str, Any], context: Context) -> dict[str, Any]:
    """How many input tokens this request would have. Free."""
    return {"input_tokens": _read(body, context)[2]}


def usage_json(usage: Reported, tier: str, context: Context) -> dict[str, Any]:
    """The usage object of a message: input tokens exclude what the cache read or wrote."""
    counts = usage.tokens
    answer: dict[str, Any] = {
        "input_tokens": counts.input,
        "cache_creation_input_tokens": counts.cache_write_5m + counts.cache_write_1h,
        "cache_read_input_tokens": counts.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": counts.cache_write_5m,
            "ephemeral_1h_input_tokens": counts.cache_write_1h,
        },
        "output_tokens": usage.completion,
        "service_tier": tier,
        "inference_geo": "not_available",
    }
    if counts.reasoning:
        answer["output_tokens_details"] = {"thinking_tokens": counts.reasoning}
    if context.effects.has("tool_fee"):
        answer["server_tool_use"] = {"web_search_requests": 1, "web_fetch_requests": 0}
    return answer


def _read(body: Mapping[str, Any], context: Context) -> tuple[dict[str, Any], text.Directives, int]:
    unknown = sorted(set(body) - _FIELDS)
    if unknown:
        raise invalid(f"{unknown[0]}: Extra inputs are not permitted")
    if not isinstance(body.get("messages"), list):
        raise invalid(
            "messages: Field required" if "messages" not in body else "messages: Input should be a valid list"
        )
    if not body["messages"]:
        raise invalid("messages: at least one message is required")
    prompt = {name: body[name] for name in _PROMPT if body.get(name) is not None}
    directives = text.read_directives(text.user_texts(body["messages"]))
    return prompt, directives, text.count_prompt(prompt, directives, lying=context.effects.has("lying_usage"))


def _output_limit(body: Mapping[str, Any], context: Context, prompt_tokens: int) -> int:
    model = context.model
    asked = take_int(body, "max_tokens", 1)
    if asked is None:
        raise invalid("max_tokens: Field required")
    if asked > model.max_output_tokens:
        raise invalid(
            f"max_tokens: {asked} > {model.max_output_tokens}, which is the maximum allowed number of output tokens "
            f"for {model.name}"
        )
    window = model.context_tokens
    if model.long_context is not None and _LONG_CONTEXT_BETA in context.headers.get("anthropic-beta", ""):
        window = _LONG_CONTEXT_TOKENS
    if prompt_tokens > window:
        raise invalid(f"prompt is too long: {prompt_tokens} tokens > {window} maximum")
    return min(asked, window - prompt_tokens)


def _thinking(body: Mapping[str, Any], limit: int) -> int:
    """How many tokens of thinking the request allows."""
    config = body.get("thinking")
    if not isinstance(config, Mapping) or config.get("type") not in ("enabled", "adaptive"):
        return 0
    if config["type"] == "adaptive":
        return limit
    budget = take_int(config, "budget_tokens", _MIN_THINKING)
    if budget is None:
        raise invalid("thinking.enabled.budget_tokens: Field required")
    if budget >= body["max_tokens"]:
        raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`")
    return budget


def _tool(body: Mapping[str, Any], directive: str | None) -> tuple[str, Any] | None:
    """The client tool to use: where the request demands one, or the prompt's `[[tool]]` or `[[tool=name]]` asks."""
    offered = {
        tool["name"]: tool["input_schema"]
        for tool in body.get("tools") or ()
        if isinstance(tool, Mapping) and "name" in tool and "input_schema" in tool
    }
    choice = body.get("tool_choice")
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if not offered or kind == "none" or (directive is None and kind not in ("any", "tool")):
        return None
    named = choice.get("name") if isinstance(choice, Mapping) and kind == "tool" else None
    name = named or directive or next(iter(offered))
    if name not in offered:
        raise invalid(f"tool_choice: Tool {name!r} not found in provided tools")
    return name, offered[name]


def _schema(output_config: Any) -> Any:
    described = output_config.get("format") if isinstance(output_config, Mapping) else None
    return described.get("schema") if isinstance(described, Mapping) else None


def _input_classes(body: Mapping[str, Any], prompt_tokens: int, cached: int | None, cache: CacheReader) -> Tokens:
    """The prompt by price class. `[[cached=N]]` is a cache read of N tokens whatever the cache holds."""
    if cached is not None:
        if cached > prompt_tokens:
            raise invalid(f"directive [[cached={cached}]]: the prompt has only {prompt_tokens} tokens")
        return Tokens(input=prompt_tokens - cached, cache_read=cached)
    use = cache(list(_breakpoints(body, prompt_tokens)))
    rest = prompt_tokens - use.read - use.write_5m - use.write_1h
    return Tokens(rest, use.read, use.write_5m, use.write_1h)


def _breakpoints(body: Mapping[str, Any], prompt_tokens: int) -> Iterator[Breakpoint]:
    """Places marked with `cache_control`, in the order tools, system, messages; tokens are in proportion to bytes."""
    blocks = list(_blocks(body))
    total = sum(len(text.serialized(block)) for block in blocks)
    seen, digest = 0, sha256()
    for number, block in enumerate(blocks, start=1):
        bare = {key: value for key, value in block.items() if key != "cache_control"}
        seen += len(text.serialized(block))
        digest.update(text.serialized(bare))
        marks = [block.get("cache_control"), body.get("cache_control") if number == len(blocks) else None]
        mark = next((mark for mark in marks if isinstance(mark, Mapping)), None)
        if mark is not None:
            ttl = mark.get("ttl", "5m")
            if ttl not in ("5m", "1h"):
                raise invalid(f"cache_control.ephemeral.ttl: {ttl!r:.60} is neither '5m' nor '1h'")
            yield Breakpoint(digest.digest(), prompt_tokens * seen // total, "1h" if ttl == "1h" else "5m")


def _blocks(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    def as_blocks(content: Any) -> Iterator[Mapping[str, Any]]:
        if isinstance(content, str):
            yield {"type": "text", "text": content}
        for block in content if isinstance(content, list) else ():
            if isinstance(block, Mapping):
                yield block

    yield from as_blocks(body.get("tools"))
    yield from as_blocks(body.get("system"))
    for message in body["messages"]:
        if isinstance(message, Mapping):
            yield from as_blocks(message.get("content"))


def _message(shape: MessageShape, answer: Choice) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        signature = shape.signature(answer)
        content.append({"type": "thinking", "thinking": "".join(answer.reasoning), "signature": signature})
    if answer.tool is not None:
        arguments = json.loads(answer.text) if answer.finish == "tool" else {}
        content.append({"type": "tool_use", "id": shape.tool_id, "name": answer.tool.name, "input": arguments})
    elif answer.pieces:
        content.append({"type": "text", "text": answer.text})
    return {**shape.head(), "content": content, **shape.stop(answer), **shape.usage_field()}
