"""A provider that costs nothing: canned OpenAI answers from a raw asyncio protocol, so that proxies are measured."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

COMPLETION = json.dumps(
    {
        "id": "chatcmpl-bench",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "medium-1",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "word " * 120, "refusal": None},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 450, "completion_tokens": 120, "total_tokens": 570},
    }
).encode()
HEADERS = (
    b"content-type: application/json\r\nx-request-id: req_bench\r\nopenai-processing-ms: 12\r\n"
    b"x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\n"
    b"x-ratelimit-limit-tokens: 1000000\r\nx-ratelimit-remaining-tokens: 999000\r\n"
)
ANSWER = b"HTTP/1.1 200 OK\r\n" + HEADERS + b"content-length: %d\r\n\r\n" % len(COMPLETION) + COMPLETION
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"medium-1",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}],"usage":null}\n\n'
)
USAGE = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"medium-1",'
    b'"choices":[],"usage":{"prompt_tokens":450,"completion_tokens":100,"total_tokens":550}}\n\n'
)
DONE = b"data: [DONE]\n\n"
EVENTS = 100
GAP_SECONDS = 0.01
"""100 events a second in each stream, as a quick model sends."""


class Provider(asyncio.Protocol):
    """Answers every POST; `"stream":true` in the body asks for a stream."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._streaming: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = (
                int(head[at + 15 : head.find(b"\r\n", at) if head.find(b"\r\n", at) > 0 else None]) if at >= 0 else 0
            )
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            assert self._transport is not None
            if b'"stream":true' in body or b'"stream": true' in body:
                self._streaming = asyncio.ensure_future(self._stream())
            else:
                self._transport.write(ANSWER)

    async def _stream(self) -> None:
        transport = self._transport
        assert transport is not None
        transport.write(STREAM_HEAD)
        for event in (*([EVENT] * EVENTS), USAGE, DONE):
            if transport.is_closing():
                return
            transport.write(b"%x\r\n%s\r\n" % (len(event), event))
            await asyncio.sleep(GAP_SECONDS)
        transport.write(b"0\r\n\r\n")


async def main() -> None:
    """Serve on a free port, say which, until killed."""
    server = await asyncio.get_running_loop().create_server(Provider, "127.0.0.1", int(sys.argv[1]))
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
