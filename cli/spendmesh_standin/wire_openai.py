"""OpenAI's chat completions as sent and read on the wire; embeddings, errors and streams have their own modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spendmesh_standin import tokens as text
from spendmesh_standin.errors import invalid
from spendmesh_standin.generation import Choice, Wanted, generate
from spendmesh_standin.openai_stream import FINISH, ChatShape, frames
from spendmesh_standin.prices import Tokens
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
    take_list,
)

_FIELD_NAMES = (
    "audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages "
    "metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key "
    "prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier "
    "stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity "
    "web_search_options"
)
_FIELDS = frozenset(_FIELD_NAMES.split())
_PROMPT = ("messages", "tools", "functions", "response_format")
_MAX_CHOICES = 128  # OpenAI's own bound on n
_DEFAULT_REASONING = 16  # what a reasoning model thinks when nobody asks for more


def chat(body: Mapping[str, Any], context: Context) -> Reply:
    """Answer one chat completion request. Raises ApiError for what OpenAI would refuse."""
    _check_fields(body)
    directives = text.read_directives(text.user_texts(take_list(body, "messages")))
    stream = take_bool(body, "stream")
    count = take_int(body, "n", 1, _MAX_CHOICES) or 1
    prompt = {name: body[name] for name in _PROMPT if body.get(name) is not None}
    prompt_tokens = text.count_prompt(prompt, directives, lying=context.effects.has("lying_usage"))
    limit = _output_limit(body, context, prompt_tokens)
    reasoning = directives.reasoning
    if reasoning is None:
        reasoning = _DEFAULT_REASONING if context.model.reasons else 0
    seed = text.seed_of(context.model.name, prompt)
    answers = generate(
        Wanted(
            seed,
            context.default_output_tokens if directives.output is None else directives.output,
            reasoning,
            limit,
            _stops(body.get("stop")),
            _tool(body, directives.tool),
            _schema(body.get("response_format")),
        ),
        count,
    )
    generated = _generated(answers, prompt_tokens, directives.cached or 0)
    generated = _add_rejected(generated, body.get("prediction"), directives.rejected, limit * count)
    room = limit * count - generated.completion
    consumed, outside = billed(generated, context.effects, room)
    usage = reported(consumed, outside, context.effects, context.model, directives.input)
    shape = ChatShape(
        context=context,
        tier=_tier(body, context),
        usage=None if usage is None else usage_json(usage),
        include_usage=_include_usage(body, stream),
        include_obfuscation=_stream_option(body, "include_obfuscation"),
        logprobs=(take_int(body, "top_logprobs", 0, 20) or 0) if take_bool(body, "logprobs") else None,
    )
    return Reply(
        operation="chat.completions",
        tokens=consumed,
        tier=shape.tier,
        body=None if stream else _completion(shape, answers),
        frames=frames(shape, answers) if stream else None,
        price_percent=price_percent(context.effects),
        fees_nanos=fees_nanos(context.effects),
    )


def usage_json(usage: Reported) -> dict[str, Any]:
    """The usage object of a chat completion: prompt tokens include cached ones."""
    counts = usage.tokens
    prompt_details = {"cached_tokens": counts.cache_read, "audio_tokens": 0}
    if written := counts.cache_write_5m + counts.cache_write_1h:
        prompt_details["cache_write_tokens"] = written
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": counts.prompt + counts.completion,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": counts.rejected,
        },
    }


def _check_fields(body: Mapping[str, Any]) -> None:
    unknown = sorted(set(body) - _FIELDS)
    if unknown:
        raise invalid(f"Unrecognized request argument supplied: {unknown[0]}", unknown[0], "unknown_parameter")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        raise invalid(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            "max_tokens",
            "invalid_parameter_combination",
        )


def _output_limit(body: Mapping[str, Any], context: Context, prompt_tokens: int) -> int:
    model = context.model
    if model.reasons and body.get("max_tokens") is not None:
        raise invalid(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        )
    field = "max_tokens" if body.get("max_tokens") is not None else "max_completion_tokens"
    asked = take_int(body, field, 1)
    if asked is not None and asked > model.max_output_tokens:
        raise invalid(
            f"{field} is too large: {asked}. This model supports at most {model.max_output_tokens} completion tokens, "
            f"whereas you provided {asked}.",
            field,
        )
    if prompt_tokens > model.context_tokens:
        raise invalid(
            f"This model's maximum context length is {model.context_tokens} tokens. However, your messages resulted in "
            f"{prompt_tokens} tokens. Please reduce the length of the messages.",
            "messages",
            "context_length_exceeded",
        )
    return min(model.max_output_tokens if asked is None else asked, model.context_tokens - prompt_tokens)


def _stops(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(stop for stop in value if isinstance(stop, str)) if isinstance(value, list) else ()


def _tool(body: Mapping[str, Any], directive: str | None) -> tuple[str, Any] | None:
    """The function to call: where the request demands one, or the prompt's `[[tool]]` or `[[tool=name]]` asks."""
    offered = {
        tool["function"]["name"]: tool["function"].get("parameters")
        for tool in body.get("tools") or ()
        if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping) and "name" in tool["function"]
    }
    choice = body.get("tool_choice")
    named = choice["function"].get("name") if isinstance(choice, Mapping) and "function" in choice else None
    if not offered or choice == "none" or (directive is None and named is None and choice != "required"):
        return None
    name = named or directive or next(iter(offered))
    if name not in offered:
        raise invalid(f"Tool choice {name!r} was not found in 'tools'.", "tool_choice")
    return name, offered[name]


def _schema(response_format: Any) -> Any:
    if not isinstance(response_format, Mapping):
        return None
    if response_format.get("type") == "json_object":
        return {"type": "object", "properties": {"answer": {"type": "string"}}}
    described = response_format.get("json_schema")
    return described.get("schema") if isinstance(described, Mapping) else None


def _generated(answers: tuple[Choice, ...], prompt_tokens: int, cached: int) -> Tokens:
    if cached > prompt_tokens:
        raise invalid(f"directive [[cached={cached}]]: the prompt has only {prompt_tokens} tokens", "messages")
    return Tokens(
        input=prompt_tokens - cached,
        cache_read=cached,
        output=sum(len(answer.pieces) for answer in answers),
        reasoning=sum(len(answer.reasoning) for answer in answers),
    )


def _add_rejected(counts: Tokens, prediction: Any, asked: int | None, limit: int) -> Tokens:
    """Predicted tokens that were not used are billed as completion; by default half of the prediction."""
    if not isinstance(prediction, Mapping):
        return counts
    available = text.count_bytes(len(text.serialized(prediction.get("content"))))
    rejected = min(available // 2 if asked is None else asked, available, limit - counts.completion)
    return replace(counts, rejected=rejected)


def _tier(body: Mapping[str, Any], context: Context) -> str:
    """The tier that serves: what was asked where the model has it, else the default one."""
    if (rule := context.effects.get("tier_upgrade")) is not None:
        return rule.tier
    asked = body.get("service_tier")
    asked = "priority" if asked == "fast" else asked
    return asked if isinstance(asked, str) and asked in context.model.tiers else "default"


def _stream_option(body: Mapping[str, Any], name: str) -> bool:
    options = body.get("stream_options")
    return take_bool(options, name) if isinstance(options, Mapping) else False


def _include_usage(body: Mapping[str, Any], stream: bool) -> bool:
    if not stream and body.get("stream_options") is not None:
        raise invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    return _stream_option(body, "include_usage")


def _completion(shape: ChatShape, answers: tuple[Choice, ...]) -> dict[str, Any]:
    choices = []
    for index, answer in enumerate(answers):
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
        if answer.tool is not None:
            call = {"name": answer.tool.name, "arguments": answer.text}
            message["content"] = None
            message["tool_calls"] = [{"id": shape.call_id(index), "type": "function", "function": call}]
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": shape.logprobs_json(answer.pieces),
                "finish_reason": FINISH[answer.finish],
            }
        )
    completion = {**shape.head("chat.completion"), "choices": choices}
    if shape.usage is not None:
        completion["usage"] = shape.usage
    return completion
