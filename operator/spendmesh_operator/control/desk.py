"""Answers people: the bill of budgets, and corrections by who may book them. Beside the books, so on the leader."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from spendmesh_operator.clock import Clock
from spendmesh_operator.control.people import Authorizer, BillQuery, CorrectionOrder
from spendmesh_operator.ledger.books.accounts import BadRequest
from spendmesh_operator.ledger.books.views import AccountView
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator
from spendmesh_operator.ledger.coordinator.serving import NotServing
from spendmesh_operator.status.bill import Bill, bill, exact_amount

log = logging.getLogger("spendmesh.control")

REFERENCE_CHARS = 128
EVIDENCE_CHARS = 256


class PeopleDesk:
    """One for each control server."""

    def __init__(self, coordinator: Coordinator, authorizer: Authorizer, clock: Clock) -> None:
        self._coordinator = coordinator
        self._authorizer = authorizer
        self._clock = clock

    async def bill(self, token: str, query: BillQuery) -> Bill:
        """The bill of one budget, or of all that the query names. Raises AuthError, BadRequest, NotServing."""
        if query.name and not query.namespace:
            raise BadRequest("a budget's name alone is not enough: say its namespace too")
        await self._authorizer.authorize(token, "read", query.namespace, query.name)
        self._check_serving()
        budgets = {
            full: spec
            for full, spec in self._coordinator.remembered().items()
            if query.namespace in ("", full.split("/", 1)[0]) and query.name in ("", full.split("/", 1)[1])
        }
        if query.name and not budgets:
            raise BadRequest(f"there is no valid ModelBudget {query.namespace}/{query.name}")
        return bill(budgets, self._coordinator.views(), datetime.fromtimestamp(self._clock.unix(), UTC))

    async def correct(self, token: str, order: CorrectionOrder) -> Bill:
        """Book a correction, durable when this returns; answers the budget's bill. Raises AuthError, BadRequest."""
        person = await self._authorizer.authorize(token, "correct", order.namespace, order.name)
        self._check_serving()
        for field, text, most in (
            ("reference", order.reference, REFERENCE_CHARS),
            ("evidence", order.evidence, EVIDENCE_CHARS),
        ):
            if not (0 < len(text) <= most and text.isprintable()):
                raise BadRequest(f"{field} must be 1 to {most} printable characters")
        account = self._account(order)
        amount = exact_amount(order.amount, account.limit.unit)
        evidence = f"{order.evidence} (booked by {person})"
        if order.pod:
            await self._coordinator.settle_quarantined(account.key, order.pod, amount, order.reference, evidence)
        else:
            await self._coordinator.correct(account.key, order.reference, amount, evidence)
        full = f"{order.namespace}/{order.name}"
        log.warning("%s booked correction %s on %s/%s", person, order.reference, full, order.limit)
        budgets = {name: spec for name, spec in self._coordinator.remembered().items() if name == full}
        return bill(budgets, self._coordinator.views(), datetime.fromtimestamp(self._clock.unix(), UTC))

    def _account(self, order: CorrectionOrder) -> AccountView:
        full = f"{order.namespace}/{order.name}"
        for view in self._coordinator.views():
            if (view.key.budget, view.key.limit, view.key.per) == (full, order.limit, ()):
                return view
        raise BadRequest(f"nothing was spent on limit {order.limit!r} of {full} in the running period")

    def _check_serving(self) -> None:
        if not self._coordinator.serving:
            raise NotServing("the books are not open here: retry")
