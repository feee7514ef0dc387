"""
A stream that is passed on as far as it is covered: it waits for rights, or is ended between two of its events.

What covers it is `core.ledger.metering`'s to decide. The client of a stream that is ended gets an error event in its
own dialect, which its SDK raises.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from spendmesh_sidecar.core.ledger.metering import Meter
from spendmesh_sidecar.core.specs import Dialect
from spendmesh_sidecar.core.types import Refusal
from spendmesh_sidecar.core.usage.scanners import Scanner
from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.downstream.answers import refusal_answer

MAX_REST_BYTES = 1 << 20
"""An event that has begun is passed on to its end, up to here."""

_EVENT_END = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)")
_LONGEST_END = 4


class StreamEnded(Exception):
    """What may still come is not covered: nothing more is passed on."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


async def covered(
    chunks: AsyncIterator[bytes], scanner: Scanner, meter: Meter, plane: DataPlane
) -> AsyncIterator[bytes]:
    """
    The chunks as long as they are covered; `scanner` has to be fed with each before the next is asked for.

    Raises StreamEnded after the end of an event.
    """
    refusal: Refusal | None = None
    tail, rest = b"", 0
    async for chunk in chunks:
        if refusal is not None:
            rest += len(chunk)
            end = _first_end(tail, chunk)
            if end is not None or rest > MAX_REST_BYTES:
                yield chunk[:end]
                raise StreamEnded(refusal)
        yield chunk
        tail = (tail + chunk)[-_LONGEST_END:]
        if refusal is None and scanner.output_bytes > meter.covers:
            refusal = await _cover(meter, scanner.output_bytes, plane)
            if refusal is not None and scanner.observe().complete:
                return  # it has ended by itself, and said what it cost
            if refusal is not None and _at_end(tail):
                raise StreamEnded(refusal)


def _at_end(tail: bytes) -> bool:
    """Whether an event ends with these bytes."""
    return any(found.end() == len(tail) for found in _EVENT_END.finditer(tail))


def _first_end(tail: bytes, chunk: bytes) -> int | None:
    """Where in a chunk the event ends that had begun before it."""
    ends = (found.end() - len(tail) for found in _EVENT_END.finditer(tail + chunk))
    return next((end for end in ends if end > 0), None)


async def _cover(meter: Meter, seen_bytes: int, plane: DataPlane) -> Refusal | None:
    """Hold what comes next, with rights that are asked for if need be; the reason if that cannot be."""
    lacking = meter.extend(seen_bytes, plane.clock.monotonic())
    if not lacking:
        return None
    denials = await plane.leases.acquire(lacking, meter.wait_seconds)
    return meter.answered(denials, plane.clock.monotonic())


def error_event(dialect: Dialect, refusal: Refusal, request_id: str) -> bytes:
    """The last event of a stream that was ended."""
    _, _, body = refusal_answer(dialect, refusal, request_id)
    return (b"event: error\n" if dialect == "Anthropic" else b"") + b"data: " + body + b"\n\n"
