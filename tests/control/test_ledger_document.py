"""The stored document: amounts exact in any reader, and damage never read as "nothing spent"."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger_samples import START_MS, acquire, budget, limits_of, want
from spendmesh_operator.ledger.accounts import Holder
from spendmesh_operator.ledger.books import Books
from spendmesh_operator.ledger.document import LedgerUnreadable, decode, encode

HUGE = 10**18


def sample() -> dict[str, Any]:
    """Books with one lease of an amount that a float cannot hold, as JSON gives them back."""
    books = Books("prod")
    books.acquire(Holder("u", "n/p", "x"), acquire("r", "x", want(HUGE - 1)), limits_of(budget(HUGE)), START_MS)
    document: dict[str, Any] = json.loads(json.dumps(encode(books)))
    return document


def test_amounts_are_decimal_strings() -> None:
    """JSON numbers above 2^53 lose digits in other hands."""
    (account,) = sample()["accounts"]

    assert account["spec"]["amount"] == "1000000000000000000"
    assert account["leases"][0]["granted"] == "999999999999999999"
    assert account["closedUsed"] == "0"


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("accounts"),
        lambda document: document.pop("pods"),
        lambda document: document.pop("epoch"),
        lambda document: document["accounts"][0].pop("closedUsed"),
        lambda document: document["accounts"][0].update(closedUsed=5),
        lambda document: document["accounts"][0].update(mode="Ignore"),
        lambda document: document["accounts"][0]["spec"].pop("window"),
        lambda document: document["accounts"][0]["leases"][0].pop("nonce"),
        lambda document: document["accounts"][0]["leases"][0].update(granted="1e3"),
        lambda document: document["accounts"][0]["leases"][0].update(quarantined="perhaps"),
        lambda document: document["accounts"][0]["leases"][0].update(refund="5"),
        lambda document: document.update(accounts=None),
        lambda document: document.update(format=2),
    ],
)
def test_a_damaged_or_newer_document_is_refused(damage: Any) -> None:
    """Row 33: an unknown record means stop, not skip."""
    document = sample()
    damage(document)

    with pytest.raises(LedgerUnreadable):
        decode(document, "prod")


def test_the_books_of_another_domain_are_refused_with_the_fix() -> None:
    """A changed cluster name must not begin with empty books."""
    with pytest.raises(LedgerUnreadable, match="set the cluster name back"):
        decode(sample(), "staging")
