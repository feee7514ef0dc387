"""What a wire module is given and hands back, and what faults do to billed and reported tokens. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spendmesh_standin.errors import invalid
from spendmesh_standin.faults import Effects
from spendmesh_standin.framing import Frame
from spendmesh_standin.prices import Model, Tokens


@dataclass(frozen=True, slots=True)
class Context:
    """One request's surroundings: `serial` is the hex part of every id in the answer, `created` is Unix seconds."""

    serial: str
    created: int
    model: Model
    effects: Effects
    default_output_tokens: int
    chunk_tokens: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reported:
    """What the usage object says. `outside` reasoning tokens are shown beside the output count, not in it."""

    tokens: Tokens
    outside: int = 0

    @property
    def completion(self) -> int:
        return self.tokens.completion - self.outside


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion that is ready to be sent: `body` at once, or `frames` one by one.

    `tokens` is what it costs if it is generated to its end; `thinking_streams` says whether frames carry the thinking.
    """

    operation: str
    tokens: Tokens
    tier: str
    body: dict[str, Any] | None = None
    frames: Iterator[Frame] | None = None
    thinking_streams: bool = False
    price_percent: int = 100
    fees_nanos: int = 0


def billed(tokens: Tokens, effects: Effects, room: int) -> tuple[Tokens, int]:
    """What the attempt really consumes under the faults, and how much of its reasoning is reported outside.

    `room` is how many more output tokens the request allows: no fault bills what could not have been generated.
    """
    if (rule := effects.get("cache_writes")) is not None:
        moved = min(rule.tokens or 0, tokens.input)
        tokens = replace(tokens, input=tokens.input - moved)
        if rule.ttl == "1h":
            tokens = replace(tokens, cache_write_1h=tokens.cache_write_1h + moved)
        else:
            tokens = replace(tokens, cache_write_5m=tokens.cache_write_5m + moved)
    outside = 0
    if (rule := effects.get("reasoning_outside")) is not None:
        outside = min(rule.tokens or 0, room)
        tokens = replace(tokens, reasoning=tokens.reasoning + outside)
    if (rule := effects.get("hidden_tokens")) is not None:
        tokens = replace(tokens, hidden=min(rule.tokens or 0, room - outside))
    return tokens, outside


def reported(
    tokens: Tokens, outside: int, effects: Effects, model: Model, claimed_input: int | None
) -> Reported | None:
    """The usage that the client is shown; None where it is left out. `claimed_input` is the prompt's own directive."""
    if effects.has("no_usage"):
        return None
    if effects.has("zero_usage"):
        return Reported(Tokens())
    if (rule := effects.get("lying_usage")) is not None:
        default = claimed_input if claimed_input is not None else 10 * model.context_tokens
        prompt = rule.input_tokens if rule.input_tokens is not None else default
        output = rule.output_tokens if rule.output_tokens is not None else 10 * model.max_output_tokens
        return Reported(Tokens(input=prompt, output=output))
    return Reported(tokens, outside)


def price_percent(effects: Effects) -> int:
    rule = effects.get("tier_upgrade")
    return 100 if rule is None else rule.price_percent


def fees_nanos(effects: Effects) -> int:
    rule = effects.get("tool_fee")
    return 0 if rule is None else rule.fee_nanos or 0


def take_int(body: Mapping[str, Any], name: str, minimum: int, maximum: int | None = None) -> int | None:
    """An integer field of the request, None where absent or null. Raises 400 naming field, value and fix."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"Invalid type for '{name}': expected an integer, but got {value!r:.60} instead.", name)
    if value < minimum or (maximum is not None and value > maximum):
        top = "" if maximum is None else f" and at most {maximum}"
        raise invalid(f"Invalid '{name}': {value}; expected a value of at least {minimum}{top}.", name)
    return value


def take_list(body: Mapping[str, Any], name: str) -> list[Any]:
    """A list field that must be there and hold something. Raises 400."""
    value = body.get(name)
    if value is None:
        raise invalid(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    if not isinstance(value, list) or not value:
        raise invalid(f"Invalid '{name}': expected an array with at least one item.", name)
    return value


def take_bool(body: Mapping[str, Any], name: str) -> bool:
    """A boolean field, False where absent or null. Raises 400."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"Invalid type for '{name}': expected a boolean, but got {value!r:.60} instead.", name)
    return bool(value)
