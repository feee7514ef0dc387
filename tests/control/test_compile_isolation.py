"""One object that breaks compile becomes that object's verdict and harms nobody else (contract §3)."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from compile_samples import (
    SETTINGS,
    Raw,
    budget,
    condition,
    indexed,
    message,
    pod,
    policy_of,
    provider,
    retries,
    routing,
)
from spendmesh_operator.compile import Compiled, compile_index
from spendmesh_operator.index import Index, ObjectKey
from spendmesh_operator.manifests import ModelBudget, ModelProvider, RetryBudget, RoutingPolicy
from spendmesh_operator.prices import load_prices

ALL: list[Raw] = [
    pod("web-1"),
    pod("cart-1", deployment="cart", app="cart"),
    provider(),
    routing(),
    budget(),
    retries(),
]


class Poisoned(Index):
    """An index in which a valid object holds something that no schema lets through: a defect that was not foreseen."""

    def __init__(self, *raws: Raw, key: ObjectKey, manifest: Any) -> None:
        super().__init__()
        for raw in raws:
            self.add(raw)
        self._poisoned, self._manifest = key, manifest

    def entries(self) -> tuple[Any, ...]:
        return tuple(
            replace(entry, manifest=self._manifest) if entry.key == self._poisoned else entry
            for entry in super().entries()
        )


def poison(kind: str, name: str, manifest: Any, previous: Compiled | None = None) -> Compiled:
    index = Poisoned(*ALL, key=ObjectKey(kind, "team-a", name), manifest=manifest)
    return compile_index(index, SETTINGS, load_prices(), previous)


def healthy() -> Compiled:
    return compile_index(indexed(*ALL), SETTINGS, load_prices())


def metadata(kind: str, name: str) -> Any:
    entry = indexed(*ALL).entry(ObjectKey(kind, "team-a", name))
    assert entry is not None and entry.manifest is not None
    return entry.manifest.metadata


def broken_budget() -> ModelBudget:
    good = indexed(*ALL).entry(ObjectKey("ModelBudget", "team-a", "team"))
    assert good is not None and isinstance(good.manifest, ModelBudget)
    limit = good.manifest.spec.limits[0].model_copy(update={"amount": Decimal("Infinity")})
    return good.manifest.model_copy(update={"spec": good.manifest.spec.model_copy(update={"limits": (limit,)})})


def broken_retries() -> RetryBudget:
    good = indexed(*ALL).entry(ObjectKey("RetryBudget", "team-a", "retry"))
    assert good is not None and isinstance(good.manifest, RetryBudget)
    return good.manifest.model_copy(update={"spec": good.manifest.spec.model_copy(update={"retry": None})})


def broken_routing() -> RoutingPolicy:
    good = indexed(*ALL).entry(ObjectKey("RoutingPolicy", "team-a", "route"))
    assert good is not None and isinstance(good.manifest, RoutingPolicy)
    return good.manifest.model_copy(update={"spec": good.manifest.spec.model_copy(update={"tiers": (None,)})})


def broken_provider() -> ModelProvider:
    good = indexed(*ALL).entry(ObjectKey("ModelProvider", "team-a", "openai"))
    assert good is not None and isinstance(good.manifest, ModelProvider)
    return good.manifest.model_copy(update={"spec": good.manifest.spec.model_copy(update={"base_url": None})})


def accepted(result: Compiled) -> dict[str, str]:
    return {key.kind: condition(result, key.kind, key.name, "Accepted")[1] for key in result.verdicts}


def test_a_broken_budget_is_told_and_its_workloads_are_refused_not_let_go() -> None:
    result = poison("ModelBudget", "team", broken_budget())
    assert accepted(result) == {
        "ModelBudget": "CompileError",
        "ModelProvider": "Accepted",
        "RetryBudget": "Accepted",
        "RoutingPolicy": "Accepted",
    }
    policy, expected = policy_of(result), policy_of(healthy())
    assert (policy.routing, policy.retry, policy.providers) == (expected.routing, expected.retry, expected.providers)
    assert policy.budgets[0].limits[0].amount == 0
    assert "report it" in message(result, "ModelBudget", "team", "Accepted")
    assert "OverflowError" in result.verdicts[ObjectKey("ModelBudget", "team-a", "team")].cause


def test_a_broken_object_keeps_its_last_good_meaning() -> None:
    before = healthy()
    for kind, name, manifest in (
        ("ModelBudget", "team", broken_budget()),
        ("RoutingPolicy", "route", broken_routing()),
        ("RetryBudget", "retry", broken_retries()),
        ("ModelProvider", "openai", broken_provider()),
    ):
        result = poison(kind, name, manifest, before)
        assert policy_of(result) == policy_of(before), kind
        assert accepted(result)[kind] == "CompileError"
        again = poison(kind, name, manifest, result)
        assert policy_of(again) == policy_of(before), f"{kind}: the second compilation forgot"


def test_a_broken_routing_policy_or_retry_budget_is_left_out_and_the_rest_stands() -> None:
    for kind, name, manifest in (
        ("RoutingPolicy", "route", broken_routing()),
        ("RetryBudget", "retry", broken_retries()),
    ):
        result = poison(kind, name, manifest)
        policy, expected = policy_of(result), policy_of(healthy())
        assert policy.budgets == expected.budgets
        assert [reason for other, reason in accepted(result).items() if other != kind] == ["Accepted"] * 3
        assert accepted(result)[kind] == "CompileError"


def test_a_broken_provider_is_blamed_and_not_the_policy_that_names_it() -> None:
    result = poison("ModelProvider", "openai", broken_provider())
    assert accepted(result)["ModelProvider"] == "CompileError"
    assert accepted(result)["RoutingPolicy"] == "Accepted"
    assert condition(result, "RoutingPolicy", "route", "ResolvedRefs") == ("False", "ProviderNotFound")
    assert policy_of(result).budgets == policy_of(healthy()).budgets


def test_an_object_that_breaks_only_together_with_others_is_found_and_other_classes_are_untouched() -> None:
    # The bound is only read beside a policy that gives tiers, so the object passes every trial on its own.
    selector = {"matchLabels": {"app": "web"}}
    bounds = routing("bounds", podSelector=selector, bounds=[{"name": "b", "maxTier": "economy"}])
    good = indexed(bounds).entry(ObjectKey("RoutingPolicy", "team-a", "bounds"))
    assert good is not None and isinstance(good.manifest, RoutingPolicy)
    spec = good.manifest.spec.model_copy(update={"bounds": (None,)})
    manifest = good.manifest.model_copy(update={"spec": spec})
    index = Poisoned(*ALL, bounds, key=good.key, manifest=manifest)
    before = compile_index(indexed(*ALL, bounds), SETTINGS, load_prices())
    kept = compile_index(index, SETTINGS, load_prices(), before)
    assert policy_of(kept, "web-1") == policy_of(before, "web-1"), "its last good meaning stays"
    assert condition(kept, "RoutingPolicy", "bounds", "Accepted") == ("False", "CompileError")
    result = compile_index(index, SETTINGS, load_prices())
    assert condition(result, "RoutingPolicy", "bounds", "Accepted") == ("False", "CompileError")
    assert condition(result, "RoutingPolicy", "route", "Accepted") == ("True", "Accepted")
    assert policy_of(result, "web-1") == policy_of(healthy(), "web-1")
    assert policy_of(result, "cart-1") == policy_of(healthy(), "cart-1")
