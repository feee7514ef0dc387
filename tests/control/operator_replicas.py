"""The chart, installed by Helm on a real API server, and replicas as processes with exactly its rights."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane import ControlPlane
from part_process import Running, free_port, start, wait_until

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "spendmesh"
NAMESPACE = "spendmesh-system"
RELEASE = "spendmesh"
ACCOUNT = "spendmesh"
WEBHOOK = f"{RELEASE}.{NAMESPACE}"


@dataclass
class Replica:
    """One process, and where it listens."""

    name: str
    running: Running
    control: int
    webhook: int
    health: int

    def ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/readyz", timeout=30) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def metrics(self) -> str:
        """The text of /metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/metrics", timeout=30) as response:
            return str(response.read().decode())

    def log(self) -> list[Json]:
        """Its log lines."""
        lines = self.running.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


class Installation:
    """A release of the chart and its replicas. There is no kubelet, so the test starts what a Deployment would."""

    def __init__(self, plane: ControlPlane, helm: Path, namespace: str = NAMESPACE) -> None:
        self.plane = plane
        self.namespace = namespace
        self._helm = helm
        self.replicas: dict[str, Replica] = {}

    def helm(self, *arguments: str) -> str:
        """Run Helm on this API server."""
        command = [str(self._helm), "--kubeconfig", str(self.plane.kubeconfig), "-n", self.namespace, *arguments]
        environment = {**os.environ, "HELM_CACHE_HOME": str(self.plane.folder / "helm")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, path: str) -> Json:
        """Read as the administrator."""
        return self.plane.api.call("GET", path)

    def environment(self, pod: str) -> dict[str, str]:
        """What the chart's Deployment gives a replica."""
        deployment = self.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{RELEASE}")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        fields = {"metadata.name": pod, "metadata.namespace": self.namespace, "status.podIP": "127.0.0.1"}
        return {
            one["name"]: one["value"] if "valueFrom" not in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in container["env"]
            if "value" in one or "valueFrom" in one
        }

    def start(self, pod: str, **extra: str) -> Replica:
        """A replica as the pod of that name, with exactly the chart's rights."""
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "labels": {"spendmesh.io/inject": "disabled"}},
            "spec": {"serviceAccountName": ACCOUNT, "containers": [{"name": "operator", "image": "operator"}]},
        }
        created = self.plane.api.call("POST", f"/api/v1/namespaces/{self.namespace}/pods", body)
        bound = (pod, created["metadata"]["uid"])
        token_file = self.plane.folder / f"{pod}.token"
        token_file.write_text(self.plane.token(self.namespace, ACCOUNT, "spendmesh.io", pod=bound))
        kubeconfig = self.plane.kubeconfig_with_token(self.plane.token(self.namespace, ACCOUNT, pod=bound))
        control, webhook, health = (free_port() for _ in range(3))
        environment = {
            **self.environment(pod),
            "KUBECONFIG": str(kubeconfig),
            "SPENDMESH_TOKEN_FILE": str(token_file),
            "SPENDMESH_CONTROL_PORT": str(control),
            "SPENDMESH_WEBHOOK_PORT": str(webhook),
            "SPENDMESH_HEALTH_PORT": str(health),
            "PYTHONWARNINGS": "default",
            **extra,
        }
        command = [sys.executable, "-m", "spendmesh_operator"]
        running = start(pod, command, self.plane.folder, environment=environment)
        self.replicas[pod] = Replica(pod, running, control, webhook, health)
        return self.replicas[pod]

    def wait_ready(self) -> None:
        """Until every replica that runs is ready."""
        alive = [replica for replica in self.replicas.values() if replica.running.process.poll() is None]
        watched = [replica.running for replica in alive]
        wait_until(lambda: all(replica.ready() for replica in alive), "the operator is ready", 120, watched)

    def lead_webhook_to(self, replica: Replica) -> None:
        """
        What kube-proxy would do: the API server reaches the webhook's Service at a replica.

        The Service becomes an ExternalName, so that the server name in the handshake stays that of the Service.
        """
        path = f"/api/v1/namespaces/{self.namespace}/services/{RELEASE}-webhook"
        spec = {"type": "ExternalName", "externalName": "localhost"}
        self.plane.api.call("DELETE", path)
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"{RELEASE}-webhook"}, "spec": spec}
        self.plane.api.call("POST", f"/api/v1/namespaces/{self.namespace}/services", body)
        self.set_webhook_port(replica.webhook)

    def set_webhook_port(self, port: int) -> None:
        """443 is what the chart says."""
        name = f"{RELEASE}.{self.namespace}"
        where = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}"
        patch = [
            {"op": "replace", "path": f"/webhooks/{index}/clientConfig/service/port", "value": port}
            for index in range(len(self.get(where)["webhooks"]))
        ]
        self.plane.api.call("PATCH", where, patch, "application/json-patch+json")

    def lease(self) -> Json:
        """The election's Lease."""
        return self.get(f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{RELEASE}")

    def leader(self) -> Replica | None:
        """Who holds the Lease now."""
        holder = self.lease()["spec"].get("holderIdentity") or ""
        return self.replicas.get(holder.rsplit("_", 1)[0])

    def follower(self) -> Replica:
        """A replica that runs and does not lead."""
        leader = self.leader()
        return next(one for one in self.replicas.values() if one is not leader and one.running.process.poll() is None)

    def denied(self) -> float:
        """How many requests RBAC has denied so far."""
        text = self.plane.api.request("GET", "/metrics")[1]["message"]
        pattern = r'^authorization_attempts_total\{result="(?:denied|no-opinion)"\} (\S+)'
        counts = re.findall(pattern, text, re.MULTILINE)
        assert counts or "authorization_attempts_total" in text
        return sum(map(float, counts))


@contextmanager
def installed(plane: ControlPlane, helm: Path, namespace: str = NAMESPACE, *settings: str) -> Iterator[Installation]:
    """Install the chart into a new namespace; stop the replicas in the end. `settings` are `--set` values."""
    installation = Installation(plane, helm, namespace)
    plane.create_namespace(namespace, {"spendmesh.io/inject": "enabled"})
    installation.helm("install", RELEASE, str(CHART), *(f"--set={setting}" for setting in settings))
    try:
        yield installation
    finally:
        for replica in installation.replicas.values():
            replica.running.stop(15)
