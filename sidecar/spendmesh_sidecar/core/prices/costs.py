"""
What a model's tokens cost: which price applies, the dearest a request can become, and what a usage came to.

Pure arithmetic over price rows; where the rows come from (a provider's own prices, the built-in table) is decided in
`Pricing`. Rights and reservations are the ledger's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec.structs import replace

from spendmesh_sidecar.core.once import once
from spendmesh_sidecar.core.prices.money import cost_nanos
from spendmesh_sidecar.core.prices.rows import (
    STANDARD as STANDARD,
    in_force,
    moments,
    possible,
    reached,
    serving,
)
from spendmesh_sidecar.core.specs import ListedModel, ModelPrice, PriceList, PriceRow, ProviderSpec, TokenPrices
from spendmesh_sidecar.core.types import Bounds, Usage

LASTING_SECONDS = 3_600
"""The latest end of a call after its start: six times the SDKs' own timeout of 600 s."""
MAX_CACHED_NAMES = 1_024
"""Model names come from clients: what is remembered about them must not grow with them."""

# What providers call the tier that has the plain price.
_TIER_NAMES = {"default": STANDARD, "auto": STANDARD, "on_demand": STANDARD, "standard_only": STANDARD}


class Pricing:
    """One price table, ready for look-ups. A model that is nowhere, or known but unpriced, has no price."""

    def __init__(self, lists: Iterable[PriceList], version: str = "") -> None:
        self.version = version
        self._lists = {prices.id: prices.models for prices in lists}
        self._found: dict[tuple[str, str], ModelPrice | None] = {}
        self._completed: dict[tuple[str, str], tuple[ModelPrice, ModelPrice]] = {}

    def resolve(self, provider: ProviderSpec, model: str) -> ModelPrice | None:
        """
        The provider's own price of exactly this model, else the built-in one.

        Service tiers that only the built-in price has are added to the own one, at the dearer of both: a project may
        be served by them without asking.
        """
        own = _by_model(provider.prices).get(model)
        if own is None or not own.rows:
            return self.listed(provider, model)
        key = (provider.alias, model)
        known = self._completed.get(key)
        if known is None or known[0] is not own:
            known = self._completed[key] = own, _with_tiers_of(self.listed(provider, model), own)
        return known[1]

    def listed(self, provider: ProviderSpec, model: str) -> ModelPrice | None:
        """The built-in price alone: the first entry of the provider's list that recognizes the name."""
        key = (provider.price_list, model)
        if key not in self._found:
            if len(self._found) >= MAX_CACHED_NAMES:
                del self._found[next(iter(self._found))]
            self._found[key] = self._look_up(*key)
        return self._found[key]

    def _look_up(self, list_id: str, model: str) -> ModelPrice | None:
        name = model.lower()
        entry = next((entry for entry in self._lists.get(list_id, ()) if _recognizes(entry, name)), None)
        return entry.price if entry is not None and entry.price.rows else None


@once
def _by_model(prices: tuple[ModelPrice, ...]) -> dict[str, ModelPrice]:
    return {price.model: price for price in reversed(prices)}  # of two, the first speaks


def _with_tiers_of(listed: ModelPrice | None, own: ModelPrice) -> ModelPrice:
    priced = {row.service_tier for row in own.rows}
    if listed is None or listed.currency != own.currency or STANDARD not in priced:
        return own
    added: list[PriceRow] = []
    for tier in sorted({row.service_tier for row in listed.rows} - priced):
        rows = [row for row in own.rows if row.service_tier == STANDARD]
        rows += [row for row in listed.rows if row.service_tier == tier]
        added += [
            PriceRow(
                prices=_dearer(_at(own, STANDARD, since, above), _at(listed, tier, since, above)),
                since=since,
                service_tier=tier,
                above_input_tokens=above,
            )
            for since in sorted({row.since for row in rows})
            for above in sorted({row.above_input_tokens for row in rows})
        ]
    return replace(own, rows=(*own.rows, *added))


def _at(price: ModelPrice, tier: str, since: int, above: int) -> TokenPrices:
    return reached(in_force(price, since)[tier], above + 1)[0].prices


def _dearer(one: TokenPrices, other: TokenPrices) -> TokenPrices:
    names = TokenPrices.__struct_fields__
    return TokenPrices(**{name: max(getattr(one, name), getattr(other, name)) for name in names})


def _recognizes(entry: ListedModel, name: str) -> bool:
    match = entry.match
    return (
        name in match.equals
        or name.startswith(match.prefixes)
        or any(re.search(pattern, name) for pattern in match.patterns)
    )


# --- the dearest ------------------------------------------------------------------------------------------


def worst_tokens(price: ModelPrice | None, bounds: Bounds, max_output_tokens: int) -> Usage:
    """The most tokens that a call can use, input as one class. `max_output_tokens` is for one choice."""
    return Usage(
        input_tokens=_input_ceiling(price, bounds),
        output_tokens=max_output_tokens * bounds.choices + bounds.extra_output_tokens,
    )


def worst_cost(
    price: ModelPrice,
    bounds: Bounds,
    max_output_tokens: int,
    now_unix: int,
    lasting_seconds: int = LASTING_SECONDS,
    *,
    tokens: Usage | None = None,
) -> int:
    """
    The dearest that a call can become, in nano-units: the maximum over all that it leaves open.

    That is: the service tiers that may serve it, cache classes, long-context steps, and prices that begin before its
    latest end. `max_output_tokens` is what the provider is sent (or its own maximum), for one choice. Never less
    than `cost` of a usage within the bounds, at any moment of the call. `tokens`: its `worst_tokens`, where they are
    known.
    """
    most = tokens or worst_tokens(price, bounds, max_output_tokens)
    if len(price.rows) == 1:
        return _worst_row_cost(price.rows[0], most, bounds)
    rows = possible(price, bounds.service_tiers, most.input_tokens, now_unix, now_unix + lasting_seconds)
    return max([_worst_row_cost(row, most, bounds) for row in rows])


def _worst_row_cost(row: PriceRow, most: Usage, bounds: Bounds) -> int:
    prices = row.prices
    return cost_nanos(((most.input_tokens, _dearest_input(prices, bounds)), (most.output_tokens, prices.output)))


def unpriced_tiers(price: ModelPrice, tiers: tuple[str, ...]) -> tuple[str, ...]:
    """
    The service tier that a request for `tiers` names and this price has not, as an unpriced field; usually nothing.

    `auto` names none: what the price has not is then taken to cost what standard does.
    """
    if tiers[:1] == (STANDARD,):
        return ()
    asked = [tier for tier in tiers if tier != STANDARD]
    if any(row.service_tier in asked for row in price.rows):
        return ()
    return tuple(f"service_tier={tier}" for tier in asked[:1])


def _input_ceiling(price: ModelPrice | None, bounds: Bounds) -> int:
    if price is None or price.context_tokens is None or not bounds.context_bound:
        return bounds.input_tokens
    # A step at or above the window says that the model has a larger one somewhere: then it bounds nothing.
    if any(row.above_input_tokens >= price.context_tokens for row in price.rows):
        return bounds.input_tokens
    return min(bounds.input_tokens, price.context_tokens)


def _dearest_input(prices: TokenPrices, bounds: Bounds) -> int:
    dearest = max(prices.input, prices.cache_read)
    if "default" in bounds.cache_writes:
        dearest = max(dearest, prices.cache_write)
    if "long" in bounds.cache_writes:
        dearest = max(dearest, prices.cache_write_long)
    return dearest


# --- what it came to --------------------------------------------------------------------------------------


def cost(price: ModelPrice, usage: Usage, at_unix: int, asked_tiers: tuple[str, ...] = (STANDARD,)) -> int:
    """
    What a usage costs at a moment, in nano-units, rounded up once.

    The tier is the served one. Where the provider does not say it, the dearest of those that the request allowed;
    where it names one that was not asked and has no price, the dearest of all.
    """
    if len(price.rows) == 1:  # whatever is asked and served, it has one price
        return _row_cost(price.rows[0], usage)
    rows = in_force(price, at_unix)
    served = _TIER_NAMES.get(usage.service_tier, usage.service_tier)
    if not served:
        sets = serving(rows, asked_tiers)
    elif served in asked_tiers or served in rows:
        sets = serving(rows, (served,))
    else:
        sets = list(rows.values())
    total = usage.total_input_tokens
    return max(_row_cost(row, usage) for steps in sets for row in reached(steps, total))


def _row_cost(row: PriceRow, usage: Usage) -> int:
    prices = row.prices
    return cost_nanos(
        (
            (usage.input_tokens, prices.input),
            (usage.cache_read_tokens, prices.cache_read),
            (usage.cache_write_tokens, prices.cache_write),
            (usage.cache_write_long_tokens, prices.cache_write_long),
            (usage.output_tokens, prices.output),
        )
    )


# --- comparing models -------------------------------------------------------------------------------------


def never_dearer(candidate: ModelPrice, asked: ModelPrice, now_unix: int) -> bool:
    """
    No token of any class costs more at `candidate`, in no service tier, at no length of input, until a call's latest
    end; prices in two currencies cannot be compared.
    """
    if candidate.currency != asked.currency:
        return False
    steps = {row.above_input_tokens for price in (candidate, asked) for row in price.rows}
    end_unix = now_unix + LASTING_SECONDS
    for moment in {*moments(candidate, now_unix, end_unix), *moments(asked, now_unix, end_unix)}:
        theirs = in_force(asked, moment)
        for tier, mine in in_force(candidate, moment).items():
            others = serving(theirs, (tier,))[0]
            for total in (above + 1 for above in steps):
                if not _covers(reached(others, total)[0].prices, reached(mine, total)[0].prices):
                    return False
    return True


def _covers(prices: TokenPrices, others: TokenPrices) -> bool:
    return all(getattr(others, name) <= getattr(prices, name) for name in TokenPrices.__struct_fields__)
