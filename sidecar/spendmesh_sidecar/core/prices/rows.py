"""
Which rows of a price apply: at a moment, in a service tier, for so much input.

Selection only; what the rows come to, and which price a model has, is `core.prices.costs`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spendmesh_sidecar.core.specs import ModelPrice, PriceRow

STANDARD = "standard"


def possible(
    price: ModelPrice, tiers: tuple[str, ...], input_tokens: int, start_unix: int, end_unix: int
) -> Sequence[PriceRow]:
    """All rows that a call of one of these tiers, with so much input or less, may be billed by."""
    if len(price.rows) == 1:
        return price.rows
    return [
        row
        for moment in moments(price, start_unix, end_unix)
        for rows in serving(in_force(price, moment), tiers)
        for row in reachable(rows, input_tokens)
    ]


def moments(price: ModelPrice, start_unix: int, end_unix: int) -> list[int]:
    """The start, and every moment until the end at which a price begins."""
    return [start_unix, *sorted({row.since for row in price.rows if start_unix < row.since <= end_unix})]


def in_force(price: ModelPrice, at_unix: int) -> dict[str, list[PriceRow]]:
    """Of each service tier the set that has begun last; before the first one, that one."""
    begun: dict[str, int] = {}
    for row in price.rows:
        known = begun.get(row.service_tier)
        if known is None or known < row.since <= at_unix or (row.since < known and known > at_unix):
            begun[row.service_tier] = row.since
    sets: dict[str, list[PriceRow]] = {}
    for row in price.rows:
        if row.since == begun[row.service_tier]:
            sets.setdefault(row.service_tier, []).append(row)
    return sets


def serving(rows: dict[str, list[PriceRow]], tiers: Iterable[str]) -> list[list[PriceRow]]:
    """Sets of the tiers that may serve. A tier that is not priced apart costs what standard does, else the dearest."""
    found: dict[str, list[PriceRow]] = {}
    for tier in tiers:
        name = tier if tier in rows else STANDARD
        found.update({name: rows[name]} if name in rows else rows)
    return list(found.values())


def reachable(steps: list[PriceRow], total_input_tokens: int) -> list[PriceRow]:
    """All steps of one tier that so much input, or less, may be billed by."""
    lowest = min(row.above_input_tokens for row in steps)
    return [row for row in steps if row.above_input_tokens == lowest or row.above_input_tokens < total_input_tokens]


def reached(steps: list[PriceRow], total_input_tokens: int) -> list[PriceRow]:
    """The step of one tier that so much input is billed by."""
    rows = reachable(steps, total_input_tokens)
    highest = max(row.above_input_tokens for row in rows)
    return [row for row in rows if row.above_input_tokens == highest]
