"""
The data listener: HTTP in, a parsed request out to the pipeline, an answer back. Nothing is decided here.

Built on aiohttp's low-level server. What arrives from the application is not trusted: sizes, times, connections
and headers have limits, each with its precedent beside it.
"""

from __future__ import annotations

import hmac

import msgspec
from aiohttp import web

from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.joins.fingerprint import call_of
from spendmesh_sidecar.core.joins.joining import Apart, Reused, Spent, joins_calls
from spendmesh_sidecar.core.joins.originals import Original
from spendmesh_sidecar.core.operations import parse_request
from spendmesh_sidecar.core.operations.errors import RequestError
from spendmesh_sidecar.core.operations.routes import parse as parse_route
from spendmesh_sidecar.core.refusals import client_retries_spent, key_reused
from spendmesh_sidecar.core.specs import Dialect
from spendmesh_sidecar.core.types import ParsedRequest, Refusal
from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.downstream.answers import refusal_answer
from spendmesh_sidecar.downstream.audience import Audience
from spendmesh_sidecar.downstream.bodies import Bodies, read_body
from spendmesh_sidecar.downstream.joined_call import JoinedCall
from spendmesh_sidecar.downstream.listener import DataProtocol, DataServer
from spendmesh_sidecar.downstream.reply import Reply
from spendmesh_sidecar.errors import ClientGone, RequestRefused
from spendmesh_sidecar.pipeline import Pipeline
from spendmesh_sidecar.policy import Policy
from spendmesh_sidecar.settings import Settings
from spendmesh_sidecar.telemetry.spans import TraceContext


def data_server(plane: DataPlane, settings: Settings) -> DataServer:
    """The low-level server of the data listener."""
    return DataServer(_DataHandler(plane, settings).handle, settings.limits)


class _DataHandler:
    def __init__(self, plane: DataPlane, settings: Settings) -> None:
        self._plane = plane
        self._settings = settings
        self._bodies = Bodies(settings.limits)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; whatever happens, the client gets its API's error shape."""
        connection = request.protocol
        assert isinstance(connection, DataProtocol)
        connection.begin()
        try:
            return await self._answer(request, connection)
        finally:
            connection.end()

    async def _answer(self, request: web.BaseRequest, connection: DataProtocol) -> web.StreamResponse:
        client = Reply(request, connection, self._settings.limits.linger_seconds)
        dialect: Dialect = "Anthropic" if request.raw_path.startswith("/anthropic/") else "OpenAI"
        request_id = self._plane.new_id()
        try:
            self._admit_client(request)
            if request.raw_path.startswith("/spendmesh/"):
                return self._own(request)
            route = parse_route(request.method, request.raw_path)
            dialect = route.operation.dialect
            with self._bodies.held() as held:
                body = await read_body(request, held)
                headers, scopes = tuple(request.headers.items()), self._plane.scope_headers
                parsed = parse_request(route.operation, body, headers, route.alias, scopes)
                await self._run(parsed, request_id, client)
        except RequestError as error:
            refusal = Refusal(code=error.code, status=error.status, message=error.message, param=error.param)
            await self._refuse(client, dialect, refusal, request_id)
        except RequestRefused as refused:
            await self._refuse(client, dialect, refused.refusal, request_id)
        return client.written()

    async def _refuse(self, client: Reply, dialect: Dialect, refusal: Refusal, request_id: str) -> None:
        self._plane.metrics.add("spendmesh_refusals_total", (("code", refusal.code),))
        try:
            await client.send(*refusal_answer(dialect, refusal, request_id))
        except ClientGone:
            pass  # nobody to tell

    async def _run(self, parsed: ParsedRequest, request_id: str, client: Reply) -> None:
        """Give the client another call's answer, or make the call so that others may get its answer."""
        plane = self._plane
        if plane.installed is None or plane.pricing is None:
            raise RequestRefused(
                Refusal("policy_missing", 503, "no policy has reached this sidecar yet; see its /status", "", 1.0)
            )
        trace = self._trace(parsed)
        policy, retry = plane.installed.policy, plane.installed.policy.retry
        if not parsed.operation.billed or not joins_calls(retry):
            await Pipeline(plane, self._exchange(parsed, policy, request_id), parsed, trace, request_id).run(client)
            return
        call, earlier = call_of(parsed, request_id, plane.installed.digest), 0
        match found := plane.joins.ask(call, retry, plane.clock.monotonic()):
            case Original():
                if await JoinedCall(plane, found, parsed, trace, request_id).run(client):
                    return
            case Apart():
                earlier = found.earlier
            case Spent():
                plane.client_retried("denied")
                raise RequestRefused(client_retries_spent(parsed.client_retry, found.tries, retry))
            case Reused():
                raise RequestRefused(key_reused())
        original = plane.joins.begin(call, retry, earlier)
        exchange = self._exchange(parsed, policy, request_id, earlier)
        try:
            audience = Audience(client, plane.joins, original)
            await Pipeline(plane, exchange, parsed, trace, request_id).run(audience)
        finally:
            now = plane.clock.monotonic()
            plane.joins.end(original, retry, now, tries=exchange.sent, final=exchange.final)

    def _exchange(self, parsed: ParsedRequest, policy: Policy, request_id: str, earlier_tries: int = 0) -> Exchange:
        plane = self._plane
        assert plane.pricing is not None
        return Exchange(
            parsed,
            policy,
            ledger=plane.ledger,
            retry_budgets=plane.retry_budgets,
            breakers=plane.breakers,
            limiters=plane.limiters,
            restraints=plane.restraints,
            pricing=plane.pricing,
            request_id=request_id,
            rng=plane.rng,
            deadline_seconds=plane.limits.request_seconds,
            earlier_tries=earlier_tries,
        )

    def _trace(self, parsed: ParsedRequest) -> TraceContext:
        told = parsed.headers.get("traceparent", "")
        trace = TraceContext.parse(told, parsed.headers.get("tracestate", "")) if told else None
        return trace or TraceContext(trace_id=self._plane.new_id(), parent_id="")

    def _admit_client(self, request: web.BaseRequest) -> None:
        """Browsers and other machines are no clients: no Origin, only our own names as Host, the token if set."""
        settings = self._settings
        if "Origin" in request.headers:
            raise _unauthorized(403, "requests from browsers are refused", "Origin")
        if settings.listen.is_loopback and not _is_own_host(request.headers.get("Host", "")):
            raise _unauthorized(403, "address this listener as 127.0.0.1 or localhost", "Host")
        if settings.client_token:
            shown = request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(shown.encode(errors="surrogateescape"), settings.client_token.encode()):
                raise _unauthorized(401, "show the client token as API key (Authorization: Bearer …, or x-api-key)", "")

    def _own(self, request: web.BaseRequest) -> web.Response:
        if request.method == "GET" and request.raw_path == "/spendmesh/v1/status":
            return web.Response(body=msgspec.json.encode(self._plane.status()), content_type="application/json")
        refusal = Refusal("operation_unsupported", 404, "GET /spendmesh/v1/status is what there is")
        raise RequestRefused(refusal)


def _unauthorized(status: int, message: str, param: str) -> RequestRefused:
    return RequestRefused(Refusal("client_refused", status, message, param))


def _is_own_host(host: str) -> bool:
    """A page under another name that resolves to loopback (DNS rebinding) shows its own name here."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name in ("127.0.0.1", "localhost", "[::1]")
