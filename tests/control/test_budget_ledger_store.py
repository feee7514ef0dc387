"""What the BudgetLedger store does when answers get lost; what all stores must do is in test_ledger_store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from control_plane import ControlPlane
from ledger_samples import ManualClock, SamplePublished, acquire, budget, sample_policy, want
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.kube.client import Kube, KubeUnavailable
from spendmesh_operator.kube.ledger_store import BudgetLedgerStore
from spendmesh_operator.ledger.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.store import Conflict, Unavailable

Json = dict[str, Any]


class LosingKube(Kube):
    """A real client whose answers, or requests, get lost when it is told so."""

    loses_answer = False
    loses_request = False

    async def _request(self, method: str, path: str, *arguments: Any) -> Json:
        if method in ("POST", "PUT") and self.loses_request:
            self.loses_request = False
            raise KubeUnavailable(0, "NoAnswer", "the request was lost")
        answer = await super()._request(method, path, *arguments)
        if method in ("POST", "PUT") and self.loses_answer:
            self.loses_answer = False
            raise KubeUnavailable(0, "NoAnswer", "the answer was lost")
        return answer


def run(plane: ControlPlane, name: str, work: Callable[[LosingKube, BudgetLedgerStore], Any]) -> None:
    async def with_store() -> None:
        kube = await LosingKube.connect(str(plane.kubeconfig))
        assert isinstance(kube, LosingKube)
        try:
            await work(kube, BudgetLedgerStore(kube, "default", name))
        finally:
            await kube.close()

    asyncio.run(with_store())


@pytest.mark.parametrize("first", [True, False])
def test_a_lost_answer_is_found_by_the_commits_id(kinds: ControlPlane, first: bool) -> None:
    """The write was done: it counts as done, and sending it again does not do it twice."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        expected = "" if first else await store.write({"epoch": 1}, "", "commit-0")
        kube.loses_answer = True
        version = await store.write({"epoch": 1, "n": 1}, expected, "commit-1")
        stored = await store.read()
        assert (stored.version, stored.commit_id) == (version, "commit-1")
        assert await store.write({"epoch": 1, "n": 1}, expected, "commit-1") == version
        with pytest.raises(Conflict):
            await store.write({"epoch": 1, "n": 2}, expected, "commit-2")

    run(kinds, f"lost-answer-{first}".lower(), work)


def test_a_lost_request_is_an_unknown_outcome(kinds: ControlPlane) -> None:
    """It may still arrive: only the coordinator may decide to send it again."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        version = await store.write({"epoch": 1}, "", "commit-0")
        kube.loses_request = True
        with pytest.raises(Unavailable):
            await store.write({"epoch": 1, "n": 1}, version, "commit-1")
        assert (await store.read()).commit_id == "commit-0"
        await store.write({"epoch": 1, "n": 1}, version, "commit-1")

    run(kinds, "lost-request", work)


def test_books_of_a_newer_format_are_not_read_as_empty(kinds: ControlPlane) -> None:
    """An older operator after a roll-back must not begin new books."""

    async def work(kube: LosingKube, store: BudgetLedgerStore) -> None:
        await store.write({"epoch": 1}, "", "commit-0")
        path = "/apis/spendmesh.io/v1alpha1/namespaces/default/budgetledgers/newer-format"
        patch = [{"op": "replace", "path": "/spec/format", "value": 2}]
        await kube.json_patch(path, patch)
        with pytest.raises(Unavailable, match="upgrade it"):
            await store.read()

    run(kinds, "newer-format", work)


def test_without_the_right_nothing_is_assumed(kinds: ControlPlane) -> None:
    async def refused() -> None:
        kube = await Kube.connect(str(kinds.kubeconfig_for("ledger-nobody")))
        try:
            with pytest.raises(Unavailable, match="Forbidden"):
                await BudgetLedgerStore(kube, "default", "x").read()
        finally:
            await kube.close()

    asyncio.run(refused())


def test_another_cluster_name_starts_new_books_and_the_old_ones_stay(kinds: ControlPlane) -> None:
    """As values.yaml says: spend so far is no longer counted until the name is set back; nothing stands still."""

    async def work(kube: LosingKube, _: BudgetLedgerStore) -> None:
        async def charged_under(domain: str, request: str, amount: int) -> int:
            store = BudgetLedgerStore(kube, "default", domain)
            policy = SamplePublished(sample_policy(budget(1000)))
            settings = CoordinatorSettings(commit_interval_seconds=0.0, sweep_seconds=3600.0)
            at = Coordinator(store, ManualClock(), random.Random(1), lambda _: policy, domain, settings)
            await at.start()
            try:
                if amount:
                    await at.acquire(PodIdentity("team-a", "p", "u"), acquire(request, "n", want(amount)))
                return sum(state.charged for state in at.states().values())
            finally:
                await at.stop()

        assert await charged_under("domain-one", "r1", 700) == 700
        assert await charged_under("domain-two", "r2", 400) == 400
        assert await charged_under("domain-one", "", 0) == 700

    run(kinds, "domains", work)
