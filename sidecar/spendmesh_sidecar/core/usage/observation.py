"""What has been seen of one answer, gathered while its bytes pass. Knows JSON values, neither framing nor prices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from spendmesh_sidecar.core.types import Usage

MAX_FINISH_REASONS = 128
"""As many as there may be choices."""

_TEXT_MEMBERS = frozenset({"content", "refusal", "reasoning", "reasoning_content"})
_NAME = re.compile(r"[A-Za-z0-9_.:/@-]{1,128}")


class Observation(Struct, frozen=True, gc=False):
    """What the bytes so far say."""

    usage: Usage | None = None
    complete: bool = False
    """The answer ended as its protocol says it ends, so that its usage is final."""
    output_bytes: int = 0
    """Generated text, in UTF-8 bytes."""
    finish_reasons: tuple[str, ...] = ()
    response_id: str = ""
    response_model: str = ""
    error_code: str = ""
    """Set when the answer holds an error in spite of its status."""


class Answer:
    """The mutable side of an `Observation`: identity, text, ends and errors."""

    def __init__(self) -> None:
        self.response_id = ""
        self.response_model = ""
        self.error_code = ""
        self.output_bytes = 0
        self.finished: dict[object, str] = {}

    def identify(self, response_id: object, model: object) -> None:
        """Take id and model of a response object."""
        self.response_id = self.response_id or plain(response_id)
        self.response_model = self.response_model or plain(model)

    def fail(self, error: object) -> None:
        """Note an error object inside the answer."""
        self.error_code = self.error_code or error_code({"error": error}) or "error"

    @property
    def failed(self) -> bool:
        """An error came, and no text before it."""
        return bool(self.error_code) and not self.output_bytes

    def finish(self, choice: object, reason: object) -> None:
        """Note why a choice ended."""
        if isinstance(reason, str) and len(self.finished) < MAX_FINISH_REASONS:
            self.finished[choice if isinstance(choice, int) else 0] = plain(reason)

    def text(self, pieces: Iterable[object]) -> None:
        """Count generated text."""
        for piece in pieces:
            if isinstance(piece, str):
                self.output_bytes += len(piece) if piece.isascii() else len(piece.encode("utf-8", "surrogatepass"))

    def observation(self, usage: Usage | None, complete: bool) -> Observation:
        """The state so far. An answer with an error in it is never complete: its usage is not final."""
        return Observation(
            usage=usage,
            complete=complete and not self.error_code,
            output_bytes=self.output_bytes,
            finish_reasons=tuple(self.finished.values()),
            response_id=self.response_id,
            response_model=self.response_model,
            error_code=self.error_code,
        )


def plain(value: object) -> str:
    """A provider's identifier as it may stand in spans; anything else is empty."""
    return value if isinstance(value, str) and _NAME.fullmatch(value) else ""


def error_code(body: object) -> str:
    """The most telling code of an error body of any dialect, or empty."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):
        return plain(error)
    if not isinstance(error, dict):
        return ""
    details = error.get("details")
    inner = details.get("error_code") if isinstance(details, dict) else None
    return plain(inner) or plain(error.get("code")) or plain(error.get("type"))


def openai_text(message: object) -> list[object]:
    """Everything generated in an OpenAI message or delta."""
    if not isinstance(message, dict):
        return []
    pieces: list[object] = []
    for name, value in message.items():
        if name in _TEXT_MEMBERS:
            pieces.append(value)
        elif value and name == "tool_calls" and isinstance(value, list):
            pieces += [piece for call in value if isinstance(call, dict) for piece in _call_text(call)]
        elif value and name == "function_call" and isinstance(value, dict):
            pieces.append(value.get("arguments"))
    return pieces


def _call_text(call: Mapping[str, object]) -> Iterable[object]:
    for name, member in (("function", "arguments"), ("custom", "input")):
        if isinstance(function := call.get(name), dict):
            yield function.get(member)
