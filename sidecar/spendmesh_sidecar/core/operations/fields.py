"""
The language of the field tables: which members of a body are free, which are priced, and what is neither.

A table is a tree of checks keyed by member names and discriminators (`tools[].type`). A walk over a body collects
what the tables count and names every member that they do not know. What the members mean stands in `openai` and
`anthropic`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

from msgspec import Raw, Struct

from spendmesh_sidecar.core.operations.errors import invalid, shown
from spendmesh_sidecar.core.operations.strict_json import (
    NULL,
    Kind,
    article,
    kind_of,
    read_array,
    read_object,
    read_string,
)

MAX_UNPRICED = 16
"""Paths that are collected: more would not make the refusal clearer."""
MAX_ITEMS = 100_000
"""Items of all walked lists together; Anthropic takes at most 100,000 messages. Half a second of work, so bounded."""


class Findings(Struct, gc=False):
    """What one walk brings together."""

    items: int = 0
    unpriced: list[str] = []
    image_bytes: int = 0
    """Bytes of the body that are pictures or their addresses: they are bounded per picture instead."""
    images: int = 0
    messages: int = 0
    overhead_tokens: int = 0
    """What the provider adds for tools and documents, as an upper bound."""
    cache_writes: set[Literal["default", "long"]] = set()

    def refuse(self, path: str) -> None:
        """Note a member that nobody can price."""
        if len(self.unpriced) < MAX_UNPRICED:
            self.unpriced.append(path)


Check = Callable[[Raw, str, Findings], None]
Table = Mapping[str, Check | None]
"""Members that are known; None is free: any value, not looked at."""

FREE: None = None


def free(*names: str) -> dict[str, Check | None]:
    """Members whose value costs nothing but the bytes it has."""
    return dict.fromkeys(names, FREE)


def walk(members: Mapping[str, Raw], table: Table, path: str, findings: Findings) -> None:
    """Check the members of one object but for those that are `null`, as absent ones."""
    for name, raw in members.items():
        check = table.get(name, _unknown)
        if check is not None and memoryview(raw)[0] != NULL:
            plain = name if check is not _unknown else shown(name)  # what the tables know is plain
            check(raw, f"{path}.{plain}" if path else plain, findings)


def members_of(table: Table) -> Check:
    """An object with these members."""

    def check(raw: Raw, path: str, findings: Findings) -> None:
        walk(read_object(raw, path), table, path, findings)

    return check


def items_of(item: Check) -> Check:
    """An array of these."""

    def check(raw: Raw, path: str, findings: Findings) -> None:
        items = read_array(raw, path)
        findings.items += len(items)
        if findings.items > MAX_ITEMS:
            raise invalid(f"{path}: more than {MAX_ITEMS:,} items in one request", path)
        for place, each in enumerate(items):
            item(each, f"{path}[{place}]", findings)

    return check


def tagged(variants: Mapping[str, Table], absent: str = "") -> Check:
    """An object whose `type` says which members it may have; without one it is of type `absent`."""

    def check(raw: Raw, path: str, findings: Findings) -> None:
        members = read_object(raw, path)
        tag = members.get("type")
        named = absent if tag is None or kind_of(tag) == "null" else read_string(tag, f"{path}.type")
        if not named:
            raise invalid(f"{path}.type: is missing", f"{path}.type")
        table = variants.get(named)
        if table is None:
            findings.refuse(f"{path}.type={shown(named)}")
        else:
            walk(members, table, path, findings)

    return check


def by_kind(checks: Mapping[Kind, Check | None]) -> Check:
    """A value that may be written in several ways, such as text or a list of parts."""

    def check(raw: Raw, path: str, findings: Findings) -> None:
        kind = kind_of(raw)
        if kind not in checks:
            wanted = " or ".join(article(each) for each in checks)
            raise invalid(f"{path}: must be {wanted}, not {article(kind)}", path)
        if (chosen := checks[kind]) is not None:
            chosen(raw, path, findings)

    return check


def one_of(values: Collection[str]) -> Check:
    """A string of which only these values are known."""

    def check(raw: Raw, path: str, findings: Findings) -> None:
        value = read_string(raw, path)
        if value not in values:
            findings.refuse(f"{path}={shown(value)}")

    return check


def lasting(lifetimes: Mapping[str, Literal["default", "long"]]) -> Check:
    """How long something shall stay in a cache: that it is written, and at which price."""

    def check(raw: Raw, path: str, findings: Findings) -> None:
        value = read_string(raw, path)
        if (lifetime := lifetimes.get(value)) is None:
            findings.refuse(f"{path}={shown(value)}")
        else:
            findings.cache_writes.add(lifetime)

    return check


def picture(raw: Raw, path: str, findings: Findings) -> None:
    """Bytes or the address of one picture."""
    read_string(raw, path)
    findings.images += 1
    findings.image_bytes += len(memoryview(raw))


def adding(tokens: int, check: Check) -> Check:
    """A value for whose presence the provider puts tokens of its own into the prompt."""

    def added(raw: Raw, path: str, findings: Findings) -> None:
        findings.overhead_tokens += tokens
        check(raw, path, findings)

    return added


def refused(unpriced: Iterable[str], allowed: Collection[str]) -> tuple[str, ...]:
    """
    The unpriced fields that a provider's `allowedFields` do not accept.

    `tools[3].type=web_search` is accepted by `tools[].type=web_search`, `tools[].type` and `tools`: an entry stands
    for the member and everything below it.
    """
    return tuple(path for path in unpriced if not _accepted(re.sub(r"\[\d+\]", "[]", path), allowed))


def _accepted(path: str, allowed: Collection[str]) -> bool:
    borders = [place for place, character in enumerate(path) if character in ".[="]
    return any(path[:end] in allowed or path[:end] + "[]" in allowed for end in (*borders, len(path)))


def _unknown(raw: Raw, path: str, findings: Findings) -> None:
    findings.refuse(path)
