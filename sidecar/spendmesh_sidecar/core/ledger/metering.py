"""
A stream that holds the beginning of its output, and more as it shows more: how far it is covered, and when it ends.

What a stream has shown is counted in bytes of text, of which there are at least as many as tokens. Output that is not
shown (reasoning) is not seen here either: that it costs no more than a limit allows is kept by `exposure`.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from spendmesh_sidecar.core.ledger.exposure import extend
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.open_attempts import Entry
from spendmesh_sidecar.core.ledger.reservation import Booking, worst_case
from spendmesh_sidecar.core.ledger.rights import Denial
from spendmesh_sidecar.core.ledger.slices import SLICE_TOKENS, slicing
from spendmesh_sidecar.core.ledger.view import still_in_flight
from spendmesh_sidecar.core.refusals import budget_refusal, unanswered
from spendmesh_sidecar.core.settlement import Flight
from spendmesh_sidecar.core.specs import BudgetSpec
from spendmesh_sidecar.core.types import ParsedRequest, Refusal, Shortfall

LEAD_TOKENS = 512
"""So far ahead of what was seen the reservation is extended: about what lies in the buffers of a connection."""


class Meter:
    """
    One attempt's stream.

    Ask `extend` when more than `covers` bytes of text were seen. What lacks then must be acquired; `answered` says
    whether the stream goes on.
    """

    def __init__(self, ledger: Ledger, flight: Flight, booking: Booking, wait_seconds: float) -> None:
        self._ledger, self._flight, self._booking = ledger, flight, booking
        self._seen = 0
        self.wait_seconds = wait_seconds
        """The longest that the stream waits for rights."""
        self.covers = SLICE_TOKENS - LEAD_TOKENS
        """Bytes of text up to which nothing has to be done."""

    def extend(self, seen_bytes: int, now: float) -> tuple[Shortfall, ...]:
        """Hold what the next slice may cost; what lacks for it."""
        self._seen = seen_bytes
        lacking = extend(tuple(self._parts(seen_bytes + SLICE_TOKENS, now)), now)
        if not lacking:
            self.covers = seen_bytes + SLICE_TOKENS - LEAD_TOKENS
        return lacking

    def answered(self, denials: tuple[Denial, ...] | None, now: float) -> Refusal | None:
        """After what lacked was asked for, as in `Exchange.acquired`. None: the stream goes on."""
        lacking = self.extend(self._seen, now)
        if not lacking:
            return None
        if denials is None:
            if all(self._goes_without_rights(lack, now) for lack in lacking):
                self.covers = self._seen + SLICE_TOKENS
                return None
            return _ended(unanswered(lacking))
        told = denials or still_in_flight(self._ledger, lacking, now)
        booking = self._booking
        return _ended(budget_refusal(told, booking.budgets, booking.needs(), booking.largest_output))

    def _parts(self, output_tokens: int, now: float) -> Iterator[tuple[Entry, int]]:
        """What each account has to hold more for so much output. A lease that has ended takes no more on itself."""
        booked, bounds = self._flight.booked, self._booking.request.bounds
        assert booked is not None
        each = min(-(-output_tokens // bounds.choices), booked.max_output_tokens or 0)
        needed = worst_case(self._flight.priced, bounds, each, self._flight.at_unix)
        for entry in _metered(self._ledger, self._flight):
            if entry.lease is not None and entry.lease.open_at(now):
                left = booked.worst.in_unit(entry.unit, dearer=entry.dearer)
                left -= needed.in_unit(entry.unit, dearer=entry.dearer)
                if (more := entry.exposed - max(0, left)) > 0:
                    yield entry, more

    def _goes_without_rights(self, lack: Shortfall, now: float) -> bool:
        account = self._ledger.find(lack.account, now)
        limit = account.limit if account is not None else None
        return limit is not None and limit.on_unverifiable == "Allow"


def meter_of(
    ledger: Ledger, budgets: tuple[BudgetSpec, ...], request: ParsedRequest, flight: Flight | None, wait_seconds: float
) -> Meter | None:
    """For a stream that does not hold all that it may cost; None: there is nothing to extend."""
    if flight is None or not slicing(budgets) or not _metered(ledger, flight):
        return None
    booking = Booking(ledger, budgets, flight.priced, request, flight.reservation, flight.at_unix)
    return Meter(ledger, flight, booking, wait_seconds)


def _metered(ledger: Ledger, flight: Flight) -> tuple[Entry, ...]:
    """Parts of an open attempt that grow with its stream."""
    return tuple(
        entry
        for entry in ledger.open_attempts.entries(flight.reservation)
        if entry.exposed and entry.account.limit is not None and entry.account.limit.reservation == "Streaming"
    )


def _ended(refusal: Refusal) -> Refusal:
    why = "The answer was ended before its end: more of it was not covered. "
    return replace(refusal, message=why + refusal.message)
