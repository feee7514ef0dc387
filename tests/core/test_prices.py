"""Prices: which row applies, the dearest a request can become, and what a usage came to."""

from __future__ import annotations

from spendmesh_sidecar.core.prices.costs import (
    MAX_CACHED_NAMES,
    Pricing,
    cost,
    never_dearer,
    unpriced_tiers,
    worst_cost,
    worst_tokens,
)
from spendmesh_sidecar.core.specs import (
    ListedModel,
    ModelMatch,
    ModelPrice,
    PriceList,
    PriceRow,
    ProviderSpec,
    TokenPrices,
)
from spendmesh_sidecar.core.types import Bounds, Usage

NOW = 1_795_305_600
DOLLAR = 10**9
"""Nano-dollars per million tokens: a price of one dollar."""


def flat(dollars: int) -> TokenPrices:
    nanos = dollars * DOLLAR
    return TokenPrices(input=nanos, output=nanos, cache_read=nanos, cache_write=nanos, cache_write_long=nanos)


def row(dollars: int, since: int = 0, tier: str = "standard", above: int = 0) -> PriceRow:
    return PriceRow(prices=flat(dollars), since=since, service_tier=tier, above_input_tokens=above)


def model(*rows: PriceRow, context: int | None = None, output: int | None = None, name: str = "m") -> ModelPrice:
    return ModelPrice(model=name, currency="USD", rows=rows, context_tokens=context, max_output_tokens=output)


SONNET = ModelPrice(
    model="claude-sonnet-4-5",
    currency="USD",
    rows=(
        PriceRow(
            prices=TokenPrices(
                input=3 * DOLLAR,
                output=15 * DOLLAR,
                cache_read=DOLLAR * 3 // 10,
                cache_write=DOLLAR * 15 // 4,
                cache_write_long=6 * DOLLAR,
            )
        ),
    ),
)
MILLION = 1_000_000


# --- look-up ----------------------------------------------------------------------------------------------


def provider(*prices: ModelPrice) -> ProviderSpec:
    return ProviderSpec(
        alias="a", ref="n/a", dialect="OpenAI", base_url="https://e/v1", price_list="openai", prices=prices
    )


def listed(name: str, dollars: int, **match: tuple[str, ...]) -> ListedModel:
    return ListedModel(match=ModelMatch(**match), price=model(row(dollars), name=name))


PRICING = Pricing(
    [
        PriceList(
            id="openai",
            models=(
                listed("mini", 1, equals=("gpt-4o-mini",), prefixes=("gpt-4o-mini-20",)),
                listed("4o", 2, prefixes=("gpt-4o",)),
                listed("o", 3, patterns=(r"^o\d+(-pro)?$",)),
                ListedModel(match=ModelMatch(equals=("by-the-minute",)), price=model(name="unpriced")),
            ),
        )
    ],
    "table 1",
)


def test_a_providers_own_price_comes_before_the_built_in_one() -> None:
    own = provider(model(row(9), name="gpt-4o"))
    assert PRICING.resolve(own, "gpt-4o") == own.prices[0]
    found = PRICING.resolve(own, "gpt-4o-mini")
    assert found is not None
    assert found.model == "mini"
    dearer = PRICING.listed(own, "gpt-4o")
    assert dearer is not None
    assert dearer.model == "4o"
    assert PRICING.version == "table 1"


def with_tiers(*rows: PriceRow) -> Pricing:
    entry = ListedModel(match=ModelMatch(equals=("gpt-4o",)), price=model(*rows, name="gpt-4o"))
    return Pricing([PriceList(id="openai", models=(entry,))])


def test_tiers_that_the_own_price_lacks_cost_the_dearer_of_it_and_the_built_in_one() -> None:
    """A project may be served as priority without asking; an own price of one row does not make that cheaper."""
    pricing = with_tiers(row(2), row(1, tier="flex"), row(6, tier="priority"))
    own = provider(model(row(3), name="gpt-4o"))
    price = pricing.resolve(own, "gpt-4o")
    assert price is not None
    anything = ("standard", "flex", "priority")
    for served, dollars in [("", 6), ("default", 3), ("flex", 3), ("priority", 6)]:
        usage = Usage(input_tokens=MILLION, service_tier=served)
        assert cost(price, usage, NOW, anything) == dollars * DOLLAR
    assert worst_cost(price, Bounds(MILLION, service_tiers=anything), 0, NOW) == 6 * DOLLAR
    assert unpriced_tiers(price, ("priority", "standard")) == ()
    assert pricing.resolve(own, "gpt-4o") is price, "worked out once"
    other = provider(model(row(7), name="gpt-4o"))
    changed = pricing.resolve(other, "gpt-4o")
    assert (
        changed is not None and cost(changed, Usage(input_tokens=MILLION, service_tier="priority"), NOW) == 7 * DOLLAR
    )


def test_added_tiers_follow_the_steps_and_dates_of_both_prices() -> None:
    pricing = with_tiers(row(1), row(4, tier="priority"), row(8, tier="priority", above=1_000))
    price = pricing.resolve(
        provider(model(row(2), row(6, since=NOW), row(9, since=NOW, above=500), name="gpt-4o")), "gpt-4o"
    )
    assert price is not None
    for tokens, at, dollars in [(500, NOW - 1, 4), (1_001, NOW - 1, 8), (500, NOW, 6), (501, NOW, 9), (1_001, NOW, 9)]:
        usage = Usage(input_tokens=tokens, service_tier="priority")
        assert cost(price, usage, at, ("standard", "priority")) == dollars * DOLLAR * tokens // MILLION


def test_an_own_tier_is_left_alone_and_prices_in_two_currencies_are_not_joined() -> None:
    pricing = with_tiers(row(2), row(6, tier="priority"))
    own = model(row(3), row(4, tier="priority"), name="gpt-4o")
    euros = ModelPrice(model="gpt-4o", currency="EUR", rows=(row(3),))
    assert pricing.resolve(provider(own), "gpt-4o") == own
    assert pricing.resolve(provider(euros), "gpt-4o") == euros


def test_the_first_entry_that_recognizes_a_name_speaks() -> None:
    for name, expected in [
        ("gpt-4o-mini", "mini"),
        ("GPT-4o-Mini-2024-07-18", "mini"),
        ("gpt-4o-2024-08-06", "4o"),
        ("o3-pro", "o"),
        ("o3-proper", None),
        ("gpt-9", None),
        ("by-the-minute", None),
    ]:
        found = PRICING.resolve(provider(), name)
        assert (found.model if found else None) == expected
    assert PRICING.resolve(ProviderSpec(alias="a", ref="r", dialect="OpenAI", base_url="u"), "gpt-4o") is None


def test_row_28_names_from_clients_do_not_fill_memory() -> None:
    """Row 28: ten thousand distinct names leave a bounded number of answers, and look-ups stay right."""
    pricing = Pricing([PriceList(id="openai", models=(listed("4o", 2, prefixes=("gpt-4o",)),))])
    for number in range(10_000):
        pricing.resolve(provider(), f"made-up-{number}")
    assert pricing.resolve(provider(), "gpt-4o") is not None
    assert len(pricing._found) <= MAX_CACHED_NAMES


# --- the worst case ---------------------------------------------------------------------------------------


def test_the_worst_case_by_hand() -> None:
    """1,000 input at 3 USD and 2 × 100 output at 15 USD a million: 0.003 + 0.003 USD."""
    bounds = Bounds(input_tokens=1_000, choices=2, output_field="max_tokens")
    assert worst_cost(SONNET, bounds, 100, NOW) == 6_000_000
    assert worst_tokens(SONNET, bounds, 100) == Usage(input_tokens=1_000, output_tokens=200)


def test_cache_classes_that_the_request_asks_for_are_reserved() -> None:
    def reserved(*writes: str) -> int:
        bounds = Bounds(input_tokens=MILLION, cache_writes=writes)  # type: ignore[arg-type]
        return worst_cost(SONNET, bounds, 0, NOW)

    assert reserved() == 3 * DOLLAR
    assert reserved("default") == DOLLAR * 15 // 4
    assert reserved("default", "long") == 6 * DOLLAR


def test_the_dearest_tier_that_may_serve_is_reserved() -> None:
    price = model(row(2), row(1, tier="flex"), row(5, tier="priority"), row(9, tier="fast"))

    def reserved(*tiers: str) -> int:
        return worst_cost(price, Bounds(input_tokens=MILLION, service_tiers=tiers), 0, NOW) // DOLLAR

    assert reserved("standard") == 2
    assert reserved("standard", "flex", "priority") == 5
    assert reserved("flex") == 1
    assert reserved("flex", "standard") == 2
    assert reserved("scale") == 2


def test_a_price_that_begins_before_the_call_ends_is_reserved() -> None:
    price = model(row(1), row(4, since=NOW + 1_800), row(2, since=NOW - 100), row(9, since=NOW + 7_200))
    bounds = Bounds(input_tokens=MILLION)
    assert worst_cost(price, bounds, 0, NOW) == 4 * DOLLAR
    assert worst_cost(price, bounds, 0, NOW, lasting_seconds=60) == 2 * DOLLAR
    assert worst_cost(price, bounds, 0, NOW - 200, lasting_seconds=50) == DOLLAR
    assert cost(price, Usage(input_tokens=MILLION), NOW + 1_800) == 4 * DOLLAR
    assert cost(price, Usage(input_tokens=MILLION), NOW + 1_799) == 2 * DOLLAR


def test_a_later_set_replaces_the_steps_of_an_earlier_one() -> None:
    """A long-context premium that ended is over."""
    price = model(row(3), row(6, above=200_000), row(3, since=NOW))
    usage = Usage(input_tokens=300_000)
    assert cost(price, usage, NOW - 1) == 2 * cost(price, usage, NOW)


def test_the_long_context_step_is_a_cliff_on_all_input() -> None:
    """Cached input counts for the step; the whole call costs the step's price."""
    price = model(row(1), row(2, above=1_000))
    assert cost(price, Usage(input_tokens=600, cache_read_tokens=400), NOW) == 1_000_000
    assert cost(price, Usage(input_tokens=600, cache_read_tokens=401), NOW) == 2_002_000
    assert worst_cost(price, Bounds(input_tokens=1_000), 0, NOW) == 1_000_000
    assert worst_cost(price, Bounds(input_tokens=1_001), 0, NOW) == 2_002_000


def test_the_context_window_bounds_the_input_of_one_conversation() -> None:
    price = model(row(1), context=1_000)
    assert worst_tokens(price, Bounds(input_tokens=5_000), 0).input_tokens == 1_000
    assert worst_tokens(price, Bounds(input_tokens=5_000, context_bound=False), 0).input_tokens == 5_000
    assert worst_tokens(None, Bounds(input_tokens=5_000), 0).input_tokens == 5_000
    larger_in_fact = model(row(1), row(2, above=1_000), context=1_000)
    assert worst_tokens(larger_in_fact, Bounds(input_tokens=5_000), 0).input_tokens == 5_000


def test_extra_output_is_on_top_of_the_choices() -> None:
    bounds = Bounds(input_tokens=0, choices=3, output_field="max_tokens", extra_output_tokens=7)
    assert worst_tokens(None, bounds, 10).output_tokens == 37


# --- the bill ---------------------------------------------------------------------------------------------


def test_every_class_is_billed_once_and_rounded_once() -> None:
    usage = Usage(1, 1, 1, 1, 1, reasoning_tokens=1)
    exact = 3 * DOLLAR + DOLLAR * 3 // 10 + DOLLAR * 15 // 4 + 6 * DOLLAR + 15 * DOLLAR
    assert cost(SONNET, usage, NOW) == -(-exact // MILLION)
    assert cost(SONNET, Usage(), NOW) == 0


def test_the_served_tier_decides_and_an_unknown_one_is_the_dearest() -> None:
    price = model(row(2), row(1, tier="flex"), row(5, tier="priority"))
    asked = ("standard", "flex", "priority")

    def billed(served: str, tiers: tuple[str, ...] = asked) -> int:
        return cost(price, Usage(input_tokens=MILLION, service_tier=served), NOW, tiers) // DOLLAR

    assert [billed(tier) for tier in ("default", "standard", "auto", "flex", "priority")] == [2, 2, 2, 1, 5]
    assert billed("ultrafast") == 5
    assert billed("") == 5
    assert billed("", ("standard",)) == 2
    assert billed("", ("flex",)) == 1


def test_a_committed_tier_without_a_price_costs_standard_if_it_was_asked() -> None:
    """Anthropic's priority tier is capacity that was bought before; fast mode has a price of its own."""
    price = model(row(2), row(9, tier="fast"))
    usage = Usage(input_tokens=MILLION, service_tier="priority")
    assert cost(price, usage, NOW, ("standard", "priority")) == 2 * DOLLAR
    assert cost(price, usage, NOW, ("standard",)) == 9 * DOLLAR


def test_a_named_tier_without_a_price_is_unpriced() -> None:
    price = model(row(2), row(1, tier="flex"))
    assert unpriced_tiers(price, ("standard", "flex", "priority")) == ()
    assert unpriced_tiers(price, ("flex", "standard")) == ()
    assert unpriced_tiers(price, ("priority", "standard")) == ("service_tier=priority",)


# --- comparing --------------------------------------------------------------------------------------------


def test_comparing_models() -> None:
    cheap = model(row(1))
    assert never_dearer(cheap, model(row(1)), NOW)
    assert never_dearer(cheap, model(row(2)), NOW)
    assert not never_dearer(cheap, SONNET, NOW)  # its cache reads cost more
    assert not never_dearer(model(row(1), row(9, since=NOW)), model(row(2)), NOW)
    euros = ModelPrice(model="m", currency="EUR", rows=(row(9),))
    assert not never_dearer(cheap, euros, NOW)


def test_never_dearer_holds_for_long_input_every_tier_and_prices_to_come() -> None:
    """A ceiling is a promise about the call, not about its first token."""
    asked = model(row(2))
    assert not never_dearer(model(row(1), row(3, above=1_000)), asked, NOW)
    assert never_dearer(model(row(1), row(2, above=1_000)), asked, NOW)
    assert never_dearer(model(row(1), row(3, above=1_000)), model(row(2), row(3, above=1_000)), NOW)
    assert not never_dearer(model(row(1), row(3, above=500)), model(row(2), row(3, above=1_000)), NOW)
    assert not never_dearer(model(row(1), row(3, tier="priority")), asked, NOW)
    assert never_dearer(model(row(1), row(3, tier="priority")), model(row(2), row(4, tier="priority")), NOW)
    assert not never_dearer(model(row(1), row(3, since=NOW + 60)), asked, NOW)
    assert not never_dearer(model(row(2)), model(row(2), row(1, since=NOW + 60)), NOW)
    assert never_dearer(model(row(1), row(3, since=NOW + 86_400)), asked, NOW)
