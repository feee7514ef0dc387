"""
What the pipeline notes of one exchange and its attempts, and where that hangs in the caller's trace.

Records only: `otlp` writes them, `telemetry` sends them.
"""

from __future__ import annotations

from msgspec import Struct

from spendmesh_sidecar.core.types import Decision, Operation, Settlement

MAX_TRACESTATE = 512
"""Characters that W3C Trace Context asks everybody to propagate; a longer one is dropped, as it allows."""


class TraceContext(Struct, frozen=True, gc=False):
    """Where a span hangs (W3C Trace Context). Ids in lower-case hex; an empty parent is a root."""

    trace_id: str
    parent_id: str
    sampled: bool = True
    state: str = ""

    @classmethod
    def parse(cls, traceparent: str, tracestate: str) -> TraceContext | None:
        """Read the headers; None when there are none or they are malformed (then a new trace begins)."""
        if not traceparent:
            return None
        parts = traceparent.strip().split("-")
        if len(parts) < 4 or len(parts[0]) != 2 or parts[0] == "ff" or (parts[0] == "00" and len(parts) != 4):
            return None
        trace_id, parent_id, flags = parts[1:4]
        if (len(trace_id), len(parent_id), len(flags)) != (32, 16, 2) or not all(map(_is_hex, parts[:4])):
            return None
        if not trace_id.strip("0") or not parent_id.strip("0"):
            return None
        kept = tracestate if len(tracestate) <= MAX_TRACESTATE and tracestate.isascii() else ""
        return cls(trace_id, parent_id, bool(int(flags, 16) & 1), kept)

    def traceparent(self, span_id: str) -> str:
        """The header for a call made inside span `span_id`."""
        return f"00-{self.trace_id}-{span_id}-{'01' if self.sampled else '00'}"


class AttemptSpan(Struct, gc=False):
    """What the pipeline notes of one attempt; cost and tokens come with its settlement."""

    span_id: str
    operation: Operation
    stream: bool
    base_url: str
    """The provider's, as its policy has it."""
    dialect: str
    start_unix: float
    end_unix: float = 0.0
    first_chunk_seconds: float | None = None
    finish_reasons: tuple[str, ...] = ()
    response_id: str = ""
    response_model: str = ""
    resend: int = 0
    settlement: Settlement | None = None


class ExchangeSpan(Struct, gc=False):
    """One client request with all its attempts."""

    context: TraceContext
    span_id: str
    request_id: str
    operation: Operation
    task: str
    start_unix: float
    end_unix: float
    status: int
    error: str
    decision: Decision
    budgets: tuple[str, ...]
    attempts: tuple[AttemptSpan, ...]
    joined: str = ""
    """The request whose answer it got in place of attempts of its own."""


def _is_hex(text: str) -> bool:
    return all(character in "0123456789abcdef" for character in text)
