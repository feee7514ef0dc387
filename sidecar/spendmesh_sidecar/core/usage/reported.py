"""
What providers write about usage, gathered field by field and turned into disjoint classes.

Counts in a stream are cumulative: of each field the largest stands, nothing is ever added. What a report is worth is
`core.outcome`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping

from spendmesh_sidecar.core.types import Usage

MAX_TOKENS = 10**12
"""A count above this is no count: ten thousand of the largest context windows."""

Fields = Mapping[str, "str | Fields"]
"""Where the counts of a usage object stand: its members, under our own names."""

OPENAI_FIELDS: Fields = {
    "prompt_tokens": "prompt",
    "completion_tokens": "completion",
    "total_tokens": "total",
    "prompt_tokens_details": {
        "cached_tokens": "cached",
        "cache_write_tokens": "written",
        "cache_write_tokens_details": {"ttl_12h_tokens": "written_long"},
    },
    "completion_tokens_details": {"reasoning_tokens": "reasoning"},
}
ANTHROPIC_FIELDS: Fields = {
    "input_tokens": "prompt",
    "output_tokens": "completion",
    "cache_read_input_tokens": "cached",
    "cache_creation_input_tokens": "written",
    "cache_creation": {"ephemeral_5m_input_tokens": "written_default", "ephemeral_1h_input_tokens": "written_long"},
    "output_tokens_details": {"thinking_tokens": "reasoning"},
}


class Tally:
    """Usage of one answer, as far as it has been reported."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._counts: dict[str, int] = {}
        self.service_tier = ""

    def add(self, usage: object) -> bool:
        """Take a usage object; False if it reports nothing (absent, null, empty, or not counts)."""
        return self._take(usage, self._fields) if isinstance(usage, dict) else False

    def _take(self, usage: Mapping[str, object], fields: Fields) -> bool:
        reported = False
        for member, name in fields.items():
            value = usage.get(member)
            if value is None:
                continue
            if not isinstance(name, str):
                reported = (isinstance(value, dict) and self._take(value, name)) or reported
                continue
            count = value if type(value) is int and 0 <= value <= MAX_TOKENS else _count(value)
            if count is not None:
                if count >= self._counts.get(name, 0):
                    self._counts[name] = count
                reported = True
        return reported

    def openai(self) -> Usage | None:
        """
        Cached and written input are parts of `prompt_tokens`. Reasoning belongs to `completion_tokens`; where a server
        reports it beside (it is larger, or the total says so), it is billed output all the same.
        """
        counts = self._counts
        if "prompt" not in counts and "completion" not in counts:
            return None
        get = counts.get
        prompt, cached, reasoning = get("prompt", 0), get("cached", 0), get("reasoning", 0)
        written_long = get("written_long", 0)
        written = max(get("written", 0), written_long)
        return Usage(
            input_tokens=max(0, prompt - cached - written),
            cache_read_tokens=cached,
            cache_write_tokens=written - written_long,
            cache_write_long_tokens=written_long,
            output_tokens=max(_with_reasoning(get("completion", 0), reasoning), get("total", 0) - prompt),
            reasoning_tokens=reasoning,
            service_tier=self.service_tier,
        )

    def anthropic(self, long_cache: bool) -> Usage | None:
        """
        `input_tokens` is without the cache. Written input that is not broken down by lifetime counts as long if the
        request asked for any long one: the dearer is the safe reading.
        """
        counts = self._counts
        if "prompt" not in counts and "completion" not in counts:
            return None
        get = counts.get
        default, long = get("written_default", 0), get("written_long", 0)
        rest = max(0, get("written", 0) - default - long)
        reasoning = get("reasoning", 0)
        return Usage(
            input_tokens=get("prompt", 0),
            cache_read_tokens=get("cached", 0),
            cache_write_tokens=default + (0 if long_cache else rest),
            cache_write_long_tokens=long + (rest if long_cache else 0),
            output_tokens=_with_reasoning(get("completion", 0), reasoning),
            reasoning_tokens=reasoning,
            service_tier=self.service_tier,
        )


def _with_reasoning(completion: int, reasoning: int) -> int:
    return completion + reasoning if reasoning > completion else completion


def _count(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_TOKENS:
        return None
    return value
