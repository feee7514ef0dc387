"""What the stand-in model says: pieces of text, thinking, a tool call, why it stopped. Pure; knows no wire format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spendmesh_standin import tokens

Finish = Literal["stop", "length", "tool", "stop_sequence"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one function; its arguments are the choice's pieces joined."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: every piece is one output token."""

    pieces: tuple[str, ...]
    reasoning: tuple[str, ...]
    finish: Finish
    tool: ToolCall | None = None
    stop_sequence: str | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the request asks for. `limit` bounds thinking and text of one choice together, in tokens."""

    seed: bytes
    output: int
    reasoning: int
    limit: int
    stops: Sequence[str] = ()
    tool: tuple[str, Any] | None = None
    schema: Any = None


def generate(wanted: Wanted, choices: int = 1) -> tuple[Choice, ...]:
    """As many answers as asked, the same ones for the same request."""
    return tuple(_one(wanted, index) for index in range(choices))


def _one(wanted: Wanted, index: int) -> Choice:
    seed = wanted.seed + index.to_bytes(2, "big")
    reasoning = tokens.words(seed + b"thinking", min(wanted.reasoning, wanted.limit))
    finish: Finish = "stop"
    tool = None
    if wanted.tool is not None:
        name, parameters = wanted.tool
        tool, finish = ToolCall(name), "tool"
        pieces = tokens.split_text(_arguments(parameters, seed))
    elif wanted.schema is not None:
        pieces = tokens.split_text(json.dumps(tokens.sample(wanted.schema, seed), ensure_ascii=False))
    else:
        pieces = tokens.words(seed, wanted.output)
    pieces, stopped_by = _stop(pieces, wanted.stops) if tool is None else (pieces, None)
    if stopped_by is not None:
        finish = "stop_sequence"
    room = wanted.limit - len(reasoning)
    if len(pieces) > room:
        pieces, finish, stopped_by = pieces[:room], "length", None
    return Choice(pieces, reasoning, finish, tool, stopped_by)


def _arguments(parameters: Any, seed: bytes) -> str:
    value = tokens.sample(parameters, seed) if isinstance(parameters, Mapping) else {}
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _stop(pieces: tuple[str, ...], stops: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """Cut before the earliest stop sequence; its tokens are not part of the answer."""
    text = "".join(pieces)
    places = [(place, stop) for stop in stops if stop and (place := text.find(stop)) >= 0]
    if not places:
        return pieces, None
    end, stop = min(places)
    kept: list[str] = []
    for piece in pieces:
        if end <= 0:
            break
        kept.append(piece[:end])
        end -= len(piece)
    return tuple(kept), stop
