"""Operators of two clusters on one PostgreSQL: the same domain, one budget."""

from __future__ import annotations

import base64
import http.client
import signal
import socket
import ssl
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from cluster_samples import POLICIES
from control_plane import ControlPlane
from operator_replicas import NAMESPACE, RELEASE, Installation, Replica, installed
from part_process import wait_until
from parts_fixtures import programs_or_skip
from postgres import Postgres
from spendmesh_sidecar import protocol

TEAM = "team-a"
LIMIT_NANOS = 25 * 10**9
INJECTED = {"app": "support", "spendmesh.io/injected": "true"}
MOST, REST = LIMIT_NANOS * 9 // 10, LIMIT_NANOS // 10


@dataclass
class Cluster:
    """One cluster with a replica of the operator, and a sidecar's token in it."""

    installation: Installation
    replica: Replica
    token: str

    def acquire(self, request: str, amount: int) -> protocol.AcquireReply | None:
        """Ask as a sidecar does; None while no leader serves."""
        account = protocol.AccountRef(budget=f"{TEAM}/team", limit="monthly")
        want = protocol.Want(account=account, need=amount, want=amount)
        body = msgspec.json.encode(protocol.AcquireRequest(id=request, nonce=f"n-{id(self)}", wants=(want,)))
        secret = self.installation.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{RELEASE}-tls")
        trust = base64.b64decode(secret["data"]["ca.crt"]).decode()
        context = ssl.create_default_context(cadata=trust)
        plain = socket.create_connection(("127.0.0.1", self.replica.control), timeout=60)
        with context.wrap_socket(plain, server_hostname=f"{RELEASE}-control.{NAMESPACE}.svc") as secured:
            connection = http.client.HTTPConnection("127.0.0.1", self.replica.control)
            connection.sock = secured
            connection.request("POST", protocol.PATH_ACQUIRE, body, {"authorization": f"Bearer {self.token}"})
            with connection.getresponse() as response:
                answer = response.read()
                if response.status != 200:
                    return None
        return msgspec.json.decode(answer, type=protocol.AcquireReply)

    def granted(self, request: str, amount: int) -> int:
        """Rights of the lease as soon as a leader answers; 0 if it refuses."""
        replies: list[protocol.AcquireReply] = []

        def asked() -> bool:
            reply = self.acquire(request, amount)
            if reply is None or any(denial.reason == "unknown" for denial in reply.denials):
                return False
            replies.append(reply)
            return True

        wait_until(asked, "the leader answers", 90, [self.replica.running])
        return 0 if replies[0].denials else sum(lease.granted for lease in replies[0].leases)


@pytest.fixture
def clusters(helm: Path, postgres: Postgres, tmp_path: Path) -> Iterator[tuple[Cluster, Cluster]]:
    address = tmp_path / "dsn"
    address.write_text(postgres.create(f"clusters-{uuid.uuid4().hex[:8]}") + "\n")
    programs = programs_or_skip("control-plane")
    with ExitStack() as stack:
        yield (
            started(stack, ControlPlane(programs), helm, address, "one"),
            started(stack, ControlPlane(programs), helm, address, "two"),
        )


def started(stack: ExitStack, plane: ControlPlane, helm: Path, address: Path, member: str) -> Cluster:
    stack.enter_context(plane)
    settings = ("operator.replicas=1", "ledger.store=PostgreSQL", "ledger.postgresql.secretName=books")
    installation = stack.enter_context(installed(plane, helm, NAMESPACE, *settings, f"ledger.member={member}"))
    replica = installation.start("spendmesh-1", SPENDMESH_LEDGER_DSN_FILE=str(address))
    installation.wait_ready()
    plane.create_namespace(TEAM)
    plane.kubectl("apply", "-n", TEAM, "-f", "-", stdin=POLICIES)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app-0", "labels": INJECTED}}
    spec = {"containers": [{"name": "app", "image": "app:1"}]}
    created = plane.api.call("POST", f"/api/v1/namespaces/{TEAM}/pods", {**pod, "spec": spec})
    token = plane.token(TEAM, "default", "spendmesh.io", pod=("app-0", created["metadata"]["uid"]))
    return Cluster(installation, replica, token)


def ledgers(cluster: Cluster) -> list[object]:
    """All BudgetLedgers. An API server begins to keep a kind when it is first asked for it: "429 storage is
    (re)initializing"."""
    path = f"/apis/spendmesh.io/v1alpha1/namespaces/{NAMESPACE}/budgetledgers"
    api = cluster.installation.plane.api
    wait_until(lambda: api.request("GET", path)[0] == 200, "the API server lists BudgetLedgers", 90)
    items: list[object] = cluster.installation.get(path)["items"]
    return items


def test_two_api_servers_on_one_postgresql_share_one_budget_also_over_its_restart(
    clusters: tuple[Cluster, Cluster], postgres: Postgres
) -> None:
    """What one cluster was granted is refused to the other, under the chart's rights alone; no BudgetLedger is made."""
    one, two = clusters
    assert one.granted("r1", MOST) == MOST
    assert two.granted("r1", 2 * REST) == 0
    postgres.stop(signal.SIGKILL)
    postgres.start()
    assert two.granted("r2", REST) == REST
    assert one.granted("r2", 1) == 0
    for cluster in clusters:
        assert ledgers(cluster) == []
        assert cluster.installation.denied() == 0
        assert "tester@" not in cluster.replica.running.log.read_text()
