"""
Usage out of the bytes of an answer while they pass: the doors to the scanners, one for each dialect and framing.

A scanner only looks: it never changes or delays a byte, keeps bounded memory, and believes nothing (see `outcome`).
"""

from __future__ import annotations

from typing import Protocol

from spendmesh_sidecar.core.types import Operation
from spendmesh_sidecar.core.usage.bodies import BodyScanner
from spendmesh_sidecar.core.usage.chunk import UsageChunkFilter
from spendmesh_sidecar.core.usage.observation import Observation
from spendmesh_sidecar.core.usage.streams import AnthropicStream, OpenAIStream

__all__ = ["Observation", "Scanner", "UsageChunkFilter", "scanner"]


class Scanner(Protocol):
    """Feed every chunk as it came from the provider; ask at the end, or whenever the stream stops."""

    @property
    def failed(self) -> bool:
        """An error came, and no text before it."""

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""

    @property
    def output_bytes(self) -> int:
        """Of a stream: generated text so far, in UTF-8 bytes; else 0."""

    def observe(self) -> Observation:
        """What the bytes so far say, as if they were all. May be asked more than once."""


def scanner(operation: Operation, streamed: bool, long_cache: bool = False) -> Scanner:
    """
    The scanner for a 2xx answer.

    `streamed` if its content type is `text/event-stream`; `long_cache` if the request asked for a long cache write
    (`"long" in request.bounds.cache_writes`).
    """
    if not operation.billed:
        return _Free()
    if not streamed:
        return BodyScanner(operation.dialect, long_cache)
    return AnthropicStream(long_cache) if operation.dialect == "Anthropic" else OpenAIStream()


class _Free:
    """An operation that is never billed: nothing to look for."""

    output_bytes = 0
    failed = False

    def feed(self, chunk: bytes) -> None:
        """Nothing to see."""

    def observe(self) -> Observation:
        """Complete, without usage."""
        return Observation(complete=True)
