"""A real OpenTelemetry Collector on loopback, whose spans a test can read."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from part_process import PartFailed, Running, free_port, start, wait_until

START_ATTEMPTS = 3  # somebody else may take a free port between our look and our bind


@dataclass(frozen=True)
class CollectedSpan:
    """A span as it left the Collector: ids in hex, times in nanoseconds since the epoch, attributes as plain values."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    kind: int
    start_unix_nanos: int
    end_unix_nanos: int
    status_code: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str
    events: list[dict[str, Any]]


def plain_value(value: dict[str, Any]) -> Any:
    """An OTLP AnyValue in JSON as a Python value (64-bit integers come as text there)."""
    if "arrayValue" in value:
        return [plain_value(item) for item in value["arrayValue"].get("values", [])]
    if "kvlistValue" in value:
        return plain_attributes(value["kvlistValue"].get("values", []))
    if "intValue" in value:
        return int(value["intValue"])
    return next(iter(value.values()), None)


def plain_attributes(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """OTLP attributes as a dictionary."""
    return {entry["key"]: plain_value(entry["value"]) for entry in attributes}


def spans_of(export: dict[str, Any]) -> list[CollectedSpan]:
    """Every span of one OTLP trace export in JSON."""
    return [
        CollectedSpan(
            name=span["name"],
            trace_id=span["traceId"],
            span_id=span["spanId"],
            parent_span_id=span.get("parentSpanId", ""),
            kind=span.get("kind", 0),
            start_unix_nanos=int(span.get("startTimeUnixNano", 0)),
            end_unix_nanos=int(span.get("endTimeUnixNano", 0)),
            status_code=span.get("status", {}).get("code", 0),
            attributes=plain_attributes(span.get("attributes", [])),
            resource=plain_attributes(resource_spans.get("resource", {}).get("attributes", [])),
            scope=scope_spans.get("scope", {}).get("name", ""),
            events=[
                {"name": event.get("name", ""), "attributes": plain_attributes(event.get("attributes", []))}
                for event in span.get("events", [])
            ],
        )
        for resource_spans in export.get("resourceSpans", [])
        for scope_spans in resource_spans.get("scopeSpans", [])
        for span in scope_spans.get("spans", [])
    ]


def collector_config(listen: str, sink: str) -> str:
    """The Collector's configuration: OTLP over HTTP in, JSON over HTTP out to `sink`, at most 0.1 s later. JSON is
    YAML too."""
    return json.dumps(
        {
            "receivers": {"otlp": {"protocols": {"http": {"endpoint": listen}}}},
            "processors": {"batch": {"timeout": "100ms"}},
            "exporters": {"otlphttp": {"endpoint": sink, "encoding": "json", "compression": "none"}},
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["otlphttp"]}},
            },
        }
    )


class SpanSink:
    """An HTTP server on loopback that keeps the spans a Collector sends to it."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        self._spans: list[CollectedSpan] = []
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                export = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with sink._lock:
                    sink._spans.extend(spans_of(export))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: object) -> None:
                """Quiet: the spans are the record."""

        self._server = ThreadingHTTPServer((address, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.url = f"http://{address}:{self._server.server_port}"

    def spans(self) -> list[CollectedSpan]:
        """What has arrived so far, oldest first."""
        with self._lock:
            return list(self._spans)

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Collector:
    """A Collector for the length of a `with` block. `endpoint` is the base URL for OTLP over HTTP (`/v1/traces` is
    below it)."""

    def __init__(self, otelcol: Path, address: str = "127.0.0.1") -> None:
        """`otelcol`: the program, from `parts.ensure("collector")`. `address`: where it listens; pods of a node reach
        `Node.host_address`."""
        self._otelcol = otelcol
        self._address = address
        self.folder = Path(tempfile.mkdtemp(prefix="spendmesh-collector-"))
        self.endpoint = ""
        self._sink = SpanSink()
        self._running: Running | None = None

    def __enter__(self) -> Collector:
        try:
            for attempt in range(1, START_ATTEMPTS + 1):
                try:
                    self._start()
                    break
                except PartFailed as failed:
                    if attempt == START_ATTEMPTS or "address already in use" not in str(failed):
                        raise
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        listen = f"{self._address}:{free_port(self._address)}"
        config = self.folder / "config.yaml"
        config.write_text(collector_config(listen, self._sink.url))
        self.endpoint = f"http://{listen}"
        self._running = start(
            "otelcol", [self._otelcol, f"--config=file:{config}"], self.folder, environment={"NO_PROXY": "*"}
        )
        wait_until(self._ready, "the Collector takes spans", 60, [self._running])

    def _ready(self) -> bool:
        request = urllib.request.Request(
            f"{self.endpoint}/v1/traces", b'{"resourceSpans": []}', {"Content-Type": "application/json"}, method="POST"
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def spans(self) -> list[CollectedSpan]:
        """The spans that have gone through the Collector so far, oldest first."""
        return self._sink.spans()

    def wait_for_spans(self, count: int, timeout_seconds: float = 60) -> list[CollectedSpan]:
        """The spans, as soon as there are at least `count`. Raises PartFailed when the time is over."""
        deadline = time.monotonic() + timeout_seconds
        while len(spans := self.spans()) < count:
            if time.monotonic() > deadline:
                log = self._running.tail() if self._running else ""
                raise PartFailed(f"{len(spans)} of {count} spans arrived within {timeout_seconds:.0f} s\n{log}")
            time.sleep(0.02)
        return spans

    def stop(self) -> None:
        """Stops the Collector, which sends on what it still holds, and removes its files. The spans stay readable."""
        if self._running is not None:
            self._running.stop()
            self._running = None
            self._sink.close()
        shutil.rmtree(self.folder, ignore_errors=True)
