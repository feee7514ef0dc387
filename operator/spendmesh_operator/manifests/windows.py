"""The time in which a limit's amount may be spent. When periods begin and end is the ledger's."""

import re
from datetime import timedelta
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from spendmesh_operator.manifests.quantities import WHOLE, DurationText
from spendmesh_operator.manifests.rules import UNSTORED, Node, Rule, unchanged

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
            "self.type == 'Calendar' ? has(self.period) && !has(self.duration) : "
            "has(self.duration) && !has(self.period)",
            lambda window: (
                (window.type == "Calendar") == (window.period is not None)
                and (window.type == "Rolling") == (window.duration is not None)
            ),
            "period goes with type Calendar and duration with type Rolling: write period: Month (or another) with "
            "Calendar, or duration: 24h (or another) with Rolling",
        ),
        Rule(
            "!has(self.anchorDay) || self.anchorDay == 1 || "
            "(has(self.period) && self.period in ['Month', 'Quarter', 'Year'])",
            lambda window: window.anchor_day == 1 or window.period in ("Month", "Quarter", "Year"),
            "anchorDay goes with period Month, Quarter or Year: take it out, or write one of these periods",
            ".anchorDay",
        ),
        Rule(
            "self.type == 'Calendar' || self.timeZone == 'Etc/UTC'",
            lambda window: window.type == "Calendar" or window.time_zone == "Etc/UTC",
            "timeZone goes with type Calendar: a rolling window is as long in every zone, so take it out",
            ".timeZone",
        ),
    )

    type: Literal["Calendar", "Rolling"]
    """Calendar: from one boundary of the calendar to the next, then from zero again. Rolling: at every instant the
    amount holds for the duration that ends there. Example: Calendar"""
    period: Period | None = None
    """With Calendar: length of the period. A week starts on Monday, a quarter in January, April, July or October, a
    year in January. Example: Month"""
    duration: Annotated[timedelta, DurationText("1h", "744h")] | None = None
    """With Rolling: length of the window, from 1h to 744h (31 days). What was spent comes free in steps of a 24th of
    it, so under steady demand up to 4 % of the amount stays unused. Example: 24h"""
    time_zone: TimeZone = "Etc/UTC"
    """With Calendar: zone of the calendar, from the IANA database. Example: Europe/Berlin"""
    anchor_day: Annotated[int, Field(ge=1, le=31), WHOLE, UNSTORED] = 1
    """With Month, Quarter and Year: the day of its first month on which it begins; where that month is shorter, its
    last day. Example: 15"""


SAME_WINDOW: Final = (
    "self.window.type == oldSelf.window.type && self.window.timeZone == oldSelf.window.timeZone"
    f" && {unchanged('window.period')} && {unchanged('window.duration')}"
    " && (has(self.window.anchorDay) ? self.window.anchorDay : 1)"
    " == (has(oldSelf.window.anchorDay) ? oldSelf.window.anchorDay : 1)"
)
"""CEL: a window is what it was, whether its defaults are stored or not."""
