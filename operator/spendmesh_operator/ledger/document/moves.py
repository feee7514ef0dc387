"""
Books that move from one store to another: what the heads in both say of it, and what follows. Pure.

They are copied, then closed where they were, then opened where they are. So whatever is cut short, at most one store
has open books, and a copy is opened only once nothing can be booked any more where it was made:

    here              there                     then
    open              whatever                  they are used
    nothing           nothing                   new books
    not open          open                      copied from there, over what is here
    copy of a move    closed by the same        the copy is opened
    closed by a move  copy of the same          opened again: nothing was ever booked on the copy
    anything else                               refused: what was spent must not be forgotten
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from spendmesh_operator.ledger.document.records import HEAD
from spendmesh_operator.ledger.stores.base import Document

COPY: Final = "copy"
CLOSED: Final = "closed"
"""In the place of the format's number, so that no operator that knows nothing of moves reads such books."""

Sections = Mapping[str, Document]
Verdict = Literal["use", "copy", "open"]


class NotMoved(Exception):
    """Neither store has books that may be used; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Place:
    """One of the two stores."""

    name: str
    """For people, and for the head that was moved there."""
    member: str
    """This cluster's name in the books there; empty where no others write them."""


def decide(here: Sections, there: Sections, other: Place) -> Verdict:
    """What becomes of the books in `here`; `other` is where `there` is. Raises NotMoved."""
    state, elsewhere = _state(here), _state(there)
    if state == "open" or state == elsewhere == "nothing":
        return "use"
    if elsewhere == "open":
        if HEAD not in there:
            raise NotMoved(
                f"the books in {other.name} are of an older version: start the operator on them once, then move"
            )
        if others := _others(there, other.member):
            raise NotMoved(
                f"the books in {other.name} are also those of {', '.join(others)}: they cannot move. To begin with "
                "empty books here, name no other store"
            )
        return "copy"
    if {state, elsewhere} == {COPY, CLOSED} and here[HEAD]["move"] == there[HEAD]["move"]:
        return "open"
    raise NotMoved(
        f"the books here are {_said(state)}, those in {other.name} are {_said(elsewhere)}: "
        "say where the open ones are, or restore them from a backup"
    )


def is_open(sections: Sections) -> bool:
    """Whether these are books that may be used, whatever another store has."""
    return _state(sections) == "open"


def opened(sections: Sections) -> dict[str, Document]:
    """Books with the head that they had before they were copied or closed."""
    return {**sections, HEAD: sections[HEAD]["head"]}


def copied(sections: Sections, left: Place, taken: Place) -> dict[str, Document]:
    """Open books as they are kept elsewhere: what is this cluster's carries its name there."""
    kept = {name: _renamed(document, left.member, taken.member) for name, document in sections.items()}
    kept[HEAD] = {name: value for name, value in sections[HEAD].items() if name != "members"}
    return kept


def marked(head: Document, how: str, move: str, other: Place) -> Document:
    """The head of a copy that is not open yet (from `other`), or of closed books (which went there)."""
    return {"format": how, "domain": head["domain"], "move": move, "other": other.name, "head": head}


def why_not_read(head: Document) -> str:
    """Of books that are not open, for somebody who knows of no other store; empty: they are open."""
    if head.get("format") == CLOSED:
        return f"the books were moved to {head['other']}: use that store, or name it beside this one to move them back"
    if head.get("format") == COPY:
        return f"the books have not wholly come from {head['other']}: name it beside this store, so that they can"
    return ""


def _state(sections: Sections) -> str:
    if not sections:
        return "nothing"
    how = sections.get(HEAD, {}).get("format")
    return how if how in (COPY, CLOSED) else "open"


def _said(state: str) -> str:
    return {"nothing": "missing", COPY: "an unfinished copy", CLOSED: "closed, because they were moved"}[state]


def _others(sections: Sections, member: str) -> list[str]:
    return sorted(set(sections[HEAD].get("members", {})) - {member})


def _renamed(document: Document, left: str, taken: str) -> Document:
    """Pods and budgets of the cluster that moves are called after it where others may have theirs, too."""
    renamed = dict(document)
    if "pods" in document:
        renamed["pods"] = {uid: _with_member(entry, left, taken) for uid, entry in document["pods"].items()}
    if "budgets" in document:
        renamed["budgets"] = [_with_member(entry, left, taken) for entry in document["budgets"]]
    return renamed


def _with_member(entry: dict[str, Any], left: str, taken: str) -> dict[str, Any]:
    if entry.get("member", "") != left:
        return entry
    kept = {name: value for name, value in entry.items() if name != "member"}
    return {**kept, "member": taken} if taken else kept
