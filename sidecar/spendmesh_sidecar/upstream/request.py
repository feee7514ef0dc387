"""What goes to a provider: URL, model, limits and key of its target, and what of the client's was let through."""

from __future__ import annotations

from spendmesh_sidecar.core.operations.headers import credentials
from spendmesh_sidecar.core.operations.rewrite import rewrite
from spendmesh_sidecar.core.types import Attempt, ParsedRequest
from spendmesh_sidecar.keys import KeySource
from spendmesh_sidecar.telemetry.spans import TraceContext
from spendmesh_sidecar.upstream.wire import UpstreamRequest


class KeyMissing(Exception):
    """The policy's Secret is not mounted in this pod, or holds nothing that can be sent as a key."""


def upstream_request(
    request: ParsedRequest, step: Attempt, keys: KeySource, trace: TraceContext, span_id: str
) -> UpstreamRequest:
    """The request of one attempt. Raises KeyMissing."""
    headers = {**request.headers, "traceparent": trace.traceparent(span_id)}
    if not trace.parent_id:
        headers.pop("tracestate", None)  # a trace begins here
    if step.provider.auth == "APIKey":
        key = keys.get(step.provider.key_name)
        if key is None or not (key.isascii() and key.isprintable()):
            raise KeyMissing
        name, value = credentials(step.provider.dialect, key)
        headers[name] = value
    operation = request.operation
    return UpstreamRequest(
        method=operation.method,
        url=step.provider.base_url + operation.upstream_path,
        headers=list(headers.items()),
        body=rewrite(request, step.model, step.max_output_tokens, step.include_usage, step.output_field),
    )
