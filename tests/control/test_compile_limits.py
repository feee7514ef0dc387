"""What compile makes of the fields of a limit: which calls it counts, and how that is named for a sidecar."""

from __future__ import annotations

from typing import Any

import pytest

from compile_samples import (
    Raw,
    budget,
    compiled,
    condition,
    message,
    organisation_budget,
    pod,
    policy_of,
    provider,
    routing,
    section,
)
from spendmesh_sidecar.core.specs import LimitSpec, WindowSpec


def limits(**fields: Any) -> dict[str, Any]:
    """The one limit of `budget`, with more fields."""
    return {"limits": [{**budget()["spec"]["limits"][0], **fields}]}


def compiled_limit(*raws: Raw) -> LimitSpec:
    (found,) = policy_of(compiled(pod(), *raws)).budgets[0].limits
    return found


def test_models_and_providers_are_sorted_and_qualified() -> None:
    """A team names ModelProviders of its own namespace; the order in which they are written means nothing."""
    found = compiled_limit(budget(**limits(models=["o3", "gpt-*"], providers=["openai", "azure"])))
    assert (found.models, found.providers) == (("gpt-*", "o3"), ("team-a/azure", "team-a/openai"))


def test_the_organisation_means_providers_of_a_name_in_any_namespace() -> None:
    """Each namespace has ModelProviders of its own."""
    assert compiled_limit(organisation_budget(**limits(providers=["openai"]))).providers == ("*/openai",)


def test_a_sidecar_must_understand_limits_that_count_some_calls() -> None:
    """An older one refuses the policy and keeps its last one; budgets as they were ask for nothing new."""
    assert policy_of(compiled(pod(), budget())).requires == ("budgets/1",)
    assert policy_of(compiled(pod(), budget(**limits(models=["o3"])))).requires == ("budgets/1", "budgets/2")


def test_a_provider_that_does_not_exist_is_named() -> None:
    """A limit that counts nothing is never silent."""
    result = compiled(pod(), provider(), routing(), budget(**limits(providers=["opnai"])))
    assert condition(result, "ModelBudget", "team", "ResolvedRefs") == ("False", "ProviderNotFound")
    assert "spec.limits[monthly].providers: 'opnai'" in message(result, "ModelBudget", "team", "ResolvedRefs")
    known = compiled(pod(), provider(), routing(), budget(**limits(providers=["openai"])))
    assert condition(known, "ModelBudget", "team", "ResolvedRefs") == ("True", "ResolvedRefs")


def test_a_limit_on_some_models_replaces_no_default_for_all() -> None:
    """What the default would count must not go uncounted."""
    default = organisation_budget(inheritance="Default")
    narrow = compiled(pod(), default, budget(**limits(models=["o3"])))
    assert [each.name for each in policy_of(narrow).budgets] == ["spendmesh-system/org", "team-a/team"]
    same = compiled(pod(), organisation_budget(inheritance="Default", **limits(models=["o3"])), budget())
    assert [each.name for each in policy_of(same).budgets] == ["team-a/team"]


def test_a_budget_says_which_models_it_cannot_count_and_what_becomes_of_them() -> None:
    """Deny and Allow differ in what happens, and the condition says which."""
    raws = (pod(), provider(), made_up_tier())
    denied = compiled(*raws, budget())
    assert condition(denied, "ModelBudget", "team", "Priced") == ("False", "ModelUnpriced")
    said = message(denied, "ModelBudget", "team", "Priced")
    assert "'made-up-1'" in said
    assert "are refused as unpriced" in said
    allowed = compiled(*raws, budget(unpricedModels="Allow"))
    assert "pass the limit uncounted" in message(allowed, "ModelBudget", "team", "Priced")
    assert policy_of(allowed).budgets[0].unpriced_models == "Allow"


def test_a_limit_on_other_models_has_nothing_to_say_about_an_unpriced_one() -> None:
    result = compiled(pod(), provider(), made_up_tier(), budget(**limits(models=["gpt-*"])))
    assert condition(result, "ModelBudget", "team", "Priced") == ("True", "Priced")


def made_up_tier() -> Raw:
    """Routing with a model that nobody prices."""
    return routing("tiers", **section(tiers={"standard": "made-up-1"}))


def test_a_clamp_travels_with_its_threshold() -> None:
    steps = [{"percent": 80, "actions": [{"type": "Notify"}, {"type": "Clamp", "maxOutputTokens": 512}]}]
    result = compiled(pod(), budget(**limits(thresholds=steps)))
    (found,) = policy_of(result).budgets[0].limits[0].thresholds
    assert (found.percent, found.notify, found.max_output_tokens) == (80, True, 512)
    assert policy_of(result).requires == ("budgets/1", "budgets/2")


def test_a_rolling_window_is_compiled_to_its_seconds() -> None:
    """And nothing of a calendar."""
    found = compiled_limit(budget(**limits(window={"type": "Rolling", "duration": "1h30m"}))).window
    assert found == WindowSpec(type="Rolling", duration_seconds=5_400)


@pytest.mark.parametrize("part", ["24h", "1440m", "23h59m60s"])
def test_equal_durations_are_one_window(part: str) -> None:
    """However they are written."""
    found = compiled_limit(budget(**limits(window={"type": "Rolling", "duration": part}))).window
    assert found.duration_seconds == 86_400


def test_what_a_limit_reserves_travels_and_asks_for_a_sidecar_that_knows_it() -> None:
    """An older one would hold all that calls may cost, and say nothing of it."""
    result = compiled(pod(), budget(**limits(reservation="Expected", overshootPercent=5)))
    (found,) = policy_of(result).budgets[0].limits
    assert (found.reservation, found.overshoot_percent) == ("Expected", 5)
    assert policy_of(result).requires == ("budgets/1", "budgets/3")
    strict = compiled_limit(budget(**limits(reservation="Strict")))
    assert (strict.reservation, strict.overshoot_percent) == ("Strict", 0)
