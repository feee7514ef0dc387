"""Speaks to one replica's control server as a sidecar would. Reads what to ask from standard input, prints JSON.

{"address": "10.1.2.3:8443", "name": "certificate's name", "authority": "PEM", "requests": [[METHOD, PATH, TOKEN,
BODY]]}: answers [{"status": 200, "line": first line of the body, at most 64 KiB}], one for each request.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
from typing import Any

LINE_BYTES = 65536


def ask(said: dict[str, Any], method: str, path: str, token: str, body: object) -> dict[str, Any]:
    """One request on a connection of its own."""
    host, _, port = said["address"].rpartition(":")
    context = ssl.create_default_context(cadata=said["authority"])
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.sock = context.wrap_socket(socket.create_connection((host, int(port)), 20), server_hostname=said["name"])
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    line = answer.readline(LINE_BYTES).decode()
    connection.close()
    return {"status": answer.status, "line": line}


def main() -> None:
    """Ask all, print all."""
    said = json.load(sys.stdin)
    print(json.dumps([ask(said, *request) for request in said["requests"]]))


if __name__ == "__main__":
    main()
