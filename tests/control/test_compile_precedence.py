"""Who applies to whom, and who wins (contract §1, "Attachment, inheritance, precedence"): each rule from both sides."""

from __future__ import annotations

from typing import Any

import pytest

from compile_samples import (
    Raw,
    budget,
    compiled,
    condition,
    counts,
    made,
    message,
    pod,
    policy_of,
    provider,
    retries,
    routing,
    section,
)

DEPLOYMENT: dict[str, Any] = {"targetRefs": [{"kind": "Deployment", "name": "web"}]}
SELECTOR: dict[str, Any] = {"podSelector": {"matchLabels": {"app": "web"}}}
NAMESPACE_WIDE: dict[str, Any] = {}
LEVELS = (DEPLOYMENT, SELECTOR, NAMESPACE_WIDE)


def attempts(*raws: Raw) -> int:
    return policy_of(compiled(pod(), *raws)).retry.attempts


@pytest.mark.parametrize(("specific", "general"), [(0, 1), (0, 2), (1, 2)])
def test_the_more_specific_attachment_wins_whatever_its_age(specific: int, general: int) -> None:
    result = compiled(
        pod(),
        retries("specific", attempts=7, day=20, **LEVELS[specific]),
        retries("general", attempts=1, day=1, **LEVELS[general]),
    )
    assert policy_of(result).retry.attempts == 7
    assert condition(result, "RetryBudget", "general", "Accepted") == ("True", "Accepted")
    assert condition(result, "RetryBudget", "general", "Effective") == ("False", "Overridden")
    assert counts(result, "RetryBudget", "general") == (1, 0)
    assert counts(result, "RetryBudget", "specific") == (1, 1)


@pytest.mark.parametrize("level", LEVELS)
def test_at_one_level_the_oldest_wins_and_the_other_says_conflicted(level: dict[str, Any]) -> None:
    result = compiled(pod(), retries("a-new", attempts=1, day=9, **level), retries("z-old", attempts=7, day=2, **level))
    assert policy_of(result).retry.attempts == 7
    assert condition(result, "RetryBudget", "a-new", "Accepted") == ("False", "Conflicted")
    assert "team-a/z-old is older" in message(result, "RetryBudget", "a-new", "Accepted")
    assert condition(result, "RetryBudget", "z-old", "Accepted") == ("True", "Accepted")


def test_a_tie_of_age_goes_by_name() -> None:
    assert attempts(retries("b", attempts=2), retries("a", attempts=5), retries("c", attempts=3)) == 5


def test_without_any_pod_a_conflict_is_still_told() -> None:
    result = compiled(retries("new", day=9, **DEPLOYMENT), retries("old", day=2, **DEPLOYMENT))
    assert condition(result, "RetryBudget", "new", "Accepted") == ("False", "Conflicted")


def test_objects_that_meet_on_some_pods_only_conflict_there() -> None:
    wide = {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}
    result = compiled(
        pod("web-1"),
        pod("cart-1", deployment="cart", app="cart"),
        retries("old", attempts=3, day=1, **SELECTOR),
        retries("new", attempts=5, day=2, **wide),
    )
    assert policy_of(result, "web-1").retry.attempts == 3
    assert policy_of(result, "cart-1").retry.attempts == 5
    assert condition(result, "RetryBudget", "new", "Accepted") == ("True", "PartiallyConflicted")
    assert counts(result, "RetryBudget", "new") == (2, 1)


def test_when_the_winner_goes_the_next_one_takes_over() -> None:
    old, new = retries("old", attempts=3, day=1), retries("new", attempts=5, day=2)
    assert attempts(old, new) == 3
    assert attempts(new) == 5


@pytest.mark.parametrize(
    ("reference", "matches"),
    [
        ({"kind": "Deployment", "name": "web"}, True),
        ({"kind": "ReplicaSet", "name": "web-abc12"}, True),
        ({"group": "", "kind": "Pod", "name": "web-1"}, True),
        ({"kind": "StatefulSet", "name": "web"}, False),
        ({"kind": "Deployment", "name": "web-abc12"}, False),
    ],
)
def test_a_target_is_any_controller_above_the_pod_or_the_pod(reference: dict[str, str], matches: bool) -> None:
    assert (attempts(retries(attempts=7, targetRefs=[reference])) == 7) is matches


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ({"key": "app", "operator": "In", "values": ["web", "cart"]}, True),
        ({"key": "app", "operator": "In", "values": ["cart"]}, False),
        ({"key": "app", "operator": "NotIn", "values": ["cart"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["web"]}, False),
        ({"key": "stage", "operator": "NotIn", "values": ["dev"]}, True),  # as Kubernetes: no label is not in
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "stage", "operator": "Exists"}, False),
        ({"key": "stage", "operator": "DoesNotExist"}, True),
        ({"key": "app", "operator": "DoesNotExist"}, False),
    ],
)
def test_selectors_mean_what_they_mean_in_kubernetes(expression: dict[str, Any], matches: bool) -> None:
    assert (attempts(retries(attempts=7, podSelector={"matchExpressions": [expression]})) == 7) is matches


def test_labels_and_expressions_of_a_selector_must_both_hold() -> None:
    selector = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "stage", "operator": "Exists"}]}
    assert attempts(retries(attempts=7, podSelector=selector)) != 7
    result = compiled(pod(app="web", stage="dev"), retries(attempts=7, podSelector=selector))
    assert policy_of(result).retry.attempts == 7


def test_another_namespace_is_never_reached() -> None:
    result = compiled(pod(namespace="team-b"), retries(attempts=7), budget(), provider(), routing())
    policy = policy_of(result)
    assert (policy.retry.name, policy.budgets, policy.routing) == ("", (), None)


def test_every_budget_that_matches_applies_whatever_its_level() -> None:
    result = compiled(pod(), budget("space"), budget("pods", **SELECTOR), budget("work", day=9, **DEPLOYMENT))
    assert [each.name for each in policy_of(result).budgets] == ["team-a/pods", "team-a/space", "team-a/work"]
    for name in ("space", "pods", "work"):
        assert condition(result, "ModelBudget", name, "Accepted") == ("True", "Accepted")
        assert counts(result, "ModelBudget", name) == (1, 1)


def test_two_budgets_at_one_level_do_not_conflict() -> None:
    result = compiled(pod(), budget("a", day=1), budget("b", day=2))
    assert condition(result, "ModelBudget", "b", "Accepted") == ("True", "Accepted")
    assert len(policy_of(result).budgets) == 2


# --- inheritance by section -----------------------------------------------------------------------------


def test_an_absent_section_comes_from_the_more_general_policy_and_a_present_one_replaces_it() -> None:
    general = routing(
        "general",
        **section(),
        match={"models": [{"pattern": "general-*"}], "unmatched": "Deny"},
        rules=[{"name": "from-general", "when": {"tasks": ["t"]}, "tier": "premium"}],
    )
    specific = routing(
        "specific", **SELECTOR, rules=[{"name": "from-specific", "when": {"tasks": ["t"]}, "tier": "economy"}]
    )
    spec = policy_of(compiled(pod(), provider(), general, specific)).routing
    assert spec is not None
    assert [rule.name for rule in spec.rules] == ["from-specific"]
    assert [model.pattern for model in spec.models] == ["general-*"]
    assert spec.unmatched == "Deny"
    assert [tier.name for tier in spec.tiers] == ["economy", "standard", "premium"]
    assert spec.name == "team-a/general@1"


def test_an_empty_list_of_rules_inherits_none() -> None:
    general = routing("general", **section(), rules=[{"name": "r", "when": {"tasks": ["t"]}, "tier": "premium"}])
    without = policy_of(compiled(pod(), provider(), general, routing("specific", **SELECTOR, rules=[]))).routing
    inherited = policy_of(compiled(pod(), provider(), general, routing("specific", **SELECTOR, match={}))).routing
    assert without is not None and without.rules == ()
    assert inherited is not None and [rule.name for rule in inherited.rules] == ["r"]


def test_bounds_of_all_levels_apply() -> None:
    policies = [
        routing("space", **section(), bounds=[{"name": "space", "maxTier": "premium"}]),
        routing("pods", **SELECTOR, bounds=[{"name": "pods", "maxTier": "standard"}]),
        routing("work", **DEPLOYMENT, bounds=[{"name": "work", "minTier": "economy"}]),
    ]
    result = compiled(pod(), provider(), *policies)
    spec = policy_of(result).routing
    assert spec is not None and {bound.name for bound in spec.bounds} == {"space", "pods", "work"}
    assert all(counts(result, "RoutingPolicy", name) == (1, 1) for name in ("space", "pods", "work"))


def test_a_policy_of_which_nothing_is_left_says_so() -> None:
    result = compiled(pod(), provider(), routing("general"), routing("specific", **SELECTOR, **section()))
    # `match` and `rules` are absent from both: nothing of the general one acts.
    assert condition(result, "RoutingPolicy", "general", "Effective") == ("False", "Overridden")
    assert condition(result, "RoutingPolicy", "general", "Accepted") == ("True", "Accepted")


def test_aliases_resolve_where_they_are_written() -> None:
    general = routing("general", **section("openai", to="first"))
    specific = routing("specific", **SELECTOR, **section("openai", to="second"))
    first, second = provider("first"), provider("second", baseURL="https://second.example/v1")
    policy = policy_of(compiled(pod(), first, second, general, specific))
    assert [(each.alias, each.ref) for each in policy.providers] == [("openai", "team-a/second")]


def test_a_retry_budget_is_taken_whole() -> None:
    general = made("RetryBudget", "general", {"retry": {"attempts": 9}, "circuitBreaker": {"consecutive5xxErrors": 77}})
    specific = made("RetryBudget", "specific", {**SELECTOR, "retry": {"attempts": 4}})
    spec = policy_of(compiled(pod(), general, specific)).retry
    assert (spec.attempts, spec.breaker.consecutive_5xx_errors, spec.name) == (4, 5, "team-a/specific")


# --- Observe --------------------------------------------------------------------------------------------


def test_observe_never_displaces_enforce_however_specific_and_old() -> None:
    enforced = routing("enforced", day=20)
    observed = routing("observed", day=1, mode="Observe", **DEPLOYMENT, **section(tiers={"only": "gpt-4o"}))
    result = compiled(pod(), provider(), enforced, observed)
    policy = policy_of(result)
    assert policy.routing is not None and policy.observed_routing is not None
    assert (policy.routing.mode, policy.routing.name) == ("Enforce", "team-a/enforced@1")
    assert (policy.observed_routing.mode, policy.observed_routing.name) == ("Observe", "team-a/observed@1")
    assert [tier.name for tier in policy.observed_routing.tiers] == ["only"]
    assert condition(result, "RoutingPolicy", "observed", "Effective") == ("False", "Observing")
    assert condition(result, "RoutingPolicy", "enforced", "Effective") == ("True", "Effective")


def test_what_is_enforced_is_the_same_with_and_without_an_observer() -> None:
    alone = policy_of(compiled(pod(), provider(), routing(), retries(attempts=3)))
    observers = [
        routing("watch", mode="Observe", **DEPLOYMENT, **section("other", to="second")),
        retries("watch", attempts=9, mode="Observe", **DEPLOYMENT),
    ]
    second = provider("second", "Anthropic")
    watched = policy_of(compiled(pod(), provider(), second, routing(), retries(attempts=3), *observers))
    assert (watched.routing, watched.retry, watched.budgets) == (alone.routing, alone.retry, alone.budgets)
    assert watched.providers == alone.providers, "an observer must not open a dialect that was closed"
    assert watched.observed_retry is not None and watched.observed_retry.attempts == 9


def test_a_provider_that_is_only_observed_has_no_key_and_no_name_that_a_request_can_use() -> None:
    second = provider("second", baseURL="https://second.example/v1")
    watch = routing("watch", mode="Observe", **DEPLOYMENT, **section("openai", to="second"))
    result = compiled(pod(), provider(), second, routing(), watch)
    found = result.policy_of("uid-web-1")
    assert found is not None and found.policy.observed_routing is not None
    extra = found.policy.providers[-1]
    assert (extra.alias, extra.auth, extra.key_name) == ("observed/openai", "None", "")
    assert [need.provider for need in found.secrets] == ["openai"]
    targets = [target.provider for tier in found.policy.observed_routing.tiers for target in tier.targets]
    assert set(targets) == {"observed/openai"}


def test_a_lone_observer_stands_alone_in_mode_observe_and_has_its_keys() -> None:
    result = compiled(pod(), provider(), routing(mode="Observe"), retries(attempts=9, mode="Observe"))
    found = result.policy_of("uid-web-1")
    assert found is not None and found.policy.routing is not None
    assert found.policy.routing.mode == "Observe"
    assert found.policy.observed_routing is None
    assert (found.policy.retry.mode, found.policy.retry.attempts, found.policy.observed_retry) == ("Observe", 9, None)
    assert [need.provider for need in found.secrets] == ["openai"]
    assert condition(result, "RoutingPolicy", "route", "Effective") == ("False", "Observing")


def test_an_observer_and_an_enforcer_at_one_level_do_not_conflict_but_two_observers_do() -> None:
    result = compiled(
        pod(),
        retries("enforce", attempts=3, day=5),
        retries("watch-old", attempts=4, day=6, mode="Observe"),
        retries("watch-new", attempts=5, day=7, mode="Observe"),
    )
    observed = policy_of(result).observed_retry
    assert observed is not None and observed.attempts == 4
    assert condition(result, "RetryBudget", "watch-old", "Accepted") == ("True", "Accepted")
    assert condition(result, "RetryBudget", "watch-new", "Accepted") == ("False", "Conflicted")


def test_beside_an_enforcer_of_the_same_level_the_observer_is_what_is_tried_out() -> None:
    for day in (1, 9):
        watch = routing("watch", mode="Observe", day=day, **section(tiers={"tried": "gpt-4o"}))
        policy = policy_of(compiled(pod(), provider(), routing("enforce", day=5), watch))
        assert policy.observed_routing is not None and policy.routing is not None
        assert [tier.name for tier in policy.observed_routing.tiers] == ["tried"]
        assert len(policy.routing.tiers) == 3


def test_an_observed_budget_is_carried_in_its_mode() -> None:
    result = compiled(pod(), budget("hard"), budget("soft", mode="Observe"))
    assert [(each.name, each.mode) for each in policy_of(result).budgets] == [
        ("team-a/hard", "Enforce"),
        ("team-a/soft", "Observe"),
    ]
    assert condition(result, "ModelBudget", "soft", "Effective") == ("False", "Observing")
