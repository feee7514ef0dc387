"""The end of the run: what the operator logged, an upgrade, an uninstall; CRDs, policies and books outlive them.

Named so that it runs last: the tests before it want their installation.
"""

from __future__ import annotations

import json
import re

import pytest

from cluster_access import eventually
from cluster_books import account, settled_at
from cluster_mesh import SYSTEM, Mesh, caller_pod

pytestmark = pytest.mark.cluster

CRDS = ("budgetledgers", "modelbudgets", "modelproviders", "retrybudgets", "routingpolicies")


def test_the_operator_was_never_forbidden_anything(support: Mesh) -> None:
    """Under the chart's RBAC, through all that happened: no 401 or 403 from the API server, no traceback."""
    support.keep_operator_logs()
    lines = [line for log in support.kept_logs for line in log.splitlines()]
    assert [line for line in lines if "this replica leads" in line]
    wrong = re.compile(r"forbidden|unauthorized|\b40[13]\b|traceback", re.IGNORECASE)
    assert [line for line in lines if wrong.search(_without_clock(line))] == []


def _without_clock(line: str) -> str:
    """Milliseconds and ids may read 403 too."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    return json.dumps({name: value for name, value in fields.items() if name not in ("time", "uid")})


def _crd_uids(mesh: Mesh) -> dict[str, str]:
    names = [f"{kind}.spendmesh.io" for kind in CRDS]
    return {crd["metadata"]["name"]: crd["metadata"]["uid"] for crd in mesh.cluster.get("crd", *names)["items"]}


def test_an_upgrade_keeps_crds_policies_and_books(support: Mesh) -> None:
    """`helm upgrade` with other values rolls the replicas; spend goes on from where it was."""
    app = support.apps("team-a", "app=support")[0]
    assert app.ask("Before. [[out=5]]", max_tokens=16)["status"] == 200
    crds, pods = _crd_uids(support), set(support.operator_pods())
    books = account(support.cluster, "team-a/team", "monthly")
    support.install("upgrade", "--set", "operator.logLevel=Debug")
    eventually(lambda: not pods & set(support.operator_pods()), "all replicas are new", 60)
    support.ready_leader()
    assert _crd_uids(support) == crds
    assert support.cluster.get("rpol/support", "-n", "team-a")["metadata"]["generation"] >= 1
    assert app.ask("After. [[out=5]]", max_tokens=16)["status"] == 200
    invoice = support.invoice_nanos("team-a")
    assert books.ledger <= invoice
    settled_at(support.cluster, "team-a/team", "monthly", invoice)


def test_an_uninstall_keeps_crds_policies_and_books(support: Mesh) -> None:
    """`helm uninstall` takes the webhook away, so that pods start; what people wrote and what they spent stays, and a
    new installation goes on with it."""
    crds, books = _crd_uids(support), account(support.cluster, "team-a/team", "monthly")
    support.cluster.helm("uninstall", "spendmesh", "--namespace", SYSTEM, "--wait", "--timeout", "90s")
    assert _crd_uids(support) == crds
    assert support.cluster.get("mbud", "-n", "team-a")["items"]
    support.cluster.apply(json.dumps(caller_pod("team-a", "later")))
    assert "initContainers" not in support.cluster.get("pod", "later", "-n", "team-a")["spec"]
    support.install()
    support.ready_leader()
    app = support.apps("team-a", "app=support")[0]
    assert app.ask("Back. [[out=5]]", max_tokens=16)["status"] == 200
    invoice = support.invoice_nanos("team-a")
    assert settled_at(support.cluster, "team-a/team", "monthly", invoice).ledger >= books.ledger
