"""The stand-in's own hand-written price list and what an attempt costs by it; no part of Spendmesh's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil
from types import MappingProxyType
from typing import Literal

Dialect = Literal["openai", "anthropic"]
Nanos = int | Fraction
BOTH: tuple[Dialect, ...] = ("openai", "anthropic")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one attempt consumed, in disjoint classes.

    `input` excludes everything cached. `output` is visible text of all choices, `reasoning` is thinking, `rejected` is
    predicted text that was not used, `hidden` is billed and never reported; these four cost the output price.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    rejected: int = 0
    hidden: int = 0

    @property
    def prompt(self) -> int:
        """Everything on the input side."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def completion(self) -> int:
        """Everything on the output side that a usage object reports."""
        return self.output + self.reasoning + self.rejected

    def input_only(self) -> Tokens:
        """The same attempt, ended before the first output token."""
        return replace(self, output=0, reasoning=0, rejected=0, hidden=0)


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-USD for one token of each class: 1 USD for a million tokens is 1000. A few are not whole."""

    input: Nanos
    cache_read: Nanos
    cache_write_5m: Nanos
    cache_write_1h: Nanos
    output: Nanos


def _no_tiers() -> Mapping[str, Rates]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Model:
    """One model for sale: its name, limits and list price.

    `snapshot` is the dated name that answers carry. `long_context` holds (threshold, rates): above that many prompt
    tokens, cached ones included, the whole request costs the second rates. `tiers` holds rates of other service tiers.
    """

    name: str
    rates: Rates
    context_tokens: int
    max_output_tokens: int
    snapshot: str
    dialects: tuple[Dialect, ...] = BOTH
    kind: Literal["chat", "embedding"] = "chat"
    reasons: bool = False
    dimensions: int = 0
    long_context: tuple[int, Rates] | None = None
    tiers: Mapping[str, Rates] = field(default_factory=_no_tiers)


def cost_nanos(
    model: Model, tokens: Tokens, *, tier: str = "default", price_percent: int = 100, fees_nanos: int = 0
) -> int:
    """The price of one attempt in nano-USD: exact, rounded up once; `price_percent` scales the rates, not the fees."""
    rates = model.tiers.get(tier, model.rates)
    if model.long_context is not None and tokens.prompt > model.long_context[0]:
        rates = model.long_context[1]
    exact = (
        tokens.input * rates.input
        + tokens.cache_read * rates.cache_read
        + tokens.cache_write_5m * rates.cache_write_5m
        + tokens.cache_write_1h * rates.cache_write_1h
        + (tokens.completion + tokens.hidden) * rates.output
    )
    return ceil(Fraction(exact) * price_percent / 100) + fees_nanos


def _plain(input: Nanos, cache_read: Nanos, output: Nanos) -> Rates:
    """Rates of a model whose cache writes cost what input costs."""
    return Rates(input, cache_read, input, input, output)


def _openai(name: str, rates: Rates, limits: tuple[int, int], dated: str, **tiers: Rates) -> Model:
    return Model(name, rates, *limits, f"{name}-{dated}", ("openai",), tiers=MappingProxyType(tiers))


def _anthropic(name: str, rates: Rates, dated: str, long_context: tuple[int, Rates] | None = None) -> Model:
    return Model(name, rates, 200_000, 64_000, f"{name}-{dated}", ("anthropic",), long_context=long_context)


def _embedding(name: str, input_nanos: int, dimensions: int) -> Model:
    rates = _plain(input_nanos, input_nanos, 0)
    return Model(name, rates, 8192, 0, name, ("openai",), kind="embedding", dimensions=dimensions)


def _short(name: str, rates: Rates, context: int, output: int) -> Model:
    """A made-up model of the examples; it is sold in both dialects and has one service tier."""
    return Model(name, rates, context, output, name)


# List prices as published in November 2026 on the pricing pages of OpenAI and Anthropic.
_ALL = (
    _short("small-1", _plain(50, 5, 400), 128_000, 16_384),
    _short("medium-1", _plain(250, 250, 2_000), 128_000, 16_384),
    _short("medium-2", _plain(300, 300, 2_400), 128_000, 16_384),
    _short("large-1", _plain(5_000, 5_000, 25_000), 200_000, 32_768),
    _openai(
        "gpt-4o", _plain(2_500, 1_250, 10_000), (128_000, 16_384), "2024-08-06", priority=_plain(4_250, 2_125, 17_000)
    ),
    _openai("gpt-4o-mini", _plain(150, 75, 600), (128_000, 16_384), "2024-07-18", priority=_plain(250, 125, 1_000)),
    _openai(
        "gpt-4.1", _plain(2_000, 500, 8_000), (1_000_000, 32_768), "2025-04-14", priority=_plain(3_500, 875, 14_000)
    ),
    _openai(
        "gpt-4.1-mini", _plain(400, 100, 1_600), (1_000_000, 32_768), "2025-04-14", priority=_plain(700, 175, 2_800)
    ),
    _openai("gpt-4.1-nano", _plain(100, 25, 400), (1_000_000, 32_768), "2025-04-14", priority=_plain(200, 50, 800)),
    replace(
        _openai(
            "gpt-5-mini",
            _plain(250, 25, 2_000),
            (400_000, 128_000),
            "2025-08-07",
            priority=_plain(450, 45, 3_600),
            flex=_plain(125, Fraction(25, 2), 1_000),
        ),
        reasons=True,
    ),
    _embedding("text-embedding-3-small", 20, 1536),
    _embedding("text-embedding-3-large", 130, 3072),
    _anthropic("claude-haiku-4-5", Rates(1_000, 100, 1_250, 2_000, 5_000), "20251001"),
    _anthropic(
        "claude-sonnet-4-5",
        Rates(3_000, 300, 3_750, 6_000, 15_000),
        "20250929",
        (200_000, Rates(6_000, 600, 7_500, 12_000, 22_500)),
    ),
    _anthropic("claude-opus-4-5", Rates(5_000, 500, 6_250, 10_000, 25_000), "20251101"),
    replace(
        _anthropic(
            "claude-haiku-5-5",
            Rates(100, 10, 125, 200, 500),
            "",
            (100_000, Rates(500, 50, 625, 1_000, 2_500)),
        ),
        snapshot="claude-haiku-5-5",
        context_tokens=1_000_000,
    ),
)
CATALOG: Mapping[str, Model] = MappingProxyType({model.name: model for model in _ALL})
_BY_SNAPSHOT: Mapping[str, Model] = MappingProxyType({model.snapshot: model for model in _ALL})


def find(name: str, dialect: Dialect) -> Model | None:
    """The model sold under this name or snapshot in this dialect, if any."""
    model = CATALOG.get(name) or _BY_SNAPSHOT.get(name)
    return model if model is not None and dialect in model.dialects else None
