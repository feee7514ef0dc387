"""Promises of compile over generated sets of objects: order does not count, and a rejected edit never loosens."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings, strategies as st

from compile_samples import (
    SETTINGS,
    Raw,
    budget,
    compiled,
    indexed,
    namespace,
    organisation_budget,
    pod,
    provider,
    retries,
    routing,
    section,
)
from spendmesh_operator.compile import Compiled, compile_index
from spendmesh_operator.prices import load_prices
from spendmesh_sidecar.policy import decode_policy

ATTACHMENTS: tuple[dict[str, Any], ...] = (
    {},
    {"podSelector": {"matchLabels": {"app": "web"}}},
    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}},
    {"targetRefs": [{"kind": "Deployment", "name": "web"}]},
    {"targetRefs": [{"kind": "Deployment", "name": "cart"}, {"kind": "Deployment", "name": "web"}]},
)
SECTIONS: tuple[dict[str, Any], ...] = (
    section(),
    section("openai", tiers={"only": "gpt-4o"}),
    section("other", to="missing"),
    section("claude", tiers={"economy": "claude-haiku-4-5"}),
    {"rules": [{"name": "r", "when": {"tasks": ["t"]}, "tier": "premium"}]},
    {"bounds": [{"name": "b", "maxTier": "economy"}, {"name": "c", "minTier": "gold"}]},
    {"match": {"models": [{"pattern": "gpt-*", "ceiling": "Asked"}], "unmatched": "Deny"}},
)
modes = st.sampled_from(("Enforce", "Observe"))
days = st.integers(1, 5)
attachments = st.sampled_from(ATTACHMENTS)
names = st.sampled_from("abcdef")


@st.composite
def routings(draw: st.DrawFn) -> Raw:
    spec = draw(st.sampled_from(SECTIONS))
    return routing(draw(names), day=draw(days), mode=draw(modes), **draw(attachments), **spec)


@st.composite
def budgets(draw: st.DrawFn) -> Raw:
    return budget(draw(names), amount=draw(st.integers(1, 9)), mode=draw(modes), **draw(attachments))


@st.composite
def organisation_budgets(draw: st.DrawFn) -> Raw:
    selector = draw(st.sampled_from(({}, {"matchLabels": {"stage": "live"}}, {"matchLabels": {"stage": "test"}})))
    inheritance = draw(st.sampled_from(("Override", "Default")))
    name = f"org-{draw(names)}"
    return organisation_budget(name, selector=selector, inheritance=inheritance, mode=draw(modes))


@st.composite
def retry_budgets(draw: st.DrawFn) -> Raw:
    return retries(draw(names), day=draw(days), attempts=draw(st.integers(0, 9)), mode=draw(modes), **draw(attachments))


def unique(raws: list[Raw]) -> list[Raw]:
    return list({(raw["kind"], raw["metadata"]["name"]): raw for raw in raws}.values())


objects = st.lists(routings() | budgets() | organisation_budgets() | retry_budgets(), max_size=10).map(unique)
FIXED = [
    namespace(stage="live"),
    pod("web-1"),
    pod("cart-1", deployment="cart", app="cart"),
    provider(),
    provider("claude", "Anthropic"),
]


def digests(result: Compiled) -> dict[str, str]:
    found = {uid: result.policy_of(uid) for uid in ("uid-web-1", "uid-cart-1")}
    return {uid: policy.digest for uid, policy in found.items() if policy is not None}


@settings(max_examples=150, deadline=None)
@given(objects, st.randoms(use_true_random=False))
def test_the_order_in_which_objects_arrive_does_not_count(raws: list[Raw], rng: random.Random) -> None:
    shuffled = [*FIXED, *raws]
    rng.shuffle(shuffled)
    one, other = compiled(*FIXED, *raws), compiled(*shuffled)
    assert digests(one) == digests(other)
    assert one.verdicts == other.verdicts


@settings(max_examples=150, deadline=None)
@given(objects)
def test_every_policy_is_one_that_a_sidecar_accepts(raws: list[Raw]) -> None:
    result = compiled(*FIXED, *raws)
    assert len(digests(result)) == 2
    for policy in result.policies.values():
        assert decode_policy(policy.encoded) == policy.policy
        assert policy.price_table in result.price_tables


@settings(max_examples=100, deadline=None)
@given(objects, st.data())
def test_compiling_again_with_the_last_result_at_hand_changes_nothing(raws: list[Raw], data: st.DataObject) -> None:
    """Namespaces without a change are taken over from the last result: it must not show."""
    index = indexed(*FIXED, *raws)
    before = compile_index(index, SETTINGS, load_prices())
    if raws and data.draw(st.booleans()):
        gone = data.draw(st.sampled_from(raws))
        index.remove(gone["kind"], gone["metadata"]["namespace"], gone["metadata"]["name"])
    if data.draw(st.booleans()):
        index.add(namespace(stage="test"))
    fresh = compile_index(index, SETTINGS, load_prices())
    reused = compile_index(index, SETTINGS, load_prices(), before)
    assert (digests(fresh), fresh.verdicts) == (digests(reused), reused.verdicts)


BREAKAGES = (
    lambda spec: spec | {"surprise": 1},
    lambda spec: spec | {"mode": "Off"},
    lambda spec: spec | {"podSelector": {}},
    lambda spec: spec | {"limits": [], "tiers": [], "retry": {"attempts": -1}},
)


@settings(max_examples=150, deadline=None)
@given(objects.filter(bool), st.data())
def test_a_rejected_edit_leaves_every_policy_as_it_was(raws: list[Raw], data: st.DataObject) -> None:
    index = indexed(*FIXED, *raws)
    before = compile_index(index, SETTINGS, load_prices())
    victim = data.draw(st.sampled_from(raws))
    broken = data.draw(st.sampled_from(BREAKAGES))(victim["spec"])
    metadata = {**victim["metadata"], "generation": 2}
    index.add({**victim, "metadata": metadata, "spec": broken})
    after = compile_index(index, SETTINGS, load_prices(), before)
    assert digests(after) == digests(before)
    key = next(key for key in after.verdicts if key.kind == victim["kind"] and key.name == metadata["name"])
    assert not after.verdicts[key].accepted


@settings(max_examples=100, deadline=None)
@given(objects, budgets())
def test_a_budget_more_never_makes_a_policy_without_it_looser(raws: list[Raw], extra: Raw) -> None:
    """All budgets that match apply, so another one, even an unreadable one, takes none away, save a Default."""
    defaults = {raw["metadata"]["name"] for raw in raws if raw["spec"].get("inheritance") == "Default"}
    name = {**extra, "metadata": {**extra["metadata"], "name": "extra"}}
    unreadable = {**name, "spec": name["spec"] | {"limits": "none"}}
    before = compiled(*FIXED, *raws)
    for more in (name, unreadable):
        after = compiled(*FIXED, *raws, more)
        for uid in ("uid-web-1", "uid-cart-1"):
            old, new = before.policy_of(uid), after.policy_of(uid)
            assert old is not None and new is not None
            kept = {each for each in old.policy.budgets if each.name.partition("/")[2] not in defaults}
            assert kept <= set(new.policy.budgets)
            assert (old.policy.routing, old.policy.retry) == (new.policy.routing, new.policy.retry)


@settings(max_examples=100, deadline=None)
@given(objects)
def test_removing_every_observer_changes_nothing_that_is_enforced(raws: list[Raw]) -> None:
    enforced = [raw for raw in raws if raw["spec"].get("mode") != "Observe"]
    both, alone = compiled(*FIXED, *raws), compiled(*FIXED, *enforced)
    for uid in ("uid-web-1", "uid-cart-1"):
        with_observers, without = both.policy_of(uid), alone.policy_of(uid)
        assert with_observers is not None and without is not None
        if without.policy.routing is not None:
            assert with_observers.policy.routing == without.policy.routing
            used = [each for each in with_observers.policy.providers if not each.alias.startswith("observed/")]
            assert tuple(used) == without.policy.providers
        if without.policy.retry.name:
            assert with_observers.policy.retry == without.policy.retry
        kept = [each for each in with_observers.policy.budgets if each.mode == "Enforce"]
        assert kept == list(without.policy.budgets)
