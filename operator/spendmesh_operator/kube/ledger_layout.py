"""
Which BudgetLedger object holds which section of the books, and what a commit changes in which order. Pure.

An index names all shards. A commit first writes shards with what is new, then the index if shards come or go, then
takes out what was dropped or has moved: whatever is found afterwards, nothing that counts is missing. A section that
is found twice counts as its higher version says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from spendmesh_operator.ledger.stores.base import Commit

Document = dict[str, Any]

FILL_BYTES: Final = 96 * 1024
"""A new section goes to a shard that stays below it, so that what is in it has room to grow."""
SPLIT_BYTES: Final = 192 * 1024
"""A section that would make its shard larger moves out: 256 KiB is the largest object we want to give etcd, which
takes 1.5 MiB in a request and keeps each version until it compacts."""
RAISE_AFTER: Final = 64
"""Writes of a shard until the index is told its version; so the index is written seldom, and a shard that went back
by more than that many writes is noticed also by a process that has never seen it."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section as stored."""

    version: int
    document: Document
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Shard:
    """What one object holds, or shall hold. `version` grows with each write."""

    version: int
    sections: Mapping[str, Section] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of its sections as JSON."""
        return sum(section.size_bytes for section in self.sections.values())


@dataclass(frozen=True, slots=True)
class Layout:
    """All that the objects hold. `lowest`: version of each shard below which the index says that it was lost."""

    epoch: int = 0
    shards: Mapping[int, Shard] = field(default_factory=dict)
    lowest: Mapping[int, int] = field(default_factory=dict)
    stale: frozenset[int] = frozenset()
    """Shards that still hold an older copy of a section that has moved."""

    @property
    def sections(self) -> dict[str, Section]:
        """By name."""
        return {name: section for shard in self.shards.values() for name, section in shard.sections.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """The writes of one commit: `first`, then the index if `index` is given, then `last`, then deletions."""

    first: Mapping[int, Shard]
    index: Mapping[int, int] | None
    """Lowest version of every shard."""
    last: Mapping[int, Shard]
    removed: frozenset[int]
    after: Layout

    @property
    def parts(self) -> int:
        """Objects that carry the commit's id once all its sections are stored."""
        return len(self.first) + (self.index is not None)


def measure(document: Document) -> int:
    """Bytes of a section as JSON."""
    return len(json.dumps(document))


def arrange(epoch: int, lowest: Mapping[int, int], found: Mapping[int, Shard]) -> Layout:
    """The layout of what was found, each section once."""
    newest: dict[str, tuple[int, int]] = {}
    for number, shard in found.items():
        for name, section in shard.sections.items():
            newest[name] = max(newest.get(name, (-1, -1)), (section.version, number))
    stale = set()
    shards = {}
    for number, shard in found.items():
        kept = {name: section for name, section in shard.sections.items() if newest[name][1] == number}
        if len(kept) != len(shard.sections):
            stale.add(number)
        shards[number] = Shard(shard.version, kept)
    return Layout(epoch, shards, dict(lowest), frozenset(stale))


def plan(layout: Layout, commit: Commit, doubtful: Iterable[int] = (), index_doubtful: bool = False) -> Plan:
    """
    What to write for a commit.

    `doubtful`: shards whose last write may still arrive; writing them again settles that. A newer epoch writes every
    shard, so that no writer of an older one finds the version that it expects.
    """
    version = 1 + max((shard.version for shard in layout.shards.values()), default=0)
    shards = {number: dict(shard.sections) for number, shard in layout.shards.items()}
    home = {name: number for number, sections in shards.items() for name in sections}
    changed, emptied = set(), set()
    for name, document in commit.put.items():
        section = Section(version, document, measure(document))
        number = _place(shards, home.get(name), name, section.size_bytes)
        changed.add(number)
        if home.get(name, number) != number:
            emptied.add(home[name])
            del shards[home[name]][name]
        shards.setdefault(number, {})[name] = section
    for name in commit.drop - commit.put.keys():
        if name in home:
            emptied.add(home[name])
            del shards[home[name]][name]
    raises = commit.epoch > layout.epoch
    # A shard is not taken away before a newer epoch has fenced it: an older writer may just have used it.
    removed = frozenset(number for number, sections in shards.items() if not sections and not raises)
    touched = changed | layout.stale | (set(doubtful) & shards.keys()) | (set(shards) if raises else set())
    # What leaves a shard leaves it last, unless this is the only object that the commit writes.
    moves = bool(shards.keys() - layout.shards.keys() or removed)
    together = not moves and not raises and touched | emptied == touched and len(touched) == 1
    first = {
        number: Shard(version, shards[number] if together else {**_before(layout, number), **shards[number]})
        for number in sorted(touched - removed)
    }
    versions = {number: first.get(number, layout.shards.get(number, Shard(version))).version for number in shards}
    versions = {number: each for number, each in versions.items() if number not in removed}
    behind = any(each - layout.lowest.get(number, each) >= RAISE_AFTER for number, each in versions.items())
    index = versions if moves or raises or behind or index_doubtful or not first else None
    last = {} if together else {number: Shard(version + 1, shards[number]) for number in sorted(emptied - removed)}
    after = Layout(
        epoch=commit.epoch,
        shards={
            number: last.get(number) or Shard(versions[number], sections)
            for number, sections in shards.items()
            if number not in removed
        },
        lowest=layout.lowest if index is None else index,
    )
    return Plan(first, index, last, removed, after)


def _before(layout: Layout, number: int) -> Mapping[str, Section]:
    shard = layout.shards.get(number)
    return shard.sections if shard is not None else {}


def _place(shards: Mapping[int, Mapping[str, Section]], home: int | None, name: str, size_bytes: int) -> int:
    """The shard for a section: where it is while there is room, else the first with plenty, else a new one."""
    if home is not None:
        beside = sum(section.size_bytes for other, section in shards[home].items() if other != name)
        if not beside or beside + size_bytes <= SPLIT_BYTES:
            return home
    for number, sections in sorted(shards.items()):
        if number != home and size_bytes + sum(each.size_bytes for each in sections.values()) <= FILL_BYTES:
            return number
    return next(number for number in _numbers() if number not in shards)


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1
