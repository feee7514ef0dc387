"""Calls of one shape share a plan; whatever a plan follows from gives another one, at once."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import OPENAI, ROUTING, UNIX, World, chat, policy, price, success
from spendmesh_sidecar.core.admission import MAX_PLANS, Plan, Plans
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.router import Ceiling
from spendmesh_sidecar.core.shape import shape_of
from spendmesh_sidecar.core.specs import ModelPattern
from spendmesh_sidecar.core.types import Hints, ParsedRequest

POLICY, PRICING = policy(), Pricing(())


def plan_of(plans: Plans, request: ParsedRequest, under: object = POLICY, now_unix: int = UNIX) -> Plan:
    plan = plans.plan(shape_of(request), under, PRICING, (), now_unix)  # type: ignore[arg-type]
    assert isinstance(plan, Plan)
    return plan


def test_what_is_different_in_each_call_makes_no_plan_of_its_own() -> None:
    plans = Plans()
    one = chat(input_tokens=10, hints=Hints(task="chat", user="ann", session="1"), body=b"one", headers={"a": "b"})
    other = chat(input_tokens=99, hints=Hints(task="chat", user="bob", session="2"), body=b"other", client_retry=1)
    under = policy(routing=replace(ROUTING, models=(ModelPattern(pattern="auto"),)))
    assert plan_of(plans, one, under) is plan_of(plans, other, under, now_unix=UNIX + 86_400)
    assert plans.known == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (chat("named-1"), lambda plan: plan.targets[0].candidate.key == "openai/named-1"),
        (chat(provider="backup"), lambda plan: plan.targets[0].candidate.key == "backup/medium-2"),
        (chat(hints=Hints(task="extract")), lambda plan: plan.route.tier == "economy"),
        (chat(hints=Hints(user_plan="enterprise")), lambda plan: plan.route.tier == "premium"),
        (chat(maximum=77), lambda plan: plan.targets[0].max_output_tokens == 77),
        (chat(maximum=None), lambda plan: plan.targets[0].injected),
        (chat(stream=True, usage_asked=False), lambda plan: plan.include_usage),
    ],
)
def test_what_decides_a_plan_is_never_taken_from_another_call(changed: ParsedRequest, said: object) -> None:
    plans = Plans()
    assert callable(said)
    assert not said(plan_of(plans, chat()))
    assert said(plan_of(plans, changed))
    assert not said(plan_of(plans, chat()))


def test_a_refusal_of_a_shape_says_nothing_of_others() -> None:
    plans = Plans()
    unpriced = chat(unpriced_fields=("tools[0].type=web_search",))
    assert not isinstance(plans.plan(shape_of(unpriced), POLICY, PRICING, (), UNIX), Plan)
    assert plan_of(plans, chat()).targets


def test_another_policy_table_or_downgrade_acts_on_the_next_call() -> None:
    plans, shape = Plans(), shape_of(chat())
    assert plan_of(plans, chat()).route.tier == "standard"
    cheaper = policy(routing=replace(ROUTING, default_tier="economy"))
    assert plan_of(plans, chat(), cheaper).route.tier == "economy"
    assert plan_of(plans, chat()).route.tier == "standard"
    downgraded = plans.plan(shape, POLICY, PRICING, (Ceiling("economy", "team-a/team/monthly"),), UNIX)
    assert isinstance(downgraded, Plan)
    assert downgraded.route.reason == "budget:team-a/team/monthly"
    assert plans.plan(shape, POLICY, Pricing(()), (), UNIX) is not plan_of(plans, chat())


def test_a_route_that_depends_on_prices_follows_them_as_they_change() -> None:
    """Asked for `named-1`, policy may take no dearer target; from a moment on, the tier's is dearer."""
    medium = price("medium-1", 2, 8)
    later = replace(price("medium-1", 20, 80).rows[0], since=UNIX + 10_000)
    provider = replace(OPENAI, prices=(price("named-1", 3, 9), replace(medium, rows=(*medium.rows, later))))
    pattern = ModelPattern(pattern="named-*", ceiling="Asked")
    under = policy(providers=(provider,), routing=replace(ROUTING, models=(pattern,)))
    plans = Plans()
    keys = [plan_of(plans, chat("named-1"), under, now).targets[0].candidate.key for now in (UNIX, UNIX + 20_000)]
    assert keys == ["openai/medium-1", "openai/named-1"]


def test_names_that_clients_invent_do_not_pile_up() -> None:
    plans = Plans()
    for number in range(3 * MAX_PLANS):
        plan_of(plans, chat(hints=Hints(task=f"task-{number}")))
    assert plans.known <= MAX_PLANS


def test_calls_of_one_shape_are_booked_by_their_own_size() -> None:
    world = World()
    for tokens in (1_000, 2_000):
        world.run(chat(input_tokens=tokens), [success(tokens, 10)])
    assert world.used() == 2 * (1_000 + 2_000) * 1_000 + 2 * 10 * 8_000
