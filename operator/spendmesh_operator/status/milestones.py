"""A milestone of the books as an Event on its ModelBudget. Pure."""

from __future__ import annotations

from dataclasses import replace

from spendmesh_operator.ledger.books.milestones import EXHAUSTED, QUARANTINE
from spendmesh_operator.ledger.coordinator.telling import Untold
from spendmesh_operator.status.books import used_view
from spendmesh_operator.status.budget import quarantine_words, stage_words
from spendmesh_operator.status.model import EventDraft, LimitView


def milestone_event(news: Untold) -> EventDraft:
    """What people are told, in the same words as the condition."""
    limit = used_view(news.view.limit, news.view)
    whose = (f"value {news.value!r}" if news.value else "a value") if news.view.key.per else ""
    if news.name == QUARANTINE:
        return EventDraft("Warning", "QuarantineHigh", quarantine_words(limit, whose))
    _, reason, message = stage_words(_as_reached(limit, news), observed=news.view.mode == "Observe", whose=whose)
    return EventDraft("Warning", reason, message)


def _as_reached(limit: LimitView, news: Untold) -> LimitView:
    """The limit at that step: more may have been spent since, and that is another Event."""
    steps = {str(step.percent): step for step in news.view.limit.thresholds}
    if news.name == EXHAUSTED or news.name not in steps:
        return replace(
            limit, crossed_percent=int(news.name), settled=0, quarantined=0, max_tier="", max_output_tokens=0
        )
    step = steps[news.name]
    return replace(
        limit,
        crossed_percent=step.percent,
        settled=0,
        quarantined=0,
        max_tier=step.max_tier,
        max_output_tokens=step.max_output_tokens,
    )
