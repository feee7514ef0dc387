"""
What of a call decides where it may go and what has to be known of its price: its shape, without its content.

Calls of one shape get one plan, which is worked out once (`admission`). So nothing may be in a shape that is different
in each call, and a plan may ask of a call only what is in its shape.
"""

from __future__ import annotations

from msgspec import Struct

from spendmesh_sidecar.core.types import Operation, ParsedRequest


class Shape(Struct, frozen=True, gc=False):
    """See `ParsedRequest`, `Hints` and `Bounds` for what the members mean."""

    operation: Operation
    model: str
    provider: str
    task: str
    user_plan: str
    max_output_tokens: int | None
    output_field: str
    service_tiers: tuple[str, ...]
    unpriced_fields: tuple[str, ...]
    usage_unasked: bool
    """A stream whose client did not ask for its usage."""


def shape_of(request: ParsedRequest) -> Shape:
    """The shape of a request."""
    hints, bounds = request.hints, request.bounds
    return Shape(
        request.operation,
        request.model,
        request.provider,
        hints.task,
        hints.user_plan,
        bounds.max_output_tokens,
        bounds.output_field,
        bounds.service_tiers,
        request.unpriced_fields,
        request.stream and not request.usage_asked,
    )
