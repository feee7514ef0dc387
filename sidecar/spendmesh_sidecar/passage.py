"""
The answer of one attempt on its way from the provider to the client.

A 2xx stream is passed on chunk by chunk as it arrives (from then on the exchange is *committed*); a short 2xx body
and every error body are held, so that the exchange can still decide. A client that leaves does not end the
attempt: the answer is read to its end, within bounds, because the provider bills it either way
and only its last bytes say how much.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from msgspec import Struct

from spendmesh_sidecar.core.exchange import Exchange
from spendmesh_sidecar.core.operations.headers import response_headers
from spendmesh_sidecar.core.outcome import answered, broken
from spendmesh_sidecar.core.types import Attempt, Kind, Outcome, ParsedRequest
from spendmesh_sidecar.core.usage.scanners import Scanner, UsageChunkFilter, scanner
from spendmesh_sidecar.dataplane import DataPlane
from spendmesh_sidecar.downstream.client import Downstream
from spendmesh_sidecar.errors import ClientGone
from spendmesh_sidecar.http1 import header
from spendmesh_sidecar.metered import StreamEnded, covered, error_event
from spendmesh_sidecar.stream_watch import stream_watch
from spendmesh_sidecar.telemetry.spans import AttemptSpan
from spendmesh_sidecar.time_limit import TimeLimit
from spendmesh_sidecar.upstream.wire import UpstreamRequest, UpstreamResponse

Headers = list[tuple[str, str]]


class Answer(Struct, frozen=True, gc=False):
    """A provider's whole answer that no client has seen yet."""

    status: int
    headers: Headers
    body: bytes


class Progress(Struct):
    """What came of an exchange's answers so far."""

    answer: Answer | None = None
    """The last one, while no client has seen any of it."""
    committed: bool = False
    """A byte of one went to the client."""
    committed_status: int = 0
    whole: bool = False
    """The last one came to its end as HTTP has it."""


class Passage:
    """The answer of one attempt on its way from the provider to the client."""

    def __init__(
        self,
        plane: DataPlane,
        exchange: Exchange,
        request: ParsedRequest,
        progress: Progress,
        step: Attempt,
        client: Downstream,
        span: AttemptSpan,
        began: float,
        limit: TimeLimit,
    ) -> None:
        self._plane = plane
        self._exchange = exchange
        self._request = request
        self._progress = progress
        self._dialect = step.provider.dialect
        self._client = client
        self._span = span
        self._began = began
        self._take_out_usage = step.include_usage and not request.usage_asked
        self._response: UpstreamResponse | None = None
        self._scanner: Scanner | None = None
        self._limit = limit
        self._watch = stream_watch(limit, step.first_byte_seconds, step.idle_seconds)
        self._client_gone = False
        self._records = client.records
        self._drain: asyncio.TimerHandle | None = None
        progress.whole = False
        client.when_gone(self._left, self._back)

    async def run(self, request: UpstreamRequest) -> Outcome:
        """Send the request and pass its answer on. Raises what the upstream raises, and TimeoutError."""
        response = self._response = await self._plane.upstream.send(request)
        if response.status >= 300:
            return await self._error(response)
        streamed = header(response.headers, "content-type").lower().startswith("text/event-stream")
        self._scanner = scanner(self._request.operation, streamed, "long" in self._request.bounds.cache_writes)
        try:
            return await (self._stream(response) if streamed else self._whole(response))
        except StreamEnded as ended:
            return await self._stopped(ended)

    async def _stopped(self, ended: StreamEnded) -> Outcome:
        """The client is told why in the stream itself, which then has a whole end."""
        exchange = self._exchange
        exchange.stop(ended.refusal)
        self._progress.whole = True
        await self._pass_on(error_event(self._dialect, ended.refusal, exchange.request_id))
        return self.broken(Kind.STOPPED)

    def broken(self, kind: Literal[Kind.CUT, Kind.TIMEOUT, Kind.STOPPED, Kind.CLIENT_GONE]) -> Outcome:
        """The attempt ended without a whole answer."""
        observation = self._scanner.observe() if self._scanner else None
        status = self._response.status if self._response else None
        return broken(kind, observation, status=status, committed=self._progress.committed)

    def close(self) -> None:
        """Let go of the connection and the client."""
        self._client.when_gone(None)
        if self._watch is not None:
            self._watch.close()
        if self._response is not None:
            self._response.close()
        self._back()

    async def _error(self, response: UpstreamResponse) -> Outcome:
        parts, size = [], 0
        async for chunk in response.chunks():
            parts.append(chunk)
            size += len(chunk)
            if size > self._plane.limits.error_answer_bytes:
                break
        body = b"".join(parts)[: self._plane.limits.error_answer_bytes]
        self._progress.answer = Answer(response.status, response_headers(response.headers, "upstream"), body)
        return answered(self._dialect, response.status, response.headers, body, int(self._plane.clock.unix()))

    async def _whole(self, response: UpstreamResponse) -> Outcome:
        """A body that is not a stream: held while it is short, so that its cost can stand in its headers."""
        assert self._scanner is not None
        held: list[bytes] = []
        size = 0
        async for chunk in response.chunks():
            self._first(chunk)
            if self._watch is not None:
                self._watch.heard()
            self._scanner.feed(chunk)
            if self._progress.committed:
                await self._pass_on(chunk)
                continue
            held.append(chunk)
            size += len(chunk)
            if size > self._plane.limits.held_answer_bytes:
                await self._commit(response)
                await self._pass_on(b"".join(held))
                held.clear()
        if not self._progress.committed:
            headers = response_headers(response.headers, "upstream")
            self._progress.answer = Answer(response.status, headers, b"".join(held))
        return self._ended(response)

    async def _stream(self, response: UpstreamResponse) -> Outcome:
        assert self._scanner is not None
        usage_filter = UsageChunkFilter() if self._take_out_usage else None
        meter = self._exchange.meter()
        chunks = response.chunks()
        held: bytearray | None = None
        async for chunk in covered(chunks, self._scanner, meter, self._plane) if meter else chunks:
            if self._span.first_chunk_seconds is None:
                self._first(chunk)
            if self._watch is not None:
                self._watch.heard()
            self._scanner.feed(chunk)
            passed = usage_filter.feed(chunk) if usage_filter else chunk
            if not self._progress.committed:
                if self._scanner.failed:  # before anything else: it can still be tried again
                    held = (held or bytearray()) + passed
                    if len(held) < self._plane.limits.error_answer_bytes:
                        continue
                await self._commit(response)
                passed = bytes(held or passed)
            if passed and (self._records or not self._client_gone):  # `_pass_on`, without a coroutine for each event
                try:
                    await self._client.write(passed)
                except ClientGone:
                    self._left()
        rest = usage_filter.end() if usage_filter else b""
        if held is not None and not self._progress.committed:
            headers = response_headers(response.headers, "upstream")
            self._progress.answer = Answer(response.status, headers, bytes(held + rest))
            return self._ended(response)
        if not self._progress.committed:
            await self._commit(response)
        if rest:
            await self._pass_on(rest)
        return self._ended(response)

    def _ended(self, response: UpstreamResponse) -> Outcome:
        assert self._scanner is not None
        self._progress.whole = True
        if self._client_gone:
            return self.broken(Kind.CLIENT_GONE)
        return answered(
            self._dialect,
            response.status,
            response.headers,
            b"",
            int(self._plane.clock.unix()),
            observation=self._scanner.observe(),
            committed=self._progress.committed,
        )

    def _first(self, chunk: bytes) -> None:
        if self._span.first_chunk_seconds is None and chunk:
            now = self._plane.clock.monotonic()
            self._span.first_chunk_seconds = now - self._began
            self._exchange.started(now)

    async def _commit(self, response: UpstreamResponse) -> None:
        self._progress.committed = True
        self._progress.committed_status = response.status
        headers = response_headers(response.headers, "upstream") + self._exchange.response_headers(False)
        try:
            await self._client.start(response.status, headers)
        except ClientGone:
            self._left()

    async def _pass_on(self, chunk: bytes) -> None:
        """To the client while it is there; after that only the scanner reads, and who may come yet."""
        if self._client_gone and not self._records:
            return
        try:
            await self._client.write(chunk)
        except ClientGone:
            self._left()

    def _left(self) -> None:
        """The client has left: read on, because the provider bills it either way, but for a bounded time."""
        if self._client_gone:
            return
        self._client_gone = True
        plane = self._plane
        plane.draining += 1
        if plane.draining > plane.limits.drains:
            self._limit.end()
        else:
            self._drain = plane.loop.call_later(plane.limits.drain_seconds, self._limit.end)

    def _back(self) -> None:
        """Somebody reads again, or nobody has to any more."""
        if self._client_gone:
            self._client_gone = False
            self._plane.draining -= 1
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None
