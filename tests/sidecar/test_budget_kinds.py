"""All that a budget can say, at work on real calls: from the manifest to the provider's invoice."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from sidecar_beside import chat
from sidecar_manifests import NAMESPACE, PRICES, budget, provider
from sidecar_world import World, exhaust
from spendmesh_operator.index import OPERATOR_NAMESPACE

pytestmark = pytest.mark.anyio

NANOS = 10**9
CHEAP = {"model": "gpt-4o", "currency": "USD", "inputPerMillion": "0.01", "outputPerMillion": "0.01"}


def organisation(amount: str = "100.00", **limit: Any) -> dict[str, Any]:
    """A budget for the namespaces of research."""
    made = budget(amount, "org", **limit)
    made["metadata"]["namespace"] = OPERATOR_NAMESPACE
    made["spec"]["limits"][0]["name"] = "everyone"
    made["spec"]["namespaceSelector"] = {"matchLabels": {"department": "research"}}
    return made


def labelled(**labels: str) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


async def spent(world: World, limit: str) -> int:
    """What the coordinator has settled on a limit, once the sidecar has closed its books."""
    await world.stop_sidecar()
    return world.account(limit).state.settled


async def test_a_namespace_joins_the_organisations_budget_by_its_label(empty_world: World) -> None:
    """Relabelled while the sidecar runs: calls before it count for the team alone, calls after it for both."""
    world = await empty_world.start(organisation())
    await world.openai.chat.completions.create(**chat())
    before = world.invoice_nanos
    await world.apply(labelled(department="research"))
    await world.programmed()
    await world.openai.chat.completions.create(**chat())
    await world.quiet()
    assert await spent(world, "everyone") == world.invoice_nanos - before
    assert world.account("monthly").state.settled == world.invoice_nanos


async def test_a_spent_budget_of_the_organisation_refuses_whatever_the_team_has_left(empty_world: World) -> None:
    """The refusal names the budget of the operator's namespace."""
    world = await empty_world.start(labelled(department="research"), organisation("0.000001"))
    with pytest.raises(openai.APIStatusError) as refused:
        await world.openai.chat.completions.create(**chat())
    assert refused.value.status_code == 402
    assert "spendmesh-system/org/everyone" in refused.value.message


async def test_a_namespace_cannot_price_the_organisations_budget_down(empty_world: World) -> None:
    """Its own price is what the team is charged; the organisation is charged the built-in one, as the invoice is."""
    world = await empty_world.start(labelled(department="research"), organisation())
    await world.apply(provider("openai", world.standin.openai_url, prices=[*PRICES, CHEAP]))
    await world.programmed()
    await world.openai.chat.completions.create(**chat(model="gpt-4o"))
    await world.quiet()
    assert await spent(world, "everyone") == world.invoice_nanos
    assert 0 < world.account("monthly").state.settled < world.invoice_nanos


async def test_a_rolling_limit_is_used_to_the_end_and_never_exceeded(empty_world: World) -> None:
    """And its refusal says that a part of it comes free, not that it resets."""
    window = {"type": "Rolling", "duration": "744h"}
    world = await empty_world.start(budget("0.02", window=window))
    refused = await exhaust(world)
    assert refused.code == "budget_exceeded"
    assert "A part of it comes free in" in refused.message
    await world.quiet()
    assert 0.95 * NANOS / 50 <= await spent(world, "monthly") == world.invoice_nanos <= NANOS / 50


async def test_a_clamp_lowers_what_the_provider_is_asked_for(empty_world: World) -> None:
    """An explicit model too: the answer is shorter, and the header says why."""
    steps = [{"percent": 1, "actions": [{"type": "Clamp", "maxOutputTokens": 40}]}]
    world = await empty_world.start(budget("0.05", thresholds=steps))
    long = chat("[[out=600]]", "medium-1", max_tokens=900)
    first = await world.openai.chat.completions.with_raw_response.create(**long)
    assert first.headers["x-spendmesh-reason"] == "asked"
    second = await world.openai.chat.completions.with_raw_response.create(**long)
    assert second.headers["x-spendmesh-reason"] == "clamp:team-a/team/monthly"
    assert (first.parse().usage.completion_tokens, second.parse().usage.completion_tokens) == (600, 40)


async def test_a_limit_on_some_models_leaves_the_others_alone(empty_world: World) -> None:
    """A spent one refuses only what it counts."""
    world = await empty_world.start(budget("0.000001", models=["large-*"]))
    await world.openai.chat.completions.create(**chat(model="medium-1"))
    with pytest.raises(openai.APIStatusError) as refused:
        await world.openai.chat.completions.create(**chat(model="large-1"))
    assert refused.value.status_code == 402


async def test_an_unpriced_model_passes_where_the_budget_says_so_and_is_counted_as_uncounted(
    empty_world: World,
) -> None:
    """Nothing is charged; the metric tells that something was not."""
    lenient = budget()
    lenient["spec"]["unpricedModels"] = "Allow"
    world = await empty_world.start(lenient)
    await world.apply(provider("openai", world.standin.openai_url, prices=[]))
    await world.programmed()
    await world.openai.chat.completions.create(**chat(model="medium-1"))
    await world.quiet()
    assert world.invoice_nanos > 0
    assert await world.total("spendmesh_uncounted_attempts_total", limit="team-a/team/monthly") == 1
    assert world.rights.used == 0
