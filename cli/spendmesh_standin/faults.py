"""Fault switches: which rule applies to which request, decided from a seed and a clock handed in. Acts on nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

Bill = Literal["none", "input", "streamed", "full"]
Action = Literal[
    "status",  # answer with `status` instead of a completion
    "reset",  # cut the connection before headers
    "reset_after_chunks",  # cut it after `chunks` content chunks (half the body where nothing is streamed)
    "hang",  # say nothing before headers: `seconds`, or until the client leaves
    "stall",  # say nothing more after `chunks` content chunks: `seconds`, or until the client leaves
    "slow",  # `ttft_seconds` before the first byte, `chunk_seconds` before every content chunk
    "error_event",  # 200, then an error event after `chunks` content chunks
    "error_in_200",  # an error object where the completion should be, with status 200
    "no_usage",  # usage left out
    "zero_usage",  # every count of usage is 0
    "double_usage",  # a stream reports usage twice
    "lying_usage",  # usage reports `input_tokens` and `output_tokens`, above the physical maximum unless given
    "hidden_tokens",  # `tokens` output tokens billed that usage does not show
    "cache_writes",  # `tokens` of the prompt billed as a cache write of `ttl`
    "reasoning_outside",  # `tokens` of thinking billed and reported beside the output count, not in it
    "tool_fee",  # `fee_nanos` billed on top, as for a server-side tool
    "tier_upgrade",  # served and billed as `tier`, the model's rates for it times `price_percent`
    "disconnect_billing",  # what a call costs whose client left: `bill`
    "framing",  # write the stream in the given `styles`
    "withhold",  # hold chunk k+1 back until chunk k is acknowledged
]
Style = Literal["crlf", "cr", "comments", "no_space", "split_utf8", "one_byte", "no_done", "after_done", "gzip"]

_SELECTORS = ("model", "path", "provider", "account", "stream", "probability", "first", "after", "between")
_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "status": (
        "status",
        "retry_after",
        "retry_after_ms",
        "retry_after_date_seconds",
        "should_retry",
        "type",
        "code",
        "message",
        "bill",
    ),
    "reset": ("bill",),
    "reset_after_chunks": ("chunks", "bill", "clean"),
    "hang": ("seconds", "bill"),
    "stall": ("chunks", "seconds", "bill"),
    "slow": ("ttft_seconds", "chunk_seconds"),
    "error_event": ("chunks", "bill", "type", "code", "message"),
    "error_in_200": ("bill", "type", "code", "message"),
    "lying_usage": ("input_tokens", "output_tokens"),
    "hidden_tokens": ("tokens",),
    "cache_writes": ("tokens", "ttl"),
    "reasoning_outside": ("tokens",),
    "tool_fee": ("fee_nanos",),
    "tier_upgrade": ("tier", "price_percent"),
    "disconnect_billing": ("bill",),
    "framing": ("styles",),
}
_REQUIRED: Mapping[str, str] = {
    "status": "status",
    "hidden_tokens": "tokens",
    "cache_writes": "tokens",
    "reasoning_outside": "tokens",
    "tool_fee": "fee_nanos",
    "disconnect_billing": "bill",
    "framing": "styles",
}
# These answer instead of the model, so only the first that applies acts.
_TERMINAL = ("status", "reset", "error_in_200")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    # Which requests. Patterns are shell globs; a rule without `path` leaves the free operations alone.
    model: str = "*"
    path: str | None = None
    provider: str = "*"
    account: str = "*"
    stream: bool | None = None
    probability: float = 1.0
    first: int | None = None  # apply to this many requests at most
    after: int = 0  # leave this many matching requests alone first
    between: tuple[float, float] | None = None  # seconds since the plan was set: [from, to)
    # What it does; `Action` says which of these each action reads.
    status: int | None = None
    retry_after: int | float | str | None = None  # sent as it is: seconds, or any text
    retry_after_ms: int | None = None
    retry_after_date_seconds: float | None = None  # sent as the HTTP date that many seconds ahead
    should_retry: bool | None = None
    type: str | None = None
    code: str | None = None
    message: str | None = None
    bill: Bill | None = None
    chunks: int = 1
    clean: bool = False  # end the connection with FIN instead of RST
    seconds: float | None = None
    ttft_seconds: float = 0.0
    chunk_seconds: float = 0.0
    tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    ttl: Literal["5m", "1h"] = "5m"
    fee_nanos: int | None = None
    tier: str = "priority"
    price_percent: int = 100
    styles: tuple[Style, ...] | None = None


@dataclass(frozen=True, slots=True)
class FaultRule(_Fields):
    """One switch: an action, which requests it is for, and its parameters.

    `FaultRule("status", status=503, model="small-*", first=3, bill="full")`. Raises ValueError for an unknown action,
    for a parameter that the action does not read, and for one that it lacks.
    """

    action: Action

    def __post_init__(self) -> None:
        if self.action not in get_args(Action):
            raise ValueError(f"action: {self.action!r} is none of {', '.join(get_args(Action))}")
        allowed = (*_SELECTORS, *_PARAMETERS.get(self.action, ()))
        for spec in fields(_Fields):
            if spec.name not in allowed and getattr(self, spec.name) != spec.default:
                raise ValueError(
                    f"{spec.name}: the action {self.action} does not read it; it reads {', '.join(allowed)}"
                )
        needed = _REQUIRED.get(self.action)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(f"{needed}: the action {self.action} needs it")
        if self.bill is not None and self.bill not in get_args(Bill):
            raise ValueError(f"bill: {self.bill!r} is none of {', '.join(get_args(Bill))}")
        for style in self.styles or ():
            if style not in get_args(Style):
                raise ValueError(f"styles: {style!r} is none of {', '.join(get_args(Style))}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability: {self.probability} is not between 0 and 1")

    @classmethod
    def parse(cls, data: Any) -> FaultRule:
        """A rule from its JSON form: an object of the same names. Raises ValueError or TypeError naming the field."""
        if not isinstance(data, Mapping):
            raise TypeError(f"rule: {data!r} is not an object")
        known = {spec.name for spec in fields(cls)}
        for name in data:
            if name not in known:
                raise ValueError(f"{name}: no such field; a rule has {', '.join(sorted(known))}")
        values = dict(data)
        if isinstance(values.get("styles"), str):
            values["styles"] = (values["styles"],)
        for name in ("styles", "between"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        if "action" not in values:
            raise ValueError(f"action: missing; one of {', '.join(get_args(Action))}")
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a rule may look at. `free` marks operations that are never billed."""

    model: str
    path: str
    provider: str
    account: str
    stream: bool
    free: bool = False


class Effects:
    """The rules that act on one request, at most one for each action."""

    def __init__(self, rules: Iterable[FaultRule] = ()) -> None:
        self._rules: dict[str, FaultRule] = {}
        for rule in rules:
            self._rules.setdefault(rule.action, rule)

    def get(self, action: Action) -> FaultRule | None:
        """The rule for this action, if one acts."""
        return self._rules.get(action)

    def has(self, action: Action) -> bool:
        return action in self._rules

    @property
    def styles(self) -> tuple[Style, ...]:
        rule = self._rules.get("framing")
        return (rule.styles or ()) if rule is not None else ()


class FaultPlan:
    """The active list of rules with their counters. The same seed and requests give the same faults."""

    def __init__(self, rules: Iterable[FaultRule] = (), *, seed: int = 0, now: float = 0.0) -> None:
        self.rules = tuple(rules)
        self.seen = [0] * len(self.rules)
        self.applied = [0] * len(self.rules)
        self._rngs = [random.Random(f"{seed}:{index}") for index in range(len(self.rules))]
        self._start = now

    @classmethod
    def parse(cls, data: Any, *, now: float) -> FaultPlan:
        """A plan from JSON: a list of rules, or `{"seed": 7, "rules": […]}`. Raises ValueError or TypeError."""
        seed = 0
        if isinstance(data, Mapping):
            unknown = set(data) - {"seed", "rules"}
            if unknown:
                raise ValueError(f"{min(unknown)}: no such field; a plan has seed and rules")
            seed, data = data.get("seed", 0), data.get("rules", [])
        if not isinstance(data, list) or not isinstance(seed, int):
            raise TypeError("plan: write a list of rules, or an object with an integer seed and a list rules")
        rules = []
        for index, item in enumerate(data):
            try:
                rules.append(FaultRule.parse(item))
            except (ValueError, TypeError) as error:
                raise ValueError(f"rules[{index}].{error}") from error
        return cls(rules, seed=seed, now=now)

    def effects(self, request: Seen, now: float) -> Effects:
        """What acts on this request; counts it."""
        acting: list[FaultRule] = []
        terminal = False
        for index, rule in enumerate(self.rules):
            if not _matches(rule, request):
                continue
            self.seen[index] += 1
            if self.seen[index] <= rule.after or (terminal and rule.action in _TERMINAL):
                continue
            if rule.between is not None and not rule.between[0] <= now - self._start < rule.between[1]:
                continue
            if rule.probability < 1.0 and self._rngs[index].random() >= rule.probability:
                continue
            if rule.first is not None and self.applied[index] >= rule.first:
                continue
            self.applied[index] += 1
            terminal = terminal or rule.action in _TERMINAL
            acting.append(rule)
        return Effects(acting)

    def counts(self) -> list[dict[str, Any]]:
        """How often each rule matched a request and how often it acted."""
        pairs = zip(self.rules, self.seen, self.applied, strict=True)
        return [{"action": rule.action, "seen": seen, "applied": applied} for rule, seen, applied in pairs]


def _matches(rule: FaultRule, request: Seen) -> bool:
    if request.free if rule.path is None else not fnmatchcase(request.path, rule.path):
        return False
    return (
        fnmatchcase(request.model, rule.model)
        and fnmatchcase(request.provider, rule.provider)
        and fnmatchcase(request.account, rule.account)
        and rule.stream in (None, request.stream)
    )
