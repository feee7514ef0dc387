"""An override: more to spend beside a limit for a while, without touching the limit."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from spendmesh_operator.manifests.common import Name
from spendmesh_operator.manifests.quantities import DecimalText, MomentText
from spendmesh_operator.manifests.rules import Node, Rule, TransitionRule

COUNT_MAX = 10**15
"""Below 2^53, so that every JSON reader keeps it exact."""


class Override(Node):
    """More of one limit for a while."""

    RULES = (
        Rule(
            "timestamp(self.from) < timestamp(self.until)",
            lambda override: override.from_ < override.until,
            "until must be later than from",
            ".until",
        ),
    )
    TRANSITIONS = (
        TransitionRule(
            "self.limit == oldSelf.limit && timestamp(self.from) == timestamp(oldSelf.from) && "
            "timestamp(self.until) == timestamp(oldSelf.until)",
            lambda old, new: (old.limit, old.from_, old.until) == (new.limit, new.from_, new.until),
            "limit, from and until of an override never change: add an override with a new name",
        ),
    )

    name: Name
    """Name of the override. It identifies the account: taken out and added again it has spent what it had spent.
    Example: launch"""
    limit: Name
    """Name of the limit. Of a limit with per each value has the whole increase for itself. It never changes.
    Example: monthly"""
    increase: Annotated[Decimal, DecimalText(COUNT_MAX, positive=True)]
    """What may be spent beside the limit's amount, in the limit's unit: an integer or a quoted decimal. It is spent
    first, and what is spent of it is not counted on the limit. Example: "1000.00\""""
    from_: Annotated[datetime, MomentText()] = Field(alias="from")
    """From when on. It never changes. Example: "2026-12-01T00:00:00Z\""""
    until: Annotated[datetime, MomentText()]
    """Until when; what is unspent then lapses. It never changes. Example: "2026-12-03T00:00:00Z\""""
    reason: Annotated[str, Field(min_length=1, max_length=256)]
    """Why, for people who read it later. Example: launch week"""
