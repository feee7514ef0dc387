"""Anthropic's message as a stream: message_start, blocks with their deltas, message_delta, message_stop."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spendmesh_standin.framing import Frame, FrameKind
from spendmesh_standin.generation import Choice
from spendmesh_standin.reply import Context
from spendmesh_standin.tokens import seed_of

_STOP = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use", "stop_sequence": "stop_sequence"}
_DELTA_USAGE = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
    "server_tool_use",
)


@dataclass(frozen=True, slots=True)
class MessageShape:
    """What all objects of one message share; `usage` is None where it is left out."""

    context: Context
    usage: dict[str, Any] | None

    @property
    def tool_id(self) -> str:
        return f"toolu_{self.context.serial}"

    def head(self) -> dict[str, Any]:
        """The fields before `content`."""
        return {
            "model": self.context.model.snapshot,
            "id": f"msg_{self.context.serial}",
            "type": "message",
            "role": "assistant",
        }

    def stop(self, answer: Choice) -> dict[str, Any]:
        return {"stop_reason": _STOP[answer.finish], "stop_sequence": answer.stop_sequence}

    def usage_field(self) -> dict[str, Any]:
        return {} if self.usage is None else {"usage": self.usage}

    def signature(self, answer: Choice) -> str:
        """What vouches for the thinking; opaque to clients."""
        return base64.b64encode(seed_of(answer.reasoning)).decode()


def frames(shape: MessageShape, answer: Choice) -> Iterator[Frame]:
    """Every event of the stream."""
    yield _start(shape)
    index = 0
    if answer.reasoning:
        signature = {"type": "signature_delta", "signature": shape.signature(answer)}
        block = {"type": "thinking", "thinking": "", "signature": ""}
        yield _event("content_block_start", {"index": index, "content_block": block})
        yield _event("ping", {})
        for piece, count in _grouped(answer.reasoning, shape.context.chunk_tokens):
            yield _delta(index, {"type": "thinking_delta", "thinking": piece}, count)
        yield _event("content_block_delta", {"index": index, "delta": signature})
        yield _event("content_block_stop", {"index": index})
        index += 1
    if answer.pieces:
        yield _event("content_block_start", {"index": index, "content_block": _opening(shape, answer)})
        if index == 0:
            yield _event("ping", {})
        for piece, count in _grouped(answer.pieces, shape.context.chunk_tokens):
            yield _delta(index, _content(answer, piece), count)
        yield _event("content_block_stop", {"index": index}, "tail")
    yield from _end(shape, answer)


def _start(shape: MessageShape) -> Frame:
    message = {**shape.head(), "content": [], "stop_reason": None, "stop_sequence": None}
    if shape.usage is not None:
        usage = {name: value for name, value in shape.usage.items() if name != "output_tokens_details"}
        # The opening event carries the exact input and a placeholder for the output, as the real one does.
        message["usage"] = {**usage, "output_tokens": min(1, shape.usage["output_tokens"])}
    return _event("message_start", {"message": message})


def _end(shape: MessageShape, answer: Choice) -> Iterator[Frame]:
    delta: dict[str, Any] = {"delta": shape.stop(answer)}
    if shape.usage is not None:
        delta["usage"] = {name: shape.usage[name] for name in _DELTA_USAGE if name in shape.usage}
        if shape.context.effects.has("double_usage"):
            open_end = {"stop_reason": None, "stop_sequence": None}
            yield _event("message_delta", {**delta, "delta": open_end}, "tail")
    yield _event("message_delta", delta, "tail")
    yield _event("message_stop", {}, "done")


def _opening(shape: MessageShape, answer: Choice) -> dict[str, Any]:
    if answer.tool is None:
        return {"type": "text", "text": ""}
    return {"type": "tool_use", "id": shape.tool_id, "name": answer.tool.name, "input": {}}


def _content(answer: Choice, piece: str) -> dict[str, Any]:
    if answer.tool is None:
        return {"type": "text_delta", "text": piece}
    return {"type": "input_json_delta", "partial_json": piece}


def _grouped(pieces: tuple[str, ...], size: int) -> Iterator[tuple[str, int]]:
    for start in range(0, len(pieces), size):
        group = pieces[start : start + size]
        yield "".join(group), len(group)


def _delta(index: int, delta: dict[str, Any], tokens: int) -> Frame:
    return _event("content_block_delta", {"index": index, "delta": delta}, "content", tokens)


def _event(name: str, fields: dict[str, Any], kind: FrameKind = "head", tokens: int = 0) -> Frame:
    data = json.dumps({"type": name, **fields}, ensure_ascii=False, separators=(",", ":"))
    return Frame(data, name, kind, tokens)
