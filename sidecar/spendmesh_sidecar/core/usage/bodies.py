"""
Usage out of whole JSON bodies. Bodies up to a size are read as JSON; of longer ones (embeddings) only both ends are
kept, and usage is looked for there.
"""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
from typing import Any

import msgspec
from msgspec import Raw, Struct

from spendmesh_sidecar.core.specs import Dialect
from spendmesh_sidecar.core.types import Usage
from spendmesh_sidecar.core.usage.observation import Answer, Observation, openai_text, plain
from spendmesh_sidecar.core.usage.reported import ANTHROPIC_FIELDS, OPENAI_FIELDS, Tally
from spendmesh_sidecar.core.usage.streams import add_anthropic_tier

MAX_BODY_BYTES = 4 << 20
"""Bodies up to here are read whole: eight times the longest chat answer (128k tokens), not counting `n`."""
HEAD_BYTES = 8 << 10
TAIL_BYTES = 64 << 10

# Inside a JSON string every quote is escaped, so this matches no text that a model wrote.
_USAGE = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*(?=\{)')
_MODEL = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*"([^"\\]{1,128})"')


class _Body(Struct, gc=False):
    """Members of any dialect's answer; what is long (embeddings) is never turned into objects."""

    id: Any = None
    model: Any = None
    service_tier: Any = None
    usage: Any = None
    error: Any = None
    stop_reason: Any = None
    choices: Any = None  # chat
    content: Any = None  # messages
    data: Raw | None = None  # embeddings


_DECODER = msgspec.json.Decoder(_Body)
_MEMBERS = msgspec.json.Decoder(dict[str, Raw])


class BodyScanner:
    """A body that is not a stream. Complete when it is a whole JSON answer without an error in it."""

    output_bytes = 0

    def __init__(self, dialect: Dialect, long_cache: bool) -> None:
        self._dialect = dialect
        self._long_cache = long_cache
        self._parts: list[bytes] = []
        self._size = 0
        self._tail = bytearray()

    @property
    def failed(self) -> bool:
        """A whole body is read at its end only."""
        return False

    def feed(self, chunk: bytes) -> None:
        """Keep the next bytes, or of a long body its ends."""
        was_long = self._size > MAX_BODY_BYTES
        self._size += len(chunk)
        if was_long:
            self._tail += chunk
            del self._tail[:-TAIL_BYTES]
            return
        self._parts.append(chunk)
        if self._size > MAX_BODY_BYTES:
            whole = b"".join(self._parts)
            self._parts = [whole[:HEAD_BYTES]]
            self._tail = bytearray(whole[-TAIL_BYTES:])

    def observe(self) -> Observation:
        """What the bytes so far say."""
        answer = Answer()
        tally = Tally(ANTHROPIC_FIELDS if self._dialect == "Anthropic" else OPENAI_FIELDS)
        if self._size > MAX_BODY_BYTES:
            complete = self._read_ends(answer, tally)
        else:
            complete = self._read_whole(b"".join(self._parts), answer, tally)
        return answer.observation(self._usage(tally), complete)

    def _usage(self, tally: Tally) -> Usage | None:
        return tally.anthropic(self._long_cache) if self._dialect == "Anthropic" else tally.openai()

    def _read_whole(self, text: bytes, answer: Answer, tally: Tally) -> bool:
        body = _read(text)
        if body is None:
            return False
        answer.identify(body.id, body.model)
        if body.error:
            answer.fail(body.error)
        _take_usage(tally, body.usage, body.service_tier)
        if body.stop_reason is not None:
            answer.finish(0, body.stop_reason)
        if body.content is not None:
            _count_blocks(answer, body.content)
        if body.choices is not None:
            _count_choices(answer, body.choices)
        return body.data is not None or body.content is not None or body.choices is not None

    def _read_ends(self, answer: Answer, tally: Tally) -> bool:
        head, tail = self._parts[0], bytes(self._tail)
        answer.response_model = next(
            (plain(found[1].decode("ascii", "replace")) for end in (tail, head) if (found := _MODEL.search(end))), ""
        )
        for end in (tail, head):
            if (usage := _last_usage(end)) is not None and tally.add(usage):
                add_anthropic_tier(tally, usage)
                return tail.rstrip().endswith(b"}")
        return False


def _read(text: bytes) -> _Body | None:
    """The body; None if it is no object. A member that cannot be read is left out, the others count all the same."""
    try:
        return _DECODER.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # perhaps in one member only
    try:
        members = _MEMBERS.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    readable = {name: _value(members[name]) for name in _Body.__struct_fields__ if name in members and name != "data"}
    return _Body(**readable, data=members.get("data"))


def _take_usage(tally: Tally, usage: object, service_tier: object) -> None:
    tally.add(usage)
    if isinstance(service_tier, str):
        tally.service_tier = service_tier[:64]
    add_anthropic_tier(tally, usage)


def _count_choices(answer: Answer, choices: object) -> None:
    for place, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, dict):
            answer.finish(choice.get("index", place), choice.get("finish_reason"))
            answer.text(openai_text(choice.get("message")))


def _count_blocks(answer: Answer, content: object) -> None:
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict):
            answer.text(block.get(name) for name in ("text", "thinking"))
            if "input" in block:
                answer.output_bytes += len(msgspec.json.encode(block["input"]))


def _value(raw: Raw) -> Any:
    """A member as Python values; None where it is unreadable."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _last_usage(text: bytes) -> object:
    places = [found.end() for found in _USAGE.finditer(text)]
    if not places:
        return None
    try:
        return JSONDecoder().raw_decode(text[places[-1] :].decode("utf-8", "replace"))[0]
    except (JSONDecodeError, RecursionError):
        return None
