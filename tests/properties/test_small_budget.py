"""A small budget is worth something: one dollar serves what people really send."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from exchange_world import CHAT, UNIX, USD, World, budget, limit, policy, success
from fake_bank import Bank
from ledger_samples import acquire, limits_of
from spendmesh_operator.ledger.books.accounts import Holder
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.prices import load_table
from spendmesh_sidecar.core.ledger.rights import Denial, Lease, Want
from spendmesh_sidecar.core.operations import parse_request
from spendmesh_sidecar.core.prices.costs import Pricing
from spendmesh_sidecar.core.specs import BudgetSpec, ProviderSpec, RoutingSpec, TargetSpec, TierSpec

PICTURE = {"url": "data:image/png;base64," + "A" * 400_000}
REAL = ProviderSpec(
    alias="openai", ref="team-a/openai", dialect="OpenAI", base_url="https://one.example/v1", price_list="openai"
)


class BooksBank:
    """Our own books, for one sidecar."""

    def __init__(self, budget: BudgetSpec) -> None:
        self.books = Books("test")
        self.away = False
        self._limits = limits_of(budget)
        self._requests = 0

    def acquire(self, nonce: str, wants: tuple[Want, ...]) -> tuple[tuple[Lease, ...], tuple[Denial, ...]]:
        self._requests += 1
        request = acquire(f"{nonce}/{self._requests}", nonce, *wants)
        reply = self.books.acquire(Holder("uid", "team-a/pod", nonce), request, self._limits, UNIX * 1000)
        return reply.leases, reply.denials


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o", "gpt-4.1", "gpt-5", "gpt-5-mini", "o3", "gpt-4-turbo"])
def test_one_dollar_serves_a_request_without_a_maximum_and_with_a_picture(model: str) -> None:
    """The picture is bounded as one, not by its bytes, and the maximum that we put in shrinks to what a dollar buys."""
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": PICTURE}]
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}]}
    request = parse_request(CHAT, json.dumps(body).encode(), [])
    dollar = budget(limit("monthly", 1 * USD))
    only = TierSpec(name="only", targets=(TargetSpec(name="only", provider="openai", model=model),))
    routing = RoutingSpec(name="team-a/support@1", tiers=(only,), default_tier="only")
    world = World(policy(providers=(REAL,), routing=routing, budgets=(dollar,)))
    world.pricing = Pricing(load_table().lists)
    world.bank = cast(Bank, BooksBank(dollar))

    run = world.run(request, [success()])

    assert run.message == ""
    assert run.models == [f"openai/{model}"]
    assert 0 < world.used() < USD
