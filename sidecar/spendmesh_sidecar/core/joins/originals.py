"""One call whose answer others may join, and how far each of them has read it. What is kept and for whom: `joining`."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from spendmesh_sidecar.core.joins.fingerprint import Call

ENTRY_BYTES = 1024
"""What a call takes that has ended, beside its answer: objects, digests, places in tables."""


class Reader(Struct, eq=False):
    """A call that has joined another one, on its way through that one's answer."""

    wake: Callable[[], None]
    """Called when there is more to read, or nothing will come any more."""
    position: int = 0
    """Bytes of the answer's body that it has."""
    cut: bool = False
    """It fell so far behind that what it lacks is gone."""


class Original(Struct, eq=False):
    """
    One call from its begin to the end of its window.

    `running` until it has ended; `answered` once the last byte of its answer is here, `whole` if that is the end.
    """

    call: Call
    running: bool = True
    joinable: bool = True
    """Its answer is here from the first byte on."""
    started: bool = False
    streamed: bool = False
    answered: bool = False
    whole: bool = False
    got: bool = False
    """Somebody has got the whole answer."""
    left: bool = False
    """Its own client has left."""
    final: bool = False
    """Another try would bring no other answer: it succeeded, or failed for its own reasons."""
    tries: int = 0
    """Requests to providers that this call took, with those of the client's tries before it."""
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | bytearray = b""
    """From byte `base` on."""
    base: int = 0
    size: int = 0
    """Bytes that are counted for it."""
    ended: float = 0.0
    """Monotonic seconds."""
    readers: list[Reader] = []
    joined: Callable[[], None] | None = None
    """Called when somebody joins, while it runs."""
    deserted: Callable[[], None] | None = None
    """Called when the last who had joined leaves, while it runs."""

    @property
    def request_id(self) -> str:
        """Of its own client's request."""
        return self.call.request_id

    @property
    def waiting(self) -> bool:
        """Its client has left and nobody has or reads the answer: the call that a retry most likely repeats."""
        return self.left and not self.got and not self.readers

    def take(self, reader: Reader) -> bytes:
        """What the reader lacks of the body so far."""
        data = bytes(self.body[reader.position - self.base :]) if reader.position >= self.base else b""
        reader.position += len(data)
        return data

    def trim(self) -> int:
        """Let go of what nobody needs, once nobody else can join; answers how many bytes."""
        end = self.base + len(self.body)
        upto = min((reader.position for reader in self.readers if not reader.cut), default=end)
        return self.drop(upto - self.base)

    def drop(self, count: int) -> int:
        """Let go of the first bytes; answers how many those were."""
        count = min(count, len(self.body))
        if count > 0:
            self.body = self.body[count:]
            self.base += count
        return max(0, count)

    def wake(self) -> None:
        """Tell everybody who reads."""
        if self.readers:
            for reader in tuple(self.readers):
                reader.wake()
