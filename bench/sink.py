"""A collector that only counts: takes OTLP/HTTP and answers 200, in a process of its own on the load's core."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import contestants


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    spans = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        _Handler.spans += body.count(b'"spanId"')
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def do_GET(self) -> None:
        text = str(_Handler.spans).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Silence."""


class Sink:
    """Address and count of a running sink."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    @property
    def spans(self) -> int:
        """Spans taken so far."""
        import urllib.request

        with urllib.request.urlopen(self.url) as answer:
            return int(answer.read())


@contextmanager
def sink() -> Iterator[Sink]:
    """Run this module as a child."""
    with contestants.spawned([sys.executable, __file__], contestants.OTHER_CORE) as process:
        yield Sink(int(str(contestants.first_line(process)["port"])))


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    threading.Thread(target=server.serve_forever).start()
