"""
How long a call, its tries and the silence inside them may take: the policy's limits and the client's own patience.

A client that gives up before us sends its call anew while ours still runs, and both are billed; so nothing that it has
not seen the beginning of goes on as long as it waits. Only numbers: the shell keeps the time.
"""

from __future__ import annotations

from msgspec import Struct

from spendmesh_sidecar.core.specs import RetrySpec, TimeoutSpec
from spendmesh_sidecar.core.types import ParsedRequest

MARGIN_SECONDS = 1.0
"""How much sooner than the client we give up, so that it reads our answer and not its own clock."""
MARGIN_DIVISOR = 10
"""Or a tenth of its patience, where that is less."""


class CallTimes(Struct, frozen=True, gc=False):
    """The limits of one call, in monotonic seconds and durations; a duration of 0 is no limit."""

    deadline: float
    """Of all tries and waits, while nothing has gone downstream."""
    end: float
    """Of a stream that has begun."""
    streamed: bool
    attempt_seconds: float = 0.0
    first_byte_seconds: float = 0.0
    idle_seconds: float = 0.0

    def attempt(self, now: float) -> tuple[float, float, float]:
        """Of a try that is sent now: seconds until its end, until its first byte, and between two chunks."""
        if not self.streamed:
            return _least(self.deadline - now, self.attempt_seconds), 0.0, 0.0
        begin = _least(self.deadline - now, self.attempt_seconds, self.first_byte_seconds)
        whole = self.end - now
        return whole, begin if begin < whole else 0.0, self.idle_seconds


def call_times(spec: RetrySpec, request: ParsedRequest, now: float, most_seconds: float) -> CallTimes:
    """
    The limits of a call that begins now; `most_seconds` bounds every call.

    An observed policy changes nothing, so that the client keeps its own retries and its own clock.
    """
    if spec.mode == "Observe":
        return CallTimes(now + most_seconds, now + most_seconds, request.stream)
    limits = _limits(spec, request)
    whole = _least(most_seconds, limits.request_ms / 1000)
    patience = request.client_wait_seconds
    answered = _least(whole, patience - min(MARGIN_SECONDS, patience / MARGIN_DIVISOR))
    return CallTimes(
        deadline=now + answered,
        end=now + whole,
        streamed=request.stream,
        attempt_seconds=limits.attempt_ms / 1000,
        first_byte_seconds=limits.first_byte_ms / 1000,
        idle_seconds=limits.stream_idle_ms / 1000,
    )


def _limits(spec: RetrySpec, request: ParsedRequest) -> TimeoutSpec:
    for special in spec.operations:
        if special.operation == request.operation.name:
            return special.timeouts
    return spec.timeouts


def _least(seconds: float, *others: float) -> float:
    """The shortest of some limits, of which 0 is none save the first."""
    for other in others:
        if 0 < other < seconds:
            seconds = other
    return seconds
