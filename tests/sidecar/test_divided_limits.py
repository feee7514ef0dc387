"""Divided limits and overrides through the whole: control server, sidecar, SDK, a provider with its own invoice."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from sidecar_beside import chat
from sidecar_manifests import budget, manifest
from sidecar_world import World

pytestmark = pytest.mark.anyio
MONTH = {"type": "Calendar", "period": "Month", "timeZone": "Europe/Berlin"}


def divided(*per: dict[str, str], amount: str = "0.003", **more: Any) -> dict[str, Any]:
    whole = {"name": "monthly", "currency": "USD", "amount": "100.00", "window": MONTH}
    each = {"name": "each", "currency": "USD", "amount": amount, "window": MONTH, "per": list(per), **more}
    return manifest("ModelBudget", "team", {"limits": [whole, each]})


async def call(world: World, **headers: str) -> Any:
    words = {name.replace("_", "-"): value for name, value in headers.items()}
    create = world.openai.chat.completions.with_raw_response.create
    return await create(**chat("[[out=100]]", max_tokens=150), extra_headers=words)


async def exhaust(world: World, **headers: str) -> openai.APIStatusError:
    for _ in range(100):
        try:
            await call(world, **headers)
        except openai.APIStatusError as error:
            if error.code != "budget_in_flight":
                return error
            await world.sidecar.plane.leases.report()  # what is in flight is our own use, which is news
    raise AssertionError("100 calls did not empty the limit")


async def test_one_users_end_is_not_anothers_and_every_unit_is_in_the_books(empty_world: World) -> None:
    """402 for the one, 200 for the other; both limits hold the same sum as the invoice; no value is to be seen."""
    world = await empty_world.start(divided({"type": "User"}))
    error = await exhaust(world, x_spendmesh_user="ana@example.com")
    assert (error.status_code, error.code) == (402, "budget_exceeded")
    assert "team-a/team/each" in error.message and "ana" not in error.message
    answer = await call(world, x_spendmesh_user="ben")
    assert answer.headers["x-spendmesh-budget-remaining"].endswith("; team-a/team/each")
    await call(world)
    shown = repr(await world.status()) + repr(await world.metrics())
    assert "ana@" not in shown and "ben" not in shown
    await world.stop_sidecar()
    accounts = {view.key.per: view for view in world.control.coordinator.views()}
    assert set(accounts) == {(), ("ana@example.com",), ("ben",), ("other",)}
    assert sum(view.state.settled for per, view in accounts.items() if per) == world.invoice_nanos
    assert accounts[()].state.settled == world.invoice_nanos
    assert all(view.state.charged == view.state.settled <= view.limit.amount for view in accounts.values())


async def test_a_header_divides_and_stays_here_and_is_read_strictly(empty_world: World) -> None:
    world = await empty_world.start(divided({"type": "Header", "name": "x-tenant"}, {"type": "Namespace"}))
    await call(world, x_tenant="acme")
    assert all("x-tenant" not in seen.headers for seen in world.provider_requests())
    with pytest.raises(openai.BadRequestError) as refused:
        await call(world, x_tenant="a" * 10_240)
    assert (refused.value.code, refused.value.param) == ("request_invalid", "x-tenant")
    await world.stop_sidecar()
    assert {view.key.per for view in world.control.coordinator.views()} == {(), ("acme", "team-a")}


async def test_values_beyond_the_bound_share_one_account(empty_world: World) -> None:
    """The coordinator says so, the sidecar follows, and nothing is lost on the way."""
    world = await empty_world.start(divided({"type": "User"}, amount="1.00", maxValues=4))
    for number in range(8):
        await call(world, x_spendmesh_user=f"user-{number}")
    await world.stop_sidecar()
    accounts = {view.key.per: view.state.settled for view in world.control.coordinator.views()}
    assert set(accounts) == {(), ("user-0",), ("user-1",), ("other",)}
    assert accounts["other",] > 2 * max(accounts["user-0",], accounts["user-1",])
    assert accounts[()] == world.invoice_nanos


async def test_a_limit_may_be_divided_while_calls_run(empty_world: World) -> None:
    """A new divided limit acts as soon as the sidecar has it, without a restart."""
    world = await empty_world.start(budget("100.00"))
    await call(world, x_spendmesh_user="ana")
    await world.apply(divided({"type": "User"}))
    await world.programmed()
    assert (await exhaust(world, x_spendmesh_user="ana")).code == "budget_exceeded"
    await call(world, x_spendmesh_user="ben")


async def test_an_override_is_spent_to_its_end_before_the_limit_and_both_are_the_invoice(empty_world: World) -> None:
    """Two accounts, one answer: 402 only when both are empty, and what is left counts both."""
    limit = {"name": "monthly", "currency": "USD", "amount": "0.004", "window": MONTH}
    always = {"from": "2020-01-01T00:00:00Z", "until": "2999-01-01T00:00:00Z", "reason": "launch week"}
    override = {"name": "launch", "limit": "monthly", "increase": "0.006", **always}
    world = await empty_world.start(manifest("ModelBudget", "team", {"limits": [limit], "overrides": [override]}))
    first = await call(world)
    assert first.headers["x-spendmesh-budget-remaining"] > "0.009"
    error = await exhaust(world)
    assert (error.status_code, error.code) == (402, "budget_exceeded")
    await world.stop_sidecar()
    books = world.control.coordinator.books.holdings.accounts
    settled = {key.override: account.settled for key, account in books.items()}
    assert settled[""] + settled["launch"] == world.invoice_nanos
    assert 0.9 * 6_000_000 <= settled["launch"] <= 6_000_000
    assert 0.5 * 4_000_000 <= settled[""] <= 4_000_000
    assert world.account().state.settled == world.invoice_nanos
