"""The admin listener: /healthz /readyz /metrics /status on the pod's address. No secret and no user value in any."""

from __future__ import annotations

import msgspec
from aiohttp import web

from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.downstream.listener import DataServer
from spendmesh_sidecar.limits import Limits

CONNECTIONS = 64
"""The kubelet's probes, one or two Prometheus servers, and somebody who looks."""


def admin_server(plane: DataPlane) -> DataServer:
    """A low-level server. Ready: a policy is in force and the ledger can write; never asked: rights, the operator."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="only GET\n")
        if request.path == "/healthz":
            if plane.broken:
                return web.Response(status=500, text=f"{plane.broken} has ended\n")
            return web.Response(text="ok\n")
        if request.path == "/readyz":
            if plane.installed is None:
                return web.Response(status=503, text="no policy has arrived yet\n")
            if not plane.listening:
                return web.Response(status=503, text="not listening for calls yet\n")
            if plane.log.problem:
                return web.Response(status=503, text=f"{plane.log.problem}\n")
            if plane.stopping:
                return web.Response(status=503, text="stopping\n")
            return web.Response(text="ok\n")
        if request.path == "/metrics":
            return web.Response(
                body=plane.metrics.render(plane.gauges()),
                headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"},
            )
        if request.path == "/status":
            return web.Response(body=msgspec.json.encode(plane.status()), content_type="application/json")
        return web.Response(status=404, text="/healthz /readyz /metrics /status\n")

    return DataServer(handle, Limits(connections=CONNECTIONS))
