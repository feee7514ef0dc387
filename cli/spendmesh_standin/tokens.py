"""The stand-in's own tokenizer: counting prompts, reading directives in them, inventing reply text from a hash."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256, shake_256
from typing import Any

from spendmesh_standin.errors import invalid

# 64 words, so that one byte of a digest picks one; some are not ASCII, so that a stream can be cut inside a character.
_TEXT = (
    "amber anchor apple arrow autumn bamboo basin beacon birch bridge bronze café candle canyon cedar cinder circle "
    "clover cobalt copper coral cotton crane crystal delta dune ember falcon fern fjord flint forest garnet glacier "
    "granite harbor hazel island ivory jade jasmine kelp lagoon lantern linden maple marble meadow naïve nectar "
    "oasis olive orchid über pebble pine prairie quartz raven river saffron willow 東京 zephyr"
)
_WORDS = _TEXT.split()
_DIRECTIVE = re.compile(r"\[\[(in|out|cached|reasoning|rejected|tool)(?:=([^\]\s]{1,64}))?\]\]")
_MAX_SCHEMA_DEPTH = 8


@dataclass(frozen=True, slots=True)
class Directives:
    """What the user text asks of the stand-in: `[[out=120]] [[in=3000]] [[cached=512]] [[reasoning=40]] [[tool]]`."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None
    reasoning: int | None = None
    rejected: int | None = None
    tool: str | None = None


def read_directives(texts: Iterable[str]) -> Directives:
    """The last value of each directive in these texts. Raises 400 for a count that is not a natural number."""
    found: dict[str, str] = dict(pair for text in texts for pair in _DIRECTIVE.findall(text))

    def count(name: str) -> int | None:
        value = found.get(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit()):
            raise invalid(f"directive [[{name}={value}]]: write a natural number, as [[{name}=120]]", "messages")
        return int(value)

    return Directives(
        count("in"), count("out"), count("cached"), count("reasoning"), count("rejected"), found.get("tool")
    )


def user_texts(messages: Iterable[Any]) -> list[str]:
    """Text of the user's messages, in order; both dialects write it as a string or as parts of type `text`."""
    texts: list[str] = []
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            parts = (part.get("text") for part in content if isinstance(part, Mapping))
            texts.extend(text for text in parts if isinstance(text, str))
    return texts


def serialized(value: Any) -> bytes:
    """Compact UTF-8 JSON: the bytes that the tokenizer counts."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def count_bytes(size: int) -> int:
    """Tokens of a text of this many bytes: four bytes make one, and nothing is free. Never more than the bytes."""
    return max(1, -(-size // 4))


def count_prompt(prompt: Any, directives: Directives, *, lying: bool = False) -> int:
    """Input tokens of a prompt.

    `[[in=N]]` replaces the count; a prompt of fewer than N bytes cannot have N tokens and is refused with 400 (unless
    `lying`, where the directive only changes what is reported, so the own count stays).
    """
    size = len(serialized(prompt))
    if directives.input is None:
        return count_bytes(size)
    if directives.input > size:
        if lying:
            return count_bytes(size)
        raise invalid(
            f"directive [[in={directives.input}]]: the prompt has {size} bytes and a token is at least one byte; "
            "pad the prompt or switch the fault lying_usage on",
            "messages",
        )
    return max(1, directives.input)


def seed_of(*parts: Any) -> bytes:
    """A digest that decides the reply text."""
    return sha256(serialized(parts)).digest()


def words(seed: bytes, count: int) -> tuple[str, ...]:
    """`count` tokens of text; every one but the first begins with a space."""
    picks = shake_256(seed).digest(count)
    return tuple(("" if place == 0 else " ") + _WORDS[pick % len(_WORDS)] for place, pick in enumerate(picks))


def split_text(text: str) -> tuple[str, ...]:
    """Given text as tokens of at most four characters."""
    return tuple(text[start : start + 4] for start in range(0, len(text), 4))


def sample(schema: Any, seed: bytes, root: Any = None, depth: int = 0) -> Any:
    """A small value that fits a JSON schema's types, enums and required fields."""
    if not isinstance(schema, Mapping) or depth > _MAX_SCHEMA_DEPTH:
        return None
    root = schema if root is None else root
    if isinstance(reference := schema.get("$ref"), str):
        return sample(_resolve(root, reference), seed, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    for key in ("enum", "anyOf", "oneOf", "allOf"):
        if isinstance(options := schema.get(key), list) and options:
            return options[0] if key == "enum" else sample(options[0], seed, root, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if kind == "array":
        return [sample(schema.get("items", {"type": "string"}), seed, root, depth + 1)]
    if kind == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        names = schema.get("required", list(properties))
        return {name: sample(properties.get(name, {"type": "string"}), seed, root, depth + 1) for name in names}
    scalars: dict[Any, Any] = {"integer": 7, "number": 1.5, "boolean": True, "null": None}
    return scalars[kind] if kind in scalars else "".join(words(seed, 2))


def _resolve(root: Any, reference: str) -> Any:
    value = root
    for step in reference.removeprefix("#/").split("/"):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value
