"""Clusters that share the books and define a budget differently: nothing more is granted, and the reason is said."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ledger_desk import Desk, holder
from ledger_samples import BUDGET, START_MS, budget, limit, limits_of, report, want
from spendmesh_operator.ledger.books.diverging import difference
from spendmesh_operator.ledger.document.remembered import HEARD_MS
from spendmesh_operator.ledger.document.sections import decode, encode, take_changes
from spendmesh_operator.status.budget import within_budget
from spendmesh_sidecar.core.refusals import budget_refusal
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, OverrideSpec, PerSpec, ThresholdSpec, WindowSpec

AMOUNT = "spec.limits[hourly].amount is not the same in cluster 'us-east', which has the same books"


class Cluster(Desk):
    """One of the clusters on a shared store; it reads what is there before it decides, as a shared store has it."""

    def __init__(self, name: str, spec: BudgetSpec) -> None:
        super().__init__()
        self.name, self.spec = name, spec
        self.books.belong_to(name)
        self.become(spec)

    def become(self, spec: BudgetSpec) -> None:
        """An edit of its ModelBudget."""
        self.spec, self.limits = spec, limits_of(spec)
        self.books.remember({spec.name: spec}, [spec.name], self.now_ms)

    def read(self, other: Cluster) -> None:
        """Go on with what the other one wrote."""
        self.books = decode(encode(other.books), "test", self.name)

    @property
    def differs(self) -> str:
        return difference(self.spec, self.books.memory.elsewhere(self.spec.name, self.now_ms))


def pair(here: BudgetSpec, there: BudgetSpec) -> Cluster:
    """The cluster `eu-west`, after `us-east` has written what it means."""
    other = Cluster("us-east", there)
    cluster = Cluster("eu-west", here)
    cluster.read(other)
    cluster.become(here)
    return cluster


def edited(**changes: object) -> BudgetSpec:
    return budget(limits=(replace(limit(), **changes),))


DIFFERENT: list[tuple[BudgetSpec, str]] = [
    (budget(2000), "limits[hourly].amount"),
    (budget(mode="Observe"), "mode"),
    (budget(limits=(limit(name="daily"),)), "limits[hourly]"),
    (edited(window=WindowSpec(period="Day")), "limits[hourly].window"),
    (edited(models=("gpt-*",)), "limits[hourly].models"),
    (edited(providers=("team-a/openai",)), "limits[hourly].providers"),
    (edited(unit="Requests", currency=""), "limits[hourly].unit"),
    (edited(currency="EUR"), "limits[hourly].currency"),
    (edited(per=(PerSpec(type="User"),)), "limits[hourly].per"),
    (edited(max_values=7), "limits[hourly].maxValues"),
    (edited(thresholds=(ThresholdSpec(percent=50, notify=True),)), "limits[hourly].thresholds"),
    (edited(on_unverifiable="Survival", survival_percent=5), "limits[hourly].onUnverifiable"),
    (edited(survival_percent=5), "limits[hourly].survivalPercent"),
    (edited(allow_cap=5), "limits[hourly].allowCap"),
    (edited(reservation="Streaming", overshoot_percent=5), "limits[hourly].reservation"),
    (edited(overshoot_percent=5), "limits[hourly].overshootPercent"),
    (edited(overrides=(OverrideSpec(name="x", amount=1, starts=0, ends=9),)), "limits[hourly].overrides"),
]


@pytest.mark.parametrize(("there", "field"), DIFFERENT, ids=[field for _, field in DIFFERENT])
def test_any_difference_stops_grants_and_names_the_field_and_the_cluster(there: BudgetSpec, field: str) -> None:
    cluster = pair(budget(), there)
    (denial,) = cluster.ask(holder(), want(1)).denials
    assert (denial.reason, denial.why) == (
        "unverifiable",
        f"spec.{field} is not the same in cluster 'us-east', which has the same books",
    )
    assert cluster.differs == denial.why


def test_every_field_of_a_limit_is_compared() -> None:
    """A field that is added later and forgotten here would let two clusters spend one budget by two meanings."""
    compared = {
        field: value
        for there, _ in DIFFERENT
        for field in LimitSpec.__struct_fields__
        if (value := getattr(there.limits[0], field)) != getattr(limit(), field)
    }
    assert set(LimitSpec.__struct_fields__) - set(compared) == {"on_exhausted"}, "which has one value only"


@pytest.mark.parametrize(
    "there",
    [
        budget(),
        budget(limits=(limit(max_tier="economy"),)),
        replace(budget(), name="team-b/team"),
    ],
    ids=["equal", "a tier of its own routing", "another budget"],
)
def test_what_means_the_same_grants_as_ever(there: BudgetSpec) -> None:
    cluster = pair(budget(), there)
    assert cluster.grant(holder(), 10).granted == 10
    assert cluster.differs == ""


def test_a_limit_that_only_the_other_cluster_has_is_said_and_stops_nothing_else() -> None:
    cluster = pair(budget(), budget(limits=(limit(), limit(name="daily"))))
    assert cluster.grant(holder(), 10).granted == 10
    assert cluster.differs.startswith("spec.limits[daily] is not the same in cluster 'us-east'")


def test_rights_that_are_held_stay_and_grants_go_on_when_both_are_equal_again() -> None:
    cluster = pair(budget(), budget())
    lease = cluster.grant(holder(), 10)
    cluster.become(budget(2000))
    (state,) = cluster.tell(holder(), report(lease.id, 4))
    assert not state.fenced
    assert cluster.refused(holder(), want(1)) == ["unverifiable"]
    cluster.become(budget(1000))
    assert cluster.grant(holder(), 20).granted == 30


def test_while_they_differ_reports_do_not_turn_the_amount_to_and_fro() -> None:
    """Each cluster's reports would write its own amount into the account, and tell each threshold anew."""
    cluster = pair(budget(), budget())
    lease = cluster.grant(holder(), 10)
    cluster.become(budget(2000))
    cluster.tell(holder(), report(lease.id, 4))
    (account,) = cluster.books.current(cluster.now_ms)
    assert account.limit.amount == 1000


def test_a_cluster_that_is_not_there_any_more_stops_nobody() -> None:
    """It was taken away for good: what it last meant would stop every edit for ever."""
    cluster = pair(budget(), budget(2000))
    cluster.now_ms += HEARD_MS - 1
    assert cluster.refused(holder(), want(1)) == ["unverifiable"]
    cluster.now_ms += 1
    assert cluster.grant(holder(), 10).granted == 10
    assert cluster.differs == ""


def test_a_cluster_says_that_it_is_there_once_a_minute() -> None:
    cluster = pair(budget(), budget())
    told = set()
    for _ in range(150):
        cluster.pass_time(1000)
        told.add(take_changes(cluster.books).put.get("head", {}).get("members", {}).get("eu-west"))
    assert told - {None} == {START_MS, START_MS + 60_000, START_MS + 120_000}
    again = decode(encode(cluster.books), "test", "us-east")
    assert again.memory.heard == {"eu-west": START_MS + 120_000, "us-east": START_MS}


def test_books_of_one_cluster_alone_say_nothing_of_members() -> None:
    desk = Desk()
    desk.pass_time(120_000)
    assert "members" not in encode(desk.books)["head"]


def test_the_condition_and_the_clients_answer_say_it() -> None:
    cluster = pair(budget(), budget(2000))
    status, reason, message = within_budget((), observed=False, readable=True, differs=cluster.differs)
    assert (status, reason) == ("False", "DefinitionsDiffer")
    assert message == f"{AMOUNT}: no rights are granted in either before both are equal"

    refusal = budget_refusal(cluster.ask(holder(), want(1)).denials, (cluster.spec,), {}, lambda *_: None)
    assert refusal.code == "budget_unverifiable"
    assert f"budget {BUDGET}/hourly: {AMOUNT}" in refusal.message
