"""Keeps the traces that the Collector sends on (OTLP in JSON), and gives them to whoever asks: GET /exports."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 9100


def main() -> None:
    """Serve until the end of the container."""
    exports: list[object] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            export = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                exports.append(export)
            self._answer(b"{}")

        def do_GET(self) -> None:
            with lock:
                data = json.dumps(exports).encode()
            self._answer(data)

        def _answer(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the exports are the record."""

    ThreadingHTTPServer(("", PORT), Handler).serve_forever()


if __name__ == "__main__":
    main()
