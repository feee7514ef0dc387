"""The only changes that a request body may see: model, output maximum, usage in streams. Credentials are headers."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from spendmesh_sidecar.core.operations.strict_json import kind_of, read_object
from spendmesh_sidecar.core.types import ParsedRequest


def rewrite(
    request: ParsedRequest, model: str, max_output_tokens: int | None, include_usage: bool, output_field: str = ""
) -> bytes:
    """
    The body to send: the same object when nothing changes, else the top-level raw values in their order.

    `max_output_tokens` goes into `output_field`, or where the client had its own, and takes the place of that; None
    leaves it as it is. `include_usage` acts on streams whose client did not ask for the usage chunk. Raises ValueError
    for a maximum where the operation has none.
    """
    changes: dict[str, Raw] = {}
    if request.model and model != request.model:
        changes["model"] = Raw(msgspec.json.encode(model))
    theirs = request.bounds.output_field
    field = output_field or theirs
    if max_output_tokens is not None and (max_output_tokens != request.bounds.max_output_tokens or field != theirs):
        if not field:
            raise ValueError(f"{request.operation.name} has no output maximum")
        changes[field] = Raw(b"%d" % max_output_tokens)
    if include_usage and request.stream and not request.usage_asked:
        changes["stream_options"] = Raw(_with_usage(request.fields.get("stream_options")))
    if not changes:
        return request.body
    members = {**request.fields, **changes}
    if field in changes and field != theirs:
        members.pop(theirs, None)
    return msgspec.json.encode(members)


def _with_usage(options: Raw | None) -> bytes:
    members: dict[str, Raw] = {}
    if options is not None and kind_of(options) != "null":
        members.update(read_object(options, "stream_options"))
    members["include_usage"] = Raw(b"true")
    return msgspec.json.encode(members)
