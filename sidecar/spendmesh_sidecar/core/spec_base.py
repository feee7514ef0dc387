"""
What every spec shares: the base type and the words of the kinds (contract §1).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Dialect = Literal["OpenAI", "Anthropic"]
Mode = Literal["Enforce", "Observe"]
Unit = Literal["Cost", "InputTokens", "OutputTokens", "TotalTokens", "Requests"]
Period = Literal["Hour", "Day", "Week", "Month", "Quarter", "Year"]
Reservation = Literal["Strict", "Streaming", "Expected"]
"""
What an attempt holds before it is sent: all that it may cost; the beginning of its output, and more as a stream shows
more; or what such calls cost as a rule.
"""
PerType = Literal["Namespace", "Workload", "Pod", "User", "Feature", "Header", "PodLabel"]
OperationName = Literal["chat", "embeddings", "messages", "count_tokens", "models"]


class Spec(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of everything that travels in a policy: immutable, camelCase on the wire, defaults left out."""
