"""The plain listener: probes and metrics. Nothing on it is secret and nothing on it changes anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def health_app(
    readiness: Callable[[], Mapping[str, bool]], registry: CollectorRegistry, refresh: Callable[[], None]
) -> web.Application:
    """`readiness` names what must hold before this replica serves; `refresh` brings gauges up to date."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        parts = readiness()
        lines = "".join(f"{'ok ' if holds else 'not yet'} {name}\n" for name, holds in parts.items())
        return web.Response(text=lines, status=200 if all(parts.values()) else 503)

    async def metrics(_: web.Request) -> web.Response:
        refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=1024)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)
    return app
