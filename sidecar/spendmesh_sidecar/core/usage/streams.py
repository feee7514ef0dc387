"""
Usage out of streams. Each event is decoded once (about 2 µs); its bytes are never changed.

OpenAI sends usage in a chunk of its own before `[DONE]`; Anthropic opens with input and closes with cumulative output.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from spendmesh_sidecar.core.usage.observation import Answer, Observation, openai_text
from spendmesh_sidecar.core.usage.reported import ANTHROPIC_FIELDS, OPENAI_FIELDS, Fields, Tally
from spendmesh_sidecar.core.usage.sse import Event, EventReader

MAX_CHOICES = 1_024
"""Choices that are told apart; OpenAI's own bound on n is 128."""


class _Chunk(Struct, gc=False):
    """What is read of a chunk, whatever it is: nothing else becomes an object."""

    id: Any = None
    model: Any = None
    service_tier: Any = None
    choices: Any = None
    usage: Any = None
    error: Any = None


_DECODER = msgspec.json.Decoder(_Chunk)


class _Stream:
    """What both dialects' streams have: events, of which each is taken once."""

    def __init__(self, fields: Fields) -> None:
        self._events = EventReader()
        self._answer = Answer()
        self._tally = Tally(fields)

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes."""
        for event in self._events.feed(chunk):
            self._take(event)

    @property
    def output_bytes(self) -> int:
        """Generated text so far, in UTF-8 bytes."""
        return self._answer.output_bytes

    @property
    def failed(self) -> bool:
        """An error came, and no text before it."""
        return self._answer.failed

    def _flush(self) -> None:
        """An event whose last newline is missing counts too."""
        if (event := self._events.flush()) is not None:
            self._take(event, count_text=False)

    def _take(self, event: Event, count_text: bool = True) -> None:
        raise NotImplementedError


class OpenAIStream(_Stream):
    """Chat completion chunks. Complete with `[DONE]`, or with usage after every choice has finished."""

    def __init__(self) -> None:
        super().__init__(OPENAI_FIELDS)
        self._choices: set[int] = set()
        self._done = False
        self._usage_is_last = False

    def observe(self) -> Observation:
        """What the bytes so far say."""
        self._flush()
        finished = bool(self._choices) and self._choices <= self._answer.finished.keys()
        complete = self._done or (finished and self._usage_is_last)
        return self._answer.observation(self._tally.openai(), complete)

    def _take(self, event: Event, count_text: bool = True) -> None:
        if event.data == b"[DONE]":
            self._done = True
            return
        try:
            chunk = _DECODER.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return  # no JSON object: the client's to understand
        answer = self._answer
        if not answer.response_model:
            answer.identify(chunk.id, chunk.model)
        if chunk.error or event.name == b"error":
            answer.fail(chunk.error)
        if isinstance(chunk.service_tier, str):
            self._tally.service_tier = chunk.service_tier[:64]
        choices = chunk.choices
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._choice(choice, count_text)
        reported = chunk.usage is not None and self._tally.add(chunk.usage)
        self._usage_is_last = reported or (self._usage_is_last and not choices)

    def _choice(self, choice: dict[str, Any], count_text: bool) -> None:
        index = choice.get("index")
        if not isinstance(index, int) or len(self._choices) >= MAX_CHOICES:
            index = 0
        self._choices.add(index)
        if (reason := choice.get("finish_reason")) is not None:
            self._answer.finish(index, reason)
        if count_text:
            self._answer.text(openai_text(choice.get("delta")))


class AnthropicStream(_Stream):
    """Message events. Complete with `message_stop`, or with the `message_delta` that has stop reason and usage."""

    def __init__(self, long_cache: bool) -> None:
        super().__init__(ANTHROPIC_FIELDS)
        self._long_cache = long_cache
        self._complete = False

    def observe(self) -> Observation:
        """What the bytes so far say."""
        self._flush()
        return self._answer.observation(self._tally.anthropic(self._long_cache), self._complete)

    def _take(self, event: Event, count_text: bool = True) -> None:
        value = _object(event.data)
        if value is None:
            return
        delta = value.get("delta")
        match value.get("type") or event.name.decode("ascii", "replace"):
            case "content_block_delta":
                if count_text and isinstance(delta, dict):
                    self._answer.text(delta.get(name) for name in ("text", "partial_json", "thinking"))
            case "message_start":
                if isinstance(message := value.get("message"), dict):
                    self._answer.identify(message.get("id"), message.get("model"))
                    self._usage(message.get("usage"))
            case "message_delta":
                reported = self._usage(value.get("usage"))
                if isinstance(delta, dict) and delta.get("stop_reason") is not None:
                    self._answer.finish(0, delta["stop_reason"])
                    self._complete = self._complete or reported
            case "message_stop":
                self._complete = True
            case "error":
                self._answer.fail(value.get("error"))

    def _usage(self, usage: object) -> bool:
        add_anthropic_tier(self._tally, usage)
        return self._tally.add(usage)


def add_anthropic_tier(tally: Tally, usage: object) -> None:
    """Fast mode is written as a speed; prices have it as a service tier."""
    if isinstance(usage, dict):
        tier = "fast" if usage.get("speed") == "fast" else usage.get("service_tier")
        if isinstance(tier, str):
            tally.service_tier = tier[:64]


def _object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in an event; None for anything else, which is the client's to understand."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
