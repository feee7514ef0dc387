"""A namespace's own price cannot make a budget of the organisation cheaper (contract §4)."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import CONNECT, OPENAI, USD, World, budget, chat, failure, limit, policy, price, success
from spendmesh_sidecar.core.ledger.charges import Subject
from spendmesh_sidecar.core.needs import needs_of
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.specs import BudgetSpec, ListedModel, ModelMatch, ModelPrice, PriceList
from spendmesh_sidecar.core.types import Kind, Outcome

ORG = replace(budget(limit("monthly", 10 * USD), name="spendmesh-system/org"), organisation=True)
TEAM = budget(limit("monthly", 10 * USD))
BUILT_IN = price("medium-1", 4, 16)
OWN_IS = {"cheaper": price("medium-1", 1, 2), "dearer": price("medium-1", 8, 32), "free": price("medium-1", 0, 0)}


def world(own: ModelPrice, *budgets: BudgetSpec, platform: bool = False, listed: ModelPrice | None = BUILT_IN) -> World:
    provider = replace(OPENAI, prices=(own,), price_list="openai", platform=platform)
    mesh = World(policy(providers=(provider,), budgets=budgets or (ORG, TEAM)))
    models = (ListedModel(match=ModelMatch(equals=("medium-1",)), price=listed),) if listed else ()
    mesh.pricing = Pricing((PriceList(id="openai", models=models),), "test prices 1")
    return mesh


def charged(mesh: World) -> tuple[int, int]:
    """What organisation and team are charged."""
    return mesh.used(budget_name="spendmesh-system/org"), mesh.used(budget_name="team-a/team")


def cost(of: ModelPrice, input_tokens: int, output_tokens: int) -> int:
    prices = of.rows[0].prices
    return (prices.input * input_tokens + prices.output * output_tokens) // 10**6


@pytest.mark.parametrize("own", OWN_IS.values(), ids=OWN_IS.keys())
def test_the_organisation_is_charged_the_dearer_and_the_namespace_its_own_price(own: ModelPrice) -> None:
    """Settled from the same usage."""
    mesh = world(own)
    mesh.run(chat("medium-1"), [success(500, 50)])
    mine, built_in = cost(own, 500, 50), cost(BUILT_IN, 500, 50)
    assert charged(mesh) == (max(mine, built_in), mine)


@pytest.mark.parametrize("own", OWN_IS.values(), ids=OWN_IS.keys())
def test_the_worst_case_is_reserved_likewise(own: ModelPrice) -> None:
    """What may be settled must be held."""
    mesh = world(own)
    exchange = mesh.sent(chat("medium-1", maximum=100))
    mine, built_in = cost(own, 1_000, 100), cost(BUILT_IN, 1_000, 100)
    held = {
        ref.budget: lease.held for ref, account in mesh.ledger.accounts.items() for lease in account.leases.values()
    }
    assert held.get("spendmesh-system/org", 0) == max(mine, built_in)
    assert held.get("team-a/team", 0) == mine
    exchange.close(mesh.now)


def test_an_unknown_end_settles_at_the_dearer_worst_case() -> None:
    """Nobody saw what it used."""
    mesh = world(OWN_IS["cheaper"])
    exchange = mesh.sent(chat("medium-1", maximum=100))
    exchange.observe(Outcome(Kind.CUT, 200, committed=True, output_bytes=10), mesh.now, 1_790_000_000)
    exchange.close(mesh.now)
    org, team = charged(mesh)
    assert org > team > 0
    assert org <= cost(BUILT_IN, 1_000, 100)


def test_a_failure_that_is_not_billed_costs_neither_anything() -> None:
    mesh = world(OWN_IS["cheaper"])
    mesh.run(chat("medium-1"), [CONNECT, failure(401)])
    assert charged(mesh) == (0, 0)


def test_the_platforms_own_price_counts_as_it_is() -> None:
    """Who owns the organisation's budget may have negotiated a price."""
    mesh = world(OWN_IS["cheaper"], platform=True)
    mesh.run(chat("medium-1"), [success(500, 50)])
    assert charged(mesh) == (cost(OWN_IS["cheaper"], 500, 50),) * 2


def test_without_a_built_in_price_the_own_one_is_all_there_is() -> None:
    mesh = world(OWN_IS["cheaper"], listed=None)
    mesh.run(chat("medium-1"), [success(500, 50)])
    assert charged(mesh) == (cost(OWN_IS["cheaper"], 500, 50),) * 2


def test_a_built_in_price_in_another_currency_is_no_comparison() -> None:
    """Nothing is converted."""
    mesh = world(OWN_IS["cheaper"], listed=price("medium-1", 4, 16, currency="EUR"))
    mesh.run(chat("medium-1"), [success(500, 50)])
    assert charged(mesh) == (cost(OWN_IS["cheaper"], 500, 50),) * 2


def test_an_observed_budget_of_the_organisation_records_the_dearer_too() -> None:
    """What it would have counted."""
    mesh = world(OWN_IS["cheaper"], replace(ORG, mode="Observe"), TEAM)
    mesh.run(chat("medium-1"), [success(500, 50)])
    [observed] = [account for ref, account in mesh.ledger.accounts.items() if ref.budget == ORG.name]
    recorded = observed.debt.unleased + sum(lease.used for lease in observed.leases.values())
    assert recorded == cost(BUILT_IN, 500, 50)


def test_the_span_of_an_attempt_has_the_price_that_is_paid() -> None:
    """The comparison is for the budget; the bill is the provider's."""
    [settlement] = world(OWN_IS["cheaper"]).run(chat("medium-1"), [success(500, 50)]).exchange.decision.settlements
    assert settlement.cost_nanos == cost(OWN_IS["cheaper"], 500, 50)


def test_no_second_price_is_looked_up_where_no_budget_of_the_organisation_counts_the_call() -> None:
    """It would only cost time."""
    scoped = replace(ORG, limits=(replace(limit("monthly", 10 * USD), models=("large-*",)),))
    for budgets, listed in (((TEAM,), False), ((scoped, TEAM), False), ((ORG,), True)):
        found = needs_of(budgets, Subject("medium-1", OPENAI.ref), "USD")
        assert found.listed is listed
