"""OpenAI's embeddings on the wire, as floats or base64; the vectors come from a hash of the input."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from hashlib import shake_256
from typing import Any

from spendmesh_standin import tokens as text
from spendmesh_standin.errors import invalid
from spendmesh_standin.prices import Tokens
from spendmesh_standin.reply import Context, Reply, billed, fees_nanos, price_percent, reported, take_int

_FIELDS = frozenset(("dimensions", "encoding_format", "input", "model", "user"))
_MAX_INPUTS = 2048  # OpenAI's own bounds on one request
_MAX_REQUEST_TOKENS = 300_000


def embeddings(body: Mapping[str, Any], context: Context) -> Reply:
    """Answer one embeddings request. Raises ApiError for what OpenAI would refuse."""
    unknown = sorted(set(body) - _FIELDS)
    if unknown:
        raise invalid(f"Unrecognized request argument supplied: {unknown[0]}", unknown[0], "unknown_parameter")
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise invalid(
            f"Invalid value: {encoding!r:.60}. Supported values are: 'float' and 'base64'.", "encoding_format"
        )
    dimensions = take_int(body, "dimensions", 1, context.model.dimensions) or context.model.dimensions
    inputs = _inputs(body.get("input"))
    counts = [_count(item, context) for item in inputs]
    if sum(counts) > _MAX_REQUEST_TOKENS:
        raise invalid(
            f"Requested {sum(counts)} tokens, max {_MAX_REQUEST_TOKENS} tokens per request",
            "input",
            "max_tokens_per_request",
        )
    consumed, outside = billed(Tokens(input=sum(counts)), context.effects, 0)
    usage = reported(consumed, outside, context.effects, context.model, None)
    answer: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": _vector(item, dimensions, context, encoding)}
            for index, item in enumerate(inputs)
        ],
        "model": context.model.snapshot,
    }
    if usage is not None:
        answer["usage"] = {"prompt_tokens": usage.tokens.prompt, "total_tokens": usage.tokens.prompt}
    return Reply(
        operation="embeddings",
        tokens=consumed,
        tier="default",
        body=answer,
        price_percent=price_percent(context.effects),
        fees_nanos=fees_nanos(context.effects),
    )


def _inputs(value: Any) -> list[str | list[int]]:
    """The texts or token lists to embed; a string or one list of integers is one input."""
    if isinstance(value, str):
        items: list[Any] = [value]
    elif isinstance(value, list):
        items = [value] if value and all(type(item) is int for item in value) else value
    else:
        items = []
    good = all(
        (isinstance(item, str) and item)
        or (isinstance(item, list) and item and all(type(part) is int for part in item))
        for item in items
    )
    if not items or not good:
        raise invalid(
            "'$.input' is invalid: expected a non-empty string, or an array of strings or of tokens.", "input"
        )
    if len(items) > _MAX_INPUTS:
        raise invalid(f"'$.input' is invalid: {len(items)} inputs, at most {_MAX_INPUTS} are allowed.", "input")
    return items


def _count(item: str | list[int], context: Context) -> int:
    if isinstance(item, list):
        count = len(item)
    else:
        lying = context.effects.has("lying_usage")
        count = text.count_prompt(item, text.read_directives([item]), lying=lying)
    if count > context.model.context_tokens:
        raise invalid(
            f"This model's maximum context length is {context.model.context_tokens} tokens, however you requested "
            f"{count} tokens. Please reduce your prompt.",
            "input",
            "context_length_exceeded",
        )
    return count


def _vector(item: str | list[int], dimensions: int, context: Context, encoding: str) -> list[float] | str:
    """A unit vector, in the 32-bit floats that both encodings carry."""
    raw = shake_256(text.seed_of(context.model.name, item)).digest(2 * dimensions)
    numbers = struct.unpack(f"<{dimensions}h", raw)
    length = math.sqrt(sum(number * number for number in numbers)) or 1.0
    packed = struct.pack(f"<{dimensions}f", *(number / length for number in numbers))
    if encoding == "base64":
        return base64.b64encode(packed).decode()
    return list(struct.unpack(f"<{dimensions}f", packed))
