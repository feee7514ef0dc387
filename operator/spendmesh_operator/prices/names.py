"""How genai-prices recognizes a model's name, said in our three ways: whole name, beginning, regular expression."""

from __future__ import annotations

import re

from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    MatchLogic,
)

from spendmesh_sidecar.core.specs import ModelMatch


def model_match(clause: MatchLogic) -> ModelMatch:
    """Lower-case names: the reader lowers what it looks for, as genai-prices does."""
    equals, prefixes, patterns = [], [], []
    for part in clause.or_ if isinstance(clause, ClauseOr) else [clause]:
        if isinstance(part, ClauseEquals):
            equals.append(part.equals.lower())
        elif isinstance(part, ClauseStartsWith):
            prefixes.append(part.starts_with.lower())
        else:
            patterns.append(_pattern(part))
    return ModelMatch(equals=tuple(equals), prefixes=tuple(prefixes), patterns=tuple(patterns))


def _pattern(clause: MatchLogic) -> str:
    match clause:
        case ClauseEquals(equals):
            return rf"^{re.escape(equals.lower())}$"
        case ClauseStartsWith(starts_with):
            return rf"^{re.escape(starts_with.lower())}"
        case ClauseEndsWith(ends_with):
            return rf"{re.escape(ends_with.lower())}$"
        case ClauseContains(contains):
            return str(re.escape(contains.lower()))
        case ClauseRegex(regex):
            return str(regex)
        case ClauseOr(or_):
            return "|".join(f"(?:{_pattern(part)})" for part in or_)
        case ClauseAnd(and_):
            return "^" + "".join(f"(?=.*(?:{_pattern(part)}))" for part in and_)
    raise TypeError(f"genai-prices has a new way to recognize models: {type(clause).__name__}; teach it to this module")
