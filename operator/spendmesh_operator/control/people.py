"""
What people ask the control server, and who may: messages, the protocol of all authorizers, and one token of a machine.

A person's right is that to the ModelBudget itself: who may read the object may read its bill, and a correction is a
right of its own. The token must be for our audience, so that it opens nothing else here or elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal, Protocol

import msgspec

from spendmesh_operator.control.auth import Forbidden, Unauthenticated

PATH_BILL = "/v1/budgets/bill"
PATH_CORRECTION = "/v1/budgets/correction"

Right = Literal["read", "correct"]


class BillQuery(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Which budgets: one, all of a namespace, or (both empty) all."""

    namespace: str = ""
    name: str = ""


class CorrectionOrder(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """
    Proof that came later, for the running period of a limit, booked once per `reference`.

    Either `amount` is added to what is spent (negative takes back), or `pod` names a vanished pod whose quarantined
    rights are settled at `amount`. Amounts are decimal text in the limit's own unit.
    """

    namespace: str
    name: str
    limit: str
    reference: str
    evidence: str
    amount: str
    pod: str = ""


class Authorizer(Protocol):
    """Finds out whose token it is, and whether that person has a right."""

    async def authorize(self, token: str, right: Right, namespace: str, name: str) -> str:
        """
        The person's name, for the record. Empty `namespace` or `name`: all of them.

        Raises Unauthenticated, Forbidden or AuthUnavailable.
        """


class OnePerson:
    """Who started `spendmesh run` on this machine, by the token that was made then."""

    def __init__(self, token: str) -> None:
        self._fingerprint = hashlib.sha256(token.encode()).digest()

    async def authorize(self, token: str, right: Right, namespace: str, name: str) -> str:
        """Every right."""
        shown = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        if not hmac.compare_digest(shown, self._fingerprint):
            raise Unauthenticated("this token is not known here: use the one in the state folder's control.json")
        return "local"


class Nobody:
    """Where no authorizer was configured."""

    async def authorize(self, token: str, right: Right, namespace: str, name: str) -> str:
        """Nothing."""
        raise Forbidden("this control server answers no people")
