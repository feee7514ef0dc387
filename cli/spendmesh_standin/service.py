"""From an HTTP request to an answer: which provider, dialect and operation, whose key, which model. Opens no port."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from spendmesh_standin import wire_anthropic, wire_common, wire_embeddings, wire_openai
from spendmesh_standin.acks import Acks
from spendmesh_standin.attempt import Attempt
from spendmesh_standin.booking import Facts
from spendmesh_standin.errors import ApiError, invalid
from spendmesh_standin.faults import Effects, FaultPlan, Seen
from spendmesh_standin.invoice import Invoice
from spendmesh_standin.prices import CATALOG, Dialect, Model, find
from spendmesh_standin.prompt_cache import PromptCache
from spendmesh_standin.reply import Context, Reply
from spendmesh_standin.requests_seen import SeenRequest, SeenRequests
from spendmesh_standin.settings import Key, Settings

_PAID: Mapping[str, tuple[Dialect, str]] = {
    "/v1/chat/completions": ("openai", "chat.completions"),
    "/v1/embeddings": ("openai", "embeddings"),
    "/v1/messages": ("anthropic", "messages"),
}
_COUNT = "/v1/messages/count_tokens"
_MODELS = "/v1/models"


class Service:
    """The stand-in's state and its answer to every request of a client."""

    def __init__(self, settings: Settings, invoice: Invoice) -> None:
        self.settings = settings
        self.invoice = invoice
        self.plan = FaultPlan()
        self.acks = Acks()
        self.seen = SeenRequests()
        self.in_flight = 0
        self.stopping = False
        self._cache = PromptCache()

    def reset(self) -> None:
        """Forget invoice, requests, faults and cached prompts; the settings stay."""
        self.invoice.clear()
        self.seen.clear()
        self.plan = FaultPlan()
        self._cache.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request of a client."""
        started, now = asyncio.get_running_loop().time(), time.time()
        serial = secrets.token_hex(12)
        provider, path = self.settings.provider_of(request.path) or ("", request.path)
        seen = self.seen.add(f"req_{serial}", now, provider, request.method, request.path_qs, request.headers.items())
        call = _Call(self, request, seen, serial, provider, path, started, now)
        self.in_flight += 1
        try:
            response = await call.answer()
            seen.status = response.status
        finally:
            self.in_flight -= 1
            seen.status = seen.status or 0
        return response

    def read_cache(self, key: Key, model: Model, now: float) -> wire_anthropic.CacheReader:
        """The prompt cache as one account's request to one model uses it."""
        return lambda places: self._cache.use(key.account, model.name, places, now)


class _Call:
    """One request on its way to an answer."""

    def __init__(
        self,
        service: Service,
        request: web.Request,
        seen: SeenRequest,
        serial: str,
        provider: str,
        path: str,
        started: float,
        now: float,
    ) -> None:
        self._service = service
        self._request = request
        self._seen = seen
        self._serial = serial
        self._provider = provider
        self._path = path
        self._started = started
        self._now = now
        paid = _PAID.get(path)
        self._operation = "" if paid is None else paid[1]
        self._dialect: Dialect = paid[0] if paid is not None else self._guess_dialect()

    def _guess_dialect(self) -> Dialect:
        anthropic = self._path.startswith("/v1/messages") or "anthropic-version" in self._request.headers
        return "anthropic" if anthropic else "openai"

    async def answer(self) -> web.StreamResponse:
        try:
            raw = await self._read()
            key = self._authenticate()
            self._seen.account = key.account
            if self._path == _MODELS or self._path.startswith(f"{_MODELS}/"):
                return await self._answer_free(key, "GET", {})
            if self._path == _COUNT:
                return await self._answer_free(key, "POST", self._parse(raw))
            if not self._operation or not self._provider:
                raise ApiError(404, f"Invalid URL ({self._request.method} {self._path})")
            self._demand("POST")
        except ApiError as error:
            return self._json(error.status, wire_common.error_json(self._dialect, error, self._seen.id))
        return await self._answer_paid(key, raw)

    async def _read(self) -> bytes:
        try:
            raw = await self._request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise ApiError(413, "Request exceeds the maximum size") from error
        self._seen.read(raw, keep=self._service.settings.record_bodies)
        return raw

    def _demand(self, method: str) -> None:
        if self._request.method != method:
            raise ApiError(405, f"Not allowed to {self._request.method} on {self._path}; use {method}.")

    def _authenticate(self) -> Key:
        headers = self._request.headers
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        secret = bearer.strip() if scheme.lower() == "bearer" else ""
        if self._dialect == "anthropic":
            secret = headers.get("x-api-key", "") or secret
        key = self._service.settings.find_key(self._dialect, secret) if secret else None
        if key is None:
            raise self._unauthenticated(bool(secret))
        if self._dialect == "anthropic" and "anthropic-version" not in headers:
            raise invalid("anthropic-version: header is required")
        return key

    def _unauthenticated(self, given: bool) -> ApiError:
        if self._dialect == "anthropic":
            return ApiError(401, "invalid x-api-key" if given else "x-api-key header is required")
        if given:
            message = "Incorrect API key provided: sk-***. You can find your API key in the dashboard."
            return ApiError(401, message, code="invalid_api_key")
        message = (
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer "
            "auth (i.e. Authorization: Bearer YOUR_KEY)."
        )
        return ApiError(401, message)

    def _parse(self, raw: bytes) -> Mapping[str, Any]:
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise invalid("We could not parse the JSON body of your request.") from error
        if not isinstance(body, dict):
            raise invalid("The body of your request must be a JSON object.")
        return body

    def _model(self, body: Mapping[str, Any]) -> Model:
        name = body.get("model")
        if not isinstance(name, str) or not name:
            text = "model: Field required" if self._dialect == "anthropic" else "you must provide a model parameter"
            raise invalid(text, "model")
        model = find(name, self._dialect)
        if model is None:
            if self._dialect == "anthropic":
                raise ApiError(404, f"model: {name}")
            text = f"The model `{name}` does not exist or you do not have access to it."
            raise ApiError(404, text, code="model_not_found")
        if (model.kind == "embedding") != (self._operation == "embeddings"):
            raise invalid(f"The model `{model.name}` cannot be used with {self._path}.", "model")
        return model

    def _effects(self, account: str, model: str, *, stream: bool, free: bool) -> Effects:
        seen = Seen(model, self._path, self._provider, account, stream, free)
        return self._service.plan.effects(seen, self._started)

    def _attempt(self, key: Key, model: Model | None, name: str, effects: Effects) -> Attempt:
        facts = Facts(
            self._serial,
            self._dialect,
            self._provider,
            self._operation,
            key,
            model,
            name,
            self._started,
            self._now,
        )
        service = self._service
        return Attempt(facts, effects, service.settings, service.invoice, service.acks, lambda: service.stopping)

    async def _answer_paid(self, key: Key, raw: bytes) -> web.StreamResponse:
        effects, model, name = Effects(), None, ""
        try:
            body = self._parse(raw)
            name = str(body.get("model", ""))[:100]
            model = self._model(body)
            effects = self._effects(key.account, model.name, stream=body.get("stream") is True, free=False)
            reply = self._prepare(body, self._context(model, effects), key)
        except ApiError as error:
            return self._attempt(key, None, name, effects).refuse(error)
        attempt = self._attempt(key, model, model.name, effects)
        try:
            return await attempt.answer(self._request, reply)
        finally:
            self._seen.status = attempt.status

    def _prepare(self, body: Mapping[str, Any], context: Context, key: Key) -> Reply:
        if self._operation == "chat.completions":
            return wire_openai.chat(body, context)
        if self._operation == "embeddings":
            return wire_embeddings.embeddings(body, context)
        return wire_anthropic.messages(body, context, self._service.read_cache(key, context.model, self._started))

    async def _answer_free(self, key: Key, method: str, body: Mapping[str, Any]) -> web.StreamResponse:
        """Lists and counts; faults act on them only where a rule names their path, and nothing is booked."""
        self._demand(method)
        effects = self._effects(key.account, str(body.get("model", "")), stream=False, free=True)
        if (hang := effects.get("hang")) is not None:
            if hang.seconds is None:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(hang.seconds or 0.0)
        if (rule := effects.get("status")) is not None:
            raise wire_common.fault_error(rule.status or 500, type=rule.type, code=rule.code, message=rule.message)
        if self._path == _COUNT:
            return self._json(200, wire_anthropic.count_tokens(body, self._context(self._model(body), effects)))
        if self._path == _MODELS:
            return self._json(200, wire_common.models_json(self._dialect))
        name = self._path.removeprefix(f"{_MODELS}/")
        model = find(name, self._dialect)
        if model is None:
            raise ApiError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
        return self._json(200, wire_common.model_json(self._dialect, CATALOG[model.name]))

    def _context(self, model: Model, effects: Effects) -> Context:
        settings = self._service.settings
        return Context(
            serial=self._serial,
            created=int(self._now),
            model=model,
            effects=effects,
            default_output_tokens=settings.default_output_tokens,
            chunk_tokens=settings.chunk_tokens,
            headers=self._request.headers,
        )

    def _json(self, status: int, body: object) -> web.Response:
        elapsed = asyncio.get_running_loop().time() - self._started
        sent = wire_common.headers(self._dialect, self._seen.id, elapsed, self._now)
        raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return web.Response(status=status, body=raw, headers={"content-type": "application/json", **sent})
