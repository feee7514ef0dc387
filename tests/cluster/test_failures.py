"""Things break while calls run: replicas, sidecars, providers. Calls go on where they can, and no money comes back."""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from typing import Any

import pytest

from cluster_access import eventually
from cluster_books import account, settled_at
from cluster_mesh import RELEASE, SYSTEM, Mesh
from parts_fixtures import skip_or_fail

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
QUESTION = [{"role": "user", "content": "How much? [[in=100]] [[out=20]] " + "x" * 100}]


def header(outcome: Json, name: str) -> str:
    """One of our response headers."""
    value: str = outcome.get("headers", {}).get(f"x-spendmesh-{name}", "")
    return value


LEADER_CALLS = 180


# --- the control plane ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def leader_killed(mesh: Mesh) -> tuple[list[Json], str, int]:
    """Some 25 seconds of calls of a budgeted pod, during which the leading replica is killed; the old leader's name,
    and what the books said before."""
    mesh.namespace("leader")
    mesh.policies("leader", budget="5")
    app = mesh.start_app("leader")
    old = mesh.ready_leader()
    mesh.faults({"action": "slow", "account": "leader", "ttft_seconds": 0.25})
    job = app.start_job("chat", count=LEADER_CALLS, workers=2, model="auto", max_tokens=32, messages=QUESTION)
    job.wait_for(30)
    before = account(mesh.cluster, "leader/pool", "total").ledger
    mesh.keep_operator_logs()
    if mesh.cluster.node is not None:
        mesh.cluster.kill_container(SYSTEM, old, "operator")  # it says no word to anybody
    mesh.cluster.kubectl("-n", SYSTEM, "delete", "pod", old, "--grace-period=0", "--force", "--wait=false")
    outcomes = job.finish()
    mesh.faults()
    return outcomes, old, before


def test_calls_go_on_while_the_leader_is_killed(leader_killed: tuple[list[Json], str, int], mesh: Mesh) -> None:
    """Every call is answered: nothing on a request's path asks the control plane."""
    outcomes, old, _ = leader_killed
    assert Counter(outcome.get("status") for outcome in outcomes) == {200: LEADER_CALLS}
    assert eventually(lambda: mesh.leader() not in ("", old), "another replica leads", 40)


def test_a_new_leader_gives_nothing_back(leader_killed: tuple[list[Json], str, int], mesh: Mesh) -> None:
    """The books never fall, and in the end they hold the invoice to the nano."""
    _, _, before = leader_killed
    invoice = mesh.invoice_nanos("leader")
    found = settled_at(mesh.cluster, "leader/pool", "total", invoice)
    assert before <= found.ledger == invoice


def test_a_follower_serves_policy_and_relays_to_the_leader(mesh: Mesh) -> None:
    """A replica that does not lead gives a known pod its whole policy and gets rights for it; strangers get nothing."""
    mesh.namespace("probe", inject="disabled")
    mesh.policies("probe", budget="5")

    def known(pod: Json) -> None:
        pod["metadata"]["labels"]["spendmesh.io/injected"] = "true"  # what the operator watches; it has no sidecar
        pod["spec"]["containers"][0] |= {"command": ["sleep", "3600"], "readinessProbe": None}

    app = mesh.start_app("probe", change=known)
    uid = app.pod()["metadata"]["uid"]
    leader = mesh.ready_leader()
    follower = next(pod for pod in mesh.operator_pods() if pod != leader)
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={app.name}", f"--bound-object-uid={uid}")

    def token(*words: str) -> str:
        return mesh.cluster.kubectl("-n", "probe", "create", "token", "default", *words).strip()

    good = token("--audience=spendmesh.io", *bound)
    nonce = secrets.token_hex(16)
    account_ref = {"budget": "probe/pool", "limit": "total"}
    want = {"id": "1", "nonce": nonce, "wants": [{"account": account_ref, "need": 1_000_000, "want": 1_000_000}]}
    stream = f"/v1/policy/stream?nonce={nonce}"
    requests = [
        ["GET", stream, good, None],
        ["POST", "/v1/leases/acquire", good, want],
        ["GET", stream, "", None],
        ["GET", stream, "forged." + good[7:], None],
        ["GET", stream, token(*bound), None],
        ["GET", stream, token("--audience=spendmesh.io"), None],
    ]
    address = mesh.cluster.get("pod", follower, "-n", SYSTEM)["status"]["podIP"]
    said = {
        "address": f"{address}:8443",
        "name": f"{RELEASE}-control.{SYSTEM}.svc",
        "authority": _authority(mesh),
        "requests": requests,
    }
    policy, lease, *strangers = json.loads(app.execute("python", "probe.py", stdin=json.dumps(said)))
    assert policy["status"] == 200
    assert json.loads(policy["line"])["type"] == "snapshot"
    assert lease["status"] == 200, lease
    assert json.loads(lease["line"])["leases"], lease
    assert [answer["status"] for answer in strangers] == [401, 401, 401, 403]
    assert account(mesh.cluster, "probe/pool", "total").charged >= 1_000_000


def _authority(mesh: Mesh) -> str:
    """The PEM that injected sidecars are given."""
    mesh_pod = mesh.apps("leader", "app=app")[0].pod()
    environment = mesh_pod["spec"]["initContainers"][0]["env"]
    authority: str = next(entry["value"] for entry in environment if entry["name"] == "SPENDMESH_CONTROL_CA")
    return authority


# --- the sidecar ------------------------------------------------------------------------------------------


def test_a_sidecar_killed_in_the_middle_of_a_stream_gives_nothing_back(mesh: Mesh) -> None:
    """kill -9 before any report: the provider bills all of it, the books hold at least as much, the pod serves on."""
    if mesh.cluster.node is None:
        skip_or_fail("kill -9 of a container's first process needs the node itself: unset KUBECONFIG")
    mesh.namespace("killed")
    mesh.policies("killed", budget="5")
    app = mesh.start_app("killed")
    assert app.ask("First. [[out=10]]", max_tokens=16)["status"] == 200
    mesh.faults({"action": "withhold", "account": "killed", "stream": True})
    arguments: Json = {
        "model": "auto",
        "max_tokens": 400,
        "messages": [{"role": "user", "content": "Tell. [[out=300]]"}],
    }
    job = app.start_job("chat", stream=True, **arguments)

    def serial() -> str:
        chunks = job.outcomes()[0].get("chunks") or [{}]
        return str(chunks[0].get("id", ""))

    eventually(serial, "the first chunk arrives", 20)
    mesh.cluster.kill_container("killed", app.name, "spendmesh-sidecar")
    assert job.finish()[0]["ended"] == "broken"
    billed = eventually(lambda: mesh.invoice("killed")[1:], "the provider bills the stream", 20)
    assert billed[0]["cost_nanos"] > 300 * 1_600
    eventually(lambda: app.sidecar_restarts() == 1, "the sidecar is started again", 30)
    app.wait_ready()
    mesh.faults()
    assert eventually(lambda: app.ask("Again. [[out=10]]", max_tokens=16).get("status") == 200, "it serves again")
    invoice = mesh.invoice_nanos("killed")
    found = settled_at(mesh.cluster, "killed/pool", "total", invoice)
    assert invoice <= found.ledger <= found.amount


# --- the provider -----------------------------------------------------------------------------------------

RETRIES = {
    "apiVersion": "spendmesh.io/v1alpha1",
    "kind": "RetryBudget",
    "metadata": {"name": "default", "namespace": "storm"},
    "spec": {
        "retryConstraint": {
            "budget": {"percent": 20, "interval": "10s"},
            "minRetryRate": {"count": 1, "interval": "1s"},
        },
        "retry": {"codes": [429, 500, 502, 503], "attempts": 2, "backoff": "50ms", "maxBackoff": "1s"},
        "circuitBreaker": {"consecutive5xxErrors": 5, "baseEjectionTime": "3s", "maxEjectionTime": "10s"},
    },
}


def test_a_storm_is_retried_within_its_budget_then_fails_over(mesh: Mesh) -> None:
    """A provider that fails, and bills what failed: some calls are recovered, never more retries than allowed, then
    the next target takes over; the books hold at least the invoice."""
    mesh.namespace("storm")
    mesh.policies("storm", budget="5")
    mesh.cluster.apply(json.dumps(RETRIES))
    app = mesh.start_app("storm")
    arguments = {"model": "auto", "max_tokens": 32, "messages": QUESTION}
    storm: Json = {"action": "status", "account": "storm", "model": "gpt-4.1-mini", "bill": "full"}
    mesh.faults({**storm, "status": 500, "probability": 0.3}, {**storm, "status": 429, "probability": 0.15})
    began = time.monotonic()
    outcomes = app.start_job("chat", count=200, workers=4, **arguments).finish()
    seconds = int(time.monotonic() - began) + 1
    retries, requests = app.metric("spendmesh_retries_total"), app.metric("spendmesh_requests_total")
    recovered = [each for each in outcomes if each.get("status") == 200 and int(header(each, "attempts")) > 1]
    assert retries > 0
    assert recovered
    assert retries <= requests * 20 // 100 + seconds, "a fifth of the requests, and one a second on top"
    assert app.metric("spendmesh_retry_denied_total") > 0, "more failed than may be retried"
    mesh.faults({**storm, "status": 503})
    outcomes = app.start_job("chat", count=40, workers=2, **arguments).finish()
    answered = [each for each in outcomes if each.get("status") == 200]
    assert answered
    assert {header(each, "model") for each in answered} == {"openai/gpt-4o-mini"}
    assert "failover" in {header(each, "reason") for each in answered}
    assert header(outcomes[-1], "model") == "openai/gpt-4o-mini", "once the target is ejected, calls go past it"
    invoice = mesh.invoice_nanos("storm")
    failed = [line for line in mesh.invoice("storm") if line["status"] >= 400 and line["cost_nanos"]]
    assert failed, "failed attempts were billed"
    found = settled_at(mesh.cluster, "storm/pool", "total", invoice)
    assert invoice <= found.ledger <= found.amount
