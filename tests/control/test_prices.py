"""The built-in price table says what genai-prices says, or more where it cannot know: never less or a silent zero."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from genai_prices import Usage, data
from genai_prices.types import ModelInfo, Provider

from spendmesh_operator.prices import BuiltInPrices, PriceDataError, load_prices, load_table, subset
from spendmesh_operator.prices.genai import ANTHROPIC_TIERS, DIRECT_PROVIDERS, SERVICE_TIERS
from spendmesh_operator.prices.limits import context_tokens, max_output_tokens
from spendmesh_operator.prices.table import format_prices, parse_prices
from spendmesh_sidecar.core.prices.money import cost_nanos
from spendmesh_sidecar.core.specs import ModelPrice, TokenPrices
from spendmesh_sidecar.policy import encode

COMMITTED = Path(__file__).parents[2] / "operator/spendmesh_operator/data/prices.json"
PROVIDERS = {provider.id: provider for provider in data.providers}
DATES = tuple(
    datetime(*date, 12, tzinfo=UTC)
    for date in ((2024, 6, 1), (2026, 3, 12), (2026, 3, 14), (2026, 11, 22), (2026, 12, 2), (2027, 1, 2))
)

# (input in all, read from cache, written for the usual time, written for long, output)
USAGES = (
    (1_000, 0, 0, 0, 100),
    (20_000, 5_000, 3_000, 0, 4_000),
    (90_000, 50_000, 10_000, 5_000, 1_000),
    (300_000, 100_000, 0, 0, 10_000),
    (1, 0, 0, 0, 0),
)


def tokens_cost(prices: TokenPrices, usage: tuple[int, int, int, int, int]) -> int:
    total, read, write, long_write, output = usage
    return cost_nanos(
        (
            (total - read - write - long_write, prices.input),
            (read, prices.cache_read),
            (write, prices.cache_write),
            (long_write, prices.cache_write_long),
            (output, prices.output),
        )
    )


def row(price: ModelPrice, tier: str, moment: datetime, total_input: int) -> TokenPrices:
    """The row that applies: service tier (else standard), then the latest date, then the highest step."""
    rows = [each for each in price.rows if each.service_tier == tier]
    rows = rows or [each for each in price.rows if each.service_tier == "standard"]
    since = max(each.since for each in rows if each.since <= moment.timestamp())
    steps = [each for each in rows if each.since == since]
    return max(
        (each for each in steps if each.above_input_tokens == 0 or total_input > each.above_input_tokens),
        key=lambda each: each.above_input_tokens,
    ).prices


def theirs(provider: Provider, model: ModelInfo, usage: tuple[int, ...], moment: datetime, tier: str) -> Decimal:
    total, read, write, long_write, output = usage
    given = Usage(
        input_tokens=total,
        cache_read_tokens=read,
        cache_write_tokens=write + long_write,
        cache_write_1h_tokens=long_write,
        output_tokens=output,
    )
    contexts = ANTHROPIC_TIERS if provider.id == "anthropic" else SERVICE_TIERS
    context = contexts.get(tier) or {}
    return model.calc_price(given, provider, genai_request_timestamp=moment, price_context=context).total_price * 10**9


def text_models(provider_id: str) -> Iterator[tuple[Provider, ModelInfo, ModelPrice]]:
    provider = PROVIDERS[provider_id]
    listed = next(prices for prices in load_table().lists if prices.id == provider_id)
    for model, entry in zip(provider.models, listed.models, strict=False):
        assert entry.price.model == model.id
        if entry.price.rows:
            yield provider, model, entry.price


DEARER_FOR_A_REASON = {
    "hours": "the hour of the day counts: the dearest part of the day is taken",
    "images": "images cost more by the token than text, and a body may hold both",
    "reasoning": "reasoning or citations cost more by the token than the rest of the output",
    "long writes": "OpenAI's 12-hour cache writes cost twice the usual ones, which genai-prices does not have",
    "no output": "embeddings have no output price; the input price stands in for an output that there is not",
}


def reason_to_be_dearer(provider: Provider, model: ModelInfo, usage: tuple[int, ...]) -> str:
    parts = [model.prices] if not isinstance(model.prices, list) else [each.prices for each in model.prices]
    keys = {key for prices in parts for key, value in prices.__dict__.items() if value is not None}
    if provider.id == "deepseek":
        return "hours"
    if "input_image_mtok" in keys:
        return "images"
    if keys & {"output_reasoning_mtok", "output_citation_mtok"}:
        return "reasoning"
    if provider.id == "openai" and usage[3]:
        return "long writes"
    return "no output" if "output_mtok" not in keys and usage[4] else ""


@pytest.mark.parametrize("provider_id", DIRECT_PROVIDERS)
def test_every_price_is_equal_or_dearer_with_a_reason(provider_id: str) -> None:
    compared = 0
    for provider, model, price in text_models(provider_id):
        for usage, moment in itertools.product(USAGES, DATES):
            for tier in ("standard", "batch", "flex", "priority", "fast"):
                mine = tokens_cost(row(price, tier, moment, usage[0]), usage)
                other = theirs(provider, model, usage, moment, tier)
                where = f"{model.id} {usage} {moment:%Y-%m-%d} {tier}: {mine} here, {other} there"
                assert mine >= other, where
                if mine > other + 1:  # one nano-unit is the rounding
                    assert reason_to_be_dearer(provider, model, usage) in DEARER_FOR_A_REASON, where
                compared += 1
    assert compared >= 5 * len(USAGES) * len(DATES)


def test_where_the_hour_counts_the_dearest_hour_is_the_price() -> None:
    usage = USAGES[1]
    for provider, model, price in text_models("deepseek"):
        for day in (datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)):
            hours = [theirs(provider, model, usage, day.replace(hour=hour), "standard") for hour in range(24)]
            mine = tokens_cost(row(price, "standard", day, usage[0]), usage)
            assert max(hours) <= mine <= max(hours) + 1, model.id


def test_the_grid_is_wide() -> None:
    """Enough models, tiers, dates and steps that the comparison above means something."""
    prices = [price for provider_id in DIRECT_PROVIDERS for _, _, price in text_models(provider_id)]
    assert len(prices) >= 400
    assert {each.service_tier for price in prices for each in price.rows} == {
        "standard",
        "batch",
        "flex",
        "priority",
        "fast",
    }
    assert sum(any(each.above_input_tokens for each in price.rows) for price in prices) >= 40
    assert sum(any(each.since for each in price.rows) for price in prices) >= 40


def test_what_tokens_cannot_express_is_known_but_unpriced_never_zero() -> None:
    unpriced = {entry.price.model for prices in load_table().lists for entry in prices.models if not entry.price.rows}
    assert {"whisper-1", "tts-1"} <= unpriced
    for prices in load_table().lists:
        for entry in prices.models:
            assert all(
                each.prices.output > 0 or each.prices.input == 0 for each in entry.price.rows if prices.id == "openai"
            )


@pytest.mark.parametrize("provider_id", DIRECT_PROVIDERS)
def test_names_are_recognized_as_genai_prices_does(provider_id: str) -> None:
    provider, prices = PROVIDERS[provider_id], load_prices()
    for model in provider.models:
        names = {
            model.id,
            model.id.upper(),
            f"{model.id}-2026-01-01",
            f"{model.id}-latest",
            f"x/{model.id}",
            model.id[:-1],
        }
        for name in names:
            expected = next((each for each in provider.models if each.is_match(name)), None)
            found = prices.find(provider_id, name)
            if expected is not None:
                assert found is not None and found.price.model == expected.id, name
            elif not provider.fallback_model_providers:
                assert found is None, name


def test_a_reseller_falls_back_to_the_makers_prices_but_not_to_their_discounts() -> None:
    found = load_prices().find("azure", "gpt-5-mini")
    assert found is not None and found.price.rows
    tiers = {each.service_tier for each in found.price.rows}
    assert "priority" in tiers, "dearer tiers stay"
    assert "flex" not in tiers and "batch" not in tiers, "a discount that Azure never promised"


@pytest.mark.parametrize(
    ("url", "dialect", "expected"),
    [
        ("https://api.openai.com/v1", "OpenAI", "openai"),
        ("https://API.OpenAI.com:443/v1", "OpenAI", "openai"),
        ("https://api.anthropic.com", "Anthropic", "anthropic"),
        ("https://api.anthropic.com/v1", "OpenAI", "anthropic"),
        ("https://api.deepseek.com/anthropic", "Anthropic", "deepseek"),
        ("https://api.groq.com/openai/v1", "OpenAI", "groq"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "OpenAI", "google"),
        ("https://team.openai.azure.com/openai/v1", "OpenAI", "azure"),
        ("https://api.openai.com.evil.example/v1", "OpenAI", "openai"),
        ("https://api.x.ai.evil.example/v1", "OpenAI", "openai"),
        ("https://evil.example/api.x.ai/v1", "Anthropic", "anthropic"),
        ("http://standin.team-a.svc:8080/v1", "OpenAI", "openai"),
    ],
)
def test_the_host_of_a_base_url_picks_the_list(url: str, dialect: str, expected: str) -> None:
    assert load_prices().list_for(url, dialect) == expected


def test_known_prices_of_well_known_models() -> None:
    """A few rows by hand from the providers' price pages of November 2026, so that the converter cannot drift whole."""
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def prices(provider: str, model: str, tokens: int = 1, tier: str = "standard") -> tuple[float, ...]:
        found = load_prices().find(provider, model)
        assert found is not None
        chosen = row(found.price, tier, now, tokens)
        return tuple(value / 10**9 for value in msgspec.structs.astuple(chosen))

    assert prices("openai", "gpt-4o-mini")[:3] == (0.15, 0.60, 0.075)
    assert prices("openai", "gpt-5")[:3] == (1.25, 10, 0.125)
    assert prices("openai", "gpt-5", tier="flex")[:2] == (0.625, 5)
    assert prices("anthropic", "claude-sonnet-4-5") == (3, 15, 0.3, 3.75, 6)
    assert prices("anthropic", "claude-sonnet-4-5", 200_001) == (6, 22.5, 0.6, 7.5, 12)
    assert prices("anthropic", "claude-haiku-4-5") == (1, 5, 0.1, 1.25, 2)


def test_models_without_a_documented_maximum_have_none() -> None:
    assert max_output_tokens("openai", "gpt-4o-mini") == 16_384
    assert max_output_tokens("anthropic", "claude-opus-4-1-20250805") == 32_000
    assert max_output_tokens("openai", "gpt-99") is None
    assert max_output_tokens("azure", "gpt-4o") is None
    limits = [entry.price.max_output_tokens for prices in load_table().lists for entry in prices.models]
    assert sum(limit is not None for limit in limits) >= 40


def test_a_context_that_the_source_rounds_down_is_corrected_upwards() -> None:
    """It bounds the worst case: a thousand tokens too few would be spent without having been reserved."""
    assert context_tokens("openai", "gpt-4.1-mini", 1_000_000) == 1_047_576
    assert context_tokens("openai", "gpt-4.1-mini", 2_000_000) == 2_000_000
    assert context_tokens("openai", "gpt-5", 400_000) == 400_000
    assert context_tokens("openai", "unheard-of", None) is None


def test_the_committed_file_is_what_the_installed_version_gives() -> None:
    command = [sys.executable, "-m", "spendmesh_operator.prices", "--check", str(COMMITTED)]
    assert subprocess.run(command, capture_output=True, text=True, check=False).returncode == 0


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    changed = tmp_path / "prices.json"
    changed.write_bytes(COMMITTED.read_bytes().replace(b'"input":2500000000', b'"input":2400000000', 1))
    command = [sys.executable, "-m", "spendmesh_operator.prices", "--check", str(changed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "run the command without --check" in done.stderr) == (1, True)


def test_the_file_is_read_as_it_was_written_and_nonsense_is_refused() -> None:
    prices = load_prices()
    assert parse_prices(format_prices(prices)) == BuiltInPrices(prices.table, prices.hosts)
    with pytest.raises(PriceDataError, match="not readable"):
        parse_prices(b'{"hosts": []}')


def test_reading_the_table_at_run_time_does_not_import_genai_prices() -> None:
    code = "import sys; import spendmesh_operator.prices as p; p.load_prices(); print('genai_prices' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_subset_has_the_lists_asked_for_in_the_tables_order_and_an_address_of_its_own() -> None:
    table = load_table()
    part = subset(table, ["openai", "anthropic", "openai"])
    assert [prices.id for prices in part.lists] == ["anthropic", "openai"]
    assert (part.version, part.date) == (table.version, table.date)
    assert encode(part) == encode(subset(table, ["anthropic", "openai"])) != encode(subset(table, ["openai"]))
    assert subset(table, []).lists == ()
