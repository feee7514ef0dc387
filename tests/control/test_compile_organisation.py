"""Budgets of the operator's namespace that reach into others: whom they reach, and what gives way to what."""

from __future__ import annotations

from typing import Any

import pytest

from compile_samples import (
    NAMESPACE,
    Raw,
    budget,
    compiled,
    condition,
    counts,
    indexed,
    message,
    namespace,
    organisation_budget,
    pod,
    policy_of,
    provider,
    routing,
)
from spendmesh_operator.compile import Compiled, CompileSettings, compile_index
from spendmesh_operator.index import OPERATOR_NAMESPACE, Index
from spendmesh_operator.prices import load_prices

RESEARCH = {"matchLabels": {"department": "research"}}
TOKENS = {"name": "tokens", "unit": "TotalTokens", "amount": 1000, "window": {"type": "Calendar", "period": "Day"}}


def applied(result: Compiled, pod_name: str = "web-1") -> list[str]:
    """Budgets of a pod, with their limits."""
    return [f"{each.name}/{limit.name}" for each in policy_of(result, pod_name).budgets for limit in each.limits]


def org(result: Compiled, type_: str) -> tuple[str, str]:
    return condition(result, "ModelBudget", "org", type_, OPERATOR_NAMESPACE)


@pytest.mark.parametrize(
    ("selector", "pod_selector", "reached"),
    [
        ({}, None, True),
        (RESEARCH, None, True),
        ({"matchLabels": {"department": "sales"}}, None, False),
        ({"matchExpressions": [{"key": "department", "operator": "Exists"}]}, None, True),
        ({"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}, None, True),
        (RESEARCH, {"matchLabels": {"app": "web"}}, True),
        (RESEARCH, {"matchLabels": {"app": "cart"}}, False),
        ({"matchLabels": {"department": "sales"}}, {"matchLabels": {"app": "web"}}, False),
    ],
)
def test_both_selectors_must_select(selector: dict[str, Any], pod_selector: Any, reached: bool) -> None:
    """An empty namespaceSelector selects every namespace; podSelector narrows it."""
    spec = {"podSelector": pod_selector} if pod_selector else {}
    result = compiled(namespace(department="research"), pod(), organisation_budget(selector=selector, **spec))
    assert bool(applied(result)) is reached


def test_without_a_namespace_selector_it_stays_in_its_namespace() -> None:
    """Neither selector means the namespace, in the operator's as in any other."""
    own = organisation_budget()
    del own["spec"]["namespaceSelector"]
    assert applied(compiled(pod(), own)) == []


def test_all_that_match_apply() -> None:
    """An organisation's budget and a namespace's are both charged."""
    assert applied(compiled(pod(), organisation_budget(), budget())) == [
        "spendmesh-system/org/monthly",
        "team-a/team/monthly",
    ]


def test_two_budgets_of_one_name_in_two_scopes_are_two_accounts() -> None:
    """The namespace is part of a budget's name."""
    result = compiled(pod(), organisation_budget("team", amount="7.00"), budget("team", amount="3.00"))
    amounts = {each.name: each.limits[0].amount for each in policy_of(result).budgets}
    assert amounts == {"spendmesh-system/team": 7_000_000_000, "team-a/team": 3_000_000_000}


def test_relabelling_a_namespace_takes_effect_at_once() -> None:
    """The label decides, not the moment at which a pod was made."""
    index = indexed(namespace(), pod(), organisation_budget(selector=RESEARCH))
    before = compile_index(index, CompileSettings(cluster="test"), load_prices())
    assert index.add(namespace(department="research"))
    after = compile_index(index, CompileSettings(cluster="test"), load_prices(), before)
    assert (applied(before), applied(after)) == ([], ["spendmesh-system/org/monthly"])


def test_an_edit_of_the_organisation_reaches_classes_of_other_namespaces() -> None:
    """A class is compiled again when an object of any namespace in it has changed."""
    index = indexed(pod(), budget(), organisation_budget(amount="7.00"))
    before = compile_index(index, CompileSettings(cluster="test"), load_prices())
    assert index.add(organisation_budget(amount="8.00", generation=2))
    after = compile_index(index, CompileSettings(cluster="test"), load_prices(), before)
    assert policy_of(after).budgets[0].limits[0].amount == 8_000_000_000


def test_a_pod_to_come_gets_the_policy_that_it_has_once_it_runs() -> None:
    """Webhook, bootstrap copy and `inject` ask for pods that do not exist yet."""
    result = compiled(namespace(department="research"), pod(), organisation_budget(selector=RESEARCH), budget())
    running = result.policy_of("uid-web-1")
    assert running is not None
    assert result.policy_for(NAMESPACE, {"app": "web"}, ()).digest == running.digest


def test_outside_of_the_operators_namespace_a_namespace_selector_is_refused() -> None:
    """Nobody budgets other people's namespaces; the message says where such a budget belongs."""
    result = compiled(pod(), pod("cart-1", namespace="team-b"), budget(namespaceSelector={}))
    assert condition(result, "ModelBudget", "team", "Accepted") == ("False", "Invalid")
    said = message(result, "ModelBudget", "team", "Accepted")
    assert said.startswith("spec.namespaceSelector: only an object of the operator's namespace spendmesh-system")
    assert "take namespaceSelector out" in said
    assert applied(result, "cart-1") == []
    assert applied(result) == ["team-a/team/unreadable"]


def test_an_edit_that_adds_a_namespace_selector_leaves_the_last_meaning_in_force() -> None:
    """A rejected edit neither loosens a budget nor lets it reach further."""
    index = indexed(pod(), pod("cart-1", namespace="team-b"), budget())
    index.add(budget(generation=2, amount="99.00", namespaceSelector={}))
    result = compile_index(index, CompileSettings(cluster="test"), load_prices())
    assert applied(result) == ["team-a/team/monthly"]
    assert policy_of(result).budgets[0].limits[0].amount == 10_000_000_000
    assert applied(result, "cart-1") == []


def test_the_operators_namespace_is_that_of_the_release() -> None:
    """Whatever it is called."""
    index = Index(operator_namespace=NAMESPACE)
    for raw in (pod("cart-1", namespace="team-b"), budget(namespaceSelector={})):
        index.add(raw)
    result = compile_index(index, CompileSettings(cluster="test"), load_prices())
    assert applied(result, "cart-1") == ["team-a/team/monthly"]


def test_an_unreadable_budget_of_the_organisation_refuses_where_it_reaches_and_nowhere_else() -> None:
    """What was never valid cannot be verified; what it selects can still be read."""
    broken = organisation_budget(selector=RESEARCH, limits=[])
    elsewhere = pod("cart-1", namespace="team-b")
    result = compiled(namespace(department="research"), pod(), elsewhere, broken)
    assert (applied(result), applied(result, "cart-1")) == (["spendmesh-system/org/unreadable"], [])


# --- inheritance: Default -----------------------------------------------------------------------------------


def default(**spec: Any) -> Raw:
    return organisation_budget(inheritance="Default", **spec)


def test_a_default_applies_where_a_namespace_has_no_budget_of_its_own() -> None:
    """A starting value."""
    assert applied(compiled(pod(), default())) == ["spendmesh-system/org/monthly"]


def test_a_namespaces_own_budget_replaces_a_default_and_the_default_says_so() -> None:
    """Displaced is not rejected: Accepted stays, with fewer effective workloads."""
    result = compiled(pod(), pod("cart-1", namespace="team-b"), default(), budget())
    assert applied(result) == ["team-a/team/monthly"]
    assert applied(result, "cart-1") == ["spendmesh-system/org/monthly"]
    assert org(result, "Accepted") == ("True", "Accepted")
    assert counts(result, "ModelBudget", "org", OPERATOR_NAMESPACE) == (2, 1)
    assert "in force on 1 of 2 workloads; team-a/team replaces it on the others" in message(
        result, "ModelBudget", "org", "Effective", OPERATOR_NAMESPACE
    )


def test_an_override_is_never_replaced() -> None:
    """The default of inheritance: it always applies."""
    assert len(applied(compiled(pod(), organisation_budget(inheritance="Override"), budget()))) == 2


@pytest.mark.parametrize(
    ("own", "kept"),
    [
        ({"limits": [TOKENS]}, True),
        ({"limits": [{**TOKENS, "unit": "Cost", "currency": "EUR"}]}, True),
        ({"limits": [{**TOKENS, "unit": "Cost", "currency": "USD"}]}, False),
        ({"mode": "Observe"}, True),
        ({"podSelector": {"matchLabels": {"app": "cart"}}}, True),
        ({"podSelector": {"matchLabels": {"app": "web"}}}, False),
    ],
)
def test_only_an_enforced_limit_of_the_same_unit_and_currency_on_the_same_pods_replaces(
    own: dict[str, Any], kept: bool
) -> None:
    result = compiled(pod(), default(), budget(**own))
    assert ("spendmesh-system/org/monthly" in applied(result)) is kept


def test_of_a_default_with_two_limits_only_the_replaced_one_gives_way() -> None:
    """Limits are replaced one by one, and the condition names the one that was."""
    two = default(limits=[*budget()["spec"]["limits"], TOKENS])
    result = compiled(pod(), two, budget())
    assert applied(result) == ["spendmesh-system/org/tokens", "team-a/team/monthly"]
    assert "spec.limits[monthly]: on some workloads" in message(
        result, "ModelBudget", "org", "Effective", OPERATOR_NAMESPACE
    )


def test_a_default_that_is_replaced_everywhere_is_overridden() -> None:
    """Never a silent no-op."""
    result = compiled(pod(), default(), budget())
    assert org(result, "Effective") == ("False", "Overridden")


# --- what an operator sees ----------------------------------------------------------------------------------


def test_an_operator_of_one_namespace_says_that_it_cannot_reach_others() -> None:
    """With the way out of it."""
    settings = CompileSettings(cluster="test", watched_namespace=OPERATOR_NAMESPACE)
    result = compiled(pod(namespace=OPERATOR_NAMESPACE), organisation_budget(), settings=settings)
    assert org(result, "ResolvedRefs") == ("False", "NamespacesNotWatched")
    said = message(result, "ModelBudget", "org", "ResolvedRefs", OPERATOR_NAMESPACE)
    assert f"sees namespace {OPERATOR_NAMESPACE} only" in said
    assert "scope: Cluster" in said


def test_a_selector_that_reaches_no_pod_says_where_to_look() -> None:
    result = compiled(namespace(), pod(), organisation_budget(selector=RESEARCH))
    assert org(result, "Effective") == ("False", "NoMatchingWorkload")
    assert "kubectl get namespaces --show-labels" in message(
        result, "ModelBudget", "org", "Effective", OPERATOR_NAMESPACE
    )


def test_routing_in_the_operators_namespace_does_not_reach_others() -> None:
    """Only kinds that publish namespaceSelector do."""
    own = [provider(), routing()]
    for raw in own:
        raw["metadata"]["namespace"] = OPERATOR_NAMESPACE
    assert policy_of(compiled(pod(), *own, organisation_budget())).routing is None


def test_the_platforms_providers_and_the_organisations_budgets_are_marked() -> None:
    """A sidecar charges the organisation the dearer of a namespace's price and the built-in one."""
    result = compiled(pod(), provider(), routing(), organisation_budget(), budget())
    assert [each.platform for each in policy_of(result).providers] == [False]
    assert {each.name: each.organisation for each in policy_of(result).budgets} == {
        "spendmesh-system/org": True,
        "team-a/team": False,
    }
    assert "budgets/2" in policy_of(result).requires
    raws = [pod(namespace=OPERATOR_NAMESPACE), provider(), routing()]
    for raw in raws[1:]:
        raw["metadata"]["namespace"] = OPERATOR_NAMESPACE
    assert [each.platform for each in policy_of(compiled(*raws)).providers] == [True]
