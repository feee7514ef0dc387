"""The client's side of one exchange, as pipeline and attempts see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Downstream(Protocol):
    """The client's side of one exchange."""

    @property
    def gone(self) -> bool:
        """Nobody is there to take an answer."""
        ...

    @property
    def records(self) -> bool:
        """It wants the answer also while nobody is there: somebody may come."""
        ...

    def when_gone(self, callback: Callable[[], None] | None, back: Callable[[], None] | None = None) -> None:
        """Call this when the client leaves, at once if it has; `back` when somebody is there again; None: no longer."""
        ...

    async def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Send the head of a streamed answer. Raises ClientGone."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Send a part of a streamed answer. Raises ClientGone."""
        ...

    async def finish(self, complete: bool) -> None:
        """End a streamed answer; an incomplete one is cut, so that the client sees that it is."""
        ...

    async def send(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        """Send a whole answer. Raises ClientGone."""
        ...
