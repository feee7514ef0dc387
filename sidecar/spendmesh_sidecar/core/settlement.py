"""
What one attempt is charged in the end: exact where the provider said so, else the worst it can have been.

Turns an outcome into amounts and a record; booking them is the ledger's.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_sidecar.core.admission import Priced
from spendmesh_sidecar.core.failures.breaker import Permit
from spendmesh_sidecar.core.ledger.charges import Quantities
from spendmesh_sidecar.core.ledger.reservation import Booked
from spendmesh_sidecar.core.outcome import actual, estimate
from spendmesh_sidecar.core.prices.costs import Pricing, cost, worst_tokens
from spendmesh_sidecar.core.specs import ModelPrice
from spendmesh_sidecar.core.types import Bounds, Outcome, ParsedRequest, Settlement, Usage

UNLIMITED_OUTPUT_TOKENS = 10**9
"""Where no maximum was sent, no report of output is too large to be true."""

Source = Literal["exact", "estimated", "worst", "void"]


class Flight(Struct, gc=False):
    """One attempt that is on its way."""

    number: int
    reservation: str
    priced: Priced
    booked: Booked | None
    """None: a free operation."""
    permit: Permit
    at_unix: int


class Bill(Struct, frozen=True, gc=False):
    """The end of one attempt."""

    quantities: Quantities | None
    """None: nothing was billed, the reservation is void."""
    settlement: Settlement
    excess: bool = False
    """The provider reported more than the request can physically have used."""


def bill(
    request: ParsedRequest,
    flight: Flight,
    outcome: Outcome,
    pricing: Pricing,
    *,
    enforced: bool,
    ended_unix: int | None,
) -> Bill:
    """
    The charge for an attempt. `ended_unix` None: nobody saw how it ended, so nothing speaks for less than the worst.

    Where a price began while it ran, the dearer of both counts. Without an enforced budget there is no proven worst
    case worth recording: unknown use is estimated.
    """
    booked = flight.booked
    if booked is None:
        return Bill(None, _record(request, flight, outcome, Usage(), "void", 0, 0, pricing))
    price = flight.priced.price
    limited = flight.priced.injected or request.bounds.max_output_tokens is not None or not request.bounds.output_field
    maximum = (booked.max_output_tokens or 0) if limited else UNLIMITED_OUTPUT_TOKENS
    found = actual(request.operation.dialect, outcome, request.bounds, maximum, price)
    usage: Usage = found.usage
    source: Source = found.source
    at_worst, excess = source == "worst" or found.deficit, found.excess
    if request.unpriced_fields:
        excess = False  # what such a field brings in (a stored file, a search) is in no bound
    if ended_unix is None:
        usage, source, excess = worst_tokens(price, request.bounds, booked.max_output_tokens or 0), "worst", False
        at_worst = True
    if at_worst and not enforced:
        usage, source, at_worst = estimate(outcome, request.bounds), "estimated", False
    if source == "void":
        return Bill(None, _record(request, flight, outcome, usage, "void", 0, 0, pricing), excess)
    if at_worst:
        usage = replace(usage, output_tokens=booked.worst.output_tokens)
        quantities = claimed = booked.worst
    else:
        ended, listed = ended_unix or flight.at_unix, flight.priced.listed
        claimed = Quantities(
            _dearest_cost(price, usage, request.bounds, flight.at_unix, ended),
            booked.worst.currency,
            usage.total_input_tokens,
            usage.output_tokens,
            listed_nanos=_dearest_cost(listed, usage, request.bounds, flight.at_unix, ended) if listed else 0,
        )
        quantities = _at_most(claimed, booked.worst) if excess else claimed
    if excess:
        source = "estimated"
    charged, beyond = quantities.cost_nanos, max(0, claimed.cost_nanos - booked.worst.cost_nanos)
    return Bill(quantities, _record(request, flight, outcome, usage, source, charged, beyond, pricing), excess)


def _dearest_cost(price: ModelPrice | None, usage: Usage, bounds: Bounds, began_unix: int, ended_unix: int) -> int:
    if price is None:
        return 0
    nanos = cost(price, usage, began_unix, bounds.service_tiers)
    if ended_unix == began_unix or len(price.rows) == 1:
        return nanos
    return max(nanos, cost(price, usage, ended_unix, bounds.service_tiers))


def _at_most(claimed: Quantities, held: Quantities) -> Quantities:
    """A claim as far as it was reserved, in each unit by itself."""
    return Quantities(
        min(claimed.cost_nanos, held.cost_nanos),
        held.currency,
        min(claimed.input_tokens, held.input_tokens),
        min(claimed.output_tokens, held.output_tokens),
        listed_nanos=min(claimed.listed_nanos, held.listed_nanos),
    )


def _record(
    request: ParsedRequest,
    flight: Flight,
    outcome: Outcome,
    usage: Usage,
    source: Source,
    cost_nanos: int,
    overrun_nanos: int,
    pricing: Pricing,
) -> Settlement:
    candidate, booked = flight.priced.candidate, flight.booked
    return Settlement(
        reservation=flight.reservation,
        number=flight.number,
        target=candidate.target.name,
        tier=candidate.tier,
        provider=candidate.provider.alias,
        model=candidate.target.model,
        kind=outcome.kind,
        status=outcome.status,
        usage=usage,
        source=source,
        cost_nanos=cost_nanos,
        currency=booked.worst.currency if booked else "",
        price_version=pricing.version,
        reserved_nanos=booked.worst.cost_nanos if booked else 0,
        overrun_nanos=overrun_nanos,
        error_code=outcome.error_code,
        uncounted=booked.uncounted if booked and source != "void" else (),
    )
