"""Milestones of divided limits: each told once, by name only where the cluster's own names are the values."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from ledger_desk import HOUR_MS, NAMESPACE, TEAM, USER, DividedDesk, holder
from ledger_samples import BUDGET, report
from spendmesh_operator.control.metrics import ControlMetrics
from spendmesh_operator.ledger.books.correcting import correct
from spendmesh_operator.ledger.books.partitions import PodPlace
from spendmesh_operator.ledger.books.views import views_of
from spendmesh_operator.ledger.coordinator.telling import mark_told, untold
from spendmesh_operator.ledger.document.sections import decode, encode
from spendmesh_operator.status.books import limit_views
from spendmesh_operator.status.budget import accounted, within_budget
from spendmesh_operator.status.milestones import milestone_event
from spendmesh_sidecar.core.specs import BudgetSpec, PerSpec, WindowSpec

WORKLOAD = PerSpec(type="Workload")


class Town(DividedDesk):
    """A divided limit, whose values spend, and what is said of it."""

    def spend(self, value: str, amount: int) -> None:
        """A pod of its own takes and uses so much."""
        who = f"{value}-{self.now_ms}-{amount}"
        self.place = PodPlace(value, f"{value}/Deployment/web", f"{value}/{who}", {"team": value})
        per = tuple(value if part.type == "User" else "" for part in self.limit.per)
        lease = self.take(who, *per, need=amount)
        self.tell(holder(who), report(lease.id, amount, closed=1))

    def listen(self) -> list[str]:
        """One sweep, and the messages that are told after it."""
        self.now_ms += 1000
        self.books.sweep(self.now_ms, 1000)
        news = untold(self.books, self.now_ms)
        for each in news:
            mark_told(self.books, each)
        assert len({each.id for each in news}) == len(news)
        return [milestone_event(each).message.partition(" (")[0] + f": {each.name}" for each in news]


@pytest.mark.parametrize(
    ("per", "names"),
    [
        ((NAMESPACE,), ("value 'ana'", "value 'ben'")),
        ((WORKLOAD,), ("value 'ana/Deployment/web'", "value 'ben/Deployment/web'")),
        ((NAMESPACE, WORKLOAD), ("value 'ana ana/Deployment/web'", "value 'ben ben/Deployment/web'")),
    ],
)
def test_a_value_that_is_a_name_of_the_cluster_is_told_of_by_name_once(
    per: tuple[PerSpec, ...], names: tuple[str, str]
) -> None:
    town = Town(*per)
    town.spend("ana", 850)
    assert town.listen() == [f"{names[0]} of limit 'hourly': 80"]
    town.spend("ben", 950)
    assert town.listen() == [f"{names[1]} of limit 'hourly': {step}" for step in (80, 90)]
    town.books = decode(encode(town.books), "test")
    assert town.listen() == []


@pytest.mark.parametrize(
    "per",
    [(USER,), (PerSpec(type="Pod"),), (TEAM,), (NAMESPACE, USER)],
    ids=lambda per: "+".join(part.type for part in per),
)
def test_of_other_values_the_first_speaks_for_all_and_is_not_named(per: tuple[PerSpec, ...]) -> None:
    """A thousand users make one Event for each step and period, not a thousand, and none says who."""
    town = Town(*per)
    town.spend("ana", 850)
    town.spend("ben", 850)
    assert town.listen() == ["a value of limit 'hourly': 80"]
    town.spend("cleo", 850)
    town.books = decode(encode(town.books), "test")
    assert town.listen() == []
    town.spend("dora", 900)
    assert town.listen() == ["a value of limit 'hourly': 90"]

    town.now_ms += HOUR_MS
    town.spend("ana", 800)
    assert town.listen() == ["a value of limit 'hourly': 80"], "a new period"


def test_what_one_value_leaves_is_not_told_again_for_those_that_it_spoke_for() -> None:
    """A correction takes the first user's spend back: the second reached the step before that was told."""
    town = Town(USER)
    town.spend("ana", 850)
    town.spend("ben", 850)
    assert len(town.listen()) == 1
    ana = next(key for key in town.books.holdings.accounts if key.per == ("ana",))
    correct(town.books, ana, "invoice-1", -200, "line 17", town.now_ms)
    assert town.listen() == []


def test_a_raised_amount_is_told_anew_once_for_all() -> None:
    town = Town(USER)
    town.spend("ana", 800)
    town.spend("ben", 800)
    assert len(town.listen()) == 1
    town.limit = replace(town.limit, amount=2000)
    town.books.remember({BUDGET: BudgetSpec(name=BUDGET, limits=(town.limit,))}, (BUDGET,))
    assert town.listen() == []
    for who in ("ana", "ben"):
        town.spend(who, 801)
    assert town.listen() == ["a value of limit 'hourly': 80"]


def test_two_leaders_say_it_under_the_same_id() -> None:
    """The second has not heard that it was said, and others have got there since: still the Event has one name."""
    town = Town(USER)
    town.spend("ana", 850)
    town.pass_time(1000)
    (first,) = untold(town.books, town.now_ms)
    town.spend("aaron", 850)
    town.pass_time(1000)
    (second,) = untold(decode(encode(town.books), "test"), town.now_ms)
    assert first.id == second.id


def test_in_a_rolling_window_the_first_value_speaks_for_all_parts() -> None:
    town = Town(USER)
    town.limit = replace(town.limit, window=WindowSpec(type="Rolling", duration_seconds=86_400))
    town.spend("ana", 850)
    assert len(town.listen()) == 1
    town.now_ms += HOUR_MS
    town.spend("ben", 850)
    assert town.listen() == []


def test_the_metric_counts_the_values_at_which_it_stands() -> None:
    town = Town(USER)
    for who, amount in (("ana", 850), ("ben", 950), ("cleo", 10)):
        town.spend(who, amount)
    town.listen()
    registry = CollectorRegistry()
    metrics = ControlMetrics(registry)
    for _ in range(2):
        metrics.show_accounts(views_of(town.books.holdings, town.now_ms))
    labels = {"budget": BUDGET, "limit": "hourly", "unit": "Cost", "currency": "USD"}
    shown = [
        registry.get_sample_value("spendmesh_budget_milestone", labels | {"milestone": step})
        for step in ("80", "90", "100")
    ]
    assert shown == [2.0, 1.0, None]


def test_conditions_speak_of_the_fullest_value_and_of_the_one_with_most_in_quarantine() -> None:
    """They need not be the same: ana has spent most, ben's pod has vanished."""
    town = Town(USER)
    town.spend("ana", 850)
    town.take("gone", "ben", need=60)
    town.books.quarantine(["gone"], "gone")
    said = town.listen()
    assert said == ["a value of limit 'hourly': 80", "a value of limit 'hourly': quarantine"]

    spec = BudgetSpec(name=BUDGET, limits=(town.limit,))
    now = datetime.fromtimestamp(town.now_ms / 1000, UTC)
    limits = limit_views(spec, views_of(town.books.holdings, town.now_ms), now)
    status, reason, message = within_budget(limits, observed=False, readable=True)
    assert (status, reason) == ("True", "ThresholdReached")
    assert message.startswith("the fullest of 2 values of limit 'hourly'")
    status, reason, message = accounted(limits)
    assert (status, reason) == ("False", "QuarantineHigh")
    assert message.startswith("a value of limit 'hourly' (0.000001 USD): 0.000000060 is charged")
