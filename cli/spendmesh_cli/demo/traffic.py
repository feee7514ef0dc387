"""
The demo's clients: replay arrivals and token counts of a real trace against the teams' sidecars.

Arrival times and token counts are the trace's; which team and which task a request belongs to is drawn from a seed.
"""

from __future__ import annotations

import asyncio
import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random

import aiohttp

TASKS = {"extract": 50, "chat": 44, "strategy": 6}
"""Task to weight in percent."""
MAX_OUTPUT_TOKENS = 512
"""What the clients set as their maximum; the longest answer of the slice is cut there, as it would be."""
REQUEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request of the trace."""

    at_seconds: float
    """From the start of the slice, in the trace's own time."""
    team: str
    task: str
    input_tokens: int
    output_tokens: int
    stream: bool


@dataclass(slots=True)
class TeamTally:
    """What the clients of one team saw."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    retried: int = 0
    recovered: int = 0
    failed_over: int = 0
    tiers: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    downgraded: int = 0
    offered_tokens: list[tuple[int, int]] = field(default_factory=list)


def read_trace(path: Path, teams: Sequence[str], rng: Random) -> list[Call]:
    """The calls of a trace file in order of arrival."""
    with path.open(newline="", encoding="ascii") as lines:
        rows = list(csv.DictReader(lines))
    begin = datetime.fromisoformat(rows[0]["TIMESTAMP"][:26])
    tasks, weights = list(TASKS), list(TASKS.values())
    return [
        Call(
            at_seconds=(datetime.fromisoformat(row["TIMESTAMP"][:26]) - begin).total_seconds(),
            team=rng.choice(teams),
            task=rng.choices(tasks, weights)[0],
            input_tokens=max(8, int(row["ContextTokens"])),
            output_tokens=min(MAX_OUTPUT_TOKENS, max(1, int(row["GeneratedTokens"]))),
            stream=rng.random() < 0.25,
        )
        for row in rows
    ]


class Traffic:
    """Sends calls at their time, sped up, and counts what comes back."""

    def __init__(self, urls: dict[str, str], calls: Sequence[Call], speed: float) -> None:
        self._urls = urls
        self._calls = calls
        self._speed = speed
        self.tallies = {team: TeamTally() for team in urls}
        self.done = 0

    async def run(self, session: aiohttp.ClientSession, clock: Callable[[], float]) -> None:
        """Replay everything; returns when the last answer is there."""
        began = clock()
        async with asyncio.TaskGroup() as group:
            for call in self._calls:
                pause = began + call.at_seconds / self._speed - clock()
                if pause > 0:
                    await asyncio.sleep(pause)
                group.create_task(self._send(session, call))

    async def _send(self, session: aiohttp.ClientSession, call: Call) -> None:
        tally = self.tallies[call.team]
        tally.sent += 1
        tally.offered_tokens.append((call.input_tokens, call.output_tokens))
        try:
            async with session.post(
                f"{self._urls[call.team]}/openai/v1/chat/completions",
                json=_body(call),
                headers={"x-spendmesh-task": call.task, "authorization": "Bearer injected"},
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            ) as response:
                await response.read()
                self._count(tally, call, response)
        except (aiohttp.ClientError, TimeoutError):
            tally.failed += 1
        finally:
            self.done += 1

    def _count(self, tally: TeamTally, call: Call, response: aiohttp.ClientResponse) -> None:
        headers = response.headers
        attempts = int(headers.get("x-spendmesh-attempts", "1") or 1)
        tally.retried += attempts > 1
        if response.status == 200:
            tally.answered += 1
            tally.tiers[headers.get("x-spendmesh-tier", "")] += 1
            tally.recovered += attempts > 1
            tally.failed_over += "-backup" in headers.get("x-spendmesh-reason", "") or headers.get(
                "x-spendmesh-model", ""
            ).startswith("backup/")
            tally.downgraded += headers.get("x-spendmesh-reason", "").startswith("budget:")
        elif code := headers.get("x-spendmesh-error"):
            tally.refusals[code] += 1
        else:
            tally.failed += 1


def _body(call: Call) -> dict[str, object]:
    """An ordinary chat request whose text has as many bytes as the trace's request had tokens."""
    directive = f"[[in={call.input_tokens}]][[out={call.output_tokens}]] "
    filler = "lorem ipsum dolor sit amet "
    text = (directive + filler * (call.input_tokens // len(filler) + 1))[: max(len(directive), call.input_tokens)]
    return {
        "model": "auto",
        "messages": [{"role": "user", "content": text}],
        "max_completion_tokens": MAX_OUTPUT_TOKENS,
        "stream": call.stream,
    }
