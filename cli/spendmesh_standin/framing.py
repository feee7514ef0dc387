"""Server-sent events as bytes, in every framing that a client must understand. Knows no dialect and sends nothing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from spendmesh_standin.faults import Style

FrameKind = Literal["head", "content", "tail", "done"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One event. `tokens` says how many output tokens' text it carries; the first `tail` frame ends the generation."""

    data: str
    event: str | None = None
    kind: FrameKind = "head"
    tokens: int = 0


class Framer:
    """Turns frames into the pieces to write, one write for each piece. One framer for one stream."""

    def __init__(self, styles: Sequence[Style] = (), *, accepts_gzip: bool = False) -> None:
        self._styles = frozenset(styles)
        self._end = "\r\n" if "crlf" in self._styles else "\r" if "cr" in self._styles else "\n"
        compressed = "gzip" in self._styles and accepts_gzip
        self._compressor = zlib.compressobj(wbits=31) if compressed else None

    @property
    def content_encoding(self) -> str | None:
        return "gzip" if self._compressor is not None else None

    def frame(self, frame: Frame) -> list[bytes]:
        """The writes for one event; none where the framing leaves it out."""
        if frame.kind == "done" and "no_done" in self._styles:
            return []
        colon = ":" if "no_space" in self._styles else ": "
        text = "" if frame.event is None else f"event{colon}{frame.event}{self._end}"
        text += f"data{colon}{frame.data}{self._end}{self._end}"
        if "comments" in self._styles:
            text = f": keep-alive{self._end}{self._end}{text}"
        if frame.kind == "done" and "after_done" in self._styles:
            text += f'data{colon}{{"late":true}}{self._end}{self._end}'
        return self._split(self._compress(text.encode("utf-8", "surrogatepass")))

    def error(self, data: str, event: str | None) -> list[bytes]:
        """The writes for an error in the middle of the stream, which is also its end."""
        return [*self.frame(Frame(data, event)), *self.end()]

    def end(self) -> list[bytes]:
        """What closes the stream after its last event."""
        return [self._compressor.flush()] if self._compressor is not None else []

    def _compress(self, raw: bytes) -> bytes:
        if self._compressor is None:
            return raw
        # Flushed for each event: a compressor that waits for more would hold the stream back.
        return self._compressor.compress(raw) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def _split(self, raw: bytes) -> list[bytes]:
        if "one_byte" in self._styles:
            return [raw[place : place + 1] for place in range(len(raw))]
        if "split_utf8" in self._styles:
            middle = next((place for place, byte in enumerate(raw) if byte & 0xC0 == 0x80), len(raw) // 2)
            return [raw[:middle], raw[middle:]]
        return [raw]
