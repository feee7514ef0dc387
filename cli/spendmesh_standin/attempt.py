"""One attempt over HTTP: sends a prepared reply, lets its faults act and books exactly one invoice line."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Callable
from email.utils import formatdate
from typing import NoReturn

from aiohttp import web

from spendmesh_standin.acks import Acks, Gate
from spendmesh_standin.booking import Facts, invoice_line
from spendmesh_standin.errors import ApiError
from spendmesh_standin.faults import Bill, Effects, FaultRule
from spendmesh_standin.framing import Framer
from spendmesh_standin.invoice import Invoice, Reason
from spendmesh_standin.reply import Reply
from spendmesh_standin.settings import Settings
from spendmesh_standin.wire_common import error_json, fault_error, headers

_TIMEOUTS = (408, 504)
_STREAM = "text/event-stream; charset=utf-8"


class Attempt:
    """The life of one billed operation; `stopping` tells whether the process is being ended."""

    def __init__(
        self,
        facts: Facts,
        effects: Effects,
        settings: Settings,
        invoice: Invoice,
        acks: Acks,
        stopping: Callable[[], bool],
    ) -> None:
        self._facts = facts
        self._effects = effects
        self._settings = settings
        self._invoice = invoice
        self._acks = acks
        self._stopping = stopping
        self._reply: Reply | None = None
        self._streamed = 0
        self._silent: FaultRule | None = None
        self._booked = False
        self.status = 0

    async def answer(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        """Send the reply. A client that leaves ends in CancelledError, after its bill is booked."""
        self._reply = reply
        try:
            return await self._answer(request, reply)
        except asyncio.CancelledError:
            self._depart()
            raise
        except ConnectionError as error:
            self._depart()
            raise asyncio.CancelledError from error

    def refuse(self, error: ApiError) -> web.Response:
        """Answer a request that never reached the model; it costs nothing."""
        self._book("error", "none", error.status)
        return self._json(error.status, error_json(self._facts.dialect, error, self._facts.request_id))

    async def _answer(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        if (rule := self._effects.get("hang")) is not None:
            await self._say_nothing(rule)
        slow = self._effects.get("slow")
        await _wait(self._settings.ttft_seconds + (slow.ttft_seconds if slow is not None else 0.0))
        if (rule := self._effects.get("reset")) is not None:
            self._book("error", rule.bill or "none")
            self._cut(request, clean=False)
        if (rule := self._effects.get("status")) is not None:
            return self._fault_status(rule)
        if (rule := self._effects.get("error_in_200")) is not None:
            self._book("error", rule.bill or "none", 200)
            return self._json(200, self._fault_json(rule))
        if reply.frames is None:
            return await self._send_body(request, reply)
        return await self._send_stream(request, reply)

    def _fault_status(self, rule: FaultRule) -> web.Response:
        status = rule.status or 500
        self._book("timeout" if status in _TIMEOUTS else "error", rule.bill or "none", status)
        extra = {}
        if rule.retry_after is not None:
            extra["retry-after"] = str(rule.retry_after)
        if rule.retry_after_date_seconds is not None:
            extra["retry-after"] = formatdate(self._facts.now + rule.retry_after_date_seconds, usegmt=True)
        if rule.retry_after_ms is not None:
            extra["retry-after-ms"] = str(rule.retry_after_ms)
        if rule.should_retry is not None:
            extra["x-should-retry"] = "true" if rule.should_retry else "false"
        return self._json(status, self._fault_json(rule), extra)

    def _fault_json(self, rule: FaultRule) -> dict[str, object]:
        status = rule.status or (529 if self._facts.dialect == "anthropic" else 500)
        error = fault_error(status, type=rule.type, code=rule.code, message=rule.message)
        return error_json(self._facts.dialect, error, self._facts.request_id)

    async def _send_body(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        tokens = reply.tokens
        await _wait(self._settings.generation_seconds(tokens.completion))
        if (rule := self._effects.get("error_event")) is not None:
            self._book("error", rule.bill or "none", 200)
            return self._json(200, self._fault_json(rule))
        raw = json.dumps(reply.body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        broken = self._effects.get("reset_after_chunks")
        stalled = self._effects.get("stall")
        if broken is not None or stalled is not None:
            return await self._send_half(request, raw, broken, stalled)
        extra = {}
        if "gzip" in self._effects.styles and _accepts_gzip(request):
            raw, extra = gzip.compress(raw, mtime=0), {"content-encoding": "gzip"}
        self._book("ok", "full", 200)
        return web.Response(body=raw, headers={**self._headers("application/json"), **extra})

    async def _send_half(
        self, request: web.Request, raw: bytes, broken: FaultRule | None, stalled: FaultRule | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=self._headers("application/json"))
        response.content_length = len(raw)
        self.status = 200
        await response.prepare(request)
        await response.write(raw[: len(raw) // 2])
        if stalled is not None:
            await self._say_nothing(stalled)
        if broken is not None:
            self._book("error", broken.bill or "full")
            self._cut(request, clean=broken.clean)
        self._book("ok", "full")
        await response.write(raw[len(raw) // 2 :])
        return response

    async def _send_stream(self, request: web.Request, reply: Reply) -> web.StreamResponse:
        framer = Framer(self._effects.styles, accepts_gzip=_accepts_gzip(request))
        response = web.StreamResponse(headers=self._headers(_STREAM))
        if framer.content_encoding is not None:
            response.headers["content-encoding"] = framer.content_encoding
        self.status = 200
        await response.prepare(request)
        slow = self._effects.get("slow")
        gate = self._acks.open(self._facts.serial) if self._effects.has("withhold") else None
        try:
            await self._send_frames(request, response, reply, framer, slow.chunk_seconds if slow else 0.0, gate)
        finally:
            self._acks.close(self._facts.serial)
        return response

    async def _send_frames(
        self,
        request: web.Request,
        response: web.StreamResponse,
        reply: Reply,
        framer: Framer,
        pause_seconds: float,
        gate: Gate | None,
    ) -> None:
        chunks = 0
        for frame in reply.frames or ():
            ends = frame.kind in ("tail", "done")
            if gate is not None and (frame.kind == "content" or ends):
                await gate.wait(chunks)
            if (frame.kind == "content" or ends) and await self._interrupt(request, response, framer, chunks, ends):
                return
            if frame.kind == "content":
                await _wait(pause_seconds + self._settings.generation_seconds(frame.tokens))
                chunks += 1
                self._streamed += frame.tokens
            elif ends:
                self._book("ok", "full")
            await _write(response, framer.frame(frame))
        await _write(response, framer.end())

    async def _interrupt(
        self, request: web.Request, response: web.StreamResponse, framer: Framer, chunks: int, ends: bool
    ) -> bool:
        """Break the stream where a fault says so; True where it has been ended by an error event."""
        if self._booked:
            return False
        rule = self._effects.get("stall")
        if rule is not None and (chunks == rule.chunks or (ends and chunks < rule.chunks)):
            await self._say_nothing(rule)
        rule = self._effects.get("reset_after_chunks")
        if rule is not None and (ends or chunks >= rule.chunks):
            self._book("error", rule.bill or "streamed")
            await asyncio.sleep(0)
            self._cut(request, clean=rule.clean)
        rule = self._effects.get("error_event")
        if rule is None or (not ends and chunks < rule.chunks):
            return False
        self._book("error", rule.bill or "streamed")
        name = "error" if self._facts.dialect == "anthropic" else None
        await _write(response, framer.error(json.dumps(self._fault_json(rule)), name))
        return True

    async def _say_nothing(self, rule: FaultRule) -> None:
        self._silent = rule
        if rule.seconds is None:
            await asyncio.get_running_loop().create_future()
        await _wait(rule.seconds or 0.0)
        self._silent = None

    def _cut(self, request: web.Request, *, clean: bool) -> NoReturn:
        transport = request.transport
        if transport is not None:
            connection = transport.get_extra_info("socket")
            if clean:
                transport.close()
            else:
                if connection is not None:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
        raise asyncio.CancelledError

    def _depart(self) -> None:
        """Book what a client costs that left before the end."""
        rule = self._silent or self._effects.get("disconnect_billing")
        bill: Bill = (rule.bill if rule is not None else None) or self._settings.disconnect_billing
        reason: Reason = "error" if self._stopping() else "timeout" if self._silent is not None else "disconnect"
        self._book(reason, bill)

    def _book(self, reason: Reason, bill: Bill, status: int = 0) -> None:
        """Write the invoice line, once: what is decided first stays."""
        self.status = self.status or status
        if not self._booked:
            self._booked = True
            self._invoice.book(invoice_line(self._facts, self._reply, reason, bill, self.status, self._streamed))

    def _headers(self, content_type: str) -> dict[str, str]:
        facts = self._facts
        elapsed = asyncio.get_running_loop().time() - facts.started
        return {"content-type": content_type, **headers(facts.dialect, facts.request_id, elapsed, facts.now)}

    def _json(self, status: int, body: object, extra: dict[str, str] | None = None) -> web.Response:
        raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return web.Response(status=status, body=raw, headers={**self._headers("application/json"), **(extra or {})})


def _accepts_gzip(request: web.Request) -> bool:
    return "gzip" in request.headers.get("Accept-Encoding", "").lower()


async def _wait(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _write(response: web.StreamResponse, pieces: list[bytes]) -> None:
    for piece in pieces:
        await response.write(piece)
        if len(pieces) > 1:
            await asyncio.sleep(0)  # so that the pieces leave one by one
