"""What compile says about objects, and what a wrong reference does to the policy: never silent, never looser."""

from __future__ import annotations

from typing import Any

import pytest

from compile_samples import (
    SETTINGS,
    Raw,
    budget,
    compiled,
    condition,
    conditions,
    counts,
    indexed,
    made,
    message,
    pod,
    policy_of,
    provider,
    retries,
    routing,
    section,
)
from spendmesh_operator.compile import CompileSettings, compile_index
from spendmesh_operator.prices import load_prices
from spendmesh_sidecar.core.specs import (
    BreakerSpec,
    BudgetSpec,
    ConcurrencySpec,
    DeduplicationSpec,
    LimitSpec,
    WindowSpec,
)
from spendmesh_sidecar.policy import decode_policy, decode_price_table, digest, encode


def test_a_whole_setup_is_accepted_in_force_and_readable_by_a_sidecar() -> None:
    result = compiled(pod(), provider(), routing(), budget(), retries())
    for kind, name in (("ModelProvider", "openai"), ("RoutingPolicy", "route"), ("ModelBudget", "team")):
        assert all(each[0] == "True" for each in conditions(result, kind, name).values()), (kind, name)
        assert counts(result, kind, name) == (1, 1)
    found = result.policy_of("uid-web-1")
    assert found is not None
    assert decode_policy(found.encoded) == found.policy
    assert found.digest == digest(found.encoded)
    table = result.price_tables[found.price_table]
    assert digest(table) == found.price_table
    assert [prices.id for prices in decode_price_table(table).lists] == ["openai"]


def test_the_policy_names_its_sources_and_only_the_features_it_uses() -> None:
    policy = policy_of(compiled(pod(), provider(), routing(generation=4), budget()))
    assert [(each.kind, each.name, each.generation) for each in policy.sources] == [
        ("ModelBudget", "team-a/team", 1),
        ("ModelProvider", "team-a/openai", 1),
        ("RoutingPolicy", "team-a/route", 4),
    ]
    assert policy.sources[0].uid == "ModelBudget-team"
    assert policy.requires == ("budgets/1", "routing/1")
    assert policy_of(compiled(pod())).requires == ()
    assert policy_of(compiled(pod(), retries())).requires == ("retries/1",)


@pytest.mark.parametrize(
    ("breaker", "newer"),
    [
        ({"consecutive5xxErrors": 3, "baseEjectionTime": "2s", "onAllEjected": "Deny"}, False),
        ({"mode": "ForcedOpen"}, True),
        ({"failureRate": {"percent": 20}}, True),
        ({"failureRate": {"slowFirstByte": "5s"}}, True),
    ],
)
def test_a_sidecar_that_would_not_obey_a_breaker_is_told_to_refuse_the_policy(breaker: Any, newer: bool) -> None:
    requires = policy_of(compiled(pod(), retries(circuitBreaker=breaker))).requires
    assert requires == (("retries/1", "retries/2") if newer else ("retries/1",))


def test_every_field_of_a_breaker_is_compiled() -> None:
    rate = {"percent": 20, "interval": "15s", "minRequests": 7, "slowFirstByte": "4s"}
    times = {"baseEjectionTime": "2s", "maxEjectionTime": "1m"}
    breaker = {"mode": "Observe", "consecutive5xxErrors": 3, "failureRate": rate, **times, "onAllEjected": "Deny"}
    assert policy_of(compiled(pod(), retries(circuitBreaker=breaker))).retry.breaker == BreakerSpec(
        mode="Observe",
        consecutive_5xx_errors=3,
        failure_percent=20,
        failure_interval_ms=15_000,
        min_requests=7,
        slow_first_byte_ms=4_000,
        base_ejection_ms=2_000,
        max_ejection_ms=60_000,
        on_all_ejected="Deny",
    )


def test_a_breaker_of_which_nothing_is_said_is_the_built_in_one() -> None:
    """What no RetryBudget says, and what an empty one says, are the same."""
    assert policy_of(compiled(pod(), retries())).retry.breaker == BreakerSpec()


def test_adaptive_concurrency_is_compiled_and_required() -> None:
    policy = policy_of(compiled(pod(), retries(adaptiveConcurrency={"min": 2, "max": 8, "onLimit": "Serve"})))
    assert policy.retry.concurrency == ConcurrencySpec(minimum=2, maximum=8, on_limit="Serve")
    assert policy.requires == ("retries/1", "retries/2")


@pytest.mark.parametrize(
    ("rules", "required"),
    [
        ({}, False),
        ({"mode": "ClientRetries", "window": "10m"}, False),
        ({"mode": "Off", "window": "1m"}, False),
        ({"mode": "IdempotencyKey"}, True),
        ({"window": "1m"}, True),
        ({"maxBytes": 65_536}, True),
    ],
)
def test_a_sidecar_that_cannot_join_calls_as_told_refuses_the_policy(rules: Any, required: bool) -> None:
    """One that joins nothing obeys `Off`, and the default save that it pays for what it could have joined."""
    requires = policy_of(compiled(pod(), retries(deduplication=rules))).requires
    assert requires == (("deduplication/1", "retries/1") if required else ("retries/1",))


def test_every_field_of_deduplication_is_compiled() -> None:
    rules = {"mode": "All", "window": "90s", "maxBytes": 100_000}
    policy = policy_of(compiled(pod(), retries(deduplication=rules)))
    assert policy.retry.deduplication == DeduplicationSpec(mode="All", window_ms=90_000, max_bytes=100_000)
    assert decode_policy(encode(policy)).retry == policy.retry


def test_nothing_applies_means_policy_missing_no_budget_and_default_retries() -> None:
    settings = CompileSettings(cluster="prod", unbudgeted="Deny")
    policy = policy_of(compiled(pod(), settings=settings))
    assert (policy.routing, policy.budgets, policy.retry.name) == (None, (), "")
    assert (policy.cluster, policy.namespace, policy.unbudgeted) == ("prod", "team-a", "Deny")


def test_pods_that_match_the_same_objects_share_one_policy() -> None:
    result = compiled(pod("a-1"), pod("a-2"), pod("b-1", app="other"), provider(), routing(), budget())
    assert len(result.policies) == 1
    one, other = result.policy_of("uid-a-1"), result.policy_of("uid-b-1")
    assert one is not None and one is other
    assert result.policy_of("nobody") is None


def test_a_pod_to_come_gets_the_policy_that_it_will_have() -> None:
    objects = [provider(), routing(podSelector={"matchLabels": {"app": "web"}}, **section()), budget()]
    index = indexed(*objects)
    before = compile_index(index, SETTINGS, load_prices())
    assert before.policies == {}
    metadata = pod()["metadata"]
    owners = index.owner_chain("team-a", metadata)
    expected = before.policy_for("team-a", metadata["labels"], owners)
    index.add(pod())
    after = compile_index(index, SETTINGS, load_prices(), before).policy_of("uid-web-1")
    assert after is not None and after.digest == expected.digest
    assert expected.price_table in before.price_tables


# --- references -----------------------------------------------------------------------------------------


def test_a_provider_that_does_not_exist_is_named_with_the_fix_and_takes_only_its_targets_away() -> None:
    two = section(tiers={"economy": "gpt-5-nano"})
    two["providers"].append({"name": "gone", "ref": {"name": "missing"}})
    two["tiers"].append({"name": "premium", "targets": [{"name": "only", "provider": "gone", "model": "gpt-5"}]})
    result = compiled(pod(), provider(), routing(**two))
    spec = policy_of(result).routing
    assert spec is not None
    # The tier stays, empty: without it the order of tiers, and so every bound, would mean something else.
    assert [(tier.name, len(tier.targets)) for tier in spec.tiers] == [("economy", 1), ("premium", 0)]
    assert condition(result, "RoutingPolicy", "route", "ResolvedRefs") == ("False", "ProviderNotFound")
    text = message(result, "RoutingPolicy", "route", "ResolvedRefs")
    assert text.startswith("spec.providers[1].ref.name: 'missing':") and "create it there" in text
    assert condition(result, "RoutingPolicy", "route", "Accepted") == ("True", "Accepted")


def test_a_provider_of_another_namespace_is_not_found() -> None:
    foreign = provider()
    foreign["metadata"]["namespace"] = "team-b"
    result = compiled(pod(), foreign, routing())
    assert condition(result, "RoutingPolicy", "route", "ResolvedRefs") == ("False", "ProviderNotFound")
    assert policy_of(result).providers == ()


SECRET: Raw = {"kind": "Secret", "metadata": {"name": "model-keys", "namespace": "team-a"}, "data": {"openai": "eA=="}}


@pytest.mark.parametrize(
    ("secrets", "complete", "expected"),
    [
        ([], False, ("True", "ResolvedRefs")),  # in a cluster we may not list Secrets: the sidecar reports it
        ([], True, ("False", "SecretNotFound")),
        ([SECRET], True, ("True", "ResolvedRefs")),
        ([{**SECRET, "data": {"other": "eA=="}}], False, ("False", "SecretKeyNotFound")),
    ],
)
def test_a_secret_that_is_known_to_lack_the_key_is_named(
    secrets: list[Raw], complete: bool, expected: tuple[str, str]
) -> None:
    index = indexed(provider(), *secrets, secrets_complete=complete)
    result = compile_index(index, SETTINGS, load_prices())
    assert condition(result, "ModelProvider", "openai", "ResolvedRefs") == expected


def test_injection_is_told_each_key_once_and_none_for_a_provider_without_one() -> None:
    two = section(tiers={"economy": "gpt-5-nano"})
    two["providers"] += [{"name": "again", "ref": {"name": "openai"}}, {"name": "local", "ref": {"name": "local"}}]
    local = provider("local", keyed=False, baseURL="https://local.example/v1")
    found = compiled(pod(), provider(), local, routing(**two)).policy_of("uid-web-1")
    assert found is not None
    assert [tuple(need) for need in found.secrets] == [("openai", "model-keys", "openai")]
    assert [(each.alias, each.auth, each.key_name) for each in found.policy.providers] == [
        ("openai", "APIKey", "openai"),
        ("again", "APIKey", "openai"),
        ("local", "None", ""),
    ]


def test_a_downgrade_to_a_tier_that_the_policy_lacks_means_its_cheapest_and_says_so() -> None:
    def limited(tier: str) -> Raw:
        window = {"type": "Calendar", "period": "Month"}
        thresholds = [
            {"percent": 90, "actions": [{"type": "Notify"}, {"type": "Downgrade", "maxTier": tier}]},
            {"percent": 80, "actions": [{"type": "Notify"}]},
        ]
        limit = {"name": "m", "currency": "USD", "amount": "5", "window": window, "thresholds": thresholds}
        return budget(limits=[limit])

    result = compiled(pod(), provider(), routing(), limited("gold"))
    steps = policy_of(result).budgets[0].limits[0].thresholds
    assert [(step.percent, step.notify, step.max_tier) for step in steps] == [(80, True, ""), (90, True, "economy")]
    assert condition(result, "ModelBudget", "team", "ResolvedRefs") == ("False", "TierNotFound")
    text = message(result, "ModelBudget", "team", "ResolvedRefs")
    assert "'gold'" in text and "'economy', is used" in text and "economy, standard, premium" in text

    exact = compiled(pod(), provider(), routing(), limited("standard"))
    assert policy_of(exact).budgets[0].limits[0].thresholds[1].max_tier == "standard"
    assert condition(exact, "ModelBudget", "team", "ResolvedRefs") == ("True", "ResolvedRefs")
    unrouted = compiled(pod(), limited("gold"))
    assert condition(unrouted, "ModelBudget", "team", "ResolvedRefs") == ("True", "ResolvedRefs")


def test_an_inherited_bound_on_a_missing_tier_clamps_to_the_cheapest_and_a_minimum_has_no_effect() -> None:
    bounds = [{"name": "high", "maxTier": "gold"}, {"name": "low", "minTier": "silver"}]
    result = compiled(
        pod(), provider(), routing("space"), routing("pods", podSelector={"matchLabels": {"app": "web"}}, bounds=bounds)
    )
    spec = policy_of(result).routing
    assert spec is not None
    assert [(bound.name, bound.min_tier, bound.max_tier) for bound in spec.bounds] == [("high", "", "economy")]
    text = message(result, "RoutingPolicy", "pods", "ResolvedRefs")
    assert "spec.bounds[high].maxTier: 'gold'" in text and "spec.bounds[low].minTier: 'silver'" in text
    assert condition(result, "RoutingPolicy", "space", "ResolvedRefs") == ("True", "ResolvedRefs")


def test_an_inherited_rule_for_a_missing_tier_picks_the_default_tier() -> None:
    rules = [{"name": "vip", "when": {"tasks": ["t"]}, "tier": "gold"}]
    selector = {"matchLabels": {"app": "web"}}
    result = compiled(pod(), provider(), routing("space"), routing("pods", podSelector=selector, rules=rules))
    spec = policy_of(result).routing
    assert spec is not None and [(rule.name, rule.tier) for rule in spec.rules] == [("vip", "economy")]
    assert condition(result, "RoutingPolicy", "pods", "ResolvedRefs") == ("False", "TierNotFound")


def test_a_policy_without_tiers_at_any_level_says_that_no_call_has_anywhere_to_go() -> None:
    result = compiled(pod(), routing(rules=[]))
    spec = policy_of(result).routing
    assert spec is not None and (spec.tiers, spec.default_tier) == ((), "")
    assert condition(result, "RoutingPolicy", "route", "ResolvedRefs") == ("False", "TiersNotFound")


# --- prices ---------------------------------------------------------------------------------------------


def test_a_model_that_nobody_prices_is_named_and_own_prices_cure_it() -> None:
    policy = routing(**section(tiers={"only": "made-up-1"}))
    result = compiled(pod(), provider(), policy)
    assert condition(result, "RoutingPolicy", "route", "Priced") == ("False", "ModelUnpriced")
    text = message(result, "RoutingPolicy", "route", "Priced")
    assert "'made-up-1'" in text and "spec.prices" in text
    price = {"model": "made-up-1", "currency": "USD", "inputPerMillion": "1", "outputPerMillion": "2"}
    cured = compiled(pod(), provider(prices=[price]), policy)
    assert condition(cured, "RoutingPolicy", "route", "Priced") == ("True", "Priced")


def test_a_tier_that_costs_more_than_a_stronger_one_is_called_dominated() -> None:
    upside_down = compiled(pod(), provider(), routing(**section(tiers={"weak": "gpt-5", "strong": "gpt-5-nano"})))
    assert condition(upside_down, "RoutingPolicy", "route", "Priced") == ("False", "TierDominated")
    assert "'strong'" in message(upside_down, "RoutingPolicy", "route", "Priced")
    in_order = compiled(pod(), provider(), routing(**section(tiers={"weak": "gpt-5-nano", "strong": "gpt-5"})))
    assert condition(in_order, "RoutingPolicy", "route", "Priced") == ("True", "Priced")


def test_a_tier_that_is_cheaper_in_one_direction_is_not_dominated() -> None:
    def price(model: str, into: str, out: str) -> dict[str, str]:
        return {"model": model, "currency": "USD", "inputPerMillion": into, "outputPerMillion": out}

    prices = [price("a", "5", "1"), price("b", "1", "5")]
    result = compiled(pod(), provider(prices=prices), routing(**section(tiers={"weak": "a", "strong": "b"})))
    assert condition(result, "RoutingPolicy", "route", "Priced") == ("True", "Priced")


def test_a_limit_in_a_currency_that_no_model_is_priced_in_is_called_a_mismatch() -> None:
    limit = {"name": "m", "currency": "EUR", "amount": 5, "window": {"type": "Calendar", "period": "Month"}}
    result = compiled(pod(), provider(), routing(), budget(limits=[limit]))
    assert condition(result, "ModelBudget", "team", "Priced") == ("False", "CurrencyMismatch")
    assert "'EUR'" in message(result, "ModelBudget", "team", "Priced")


def test_the_price_list_follows_the_host_and_else_the_dialect() -> None:
    hosts = {
        "https://api.deepseek.com": "deepseek",
        "https://api.openai.com.example/v1": "openai",
        "https://gateway.example/v1": "openai",
    }
    for url, expected in hosts.items():
        policy = policy_of(compiled(pod(), provider(baseURL=url), routing()))
        assert [each.price_list for each in policy.providers] == [expected], url
    anthropic = policy_of(compiled(pod(), provider("openai", "Anthropic"), routing()))
    assert [each.price_list for each in anthropic.providers] == ["anthropic"]


def test_own_prices_are_exact_and_what_is_left_out_is_not_free() -> None:
    prices = [
        {"model": "plain", "currency": "USD", "inputPerMillion": "0.05", "outputPerMillion": 0},
        {
            "model": "whole",
            "currency": "EUR",
            "inputPerMillion": "1.000000001",
            "outputPerMillion": "2",
            "cacheReadPerMillion": "0",
            "cacheWritePerMillion": "3",
            "cacheWriteOneHourPerMillion": "4",
            "contextTokens": 1000,
            "maxOutputTokens": 100,
        },
        {"model": "gpt-5", "currency": "USD", "inputPerMillion": "1", "outputPerMillion": "2"},
        {
            "model": "dear-writes",
            "currency": "USD",
            "inputPerMillion": "1",
            "outputPerMillion": "2",
            "cacheWritePerMillion": "3",
        },
    ]
    policy = policy_of(compiled(pod(), provider(prices=prices), routing()))
    by_model = {price.model: price for price in policy.providers[0].prices}
    plain, whole = by_model["plain"].rows[0].prices, by_model["whole"].rows[0].prices
    assert (plain.input, plain.output) == (50_000_000, 0)
    assert plain.cache_read == plain.cache_write == plain.cache_write_long == 50_000_000
    assert (whole.input, whole.cache_read, whole.cache_write, whole.cache_write_long) == (
        1_000_000_001,
        0,
        3_000_000_000,
        4_000_000_000,
    )
    assert (by_model["whole"].currency, by_model["whole"].context_tokens) == ("EUR", 1000)
    # A negotiated price does not change how large a call can be.
    assert (by_model["gpt-5"].context_tokens, by_model["gpt-5"].max_output_tokens) == (400_000, 128_000)
    anthropic = policy_of(compiled(pod(), provider("openai", "Anthropic", prices=prices), routing()))
    long = {price.model: price.rows[0].prices.cache_write_long for price in anthropic.providers[0].prices}
    assert (long["plain"], long["dear-writes"]) == (100_000_000, 3_000_000_000)


# --- attachment without effect --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attachment", "field"),
    [
        ({"targetRefs": [{"kind": "Deployment", "name": "wbe"}]}, "Deployment/wbe"),
        ({"podSelector": {"matchLabels": {"app": "nobody"}}}, "spec.podSelector"),
    ],
)
def test_an_object_that_matches_no_workload_says_so(attachment: dict[str, Any], field: str) -> None:
    result = compiled(pod(), provider(), routing(**attachment, **section()))
    assert condition(result, "RoutingPolicy", "route", "Effective") == ("False", "NoMatchingWorkload")
    assert field in message(result, "RoutingPolicy", "route", "Effective")
    assert condition(result, "RoutingPolicy", "route", "Accepted") == ("True", "Accepted")


def test_an_object_without_pods_is_still_examined() -> None:
    result = compiled(routing(**section(to="missing")))
    assert condition(result, "RoutingPolicy", "route", "ResolvedRefs") == ("False", "ProviderNotFound")


def test_a_provider_that_no_policy_names_says_so() -> None:
    result = compiled(pod(), provider(), provider("spare"), routing())
    assert condition(result, "ModelProvider", "spare", "Effective") == ("False", "NoMatchingWorkload")
    assert condition(result, "ModelProvider", "openai", "Effective") == ("True", "Effective")


def test_workloads_are_counted_by_topmost_owner_not_by_pod() -> None:
    result = compiled(pod("web-1"), pod("web-2"), pod("bare", deployment=""), budget())
    assert counts(result, "ModelBudget", "team") == (2, 2)


# --- what is not valid ----------------------------------------------------------------------------------


def test_a_rejected_edit_keeps_the_last_valid_meaning_in_force() -> None:
    good, bad = budget(amount="5", generation=1), budget(amount="not money", generation=2)
    before, after = compiled(pod(), good), compiled(pod(), good, bad)
    assert policy_of(after).budgets == policy_of(before).budgets
    assert condition(after, "ModelBudget", "team", "Accepted") == ("False", "Invalid")
    text = message(after, "ModelBudget", "team", "Accepted")
    assert "spec.limits[0].amount" in text and "'not money'" in text and "Generation 1 stays in force" in text
    found = after.policy_of("uid-web-1")
    assert found is not None and found.unverifiable == frozenset()
    assert next(iter(after.verdicts.values())).generation == 2


def test_a_budget_that_never_was_valid_refuses_and_is_named_unverifiable() -> None:
    result = compiled(pod(), budget(amount="nonsense"))
    found = result.policy_of("uid-web-1")
    assert found is not None
    assert found.unverifiable == {"team-a/team"}
    limit = found.policy.budgets[0].limits[0]
    assert (found.policy.budgets[0].mode, limit.unit, limit.amount) == ("Enforce", "Requests", 0)
    assert "refused until this is corrected" in message(result, "ModelBudget", "team", "Accepted")
    assert result.budgets == {}


def test_an_unreadable_budget_refuses_only_where_it_is_readably_attached() -> None:
    bad = budget(amount="nonsense", podSelector={"matchLabels": {"app": "web"}})
    result = compiled(pod("web-1"), pod("other-1", app="other"), bad)
    assert len(policy_of(result, "web-1").budgets) == 1
    assert policy_of(result, "other-1").budgets == ()
    worse = budget(podSelector={"matchLabels": {"app": "web"}}, targetRefs=[{"kind": "Deployment", "name": "web"}])
    everywhere = compiled(pod("other-1", app="other"), worse)
    assert len(policy_of(everywhere, "other-1").budgets) == 1
    observed = compiled(pod(), budget(amount="nonsense", mode="Observe"))
    assert policy_of(observed).budgets[0].mode == "Observe"


def test_the_books_memory_stands_in_for_a_budget_that_is_unreadable_since_the_start() -> None:
    limit = LimitSpec(name="monthly", currency="USD", amount=5 * 10**9, window=WindowSpec(period="Month"))
    known = {"team-a/team": BudgetSpec(name="team-a/team", limits=(limit,))}
    index = indexed(pod(), budget(amount="nonsense", generation=9))
    result = compile_index(index, SETTINGS, load_prices(), remembered=known)
    found = result.policy_of("uid-web-1")
    assert found is not None
    assert found.policy.budgets == (known["team-a/team"],)
    assert found.unverifiable == frozenset()
    assert "last validly meant stays in force" in message(result, "ModelBudget", "team", "Accepted")
    index.add(budget(amount="7", generation=10))
    cured = compile_index(index, SETTINGS, load_prices(), result, remembered=known)
    assert policy_of(cured).budgets[0].limits[0].amount == 7 * 10**9


def test_a_changed_meaning_of_a_limit_is_refused_where_no_api_server_does_it() -> None:
    window = {"type": "Calendar", "period": "Day"}
    limit = {"name": "monthly", "currency": "USD", "amount": "5", "window": window}
    result = compiled(pod(), budget(amount="5"), budget(limits=[limit], generation=2))
    assert condition(result, "ModelBudget", "team", "Accepted") == ("False", "Invalid")
    assert policy_of(result).budgets[0].limits[0].window.period == "Month"


def test_an_invalid_routing_policy_that_never_was_valid_has_no_effect() -> None:
    result = compiled(pod(), provider(), made("RoutingPolicy", "route", {**section(), "defaultTier": "none"}))
    assert policy_of(result).routing is None
    assert condition(result, "RoutingPolicy", "route", "Accepted") == ("False", "Invalid")
    assert "no effect" in message(result, "RoutingPolicy", "route", "Accepted")


def test_a_divided_limit_needs_a_sidecar_that_divides() -> None:
    """An older sidecar refuses the policy as a whole instead of counting all users as one."""
    window = {"type": "Calendar", "period": "Month"}
    limit = {"name": "each", "currency": "USD", "amount": 5, "window": window}
    parts = [{"type": "User"}, {"type": "Header", "name": "x-tenant"}]

    plain = policy_of(compiled(pod(), budget(limits=[limit])))
    divided = policy_of(compiled(pod(), budget(limits=[{**limit, "per": parts, "maxValues": 7}])))

    assert plain.requires == ("budgets/1",)
    assert divided.requires == ("budgets/1", "budgets/2")
    (spec,) = divided.budgets[0].limits
    assert [(part.type, part.name) for part in spec.per] == [("User", ""), ("Header", "x-tenant")]
    assert spec.max_values == 7


def test_a_divided_limit_has_a_thousand_values_where_it_does_not_say() -> None:
    """The documented default, which no schema writes into stored objects."""
    limit = {"name": "each", "currency": "USD", "amount": 5, "window": {"type": "Calendar", "period": "Month"}}
    divided = policy_of(compiled(pod(), budget(limits=[{**limit, "per": [{"type": "User"}]}])))
    assert divided.budgets[0].limits[0].max_values == 1000


def test_overrides_go_with_their_limit_the_first_to_end_first() -> None:
    """In the limit's unit and in unix seconds, whatever zone they were written in."""
    window = {"type": "Calendar", "period": "Month"}
    limits = [
        {"name": "calls", "unit": "Requests", "amount": 5, "window": window},
        {"name": "monthly", "currency": "USD", "amount": 5, "window": window},
    ]
    made = {"from": "2026-12-01T01:00:00+01:00", "reason": "r"}
    overrides = [
        {"name": "a", "limit": "monthly", "increase": "0.5", "until": "2026-12-03T00:00:00Z", **made},
        {"name": "b", "limit": "monthly", "increase": 2, "until": "2026-12-02T00:00:00Z", **made},
        {"name": "c", "limit": "calls", "increase": 7, "until": "2026-12-02T00:00:00Z", **made},
    ]

    policy = policy_of(compiled(pod(), budget(limits=limits, overrides=overrides)))

    assert policy.requires == ("budgets/1", "budgets/2")
    calls, monthly = policy.budgets[0].limits
    assert [(each.name, each.amount) for each in monthly.overrides] == [("b", 2 * 10**9), ("a", 5 * 10**8)]
    assert [(each.name, each.amount, each.starts, each.ends) for each in calls.overrides] == [
        ("c", 7, 1_796_083_200, 1_796_169_600)
    ]
