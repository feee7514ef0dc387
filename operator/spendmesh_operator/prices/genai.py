"""
Conversion of genai-prices to our price table; runs at build time only (`python -m spendmesh_operator.prices`).

Nothing that runs in a cluster imports this module, nor genai-prices. How the table is read is in `prices`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version

from genai_prices import data
from genai_prices.types import (
    ModelInfo,
    ModelPrice as Source,
    Provider,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)

from spendmesh_operator.prices.limits import context_tokens, max_output_tokens
from spendmesh_operator.prices.names import model_match
from spendmesh_sidecar.core.specs import ListedModel, ModelPrice, PriceList, PriceRow, TokenPrices
from spendmesh_sidecar.policy import PriceTable

DIRECT_PROVIDERS = (
    "anthropic",
    "aws",
    "azure",
    "cerebras",
    "cohere",
    "deepseek",
    "fireworks",
    "google",
    "groq",
    "meta",
    "minimax",
    "mistral",
    "moonshotai",
    "openai",
    "perplexity",
    "together",
    "x-ai",
    "zai",
)
"""Who serves models under an OpenAI- or Anthropic-shaped API of its own; resellers change prices too often."""

SERVICE_TIERS: Mapping[str, Mapping[str, str]] = {
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
}
"""Our name of a service tier and the context by which genai-prices selects it."""
ANTHROPIC_TIERS: Mapping[str, Mapping[str, str]] = {"batch": {"processing": "batch"}, "fast": {"speed": "fast"}}

LONG_CACHE_WRITE_FACTOR = {"openai": 2}
"""OpenAI bills 12-hour cache writes at 2.5 x input, twice the ordinary 1.25 x; genai-prices has only the latter."""

FEES_OF_REFUSED_TOOLS = frozenset({"web_searches_kcount", "storage_searches_kcount"})
"""Charged only for server-side tools, which are refused until they are priced."""
MODALITY_PRICES = frozenset(
    {
        "input_audio_mtok",
        "cache_audio_read_mtok",
        "output_audio_mtok",
        "cache_image_read_mtok",
        "output_image_mtok",
        "input_video_mtok",
        "output_video_mtok",
    }
)
"""Only reached by bodies that are refused (audio, generated images, video)."""
TEXT_PRICES = frozenset(
    {
        "input_mtok",
        "output_mtok",
        "cache_read_mtok",
        "cache_write_mtok",
        "cache_write_1h_mtok",
        "input_image_mtok",
        "output_reasoning_mtok",
        "output_citation_mtok",
    }
)

_BEFORE_ALL = datetime(2000, 1, 1, tzinfo=UTC)
_Prices = Mapping[str, Decimal | TieredPrices]


@dataclass(frozen=True)
class Imported:
    """What one version of genai-prices says: the table, and (regular expression of base URLs, list) pairs."""

    table: PriceTable
    hosts: tuple[tuple[str, str], ...]


def import_prices(date: str) -> Imported:
    """Convert the installed genai-prices; `date` (ISO) is recorded as the day of the conversion."""
    by_id = {provider.id: provider for provider in data.providers}
    chosen = [by_id[name] for name in DIRECT_PROVIDERS]
    table = PriceTable(
        version=f"genai-prices {version('genai-prices')}",
        date=date,
        lists=tuple(PriceList(id=provider.id, models=tuple(_models(provider, by_id))) for provider in chosen),
    )
    return Imported(table, tuple((_host_pattern(provider.api_pattern), provider.id) for provider in chosen))


def _host_pattern(api_pattern: str) -> str:
    """`api_pattern` made to match a whole host: without an end, api.x.ai would also be api.x.ai.example."""
    inside_host = api_pattern.replace("(.*", "([^/]*")
    return re.sub(r"\((\?:)?/\|\$\)$", "", inside_host) + r"(?:[:/]|$)"


# --- models -----------------------------------------------------------------------------------------------


def _models(provider: Provider, by_id: Mapping[str, Provider]) -> Iterator[ListedModel]:
    for model in provider.models:
        yield _listed(model, provider.id, resold=False)
    for other in provider.fallback_model_providers or ():
        for model in by_id[other].models:
            yield _listed(model, other, resold=True)


def _listed(model: ModelInfo, provider_id: str, *, resold: bool) -> ListedModel:
    return ListedModel(
        match=model_match(model.match),
        price=ModelPrice(
            model=model.id,
            currency="USD",
            rows=tuple(_rows(model, provider_id, resold=resold)),
            context_tokens=context_tokens(provider_id, model.id, model.context_window),
            max_output_tokens=max_output_tokens(provider_id, model.id),
        ),
    )


def _rows(model: ModelInfo, provider_id: str, *, resold: bool) -> Iterator[PriceRow]:
    """All rows of a model; none when it costs something that tokens cannot express: known, but unpriced."""
    starts = _starts(model)
    if any(not _expressible(prices) for start in starts for prices in _prices_of_day(model, start, {})):
        return
    standard = _tier_rows(model, provider_id, starts, {})
    yield from _as_rows(standard, "standard")
    for tier, context in (ANTHROPIC_TIERS if provider_id == "anthropic" else SERVICE_TIERS).items():
        rows = _tier_rows(model, provider_id, starts, context)
        if resold:  # the reseller's own discount is not known: never cheaper than standard
            rows = _dearer_rows(rows, standard)
        if rows != standard:
            yield from _as_rows(rows, tier)


def _starts(model: ModelInfo) -> list[datetime]:
    """Every moment from which a price of the model may differ, beginning with "always"."""
    conditions = [] if isinstance(model.prices, Source) else [price.constraint for price in model.prices]
    conditions += [variant.constraint for variant in model.price_variants or ()]
    dates = {condition.start_date for condition in conditions if isinstance(condition, StartDateConstraint)}
    return [_BEFORE_ALL, *(datetime.combine(date, time(), UTC) for date in sorted(dates))]


def _times_of_day(model: ModelInfo) -> list[timedelta]:
    if isinstance(model.prices, Source):
        return [timedelta()]
    limits = {
        moment
        for price in model.prices
        if isinstance(price.constraint, TimeOfDateConstraint)
        for moment in (price.constraint.start_time, price.constraint.end_time)
    }
    return [timedelta(), *(timedelta(hours=limit.hour, minutes=limit.minute) for limit in sorted(limits))]


def _prices_of_day(model: ModelInfo, start: datetime, context: Mapping[str, str]) -> list[_Prices]:
    """The prices of each part of a day: more than one where the hour counts (DeepSeek's peak)."""
    return [
        {key: value for key, value in model.get_prices(start + offset, context).__dict__.items() if value is not None}
        for offset in _times_of_day(model)
    ]


def _expressible(prices: _Prices) -> bool:
    return "input_mtok" in prices and prices.keys() <= TEXT_PRICES | MODALITY_PRICES | FEES_OF_REFUSED_TOOLS


_Rows = dict[int, dict[int, TokenPrices]]
"""since -> above_input_tokens -> prices."""


def _tier_rows(model: ModelInfo, provider_id: str, starts: list[datetime], context: Mapping[str, str]) -> _Rows:
    rows: _Rows = {}
    for start in starts:
        day = _prices_of_day(model, start, context)
        limits = {0, *(limit for prices in day for limit in _limits(prices))}
        rows[0 if start == _BEFORE_ALL else int(start.timestamp())] = {
            limit: _dearest([_token_prices(prices, limit, provider_id) for prices in day]) for limit in limits
        }
    return _shortest(rows)


def _shortest(rows: _Rows) -> _Rows:
    """Without steps and dates at which nothing changes."""
    short: _Rows = {}
    latest: dict[int, TokenPrices] = {}
    for since in sorted(rows):
        steps: dict[int, TokenPrices] = {}
        for limit in sorted(rows[since]):
            if not steps or rows[since][limit] != steps[max(steps)]:
                steps[limit] = rows[since][limit]
        if steps != latest:
            short[since] = latest = steps
    return short


def _as_rows(rows: _Rows, tier: str) -> Iterator[PriceRow]:
    for since, steps in rows.items():
        for limit, prices in steps.items():
            yield PriceRow(prices=prices, since=since, service_tier=tier, above_input_tokens=limit)


def _dearer_rows(rows: _Rows, standard: _Rows) -> _Rows:
    """For each date and step of either, the dearer of both."""
    sinces = sorted(rows.keys() | standard.keys())
    dearer: _Rows = {}
    for since in sinces:
        mine, theirs = (_in_force(table, since) for table in (rows, standard))
        limits = sorted(mine.keys() | theirs.keys())
        dearer[since] = {limit: _dearest([_step(mine, limit), _step(theirs, limit)]) for limit in limits}
    return _shortest(dearer)


def _in_force(rows: _Rows, moment: int) -> dict[int, TokenPrices]:
    return rows[max(since for since in rows if since <= moment)]


def _step(steps: dict[int, TokenPrices], limit: int) -> TokenPrices:
    return steps[max(step for step in steps if step <= limit)]


# --- prices -----------------------------------------------------------------------------------------------


def _limits(prices: _Prices) -> Iterable[int]:
    for key in TEXT_PRICES & prices.keys():
        value = prices[key]
        if isinstance(value, TieredPrices):
            yield from (tier.start for tier in value.tiers)


def _token_prices(prices: _Prices, above: int, provider_id: str) -> TokenPrices:
    """The classes that we bill by. What is not priced apart costs what the class costs that it is part of."""

    def price(*keys: str, otherwise: int | None = None) -> int:
        known = [_nanos(prices[key], above) for key in keys if key in prices]
        if otherwise is not None and keys[0] not in prices:
            known.append(otherwise)
        return max(known)

    # An image part is billed by the token too, so input is the dearer of both.
    plain = price("input_mtok", "input_image_mtok")
    write = price("cache_write_mtok", otherwise=plain)
    factor = LONG_CACHE_WRITE_FACTOR.get(provider_id, 1) if "cache_write_mtok" in prices else 1
    return TokenPrices(
        input=plain,
        # An embedding model has no output price, since it has no output; its input price stands in for "unknown".
        output=price("output_mtok", "output_reasoning_mtok", "output_citation_mtok", otherwise=plain),
        cache_read=price("cache_read_mtok", otherwise=plain),
        cache_write=write,
        cache_write_long=price("cache_write_1h_mtok", otherwise=write * factor),
    )


def _nanos(value: Decimal | TieredPrices, above: int) -> int:
    """Nano-USD per million tokens for a request of more than `above` input tokens, rounded up."""
    if isinstance(value, TieredPrices):
        reached = [tier.price for tier in value.tiers if tier.start <= above]
        value = reached[-1] if reached and above > 0 else value.base
    return int(value.scaleb(9).to_integral_value(rounding=ROUND_CEILING))


def _dearest(candidates: list[TokenPrices]) -> TokenPrices:
    """Class by class the highest price."""
    return TokenPrices(
        input=max(prices.input for prices in candidates),
        output=max(prices.output for prices in candidates),
        cache_read=max(prices.cache_read for prices in candidates),
        cache_write=max(prices.cache_write for prices in candidates),
        cache_write_long=max(prices.cache_write_long for prices in candidates),
    )
