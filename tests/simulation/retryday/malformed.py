"""Chat requests that no provider serves, however often it is asked."""

from __future__ import annotations

import json
from typing import Any, Final

TOOL: Final = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def body(**changes: Any) -> bytes:
    """A sound request with some members replaced; None takes one out."""
    whole = {"model": "medium-1", "messages": [{"role": "user", "content": "hello [[out=5]]"}], **changes}
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


SOUND: Final = body()
KINDS: Final = {
    "cut off": SOUND[:-2],
    "no model": body(model=None),
    "no messages": body(messages=None),
    "a maximum in quotes": body(max_completion_tokens="100"),
    "two maxima": body(max_completion_tokens=100, max_tokens=100),
    "no choices": body(n=0),
    "a word for a switch": body(stream="yes"),
    "a maximum beyond the model's": body(max_completion_tokens=10_000_000),
    "a tool that is not there": body(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "wether"}}),
    "options of a stream without one": body(stream_options={"include_usage": True}),
}
"""In equal parts. What they are decides how many of them a sidecar can refuse before the wire."""
