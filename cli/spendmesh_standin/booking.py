"""What one attempt is charged: from a prepared reply, how it ended and how far it came, to an invoice line. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from spendmesh_standin.faults import Bill
from spendmesh_standin.invoice import InvoiceLine, Reason
from spendmesh_standin.prices import Dialect, Model, Tokens, cost_nanos
from spendmesh_standin.reply import Reply
from spendmesh_standin.settings import Key


@dataclass(frozen=True, slots=True)
class Facts:
    """Who asked for what; `started` is the monotonic and `now` the wall clock in seconds at its arrival."""

    serial: str
    dialect: Dialect
    provider: str
    operation: str
    key: Key
    model: Model | None
    model_name: str
    started: float
    now: float

    @property
    def request_id(self) -> str:
        return f"req_{self.serial}"


def invoice_line(
    facts: Facts, reply: Reply | None, reason: Reason, bill: Bill, status: int, streamed: int
) -> InvoiceLine:
    """The line for an attempt of which `streamed` output tokens were sent; without a reply it costs nothing."""
    tokens, fees, cost, tier = Tokens(), 0, 0, "default"
    if reply is not None and facts.model is not None:
        tokens, tier = _charged(reply, bill, streamed), reply.tier
        fees = reply.fees_nanos if bill in ("streamed", "full") else 0
        cost = cost_nanos(facts.model, tokens, tier=tier, price_percent=reply.price_percent, fees_nanos=fees)
    return InvoiceLine(
        id=facts.request_id,
        time=datetime.fromtimestamp(facts.now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        provider=facts.provider,
        account=facts.key.account,
        key_hash=facts.key.digest,
        dialect=facts.dialect,
        operation=facts.operation,
        model=facts.model_name,
        service_tier=tier,
        status=status,
        reason=reason,
        billed=bill,
        tokens=tokens,
        fees_nanos=fees,
        cost_nanos=cost,
    )


def _charged(reply: Reply, bill: Bill, streamed: int) -> Tokens:
    if bill == "none":
        return Tokens()
    if bill == "input":
        return reply.tokens.input_only()
    if bill == "full":
        return reply.tokens
    thinking = 0 if reply.thinking_streams else reply.tokens.reasoning
    return replace(reply.tokens, output=streamed, reasoning=thinking, rejected=0, hidden=0)
