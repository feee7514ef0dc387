"""Where a call goes and which word says why: rules, bounds, downgrades, ceilings, explicit models, dialects."""

from __future__ import annotations

import pytest

from exchange_world import (
    BACKUP,
    MESSAGES,
    MODELS,
    OPENAI,
    ROUTING,
    USD,
    World,
    budget,
    chat,
    hinted,
    limit,
    policy,
    price,
    success,
)
from fake_bank import Held
from spendmesh_sidecar.core.globs import matches
from spendmesh_sidecar.core.specs import (
    BoundSpec,
    ModelPattern,
    ProviderSpec,
    RoutingSpec,
    TargetSpec,
    ThresholdSpec,
    TierSpec,
    When,
)
from spendmesh_sidecar.core.types import Bounds, Hints, Kind, Outcome, ParsedRequest


def routing(**changes: object) -> RoutingSpec:
    return RoutingSpec(**{**{name: getattr(ROUTING, name) for name in ROUTING.__struct_fields__}, **changes})


@pytest.mark.parametrize(
    ("request_", "model", "tier", "reason"),
    [
        (chat("auto"), "openai/medium-1", "standard", "default"),
        (chat("spendmesh/auto"), "openai/medium-1", "standard", "default"),
        (chat("spendmesh/premium"), "openai/large-1", "premium", "asked"),
        (hinted(task="extract"), "openai/small-1", "economy", "rule:extract"),
        (hinted(task="other"), "openai/medium-1", "standard", "default"),
        (hinted(user_plan="enterprise"), "openai/large-1", "premium", "bound:vip"),
        (hinted(task="extract", user_plan="enterprise"), "openai/large-1", "premium", "bound:vip"),
        (chat("named-1"), "openai/named-1", "", "asked"),
    ],
)
def test_tier_and_reason(request_: ParsedRequest, model: str, tier: str, reason: str) -> None:
    run = World().run(request_, [success()])
    assert run.models == [model]
    assert (run.headers.get("x-spendmesh-tier", ""), run.headers["x-spendmesh-reason"]) == (tier, reason)
    assert run.headers["x-spendmesh-policy"] == "team-a/support@7"


def test_a_bounds_maximum_beats_a_bounds_minimum() -> None:
    capped = BoundSpec(name="cap", when=When(), max_tier="economy")
    world = World(policy(routing=routing(bounds=(capped, *ROUTING.bounds))))
    run = world.run(hinted(user_plan="enterprise"), [success()])
    assert (run.models, run.exchange.decision.reason) == (["openai/small-1"], "bound:cap")


def test_a_maximum_that_the_policy_lacks_is_its_cheapest_tier() -> None:
    world = World(policy(routing=routing(bounds=(BoundSpec(name="gone", max_tier="bronze"),))))
    assert world.run(chat(), [success()]).models == ["openai/small-1"]


def downgraded(spent: int) -> World:
    """A world whose budget downgrades at 90 %, with so many nano-units of ten dollars settled by another pod."""
    steps = (ThresholdSpec(percent=80, notify=True), ThresholdSpec(percent=90, max_tier="economy"))
    world = World(policy(budgets=(budget(limit("monthly", 10 * USD, steps=steps)),)))
    account = next(iter(world.ledger.accounts))
    world.bank.leases[(account, "other")] = Held("other", granted=spent, used=spent, closed=True)
    return world


def test_a_budget_at_its_stage_downgrades_and_beats_every_bound() -> None:
    world = downgraded(9 * USD)
    world.run(chat(), [success()])  # brings the coordinator's state
    run = world.run(hinted(user_plan="enterprise"), [success()])
    assert (run.models, run.exchange.decision.reason) == (["openai/small-1"], "budget:team-a/team/monthly")


def test_a_budget_below_its_stage_downgrades_nothing() -> None:
    world = downgraded(8 * USD)
    world.run(chat(), [success()])
    assert world.run(chat(), [success()]).exchange.decision.reason == "default"


def test_our_own_use_reaches_a_stage_before_the_coordinator_says_so() -> None:
    world = downgraded(9 * USD - 1)
    assert world.run(chat(), [success()]).exchange.decision.reason == "default"
    assert world.run(chat(), [success()]).exchange.decision.reason == "budget:team-a/team/monthly"


def test_an_explicit_model_is_never_downgraded() -> None:
    world = downgraded(9 * USD)
    world.run(chat(), [success()])
    assert world.run(chat("named-1"), [success()]).models == ["openai/named-1"]


def test_an_observed_budget_downgrades_nothing() -> None:
    steps = (ThresholdSpec(percent=1, max_tier="economy"),)
    world = World(policy(budgets=(budget(limit("watched", 10**6, steps=steps), mode="Observe"),)))
    for want in world.ledger.wants(world.now):
        leases, _ = world.bank.acquire("holder", (want,))
        world.ledger.merge(leases[0], world.now)
    world.run(chat(), [success()])
    assert world.run(chat(), [success()]).models == ["openai/medium-1"]


def capped(asked_input: float, asked_output: float) -> World:
    provider = ProviderSpec(
        alias="openai",
        ref="team-a/openai",
        dialect="OpenAI",
        base_url="https://one.example/v1",
        prices=(*OPENAI.prices, price("cap-1", asked_input, asked_output)),
    )
    return World(policy(providers=(provider, BACKUP)))


@pytest.mark.parametrize(
    ("input_usd", "output_usd", "models"),
    [
        (5, 20, ["openai/medium-1"]),
        (2, 8, ["openai/medium-1"]),
        (2, 7, ["openai/small-1"]),
        (1, 2, ["openai/small-1"]),
        (0.5, 1, ["openai/cap-1"]),
    ],
)
def test_a_ceiling_never_gives_a_dearer_model_than_asked(
    input_usd: float, output_usd: float, models: list[str]
) -> None:
    assert capped(input_usd, output_usd).run(chat("cap-1"), [success()]).models == models


def test_a_ceiling_keeps_dearer_failover_targets_out() -> None:
    run = capped(2, 8).run(chat("cap-1"), [Outcome(Kind.CONNECT)] * 3)
    assert set(run.models) == {"openai/medium-1"}
    assert ("backup/medium-2", "dearer than the model asked for") in [
        (one.target, one.reason) for one in run.exchange.passed_over
    ]


def test_without_any_routing_policy_every_call_is_refused() -> None:
    run = World(policy(routing=None)).run(chat())
    assert (run.code, run.attempts) == ("policy_missing", [])


def test_a_lone_observed_routing_policy_forwards_as_asked_and_says_what_it_would_do() -> None:
    run = World(policy(routing=routing(mode="Observe"))).run(chat("named-1", hints=Hints(task="extract")), [success()])
    assert run.models == ["openai/named-1"]
    assert run.exchange.observed is not None and run.exchange.observed.tier == "", "nothing claims named-1"
    auto = World(policy(routing=routing(mode="Observe"), budgets=())).run(chat("auto"), [success()])
    assert auto.models == ["openai/auto"]
    assert auto.exchange.observed is not None and auto.exchange.observed.tier == "standard"


def test_an_observed_policy_beside_an_enforced_one_changes_nothing() -> None:
    watching = routing(name="team-a/new@1", default_tier="premium")
    run = World(policy(observed_routing=watching)).run(chat(), [success()])
    assert run.models == ["openai/medium-1"]
    assert run.exchange.observed is not None and run.exchange.observed.tier == "premium"


def test_unmatched_models_can_be_denied() -> None:
    run = World(policy(routing=routing(unmatched="Deny"))).run(chat("named-1"))
    assert (run.code, run.attempts) == ("model_denied", [])
    assert "named-1" in run.message


@pytest.mark.parametrize("model", ["spendmesh/gold", "spendmesh/"])
def test_an_unknown_own_model_is_denied_and_lists_the_known(model: str) -> None:
    run = World().run(chat(model))
    assert run.code == "model_denied" and "spendmesh/premium" in run.message


def test_targets_of_another_dialect_are_passed_over() -> None:
    request = ParsedRequest(
        MESSAGES, b"{}", {}, "auto", False, Bounds(100, max_output_tokens=10, output_field="max_tokens")
    )
    run = World().run(request)
    assert run.code == "no_capable_target"
    assert "openai/medium-1: speaks OpenAI" in run.message


def test_an_explicit_model_goes_to_the_first_provider_of_its_dialect() -> None:
    request = ParsedRequest(
        MESSAGES, b"{}", {}, "fable-1", False, Bounds(100, max_output_tokens=10, output_field="max_tokens")
    )
    assert World().run(request, [success(50, 5)]).models == ["anthropic/fable-1"]


def test_no_provider_of_the_dialect_is_no_capable_target() -> None:
    request = ParsedRequest(MESSAGES, b"{}", {}, "fable-1", False, Bounds(100))
    assert World(policy(providers=(OPENAI, BACKUP))).run(request).code == "no_capable_target"


def test_the_path_can_choose_the_provider() -> None:
    assert World().run(chat("medium-2", provider="backup"), [success()]).models == ["backup/medium-2"]
    assert World().run(chat("auto", provider="backup"), [success()]).models == ["backup/medium-2"]
    unknown = World().run(chat("medium-2", provider="nobody"))
    assert unknown.code == "no_capable_target" and "openai" in unknown.message


def test_a_provider_that_is_only_observed_is_never_called() -> None:
    shadow = ProviderSpec(
        alias="observed/x", ref="team-a/x", dialect="Anthropic", base_url="https://x.example", auth="None"
    )
    request = ParsedRequest(MESSAGES, b"{}", {}, "fable-1", False, Bounds(100))
    assert World(policy(providers=(OPENAI, BACKUP, shadow))).run(request).code == "no_capable_target"


def test_a_tier_without_targets_has_no_capable_target() -> None:
    empty = routing(tiers=(TierSpec(name="economy", targets=()),), default_tier="economy", rules=(), bounds=())
    assert World(policy(routing=empty)).run(chat()).code == "no_capable_target"


def test_free_operations_are_routed_without_a_reservation() -> None:
    models = ParsedRequest(MODELS, b"", {}, "", False, Bounds(0))
    world = World()
    run = world.run(models, [Outcome(Kind.SUCCESS, 200, committed=True, complete=True)])
    assert [attempt.provider.alias for attempt in run.attempts] == ["openai"]
    assert run.acquires == [] and world.used() == 0
    [settled] = run.exchange.decision.settlements
    assert (settled.source, settled.cost_nanos) == ("void", 0)


def test_first_matching_pattern_decides_about_the_ceiling() -> None:
    patterns = (ModelPattern(pattern="cap-*"), ModelPattern(pattern="cap-1", ceiling="Asked"))
    world = World(policy(routing=routing(models=patterns)))
    assert world.run(chat("cap-1"), [success()]).models == ["openai/medium-1"]


@pytest.mark.parametrize(
    ("pattern", "name", "claimed"),
    [
        ("auto", "auto", True),
        ("auto", "auto2", False),
        ("gpt-*", "gpt-", True),
        ("gpt-*", "agpt-4", False),
        ("*", "", True),
        ("*-mini", "gpt-mini", True),
        ("a*a", "a", False),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "acb", False),
        ("a*b*b", "ab", False),
        ("g.t*", "gpt", False),
        ("*" * 50 + "z", "a" * 5_000, False),
    ],
)
def test_globs(pattern: str, name: str, claimed: bool) -> None:
    assert matches(pattern, name) is claimed


def test_targets_of_equal_priority_keep_their_order() -> None:
    tier = TierSpec(
        name="standard",
        targets=(
            TargetSpec(name="b", provider="openai", model="small-1"),
            TargetSpec(name="a", provider="openai", model="medium-1"),
        ),
    )
    world = World(policy(routing=routing(tiers=(tier,), rules=(), bounds=())))
    assert world.run(chat(), [success()]).models == ["openai/small-1"]


def test_a_ceiling_on_a_model_without_a_price_proves_nothing_and_goes_as_asked() -> None:
    run = World(policy(budgets=())).run(chat("cap-unknown"), [success()])
    assert run.models == ["openai/cap-unknown"]


def test_a_policy_without_tiers_has_no_own_models() -> None:
    bare = RoutingSpec(name="team-a/bare@1", models=ROUTING.models)
    run = World(policy(routing=bare)).run(chat("spendmesh/auto"))
    assert run.code == "model_denied" and "no tiers" in run.message
    assert World(policy(routing=bare, budgets=())).run(chat("auto"), [success()]).models == ["openai/auto"]


def test_a_target_whose_provider_is_not_resolved_is_passed_over() -> None:
    run = World(policy(providers=(BACKUP,))).run(chat(), [success()])
    assert run.models == ["backup/medium-2"]
    assert ("openai/medium-1", "its provider is not resolved") in [
        (one.target, one.reason) for one in run.exchange.passed_over
    ]
