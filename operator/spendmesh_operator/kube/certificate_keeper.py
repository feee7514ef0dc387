"""
Keeps the serving certificate alive: the Secret is the source of truth, the leader renews, everyone loads.

A live `ssl.SSLContext` is given a new certificate in place: new handshakes get it, open connections stay. What is
due when is in `certificates`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from spendmesh_operator.kube import paths
from spendmesh_operator.kube.certificates import Material, UnreadableMaterial, from_secret, renewed
from spendmesh_operator.kube.client import Conflict, Kube, KubeError, NotFound

Json = dict[str, Any]

CHECK_SECONDS: Final = 60.0
"""How soon a renewed certificate, or a webhook configuration that was written over, is noticed."""
FIRST_CHECK_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class CertificateKeeper:
    """One Secret, one webhook configuration (none: empty name), one SSL context for both listeners."""

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        secret: str,
        webhook: str,
        dns_names: Sequence[str],
        leads: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._path = paths.item(paths.CORE, "secrets", namespace, secret)
        self._webhook = webhook
        self._dns_names = tuple(dns_names)
        self._leads = leads
        self._now = now
        self._loaded: bytes = b""
        self._ready = asyncio.Event()
        self.trust = ""
        """PEM of the authorities that sidecars of new pods trust; empty until `ready`."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        """Trusts our own authorities and no other: how one replica calls another."""

    async def ready(self) -> None:
        """Wait until there is a certificate to serve with."""
        await self._ready.wait()

    async def run(self) -> None:
        """Check for ever; a failure is logged and tried again."""
        while True:
            try:
                await self.check()
            except Conflict:
                continue  # another replica was faster: read what it wrote
            except NotFound as error:
                log.error(
                    "certificates: %s: `helm upgrade` makes the Secret and the webhook anew. With a new Secret comes "
                    "a new authority: restart the workloads then, their sidecars trust the old one only",
                    error,
                )
            except (KubeError, UnreadableMaterial) as error:
                log.error("certificates: %s", error)
            await self._pause()

    async def _pause(self) -> None:
        """Until the next check is due: soon while there is nothing to serve with, and for a new leader."""
        led = self._leads()
        for _ in range(round(CHECK_SECONDS / FIRST_CHECK_SECONDS)):
            await asyncio.sleep(FIRST_CHECK_SECONDS)
            if not self._ready.is_set() or (self._leads() and not led):
                return

    async def check(self) -> None:
        """Load what is stored; as the leader renew what is due and publish the authorities in the webhook."""
        secret = await self._kube.get(self._path)
        items = {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}
        material = from_secret(items)
        if self._leads():
            due = renewed(material, self._dns_names, self._now())
            if due is not material:
                material = due
                await self._store(secret, due)
        if material is None:
            return
        self._load(material)
        if self._webhook and self._leads():
            await self._publish(material.trust)

    async def _store(self, secret: Json, material: Material) -> None:
        data = {name: base64.b64encode(value).decode() for name, value in material.to_secret().items()}
        await self._kube.replace(self._path, {**secret, "data": data})
        ends = material.serving.certificate.not_valid_after_utc
        log.info("certificates: renewed", extra={"authorities": len(material.authorities), "ends": ends.isoformat()})

    def _load(self, material: Material) -> None:
        items = material.to_secret()
        chain = items["tls.crt"] + items["tls.key"]
        if chain != self._loaded:
            _load_chain(self.context, chain)
            self._loaded = chain
        trust = material.trust.decode()
        if trust != self.trust:
            self.client_context.load_verify_locations(cadata=trust)
            self.trust = trust
        self._ready.set()

    async def _publish(self, trust: bytes) -> None:
        path = paths.webhook_configuration(self._webhook)
        bundle = base64.b64encode(trust).decode()
        configuration = await self._kube.get(path)
        operations: list[Json] = []
        for position, webhook in enumerate(configuration.get("webhooks") or []):
            if (webhook.get("clientConfig") or {}).get("caBundle") != bundle:
                at = f"/webhooks/{position}"
                operations.append({"op": "test", "path": f"{at}/name", "value": webhook["name"]})
                operations.append({"op": "add", "path": f"{at}/clientConfig/caBundle", "value": bundle})
        if operations:
            await self._kube.json_patch(path, operations)
            log.info("certificates: the webhook trusts the current authorities", extra={"webhook": self._webhook})


def _load_chain(context: ssl.SSLContext, chain: bytes) -> None:
    """`ssl` takes files only: one that exists in memory and has no name keeps the key off every disk."""
    descriptor = os.memfd_create("certificate")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
