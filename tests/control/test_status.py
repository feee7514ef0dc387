"""Verdicts, acknowledgements and books to status: what people read, when it is written, which Events it is worth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from compile_samples import Raw, budget, compiled, pod, provider, retries, routing
from ledger_desk import Desk, holder
from ledger_samples import BUDGET, budget as ledger_budget, limit as desk_limit, report, want
from spendmesh_operator.compile import Compiled, Verdict
from spendmesh_operator.index import ObjectKey
from spendmesh_operator.ledger.books.accounts import LimitInForce
from spendmesh_operator.ledger.books.correcting import correct
from spendmesh_operator.ledger.books.rolling import NOTHING
from spendmesh_operator.ledger.books.views import view_of
from spendmesh_operator.manifests.conditions import ModelBudgetStatus, RetryBudgetStatus
from spendmesh_operator.retries.pool import PoolView
from spendmesh_operator.status import (
    LimitView,
    PodState,
    Programmed,
    apply_document,
    changed_enough,
    events,
    limit_views,
    programmed,
    shared_pool,
    status_of,
    write_delay,
)
from spendmesh_operator.workloads import MountedKey
from spendmesh_sidecar.core.specs import BudgetSpec, PerSpec
from spendmesh_sidecar.protocol import AccountRef

NOW = datetime(2026, 11, 22, 12, 0, 0, 500_000, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
DONE = Programmed(1, "True", "Programmed", "all 1 workloads have it")


def limit(used: int = 0, amount: int = 100 * 10**9, **changes: Any) -> LimitView:
    """A monthly limit in USD; amounts in nano-units."""
    whole: dict[str, Any] = {
        "name": "monthly",
        "unit": "Cost",
        "currency": "USD",
        "amount": amount,
        "period": "Month",
        "settled": used,
        "quarantined": 0,
        "held": 0,
        "period_start": datetime(2026, 11, 1, tzinfo=UTC),
        "resets_at": datetime(2026, 12, 1, tzinfo=UTC),
    }
    return LimitView(**(whole | changes))


def verdict_of(result: Compiled, kind: str = "ModelBudget", name: str = "team") -> Verdict:
    return result.verdicts[ObjectKey(kind, "team-a", name)]


def made(*limits: LimitView, old: dict[str, Any] | None = None, now: datetime = NOW, **changes: Any) -> dict[str, Any]:
    """The status of a budget that applies to one workload."""
    verdict = verdict_of(compiled(pod(), budget(generation=3)))
    arguments: dict[str, Any] = {"limits": limits, "old": old or {}, "now": now}
    return status_of(verdict, DONE, **(arguments | changes))


def condition(status: dict[str, Any], type_: str) -> dict[str, Any]:
    return next(each for each in status["conditions"] if each["type"] == type_)


# --- conditions -----------------------------------------------------------------------------------------


def test_a_status_has_every_condition_with_the_generation_that_was_looked_at() -> None:
    status = made(limit())
    assert [each["type"] for each in status["conditions"]] == [
        "Accepted",
        "ResolvedRefs",
        "Priced",
        "Programmed",
        "Effective",
        "WithinBudget",
        "Accounted",
    ]
    assert {each["observedGeneration"] for each in status["conditions"]} == {3} == {status["observedGeneration"]}
    assert {each["lastTransitionTime"] for each in status["conditions"]} == {"2026-11-22T12:00:00Z"}
    assert status["workloads"] == {"matched": 1, "effective": 1, "programmed": 1}


def test_what_is_written_is_what_the_schema_of_the_kind_allows() -> None:
    status = made(limit(used=85 * 10**9, crossed_percent=80, held=10**9, quarantined=5))
    assert ModelBudgetStatus.model_validate(status).tightest is not None
    document = apply_document(ObjectKey("ModelBudget", "team-a", "team"), status)
    assert document["metadata"] == {"name": "team", "namespace": "team-a"}
    assert set(document) == {"apiVersion", "kind", "metadata", "status"}


def test_the_time_of_a_condition_moves_only_when_its_status_does() -> None:
    first = made(limit())
    second = made(limit(used=99 * 10**9, crossed_percent=90), old=first, now=LATER)
    third = made(limit(used=100 * 10**9, crossed_percent=100), old=second, now=LATER)
    assert condition(second, "WithinBudget")["reason"] == "ThresholdReached"
    assert condition(second, "WithinBudget")["lastTransitionTime"] == "2026-11-22T12:00:00Z"
    assert condition(third, "WithinBudget")["lastTransitionTime"] == "2026-11-22T12:05:00Z"
    assert condition(third, "Accepted")["lastTransitionTime"] == "2026-11-22T12:00:00Z"


@pytest.mark.parametrize(
    ("limits", "status", "reason"),
    [
        ((), "True", "WithinBudget"),
        ((limit(used=99 * 10**9),), "True", "WithinBudget"),
        ((limit(used=80 * 10**9, crossed_percent=80),), "True", "ThresholdReached"),
        ((limit(used=90 * 10**9, crossed_percent=90, max_tier="economy"),), "True", "Downgraded"),
        ((limit(used=90 * 10**9, crossed_percent=90, max_output_tokens=300),), "True", "Clamped"),
        ((limit(used=100 * 10**9 - 1, crossed_percent=90),), "True", "ThresholdReached"),
        ((limit(used=100 * 10**9),), "False", "Exceeded"),
        ((limit(used=100 * 10**9 + 1),), "False", "Overdrawn"),
        ((limit(used=95 * 10**9, quarantined=5 * 10**9),), "False", "Exceeded"),
        ((limit(used=1, crossed_percent=100),), "False", "Exceeded"),
        ((limit(), limit(used=100 * 10**9, name="daily")), "False", "Exceeded"),
        (None, "Unknown", "LedgerUnavailable"),
    ],
)
def test_within_budget_follows_the_tightest_limit(
    limits: tuple[LimitView, ...] | None, status: str, reason: str
) -> None:
    found = condition(made(limits=limits), "WithinBudget")
    assert (found["status"], found["reason"]) == (status, reason)


def test_an_exceeded_limit_is_named_with_its_amount_its_end_and_the_fix() -> None:
    text = condition(made(limit(used=100 * 10**9)), "WithinBudget")["message"]
    assert text == (
        "limit 'monthly' (100.00 USD) is spent: calls are refused with budget_exceeded until 2026-12-01T00:00:00Z; "
        "raise spec.limits[monthly].amount, or wait"
    )
    assert "would be refused" in condition(made(limit(used=100 * 10**9), observed=True), "WithinBudget")["message"]


def test_an_unreadable_budget_is_neither_within_nor_beyond() -> None:
    found = condition(made(limit(), readable=False), "WithinBudget")
    assert (found["status"], found["reason"]) == ("Unknown", "Unverifiable")


def test_other_kinds_have_no_budget_fields() -> None:
    verdict = verdict_of(compiled(pod(), retries(scope="Cluster")), "RetryBudget", "retry")
    status = status_of(verdict, DONE, limits=None, old={}, now=NOW)
    assert set(status) == {"observedGeneration", "conditions", "workloads"}
    assert "WithinBudget" not in {each["type"] for each in status["conditions"]}


# --- amounts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "used", "amount", "percent"),
    [
        (limit(used=22_511_000_001, amount=2500 * 10**9), "22.52", "2500.00", 0),
        (limit(used=10**9, amount=3 * 10**9), "1.00", "3.00", 33),
        (limit(used=1, amount=10**9), "0.01", "1.00", 0),
        (limit(used=1, amount=5 * 10**7), "0.0001", "0.05", 0),
        (limit(used=1_500, amount=123_456_789), "0.0001", "0.123456789", 0),
        (limit(used=5, amount=10), "0.000000005", "0.00000001", 50),
        (limit(used=5, amount=10, unit="Requests", currency=""), "5", "10", 50),
    ],
)
def test_use_is_rounded_up_at_a_percent_of_the_limit_and_the_limit_is_exact(
    view: LimitView, used: str, amount: str, percent: int
) -> None:
    tightest = made(view)["tightest"]
    assert (tightest["used"], tightest["amount"], tightest["percent"]) == (used, amount, percent)
    assert tightest.get("currency", "") == view.currency


def test_what_remains_is_rounded_down_and_never_negative() -> None:
    view = limit(used=1, held=1, amount=10**9)
    assert made(view)["limits"][0]["remaining"] == "0.99"
    beyond = made(limit(used=101 * 10**9, crossed_percent=100))["limits"][0]
    assert (beyond["remaining"], beyond["percent"], beyond["stage"]) == ("0.00", 101, "Exhausted")


def test_the_tightest_limit_is_the_one_that_acts_first_then_the_fullest() -> None:
    full = limit(used=70 * 10**9, name="full")
    acting = limit(used=50 * 10**9, name="acting", crossed_percent=50, max_tier="economy")
    assert made(full, acting)["tightest"]["limit"] == "acting"
    assert made(full, limit(used=69 * 10**9, name="z"))["tightest"]["limit"] == "full"
    assert [each["name"] for each in made(full, acting)["limits"]] == ["acting", "full"]


def test_describe_shows_holders_quarantine_by_reason_and_the_last_corrections() -> None:
    """Bounded: ten holders that hold most, five corrections, the newest first."""
    desk = Desk(10**12)
    spec = ledger_budget(10**12)
    for number in range(20):
        lease = desk.grant(holder(f"pod-{number:02}"), (number + 1) * 10**9)
        desk.tell(holder(f"pod-{number:02}"), report(lease.id, 10**8))
    desk.books.quarantine(["pod-19"], "gone")
    desk.books.quarantine(["pod-18", "pod-17"], "silent")
    done = desk.grant(holder("done"), 10**9)
    desk.tell(holder("done"), report(done.id, 10**9, closed=1))
    (account,) = desk.books.current(desk.now_ms)
    for number in range(7):
        correct(desk.books, account.key, f"invoice-{number}", -1000, "line 17", desk.now_ms + number * 1000)

    views = limit_views(spec, [view_of(account, NOTHING, desk.now_ms)], datetime.fromtimestamp(desk.now_ms / 1000, UTC))
    (shown,) = ModelBudgetStatus.model_validate(made(*views)).limits or ()

    assert shown.holder_count == 20
    assert [each.pod for each in shown.holders or ()] == [f"team-a/pod-{number}" for number in range(19, 9, -1)]
    top = (shown.holders or ())[0]
    assert (top.used, top.held, top.state) == ("0.10", "19.90", "PodDeleted")
    assert {each.reason: each.amount for each in shown.quarantine or ()} == {"PodDeleted": "20.00", "Silent": "37.00"}
    assert shown.quarantined == "57.00"
    assert [each.reference for each in shown.corrections or ()] == [f"invoice-{number}" for number in range(6, 1, -1)]


def test_the_forecast_is_shown_for_the_tightest_limit_and_each_one() -> None:
    status = made(limit(used=10 * 10**9, forecast=123_456_000_000), limit(name="other"))
    assert status["tightest"]["forecast"] == "123.46"
    assert [each.get("forecast") for each in status["limits"]] == ["123.46", None]


def test_a_limit_that_nobody_used_yet_shows_as_zero_in_its_running_period() -> None:
    result = compiled(pod(), budget())
    spec = result.budgets[ObjectKey("ModelBudget", "team-a", "team")]
    (view,) = limit_views(spec, [], NOW)
    assert (view.used, view.held, view.amount, view.stage) == (0, 0, 10 * 10**9, "Within")
    assert (view.period_start, view.resets_at) == (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))


# --- programmed -----------------------------------------------------------------------------------------

PODS: list[Raw] = [pod("web-1"), pod("web-2"), pod("cart-1", deployment="cart", app="cart")]


def program(states: dict[str, PodState], kind: str = "RoutingPolicy", name: str = "route") -> Programmed:
    result = compiled(*PODS, provider(), routing(), budget())
    return programmed(verdict_of(result, kind, name), result, states)


def current() -> str:
    found = compiled(*PODS, provider(), routing(), budget()).policy_of("uid-web-1")
    assert found is not None
    return found.digest


def states(**by_name: PodState) -> dict[str, PodState]:
    obeying = PodState(digest=current())
    names = ("web_1", "web_2", "cart_1")
    return {f"uid-{name.replace('_', '-')}": by_name.get(name, obeying) for name in names}


def test_a_workload_counts_when_all_its_pods_obey_the_current_policy() -> None:
    assert program(states()) == Programmed(2, "True", "Programmed", "all 2 workloads have it")
    behind = program(states(web_2=PodState(digest="older")))
    assert (behind.workloads, behind.status, behind.reason) == (1, "False", "Pending")
    assert "Deployment/web" in behind.message and "Deployment/cart" not in behind.message
    assert program({}).workloads == 0


def test_a_refused_policy_says_why_and_that_the_old_one_stays() -> None:
    found = program(states(web_1=PodState(digest="older", error="policy requires routing/9")))
    assert (found.status, found.reason, found.workloads) == ("False", "Rejected", 1)
    assert "policy requires routing/9" in found.message and "keep the policy they had" in found.message


def test_a_missing_key_is_the_routing_policys_and_the_providers_affair_not_the_budgets() -> None:
    lacking = states(web_1=PodState(digest=current(), missing_keys=("openai",)))
    for kind, name in (("RoutingPolicy", "route"), ("ModelProvider", "openai")):
        found = program(lacking, kind, name)
        assert (found.status, found.reason, found.workloads) == ("False", "KeyNotFound", 1)
        assert "openai" in found.message and "no restart" in found.message
    assert program(lacking, "ModelBudget", "team").status == "True"
    other = states(web_1=PodState(digest=current(), missing_keys=("another",)))
    assert program(other, "ModelProvider", "openai").status == "True"


def test_a_key_that_a_running_pod_was_never_given_needs_a_restart_and_says_so() -> None:
    """Contract §3. Also where the pod has an older Secret's key under the same name, which the sidecar cannot tell."""
    given = MountedKey("openai", "model-keys", "openai")
    for mounted, reason in (
        ({given}, "Programmed"),
        ((), "RestartRequired"),
        ({given._replace(secret="old")}, "RestartRequired"),
    ):
        state = PodState(digest=current(), mounted=frozenset(mounted))
        found = program({**states(), **dict.fromkeys(("uid-web-1", "uid-web-2"), state)})
        assert found.reason == reason
    absent = PodState(digest=current(), missing_keys=("openai",), mounted=frozenset({given}))
    assert program(states(web_1=absent)).reason == "KeyNotFound"


def test_an_object_without_running_pods_is_programmed_and_says_that_nothing_runs() -> None:
    result = compiled(provider(), routing())
    found = programmed(verdict_of(result, "RoutingPolicy", "route"), result, {})
    assert (found.workloads, found.status) == (0, "True")
    assert "no running workload" in found.message


# --- when it is written ---------------------------------------------------------------------------------


def after(seconds: float, old: dict[str, Any], new: dict[str, Any]) -> bool:
    return changed_enough(old, new, seconds)


def test_nothing_new_is_never_written() -> None:
    status = made(limit())
    assert write_delay(status, made(limit(), old=status, now=LATER)) is None
    assert not after(10**6, status, made(limit(), old=status, now=LATER))


def shared(**numbers: Any) -> dict[str, Any]:
    """The status of a RetryBudget that pods share; capacity and grants in hundredths of a retry."""
    whole: dict[str, Any] = {"name": "team-a/retry", "members": 12, "capacity": 4050, "granted": 3700}
    pool = PoolView(**({"learning_seconds": 0.0} | whole | numbers))
    verdict = verdict_of(compiled(pod(), retries(scope="Cluster")), "RetryBudget", "retry")
    return status_of(verdict, DONE, limits=None, old={}, now=NOW, shared=shared_pool("team-a/retry", [pool]))


def test_a_shared_retry_budget_says_how_it_is_divided() -> None:
    """In whole retries, with the end of a new leader's learning while that lasts; nothing where no pod shares it."""
    divided = {"members": 12, "capacityPerInterval": 40, "granted": 37}
    assert shared()["cluster"] == divided
    assert shared(learning_seconds=9.5)["cluster"] == {**divided, "learningUntil": "2026-11-22T12:00:10Z"}
    assert "cluster" not in shared(members=0)
    assert "cluster" not in shared(name="team-b/retry")
    RetryBudgetStatus.model_validate(shared(learning_seconds=9.5))


def test_while_its_interval_changes_the_pool_with_most_pods_is_shown() -> None:
    pools = [PoolView("a/b", members, 0, 0, 0.0) for members in (2, 5, 1)]
    assert shared_pool("a/b", pools) == pools[1]


@pytest.mark.parametrize(
    ("numbers", "delay"),
    [
        ({}, None),
        ({"granted": 3600}, 600),
        ({"granted": 1500}, 30),
        ({"members": 24}, 30),
        ({"capacity": 9000}, 30),
        ({"learning_seconds": 10.0}, 30),
    ],
)
def test_shares_are_written_by_steps_of_two(numbers: dict[str, Any], delay: int | None) -> None:
    """They move with every call; live numbers are metrics."""
    assert write_delay(shared(), shared(**numbers)) == delay


def test_a_condition_or_a_crossed_threshold_is_written_at_once() -> None:
    old = made(limit(used=79 * 10**9))
    assert after(0, {}, old)
    assert after(0, old, made(limit(used=80 * 10**9, crossed_percent=80), old=old))
    crossed = made(limit(used=80 * 10**9, crossed_percent=80))
    assert after(0, crossed, made(limit(used=90 * 10**9, crossed_percent=90, max_tier="economy"), old=crossed))


def test_a_new_period_is_written_at_once() -> None:
    old = made(limit(used=5 * 10**9))
    assert after(0, old, made(limit(period_start=datetime(2026, 12, 1, tzinfo=UTC)), old=old))


def test_use_is_written_by_whole_percents_at_most_every_half_minute() -> None:
    old = made(limit(used=10 * 10**9))
    step = made(limit(used=11 * 10**9), old=old)
    assert not after(29.9, old, step)
    assert after(30, old, step)
    below = made(limit(used=10 * 10**9 + 5 * 10**8), old=old)
    assert not after(30, old, below)
    assert after(600, old, below)


def test_counts_of_a_rollout_are_written_every_few_seconds() -> None:
    verdict = verdict_of(compiled(pod(), budget()))
    old = status_of(verdict, Programmed(0, "False", "Pending", "0 of 9"), limits=(), old={}, now=NOW)
    new = status_of(verdict, Programmed(5, "False", "Pending", "5 of 9"), limits=(), old=old, now=NOW)
    assert (after(4.9, old, new), after(5, old, new)) == (False, True)


# --- Events ---------------------------------------------------------------------------------------------


def drafts(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, str]]:
    return [(draft.type, draft.reason) for draft in events(old, new)]


def test_what_the_books_tell_themselves_is_no_event_of_the_status() -> None:
    """A status can be written twice, by two leaders; milestones are told once (test_milestones)."""
    fine = made(limit())
    crossed = made(limit(used=80 * 10**9, crossed_percent=80), old=fine)
    spent = made(limit(used=100 * 10**9, crossed_percent=100, quarantine_alert=6 * 10**9), old=crossed)
    taken = made(limit(taken_until=LATER), old=fine)
    assert [drafts({}, fine), drafts(fine, crossed), drafts(crossed, spent), drafts(spent, fine)] == [[], [], [], []]
    assert drafts(fine, taken) == [("Warning", "LimitNameTaken")]


def test_too_much_in_quarantine_is_a_condition_with_what_can_be_done() -> None:
    assert condition(made(limit(quarantined=5 * 10**9)), "Accounted")["status"] == "True"
    found = condition(made(limit(quarantined=6 * 10**9, quarantine_alert=6 * 10**9)), "Accounted")
    assert (found["status"], found["reason"]) == ("False", "QuarantineHigh")
    assert "6.00 is charged for pods that vanished before they reported" in found["message"]
    assert "a correction with evidence" in found["message"]
    assert condition(made(limits=None), "Accounted")["status"] == "Unknown"


def test_what_is_wrong_from_the_start_is_told_and_its_cure_too() -> None:
    def status(*raws: Raw) -> dict[str, Any]:
        verdict = verdict_of(compiled(pod(), *raws), "RoutingPolicy", "route")
        return status_of(verdict, DONE, limits=None, old={}, now=NOW)

    broken, cured = status(routing()), status(routing(), provider())
    assert drafts({}, broken) == [("Warning", "ProviderNotFound")]
    assert drafts(broken, cured) == [("Normal", "ResolvedRefs")]
    assert drafts({}, cured) == []


def test_a_rollout_under_way_is_no_event_but_a_refusal_is() -> None:
    verdict = verdict_of(compiled(pod(), budget()))

    def status(reason: str, state: Any = "False") -> dict[str, Any]:
        return status_of(verdict, Programmed(0, state, reason, "m"), limits=(), old={}, now=NOW)

    assert drafts(status("Programmed", "True"), status("Pending")) == []
    assert drafts(status("Pending"), status("Rejected")) == [("Warning", "Rejected")]


def test_a_divided_limit_shows_its_fullest_value_and_names_none() -> None:
    """How many values there are and how far the fullest is: whose it is, is nobody else's business."""
    desk = Desk()
    spec = msgspec.structs.replace(desk_limit(100), per=(PerSpec(type="User"),))
    desk.limits = lambda _: LimitInForce(spec)
    for user, spent in (("ana", 30), ("ben", 100), ("cat", 0)):
        ref = AccountRef(budget=BUDGET, limit="hourly", per=(user,))
        (lease,) = desk.ask(holder(), want(100, ref=ref)).leases
        desk.tell(holder(), report(lease.id, spent, held=0 if spent else 5))
    views = [view_of(account, NOTHING, desk.now_ms) for account in desk.books.current(desk.now_ms)]

    (shown,) = limit_views(BudgetSpec(name=BUDGET, limits=(spec,)), views, NOW)

    assert (shown.values, shown.settled, shown.stage) == (3, 100, "Exhausted")
    status = made(shown)
    assert status["limits"][0]["values"] == 3
    (said,) = [each["message"] for each in status["conditions"] if each["type"] == "WithinBudget"]
    assert said.startswith("the fullest of 3 values of limit 'hourly'") and "its calls are refused" in said
    assert "ben" not in repr(status)
