"""Sidecars as the coordinator sees them: rights asked for, cumulative reports at a fixed rate. HTTP on loopback."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import aiohttp
import msgspec

from spendmesh_sidecar.protocol import (
    PATH_ACQUIRE,
    PATH_REPORT,
    AccountRef,
    AcquireReply,
    AcquireRequest,
    LeaseReport,
    ReportReply,
    ReportRequest,
    Want,
    report_digest,
)

REF = AccountRef(budget="bench/bench", limit="monthly")
NEED = 10**9


@dataclass
class Reporter:
    """One sidecar: a lease, and its last report."""

    session: aiohttp.ClientSession
    url: str
    number: int
    lease: str = ""
    last: LeaseReport | None = None
    used: int = 0
    asked: int = 0

    async def acquire(self) -> float:
        """Ask for one call's worth; answers the seconds it took."""
        self.asked += 1
        wants = (Want(account=REF, need=NEED, want=NEED),)
        body = AcquireRequest(id=f"r{self.asked}", nonce=f"n{self.number}", wants=wants)
        began = time.perf_counter()
        reply = msgspec.json.decode(await self._post(PATH_ACQUIRE, body), type=AcquireReply)
        seconds = time.perf_counter() - began
        self.lease = reply.leases[0].id
        return seconds

    async def report(self) -> None:
        """Report a little more use."""
        self.used += 1
        self.last = LeaseReport(
            lease=self.lease,
            sequence=self.last.sequence + 1 if self.last else 1,
            previous=report_digest(self.last) if self.last else "",
            used=self.used,
            held=0,
        )
        body = ReportRequest(nonce=f"n{self.number}", reports=(self.last,))
        reply = msgspec.json.decode(await self._post(PATH_REPORT, body), type=ReportReply)
        assert not reply.leases[0].fenced

    async def _post(self, path: str, message: msgspec.Struct) -> bytes:
        headers = {"authorization": f"Bearer pod-{self.number}"}
        async with self.session.post(self.url + path, data=msgspec.json.encode(message), headers=headers) as response:
            body = await response.read()
            if response.status != 200:
                raise RuntimeError(f"{response.status}: {body[:200]!r}")
            return body


async def counts(session: aiohttp.ClientSession, url: str) -> dict[str, int]:
    """What the server has written so far."""
    async with session.get(f"{url}/bench") as response:
        found: dict[str, int] = await response.json()
        return found


async def steady(reporters: list[Reporter], seconds: float, report_seconds: float) -> int:
    """Each reports every `report_seconds` and acquires every sixth time, evenly spread; answers the reports sent."""
    total = round(len(reporters) * seconds / report_seconds)
    tasks = []
    began = time.perf_counter()
    for number in range(total):
        if (pause := began + number * seconds / total - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        turn, position = divmod(number, len(reporters))
        reporter = reporters[position]
        tasks.append(asyncio.create_task(_turn(reporter, (turn + position) % 6 == 0)))
    await asyncio.gather(*tasks)
    return total


async def _turn(reporter: Reporter, more: bool) -> None:
    if more:
        await reporter.acquire()
    await reporter.report()
