"""An installed operator of two replicas with a team's namespace, and what a person, a pod and a sidecar ask of it."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from cluster_samples import POLICIES
from control_plane import ControlPlane
from kube_api import ApiRefused
from operator_replicas import NAMESPACE, RELEASE, Installation, Replica, installed
from part_process import wait_until
from parts_fixtures import programs_or_skip
from spendmesh_sidecar import protocol

Json = dict[str, Any]
TEAM = "team-a"


@contextmanager
def two_replicas(helm: Path) -> Iterator[Installation]:
    """Two replicas of the installed chart, ready; a namespace that has opted in; no policies yet."""
    with ControlPlane(programs_or_skip("control-plane")) as plane, installed(plane, helm) as installation:
        for name in ("spendmesh-1", "spendmesh-2"):
            installation.start(name)
        installation.wait_ready()
        assert installation.leader() is not None
        installation.lead_webhook_to(installation.follower())
        plane.create_namespace(TEAM, {"spendmesh.io/inject": "enabled"})
        yield installation


def governed_pod(cluster: Installation) -> tuple[Json, str]:
    """A pod that was injected under the team's policies, and its sidecar's token."""
    cluster.plane.kubectl("apply", "-n", TEAM, "-f", "-", stdin=POLICIES)
    wait_until(lambda: is_true(cluster, "routingpolicies", "support", "Accepted"), "the policy is accepted", 90)
    created = create_pod(cluster, pod("app-0"))
    token = cluster.plane.token(TEAM, "default", "spendmesh.io", pod=("app-0", created["metadata"]["uid"]))
    return created, token


def pod(name: str, **spec: Any) -> Json:
    body = {"containers": [{"name": "app", "image": "app:1"}], "terminationGracePeriodSeconds": 0, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "support"}}, "spec": body}


def create_pod(cluster: Installation, body: Json, namespace: str = TEAM) -> Json:
    """Create a pod; a Service that has just moved may take a moment to be known."""
    created: list[Json] = []

    def attempt() -> bool:
        try:
            created.append(cluster.plane.api.call("POST", f"/api/v1/namespaces/{namespace}/pods", body))
        except ApiRefused as refused:
            if "failed calling webhook" in str(refused):
                return False
            raise
        return True

    wait_until(attempt, "the webhook is reached", 90)
    return created[0]


def conditions(cluster: Installation, plural: str, name: str) -> dict[str, Json]:
    found = cluster.get(f"/apis/spendmesh.io/v1alpha1/namespaces/{TEAM}/{plural}/{name}")
    return {one["type"]: one for one in found.get("status", {}).get("conditions", [])}


def is_true(cluster: Installation, plural: str, name: str, *types: str) -> bool:
    found = conditions(cluster, plural, name)
    return all(found.get(one, {}).get("status") == "True" for one in types)


def call(
    cluster: Installation, replica: Replica, token: str, path: str, message: protocol.Message | None = None
) -> tuple[int, bytes]:
    """One request to a replica's control server, as a sidecar makes it: with the CA that injection gives."""
    context = ssl.create_default_context(cadata=authority(cluster))
    plain = socket.create_connection(("127.0.0.1", replica.control), timeout=60)
    with context.wrap_socket(plain, server_hostname=f"{RELEASE}-control.{NAMESPACE}.svc") as secured:
        connection = http.client.HTTPConnection("127.0.0.1", replica.control)
        connection.sock = secured
        body = None if message is None else msgspec.json.encode(message)
        connection.request("GET" if body is None else "POST", path, body, {"authorization": f"Bearer {token}"})
        with connection.getresponse() as response:
            is_stream = path.startswith(protocol.PATH_STREAM) and response.status == 200
            return response.status, response.readline() if is_stream else response.read()


def authority(cluster: Installation) -> str:
    secret = cluster.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{RELEASE}-tls")
    return base64.b64decode(secret["data"]["ca.crt"]).decode()


def acquire(cluster: Installation, replica: Replica, token: str, request_id: str) -> None:
    """Rights of the team's budget, as soon as there is a leader to grant them."""
    account = protocol.AccountRef(budget=f"{TEAM}/team", limit="monthly")
    want = protocol.Want(account=account, need=1_000_000, want=1_000_000)
    request = protocol.AcquireRequest(id=request_id, nonce="n1", wants=(want,))

    def granted() -> bool:
        return call(cluster, replica, token, protocol.PATH_ACQUIRE, request)[0] == 200

    wait_until(granted, "a leader grants", 90, [replica.running])


def stored_leases(cluster: Installation) -> list[Json]:
    """All leases of the books, in whichever object they are."""
    items = cluster.get(f"/apis/spendmesh.io/v1alpha1/namespaces/{NAMESPACE}/budgetledgers")["items"]
    sections = [one["document"] for ledger in items for one in ledger["spec"]["books"].values()]
    return [lease for one in sections for lease in one.get("leases", [])]
