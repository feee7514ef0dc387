"""The time in which a limit's amount may be spent. When periods begin and end is the ledger's."""

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from spendmesh_operator.manifests.quantities import WHOLE
from spendmesh_operator.manifests.rules import Node, Rule

Period = Literal["Hour", "Day", "Week", "Month", "Quarter", "Year"]

_ZONE = re.compile("[A-Z][A-Za-z0-9_+-]*(?:/[A-Za-z0-9_+-]+)*")


def _zone_exists(name: str) -> bool:
    if _ZONE.fullmatch(name) is None or name == "Local":
        return False
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a folder's name is an OSError
        return False
    return True


_ZONE_MESSAGE = (
    "must be a zone of the IANA database such as Europe/Berlin or Etc/UTC; offsets such as +01:00 know no summer time"
)
TimeZone = Annotated[
    str,
    Field(max_length=64),
    Rule(
        f"self.matches('^{_ZONE.pattern}$') && self != 'Local' && "
        "timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0",
        _zone_exists,
        _ZONE_MESSAGE,
    ),
]


class Window(Node):
    """The time in which the amount may be spent."""

    RULES = (
        Rule(
            "self.anchorDay == 1 || self.period in ['Month', 'Quarter', 'Year']",
            lambda window: window.anchor_day == 1 or window.period in ("Month", "Quarter", "Year"),
            "anchorDay goes with period Month, Quarter or Year: take it out, or write one of these periods",
            ".anchorDay",
        ),
    )

    type: Literal["Calendar"]
    """Calendar: from one boundary of the calendar to the next, then from zero again. Example: Calendar"""
    period: Period
    """Length of the period. A week starts on Monday, a quarter in January, April, July or October, a year in January.
    Example: Month"""
    anchor_day: Annotated[int, Field(ge=1, le=31), WHOLE] = 1
    """With Month, Quarter and Year: the day of its first month on which it begins; where that month is shorter, its
    last day. Example: 15"""
    time_zone: TimeZone = "Etc/UTC"
    """Zone of the calendar, from the IANA database. Example: Europe/Berlin"""
