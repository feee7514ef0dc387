"""
What an installation keeps over its life: an upgrade, a leader that stops, an uninstall.

One life is lived for all tests; each reads what it promises.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from operator_cluster import TEAM, acquire, authority, governed_pod, stored_leases, two_replicas
from operator_replicas import CHART, RELEASE, WEBHOOK, Installation
from part_process import wait_until

Json = dict[str, Any]


@dataclass(frozen=True)
class Life:
    """What was seen on the way."""

    authority_before: str
    authority_upgraded: str
    webhooks_upgraded: list[Json]
    granted_before: int
    granted_by_follower: int
    leader_exit: int | None
    denied: float
    denied_to_nobody: float
    log: str
    tokens: list[str]
    leases_uninstalled: list[Json]
    authority_uninstalled: str


@pytest.fixture(scope="module")
def life(helm: Path) -> Iterator[Life]:
    """Installed, upgraded, led by the other replica, uninstalled."""
    with two_replicas(helm) as cluster:
        _, token = governed_pod(cluster)
        acquire(cluster, cluster.follower(), token, "r1")
        before, granted = authority(cluster), total_granted(cluster)
        cluster.set_webhook_port(443)  # Helm insists on its own fields
        cluster.helm("upgrade", RELEASE, str(CHART), "--set", "operator.podAnnotations.a=b")
        upgraded = authority(cluster)
        where = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{WEBHOOK}"
        webhooks = cluster.get(where)["webhooks"]
        the_other = cluster.follower()
        leader = stop_leader(cluster)
        acquire(cluster, the_other, token, "r2")
        granted_after = total_granted(cluster)
        denied = cluster.denied()
        nobody = cluster.plane.kubeconfig_for("operator-nobody")
        cluster.plane.kubectl("get", "pods", "-n", TEAM, kubeconfig=nobody, check=False)
        denied_to_nobody = cluster.denied()
        log = "".join(replica.running.log.read_text() for replica in cluster.replicas.values())
        tokens = [token, *(file.read_text() for file in cluster.plane.folder.glob("*.token"))]
        cluster.helm("uninstall", RELEASE)
        yield Life(
            authority_before=before,
            authority_upgraded=upgraded,
            webhooks_upgraded=webhooks,
            granted_before=granted,
            granted_by_follower=granted_after,
            leader_exit=leader,
            denied=denied,
            denied_to_nobody=denied_to_nobody,
            log=log,
            tokens=tokens,
            leases_uninstalled=stored_leases(cluster),
            authority_uninstalled=authority(cluster),
        )


def stop_leader(cluster: Installation) -> int | None:
    """SIGTERM; answers its exit status when the other replica leads."""
    leader, follower = cluster.leader(), cluster.follower()
    assert leader is not None
    leader.running.process.send_signal(signal.SIGTERM)
    wait_until(lambda: cluster.leader() is follower, "the follower leads", 90, [follower.running])
    leader.running.process.wait(90)
    return leader.running.process.returncode


def total_granted(cluster: Installation) -> int:
    """Of all leases in the books."""
    return sum(int(lease["granted"]) for lease in stored_leases(cluster))


def test_helm_upgrade_keeps_authority_and_ca_bundle(life: Life) -> None:
    """Running sidecars carry the authority: an upgrade must not take it away."""
    assert life.authority_upgraded == life.authority_before
    assert all(one["clientConfig"].get("caBundle") for one in life.webhooks_upgraded)


def test_a_stopped_leader_hands_over_and_nothing_is_given_back(life: Life) -> None:
    """Rolling update: the Lease is given back, the other replica opens the same books."""
    assert life.leader_exit == 0, life.log[-3000:]
    assert life.granted_by_follower >= life.granted_before > 0


def test_no_request_was_denied_to_the_operator(life: Life) -> None:
    """All of it ran under exactly the chart's RBAC: every right that is used is given."""
    assert life.denied == 0, life.log[-3000:]
    assert life.denied_to_nobody > 0, "the measure itself must work"


def test_logs_hold_no_token(life: Life) -> None:
    assert len(life.tokens) >= 3 and not [token for token in life.tokens if token in life.log]
    assert "Traceback" not in life.log


def test_helm_uninstall_keeps_kinds_and_books(life: Life) -> None:
    """What was spent survives an uninstall, and so does the authority that running sidecars trust."""
    assert life.leases_uninstalled
    assert life.authority_uninstalled == life.authority_before
