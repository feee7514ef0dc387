"""The books as the cluster keeps them, read from outside: what is spent, what is held, per limit. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from cluster_access import Cluster, eventually
from cluster_mesh import SYSTEM


@dataclass(frozen=True)
class Account:
    """One limit in one period, in nano-units."""

    amount: int
    settled: int
    """Reported as used, of closed leases too."""
    quarantined: int
    """Charged in full, because nobody can say what of it was spent."""
    charged: int
    """All that counts against the limit: settled, quarantined and what sidecars may still spend."""

    @property
    def ledger(self) -> int:
        """What the books say was spent, the doubtful included."""
        return self.settled + self.quarantined


Sections = Callable[[Cluster], Iterable[dict[str, Any]]]
"""Where the documents of the books are read."""


def objects(cluster: Cluster) -> Iterable[dict[str, Any]]:
    """The documents in BudgetLedger objects."""
    stored = cluster.get("budgetledgers", "-n", SYSTEM)["items"]
    return [one["document"] for ledger in stored for one in ledger["spec"]["books"].values()]


def account(cluster: Cluster, budget: str, limit: str, sections: Sections = objects) -> Account:
    """The account of a budget (`namespace/name`) and limit; zeros if nothing was granted yet."""
    entries = [one for one in sections(cluster) if (one.get("budget"), one.get("limit")) == (budget, limit)]
    if not entries:
        return Account(0, 0, 0, 0)
    assert len({one["start"] for one in entries}) == 1, f"{budget}/{limit}: the period has changed while the tests ran"
    pages = [_read(one) for one in entries]
    return Account(
        pages[0].amount,
        sum(page.settled for page in pages),
        sum(page.quarantined for page in pages),
        sum(page.charged for page in pages),
    )


def _read(entry: dict[str, Any]) -> Account:
    settled = int(entry["closedUsed"]) + sum(int(each["delta"]) for each in entry["corrections"])
    quarantined = charged = 0
    for lease in entry["leases"]:
        rights = int(lease.get("granted", "0")) - int(lease.get("released", "0"))
        used, held = int(lease.get("used", "0")), int(lease.get("held", "0"))
        charge = max(rights * (1 + bool(lease.get("forked"))), used + held)
        charged += charge
        if lease.get("quarantined"):
            quarantined += charge
        else:
            settled += used
    closed = int(entry["closedUsed"]) + sum(int(each["delta"]) for each in entry["corrections"])
    return Account(int(entry["spec"]["amount"]), settled, quarantined, closed + charged)


def settled_at(
    cluster: Cluster,
    budget: str,
    limit: str,
    at_least: int,
    timeout_seconds: float = 45,
    sections: Sections = objects,
) -> Account:
    """The account as soon as it says that so much was spent: reports arrive some seconds after the calls."""

    def look() -> Account | None:
        found = account(cluster, budget, limit, sections)
        return found if found.ledger >= at_least else None

    found: Account = eventually(look, f"the books of {budget}/{limit} reach {at_least}", timeout_seconds)
    return found
