"""Limits with `models` and `providers`: they take from, and ask about, only the attempts that they count."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from exchange_world import (
    BACKUP,
    OPENAI,
    USD,
    World,
    budget,
    chat,
    limit,
    policy,
    price,
    success,
    throttled,
)
from spendmesh_sidecar.core.ledger.charges import Quantities, Subject, charges, counts
from spendmesh_sidecar.core.needs import Needs, needs_of
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, ProviderSpec, Unit

NOTHING = Needs(frozenset(), money=False, output=False, tokens=False, any=False)
MEDIUM = Subject("medium-1", "team-a/openai")
UNPRICED = ProviderSpec(alias="free", ref="team-a/free", dialect="OpenAI", base_url="https://four.example/v1")


def scoped(name: str, amount: int = 10 * USD, unit: str = "Cost", **scope: tuple[str, ...]) -> LimitSpec:
    return replace(limit(name, amount, unit), **scope)


@pytest.mark.parametrize(
    ("models", "providers", "counted"),
    [
        ((), (), True),
        (("medium-1",), (), True),
        (("medium-*",), (), True),
        (("small-*", "medium-*"), (), True),
        (("small-*",), (), False),
        (("medium",), (), False),
        ((), ("team-a/openai",), True),
        ((), ("*/openai",), True),
        ((), ("team-b/openai",), False),
        ((), ("*/backup", "*/openai"), True),
        (("medium-*",), ("team-a/backup",), False),
        (("small-*",), ("team-a/openai",), False),
    ],
)
def test_a_limit_counts_what_all_of_its_lists_name(
    models: tuple[str, ...], providers: tuple[str, ...], counted: bool
) -> None:
    """An absent list names everything."""
    assert counts(scoped("a", models=models, providers=providers), MEDIUM) is counted


def test_what_is_not_counted_takes_nothing_and_raises_no_mismatch() -> None:
    """Not even for its currency."""
    budgets = (budget(scoped("small", models=("small-*",)), limit("requests", 5, "Requests")),)
    found = charges(budgets, Quantities(7, "EUR"), MEDIUM)
    assert [(charge.account.limit, charge.amount) for charge in found] == [("requests", 1)]


@pytest.mark.parametrize(
    ("unit", "amount"), [("Cost", 0), ("InputTokens", 0), ("OutputTokens", 0), ("TotalTokens", 0), ("Requests", 1)]
)
def test_an_attempt_of_which_nothing_is_known_is_one_request(unit: Unit, amount: int) -> None:
    assert [Quantities().in_unit(unit, dearer=dearer) for dearer in (False, True)] == [amount, amount]


def test_needs_are_those_of_the_limits_that_count() -> None:
    """A price for one model is not asked for because of a limit on another one."""
    budgets = (
        budget(scoped("small", models=("small-*",)), scoped("tokens", 9, "InputTokens", providers=("*/openai",))),
    )
    assert needs_of(budgets, MEDIUM, "USD") == Needs(frozenset(), money=False, output=False, tokens=True, any=True)
    assert needs_of(budgets, Subject("small-1", "team-a/backup"), "USD") == Needs(
        frozenset({"USD"}), money=True, output=True, tokens=False, any=True
    )
    assert needs_of(budgets, Subject("large-1", "team-a/backup"), "USD") == NOTHING


def world(*limits: LimitSpec, **changes: object) -> World:
    return World(policy(budgets=(budget(*limits),), **changes))


def test_a_call_is_charged_where_it_counts_and_nowhere_else() -> None:
    """Two limits of one budget, one call, one charge."""
    mesh = world(scoped("medium", models=("medium-*",)), scoped("large", models=("large-*",)))
    mesh.run(chat(), [success(500, 50)])
    assert (mesh.used("medium"), mesh.used("large")) == (500 * 2_000 + 50 * 8_000, 0)


def test_a_spent_limit_refuses_only_what_it_counts() -> None:
    """Other models go on."""
    mesh = world(scoped("medium", 1, models=("medium-*",)))
    assert mesh.run(chat("medium-1")).code == "request_exceeds_budget"
    assert mesh.run(chat("large-1"), [success()]).code == ""


def test_a_model_without_a_price_passes_where_no_cost_limit_counts_it() -> None:
    """And is refused where one does."""
    providers: tuple[ProviderSpec, ...] = (UNPRICED, OPENAI, BACKUP)
    limits = scoped("openai", providers=("team-a/openai",))
    assert world(limits, providers=providers).run(chat("any-1"), [success()]).code == ""
    assert world(scoped("all"), providers=providers).run(chat("any-1")).code == "model_unpriced"


def test_a_failover_target_is_charged_where_it_counts() -> None:
    """Each attempt is asked about on its own: the first went to one provider, the second to another."""
    openai, backup = scoped("openai", providers=("*/openai",)), scoped("backup", providers=("*/backup",))
    mesh = world(openai, backup)
    run = mesh.run(chat(), [throttled(90.0), success(500, 50)])
    assert run.models == ["openai/medium-1", "backup/medium-2"]
    assert mesh.used("openai") == 0  # a 429 is not billed
    assert mesh.used("backup") == 500 * 3_000 + 50 * 9_000


def test_where_unbudgeted_calls_are_denied_a_call_that_no_limit_counts_is_refused() -> None:
    """A budget for other models is none for this one."""
    mesh = world(scoped("small", models=("small-*",)), unbudgeted="Deny")
    run = mesh.run(chat())
    assert run.code == "policy_missing"
    assert "counts calls to openai/medium-1" in run.message


def test_what_is_left_is_told_of_limits_that_count_the_call() -> None:
    """The header speaks of the call that it answers."""
    mesh = world(scoped("large", USD // 10, models=("large-*",)), scoped("medium", models=("medium-*",)))
    first = mesh.run(chat("large-1"), [success(1_000, 100)])
    assert first.headers["x-spendmesh-budget-remaining"].endswith("team-a/team/large")
    run = mesh.run(chat(), [success(500, 50)])
    assert run.headers["x-spendmesh-budget-remaining"].endswith("team-a/team/medium")


def test_another_list_of_models_is_another_account() -> None:
    """Rights granted for some models are not spent on others."""
    mesh = world(scoped("some", models=("medium-*",)))
    mesh.run(chat(), [success()])
    mesh.ledger.set_budgets((budget(scoped("some", models=("large-*",))),), mesh.now)
    [account] = mesh.ledger.accounts.values()
    assert account.free(mesh.now) == 0


def observed(spec: BudgetSpec) -> BudgetSpec:
    return replace(spec, mode="Observe")


def test_an_observed_limit_asks_for_nothing() -> None:
    """Observing changes nothing, whatever it counts."""
    assert needs_of((observed(budget(scoped("a"))),), MEDIUM, "USD") == NOTHING


def test_prices_in_another_currency_matter_only_where_they_count() -> None:
    """A euro limit on one provider leaves calls to another in dollars alone."""
    euros = replace(limit("euros", 9 * USD), currency="EUR", providers=("team-a/backup",))
    assert world(euros).run(chat(), [success()]).code == ""
    dear = replace(BACKUP, prices=(price("medium-2", 3, 9, currency="EUR"),))
    mesh = world(euros, providers=(OPENAI, dear))
    mesh.run(chat(), [throttled(90.0), success(500, 50)])
    assert mesh.used("euros") == 500 * 3_000 + 50 * 9_000
