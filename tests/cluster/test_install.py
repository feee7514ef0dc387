"""Installed by Helm with two replicas; the examples are accepted, programmed, and say what they mean."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from cluster_access import eventually
from cluster_mesh import SYSTEM, Mesh

pytestmark = pytest.mark.cluster

KINDS = "mbud,rpol,rbud,mprov"


def test_two_replicas_serve_and_one_leads(mesh: Mesh) -> None:
    """After `helm install --wait` both replicas are ready, and the Lease names one of them."""
    assert len(mesh.operator_pods()) == 2
    assert mesh.ready_leader() in mesh.operator_pods()


def test_the_examples_become_accepted_and_programmed(support: Mesh) -> None:
    """Every object of `examples/support` ends with Accepted and, where pods obey it, Programmed True."""
    for what in ("mprov/openai", "mprov/anthropic", "rpol/support", "mbud/team", "rbud/default"):
        support.cluster.wait("condition=Accepted=True", "-n", "team-a", what, timeout_seconds=30)
        support.cluster.wait("condition=Programmed=True", "-n", "team-a", what, timeout_seconds=30)
        found = support.cluster.get(what, "-n", "team-a")
        generations = {each["observedGeneration"] for each in found["status"]["conditions"]}
        assert generations == {found["metadata"]["generation"]}


def test_get_reads_like_a_bill(support: Mesh, show: Callable[[str, str], None]) -> None:
    """`kubectl get` shows, for each kind, what people look for first."""
    support.cluster.wait("condition=Programmed=True", "-n", "team-a", "mbud/team", timeout_seconds=30)
    printed = support.cluster.kubectl("-n", "team-a", "get", KINDS)
    show(f"kubectl -n team-a get {KINDS}", printed)
    show("kubectl -n team-a get spendmesh", support.cluster.kubectl("-n", "team-a", "get", "spendmesh"))
    budget = next(line for line in printed.splitlines() if line.startswith("modelbudget.spendmesh.io/team"))
    for word in ("monthly", "Month", "2500.00", "USD", "Enforce", "True"):
        assert word in budget.split()
    routing = next(line for line in printed.splitlines() if line.startswith("routingpolicy.spendmesh.io/support"))
    assert "standard" in routing.split()


def test_describe_tells_what_is_in_force(support: Mesh, show: Callable[[str, str], None]) -> None:
    """`kubectl describe` shows conditions with reasons, how many workloads obey, and the tightest limit."""
    for what in ("mbud/team", "rpol/support", "rbud/default", "mprov/openai"):
        support.cluster.wait("condition=Programmed=True", "-n", "team-a", what, timeout_seconds=30)
        printed = support.cluster.kubectl("-n", "team-a", "describe", what)
        show(f"kubectl -n team-a describe {what}", printed)
        for word in ("Conditions:", "Accepted", "Programmed", "Observed Generation:", "Reason:"):
            assert word in printed, f"{word} in describe {what}"
    budget = support.cluster.get("mbud/team", "-n", "team-a")["status"]
    assert budget["workloads"] == {"matched": 1, "effective": 1, "programmed": 1}
    assert budget["tightest"]["limit"] == "monthly"


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("modelbudget.spec.limits", ("amount", "currency", "window", "thresholds")),
        ("routingpolicy.spec.tiers", ("targets", "name")),
        ("retrybudget.spec.retry", ("codes", "attempts", "backoff")),
        ("modelprovider.spec", ("baseURL", "dialect", "plaintext", "prices")),
    ],
)
def test_explain_describes_every_field(
    support: Mesh, field: str, words: tuple[str, ...], show: Callable[[str, str], None]
) -> None:
    """`kubectl explain` has a sentence for each field."""
    printed = support.cluster.kubectl("explain", field)
    show(f"kubectl explain {field}", printed)
    assert "<no description>" not in printed
    for word in words:
        assert f"  {word}\t" in printed


def test_a_misspelt_manifest_is_refused_with_the_field_and_the_fix(support: Mesh) -> None:
    """What the API server can know, it says at `kubectl apply`."""
    manifest = {
        "apiVersion": "spendmesh.io/v1alpha1",
        "kind": "ModelBudget",
        "metadata": {"name": "wrong", "namespace": "team-a"},
        "spec": {
            "limits": [
                {
                    "name": "monthly",
                    "currency": "USD",
                    "amount": "12.5.1",
                    "window": {"type": "Calendar", "period": "Month", "timeZone": "Europe/Berlin"},
                }
            ]
        },
    }
    said = support.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(manifest), check=False)
    assert "amount" in said
    assert "12.5.1" in said


def test_an_object_that_names_what_is_not_there_says_so(support: Mesh) -> None:
    """A RoutingPolicy whose provider does not exist harms nobody: it is not programmed, and its condition names it."""
    manifest = {
        "apiVersion": "spendmesh.io/v1alpha1",
        "kind": "RoutingPolicy",
        "metadata": {"name": "lost", "namespace": "team-a"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "nobody"}},
            "providers": [{"name": "p", "ref": {"name": "missing"}}],
            "tiers": [{"name": "only", "targets": [{"name": "one", "provider": "p", "model": "gpt-4.1-mini"}]}],
            "defaultTier": "only",
        },
    }
    support.cluster.apply(json.dumps(manifest))

    def unresolved() -> str:
        conditions = support.cluster.get("rpol/lost", "-n", "team-a").get("status", {}).get("conditions", [])
        return next((c["message"] for c in conditions if (c["type"], c["status"]) == ("ResolvedRefs", "False")), "")

    try:
        assert "missing" in eventually(unresolved, "ResolvedRefs becomes False")
    finally:
        support.cluster.kubectl("-n", "team-a", "delete", "rpol/lost")


def test_the_operator_serves_metrics_of_the_books(support: Mesh) -> None:
    """Prometheus finds the budgets' state on the operator; names are the contract's."""
    text = support.cluster.ask("GET", f"pods/{SYSTEM}/{support.ready_leader()}:8080", "/metrics")
    for name in ("spendmesh_budget_used_ratio", "spendmesh_policy_pods", "spendmesh_ledger_commits_total"):
        assert name in text
