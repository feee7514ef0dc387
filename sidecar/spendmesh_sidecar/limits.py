"""How much of the sidecar one call, one client or all of them may take. Each limit has its precedent beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, durations in seconds."""

    connections: int = 1024
    """Open connections of one pod; nginx worker_connections is 512 to 1024 by default."""
    head_seconds: float = 10.0
    """From a request's first byte to the end of its head; Apache RequestReadTimeout gives 20, nginx 60."""
    header_bytes: int = 16 * 1024
    """One header field, either way; node.js allows 16 KiB, tomcat 8 KiB."""
    body_bytes: int = 32 * 1024 * 1024
    """Anthropic's documented request limit; OpenAI's is larger, but no chat body comes near."""
    bodies_bytes: int = 48 * 1024 * 1024
    """All bodies that are held at once; Elasticsearch's in-flight requests breaker bounds the same sum. One may stand
    in memory twice, as it came and as it is sent: beside a sidecar's own 65 MB that fits its usual limit of 192 MiB."""
    body_seconds: float = 30.0
    """Envoy edge guide: a bounded time for a request to arrive; 32 MiB over loopback take far less."""
    linger_seconds: float = 5.0
    """How long the rest of a refused body is read and dropped, so that the client sees the refusal; nginx
    lingering_timeout."""
    keepalive_seconds: float = 75.0
    """nginx keepalive_timeout; SDKs close idle connections earlier."""
    request_seconds: float = 600.0
    """All tries and waits of one call: the read timeout of the official SDKs, after which nobody listens."""
    held_answer_bytes: int = 4 * 1024 * 1024
    """A longer body that is not streamed is passed on as it comes, without the cost header. Envoy buffers 1 MiB."""
    error_answer_bytes: int = 64 * 1024
    """Error bodies of providers are a few hundred bytes."""
    drain_seconds: float = 120.0
    """How long an answer is read to its end for a client that has left, because its last bytes say what it cost."""
    drains: int = 64
    """Answers read for nobody at once; above it they are cut and charged at the worst case."""
