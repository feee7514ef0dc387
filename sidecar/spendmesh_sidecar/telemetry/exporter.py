"""
Spans, off the request path: a finished exchange leaves small records in a bounded queue, a task writes them as
OTLP/HTTP JSON (`otlp`) a few at a time and sends them.

The SDK's exporter would cost every pod 27 MB and stall the loop for 30 ms a batch: OTLP's
JSON encoding needs neither it nor protobuf. A full queue drops spans and counts them, never requests, never money.
No prompt, key or user value is in a span. Names: contract §5 and OpenTelemetry GenAI.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import aiohttp

from spendmesh_sidecar.settings import Settings
from spendmesh_sidecar.telemetry.metrics import Metrics
from spendmesh_sidecar.telemetry.otlp import Encoder
from spendmesh_sidecar.telemetry.spans import ExchangeSpan

MAX_QUEUED = 8192
"""Spans waiting; the SDK's own default for a batch processor is 2048."""
SLICE = 64
"""Spans written at a time: they take 0.3 ms, so that no stream waits for them."""
REQUEST_SPANS = 256
"""Spans sent at a time, about 300 KB; the SDK's own default for a batch is 512."""
MAX_ANSWER_BYTES = 64 * 1024
"""Of a collector's answer: it says little, and nothing of it is used."""
FLUSH_SECONDS = 0.25
EXPORT_TIMEOUT_SECONDS = 10.0
"""OTEL_EXPORTER_OTLP_TIMEOUT default."""

log = logging.getLogger("spendmesh.telemetry")


class Telemetry:
    """The queue and its exporter. Without an endpoint it does nothing and costs nothing."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._url = settings.otlp_traces_url
        self._headers = {"content-type": "application/json", **dict(settings.otlp_headers)}
        self._encoder = Encoder(settings.resource)
        self._queue: deque[ExchangeSpan] = deque()
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """What runs in the background."""
        return (self._task,) if self._task is not None else ()

    @property
    def enabled(self) -> bool:
        """Whether spans go anywhere."""
        return bool(self._url)

    def record(self, span: ExchangeSpan) -> None:
        """Queue one exchange; drops and counts when the queue is full or the caller's trace is not sampled."""
        if not self._url:
            return
        if not span.context.sampled:
            self._dropped("unsampled", 1 + len(span.attempts))
        elif len(self._queue) >= MAX_QUEUED:
            self._dropped("queue_full", 1 + len(span.attempts))
        else:
            self._queue.append(span)

    async def start(self) -> None:
        """Begin exporting."""
        if self._url:
            timeout = aiohttp.ClientTimeout(total=EXPORT_TIMEOUT_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False)
            self._task = asyncio.create_task(self._run(), name="telemetry")

    async def stop(self, seconds: float = 3.0) -> None:
        """Export what waits, at most this long, then end."""
        if self._task is None or self._session is None:
            return
        self._stopping.set()
        try:
            async with asyncio.timeout(seconds):
                await self._task
        except TimeoutError:
            self._dropped("shutdown", sum(1 + len(exchange.attempts) for exchange in self._queue))
        await self._session.close()

    async def _run(self) -> None:
        last = False
        while not last:
            try:
                async with asyncio.timeout(FLUSH_SECONDS):
                    last = await self._stopping.wait()
            except TimeoutError:
                pass  # the usual turn
            while self._queue:
                await self._export()

    async def _export(self) -> None:
        """One request; a collector that refuses or is away loses these spans, never more, and is never retried."""
        assert self._session is not None
        texts: list[str] = []
        spans = 0
        while self._queue and spans < REQUEST_SPANS:
            slice_end = spans + SLICE
            while self._queue and spans < slice_end:
                exchange = self._queue.popleft()
                texts.append(self._encoder.spans(exchange))
                spans += 1 + len(exchange.attempts)
            await asyncio.sleep(0)  # calls go first
        try:
            body = self._encoder.request(texts)
            async with self._session.post(self._url, data=body, headers=self._headers) as response:
                await response.content.read(MAX_ANSWER_BYTES)  # unread, it would cost the connection
                if response.status >= 300:
                    self._dropped("collector_refused", spans)
        except (aiohttp.ClientError, OSError, TimeoutError):
            self._dropped("collector_unreachable", spans)

    def _dropped(self, reason: str, spans: int) -> None:
        self._metrics.add("spendmesh_spans_dropped_total", (("reason", reason),), spans)
