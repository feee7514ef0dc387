"""
One coordinator with its control server and any number of known pods, for `bench/ledger.py`, with its books in any
store. `GET /bench` says what it has written since the last time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from dataclasses import dataclass
from random import Random

from aiohttp import web

from ledger_places import KINDS, MEMBER, Place, opened
from spendmesh_operator.clock import SystemClock
from spendmesh_operator.control.auth import Unauthenticated
from spendmesh_operator.control.hub import Hub, PolicyView
from spendmesh_operator.control.leader import SoleLeader
from spendmesh_operator.control.server import ControlParts, control_app
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator, CoordinatorSettings
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


async def serve(pods: int, place: Place, domain: str, commit_seconds: float) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    hub, published, clock = Hub(), Published(), SystemClock()
    hub.publish(PolicyView(lambda uid: published, frozenset({published.digest})))
    member = MEMBER if place.kind == "PostgreSQL" else ""
    settings = CoordinatorSettings(commit_interval_seconds=commit_seconds, member=member)
    workloads = {f"uid-{number}": f"Deployment bench/w{number // 20}" for number in range(pods)}
    async with opened(place, domain) as store:
        coordinator = Coordinator(
            store, clock, Random(1), hub.policy_of, domain, settings, workload_of=lambda uid: workloads[uid]
        )
        await coordinator.start()
        app = control_app(ControlParts(hub, Tokens(pods), coordinator, SoleLeader(), clock, Random(1)))

        async def counts(_: web.Request) -> web.Response:
            return web.json_response(store.counts())

        app.router.add_get("/bench", counts)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
        print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
        await stop.wait()
        await runner.cleanup()
        await coordinator.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, required=True)
    parser.add_argument("--store", choices=KINDS, default="memory")
    parser.add_argument("--at", default="", help="a file, a kubeconfig or a DSN")
    parser.add_argument("--domain", default="bench")
    parser.add_argument("--commit-seconds", type=float, default=1.0)
    options = parser.parse_args()
    place = Place(options.store, options.at)
    asyncio.run(serve(options.pods, place, options.domain, options.commit_seconds))


if __name__ == "__main__":
    main()
