"""Where a stream is ended that is not covered: between two events, in whatever pieces they come."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator
from typing import Any

import pytest

from spendmesh_sidecar.core.refusals import refuse
from spendmesh_sidecar.core.types import Refusal, Shortfall
from spendmesh_sidecar.core.usage.streams import OpenAIStream
from spendmesh_sidecar.metered import StreamEnded, covered, error_event

pytestmark = pytest.mark.anyio

LACK = (Shortfall("team-a/team", "monthly", 1, 1),)
REFUSAL = refuse("budget_exceeded", "nothing is left")


class Covers:
    """A meter that covers so many bytes of text, and then lacks rights that come or do not."""

    wait_seconds = 0.0

    def __init__(self, covers: int, answer: Refusal | None) -> None:
        self.covers, self._answer = covers, answer
        self.asked: list[int] = []

    def extend(self, seen_bytes: int, now: float) -> tuple[Shortfall, ...]:
        self.asked.append(seen_bytes)
        return LACK

    def answered(self, denials: Any, now: float) -> Refusal | None:
        assert denials == ()
        self.covers += 4
        return self._answer


class Rights:
    async def acquire(self, shortfalls: tuple[Shortfall, ...], wait_seconds: float) -> tuple[()]:
        assert shortfalls == LACK
        return ()


async def passed(chunks: list[bytes], meter: Covers) -> tuple[bytes, bool]:
    """What is passed on, and whether the stream was ended."""

    async def provider() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    scanner = OpenAIStream()
    plane: Any = types.SimpleNamespace(clock=types.SimpleNamespace(monotonic=lambda: 0.0), leases=Rights())
    found = b""
    try:
        async for chunk in covered(provider(), scanner, meter, plane):  # type: ignore[arg-type]
            scanner.feed(chunk)
            found += chunk
    except StreamEnded as ended:
        assert ended.refusal is REFUSAL
        return found, True
    return found, False


def event(text: str, end: str = "\n\n") -> bytes:
    return f'data: {{"choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}{end}'.encode()


ONE, TWO, THREE, DONE = event("aaaa"), event("bbbb"), event("cccc"), b"data: [DONE]\n\n"
CRLF = event("bbbb", "\r\n\r\n")


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([ONE, TWO, THREE, DONE], ONE + TWO),
        ([ONE, TWO + THREE[:9], THREE[9:], DONE], ONE + TWO + THREE),
        ([ONE, TWO + THREE[:9], THREE[9:] + DONE], ONE + TWO + THREE),
        ([ONE, TWO + THREE[:9], THREE[9:20], THREE[20:-1], THREE[-1:], DONE], ONE + TWO + THREE),
        ([ONE, TWO + THREE[:-1], b"\n" + DONE], ONE + TWO + THREE),
        ([ONE, CRLF, THREE], ONE + CRLF),
        ([ONE, CRLF + THREE[:1], THREE[1:]], ONE + CRLF + THREE),
        ([ONE + TWO + THREE], ONE + TWO + THREE),
    ],
)
async def test_a_stream_is_ended_after_the_event_that_has_begun(chunks: list[bytes], expected: bytes) -> None:
    """Half an event would be what the client stumbles over, in place of the error that says why."""
    assert await passed(chunks, Covers(4, REFUSAL)) == (expected, True)


@pytest.mark.parametrize(
    "chunks", [[ONE, TWO + DONE], [ONE, TWO + DONE[:5], DONE[5:-2]]], ids=["whole", "without its last newline"]
)
async def test_a_stream_that_has_come_to_its_end_is_not_ended(chunks: list[bytes]) -> None:
    """It has said what it cost, or nothing of it is missing."""
    assert await passed(chunks, Covers(4, REFUSAL)) == (b"".join(chunks), False)


async def test_a_stream_goes_on_with_the_rights_that_came_and_is_asked_about_when_they_are_used_up() -> None:
    meter = Covers(4, None)
    assert await passed([ONE, TWO, THREE, DONE], meter) == (ONE + TWO + THREE + DONE, False)
    assert meter.asked == [8, 12]


@pytest.mark.parametrize(
    ("dialect", "begins"), [("OpenAI", b'data: {"error":'), ("Anthropic", b"event: error\ndata: {")]
)
def test_the_last_event_is_an_error_in_the_clients_dialect(dialect: Any, begins: bytes) -> None:
    told = error_event(dialect, REFUSAL, "req-1")
    assert told.startswith(begins) and told.endswith(b"}\n\n") and told.count(b"\n\n") == 1
    assert b"budget_exceeded" in told and b"nothing is left" in told
