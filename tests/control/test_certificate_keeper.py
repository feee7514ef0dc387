"""The serving certificate in a cluster: made by the leader, loaded by all, changed while it serves."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from control_plane import ControlPlane
from spendmesh_operator.kube.certificate_keeper import CertificateKeeper
from spendmesh_operator.kube.certificates import UnreadableMaterial
from spendmesh_operator.kube.client import Kube

NAMES = ("spendmesh-control.certs.svc",)


class Cluster:
    """A Secret as the chart makes it, a webhook, and time that begins so long ago that renewal is due today."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.now = datetime.now(UTC) - timedelta(days=61)
        plane.create_namespace(namespace)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}, "type": "Opaque"}
        plane.api.call("POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
        webhook = {
            "name": "a.inject.spendmesh.io",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Ignore",
            "clientConfig": {"service": {"name": "x", "namespace": namespace}},
            "namespaceSelector": {"matchLabels": {"nobody": "has-this"}},
        }
        self.where = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        body = {"metadata": {"name": namespace}, "webhooks": [webhook, {**webhook, "name": "b.inject.spendmesh.io"}]}
        plane.api.call("POST", self.where, body)

    def keeper(self, kube: Kube, leads: bool) -> CertificateKeeper:
        return CertificateKeeper(
            kube,
            namespace=self.namespace,
            secret="tls",
            webhook=self.namespace,
            dns_names=NAMES,
            leads=lambda: leads,
            now=lambda: self.now,
        )

    def bundles(self) -> set[str]:
        found = self.plane.api.call("GET", f"{self.where}/{self.namespace}")["webhooks"]
        return {base64.b64decode(one["clientConfig"].get("caBundle", "")).decode() for one in found}

    def edit_secret(self, **items: str) -> None:
        data = {name: base64.b64encode(value.encode()).decode() for name, value in items.items()}
        self.plane.kubectl(
            "patch", "secret", "tls", "-n", self.namespace, "--type=merge", "-p", json.dumps({"data": data})
        )


async def served_certificate(address: tuple[str, int], trust: str) -> bytes:
    """What a server shows in a new handshake, checked against the authorities and the name."""
    context = ssl.create_default_context(cadata=trust)
    reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=NAMES[0])
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    await reader.read()
    writer.close()
    await writer.wait_closed()
    return shown


def test_the_leader_makes_everyone_loads_and_renewal_needs_no_restart(control_plane: ControlPlane) -> None:
    """A follower waits for the leader's certificate; a live listener shows the renewed one in the next handshake."""
    cluster = Cluster(control_plane, "certs")

    async def run() -> None:
        kube = await Kube.connect(str(control_plane.kubeconfig))
        leader, follower = cluster.keeper(kube, True), cluster.keeper(kube, False)
        try:
            await follower.check()
            assert not follower.trust
            await leader.check()
            await follower.check()
            assert follower.trust == leader.trust and cluster.bundles() == {leader.trust}

            async def end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.close()
                await writer.wait_closed()

            server = await asyncio.start_server(end, "127.0.0.1", 0, ssl=follower.context)
            address = server.sockets[0].getsockname()
            first = await served_certificate(address, leader.trust)
            cluster.now += timedelta(days=61)
            await leader.check()
            await follower.check()
            second = await served_certificate(address, leader.trust)
            assert first != second
            server.close()
            await server.wait_closed()
        finally:
            await kube.close()

    asyncio.run(run())


def test_a_ca_bundle_that_was_written_over_is_put_back(control_plane: ControlPlane) -> None:
    cluster = Cluster(control_plane, "certs-overwritten")

    async def run() -> None:
        kube = await Kube.connect(str(control_plane.kubeconfig))
        leader = cluster.keeper(kube, True)
        try:
            await leader.check()
            remove = [{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]
            await kube.json_patch(f"{cluster.where}/{cluster.namespace}", remove)
            await leader.check()
            assert cluster.bundles() == {leader.trust}
        finally:
            await kube.close()

    asyncio.run(run())


def test_a_damaged_secret_is_told_and_kept(control_plane: ControlPlane) -> None:
    """A new authority in its place would cut off every running sidecar; what is loaded goes on serving."""
    cluster = Cluster(control_plane, "certs-damaged")

    async def run() -> None:
        kube = await Kube.connect(str(control_plane.kubeconfig))
        leader = cluster.keeper(kube, True)
        try:
            await leader.check()
            trust = leader.trust
            cluster.edit_secret(**{"authorities.key": "nonsense"})
            with pytest.raises(UnreadableMaterial):
                await leader.check()
            assert leader.trust == trust
        finally:
            await kube.close()

    asyncio.run(run())


def test_a_secret_that_is_gone_is_told_with_what_to_do(
    control_plane: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    """The operator has no right to make it; a new authority is not what running sidecars trust."""
    cluster = Cluster(control_plane, "certs-gone")
    control_plane.kubectl("delete", "secret", "tls", "-n", cluster.namespace)

    async def run() -> None:
        kube = await Kube.connect(str(control_plane.kubeconfig))
        running = asyncio.create_task(cluster.keeper(kube, True).run())
        try:
            async with asyncio.timeout(60):
                while "helm upgrade" not in caplog.text:
                    await asyncio.sleep(0.05)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await kube.close()

    asyncio.run(run())
    assert "restart the workloads" in caplog.text
