"""What prices say about a routing: models that nobody prices, tiers that cost more than stronger ones. Advice only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from spendmesh_operator.compile.model import Finding
from spendmesh_operator.compile.providers import price_of
from spendmesh_operator.prices import BuiltInPrices
from spendmesh_sidecar.core.prices.money import format_nanos
from spendmesh_sidecar.core.specs import ModelPrice, ProviderSpec, RoutingSpec, TierSpec, TokenPrices

_Priced = list[tuple[str, TokenPrices]]
"""(currency, prices) of a tier's first choices."""


def price_findings(
    routing: RoutingSpec, providers: Mapping[str, ProviderSpec], prices: BuiltInPrices
) -> Iterator[Finding]:
    """Everything about the prices of a routing that its author should know."""
    for tier in routing.tiers:
        for target in tier.targets:
            if target.provider in providers and price_of(providers[target.provider], target.model, prices) is None:
                yield _unpriced(tier, target.name, target.model, providers[target.provider])
    costs = [_first_choices(tier, providers, prices) for tier in routing.tiers]
    for weaker, tier in enumerate(routing.tiers):
        for stronger in range(weaker + 1, len(routing.tiers)):
            if _dominated(costs[weaker], costs[stronger]):
                yield _dominance(tier, routing.tiers[stronger], costs[weaker], costs[stronger])
                break


class TargetPrice(NamedTuple):
    """In which currency a target of a routing is priced."""

    model: str
    provider: str
    """`namespace/name`."""
    currency: str
    """Empty: nobody prices it."""


def target_prices(
    routing: RoutingSpec | None, providers: Mapping[str, ProviderSpec], prices: BuiltInPrices
) -> frozenset[TargetPrice]:
    """The targets of a routing whose provider is known."""
    found: set[TargetPrice] = set()
    for target in (target for tier in (routing.tiers if routing else ()) for target in tier.targets):
        provider = providers.get(target.provider)
        if provider is not None:
            price = price_of(provider, target.model, prices)
            found.add(TargetPrice(target.model, provider.ref, price.currency if price else ""))
    return frozenset(found)


def _first_choices(tier: TierSpec, providers: Mapping[str, ProviderSpec], prices: BuiltInPrices) -> _Priced:
    lowest = min((target.priority for target in tier.targets), default=0)
    choices: _Priced = []
    for target in tier.targets:
        provider = providers.get(target.provider)
        if target.priority != lowest or provider is None:
            continue
        price = price_of(provider, target.model, prices)
        if price is None:
            return []
        choices.append((price.currency, _ordinary(price, prices.table.date)))
    return choices


def _ordinary(price: ModelPrice, date: str) -> TokenPrices:
    """The price of a short standard call on the day of the table: a clock would make equal input unequal."""
    day = int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp())
    rows = [row for row in price.rows if row.service_tier == "standard" and row.above_input_tokens == 0]
    begun = [row for row in rows if row.since <= day] or rows
    return max(begun, key=lambda row: row.since).prices


def _dominated(weaker: _Priced, stronger: _Priced) -> bool:
    """Whether every first choice of the stronger tier costs no more than any of the weaker one, by input and output."""
    if not weaker or not stronger or len({currency for currency, _ in (*weaker, *stronger)}) > 1:
        return False
    return all(
        cheap.input >= strong.input and cheap.output >= strong.output for _, cheap in weaker for _, strong in stronger
    )


def _unpriced(tier: TierSpec, target: str, model: str, provider: ProviderSpec) -> Finding:
    return Finding(
        "Priced",
        "False",
        "ModelUnpriced",
        f"spec.tiers[{tier.name}].targets[{target}].model: {model!r}: neither ModelProvider {provider.ref} nor the "
        f"built-in price list {provider.price_list!r} prices it, so calls to it are refused under a Cost limit: add it "
        "to the ModelProvider's spec.prices, or check the name",
    )


def _dominance(tier: TierSpec, stronger: TierSpec, mine: _Priced, theirs: _Priced) -> Finding:
    return Finding(
        "Priced",
        "False",
        "TierDominated",
        f"spec.tiers[{tier.name}]: costs at least as much ({_shown(mine)}) as the stronger tier {stronger.name!r} "
        f"({_shown(theirs)}): order tiers from cheap to strong, or take {tier.name!r} out",
    )


def _shown(priced: _Priced) -> str:
    currency, prices = priced[0]
    shown = (format_nanos(nanos, currency, 3) for nanos in (prices.input, prices.output))
    return " in, ".join(shown) + " out per million tokens"
