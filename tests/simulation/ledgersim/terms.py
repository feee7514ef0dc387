"""
What policy says in a history: amounts, prices, and the budgets and limits that there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from msgspec.structs import replace

from spendmesh_sidecar.core.specs import (
    BudgetSpec,
    LimitSpec,
    ModelPattern,
    ModelPrice,
    PerSpec,
    PriceRow,
    ProviderSpec,
    RetrySpec,
    RoutingSpec,
    TargetSpec,
    TierSpec,
    TokenPrices,
    WindowSpec,
)
from spendmesh_sidecar.policy import Policy

MODEL, PROVIDER = "m", "p"
MAX_OUTPUT_TOKENS = 600
GROUPS = ("a", "b")


@dataclass(frozen=True)
class Terms:
    """What policy says at a moment: amounts, prices, and which budgets there are."""

    amounts: tuple[tuple[str, int], ...]
    input_price: int = 1
    output_price: int = 3
    deleted: frozenset[str] = frozenset()
    moved: frozenset[int] = frozenset()
    """Pods that were moved to the other group."""
    observed: frozenset[str] = frozenset()
    rolling_seconds: int = 0
    """Length of the organisation's window, if it rolls instead of being a day."""
    max_values: int = 0
    """Team a has a limit for each user, which opens so many accounts of their own; 0: it has none."""


@lru_cache(maxsize=256)
def budgets(terms: Terms, zone: str) -> Mapping[str, BudgetSpec]:
    """All budgets that there are, by name."""
    amounts = dict(terms.amounts)
    day, hour = WindowSpec(period="Day", time_zone=zone), WindowSpec(period="Hour", time_zone=zone)

    def money(amount: int, window: WindowSpec) -> LimitSpec:
        return LimitSpec(name="money", currency="USD", amount=amount, window=window)

    if terms.rolling_seconds:
        day = WindowSpec(type="Rolling", duration_seconds=terms.rolling_seconds)
    found = {"org/all": BudgetSpec(name="org/all", limits=(money(amounts["org"], day),), mode=_mode(terms, "org"))}
    calls = LimitSpec(name="calls", unit="Requests", amount=amounts["calls"], window=hour)
    for group in GROUPS:
        name = f"team-{group}/team"
        limits = (money(amounts[f"team-{group}"], hour), calls) if group == "a" else (money(amounts["team-b"], hour),)
        if group == "a" and terms.max_values:
            each = replace(
                money(amounts["each"], hour), name="each", per=(PerSpec(type="User"),), max_values=terms.max_values
            )
            limits = (*limits, each)
        found[name] = BudgetSpec(name=name, limits=limits)
    return {name: spec for name, spec in found.items() if name not in terms.deleted}


def _mode(terms: Terms, name: str) -> str:
    return "Observe" if name in terms.observed else "Enforce"


def group_of(terms: Terms, pod: int) -> str:
    """Which team's budget a pod matches."""
    return GROUPS[(pod + (pod in terms.moved)) % 2]


def policy_of(terms: Terms, zone: str, group: str) -> Policy:
    """The compiled policy of a group's pods."""
    known = budgets(terms, zone)
    matching = tuple(known[name] for name in ("org/all", f"team-{group}/team") if name in known)
    million = 10**6
    per_input = terms.input_price * million
    prices = TokenPrices(
        input=per_input,
        output=terms.output_price * million,
        cache_read=per_input,
        cache_write=per_input,
        cache_write_long=per_input,
    )
    price = ModelPrice(
        model=MODEL, currency="USD", rows=(PriceRow(prices=prices),), max_output_tokens=MAX_OUTPUT_TOKENS
    )
    provider = ProviderSpec(
        alias=PROVIDER, ref="sim/p", dialect="OpenAI", base_url="https://p.example/v1", prices=(price,)
    )
    target = TargetSpec(name="only", provider=PROVIDER, model=MODEL)
    return Policy(
        cluster="sim",
        namespace=f"team-{group}",
        price_table="0" * 64,
        providers=(provider,),
        routing=RoutingSpec(
            name="sim/routing@1",
            tiers=(TierSpec(name="only", targets=(target,)),),
            default_tier="only",
            models=(ModelPattern(pattern="auto"),),
        ),
        budgets=matching,
        retry=RetrySpec(name="sim/retry", budget_percent=100, min_retry_count=10, backoff_ms=50, max_backoff_ms=500),
    )
