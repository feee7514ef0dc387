"""From bytes to a `ParsedRequest`: what every operation shares. The tables are in `openai` and `anthropic`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Raw
from msgspec.structs import replace

from spendmesh_sidecar.core.operations import anthropic, openai
from spendmesh_sidecar.core.operations.errors import invalid, shown
from spendmesh_sidecar.core.operations.headers import (
    ClientHeaders,
    Headers,
    read_client_retry,
    read_client_wait,
    read_hints,
    read_scopes,
    upstream_headers,
)
from spendmesh_sidecar.core.operations.reading import Read
from spendmesh_sidecar.core.operations.strict_json import read_body, read_string
from spendmesh_sidecar.core.types import Bounds, Operation, ParsedRequest

MAX_MODEL_CHARACTERS = 256
"""Longer than any model name of the price table and any fine-tuned one."""

_READERS: Mapping[str, Callable[[Mapping[str, Raw], int], Read]] = {
    "chat": openai.read_chat,
    "embeddings": openai.read_embeddings,
    "messages": anthropic.read_messages,
    "count_tokens": anthropic.read_count_tokens,
}


def parse_request(
    operation: Operation, body: bytes, headers: Headers, alias: str = "", scopes: frozenset[str] = frozenset()
) -> ParsedRequest:
    """
    Read one client request: strict where money is concerned, raw everywhere else.

    `headers` as they came, repeated ones included; `scopes` names those that limits are divided by. What is well-formed
    but has no price is in `unpriced_fields`; policy decides about it. Raises RequestError (400 `request_invalid`)
    before anything is reserved.
    """
    told = ClientHeaders.of(headers)
    hints = read_hints(told)
    if scopes:
        hints = replace(hints, scopes=read_scopes(headers, scopes))
    onward = upstream_headers(operation.dialect, told)
    if operation.name == "models":
        if body:
            raise invalid("A list of models takes no body")
        return ParsedRequest(operation, body, {}, "", False, Bounds(input_tokens=0), hints, onward, provider=alias)
    members = read_body(body)
    model = _model(members)
    read = _READERS[operation.name](members, len(body))
    bounds, unpriced = read.bounds, read.unpriced
    if operation.name == "messages":
        unpriced += tuple(f"anthropic-beta={shown(beta)}" for beta in told.betas if beta not in anthropic.FREE_BETAS)
        if not anthropic.WIDER_CONTEXT_BETAS.isdisjoint(told.betas):
            bounds = replace(bounds, context_bound=False)
    return ParsedRequest(
        operation=operation,
        body=body,
        fields=members,
        model=model,
        stream=read.stream,
        bounds=bounds,
        hints=hints,
        headers=onward,
        usage_asked=read.usage_asked,
        unpriced_fields=unpriced,
        client_retry=read_client_retry(told),
        client_wait_seconds=read_client_wait(told),
        provider=alias,
    )


def _model(members: Mapping[str, Raw]) -> str:
    if "model" not in members:
        raise invalid("model: is missing", "model")
    model = read_string(members["model"], "model")
    if not 0 < len(model) <= MAX_MODEL_CHARACTERS or not model.isprintable():
        raise invalid(f"model: must have 1 to {MAX_MODEL_CHARACTERS} printable characters", "model")
    return model
