"""
What a price source says, as frozen data: prices of models, in force from a day on, and how the models are named.
"""

from __future__ import annotations

from spendmesh_sidecar.core.spec_base import Spec


class TokenPrices(Spec, frozen=True, kw_only=True):
    """
    Nano-units of a currency per million tokens of each disjoint class (`core.types.Usage`).

    A class that the provider does not price apart costs what `input` costs (or `output`), written out here:
    there is no "missing" price, so an explicit zero is zero.
    """

    input: int
    output: int
    cache_read: int
    cache_write: int
    """Written to a cache with the provider's default lifetime (Anthropic: 5 minutes)."""
    cache_write_long: int
    """Written to a cache with the long lifetime (Anthropic: 1 hour)."""


class PriceRow(Spec, frozen=True, kw_only=True):
    """One price of a model: in force from `since`, for one service tier, above a number of input tokens."""

    prices: TokenPrices
    since: int = 0
    """
    Unix seconds, UTC; 0 is "always". The latest that has begun applies.

    All rows of one service tier and one `since` are one set: a later set replaces the whole earlier one, steps
    included.
    """
    service_tier: str = "standard"
    above_input_tokens: int = 0
    """A cliff on the whole request: applies when the total input, cached included, is larger than this."""


class ModelPrice(Spec, frozen=True, kw_only=True):
    """All that is known about what one model costs and how large a call can be."""

    model: str
    currency: str
    rows: tuple[PriceRow, ...]
    context_tokens: int | None = None
    max_output_tokens: int | None = None


class ModelMatch(Spec, frozen=True, kw_only=True):
    """How names of a built-in model are recognized; any clause that holds is enough."""

    equals: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    """Regular expressions, `re.search`, only from the generated table, never from users."""


class ListedModel(Spec, frozen=True, kw_only=True):
    """A model of the built-in table with its names."""

    match: ModelMatch
    price: ModelPrice


class PriceList(Spec, frozen=True, kw_only=True):
    """All models of one price source, in matching order: the first that matches speaks."""

    id: str
    models: tuple[ListedModel, ...]
