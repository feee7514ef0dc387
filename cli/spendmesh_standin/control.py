"""The stand-in's own endpoints under /_standin: invoice, faults, what it saw, acknowledgements. For tests and demos."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import Any

from aiohttp import web

from spendmesh_standin.faults import FaultPlan
from spendmesh_standin.service import Service

PREFIX = "/_standin"


class Control:
    """Answers what is asked about, and told to, the stand-in itself."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request under the prefix."""
        path, method = request.path.removeprefix(PREFIX), request.method
        if method == "GET" and path == "/health":
            return web.json_response({"status": "ok", "in_flight": self._service.in_flight})
        if method == "GET" and path == "/invoice":
            return self._invoice(request)
        if method == "GET" and path == "/requests":
            return web.json_response([seen.as_json() for seen in self._service.seen.all()])
        if method == "GET" and path == "/faults":
            return web.json_response(self._service.plan.counts())
        if method == "POST" and path == "/faults":
            return await self._faults(request)
        if method == "POST" and path == "/reset":
            self._service.reset()
            return web.json_response({"reset": True})
        if method == "POST" and path.startswith("/ack/"):
            return self._ack(request, path.removeprefix("/ack/"))
        return _refuse(404, f"no such endpoint: {method} {request.path}")

    def _invoice(self, request: web.Request) -> web.Response:
        """`?lines=0` leaves the lines out, `?after=N` begins after the first N of them; the totals are always whole."""
        statement = self._service.invoice.statement()
        after, lines = request.query.get("after", "0"), request.query.get("lines", "1")
        if not (after.isascii() and after.isdigit()) or lines not in ("0", "1"):
            return _refuse(400, "after must be a natural number and lines 0 or 1")
        answer: dict[str, Any] = {"currency": "USD", "totals": statement.totals()}
        if lines == "1":
            answer["lines"] = [asdict(line) for line in statement.lines[int(after) :]]
        return web.json_response(answer)

    async def _faults(self, request: web.Request) -> web.Response:
        """Replace the whole plan; an empty list ends all faults."""
        try:
            plan = FaultPlan.parse(json.loads(await request.read()), now=asyncio.get_running_loop().time())
        except (ValueError, TypeError) as error:
            return _refuse(400, str(error))
        self._service.plan = plan
        return web.json_response({"rules": len(plan.rules)})

    def _ack(self, request: web.Request, identifier: str) -> web.Response:
        """Let `?chunks=N` more chunks of a withheld stream go, one unless said."""
        gate = self._service.acks.find(identifier)
        chunks = request.query.get("chunks", "1")
        if gate is None:
            return _refuse(404, f"{identifier}: no withheld stream with this id is running")
        if not (chunks.isascii() and chunks.isdigit()):
            return _refuse(400, "chunks must be a natural number")
        gate.acknowledge(int(chunks))
        return web.json_response({"acknowledged": gate.acknowledged})


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
