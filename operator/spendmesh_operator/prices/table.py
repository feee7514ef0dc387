"""
The built-in price table as it is read at run time, and the text of its file.

What a provider's own prices are stands in ModelProvider; which price a call gets is decided in the sidecar's core.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

import msgspec

from spendmesh_sidecar.core.specs import ListedModel, PriceList
from spendmesh_sidecar.policy import PriceTable

_BY_DIALECT = {"OpenAI": "openai", "Anthropic": "anthropic"}


class PriceDataError(ValueError):
    """The committed table is not readable; build it again with `python -m spendmesh_operator.prices OUT`."""


class _Document(msgspec.Struct, frozen=True):
    hosts: tuple[tuple[str, str], ...]
    table: PriceTable


@dataclass(frozen=True)
class BuiltInPrices:
    """The table, and which of its lists speaks for which base URL."""

    table: PriceTable
    hosts: tuple[tuple[str, str], ...]
    """(regular expression that a base URL begins with, id of a list), in matching order."""

    def list_for(self, base_url: str, dialect: str) -> str:
        """The list of the provider that `base_url` belongs to; for an unknown host that of the dialect's inventor."""
        for pattern, list_id in self.hosts:
            if re.match(pattern, base_url.lower()):
                return list_id
        return _BY_DIALECT[dialect]

    def find(self, list_id: str, model: str) -> ListedModel | None:
        """The first entry of a list that recognizes `model`. Its `rows` are empty where it is known but unpriced."""
        name = model.lower()
        return next((entry for entry in self._models(list_id) if _recognizes(entry, name)), None)

    def _models(self, list_id: str) -> tuple[ListedModel, ...]:
        return next((prices.models for prices in self.table.lists if prices.id == list_id), ())


def _recognizes(entry: ListedModel, name: str) -> bool:
    match = entry.match
    return (
        name in match.equals
        or name.startswith(match.prefixes)
        or any(re.search(pattern, name) for pattern in match.patterns)
    )


@cache
def load_prices() -> BuiltInPrices:
    """Read the committed table. Raises PriceDataError."""
    raw = resources.files("spendmesh_operator").joinpath("data/prices.json").read_bytes()
    return parse_prices(raw)


def load_table() -> PriceTable:
    """The committed table alone."""
    return load_prices().table


def parse_prices(raw: bytes) -> BuiltInPrices:
    """Read a table that `format_prices` wrote. Raises PriceDataError."""
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except msgspec.DecodeError as error:
        raise PriceDataError(f"price table is not readable: {error}") from error
    return BuiltInPrices(document.table, document.hosts)


def subset(table: PriceTable, list_ids: Iterable[str]) -> PriceTable:
    """The part of `table` with these lists only, in the order of the table: what one policy can need."""
    wanted = frozenset(list_ids)
    return PriceTable(
        version=table.version, date=table.date, lists=tuple(prices for prices in table.lists if prices.id in wanted)
    )


def format_prices(prices: BuiltInPrices) -> bytes:
    """The file's text: one line for each model, so that a new version shows as a readable diff."""
    table = prices.table
    hosts = b",\n".join(msgspec.json.encode(pair) for pair in prices.hosts)
    lists = b",\n".join(_format_list(part) for part in table.lists)
    head = msgspec.json.encode({"format": table.format, "version": table.version, "date": table.date})[:-1]
    return b'{"hosts":[\n' + hosts + b'\n],\n"table":' + head + b',"lists":[\n' + lists + b"\n]}}\n"


def _format_list(prices: PriceList) -> bytes:
    models = b",\n".join(msgspec.json.encode(model) for model in prices.models)
    return b'{"id":' + msgspec.json.encode(prices.id) + b',"models":[\n' + models + b"\n]}"
