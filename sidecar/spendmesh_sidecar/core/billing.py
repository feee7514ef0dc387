"""
Which failures are free: one sourced table (dialect × outcome × bytes seen), overridable by rules put before it.

Data only. A failed attempt that no rule knows is charged at worst (contract §4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spendmesh_sidecar.core.specs import Dialect
from spendmesh_sidecar.core.types import Kind, Outcome

Charge = Literal["void", "input", "worst", "exact"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRule:
    """One row. All that is set must fit; an empty member fits everything."""

    charge: Charge
    source: str
    """Who says so."""
    dialect: Dialect | None = None
    kind: Kind | None = None
    statuses: frozenset[int] = frozenset()
    codes: frozenset[str] = frozenset()
    output_seen: bool | None = False
    """Whether part of an answer came. None: either way."""

    def fits(self, dialect: Dialect, outcome: Outcome) -> bool:
        """Whether this row speaks about an attempt that ended so."""
        seen = outcome.usage is not None or outcome.output_bytes > 0
        return (
            (self.dialect is None or self.dialect == dialect)
            and (self.kind is None or self.kind is outcome.kind)
            and (not self.statuses or outcome.status in self.statuses)
            and (not self.codes or outcome.error_code in self.codes)
            and (self.output_seen is None or self.output_seen == seen)
        )


# The request was refused by a check of its form, before any model read it.
_VALIDATION_CODES = frozenset(
    {
        "decimal_above_max_value",
        "decimal_below_min_value",
        "integer_above_max_value",
        "integer_below_min_value",
        "invalid_api_key",
        "invalid_parameter_combination",
        "invalid_type",
        "invalid_value",
        "missing_required_parameter",
        "model_not_found",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
    }
)

CHARGES: tuple[ChargeRule, ...] = (
    ChargeRule(
        charge="void",
        kind=Kind.CONNECT,
        source="nothing was sent",
    ),
    ChargeRule(
        charge="void",
        kind=Kind.KEY_MISSING,
        source="nothing was sent",
    ),
    ChargeRule(
        charge="void",
        kind=Kind.UNWRITTEN,
        source="nothing was sent",
    ),
    ChargeRule(
        charge="void",
        statuses=frozenset({401, 402, 403, 404, 405, 413, 415, 429, 529}),
        source="refused before a model was reached; Azure names 401 and 429 as free, OpenAI Flex 429 (contract §4)",
    ),
    ChargeRule(
        charge="void",
        dialect="Anthropic",
        statuses=frozenset({400, 409, 422}),
        source="Anthropic support FAQ: failed requests are not charged",
    ),
    ChargeRule(
        charge="void",
        dialect="OpenAI",
        statuses=frozenset({400, 422}),
        codes=_VALIDATION_CODES,
        source="OpenAI API reference, error codes: the parameters were refused",
    ),
    ChargeRule(
        charge="input",
        dialect="OpenAI",
        statuses=frozenset({400, 409, 422}),
        source="Azure OpenAI cost page: 400 of the content filter or the input limit is charged if processed",
    ),
    # 408, 5xx, cuts, timeouts and clients that left are in no row: Azure charges 408, Anthropic a call that "was on
    # track to be successful", AWS finishes and bills, and OpenAI says nothing.
)
