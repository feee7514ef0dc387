"""Conditions say what is true of the generation they name: rejected edits, taken names, half-fitting currencies."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from compile_samples import NAMESPACE, Raw, budget, compiled, indexed, message, pod, provider, retries, routing
from ledger_samples import BUDGET, HOUR, START_MS, ManualClock, SamplePublished, acquire, sample_policy, want
from spendmesh_operator.compile import Compiled, CompileSettings, compile_index
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.index import ObjectKey
from spendmesh_operator.ledger.coordinator.coordinator import Coordinator, CoordinatorSettings
from spendmesh_operator.ledger.stores.base import MemoryStore
from spendmesh_operator.prices import load_prices
from spendmesh_operator.status import PodState, limit_views, programmed, status_of
from spendmesh_operator.status.budget import budget_fields, within_budget
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SETTINGS = CompileSettings(cluster="c")


def shown(result: Compiled, kind: str, name: str) -> dict[str, tuple[str, str, int]]:
    """Status, reason and observedGeneration by condition, where every pod obeys its policy."""
    verdict = result.verdicts[ObjectKey(kind, NAMESPACE, name)]
    obeyed = {uid: result.policy_of(uid) for uids in verdict.effective.values() for uid in uids}
    states = {uid: PodState(digest=policy.digest) for uid, policy in obeyed.items() if policy is not None}
    status = status_of(verdict, programmed(verdict, result, states), limits=(), old={}, now=NOW)
    return {each["type"]: (each["status"], each["reason"], each["observedGeneration"]) for each in status["conditions"]}


@pytest.mark.parametrize(
    ("bad", "kind", "name"),
    [
        (routing(providers=5), "RoutingPolicy", "route"),
        (provider(baseURL="nowhere"), "ModelProvider", "openai"),
        (budget(amount="a lot"), "ModelBudget", "team"),
        (retries(attempts=-1), "RetryBudget", "retry"),
    ],
)
def test_of_an_object_that_was_never_valid_nothing_is_claimed(bad: Raw, kind: str, name: str) -> None:
    """Not that its references exist, nor that its prices are known, nor that the pods have it."""
    found = shown(compiled(pod(), bad), kind, name)
    assert found.pop("Accepted") == ("False", "Invalid", 1)
    found.pop("WithinBudget", None)
    assert found.pop("Effective")[0] == ("True" if kind == "ModelBudget" else "False")  # such a budget refuses
    assert set(found.values()) == {("Unknown", "Invalid", 1)}


def test_a_rejected_edit_is_never_shown_as_programmed() -> None:
    """`kubectl wait --for=condition=Programmed` looks at observedGeneration: it must not pass on generation 2."""
    index = indexed(pod(), provider(), routing())
    before = compile_index(index, SETTINGS, load_prices())
    assert shown(before, "RoutingPolicy", "route")["Programmed"] == ("True", "Programmed", 1)
    index.add(routing(generation=2, defaultTier=7))
    found = shown(compile_index(index, SETTINGS, load_prices(), before), "RoutingPolicy", "route")
    assert found.pop("Accepted") == ("False", "Invalid", 2)
    assert {generation for _, _, generation in found.values()} == {1}
    assert found["Programmed"][0] == found["Effective"][0] == "True"


def test_a_secret_that_nobody_looked_up_is_not_said_to_exist() -> None:
    """The operator in a cluster has no right to read Secrets; offline, all of them are given."""
    said = message(compiled(provider()), "ModelProvider", "openai", "ResolvedRefs")
    assert "not looked up" in said and "exists" not in said
    keys = {"kind": "Secret", "metadata": {"name": "model-keys", "namespace": NAMESPACE}, "data": {"openai": "eA=="}}
    offline = compile_index(indexed(provider(), keys, secrets_complete=True), SETTINGS, load_prices())
    assert message(offline, "ModelProvider", "openai", "ResolvedRefs") == "everything that it names exists"


def euro_budget() -> Raw:
    limit = {"name": "monthly", "currency": "EUR", "amount": "10", "window": {"type": "Calendar", "period": "Month"}}
    return budget(limits=[limit])


def test_a_currency_that_only_some_models_have_is_a_mismatch() -> None:
    """Calls to the others are refused as unpriced: their author should hear it before the first call."""
    price = {"model": "gpt-5-nano", "currency": "EUR", "inputPerMillion": "1", "outputPerMillion": "2"}
    result = compiled(pod(), provider(prices=[price]), routing(), euro_budget())
    assert shown(result, "ModelBudget", "team")["Priced"][:2] == ("False", "CurrencyMismatch")
    said = message(result, "ModelBudget", "team", "Priced")
    assert "some models" in said and "USD" in said


def downgrading() -> Raw:
    actions = [{"type": "Downgrade", "maxTier": "economy"}]
    limit = {
        "name": "monthly",
        "currency": "USD",
        "amount": "10",
        "window": {"type": "Calendar", "period": "Month"},
        "thresholds": [{"percent": 90, "actions": actions}],
    }
    return budget(limits=[limit])


@pytest.mark.parametrize(
    ("match", "said"),
    [
        ({"models": [{"pattern": "auto"}]}, True),
        ({"models": [{"pattern": "*"}]}, False),
        ({"models": [{"pattern": "auto"}], "unmatched": "Deny"}, False),
    ],
)
def test_a_downgrade_says_which_calls_it_does_not_reach(match: dict[str, Any], said: bool) -> None:
    """Contract §1: models that a caller names and no pattern claims are never downgraded."""
    policy = routing()
    policy["spec"]["match"] = match
    result = compiled(pod(), provider(), policy, downgrading())
    assert shown(result, "ModelBudget", "team")["Effective"][0] == "True"
    words = "no pattern of RoutingPolicy team-a/route@1 claims are not downgraded"
    assert (words in message(result, "ModelBudget", "team", "Effective")) is said


def test_a_policy_for_a_stateful_set_does_not_govern_another_projects_one() -> None:
    policy = routing(targetRefs=[{"group": "apps", "kind": "StatefulSet", "name": "db"}])
    policy["spec"] |= routing()["spec"]
    foreign = pod("db-0", deployment="")
    reference = {"apiVersion": "apps.kruise.io/v1beta1", "kind": "StatefulSet", "name": "db", "controller": True}
    foreign["metadata"]["ownerReferences"] = [reference]
    own = pod("db-1", deployment="")
    own["metadata"]["ownerReferences"] = [{**reference, "apiVersion": "apps/v1"}]
    result = compiled(foreign, own, provider(), policy)
    governed = {uid: result.policy_of(uid) for uid in ("uid-db-0", "uid-db-1")}
    assert [policy is not None and policy.policy.routing is not None for policy in governed.values()] == [False, True]


def test_a_limit_whose_name_is_taken_says_until_when_and_shows_no_foreign_numbers() -> None:
    """Contract §4: with another meaning it gets nothing until the old period ends; nano-USD are not requests."""
    by_cost = LimitSpec(name="hourly", currency="USD", amount=10 * 10**9, window=HOUR)
    by_count = LimitSpec(name="hourly", unit="Requests", amount=100, window=HOUR)
    now = {"limit": by_cost}

    async def scenario() -> tuple[Any, ...]:
        def policy_of(_: PodIdentity) -> SamplePublished:
            return SamplePublished(sample_policy(BudgetSpec(name=BUDGET, limits=(now["limit"],))))

        settings = CoordinatorSettings(commit_interval_seconds=0.0, sweep_seconds=3600.0)
        at = Coordinator(MemoryStore(), ManualClock(), random.Random(1), policy_of, "test", settings)
        await at.start()
        try:
            caller = PodIdentity("team-a", "p", "u")
            await at.acquire(caller, acquire("1", "n", want(5 * 10**9)))
            now["limit"] = by_count
            refused = await at.acquire(caller, acquire("2", "n", want(1)))
            assert [each.reason for each in refused.denials] == ["unverifiable"]
            return limit_views(
                BudgetSpec(name=BUDGET, limits=(by_count,)), at.views(), datetime.fromtimestamp(START_MS / 1000, UTC)
            )
        finally:
            await at.stop()

    views = asyncio.run(scenario())
    shown = budget_fields(views)
    assert (shown["tightest"]["used"], shown["tightest"]["held"], shown["tightest"]["amount"]) == ("0", "0", "100")
    assert shown["limits"][0]["stage"] == "NameTaken"
    status, reason, said = within_budget(views, observed=False, readable=True)
    assert (status, reason) == ("False", "LimitNameTaken")
    assert "budget_unverifiable" in said and shown["limits"][0]["resetsAt"] in said
