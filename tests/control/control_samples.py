"""A control server on a real loopback port, with books in memory, and a client that speaks the protocol."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import msgspec
from aiohttp import web

from ledger_samples import ManualClock, SamplePublished, budget, sample_policy
from spendmesh_operator.control.auth import PodIdentity, ReplicaIdentity, StaticTokens
from spendmesh_operator.control.hub import Hub, PolicyView
from spendmesh_operator.control.leader import LeaderClient
from spendmesh_operator.control.people import Nobody, OnePerson
from spendmesh_operator.control.server import ControlParts, control_app
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.stores.base import LedgerStore, MemoryStore
from spendmesh_sidecar.policy import Policy
from spendmesh_sidecar.protocol import PATH_STREAM, StreamEvent

POD = PodIdentity("team-a", "support-1", "uid-1")
OTHER = PodIdentity("team-a", "support-2", "uid-2")
TOKENS: dict[str, PodIdentity | ReplicaIdentity] = {
    "pod-token": POD,
    "other-token": OTHER,
    "replica-token": ReplicaIdentity("operator-1"),
}
TABLE = b'{"version":"sample","date":"2026-01-01","lists":[]}'
DEADLINE_SECONDS = 60.0


@dataclass
class Link:
    """An election that a test decides."""

    leads: bool = True
    leader_url: str | None = None

    def is_leader(self) -> bool:
        return self.leads

    def address(self) -> str | None:
        return self.leader_url


class CountingTokens(StaticTokens):
    """Knows how often each token was shown."""

    def __init__(self, tokens: Mapping[str, PodIdentity | ReplicaIdentity]) -> None:
        super().__init__(tokens)
        self.shown: Counter[str] = Counter()

    async def identify(self, token: str) -> PodIdentity | ReplicaIdentity:
        self.shown[token] += 1
        return await super().identify(token)


@dataclass
class Replica:
    """One replica of the control server."""

    url: str
    hub: Hub
    coordinator: Coordinator
    link: Link
    tokens: CountingTokens
    policies: dict[str, SamplePublished] = field(default_factory=dict)

    def publish(self, policies: dict[str, Policy]) -> None:
        """Pod uid -> policy, as compile would give."""
        self.policies = {uid: SamplePublished(policy) for uid, policy in policies.items()}
        digests = frozenset(policy.digest for policy in self.policies.values())
        self.hub.publish(PolicyView(self.policies.get, digests, {"0" * 64: TABLE}))


def policy(amount: int = 1000) -> Policy:
    """A policy that differs by its amount."""
    return sample_policy(budget(amount))


@asynccontextmanager
async def replica(
    *,
    leads: bool = True,
    store: LedgerStore | None = None,
    leader: Replica | None = None,
    person: str = "",
) -> AsyncIterator[Replica]:
    """A replica that serves both sample pods; a follower is given its leader, `person` asks for bills."""
    hub = Hub()
    link = Link(leads, leader.url if leader is not None else None)
    settings = CoordinatorSettings(commit_interval_seconds=0.0, sweep_seconds=3600.0)
    coordinator = Coordinator(store or MemoryStore(), ManualClock(), random.Random(1), hub.policy_of, "test", settings)
    if leads:
        await coordinator.start()
    tokens = CountingTokens(TOKENS)
    client = LeaderClient(link, replica_token=lambda: "replica-token")
    parts = ControlParts(
        hub=hub,
        authenticator=tokens,
        coordinator=coordinator,
        link=link,
        clock=ManualClock(),
        rng=random.Random(1),
        client=client,
        authorizer=OnePerson(person) if person else Nobody(),
    )
    runner = web.AppRunner(control_app(parts), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    started = Replica(f"http://{host}:{port}", hub, coordinator, link, tokens)
    started.publish({POD.uid: policy(), OTHER.uid: policy()})
    try:
        yield started
    finally:
        await runner.cleanup()
        await coordinator.stop()


class Client:
    """Raw HTTP with a token."""

    def __init__(self, session: aiohttp.ClientSession, url: str, token: str) -> None:
        self._session = session
        self.url = url
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    async def post(self, path: str, message: object) -> tuple[int, bytes]:
        """Status and body."""
        body = message if isinstance(message, bytes) else msgspec.json.encode(message)
        async with self._session.post(self.url + path, data=body, headers=self._headers) as response:
            return response.status, await response.read()

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        async with self._session.get(self.url + path, headers=self._headers) as response:
            return response.status, await response.read()

    @asynccontextmanager
    async def stream(self, digest: str = "", epoch: int = 0, sequence: int = 0) -> AsyncIterator[Stream]:
        """An open policy stream."""
        query = {"nonce": "n", "digest": digest, "epoch": str(epoch), "sequence": str(sequence)}
        async with self._session.get(self.url + PATH_STREAM, params=query, headers=self._headers) as response:
            assert response.status == 200, await response.text()
            yield Stream(response)


class Stream:
    """Events as they arrive."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def next(self) -> StreamEvent:
        """The next event. Raises TimeoutError."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            line = await self._response.content.readline()
        event: StreamEvent = msgspec.json.decode(line, type=StreamEvent)
        return event


@asynccontextmanager
async def client(at: Replica | str, token: str = "pod-token") -> AsyncIterator[Client]:
    """A client of a replica."""
    async with aiohttp.ClientSession() as session:
        yield Client(session, at if isinstance(at, str) else at.url, token)


async def eventually(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)
