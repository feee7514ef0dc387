"""
One coordinator with its control server and any number of known pods, for `bench/ledger.py`: no Kubernetes, books in a
file. `GET /bench` says how often and how much it has written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from aiohttp import web

from spendmesh_operator.clock import SystemClock
from spendmesh_operator.control.auth import Unauthenticated
from spendmesh_operator.control.hub import Hub, PolicyView
from spendmesh_operator.control.leader import SoleLeader
from spendmesh_operator.control.server import ControlParts, control_app
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.sqlite import SQLiteStore
from spendmesh_operator.ledger.store import Commit, Stored
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, WindowSpec
from spendmesh_sidecar.policy import Policy, digest, encode

AMOUNT = 10**18
BUDGET = BudgetSpec(
    name="bench/bench",
    limits=(LimitSpec(name="monthly", currency="USD", amount=AMOUNT, window=WindowSpec(period="Month")),),
)


POLICY = Policy(cluster="bench", namespace="bench", price_table="0" * 64, budgets=(BUDGET,))


@dataclass(frozen=True)
class Published:
    """The one policy of all pods."""

    policy: Policy = POLICY
    unverifiable: frozenset[str] = frozenset()

    @property
    def encoded(self) -> bytes:
        return encode(self.policy)

    @property
    def digest(self) -> str:
        return digest(self.encoded)


class Tokens:
    """`pod-7` is the token of pod 7: as quick as the operator's own, which remembers reviews by digest."""

    def __init__(self, pods: int) -> None:
        self._pods = {f"pod-{number}": PodIdentity("bench", f"pod-{number}", f"uid-{number}") for number in range(pods)}

    async def identify(self, token: str) -> PodIdentity:
        if token not in self._pods:
            raise Unauthenticated("not a pod of this run")
        return self._pods[token]


@dataclass
class Counting:
    """A store that counts what is written to another."""

    inner: SQLiteStore
    counts: dict[str, int] = field(default_factory=lambda: {"writes": 0, "bytes": 0})

    async def read(self) -> Stored:
        return await self.inner.read()

    async def write(self, commit: Commit) -> str:
        self.counts["writes"] += 1
        self.counts["bytes"] = sum(len(json.dumps(section)) for section in commit.put.values())
        return await self.inner.write(commit)

    async def close(self) -> None:
        await self.inner.close()


async def serve(pods: int, state: Path, commit_seconds: float) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    hub, published, clock = Hub(), Published(), SystemClock()
    hub.publish(PolicyView(lambda uid: published, frozenset({published.digest})))
    store = Counting(SQLiteStore(state))
    settings = CoordinatorSettings(commit_interval_seconds=commit_seconds)
    workloads = {f"uid-{number}": f"Deployment bench/w{number // 20}" for number in range(pods)}
    coordinator = Coordinator(
        store, clock, Random(1), hub.policy_of, "bench", settings, workload_of=lambda uid: workloads[uid]
    )
    await coordinator.start()
    app = control_app(ControlParts(hub, Tokens(pods), coordinator, SoleLeader(), clock, Random(1)))

    async def counts(_: web.Request) -> web.Response:
        return web.json_response(store.counts)

    app.router.add_get("/bench", counts)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await stop.wait()
    await runner.cleanup()
    await coordinator.stop()
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--commit-seconds", type=float, default=1.0)
    options = parser.parse_args()
    asyncio.run(serve(options.pods, options.state, options.commit_seconds))


if __name__ == "__main__":
    main()
