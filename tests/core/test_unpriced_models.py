"""`unpricedModels`: a call without a price is refused, or passes a limit in money uncounted and is told of."""

from __future__ import annotations

from msgspec.structs import replace

from exchange_world import OPENAI, USD, World, budget, chat, limit, policy, price, success
from spendmesh_sidecar.core.ledger.charges import Subject, uncounted
from spendmesh_sidecar.core.specs import BudgetSpec, ProviderSpec
from spendmesh_sidecar.telemetry.metrics import Metrics

FREE = ProviderSpec(alias="free", ref="team-a/free", dialect="OpenAI", base_url="https://four.example/v1")
LENIENT = replace(budget(limit("monthly", 10 * USD)), unpriced_models="Allow")


def world(*budgets: BudgetSpec, provider: ProviderSpec = FREE) -> World:
    return World(policy(budgets=budgets, providers=(provider, OPENAI)))


def test_deny_is_the_default() -> None:
    """Unknown is not free."""
    assert world(budget(limit("monthly", 10 * USD))).run(chat("any-1")).code == "model_unpriced"


def test_allow_lets_it_pass_uncounted_and_unchanged() -> None:
    """Nothing is charged, and no output maximum is injected for a sum that nobody can reckon."""
    mesh = world(LENIENT)
    run = mesh.run(chat("any-1", maximum=None), [success()])
    assert (run.code, run.attempts[0].max_output_tokens, mesh.used()) == ("", None, 0)


def test_allow_still_counts_what_has_a_price() -> None:
    """It is about models without one."""
    mesh = world(LENIENT, provider=OPENAI)
    mesh.run(chat("medium-1"), [success(500, 50)])
    assert mesh.used() == 500 * 2_000 + 50 * 8_000


def test_allow_still_refuses_fields_that_a_price_does_not_cover() -> None:
    """A priced model with an unpriced field is not an unpriced model."""
    request = chat("medium-1", unpriced_fields=("web_search_options",))
    assert world(LENIENT, provider=OPENAI).run(request).code == "field_not_allowed"
    assert world(LENIENT).run(replace(request, model="any-1"), [success()]).code == ""


def test_the_strictest_budget_decides() -> None:
    """One that allows does not speak for one that denies."""
    strict = budget(limit("monthly", 10 * USD), name="team-a/strict")
    assert world(LENIENT, strict).run(chat("any-1")).code == "model_unpriced"


def test_other_limits_still_count() -> None:
    """Tokens need no price."""
    mesh = world(
        replace(budget(limit("monthly", USD), limit("tokens", 10_000, "TotalTokens")), unpriced_models="Allow")
    )
    mesh.run(chat("any-1"), [success(500, 50)])
    assert (mesh.used("monthly"), mesh.used("tokens")) == (0, 550)


def test_a_price_in_another_currency_is_none_for_the_limit() -> None:
    """Nothing is converted, so it passes uncounted as well."""
    euros = replace(FREE, prices=(price("any-1", 1, 1, currency="EUR"),))
    mesh = world(LENIENT, provider=euros)
    assert mesh.run(chat("any-1"), [success()]).code == ""
    assert mesh.used() == 0


def test_what_passed_uncounted_is_told_by_a_metric() -> None:
    """With the limit that let it pass."""
    mesh = world(LENIENT)
    [settlement] = mesh.run(chat("any-1"), [success()]).exchange.decision.settlements
    assert settlement.uncounted == ("team-a/team/monthly",)
    metrics = Metrics()
    metrics.settled(settlement)
    assert (
        b'spendmesh_uncounted_attempts_total{provider="free",model="any-1",limit="team-a/team/monthly"} 1'
        in metrics.render({})
    )


def test_only_enforced_limits_in_money_that_count_it_let_it_pass() -> None:
    subject = Subject("any-1", "team-a/free")
    tokens = replace(budget(limit("tokens", 9, "TotalTokens")), unpriced_models="Allow")
    other = replace(budget(replace(limit("some", 9), models=("gpt-*",))), unpriced_models="Allow")
    observed = replace(LENIENT, mode="Observe")
    assert uncounted((tokens, other, observed, budget(limit("strict", 9))), "", subject) == ()
    assert uncounted((LENIENT,), "USD", subject) == ()
