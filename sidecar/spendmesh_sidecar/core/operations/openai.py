"""
OpenAI's bodies: chat completions and embeddings. Which fields there are, and what they bound.

Source of the fields: the types of the official SDK (openai 3.54), which ordinary calls are made of.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from spendmesh_sidecar.core.operations.errors import invalid
from spendmesh_sidecar.core.operations.fields import (
    FREE,
    Check,
    Findings,
    Table,
    adding,
    by_kind,
    free,
    items_of,
    lasting,
    members_of,
    one_of,
    picture,
    tagged,
    walk,
)
from spendmesh_sidecar.core.operations.reading import Read, input_bound
from spendmesh_sidecar.core.operations.strict_json import (
    given,
    kind_of,
    read_boolean,
    read_count,
    read_object,
    read_string,
)
from spendmesh_sidecar.core.types import Bounds

IMAGE_TOKENS = 50_000
"""No model counts more for one picture, whatever its bytes: gpt-4o-mini at high detail is the dearest, 2,833 + 8 tiles
of 5,667 = 48,169 (pictures are scaled to 8 tiles first)."""
TOOL_TOKENS = 32
MAX_CHOICES = 128
"""OpenAI's own bound on n."""


# --- tables -----------------------------------------------------------------------------------------------

# OpenAI calls its usual cache lifetime 30 minutes and bills 12 hours apart.
_LIFETIME = lasting({"30m": "default", "12h": "long"})
_BREAKPOINT = members_of({"mode": FREE, "ttl": _LIFETIME})
_TEXT: Table = {**free("type", "text"), "prompt_cache_breakpoint": _BREAKPOINT}
_PARTS: Mapping[str, Table] = {
    "text": _TEXT,
    "refusal": free("type", "refusal"),
    "image_url": {
        "type": FREE,
        "image_url": members_of({"url": picture, "detail": FREE}),
        "prompt_cache_breakpoint": _BREAKPOINT,
    },
}
_FUNCTION = members_of(free("name", "description", "parameters", "strict"))
_TOOLS: Mapping[str, Table] = {
    "function": {"type": FREE, "function": _FUNCTION},
    "custom": {"type": FREE, "custom": members_of(free("name", "description", "format"))},
}
_TOOL_CALLS: Mapping[str, Table] = {
    "function": free("id", "index", "type", "function"),
    "custom": free("id", "index", "type", "custom"),
}
_MESSAGE: Table = {
    **free("role", "name", "refusal", "tool_call_id", "function_call"),
    # Answers are sent back as they came: what servers add to a message is text by the byte.
    **free("annotations", "reasoning", "reasoning_content", "reasoning_details"),
    "content": by_kind({"string": FREE, "array": items_of(tagged(_PARTS))}),
    "tool_calls": items_of(tagged(_TOOL_CALLS, absent="function")),
}


def _message(raw: Raw, path: str, findings: Findings) -> None:
    findings.messages += 1
    walk(read_object(raw, path), _MESSAGE, path, findings)


_READ_APART = free(
    "model", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "service_tier", "prediction"
)
_CHAT: Table = {
    **_READ_APART,
    **free("temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"),
    **free("stop", "seed", "user", "metadata", "store", "response_format", "parallel_tool_calls"),
    **free("function_call", "reasoning_effort", "verbosity", "safety_identifier", "prompt_cache_key"),
    "messages": items_of(_message),
    "tools": items_of(adding(TOOL_TOKENS, tagged(_TOOLS))),
    "functions": items_of(adding(TOOL_TOKENS, _FUNCTION)),
    "tool_choice": by_kind(
        {
            "string": FREE,
            "object": tagged(
                {
                    "function": free("type", "function"),
                    "custom": free("type", "custom"),
                    "allowed_tools": free("type", "allowed_tools"),
                }
            ),
        }
    ),
    "modalities": items_of(one_of({"text"})),
    "prompt_cache_options": members_of({"mode": FREE, "ttl": _LIFETIME}),
    "prompt_cache_retention": one_of({"in_memory", "24h"}),
}
_STREAM_OPTIONS: Table = free("include_usage", "include_obfuscation", "continuous_usage_stats")
_PREDICTION = tagged(
    {"content": {"type": FREE, "content": by_kind({"string": FREE, "array": items_of(tagged({"text": _TEXT}))})}}
)

# What may serve a call, the asked one first. Absent means `auto`: the project's own setting, which nobody here knows,
# so it reserves the dearest. `default` is a promise of standard price. Faster tiers fall back to standard when full.
_TIERS: Mapping[str, tuple[str, ...]] = {
    "auto": ("standard", "flex", "priority"),
    "default": ("standard",),
    "flex": ("flex", "standard"),
    "priority": ("priority", "standard"),
    "fast": ("fast", "priority", "standard"),
}
_known_tier: Check = one_of(_TIERS)


# --- chat -------------------------------------------------------------------------------------------------


def read_chat(members: Mapping[str, Raw], size: int) -> Read:
    """Bounds of a chat completion whose body has `size` bytes. Raises RequestError."""
    findings = Findings()
    if "messages" not in members:
        raise invalid("messages: is missing", "messages")
    walk(members, _CHAT, "", findings)
    said = given(members)
    choices = read_count(said["n"], "n", 1, MAX_CHOICES) if "n" in said else 1
    field, maximum = _output(said)
    stream = read_boolean(said["stream"], "stream") if "stream" in said else False
    predicted = 0
    if (prediction := said.get("prediction")) is not None:
        _PREDICTION(prediction, "prediction", findings)
        predicted = len(memoryview(prediction)) * choices
    bounds = Bounds(
        input_tokens=input_bound(size, findings, IMAGE_TOKENS),
        choices=choices,
        max_output_tokens=maximum,
        output_field=field,
        service_tiers=_service_tiers(said.get("service_tier"), findings),
        # Newer models write their cache unasked, at the price of the usual lifetime.
        cache_writes=("default", "long") if "long" in findings.cache_writes else ("default",),
        extra_output_tokens=predicted,
    )
    asked = _usage_asked(said.get("stream_options"), findings)
    return Read(bounds, tuple(findings.unpriced), stream, usage_asked=asked or not stream)


def _output(said: Mapping[str, Raw]) -> tuple[str, int | None]:
    """The field that carries the maximum, and the maximum. `max_tokens` is the deprecated name of the other."""
    if "max_tokens" in said and "max_completion_tokens" in said:
        raise invalid(
            "max_tokens and max_completion_tokens are both there; keep max_completion_tokens", "max_completion_tokens"
        )
    for field in ("max_completion_tokens", "max_tokens"):
        if field in said:
            return field, read_count(said[field], field)
    return "max_completion_tokens", None


def _service_tiers(raw: Raw | None, findings: Findings) -> tuple[str, ...]:
    if raw is None:
        return _TIERS["auto"]
    asked = read_string(raw, "service_tier")
    _known_tier(raw, "service_tier", findings)
    return _TIERS.get(asked, _TIERS["auto"])


def _usage_asked(raw: Raw | None, findings: Findings) -> bool:
    if raw is None:
        return False
    options = read_object(raw, "stream_options")
    walk(options, _STREAM_OPTIONS, "stream_options", findings)
    asked = options.get("include_usage")
    if asked is None or kind_of(asked) == "null":
        return False
    return read_boolean(asked, "stream_options.include_usage")


# --- embeddings -------------------------------------------------------------------------------------------


_INPUTS = tuple(msgspec.json.Decoder(kind) for kind in (list[str], list[int], list[list[int]]))


def _inputs(raw: Raw, path: str, findings: Findings) -> None:
    """Texts or token numbers: both have at least one byte for each token. Anything else (pictures) has no bound."""
    for decoder in _INPUTS:
        try:
            found = decoder.decode(raw)
        except msgspec.ValidationError:
            continue
        if not found:
            raise invalid(f"{path}: must not be empty", path)
        return
    raise invalid(f"{path}: must be a text, a list of texts, a list of token numbers or a list of such lists", path)


_EMBEDDINGS: Table = {
    **free("model", "dimensions", "encoding_format", "user"),
    "input": by_kind({"string": FREE, "array": _inputs}),
}


def read_embeddings(members: Mapping[str, Raw], size: int) -> Read:
    """Bounds of an embeddings request: no output, and no context window, since it may hold many inputs."""
    findings = Findings()
    if "input" not in members:
        raise invalid("input: is missing", "input")
    walk(members, _EMBEDDINGS, "", findings)
    bounds = Bounds(input_tokens=input_bound(size, findings, IMAGE_TOKENS), context_bound=False)
    return Read(bounds, tuple(findings.unpriced))
