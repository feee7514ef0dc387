"""Law A1: no usage within a request's bounds costs more than what was reserved for it, at any price and moment."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from spendmesh_sidecar.core.outcome import actual, answered
from spendmesh_sidecar.core.prices.costs import cost, worst_cost, worst_tokens
from spendmesh_sidecar.core.specs import ModelPrice, PriceRow, TokenPrices
from spendmesh_sidecar.core.types import Bounds, Usage
from spendmesh_sidecar.core.usage.observation import Observation

START = 1_000_000
TIERS = ["standard", "flex", "priority", "fast", "batch"]

nanos = st.integers(0, 100 * 10**9)
token_prices = st.builds(
    TokenPrices, input=nanos, output=nanos, cache_read=nanos, cache_write=nanos, cache_write_long=nanos
)
rows = st.builds(
    PriceRow,
    prices=token_prices,
    since=st.sampled_from([0, START - 50, START + 10, START + 50, START + 1_000]),
    service_tier=st.sampled_from(TIERS),
    above_input_tokens=st.sampled_from([0, 100, 1_000, 5_000]),
)
prices = st.builds(
    ModelPrice,
    model=st.just("m"),
    currency=st.just("USD"),
    rows=st.lists(rows, min_size=1, max_size=8).map(tuple),
    context_tokens=st.none() | st.integers(1, 6_000),
)
lifetimes = st.sampled_from([(), ("default",), ("long",), ("default", "long")])
bounds = st.builds(
    Bounds,
    input_tokens=st.integers(0, 8_000),
    choices=st.integers(1, 4),
    output_field=st.just("max_tokens"),
    service_tiers=st.lists(st.sampled_from(TIERS), min_size=1, max_size=3, unique=True).map(tuple),
    cache_writes=lifetimes,
    extra_output_tokens=st.integers(0, 100),
    context_bound=st.booleans(),
)


@st.composite
def usages(draw: st.DrawFn, price: ModelPrice, asked: Bounds, maximum: int) -> Usage:
    """Anything that the bounds allow: input in the classes that were asked, any tier that may serve."""
    most = worst_tokens(price, asked, maximum)
    left = draw(st.integers(0, most.input_tokens) | st.just(most.input_tokens))
    read = draw(st.integers(0, left))
    written = draw(st.integers(0, left - read)) if "default" in asked.cache_writes else 0
    long = draw(st.integers(0, left - read - written)) if "long" in asked.cache_writes else 0
    return Usage(
        input_tokens=left - read - written - long,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_long_tokens=long,
        output_tokens=draw(st.integers(0, most.output_tokens) | st.just(most.output_tokens)),
        service_tier=draw(st.sampled_from([*asked.service_tiers, ""])),
    )


@given(st.data(), prices, bounds, st.integers(0, 500), st.integers(0, 60))
@settings(max_examples=1_000, deadline=None)
def test_a1_a_reservation_covers_every_bill_within_its_bounds(
    data: st.DataObject, price: ModelPrice, asked: Bounds, maximum: int, after: int
) -> None:
    reserved = worst_cost(price, asked, maximum, START, lasting_seconds=60)
    usage = data.draw(usages(price, asked, maximum))
    assert cost(price, usage, START + after, asked.service_tiers) <= reserved


@given(st.data(), prices, bounds, st.integers(0, 500), st.integers(0, 100_000))
@settings(max_examples=500, deadline=None)
def test_a1_holds_for_what_is_settled_when_usage_is_not_believed(
    data: st.DataObject, price: ModelPrice, asked: Bounds, maximum: int, output_bytes: int
) -> None:
    """An estimate never leaves the reservation, whatever text came with a usage within the bounds."""
    usage = data.draw(usages(price, asked, maximum))
    seen = Observation(usage, complete=True, output_bytes=output_bytes)
    found = actual("OpenAI", answered("OpenAI", 200, [], b"", START, seen), asked, maximum, price)
    assert not found.excess
    assert cost(price, found.usage, START, asked.service_tiers) <= worst_cost(price, asked, maximum, START)


@given(prices, bounds, st.integers(0, 500), st.integers(0, 100), st.integers(0, 100))
@settings(deadline=None)
def test_more_can_never_be_reserved_for_less(
    price: ModelPrice, asked: Bounds, maximum: int, more_output: int, more_tokens: int
) -> None:
    """The worst case grows with everything that it bounds, so shrinking a maximum always helps."""
    larger = Bounds(
        input_tokens=asked.input_tokens + more_tokens,
        choices=asked.choices,
        output_field=asked.output_field,
        service_tiers=asked.service_tiers,
        cache_writes=asked.cache_writes,
        extra_output_tokens=asked.extra_output_tokens,
        context_bound=asked.context_bound,
    )
    assert worst_cost(price, asked, maximum, START) <= worst_cost(price, larger, maximum + more_output, START)
