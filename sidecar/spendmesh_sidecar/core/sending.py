"""The step that sends a booked try: what goes where, and how long it may take. Decides nothing."""

from __future__ import annotations

from spendmesh_sidecar.core.call_times import CallTimes
from spendmesh_sidecar.core.settlement import Flight
from spendmesh_sidecar.core.types import Attempt


def attempt_step(flight: Flight, include_usage: bool, times: CallTimes, now: float) -> Attempt:
    """The step for a try that is booked and has leave to be sent."""
    priced, booked = flight.priced, flight.booked
    timeout_seconds, first_byte_seconds, idle_seconds = times.attempt(now)
    return Attempt(
        number=flight.number,
        reservation=flight.reservation,
        target=priced.candidate.target,
        tier=priced.candidate.tier,
        provider=priced.candidate.provider,
        model=priced.candidate.target.model,
        max_output_tokens=booked.max_output_tokens if booked and (priced.injected or priced.clamped) else None,
        output_field=priced.output_field,
        include_usage=include_usage,
        timeout_seconds=timeout_seconds,
        first_byte_seconds=first_byte_seconds,
        idle_seconds=idle_seconds,
    )
