"""A small budget, spent to its end by two pods at once: refused in time, and not before it is nearly spent."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cluster_access import eventually
from cluster_books import Account, settled_at
from cluster_mesh import App, Mesh

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
USD = 10**9
LIMIT_USD = "0.1"
LIMIT = 100_000_000
# 900 bytes of prompt at 0.4 USD and at most 100 tokens of answer at 1.6 USD for a million each.
WORST_CASE = 1_100 * 700 + 100 * 2_800
"""At most, by the dearest service tier, in nano-USD: about 1 % of the limit."""
CALL = {
    "model": "auto",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": f"[[in=850]] [[out=90]] {'x' * 880}"}],
}


@pytest.fixture(scope="module")
def spent(mesh: Mesh) -> list[Json]:
    """The outcomes of two pods that call until the budget refuses them, and then some."""
    mesh.namespace("budget")
    mesh.policies("budget", budget=LIMIT_USD)
    pods = [mesh.start_app("budget", f"caller-{number}", wait=False) for number in (1, 2)]
    for pod in pods:
        pod.wait_ready()
    jobs = [pod.start_job("chat", count=140, workers=3, **CALL) for pod in pods]
    outcomes = [outcome for job in jobs for outcome in job.finish()]

    def exhausted() -> bool:
        outcomes.append(pods[0].call("chat", **CALL))
        return error(outcomes[-1]) == "budget_exceeded"

    eventually(exhausted, "what the other pod gave back is spent too", 60, 1)
    return outcomes


def error(outcome: Json) -> str:
    """The code of a refusal; empty for an answer."""
    code: str = outcome.get("headers", {}).get("x-spendmesh-error", "")
    return code


def books(mesh: Mesh) -> Account:
    """The account when all reports are in: the books then hold at least the invoice."""
    return settled_at(mesh.cluster, "budget/pool", "total", mesh.invoice_nanos("budget"))


def test_the_budget_ends_in_402(spent: list[Json]) -> None:
    """Calls are answered, then refused with what to do about it, at last for good; nothing else happens."""
    refused = [outcome for outcome in spent if outcome.get("status") == 402]
    assert set(Counter(outcome.get("status") for outcome in spent)) == {200, 402}
    assert {error(outcome) for outcome in refused} <= {"budget_exceeded", "budget_in_flight"}
    assert error(refused[-1]) == "budget_exceeded"
    for outcome in refused:
        assert outcome["headers"]["x-should-retry"] == "false"
        assert "budget/pool" in outcome["body"]["message"]


def test_invoice_ledger_and_limit_are_in_order(spent: list[Json], mesh: Mesh) -> None:
    """invoice ≤ ledger ≤ limit, from both sides: at least 95 % of the limit was spent before calls were refused."""
    invoice, found = mesh.invoice_nanos("budget"), books(mesh)
    assert 2 * WORST_CASE <= LIMIT // 10
    assert found.amount == LIMIT
    assert invoice <= found.ledger <= found.charged <= LIMIT
    assert invoice * 100 >= LIMIT * 95, f"{invoice} of {LIMIT}"


def test_a_refused_call_moves_no_money(spent: list[Json], mesh: Mesh) -> None:
    """Once the budget is spent, both pods are refused, and the provider hears nothing of it."""
    before = mesh.invoice_nanos("budget")
    for name in ("caller-1", "caller-2"):
        outcome = App(mesh, "budget", name).call("chat", **CALL)
        assert (outcome["status"], error(outcome)) == (402, "budget_exceeded"), outcome
    assert mesh.invoice_nanos("budget") == before


def test_the_budget_says_that_it_is_spent(spent: list[Json], mesh: Mesh) -> None:
    """`kubectl get mbud` tells people, in the line that they look at first."""

    def percent() -> int:
        shown: int = mesh.cluster.get("mbud/pool", "-n", "budget")["status"]["tightest"]["percent"]
        return shown

    assert eventually(lambda: percent() >= 95, "the status says that it is spent", 60)
