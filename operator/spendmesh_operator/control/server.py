"""
The control server's HTTP: every request authenticated, bounded and answered with JSON. I/O shell.

Any replica serves streams and price tables; rights, reports, acknowledgements and shares of retry budgets are the
leader's, and a follower passes them on. The caller brings listener and TLS.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from random import Random

import msgspec
from aiohttp import web

from spendmesh_operator.clock import Clock
from spendmesh_operator.control.auth import Authenticator, Forbidden
from spendmesh_operator.control.desk import PeopleDesk
from spendmesh_operator.control.hub import Hub
from spendmesh_operator.control.leader import (
    FORWARDED,
    PATH_STAMP,
    LeaderClient,
    LeaderLink,
    StampQuery,
)
from spendmesh_operator.control.messages import (
    MAX_BODY_BYTES,
    answer,
    answer_errors,
    bearer,
    body_of,
    decode,
    error,
    stream_query,
)
from spendmesh_operator.control.metrics import ControlMetrics
from spendmesh_operator.control.people import (
    PATH_BILL,
    PATH_CORRECTION,
    Authorizer,
    BillQuery,
    CorrectionOrder,
    Nobody,
)
from spendmesh_operator.control.sharing import RetryDesk
from spendmesh_operator.control.stamping import Stamping
from spendmesh_operator.control.streams import PolicyStream
from spendmesh_operator.identity import PodIdentity, ReplicaIdentity
from spendmesh_operator.ledger.books.accounts import LedgerError
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator
from spendmesh_sidecar.protocol import (
    PATH_ACK,
    PATH_ACQUIRE,
    PATH_OBSERVATIONS,
    PATH_PRICE_TABLE,
    PATH_REPORT,
    PATH_SHARE,
    PATH_STREAM,
    Ack,
    AcquireRequest,
    Observations,
    ReportRequest,
    ShareRequest,
    Stamp,
)

log = logging.getLogger("spendmesh.control")

KNOWN_SECONDS = 4.0
"""How long a pod may take to appear in the informer (contract §3: at most 5 s), within the sidecar's patience."""
SHUTDOWN_SECONDS = 5.0


@dataclass(frozen=True)
class ControlParts:
    """What the server is made of."""

    hub: Hub
    authenticator: Authenticator
    coordinator: Coordinator
    link: LeaderLink
    clock: Clock
    rng: Random
    client: LeaderClient | None = None
    """How a follower reaches the leader; not needed where there is one process."""
    metrics: ControlMetrics | None = None
    retries: RetryDesk | None = None
    """Shares of retry budgets, where somebody else wants to look at them too."""
    authorizer: Authorizer = field(default_factory=Nobody)
    """Which people may read bills and book corrections."""


def control_app(parts: ControlParts) -> web.Application:
    """The application; run it with `web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)`."""
    return ControlServer(parts).app()


class ControlServer:
    """Handlers of all paths of the protocol."""

    def __init__(self, parts: ControlParts) -> None:
        self._parts = parts
        self._client = parts.client if parts.client is not None else LeaderClient(parts.link)
        self._stamping = Stamping(parts.hub, parts.coordinator, parts.link, self._client, parts.clock)
        self._desk = PeopleDesk(parts.coordinator, parts.authorizer, parts.clock)
        self._retries = parts.retries if parts.retries is not None else RetryDesk(parts.coordinator, parts.clock)
        self._draining = asyncio.Event()

    def app(self) -> web.Application:
        """Routes, limits and shutdown."""
        app = web.Application(middlewares=[answer_errors], client_max_size=MAX_BODY_BYTES)
        app.router.add_get(PATH_STREAM, self._stream)
        app.router.add_get(PATH_PRICE_TABLE, self._price_table)
        app.router.add_post(PATH_ACK, self._ack)
        app.router.add_post(PATH_ACQUIRE, self._acquire)
        app.router.add_post(PATH_REPORT, self._report)
        app.router.add_post(PATH_OBSERVATIONS, self._observe)
        app.router.add_post(PATH_SHARE, self._share)
        app.router.add_post(PATH_STAMP, self._stamp)
        app.router.add_post(PATH_BILL, self._bill)
        app.router.add_post(PATH_CORRECTION, self._correct)
        app.on_shutdown.append(self._drain)
        app.on_cleanup.append(self._close)
        return app

    # --- policy -------------------------------------------------------------------------------------------

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        pod = await self._pod(request)
        query = stream_query(request)
        if await self._parts.hub.wait_known(pod, KNOWN_SECONDS) is None:
            return error(404, f"pod {pod.namespace}/{pod.name} is not known here yet: retry")
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson", "cache-control": "no-store"})
        await response.prepare(request)
        metrics = self._parts.metrics
        if metrics is not None:
            metrics.streams.inc()
        try:
            stream = PolicyStream(self._parts.hub, self._stamping, self._draining, self._parts.rng)
            await stream.serve(response, pod, query)
        except (ConnectionError, TimeoutError) as lost:
            log.debug("stream of %s/%s ended: %s", pod.namespace, pod.name, type(lost).__name__)
        except LedgerError as stopped:
            log.info("stream of %s/%s ended: %s", pod.namespace, pod.name, stopped)
        finally:
            if metrics is not None:
                metrics.streams.dec()
        return response

    async def _price_table(self, request: web.Request) -> web.StreamResponse:
        await self._identify(request)
        table = self._parts.hub.view.price_tables.get(request.match_info["digest"])
        if table is None:
            return error(404, "no policy here names this price table (any more): wait for the next snapshot")
        return web.Response(body=table, content_type="application/json")

    async def _ack(self, request: web.Request) -> web.StreamResponse:
        pod = await self._pod(request)
        body = await body_of(request)
        ack = decode(body, Ack)
        self._parts.hub.acknowledge(pod, ack)
        if not self._parts.link.is_leader():
            return await self._pass_on(request, PATH_ACK, body)
        return web.Response(status=204)

    async def _stamp(self, request: web.Request) -> web.StreamResponse:
        identity = await self._identify(request)
        if not isinstance(identity, ReplicaIdentity):
            raise Forbidden("only replicas of the operator may ask for stamps")
        query = decode(await body_of(request), StampQuery)
        if not self._stamping.leads:
            return error(503, "this replica is not the leader: retry")
        seen = Stamp(epoch=query.seen_epoch, sequence=query.seen_sequence)
        stamp = await self._stamping.own_stamp(query.digest, seen)
        if stamp is None:
            return error(404, "this policy is not in force at the leader (yet)")
        return web.Response(body=msgspec.json.encode(stamp), content_type="application/json")

    # --- rights -------------------------------------------------------------------------------------------

    async def _acquire(self, request: web.Request) -> web.StreamResponse:
        pod = await self._pod(request)
        body = await body_of(request)
        wanted = decode(body, AcquireRequest)
        if not self._parts.link.is_leader():
            return await self._pass_on(request, PATH_ACQUIRE, body)
        if await self._parts.hub.wait_known(pod, KNOWN_SECONDS) is None:
            return error(404, f"pod {pod.namespace}/{pod.name} is not known here yet: retry")
        return answer(await self._parts.coordinator.acquire(pod, wanted))

    async def _report(self, request: web.Request) -> web.StreamResponse:
        pod = await self._pod(request)
        body = await body_of(request)
        reported = decode(body, ReportRequest)
        if not self._parts.link.is_leader():
            return await self._pass_on(request, PATH_REPORT, body)
        reply = await self._parts.coordinator.report(pod, reported)
        return answer(self._parts.hub.with_hints(reply, pod, self._parts.clock.monotonic()))

    async def _observe(self, request: web.Request) -> web.StreamResponse:
        pod = await self._pod(request)
        body = await body_of(request)
        said = decode(body, Observations)
        if not self._parts.link.is_leader():
            return await self._pass_on(request, PATH_OBSERVATIONS, body)
        known = self._parts.hub.observe(pod, said, self._parts.clock.monotonic())
        return web.Response(status=204) if known else error(404, "this pod is not known here yet: retry")

    async def _share(self, request: web.Request) -> web.StreamResponse:
        pod = await self._pod(request)
        body = await body_of(request)
        asked = decode(body, ShareRequest)
        if not self._parts.link.is_leader():
            return await self._pass_on(request, PATH_SHARE, body)
        policy = await self._parts.hub.wait_known(pod, KNOWN_SECONDS)
        if policy is None:
            return error(404, f"pod {pod.namespace}/{pod.name} is not known here yet: retry")
        return answer(self._retries.share(pod, policy.policy, asked))

    async def _pass_on(self, request: web.Request, path: str, body: bytes) -> web.StreamResponse:
        if FORWARDED in request.headers:
            return error(503, "the leader has changed: retry")
        reply = await self._client.forward(path, request.headers["authorization"], body)
        content_type = "application/json" if reply.body else None
        return web.Response(status=reply.status, body=reply.body, content_type=content_type)

    # --- people -------------------------------------------------------------------------------------------

    async def _bill(self, request: web.Request) -> web.StreamResponse:
        token, body = bearer(request), await body_of(request)
        query = decode(body, BillQuery)
        if not self._parts.link.is_leader():
            return await self._pass_on(request, PATH_BILL, body)
        return answer(await self._desk.bill(token, query))

    async def _correct(self, request: web.Request) -> web.StreamResponse:
        token, body = bearer(request), await body_of(request)
        order = decode(body, CorrectionOrder)
        if not self._parts.link.is_leader():
            return await self._pass_on(request, PATH_CORRECTION, body)
        return answer(await self._desk.correct(token, order))

    # --- who, and the end ---------------------------------------------------------------------------------

    async def _identify(self, request: web.Request) -> PodIdentity | ReplicaIdentity:
        return await self._parts.authenticator.identify(bearer(request))

    async def _pod(self, request: web.Request) -> PodIdentity:
        identity = await self._identify(request)
        if not isinstance(identity, PodIdentity):
            raise Forbidden("this token is not bound to a pod")
        return identity

    async def _drain(self, _: web.Application) -> None:
        self._draining.set()
        self._parts.hub.wake()

    async def _close(self, _: web.Application) -> None:
        await self._client.close()
