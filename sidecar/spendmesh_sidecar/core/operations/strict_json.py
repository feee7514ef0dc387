"""
JSON as a request body may be written: one reading that no other reader can read differently where money is concerned.

Values stay raw until somebody needs them. Knows no field names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from json import JSONDecodeError, loads
from typing import Literal

import msgspec
from msgspec import Raw

from spendmesh_sidecar.core.operations.errors import RequestError, invalid, shown

MAX_DEPTH = 128
"""Nested arrays and objects; serde_json's recursion limit. JSON schemas in tools have far less."""
MAX_NUMBER_CHARACTERS = 32
"""A double prints in at most 24 characters; longer numbers are read differently by different readers."""
MAX_COUNT = 2**53 - 1
"""The largest integer that every JSON reader keeps exact (RFC 8259 §6)."""
MAX_COUNT_DIGITS = len(str(MAX_COUNT))

Kind = Literal["object", "array", "string", "number", "boolean", "null"]

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_ARRAY = msgspec.json.Decoder(list[Raw])
_STRING = msgspec.json.Decoder(str)
_BRACE, _BRACKET, _QUOTE, NULL = b'{["n'
"""First bytes of values."""
_KINDS: dict[int, Kind] = {
    _BRACE: "object",
    _BRACKET: "array",
    _QUOTE: "string",
    ord("t"): "boolean",
    ord("f"): "boolean",
    NULL: "null",
    **dict.fromkeys(b"-0123456789", "number"),
}

_KEY = re.compile(rb'[{,]?[ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_BLANK = re.compile(rb"[ \t\r\n]*")
_NEXT = re.compile(rb"[ \t\r\n]*(?=[,}])")
_END = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_STEPS = {ord("["): 1, ord("]"): -1}


def read_body(body: bytes) -> dict[str, Raw]:
    """
    Top-level members of a request body, in order.

    Raises RequestError for what is not UTF-8, not JSON (so also for a byte order mark and for NaN), not an object,
    nested deeper than `MAX_DEPTH`, or has a member twice at the top.
    """
    if not body:
        raise invalid("The request has no body; send a JSON object")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise invalid(f"The body is not UTF-8 (byte {error.start})") from error
    members = _decode_object(body, "")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _depth(body) > MAX_DEPTH:
        raise _too_deep()
    if len(body) != _compact_size(members):
        _refuse_duplicates(body, members, "")
    for name, raw in members.items():
        if len(memoryview(raw)) > MAX_NUMBER_CHARACTERS and kind_of(raw) == "number":
            raise invalid(f"{shown(name)}: this number has more than {MAX_NUMBER_CHARACTERS} characters", shown(name))
    return members


def read_object(raw: Raw, path: str) -> dict[str, Raw]:
    """Members of an object, none of them twice. Raises RequestError naming `path`."""
    text = memoryview(raw)
    if text[0] != _BRACE:
        raise invalid(f"{path}: must be an object, not {article(kind_of(raw))}", path)
    members = _decode_object(raw, path)
    if len(text) != _compact_size(members):
        _refuse_duplicates(bytes(raw), members, path)
    return members


def read_array(raw: Raw, path: str) -> list[Raw]:
    """Items of an array. Raises RequestError naming `path`."""
    if memoryview(raw)[0] != _BRACKET:
        raise invalid(f"{path}: must be an array, not {article(kind_of(raw))}", path)
    return _ARRAY.decode(raw)


def read_string(raw: Raw, path: str) -> str:
    """Raises RequestError naming `path`."""
    if memoryview(raw)[0] != _QUOTE:
        raise invalid(f"{path}: must be a string, not {article(kind_of(raw))}", path)
    return _STRING.decode(raw)


def read_boolean(raw: Raw, path: str) -> bool:
    """Raises RequestError naming `path`."""
    if kind_of(raw) != "boolean":
        raise invalid(f"{path}: must be true or false, not {article(kind_of(raw))}", path)
    return bytes(raw) == b"true"


def read_count(raw: Raw, path: str, minimum: int = 0, maximum: int = MAX_COUNT) -> int:
    """A natural number written as one: no fraction, no exponent. Raises RequestError naming `path`."""
    text = bytes(raw)
    if not text.isdigit() or len(text) > MAX_COUNT_DIGITS or not minimum <= int(text) <= maximum:
        raise invalid(f"{path}: must be a whole number from {minimum} to {maximum}", path)
    return int(text)


def kind_of(raw: Raw) -> Kind:
    """The kind of a value that has been read as part of a body."""
    return _KINDS[memoryview(raw)[0]]


def given(members: Mapping[str, Raw]) -> dict[str, Raw]:
    """The members that are not `null`, which is the same as absent in every API that we speak."""
    return {name: raw for name, raw in members.items() if memoryview(raw)[0] != NULL}


def article(kind: Kind) -> str:
    """The kind as it stands in a sentence."""
    return {"object": "an object", "array": "an array", "null": "null"}.get(kind, f"a {kind}")


def _decode_object(raw: bytes | Raw, path: str) -> dict[str, Raw]:
    try:
        return _OBJECT.decode(raw)
    except RecursionError as error:
        raise _too_deep() from error
    except msgspec.ValidationError as error:
        raise invalid("The body must be a JSON object", path) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        place = re.search(r"\(byte \d+\)", str(error))
        raise invalid(f"The body is not valid JSON {place[0] if place else ''}".rstrip(), path) from error


def _compact_size(members: dict[str, Raw]) -> int:
    """
    The size of an object of these members without a space, an escaped name, or a name that is there twice.

    Each of the three only adds bytes, so an object of exactly this size has none of them: SDKs write such objects.
    """
    names = "".join(members)
    size = len(names) if names.isascii() else len(names.encode())
    for raw in members.values():
        size += len(memoryview(raw))
    return size + 4 * len(members) + (1 if members else 2)


def _refuse_duplicates(text: bytes, members: dict[str, Raw], path: str) -> None:
    """
    Read the object once more by its members; whoever left one out has met a name twice.

    The decoder keeps the last of equal names, at the place of the first, so a text with a repeated name (also one
    repeated with escapes) differs from its members at some step or has something left at the end.
    """
    start = _BLANK.match(text)
    place = start.end() if start else 0
    for name, raw in members.items():
        key = _KEY.match(text, place)
        if key is None or not _same_name(key[1], name):
            raise _duplicate(text, path)
        value = memoryview(raw)
        place = key.end() + len(value)
        if text[key.end() : place] != value:
            raise _duplicate(text, path)
        if following := _NEXT.match(text, place):
            place = following.end()
    end = _END.match(text, place) if members else True
    if not end:
        raise _duplicate(text, path)


def _same_name(written: bytes, name: str) -> bool:
    if b"\\" not in written:
        return written == name.encode()
    return _STRING.decode(b'"' + written + b'"') == name


def _duplicate(text: bytes, path: str) -> RequestError:
    """The error, with the name if another reading of the (shallow enough) text finds it."""
    names: list[str] = []

    def note(pairs: list[tuple[str, object]]) -> None:
        nonlocal names
        names = [name for name, _ in pairs]  # the outermost object comes last

    try:
        loads(text, object_pairs_hook=note)
    except (JSONDecodeError, RecursionError, ValueError):
        names = []
    twice = next((shown(name) for name, count in Counter(names).items() if count > 1), "a member")
    place = f"{path}.{twice}" if path else twice
    return invalid(f"{place}: is there twice; send each member once", place)


def _depth(body: bytes) -> int:
    """Depth of well-formed JSON, in time that grows with its size alone."""
    outside = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]  # no escaped quote is left to mislead
    brackets = b"".join(outside).translate(_AS_SQUARE, _NOT_BRACKETS)
    rounds = 0
    while brackets and rounds < 3:  # most are pairs of few levels, and quicker gone than counted
        brackets = brackets.replace(b"[]", b"")
        rounds += 1
    return rounds + max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _too_deep() -> RequestError:
    return invalid(f"The body is nested deeper than {MAX_DEPTH} levels")
