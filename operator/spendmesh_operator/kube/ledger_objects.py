"""
The BudgetLedger objects of one domain: how the index and a shard are written, read and checked. Pure.

The index is named after the domain, shards `<domain>.shard-<n>`. No domain ends so by accident: a cluster name with a
part `shard-1` at its end is refused by the chart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from spendmesh_operator.kube.ledger_layout import Section, Shard, measure
from spendmesh_operator.ledger.document import format_one
from spendmesh_operator.ledger.stores.base import Document, Fenced, Unavailable
from spendmesh_operator.manifests import API_VERSION

Json = dict[str, Any]

FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class Mark:
    """Who wrote an object last: the commit, and how many objects carry its id once it is whole."""

    epoch: int
    commit: str
    parts: int


@dataclass(frozen=True, slots=True)
class Index:
    """What names the shards. `older`: the books of format 1, which were in this object as one document."""

    mark: Mark
    lowest: Mapping[int, int]
    older: Document | None = None


def shard_name(domain: str, number: int) -> str:
    """Name of a shard's object."""
    return f"{domain}.shard-{number}"


def index_body(domain: str, resource_version: str, index: Index) -> Json:
    """The index as an object; an empty version is for one that is not there yet."""
    if index.older is not None:
        spec: Json = {"format": format_one.FORMAT, "books": index.older}
    else:
        shards = [{"name": shard_name(domain, number), "version": low} for number, low in sorted(index.lowest.items())]
        spec = {"format": FORMAT, "books": {}, "shards": shards}
    return _body(domain, resource_version, spec, index.mark)


def shard_body(domain: str, number: int, resource_version: str, shard: Shard, mark: Mark) -> Json:
    """A shard as an object."""
    books = {name: {"version": one.version, "document": one.document} for name, one in shard.sections.items()}
    spec = {"format": FORMAT, "version": shard.version, "books": books}
    return _body(shard_name(domain, number), resource_version, spec, mark)


def read_index(domain: str, stored: Json) -> Index:
    """Raises Unavailable for a format that only a newer operator knows."""
    spec = stored["spec"]
    if spec["format"] > FORMAT:
        raise Unavailable(f"the books have format {spec['format']}, this operator knows {FORMAT}: upgrade it")
    if spec["format"] == format_one.FORMAT:
        return Index(_mark(spec), {}, spec["books"])
    prefix = shard_name(domain, 0).removesuffix("0")
    shards = spec.get("shards") or []
    return Index(_mark(spec), {int(one["name"].removeprefix(prefix)): one["version"] for one in shards})


def read_shard(stored: Json) -> tuple[Shard, Mark]:
    """What an object holds, and who wrote it."""
    spec = stored["spec"]
    sections = {
        name: Section(one["version"], one["document"], measure(one["document"])) for name, one in spec["books"].items()
    }
    return Shard(spec["version"], sections), _mark(spec)


def check_shards(domain: str, index: Index, found: Mapping[int, tuple[Shard, Mark]]) -> None:
    """Raises Fenced if an object is missing or older than it must be: what was in it is spent all the same."""
    restore = "restore the BudgetLedgers of this namespace from the same backup, see docs/ledger.md"
    for number, lowest in index.lowest.items():
        name = shard_name(domain, number)
        if number not in found:
            raise Fenced(f"the BudgetLedger {name} is missing, and a part of the books with it: {restore}")
        shard, mark = found[number]
        if shard.version < lowest:
            raise Fenced(f"the BudgetLedger {name} has version {shard.version}, it had {lowest} before: {restore}")
        if mark.epoch > index.mark.epoch:
            older, newer = index.mark.epoch, mark.epoch
            raise Fenced(f"the BudgetLedger {domain} is of epoch {older}, its part {name} of epoch {newer}: {restore}")


def whole_commits(marks: list[Mark]) -> frozenset[str]:
    """Ids of commits of which every object was written."""
    return frozenset(mark.commit for mark in marks if sum(mark.commit == other.commit for other in marks) >= mark.parts)


def _mark(spec: Json) -> Mark:
    return Mark(spec["epoch"], spec["commit"], spec.get("parts", 1))


def _body(name: str, resource_version: str, spec: Json, mark: Mark) -> Json:
    metadata = {"name": name, **({"resourceVersion": resource_version} if resource_version else {})}
    written_by = {"epoch": mark.epoch, "commit": mark.commit, "parts": mark.parts}
    return {"apiVersion": API_VERSION, "kind": "BudgetLedger", "metadata": metadata, "spec": {**written_by, **spec}}
