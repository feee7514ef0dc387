"""When statuses are written and when not: `kube.status_writer`. With a real API server: test_operator."""

from __future__ import annotations

import asyncio
from typing import Any

import yaml

from cluster_samples import POLICIES
from spendmesh_operator.compile import Compiled, CompileSettings, compile_index
from spendmesh_operator.index import Index, ObjectKey
from spendmesh_operator.kube.client import NotFound
from spendmesh_operator.kube.status_writer import HANDOVER_SECONDS, Facts, StatusWriter
from spendmesh_operator.prices import load_prices
from spendmesh_operator.status import PodState

Json = dict[str, Any]
ROUTE = ObjectKey("RoutingPolicy", "team-a", "support")


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def monotonic(self) -> float:
        return self.now

    def unix(self) -> float:
        return self.now


class RecordingKube:
    """Keeps what is applied; real server-side apply is tested in test_operator."""

    def __init__(self) -> None:
        self.applied: list[Json] = []
        self.events: list[Json] = []
        self.stored: list[Json] = []
        self.missing = False

    async def apply(self, path: str, body: Json) -> Json:
        assert path.endswith("/status")
        if self.missing:
            raise NotFound(404, "NotFound", path)
        self.applied.append(body)
        return body

    async def create(self, path: str, body: Json) -> Json:
        assert path == "/api/v1/namespaces/team-a/events"
        self.events.append(body)
        return body

    async def list(self, path: str) -> tuple[list[Json], int]:
        plural = path.rsplit("/", 1)[-1]
        return [one for one in self.stored if plural == "routingpolicies" and one["kind"] == "RoutingPolicy"], 1

    def last(self, key: ObjectKey) -> Json:
        found = [one for one in self.applied if (one["kind"], one["metadata"]["name"]) == (key.kind, key.name)]
        status: Json = found[-1]["status"]
        return status

    def condition(self, key: ObjectKey, type_: str) -> Json:
        return next(one for one in self.last(key)["conditions"] if one["type"] == type_)


class World:
    """A few objects, one pod, and a writer over them."""

    def __init__(self) -> None:
        self.index = Index()
        for raw in yaml.safe_load_all(POLICIES):
            raw["metadata"] |= {"namespace": "team-a", "uid": f"uid-{raw['metadata']['name']}", "generation": 1}
            self.index.add(raw)
        pod = {"name": "app-0", "namespace": "team-a", "uid": "p1", "labels": {"app": "support"}}
        self.index.add({"kind": "Pod", "metadata": pod})
        self.compiled: Compiled = compile_index(self.index, CompileSettings(cluster="test"), load_prices())
        self.pods: dict[str, PodState] = {}
        self.clock = Clock()
        self.kube = RecordingKube()
        self.writer = StatusWriter(self.kube, self.facts, self.clock)  # type: ignore[arg-type]

    def facts(self) -> Facts:
        uids = {entry.key: entry.uid for entry in self.index.entries()}
        return Facts(self.compiled, self.pods, (), uids)

    def programmed(self) -> None:
        policy = self.compiled.policy_of("p1")
        assert policy is not None
        self.pods["p1"] = PodState(digest=policy.digest)

    def round(self, times: int = 1) -> None:
        async def run() -> None:
            for _ in range(times):
                await self.writer.write_round()

        asyncio.run(run())


def test_every_object_is_told_once_and_silence_follows() -> None:
    """A status that says the same again is not written: it would wake every watcher for nothing."""
    world = World()
    world.round(3)
    names = [(one["kind"], one["metadata"]["name"]) for one in world.kube.applied]
    assert sorted(names) == [
        ("ModelBudget", "team"),
        ("ModelProvider", "standin"),
        ("RetryBudget", "default"),
        ("RoutingPolicy", "support"),
    ]


def test_a_new_leader_does_not_take_back_what_it_has_not_heard_yet() -> None:
    """Acknowledgements live in the leader's memory: after a handover they come again, within moments."""
    world = World()
    world.programmed()
    world.round()
    status = world.kube.last(ROUTE)
    assert world.kube.condition(ROUTE, "Programmed")["status"] == "True"

    other = World()
    other.kube.stored = [
        {
            "kind": "RoutingPolicy",
            "metadata": {"namespace": "team-a", "name": "support", "uid": "uid-support"},
            "status": status,
        }
    ]
    asyncio.run(other.writer._begin())
    other.round()
    assert not [one for one in other.kube.applied if one["kind"] == "RoutingPolicy"]
    other.clock.now += HANDOVER_SECONDS
    other.round()
    assert other.kube.condition(ROUTE, "Programmed")["reason"] == "Pending"


def test_an_object_that_was_made_anew_gets_its_own_history() -> None:
    """The same name with another uid: its conditions begin now."""
    world = World()
    world.round()
    began = world.kube.condition(ROUTE, "Accepted")["lastTransitionTime"]
    raw = next(one for one in yaml.safe_load_all(POLICIES) if one["kind"] == "RoutingPolicy")
    raw["metadata"] |= {"namespace": "team-a", "uid": "another", "generation": 1}
    world.index.add(raw)
    world.clock.now += 3600
    world.compiled = compile_index(world.index, CompileSettings(cluster="test"), load_prices())
    world.round()
    assert world.kube.condition(ROUTE, "Accepted")["lastTransitionTime"] > began


def test_an_object_that_is_gone_meanwhile_is_no_failure() -> None:
    world = World()
    world.kube.missing = True
    world.round()
    world.kube.missing = False
    world.round()
    assert len(world.kube.applied) == 4


def test_a_refused_policy_makes_one_event_on_its_object() -> None:
    """And none when the same is said again."""
    world = World()
    world.pods["p1"] = PodState(digest="", error="policy requires routing/9, which this sidecar does not know")
    world.round()
    world.clock.now += 60
    world.round()
    about = [one["involvedObject"] for one in world.kube.events if one["involvedObject"]["kind"] == "RoutingPolicy"]
    assert [(one["name"], one["uid"]) for one in about] == [("support", "uid-support")]
    assert all("routing/9" in one["message"] for one in world.kube.events)
