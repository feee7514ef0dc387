"""
What waits for the coordinator: one change of the books each, applied as often as a store makes it necessary. Pure.

An operation that was denied stays denied (k8s#141904: a retry that looked only at a part let a denial pass).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from spendmesh_operator.ledger.books.accounts import LedgerError, LimitInForce
from spendmesh_operator.ledger.books.books import Books, LimitsOf
from spendmesh_operator.ledger.books.partitions import NOWHERE, PodPlace
from spendmesh_sidecar.policy import Policy
from spendmesh_sidecar.protocol import AccountRef, AcquireReply

Change = Callable[[Books, int], Any]
"""Applies itself at `now_ms` and answers; must be deterministic and complete, because it may be applied again."""


class PolicyInForce(Protocol):
    """A pod's policy as the operator knows it; `compile.CompiledPolicy` is one."""

    @property
    def policy(self) -> Policy: ...

    @property
    def unverifiable(self) -> frozenset[str]:
        """Budgets that never had a valid meaning."""


class Operation:
    """One change, and the caller who waits for its answer to be durable."""

    def __init__(self, change: Change, answer: asyncio.Future[Any]) -> None:
        self.answer = answer
        self.revision = 0
        """Of the books after it was applied: reveal nothing before this is durable (I3)."""
        self._change = change
        self._reply: Any = None
        self._error: LedgerError | None = None

    def apply(self, books: Books, now_ms: int) -> None:
        """
        Evaluate from scratch on these books. A denial of an earlier evaluation is kept, without the rights that were
        told beside it: they were in books that never became durable.
        """
        if self.denied:
            self._reply = AcquireReply(denials=self._reply.denials)
            self.revision = 0
            return
        self._reply, self._error = None, None
        try:
            self._reply = self._change(books, now_ms)
        except LedgerError as error:
            self._error = error
        self.revision = books.revision

    @property
    def denied(self) -> bool:
        """Whether it was refused rights."""
        return isinstance(self._reply, AcquireReply) and bool(self._reply.denials)

    def reconsider(self, books: Books, now_ms: int) -> None:
        """Evaluate a denial anew, on newer books than it was found on: nobody has heard of it."""
        self._reply = None
        self.apply(books, now_ms)

    def reveal(self) -> None:
        """Answer the caller, if there still is one."""
        if self.answer.done():
            return
        if self._error is not None:
            self.answer.set_exception(self._error)
        else:
            self.answer.set_result(self._reply)

    def fail(self, error: LedgerError) -> None:
        """Answer that nothing is known to have happened."""
        if not self.answer.done():
            self.answer.set_exception(error)


def limits_of(in_force: PolicyInForce | None, place: PodPlace = NOWHERE) -> LimitsOf:
    """The limits that a pod's policy has, by reference; `place` is what is known of the pod itself."""
    if in_force is None:
        return lambda _: None
    known = {
        AccountRef(budget=budget.name, limit=limit.name): LimitInForce(
            limit, budget.mode, verifiable=budget.name not in in_force.unverifiable, place=place
        )
        for budget in in_force.policy.budgets
        for limit in budget.limits
    }
    return lambda ref: known.get(AccountRef(budget=ref.budget, limit=ref.limit))
