"""What Prometheus sees of the books: sums per limit, labels without any user's value, ended accounts gone."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from ledger_desk import Desk, holder
from ledger_samples import BUDGET, report
from spendmesh_operator.control.metrics import ControlMetrics
from spendmesh_operator.control.sightings import NO_TROUBLES, Troubles
from spendmesh_operator.ledger.books.views import views_of
from spendmesh_operator.retries.pool import PoolView

LABELS = {"budget": BUDGET, "limit": "hourly", "unit": "Cost", "currency": "USD"}


def shown(registry: CollectorRegistry) -> dict[str, float | None]:
    names = ("used_ratio", "held", "quarantined", "overrun")
    return {name: registry.get_sample_value(f"spendmesh_budget_{name}", LABELS) for name in names}


def test_an_account_is_shown_with_what_is_spent_held_and_quarantined() -> None:
    """A quarter spent, a silent holder, and an overrun."""
    desk = Desk()
    lease = desk.grant(holder(), 300)
    desk.tell(holder(), report(lease.id, 250, overrun=5))
    desk.grant(holder("pod-b"), 100)
    desk.books.quarantine(["pod-b"], "silent")
    registry = CollectorRegistry()

    ControlMetrics(registry).show_accounts(views_of(desk.books.holdings, desk.now_ms))

    assert shown(registry) == {"used_ratio": 0.25, "held": 50.0, "quarantined": 100.0, "overrun": 5.0}


def test_an_account_that_ended_is_no_longer_shown() -> None:
    """No series outlives its limit."""
    desk = Desk()
    desk.grant(holder(), 300)
    registry = CollectorRegistry()
    metrics = ControlMetrics(registry)
    metrics.show_accounts(views_of(desk.books.holdings, desk.now_ms))

    metrics.show_accounts(())

    assert set(shown(registry).values()) == {None}


def test_commits_are_counted_by_result() -> None:
    """A store that conflicts shows before it hurts."""
    registry = CollectorRegistry()
    metrics = ControlMetrics(registry)

    for result in ("ok", "ok", "conflict"):
        metrics.committed(result)

    assert registry.get_sample_value("spendmesh_ledger_commits_total", {"result": "ok"}) == 2
    assert registry.get_sample_value("spendmesh_ledger_commits_total", {"result": "conflict"}) == 1


def test_shared_retry_budgets_are_shown_in_retries_while_somebody_shares_them() -> None:
    """What the leader hands out is in hundredths; people read retries."""
    registry = CollectorRegistry()
    metrics = ControlMetrics(registry)

    def shown() -> list[float | None]:
        names = ("members", "capacity", "granted", "learning_seconds")
        return [registry.get_sample_value(f"spendmesh_retry_{name}", {"budget": "team/shared"}) for name in names]

    metrics.show_retries([PoolView("team/shared", members=3, capacity=1250, granted=900, learning_seconds=7.5)])
    assert shown() == [3, 12.5, 9, 7.5]
    metrics.show_retries([])
    assert shown() == [None] * 4


def test_what_sidecars_see_is_shown_while_they_say_so() -> None:
    """By ModelProvider and by kind of retry; no pod is a label."""
    registry = CollectorRegistry()
    metrics = ControlMetrics(registry)
    metrics.show_troubles(Troubles({"team-a/openai": {"a": "spent", "b": "spent"}}, {"a": ("marked", "unmarked")}))
    unpaid, retrying = "spendmesh_account_unpaid_pods", "spendmesh_client_retrying_pods"
    assert registry.get_sample_value(unpaid, {"provider": "team-a/openai"}) == 2
    assert registry.get_sample_value(retrying, {"how": "unmarked"}) == 1
    metrics.show_troubles(NO_TROUBLES)
    assert registry.get_sample_value(unpaid, {"provider": "team-a/openai"}) is None
    assert registry.get_sample_value(retrying, {"how": "unmarked"}) == 0
