"""
Which operation a request line names. Knows paths; knows neither bodies nor providers' addresses.

The table is matched exactly: nothing is decoded, joined or normalized, so `..`, `//`, `%2f` and an absolute form
are simply not in it. The upstream path comes from the table, never from the client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_sidecar.core.operations.errors import RequestError, invalid, shown, unsupported
from spendmesh_sidecar.core.specs import Dialect
from spendmesh_sidecar.core.types import Operation


class Route(Struct, frozen=True, gc=False):
    """An operation, and the provider alias that the path names (empty: policy chooses)."""

    operation: Operation
    alias: str


def _operation(
    name: Literal["chat", "embeddings", "messages", "count_tokens", "models"],
    dialect: Dialect,
    path: str,
    genai_name: str,
) -> Operation:
    return Operation(
        name=name,
        dialect=dialect,
        method="GET" if name == "models" else "POST",
        upstream_path=path,
        billed=name not in ("models", "count_tokens"),
        genai_name=genai_name,
    )


# Paths as each SDK appends them to its base URL: OpenAI's base URL has /v1 in it, Anthropic's has not.
_OPENAI = (
    _operation("chat", "OpenAI", "/chat/completions", "chat"),
    _operation("embeddings", "OpenAI", "/embeddings", "embeddings"),
    _operation("models", "OpenAI", "/models", "list_models"),
)
_ANTHROPIC = (
    _operation("messages", "Anthropic", "/v1/messages", "chat"),
    _operation("count_tokens", "Anthropic", "/v1/messages/count_tokens", "count_tokens"),
    _operation("models", "Anthropic", "/v1/models", "list_models"),
)
OPERATIONS: tuple[Operation, ...] = _OPENAI + _ANTHROPIC
_BY_PATH: Mapping[str, Operation] = {operation.upstream_path: operation for operation in OPERATIONS}
_PREFIXES: tuple[tuple[str, Dialect], ...] = (("/openai/v1", "OpenAI"), ("/anthropic", "Anthropic"))
_PLAIN: Mapping[tuple[str, str], Route] = {
    (operation.method, f"{prefix}{operation.upstream_path}"): Route(operation, "")
    for prefix, dialect in _PREFIXES
    for operation in OPERATIONS
    if operation.dialect == dialect
}
"""Request lines without alias, query and model id: nearly all."""

_PROVIDER = re.compile(
    r"/providers/([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)(/.*)"
)  # a DNS label, as RoutingPolicy has it
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")
_QUERY_VALUE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# `client.beta.messages` adds ?beta=true; pages of a model list have a cursor.
_BETA = frozenset({"beta"})
_QUERIES: Mapping[tuple[str, str], frozenset[str]] = {
    ("Anthropic", "messages"): _BETA,
    ("Anthropic", "count_tokens"): _BETA,
    ("Anthropic", "models"): _BETA | {"limit", "after_id", "before_id"},
}


def parse(method: str, target: str) -> Route:
    """
    Read a request line of the data listener: method and raw target with its query.

    Raises RequestError `operation_unsupported` for a path, method or model id that the table does not know, and
    `request_invalid` for a query parameter that the operation does not have.
    """
    if (plain := _PLAIN.get((method, target))) is not None:
        return plain
    path, mark, query = target.partition("?")
    suffix, alias, dialect = _split(path)
    operation = _find(suffix)
    if operation is None or (dialect is not None and operation.dialect != dialect):
        raise _unknown()
    if method != operation.method:
        raise unsupported(f"This path takes {operation.method} requests only")
    if mark:
        operation = replace(operation, upstream_path=f"{operation.upstream_path}{_query(operation, query)}")
    return Route(operation, alias)


def _split(path: str) -> tuple[str, str, Dialect | None]:
    """What follows the base URL that a client was given, the alias in it, and the dialect that it fixes."""
    for prefix, dialect in _PREFIXES:
        if path.startswith(prefix + "/"):
            return path[len(prefix) :], "", dialect
    if matched := _PROVIDER.fullmatch(path):
        return matched[2], matched[1], None
    raise _unknown()


def _find(suffix: str) -> Operation | None:
    if operation := _BY_PATH.get(suffix):
        return operation
    base, _, model_id = suffix.rpartition("/")
    operation = _BY_PATH.get(base)
    if operation is None or operation.name != "models" or not _MODEL_ID.fullmatch(model_id):
        return None
    return replace(operation, upstream_path=f"{base}/{model_id}", genai_name="retrieve_model")


def _query(operation: Operation, query: str) -> str:
    allowed = _QUERIES.get((operation.dialect, operation.name), frozenset())
    kept: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name not in allowed or name in kept or not _QUERY_VALUE.fullmatch(value):
            raise invalid(
                f"Query parameter {shown(name)} is not supported here"
                + (f"; this operation has {', '.join(sorted(allowed))}" if allowed else "; this operation has none"),
                shown(name),
            )
        kept[name] = value
    return "?" + "&".join(f"{name}={value}" for name, value in kept.items())


def _unknown() -> RequestError:
    known = ", ".join(
        f"{operation.method} {prefix}{operation.upstream_path}"
        for prefix, dialect in _PREFIXES
        for operation in OPERATIONS
        if operation.dialect == dialect
    )
    return unsupported(
        f"This path is no operation that is governed here. Known: {known}, and the same under /providers/<alias>"
    )
