"""One policy stream: the whole policy first and on each change, heartbeats in silence, a word when we go. I/O."""

from __future__ import annotations

import asyncio
from random import Random

import msgspec
from aiohttp import web

from spendmesh_operator.control.hub import Hub, PublishedPolicy
from spendmesh_operator.control.stamping import Stamping
from spendmesh_operator.identity import PodIdentity
from spendmesh_sidecar.protocol import HEARTBEAT_SECONDS, Drain, Heartbeat, Snapshot, Stamp, StreamEvent, StreamQuery

WRITE_SECONDS = 30.0
"""A reader that takes nothing for so long is gone, or pretends."""
AGE_SECONDS = 1800.0
"""A stream is made anew, and its token checked again, after half this to this long."""
STAMP_RETRY_SECONDS = 0.5
"""Pause when the leader does not have the policy in force yet; the replicas compile within moments of each other."""
DRAIN_MS = 2000


class PolicyStream:
    """Serves one sidecar until it leaves, the pod is gone, or this replica stops."""

    def __init__(self, hub: Hub, stamping: Stamping, draining: asyncio.Event, rng: Random) -> None:
        self._hub = hub
        self._stamping = stamping
        self._draining = draining
        self._loop = asyncio.get_running_loop()
        self._ends_at = self._loop.time() + rng.uniform(AGE_SECONDS / 2, AGE_SECONDS)
        self._spoke_at = self._loop.time()

    async def serve(self, response: web.StreamResponse, pod: PodIdentity, query: StreamQuery) -> None:
        """Write events until the stream ends."""
        sent: tuple[str, Stamp] | None = None
        seen = Stamp(epoch=query.epoch, sequence=query.sequence)
        while not self._draining.is_set() and self._loop.time() < self._ends_at:
            version = self._hub.version
            policy = self._hub.policy_of(pod)
            if policy is None:
                return
            fresh = sent is None and query.digest != policy.digest
            stamp = await self._stamping.stamp(policy.digest, seen, fresh)
            if stamp is not None and sent != (policy.digest, stamp):
                await self._write(response, _snapshot(policy, stamp))
                sent = (policy.digest, stamp)
            settled = sent is not None and sent[0] == policy.digest
            await self._wait(version, settled)
            if self._loop.time() - self._spoke_at >= HEARTBEAT_SECONDS:
                await self._write(response, Heartbeat())
        await self._write(response, Drain(retry_in_ms=DRAIN_MS))

    async def _wait(self, version: int, settled: bool) -> None:
        quiet = self._loop.time() - self._spoke_at
        pause = max(0.0, HEARTBEAT_SECONDS - quiet)
        await self._hub.wait_changed(version, pause if settled else min(pause, STAMP_RETRY_SECONDS))

    async def _write(self, response: web.StreamResponse, event: StreamEvent) -> None:
        async with asyncio.timeout(WRITE_SECONDS):
            await response.write(msgspec.json.encode(event) + b"\n")
        self._spoke_at = self._loop.time()


def _snapshot(policy: PublishedPolicy, stamp: Stamp) -> Snapshot:
    return Snapshot(digest=policy.digest, stamp=stamp, policy=msgspec.Raw(policy.encoded))
