"""
Takes the usage chunk out of an OpenAI stream again, for clients that did not ask for it. All else stays as it came.

Clients index `choices[0]` of every chunk; the usage chunk has none. Only whole events are judged, so bytes wait at
most until their own event is complete.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

MAX_HELD_BYTES = 64 << 10
"""Real usage chunks have about 1 KB: a longer event is another one, and passes as it comes."""

# The end of a line and the empty line after it. A lone CR ends a line too; an LF that follows belongs to it.
_EVENT_END = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?:\r\n|\r|\n)")
_NO_CHOICES = re.compile(rb'"choices"[ \t]*:[ \t]*\[[ \t]*\]')
_LINE_END = re.compile(rb"\r\n|\r|\n")


class UsageChunkFilter:
    """One stream's filter: `feed` every chunk, write what it returns, `end` when the provider is done."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._passing = False  # inside an event that is too long to be the one
        self._lf: Literal["none", "keep", "drop"] = "none"  # an event ended with CR: an LF that follows belongs to it

    def feed(self, chunk: bytes) -> bytes:
        """What the client gets of the stream so far."""
        if self._lf == "none" or not chunk:
            return self._filter(chunk)
        first = b"\n" if self._lf == "keep" and chunk.startswith(b"\n") else b""
        self._lf = "none"
        return first + self._filter(chunk.removeprefix(b"\n"))

    def _filter(self, chunk: bytes) -> bytes:
        if chunk.endswith(b"\n\n") and not self._held and not self._passing and not _NO_CHOICES.search(chunk):
            return chunk
        unseen = max(0, len(self._held) - 3)  # an event's end may have begun with the bytes before
        self._held += chunk
        if b"\n" not in chunk and b"\r" not in chunk and not self._passing and len(self._held) <= MAX_HELD_BYTES:
            return b""
        text = bytes(self._held)
        kept: list[bytes] = []
        start = 0
        for end in _EVENT_END.finditer(text, unseen):
            event = text[start : end.end()]
            start = end.end()
            keep = self._passing or not _is_usage_chunk(event)
            if keep:
                kept.append(event)
            if start == len(text) and event.endswith(b"\r"):
                self._lf = "keep" if keep else "drop"
            self._passing = False
        self._held = bytearray(text[start:])
        if self._passing or len(self._held) > MAX_HELD_BYTES:
            kept.append(self._release())
        return b"".join(kept)

    def end(self) -> bytes:
        """What is left when the stream ends inside an event."""
        rest = bytes(self._held)
        self._held.clear()
        return b"" if _is_usage_chunk(rest) else rest

    def _release(self) -> bytes:
        """Let a long event go, but for a last line end, which may be half of the event's end."""
        self._passing = True
        text = bytes(self._held)
        keep = len(text) - len(text.rstrip(b"\r\n"))
        self._held = bytearray(text[len(text) - keep :])
        return text[: len(text) - keep]


def _is_usage_chunk(event: bytes) -> bool:
    """Usage and an empty list of choices, in one event."""
    if not _NO_CHOICES.search(event):
        return False
    lines = (line for line in _LINE_END.split(event) if line.startswith(b"data:"))
    try:
        chunk = msgspec.json.decode(b"\n".join(line[5:] for line in lines))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(chunk, dict) and chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)
