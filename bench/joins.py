"""
What joining adds to a call that nobody joins, and what a join costs: `python bench/joins.py`, no network in it.

CPU time of the process, so that neighbors do not count; the least of the rounds. The first line is for all of a
RetryBudget together: breaker, a deposit of the budget, and joining. The calls of the last lines are as many as join one
stream while it passes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Sequence

from breaker import KEY, microseconds, serving
from spendmesh_sidecar.core.failures.breaker import Breakers, Verdict
from spendmesh_sidecar.core.failures.retry_budgets import RetryBudgets
from spendmesh_sidecar.core.joins.fingerprint import Call, call_of
from spendmesh_sidecar.core.joins.joining import Joins
from spendmesh_sidecar.core.joins.originals import Original, Reader
from spendmesh_sidecar.core.operations import parse_request
from spendmesh_sidecar.core.operations.routes import parse as parse_route
from spendmesh_sidecar.core.specs import BreakerSpec, RetrySpec
from spendmesh_sidecar.core.types import ParsedRequest
from spendmesh_sidecar.downstream.audience import Audience, follow

SPEC = RetrySpec()
DIGEST = "0" * 64
ANSWER = [(f"x-header-{number}", "value of twenty byte") for number in range(16)]
BODY = bytes(1_000)
EVENT = b"data: " + bytes(200) + b"\n\n"


def request(body_bytes: int, retry: int = 0) -> ParsedRequest:
    """A chat request of about this size."""
    body = {"model": "auto", "messages": [{"role": "user", "content": "x" * body_bytes}]}
    headers = (("x-stainless-retry-count", str(retry)), ("accept", "application/json"))
    operation = parse_route("POST", "/openai/v1/chat/completions").operation
    return parse_request(operation, json.dumps(body).encode(), headers)


def nobody_joins(body_bytes: int) -> Callable[[], None]:
    """A call that is answered in whole: what `app` and `Audience` do for it beside the call."""
    joins, parsed, numbers = Joins(), request(body_bytes), itertools.count()

    def call() -> None:
        number = next(numbers)
        asked = call_of(parsed, str(number), DIGEST)
        joins.ask(asked, SPEC, number * 0.001)
        original = joins.begin(asked, SPEC)
        joins.send(original, 200, ANSWER, BODY)
        joins.has(original)
        joins.end(original, SPEC, number * 0.001, tries=1, final=True)

    return call


def together(body_bytes: int) -> Callable[[], None]:
    """The same with a breaker that serves, and a deposit."""
    joining, breaking = nobody_joins(body_bytes), serving(Breakers(), BreakerSpec(), Verdict.SUCCESS)
    budget, clock = RetryBudgets().of(SPEC), itertools.count()

    def call() -> None:
        joining()
        breaking()
        budget.deposit(next(clock) * 0.001)

    return call


def event() -> Callable[[], None]:
    """One event of a stream that may be joined."""
    joins = Joins()
    running = [joins.begin(Call("a", b"a"), SPEC)]
    joins.start(running[0], 200, ANSWER)
    most = SPEC.deduplication.max_bytes // 8

    def call() -> None:
        original = running[0]
        if len(original.body) > most:
            joins.end(original, SPEC, 0.0, tries=0, final=False)
            original = running[0] = joins.begin(Call("a", b"a"), SPEC)
            joins.start(original, 200, ANSWER)
        joins.write(original, EVENT)

    return call


def a_join(others: int) -> Callable[[], None]:
    """A retry that gets a kept answer, beside so many calls that run."""
    joins, parsed = Joins(), request(2_000, retry=1)
    for number in range(others):
        joins.begin(Call(str(number), number.to_bytes(32)), SPEC)
    kept = joins.begin(call_of(parsed, "kept", DIGEST), SPEC)
    kept.left = True
    joins.send(kept, 200, ANSWER, BODY)
    joins.end(kept, SPEC, 0.0, tries=1, final=True)

    def call() -> None:
        found = joins.ask(call_of(parsed, "again", DIGEST), SPEC, 1.0)
        assert isinstance(found, Original)
        reader = Reader(_nothing)
        joins.join(found, reader)
        joins.take(found, reader)
        joins.leave(found, reader, got=True)

    return call


def _nothing() -> None:
    pass


class _Sink:
    """A client that takes everything at once."""

    gone = False
    records = False
    size = 0

    def when_gone(self, callback: Callable[[], None] | None, back: Callable[[], None] | None = None) -> None:
        pass

    async def start(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        pass

    async def write(self, chunk: bytes) -> None:
        self.size += len(chunk)

    async def finish(self, complete: bool) -> None:
        pass

    async def send(self, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        pass


async def storm(readers: int, events: int) -> float:
    """CPU seconds in which so many calls follow one stream, event by event."""
    joins, clients = Joins(), [_Sink() for _ in range(readers)]
    original = joins.begin(Call("a", b"a"), SPEC)
    audience = Audience(_Sink(), joins, original)
    began = time.process_time()
    await audience.start(200, ANSWER)
    following = [asyncio.create_task(follow(each, joins, original, list)) for each in clients]
    for _ in range(events):
        await audience.write(EVENT)
        await asyncio.sleep(0)
    await audience.finish(True)
    await asyncio.gather(*following)
    took = time.process_time() - began
    if any(each.size != events * len(EVENT) for each in clients):
        raise AssertionError("everybody has to get the whole stream")
    return took


def main(calls: int = 20_000, rounds: int = 15, readers: int = 200, events: int = 200) -> None:
    """Print one line for each case."""
    rows = {
        f"a call to {KEY} under a RetryBudget, 2 KB: breaker, budget and joining": together(2_000),
        "a call of 2 KB that nobody joins": nobody_joins(2_000),
        "a call of 100 KB that nobody joins": nobody_joins(100_000),
        "an event of a stream that may be joined": event(),
        "a join of a kept answer, 2 KB, beside 1000 calls": a_join(1_000),
    }
    for name, call in rows.items():
        print(f"{microseconds(call, calls if '100 KB' not in name else max(1, calls // 20), rounds):6.2f} µs  {name}")
    seconds = min(asyncio.run(storm(readers, events)) for _ in range(min(rounds, 5)))
    print(f"{seconds / readers / events * 1e6:6.2f} µs  an event for each of {readers} calls that joined one stream")


if __name__ == "__main__":
    main()
