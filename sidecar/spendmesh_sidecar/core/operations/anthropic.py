"""
Anthropic's bodies: messages, and the free count of their tokens. Which fields there are, and what they bound.

Source of the fields: the types of the official SDK (anthropic 2.12), which ordinary calls are made of.
"""

from __future__ import annotations

from collections.abc import Mapping

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

IMAGE_TOKENS = 8_000
"""No model counts more for one picture, whatever its bytes: pictures are scaled to at most 4,784 visual tokens."""
TOOL_USE_TOKENS = 1_024
"""The system prompt that comes with tools or an output format (the documentation's table ends at 530)."""
BUILT_IN_TOOL_TOKENS = 2_048
"""The schema of a tool that Anthropic defines and the client runs (the documentation's largest is 735)."""
DOCUMENT_TOKENS = 512
"""Marks of a document or search result that may be cited."""

FREE_BETAS = frozenset(
    {
        "computer-use-2024-10-22",
        "computer-use-2025-01-24",
        "computer-use-2025-11-24",
        "context-1m-2025-08-07",
        "extended-cache-ttl-2025-04-11",
        "fast-mode-2026-02-01",
        "fine-grained-tool-streaming-2025-05-14",
        "interleaved-thinking-2025-05-14",
        "mid-conversation-output-config-2026-07-01",
        "model-context-window-exceeded-2025-08-26",
        "output-128k-2025-02-19",
        "output-300k-2026-03-24",
        "pdfs-2024-09-25",
        "prompt-caching-2024-07-31",
        "structured-outputs-2025-11-13",
        "thinking-display-updates-2026-08-18",
        "thinking-token-count-2026-05-13",
        "token-counting-2024-11-01",
        "token-efficient-tools-2025-02-19",
    }
)
"""Values of `anthropic-beta` that cost nothing beyond what the body's own fields say."""
WIDER_CONTEXT_BETAS = frozenset({"context-1m-2025-08-07"})


# --- tables -----------------------------------------------------------------------------------------------


def _cache_control(raw: Raw, path: str, findings: Findings) -> None:
    members = read_object(raw, path)
    walk(members, {"type": one_of({"ephemeral"}), "ttl": _LIFETIME}, path, findings)
    if "ttl" not in members or kind_of(members["ttl"]) == "null":
        findings.cache_writes.add("default")


_LIFETIME = lasting({"5m": "default", "1h": "long"})
_CACHED: Table = {"type": FREE, "cache_control": _cache_control}
_TEXT: Table = {**_CACHED, **free("text", "citations")}
_IMAGE: Table = {
    **_CACHED,
    "transformations": FREE,
    "source": tagged(
        {
            "base64": {**free("type", "media_type"), "data": picture},
            "url": {"type": FREE, "url": picture},
        }
    ),
}
_SEARCH_RESULT: Table = {
    **_CACHED,
    **free("source", "title", "citations"),
    "content": items_of(tagged({"text": _TEXT})),
}


def _document(content: Mapping[str, Table]) -> Table:
    """Text that is in the request. PDFs and addresses are not: their pages are not bounded by anything we see."""
    source = tagged(
        {
            "text": free("type", "media_type", "data"),
            "content": {"type": FREE, "content": by_kind({"string": FREE, "array": items_of(tagged(content))})},
        }
    )
    return {**_CACHED, **free("citations", "context", "title"), "source": adding(DOCUMENT_TOKENS, source)}


_PLAIN: Mapping[str, Table] = {"text": _TEXT, "image": _IMAGE}
_RESULT_BLOCKS: Mapping[str, Table] = {
    **_PLAIN,
    "document": _document(_PLAIN),
    "search_result": _SEARCH_RESULT,
    "tool_reference": {**_CACHED, "tool_name": FREE},
}
_DIRECT = tagged({"direct": free("type")})
_BLOCKS: Mapping[str, Table] = {
    **_PLAIN,
    "document": _document(_PLAIN),
    "search_result": _SEARCH_RESULT,
    "thinking": free("type", "thinking", "signature"),
    "redacted_thinking": free("type", "data"),
    "tool_use": {**_CACHED, **free("id", "name", "input", "toolset_name"), "caller": _DIRECT},
    "tool_result": {
        **_CACHED,
        **free("tool_use_id", "is_error", "toolset_name"),
        "content": by_kind({"string": FREE, "array": items_of(tagged(_RESULT_BLOCKS))}),
    },
}
_MESSAGE: Table = {"role": FREE, "content": by_kind({"string": FREE, "array": items_of(tagged(_BLOCKS))})}

_ANY_TOOL: Table = {
    **_CACHED,
    **free("name", "description", "defer_loading", "input_examples", "strict", "eager_input_streaming"),
    "allowed_callers": items_of(one_of({"direct"})),
}
_CUSTOM_TOOL: Table = {**_ANY_TOOL, "input_schema": FREE}


def _built_in(*names: str) -> Table:
    def counted(raw: Raw, path: str, findings: Findings) -> None:
        findings.overhead_tokens += BUILT_IN_TOOL_TOKENS

    return {**_ANY_TOOL, **free(*names), "type": counted}


_SCREEN = _built_in("display_width_px", "display_height_px", "display_number", "enable_zoom")
_EDITOR = _built_in("max_characters")
_TOOLS: Mapping[str, Table] = {
    "custom": _CUSTOM_TOOL,
    **dict.fromkeys(("bash_20241022", "bash_20250124", "memory_20250818"), _built_in()),
    **dict.fromkeys(
        ("text_editor_20241022", "text_editor_20250124", "text_editor_20250429", "text_editor_20250728"), _EDITOR
    ),
    **dict.fromkeys(("computer_20241022", "computer_20250124", "computer_20251124"), _SCREEN),
}


def _message(raw: Raw, path: str, findings: Findings) -> None:
    findings.messages += 1
    walk(read_object(raw, path), _MESSAGE, path, findings)


_NAMED = free("type", "name", "disable_parallel_tool_use")
_MESSAGES: Table = {
    **free("model", "max_tokens", "stream", "service_tier", "speed"),
    **free("stop_sequences", "temperature", "top_p", "top_k"),
    "metadata": by_kind({"object": FREE}),
    "messages": items_of(_message),
    "system": by_kind({"string": FREE, "array": items_of(tagged({"text": _TEXT}))}),
    "cache_control": _cache_control,
    "thinking": tagged(
        {
            "enabled": free("type", "budget_tokens", "display"),
            "adaptive": free("type", "display"),
            "disabled": free("type"),
            "between_tools": free("type"),
        }
    ),
    "output_config": adding(TOOL_USE_TOKENS, members_of(free("effort", "format"))),
    "tools": adding(TOOL_USE_TOKENS, items_of(tagged(_TOOLS, absent="custom"))),
    "tool_choice": tagged(dict.fromkeys(("auto", "any", "none", "tool"), _NAMED)),
    "inference_geo": one_of({"global"}),
}

# What may serve a call, the asked one first. `auto`, also when absent, takes committed capacity where there is some.
_TIERS: Mapping[str, tuple[str, ...]] = {"auto": ("standard", "priority"), "standard_only": ("standard",)}


# --- messages ---------------------------------------------------------------------------------------------


def read_messages(members: Mapping[str, Raw], size: int) -> Read:
    """Bounds of a message request whose body has `size` bytes. Raises RequestError."""
    findings = Findings()
    if "messages" not in members:
        raise invalid("messages: is missing", "messages")
    walk(members, _MESSAGES, "", findings)
    said = given(members)
    maximum = read_count(said["max_tokens"], "max_tokens") if "max_tokens" in said else None
    bounds = Bounds(
        input_tokens=input_bound(size, findings, IMAGE_TOKENS),
        max_output_tokens=maximum,
        output_field="max_tokens",
        service_tiers=_service_tiers(said, findings),
        cache_writes=tuple(sorted(findings.cache_writes)),
        extra_output_tokens=_thinking_beyond(said.get("thinking"), maximum),
    )
    stream = read_boolean(said["stream"], "stream") if "stream" in said else False
    return Read(bounds, tuple(findings.unpriced), stream)


def read_count_tokens(members: Mapping[str, Raw], size: int) -> Read:
    """Nothing is billed, so nothing is bounded and nothing refused."""
    return Read(Bounds(input_tokens=0), ())


def _service_tiers(said: Mapping[str, Raw], findings: Findings) -> tuple[str, ...]:
    tiers = _TIERS["auto"]
    if (raw := said.get("service_tier")) is not None:
        _known_tier(raw, "service_tier", findings)
        tiers = _TIERS.get(read_string(raw, "service_tier"), tiers)
    if (raw := said.get("speed")) is not None:
        _known_speed(raw, "speed", findings)
        if read_string(raw, "speed") == "fast":  # the price table has fast mode as a tier
            tiers = ("fast", *tiers)
    return tiers


_known_tier: Check = one_of(_TIERS)
_known_speed: Check = one_of({"standard", "fast"})


def _thinking_beyond(raw: Raw | None, maximum: int | None) -> int:
    """With interleaved thinking the budget is for a whole turn and may be larger than `max_tokens`."""
    if raw is None or maximum is None:
        return 0
    budget = read_object(raw, "thinking").get("budget_tokens")
    if budget is None or kind_of(budget) == "null":
        return 0
    return max(0, read_count(budget, "thinking.budget_tokens") - maximum)
