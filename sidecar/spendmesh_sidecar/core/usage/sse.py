"""
Server-sent events out of bytes that arrive in any pieces, in bounded memory. Knows the framing, not what is in it.

Format: WHATWG HTML, "Interpreting an event stream": lines end with CR, LF or CRLF; an empty line ends an event.
"""

from __future__ import annotations

from msgspec import Struct

MAX_EVENT_BYTES = 1 << 20
"""Longer events are passed over (the bytes go to the client all the same); the largest real ones, tool arguments in
one piece, stay below 100 KB. httpx-sse and aiohttp stop at 64 KB to 1 MB too."""


class Event(Struct, frozen=True, gc=False):
    """One event: its name (empty when it has none) and its data lines joined."""

    name: bytes
    data: bytes


class EventReader:
    """Feed chunks, take events. `dropped` counts those that were too long to look at."""

    def __init__(self) -> None:
        self.dropped = 0
        self._line = bytearray()  # a line that has not ended yet
        self._skipping = False  # inside a line that is too long
        self._after_cr = False  # the last chunk ended with CR: an LF that follows belongs to it
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0  # of the event's data lines as they came
        self._spoiled = False  # this event lost a line

    def feed(self, chunk: bytes) -> list[Event]:
        """Events that are complete with this chunk."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        elif chunk[-2:] == b"\n\n" and self._is_idle() and (plain := _plain_events(chunk)):
            return plain
        *lines, rest = chunk.split(b"\n")
        events = [event for line in lines if (event := self._end_line(line)) is not None]
        if rest:
            self._keep(rest)
        return events

    def flush(self) -> Event | None:
        """What the bytes so far would be if the stream ended here; changes nothing."""
        data = list(self._data)
        line = bytes(self._line)
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        return Event(self._name, b"\n".join(data)) if data and not self._spoiled else None

    def _is_idle(self) -> bool:
        """Between two events."""
        return not (self._line or self._data or self._name or self._skipping or self._spoiled)

    def _keep(self, part: bytes) -> None:
        """Remember the beginning of a line, unless it has become too long."""
        if self._skipping:
            return
        self._line += part
        if len(self._line) > MAX_EVENT_BYTES:
            self._line.clear()
            self._skipping = True
            self._spoil()

    def _end_line(self, end: bytes) -> Event | None:
        """A line is complete: the kept beginning and this end."""
        if self._skipping:
            self._skipping = False
            return None
        line = end
        if self._line:
            line = bytes(self._line) + end
            self._line.clear()
        if line:
            self._take(line)
            return None
        return self._end_event()

    def _take(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            data = line[5:].removeprefix(b" ")
            self._size += len(line) + 1  # an empty one takes memory too
            if self._size > MAX_EVENT_BYTES:
                self._spoil()
            elif not self._spoiled:
                self._data.append(data)
        elif line.startswith(b"event:"):
            self._name = line[6:].strip()[:64]

    def _spoil(self) -> None:
        if not self._spoiled:
            self.dropped += 1
        self._spoiled = True
        self._data.clear()

    def _end_event(self) -> Event | None:
        event = None
        if self._data:
            event = Event(self._name, self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
            self._data.clear()
        self._name, self._size, self._spoiled = b"", 0, False
        return event


def _plain_events(chunk: bytes) -> list[Event]:
    """Of a chunk of whole events, each one line of data, as most streams send them; of any other chunk none."""
    events: list[Event] = []
    for line in chunk[:-2].split(b"\n\n"):
        if line[:5] != b"data:" or b"\n" in line:
            return []
        events.append(Event(b"", line[6:] if line[5:6] == b" " else line[5:]))
    return events
