"""
What must hold after each step of a sidecar and each bill, and when all is quiet; told by somebody who sees everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ledgersim.durable import DurableChecks, Track
from ledgersim.rows import Violation as Violation
from spendmesh_operator.ledger.books.accounts import AccountKey
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities
from spendmesh_sidecar.core.ledger.partitions import OTHER
from spendmesh_sidecar.protocol import AcquireReply

if TYPE_CHECKING:
    from ledgersim.provider import Bill
    from ledgersim.sidecar import Sidecar
    from ledgersim.workload import Call
    from ledgersim.world import World
    from spendmesh_sidecar.core.exchange import Exchange


@dataclass(slots=True)
class _Reservation:
    """One attempt: where it is held, what was billed, how it was settled."""

    parts: list[tuple[str, Charge]]
    billed: Bill | None = None
    settled: Quantities | None = None
    resolved: int = 0


class Checker(DurableChecks):
    """Hears what else happens."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.reservations: dict[str, _Reservation] = {}
        self.left: set[str] = set()
        """Nonces whose sidecar is gone or has taken another: what they hold stays charged."""

    # --- what sidecars do ---------------------------------------------------------------------------------

    def heard(self, reply: AcquireReply) -> None:
        """A sidecar hears of grants: they are durable (I3). And of values that share an account."""
        for each in reply.assigned:
            self.shared(each.asked, each.account)
        for denial in reply.denials:
            self.world.happened[f"ledger: denied, {denial.reason}"] += 1
        for lease in reply.leases:
            if lease.id not in self.key_of and lease.granted:
                raise self.violated("persist before reveal", f"lease {lease.id} was revealed, in no durable books")

    def reserved(self, reservation: str, parts: list[tuple[str, Charge]]) -> None:
        """An attempt is booked; `parts` are lease and charge."""
        if reservation in self.reservations:
            raise self.violated("settle once", f"{reservation} was reserved twice")
        self.reservations[reservation] = _Reservation(parts)
        for lease, charge in parts:
            self.check_value(self.key_of.get(lease), charge.account)
        self.world.trace("reserve", reservation, [(lease, charge.amount) for lease, charge in parts])

    def resolved(self, reservation: str, actual: Quantities | None) -> None:
        """An attempt is settled, or void (None)."""
        known = self.reservations[reservation]
        known.resolved += 1
        if known.resolved > 1:
            raise self.violated("settle once", f"{reservation} was resolved {known.resolved} times")
        known.settled = actual if actual is not None else Quantities(0, "USD", 0, 0, 0)
        for lease, charge in known.parts:
            self.settled_in[lease] += known.settled.in_unit(charge.unit)
        self._check_settled(reservation, known)
        self.world.trace("settle", reservation, known.settled.cost_nanos)

    def recovered(self, in_flight: tuple[str, ...]) -> None:
        """
        What a log had no end of is settled at its worst, also where the end was known and not written yet: that errs
        towards more spend.
        """
        for reservation in in_flight:
            known = self.reservations[reservation]
            worst = _worst(known.parts)
            for lease, charge in known.parts:
                before = known.settled.in_unit(charge.unit) if known.settled is not None else 0
                self.settled_in[lease] += worst.in_unit(charge.unit) - before
            known.settled, known.resolved = worst, 1
            self._check_settled(reservation, known)
            self.world.happened["recovered in flight"] += 1

    def forgotten(self, process: str) -> None:
        """A killed process's log was continued: what it did not know of as open was booked as nothing."""
        for reservation, known in self.reservations.items():
            if not known.resolved and reservation.startswith(f"{process}/"):
                self.resolved(reservation, None)

    def _check_settled(self, reservation: str, known: _Reservation) -> None:
        if known.billed is None or known.settled is None or all(charge.observed for _, charge in known.parts):
            return  # what no limit enforces is estimated where nothing is known of it
        if known.settled.cost_nanos < known.billed.cost_nanos:
            raise self.violated(
                "settle >= bill",
                f"{reservation} was settled at {known.settled.cost_nanos}, billed {known.billed.cost_nanos}",
            )

    def abandoned(self, uid: str, nonce: str) -> None:
        """Nobody speaks under this nonce any more."""
        self.left.add(nonce)
        self.world.trace("abandoned", uid, nonce)

    def copied(self, nonce: str) -> None:
        """Two processes speak under this nonce."""
        self.copies.add(nonce)

    # --- what is billed -----------------------------------------------------------------------------------

    def billed(self, reservation: str, bill: Bill) -> None:
        """The provider's invoice grows; each part counts in the period of its reservation."""
        known = self.reservations[reservation]
        known.billed = bill
        self.world.trace("bill", reservation, bill.cost_nanos)
        for lease, charge in known.parts:
            key = self.key_of.get(lease)
            if key is None:
                raise self.violated("persist before reveal", f"{reservation} spends from {lease}, in no durable books")
            track = self.accounts[key]
            track.billed += _in_unit(bill, charge.unit)
            self.check_invoice(key, track)
        self._check_settled(reservation, known)

    # --- refusals -----------------------------------------------------------------------------------------

    def refused(self, sidecar: Sidecar, exchange: Exchange, call: Call, began: float) -> None:
        """No false refusal: with enough free rights all the time and no fault, a call is served."""
        world = self.world
        if world.history.kind == "storm":
            return
        worst = call.input_tokens + 3 * (call.max_output_tokens or 256)
        others = sum(each.waiting for each in world.pods.sidecars())
        for budget in sidecar.policy.budgets:
            for limit in budget.limits:
                need = worst if limit.unit == "Cost" else 1
                least = self.least_free(budget.name, limit, call.user or OTHER, began - 2.0)
                if budget.mode == "Enforce" and least < need * (1 + others):
                    return
        raise self.violated("no false refusal", f"{exchange.request_id} needed {worst} and got {exchange.refusal}")

    # --- the end ------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """All is quiet: what is still open has a cause, and nobody has died unheard."""
        world = self.world
        if failures := world.process_failures():
            raise self.violated("process", failures[0])
        living = {each.ledger.nonce for each in world.pods.sidecars()}
        for sidecar in world.pods.sidecars():
            if sidecar.ledger.open_reservations:
                raise self.violated("settle once", f"{sidecar.process.name} holds reservations for ever")
            if any(account.promised or account.awaited for account in sidecar.ledger.accounts.values()):
                raise self.violated("promised", f"{sidecar.process.name} keeps rights for calls that are gone")
        for key, track in self.accounts.items():
            if track.account is not None and not self._restored:
                self._check_stranded(key, track, living)
        if world.history.kind == "race":
            self._check_spent()

    def _check_stranded(self, key: AccountKey, track: Track, living: set[str]) -> None:
        """ledger - invoice <= what unknown outcomes settled beyond the bill + what leases without a holder hold."""
        over = 0
        for known in self.reservations.values():
            for lease, charge in known.parts:
                if self.key_of.get(lease) == key and known.settled is not None:
                    billed = _in_unit(known.billed, charge.unit) if known.billed is not None else 0
                    over += max(0, known.settled.in_unit(charge.unit) - billed)
        stranded = sum(lease.charge for lease in track.leases.values())
        for lease in track.leases.values():
            if lease.holder.nonce not in living | self.left:
                raise self.violated("stranded", f"lease {lease.id} has a holder that was never there: {lease.holder}")
            if lease.holder.nonce in living - self.copies and lease.sequence and not lease.quarantined:
                raise self.violated("stranded", f"lease {lease.id} of a living holder was not closed: {lease}")
        if not track.observed and track.charged - track.billed > over + stranded + track.written_off:
            raise self.violated(
                "ledger - invoice", f"{key.budget}: {track.charged} - {track.billed} > {over} + {stranded}"
            )

    def _check_spent(self) -> None:
        """Who races to the end leaves at most one worst case for each sidecar."""
        world = self.world
        worst = {call.pod: call.input_tokens + 3 * (call.max_output_tokens or 0) for call in world.history.calls}
        for key, track in self.accounts.items():
            if key.limit != "money" or key.budget == "org/all" or track.account is None:
                continue
            amount = track.account.limit.amount
            left = sum(most for pod, most in worst.items() if budget_of(world, pod) == key.budget)
            if track.charged < amount - left:
                raise self.violated("spent to the end", f"{key.budget}: {track.charged} of {amount}, {left} may stay")


def budget_of(world: World, pod: int) -> str:
    """The team's budget that a pod spends from."""
    return world.policy(world.terms, pod).policy.budgets[-1].name


def _in_unit(bill: Bill, unit: str) -> int:
    return bill.cost_nanos if unit == "Cost" else 1


def _worst(parts: list[tuple[str, Charge]]) -> Quantities:
    """What was held, in every unit that it was held in."""
    of = {charge.unit: charge.amount for _, charge in parts}
    return Quantities(of.get("Cost", 0), "USD", of.get("InputTokens", 0), of.get("OutputTokens", 0))
