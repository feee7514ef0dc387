"""Twenty pods race one budget to its end while the leader and one of them die: it stops exactly, nothing comes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from cluster_access import Cluster, eventually
from cluster_books import Account, account, objects, settled_at
from cluster_mesh import SYSTEM, App, Mesh
from cluster_postgres import BooksDatabase

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
PODS = 20
CALLS = 100
LIMIT_USD = "0.8"
LIMIT = 800_000_000
# 900 bytes of prompt at 0.4 USD and at most 100 tokens of answer at 1.6 USD for a million each.
WORST_CASE = 1_100 * 700 + 100 * 2_800
"""At most, by the dearest service tier, in nano-USD."""
CALL = {
    "model": "auto",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": f"[[in=850]] [[out=90]] {'x' * 880}"}],
}
REFUSALS = {200: {""}, 402: {"budget_exceeded", "budget_in_flight"}, 503: {"budget_unverifiable"}}
"""What a call may come to; 503 only where a pod's own rights end while nobody leads (onUnverifiable: Deny)."""


@dataclass(frozen=True)
class Race:
    """What came of it."""

    outcomes: list[Json]
    """Of the pods that lived to the end."""
    old_leader: str
    invoice: int
    books: Account


class Store(Protocol):
    """Where the books of a race are kept."""

    def sections(self, cluster: Cluster) -> Iterable[Json]:
        """Their documents."""

    def crash(self) -> None:
        """Stop it at once; returns when it serves again."""


class Objects:
    """BudgetLedgers in the API server, whose own crashes are not this test's."""

    def sections(self, cluster: Cluster) -> Iterable[Json]:
        """Their documents."""
        return objects(cluster)

    def crash(self) -> None:
        """Nothing to stop."""


def run_race(mesh: Mesh, namespace: str, store: Store) -> Race:
    """
    All pods call until they are refused. On the way the leading replica is killed -9, the store crashes and a pod is
    deleted.
    """
    mesh.namespace(namespace)
    mesh.policies(namespace, budget=LIMIT_USD)
    apps = mesh.start_apps(namespace, [f"racer-{number}" for number in range(PODS)], timeout_seconds=240)
    old = mesh.ready_leader()
    mesh.faults({"action": "slow", "account": namespace, "ttft_seconds": 0.5})  # else twenty SDKs starve a small node
    jobs = {app.name: app.start_job("chat", count=CALLS, workers=1, **CALL) for app in apps}
    _spent(mesh, namespace, LIMIT // 4)
    mesh.keep_operator_logs()
    if mesh.cluster.node is not None:
        mesh.cluster.kill_container(SYSTEM, old, "operator")
    mesh.cluster.kubectl("-n", SYSTEM, "delete", "pod", old, "--grace-period=0", "--force", "--wait=false")
    store.crash()
    _spent(mesh, namespace, LIMIT // 2)
    victim = apps.pop()
    mesh.cluster.kubectl("-n", namespace, "delete", "pod", victim.name, "--grace-period=0", "--force")
    outcomes = [outcome for app in apps for outcome in jobs[app.name].finish(180)]
    mesh.faults()
    outcomes += _to_the_end(apps)
    invoice = mesh.invoice_nanos(namespace)
    books = settled_at(mesh.cluster, f"{namespace}/pool", "total", invoice, sections=store.sections)
    mesh.cluster.kubectl("-n", namespace, "delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false")
    return Race(outcomes, old, invoice, books)


def _spent(mesh: Mesh, namespace: str, nanos: int) -> None:
    eventually(lambda: mesh.invoice_nanos(namespace) >= nanos, f"{nanos} nano-USD are spent", 120, 2)


def _to_the_end(apps: list[App]) -> list[Json]:
    """Calls of each pod until it is refused for good: what idle pods hold comes back within 30 s and is spent too."""
    outcomes: list[Json] = []

    def all_refused() -> bool:
        last = [app.call("chat", **CALL) for app in apps]
        outcomes.extend(last)
        return all(_code(outcome) == "budget_exceeded" for outcome in last)

    eventually(all_refused, "every pod is refused for good", 120, 1)
    return outcomes


def _code(outcome: Json) -> str:
    code: str = outcome.get("headers", {}).get("x-spendmesh-error", "")
    return code


@pytest.fixture(scope="module", params=["BudgetLedger", "PostgreSQL"])
def race(mesh: Mesh, request: pytest.FixtureRequest) -> Iterator[Race]:
    """A race on each store; on PostgreSQL, it is stopped and started in the middle. The books move there and back."""
    if request.param == "BudgetLedger":
        yield run_race(mesh, "race", Objects())
        return
    database = BooksDatabase(mesh)
    database.install()
    address = ("--set", "ledger.postgresql.secretName=spendmesh-books")
    before = account(mesh.cluster, "race/pool", "total")
    mesh.install("upgrade", "--set", "ledger.store=PostgreSQL", *address)
    moved = settled_at(mesh.cluster, "race/pool", "total", before.ledger, sections=database.sections)
    assert moved.ledger == before.ledger, "what was spent before moves along"
    found = run_race(mesh, "race-on-postgres", database)
    yield found
    mesh.install("upgrade", *address)
    assert settled_at(mesh.cluster, "race-on-postgres/pool", "total", found.invoice).ledger == found.books.ledger


def test_every_call_is_answered_or_refused_for_the_budget(race: Race, mesh: Mesh) -> None:
    """The death of leader, store and pod breaks no other pod's call; another replica leads."""
    found = {(outcome.get("status", 0), _code(outcome)) for outcome in race.outcomes}
    assert all(code in REFUSALS.get(status, ()) for status, code in found), found
    assert eventually(lambda: mesh.leader() not in ("", race.old_leader), "another replica leads", 40)


def test_invoice_ledger_and_limit_are_in_order_after_the_race(
    race: Race, show: Callable[[str, str], None], request: pytest.FixtureRequest
) -> None:
    """invoice ≤ ledger ≤ limit, and at least 95 % of it: what the pods' last calls could not use is far less."""
    found, statuses = race.books, Counter(outcome["status"] for outcome in race.outcomes)
    assert PODS * WORST_CASE <= LIMIT // 10
    show(
        f"a race of {PODS} pods, nano-USD: {request.node.name}",
        f"invoice {race.invoice} <= ledger {found.ledger} <= charged {found.charged} <= limit {LIMIT}; "
        f"quarantined {found.quarantined}; calls by status {dict(sorted(statuses.items()))}",
    )
    assert race.invoice <= found.ledger <= found.charged <= LIMIT
    assert found.ledger * 100 >= LIMIT * 95, f"{found.ledger} of {LIMIT}"
