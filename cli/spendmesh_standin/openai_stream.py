"""OpenAI's chat completion as a stream of chunks: role, content, finish, usage where asked, [DONE]."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from spendmesh_standin.framing import Frame, FrameKind
from spendmesh_standin.generation import Choice
from spendmesh_standin.reply import Context

FINISH = {"stop": "stop", "length": "length", "tool": "tool_calls", "stop_sequence": "stop"}


@dataclass(frozen=True, slots=True)
class ChatShape:
    """What all objects of one completion share. `logprobs` is the number of alternatives asked for, None for none."""

    context: Context
    tier: str
    usage: dict[str, Any] | None
    include_usage: bool
    include_obfuscation: bool
    logprobs: int | None

    def head(self, kind: str) -> dict[str, Any]:
        """The fields before `choices`."""
        model = self.context.model
        return {
            "id": f"chatcmpl-{self.context.serial}",
            "object": kind,
            "created": self.context.created,
            "model": model.snapshot,
            "service_tier": self.tier,
            "system_fingerprint": f"fp_{sha256(model.snapshot.encode()).hexdigest()[:10]}",
        }

    def call_id(self, index: int) -> str:
        """The id of a choice's tool call."""
        return f"call_{self.context.serial}{index}"

    def logprobs_json(self, pieces: tuple[str, ...]) -> dict[str, Any] | None:
        """Made-up log probabilities: every token was nearly certain."""
        if self.logprobs is None:
            return None
        entries = []
        for piece in pieces:
            entry = {"token": piece, "logprob": -0.125, "bytes": list(piece.encode())}
            entries.append({**entry, "top_logprobs": [entry] * min(self.logprobs, 1)})
        return {"content": entries, "refusal": None}


def frames(shape: ChatShape, answers: tuple[Choice, ...]) -> Iterator[Frame]:
    """Every event of the stream. Choices are interleaved, one chunk of each in turn."""
    for index, answer in enumerate(answers):
        yield _chunk(shape, "head", index, _opening(shape, index, answer), tokens=())
    step = shape.context.chunk_tokens
    for start in range(0, max(len(answer.pieces) for answer in answers), step):
        for index, answer in enumerate(answers):
            pieces = answer.pieces[start : start + step]
            if pieces:
                yield _chunk(shape, "content", index, _delta(answer, "".join(pieces)), tokens=pieces)
    for index, answer in enumerate(answers):
        yield _chunk(shape, "tail", index, {}, tokens=(), finish=FINISH[answer.finish])
    yield from _usage(shape)
    yield Frame("[DONE]", kind="done")


def _usage(shape: ChatShape) -> Iterator[Frame]:
    if not shape.include_usage or shape.usage is None:
        return
    chunk = {**shape.head("chat.completion.chunk"), "choices": [], "usage": shape.usage}
    for _ in range(2 if shape.context.effects.has("double_usage") else 1):
        yield Frame(_dumps(chunk), kind="tail")


def _opening(shape: ChatShape, index: int, answer: Choice) -> dict[str, Any]:
    if answer.tool is None:
        return {"role": "assistant", "content": "", "refusal": None}
    function = {"name": answer.tool.name, "arguments": ""}
    call = {"index": 0, "id": shape.call_id(index), "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}


def _delta(answer: Choice, piece: str) -> dict[str, Any]:
    if answer.tool is None:
        return {"content": piece}
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


def _chunk(
    shape: ChatShape,
    kind: FrameKind,
    index: int,
    delta: dict[str, Any],
    *,
    tokens: tuple[str, ...],
    finish: str | None = None,
) -> Frame:
    logprobs = shape.logprobs_json(tokens) if tokens else None
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    chunk: dict[str, Any] = {**shape.head("chat.completion.chunk"), "choices": [choice]}
    if shape.include_usage:
        chunk["usage"] = None
    if shape.include_obfuscation:
        chunk["obfuscation"] = sha256(f"{index}{delta}".encode()).hexdigest()[:8]
    return Frame(_dumps(chunk), kind=kind, tokens=len(tokens))


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
