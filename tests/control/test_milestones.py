"""Thresholds, exhaustion and too much in quarantine: told once per period, over restarts and changes of leader."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace
from prometheus_client import CollectorRegistry

from control_plane import ControlPlane
from coordinator_samples import POD, serving
from ledger_desk import Desk, holder
from ledger_samples import BUDGET, HOUR, acquire, budget, limit, limits_of, report, want
from rolling_desk import PART_MS, Rolling
from spendmesh_operator.control.metrics import ControlMetrics
from spendmesh_operator.index import ObjectKey
from spendmesh_operator.kube import events
from spendmesh_operator.kube.budget_events import BudgetEvents
from spendmesh_operator.kube.client import Conflict, Kube, KubeUnavailable
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.correcting import correct
from spendmesh_operator.ledger.books.rolling import NOTHING
from spendmesh_operator.ledger.books.views import view_of
from spendmesh_operator.ledger.coordinator.telling import mark_told, untold
from spendmesh_operator.ledger.document.sections import decode, encode, take_changes
from spendmesh_operator.ledger.stores.base import MemoryStore
from spendmesh_operator.status import EventDraft
from spendmesh_sidecar.core.specs import OverrideSpec, WindowSpec
from spendmesh_sidecar.protocol import LeaseReport, ReportRequest

TIER = "economy"


class Told(Desk):
    """A budget of one spender, and what people have heard of it."""

    def __init__(self, amount: int = 1000) -> None:
        super().__init__(amount)
        self.heard: list[str] = []
        self._last: LeaseReport | None = None
        self.resize(amount)
        self.lease = self.grant(holder(), amount)

    def resize(self, amount: int) -> None:
        """An edit of the amount."""
        spec = budget(limits=(limit(amount, max_tier=TIER),))
        self.limits = limits_of(spec)
        self.books.remember({BUDGET: spec}, [BUDGET])

    def spend(self, used: int) -> None:
        """The spender has used so much by now; more rights are asked for where they are needed."""
        self._last = report(self.lease.id, used, after=self._last)
        self.tell(holder(), self._last)

    def listen(self) -> list[str]:
        """One sweep, and what is told after it."""
        self.books.sweep(self.now_ms, 1000)
        news = untold(self.books, self.now_ms)
        for each in news:
            mark_told(self.books, each)
        self.heard += [each.name for each in news]
        return [each.name for each in news]


# --- when ---------------------------------------------------------------------------------------------------


def test_each_step_is_told_once_in_the_order_in_which_it_is_reached() -> None:
    desk = Told()
    heard = []
    for used in (0, 799, 800, 801, 899, 950, 999, 1000, 1000):
        desk.spend(used)
        heard.append(desk.listen())

    assert heard == [[], [], ["80"], [], [], ["90"], [], ["100"], []]


def test_several_steps_at_once_are_each_told() -> None:
    desk = Told()
    desk.spend(1000)
    assert desk.listen() == ["80", "90", "100"]


def test_a_new_period_tells_anew() -> None:
    desk = Told()
    desk.spend(850)
    assert desk.listen() == ["80"]
    desk.now_ms += 3_600_000
    lease = desk.grant(holder(), 900)
    desk.tell(holder(), report(lease.id, 850))
    assert desk.listen() == ["80"]


def test_a_raised_amount_leaves_a_stage_and_reaching_it_anew_is_told() -> None:
    """The Downgrade ends with the raise and begins again at 90 % of the new amount."""
    desk = Told()
    desk.spend(950)
    assert desk.listen() == ["80", "90"]
    assert (desk.state.crossed_percent, desk.state.max_tier) == (90, TIER)

    desk.resize(2000)
    assert (desk.state.crossed_percent, desk.state.max_tier) == (0, "")
    assert desk.listen() == []

    desk.grant(holder(), 900)
    desk.spend(1600)
    assert desk.listen() == ["80"]
    assert (desk.state.crossed_percent, desk.state.max_tier) == (80, "")


def test_a_raise_that_leaves_no_stage_tells_nothing() -> None:
    """950 of 1,000 is 90 %, and of 1,050 still: nothing was left, so nothing is reached anew."""
    desk = Told()
    desk.spend(950)
    assert desk.listen() == ["80", "90"]
    desk.resize(1050)
    assert desk.listen() == []
    assert desk.state.max_tier == TIER


def test_an_amount_that_goes_to_and_fro_does_not_flap() -> None:
    """Two tools that fight over an amount produce one Event for each step and amount, not one for each edit."""
    desk = Told()
    desk.spend(850)
    desk.listen()
    for _ in range(5):
        desk.resize(500)
        desk.listen()
        desk.resize(1000)
        desk.listen()

    assert sorted(desk.heard) == ["100", "80", "90"]


def test_rights_that_leave_quarantine_do_not_make_a_stage_flap() -> None:
    """A pod that is silent now and then: reached is reached, and the Downgrade stays until the amount is raised."""
    desk = Told()
    desk.spend(700)
    for _ in range(3):
        desk.books.quarantine(["pod-a"], "silent")
        desk.listen()
        desk.tell(holder())
        desk.listen()

    assert [name for name in desk.heard if name != "quarantine"] == ["80", "90", "100"]
    assert (desk.state.crossed_percent, desk.state.max_tier) == (90, TIER)


def test_a_correction_leaves_a_stage() -> None:
    """Proof that less was spent: the stage is left, and told anew if it is reached again."""
    desk = Told()
    desk.spend(850)
    desk.tell(holder(), report(desk.lease.id, 850, after=desk._last, closed=1))
    assert desk.listen() == ["80"]
    (account,) = desk.books.current(desk.now_ms)

    correct(desk.books, account.key, "invoice-1", -200, "provider's invoice", desk.now_ms)

    assert desk.state.crossed_percent == 0
    desk.now_ms += 1000
    lease = desk.grant(holder(), 200)
    desk.tell(holder(), report(lease.id, 160))
    assert desk.listen() == ["80"]


@pytest.mark.parametrize(("held", "alerts"), [(500, []), (501, ["quarantine"])])
def test_more_than_a_twentieth_in_quarantine_alerts(held: int, alerts: list[str]) -> None:
    desk = Desk(10_000)
    desk.grant(holder(), held)
    desk.books.quarantine(["pod-a"], "gone")
    desk.books.sweep(desk.now_ms, 1000)
    assert [each.name for each in untold(desk.books, desk.now_ms)] == alerts


def test_the_quarantine_alert_ends_below_four_percent_and_is_told_once_for_each_crossing() -> None:
    """501 → 401 → 501 is one alert; 501 → 400 → 501 is two."""
    desk = Desk(10_000)
    heard = []
    for pod, amount in (("steady", 400), ("middle", 1), ("last", 100)):
        desk.grant(holder(pod), amount)
    for gone in (("steady", "middle", "last"), ("steady", "middle"), ("steady", "middle", "last"), ("steady",)) * 2:
        for pod in ("steady", "middle", "last"):
            desk.tell(holder(pod))
        desk.books.quarantine(gone, "silent")
        desk.books.sweep(desk.now_ms, 1000)
        for each in untold(desk.books, desk.now_ms):
            heard.append(each.name)
            mark_told(desk.books, each)
        desk.now_ms += 1000

    assert heard == ["quarantine", "quarantine"]


def test_a_rolling_window_tells_a_step_once_while_it_stands_and_anew_when_it_is_reached_again() -> None:
    """Its parts are accounts of their own: a milestone moves with the window until the spend has rolled out of it."""
    rolling = Rolling()
    heard: list[str] = []

    def part(spend: int) -> None:
        rolling.ask("pod-a", spend, spend)
        rolling.spend("pod-a", spend)
        rolling.report("pod-a")
        rolling.pass_ms(1000)
        for each in untold(rolling.desk.books, rolling.desk.now_ms):
            heard.append(each.name)
            mark_told(rolling.desk.books, each)
        rolling.pass_ms(PART_MS - 1000)

    part(850)
    for _ in range(20):
        part(1)
    assert heard == ["80"]
    for _ in range(10):
        part(1)
    assert rolling.desk.state.crossed_percent == 0
    part(850)
    assert heard == ["80", "80"]


def listened(rolling: Rolling) -> list[str]:
    """A second passes, with its sweep, and what is told after it."""
    rolling.pass_ms(1000)
    news = untold(rolling.desk.books, rolling.desk.now_ms)
    for each in news:
        mark_told(rolling.desk.books, each)
    return [each.name for each in news]


def test_rights_that_are_fetched_ahead_do_not_make_a_step_be_told_again() -> None:
    """The next part of a rolling window is there already; what was reached stays with the one that runs."""
    rolling = Rolling()
    rolling.ask("pod-a", 850, 850)
    rolling.spend("pod-a", 850)
    rolling.report("pod-a")
    assert listened(rolling) == ["80"]

    rolling.ask("pod-a", 1, 10, "next")

    assert [listened(rolling) for _ in range(3)] == [[], [], []]
    assert [[*account.milestones] for account in rolling.desk.books.holdings.accounts.values()] == [["80"], []]


def test_what_vanished_in_an_earlier_part_of_a_rolling_window_still_counts_and_still_alerts() -> None:
    rolling = Rolling()
    rolling.ask("pod-a", 850, 850)
    rolling.desk.books.quarantine(["pod-a"], "gone")
    assert listened(rolling) == ["80", "quarantine"]
    rolling.pass_ms(PART_MS)
    rolling.ask("pod-b", 10, 10)

    assert listened(rolling) == []
    (account,) = rolling.desk.books.current(rolling.desk.now_ms)
    assert account.milestones.keys() == {"80", "quarantine"}


def test_what_is_reported_after_a_part_of_a_rolling_window_has_ended_is_told() -> None:
    """All is spent, so no further part is opened: still people hear it, once, and it is left when it has rolled out."""
    rolling = Rolling()
    rolling.ask("pod-a", 10, 10)
    rolling.spend("pod-a", 10)
    rolling.report("pod-a")
    rolling.pass_ms(PART_MS)
    rolling.ask("pod-a", 990, 990)
    rolling.spend("pod-a", 990)
    rolling.pass_ms(PART_MS)
    rolling.report("pod-a")
    assert rolling.ask("pod-b", 1, 1) == ["exhausted"]

    assert [listened(rolling) for _ in range(3)] == [["80", "90", "100"], [], []]
    rolling.pass_ms(25 * PART_MS)
    rolling.ask("pod-b", 900, 900)
    rolling.spend("pod-b", 900)
    rolling.report("pod-b")
    assert listened(rolling) == ["80", "90"]


def test_a_rolling_window_tells_only_what_is_in_it_still() -> None:
    """Nothing was asked for since its last part: a lowered amount is compared with what has not rolled out of it."""
    rolling = Rolling()
    for amount in (500, 100):
        rolling.ask("pod-a", amount, amount)
        rolling.spend("pod-a", amount)
        rolling.report("pod-a")
        listened(rolling)
        rolling.pass_ms(PART_MS - 1000)
    rolling.report("pod-a")
    rolling.pass_ms(23 * PART_MS - 1)

    def lowered(amount: int, later_ms: int) -> list[str]:
        books, now_ms = decode(encode(rolling.desk.books), "test"), rolling.desk.now_ms + later_ms
        books.remember({BUDGET: budget(limits=(limit(amount, window=rolling.window),))}, [BUDGET])
        books.sweep(now_ms, 0)
        return [each.name for each in untold(books, now_ms)]

    assert (lowered(600, 0), lowered(600, 1)) == (["80", "90", "100"], [])
    assert (lowered(100, PART_MS), lowered(100, PART_MS + 1)) == (["80", "90", "100"], [])


def test_a_rolling_window_is_written_when_a_step_moves_on_with_it_and_not_by_every_sweep() -> None:
    """A new leader must find it where it is: else it would be told again."""
    rolling = Rolling()
    rolling.ask("pod-a", 850, 850)
    rolling.spend("pod-a", 850)
    rolling.report("pod-a")
    listened(rolling)
    rolling.pass_ms(PART_MS)
    rolling.ask("pod-b", 10, 10)
    take_changes(rolling.desk.books)

    rolling.pass_ms(1000)
    moved = {page["start"]: [*page["milestones"]] for page in take_changes(rolling.desk.books).put.values()}
    rolling.pass_ms(1000)
    quiet = take_changes(rolling.desk.books).put

    assert [*moved.values()] == [[], ["80"]]
    assert quiet == {}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("spend"), st.integers(0, 1000)),
            st.tuples(st.just("resize"), st.sampled_from([500, 1000, 1500, 3000])),
            st.tuples(st.just("vanish"), st.just(0)),
            st.tuples(st.just("return"), st.just(0)),
            st.tuples(st.just("restart"), st.just(0)),
        ),
        max_size=30,
    )
)
def test_no_history_tells_a_step_twice_at_one_amount(history: list[tuple[str, int]]) -> None:
    """Edits to and fro, silent pods and restarts from the stored document: one telling per step and amount."""
    desk = Told()
    used, amount, seen = 0, 1000, set()
    for what, value in history:
        if what == "spend":
            used = max(used, value)
            desk.spend(used)
        elif what == "resize":
            amount = value
            desk.resize(amount)
        elif what == "vanish":
            desk.books.quarantine(["pod-a"], "silent")
        elif what == "return":
            desk.tell(holder())
        else:
            desk.books = decode(encode(desk.books), "test")
        for name in desk.listen():
            if name != "quarantine":
                assert (name, amount) not in seen
                seen.add((name, amount))


# --- beside overrides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [HOUR, WindowSpec(type="Rolling", duration_seconds=86_400)], ids=["hour", "rolling"])
def test_a_step_that_is_reached_with_an_override_is_told_once_and_left_when_its_time_is_over(
    window: WindowSpec,
) -> None:
    """What was spent of the override is not the limit's afterwards, so neither is a step that it alone reached."""
    desk = Told()
    start = desk.now_ms // 1000
    launch = OverrideSpec(name="launch", amount=3000, starts=start, ends=start + 900)
    spec = budget(limits=(replace(limit(1000, window=window, max_tier=TIER), overrides=(launch,)),))
    desk.books, desk.limits = Books("test"), limits_of(spec)
    desk.books.remember({BUDGET: spec}, [BUDGET])
    extra, own = desk.ask(holder(), want(3700)).leases
    desk.tell(holder(), report(extra.id, 3000, closed=1), report(own.id, 700))

    assert [desk.listen() for _ in range(3)] == [["80", "90"], [], []]
    assert desk.state.max_tier == TIER

    desk.now_ms += 901_000
    assert desk.listen() == []
    assert (desk.state.max_tier, desk.state.crossed_percent) == ("", 0), "700 of 1000"


@pytest.mark.parametrize(("taken", "crossed"), [(100, 80), (101, 0)])
def test_a_correction_beside_an_override_keeps_what_is_still_reached(taken: int, crossed: int) -> None:
    """A small correction of the limit is no reason to tell a step again that limit and override reach together."""
    desk = Told()
    start = desk.now_ms // 1000
    launch = OverrideSpec(name="launch", amount=1000, starts=start, ends=start + 900)
    spec = budget(limits=(replace(limit(1000, max_tier=TIER), overrides=(launch,)),))
    desk.books, desk.limits = Books("test"), limits_of(spec)
    desk.books.remember({BUDGET: spec}, [BUDGET])
    extra, own = desk.ask(holder(), want(1700)).leases
    desk.tell(holder(), report(extra.id, 1000, closed=1), report(own.id, 700, closed=1))
    assert desk.listen() == ["80"]
    (account,) = desk.books.current(desk.now_ms)

    correct(desk.books, account.key, "invoice-1", -taken, "provider's invoice", desk.now_ms)
    desk.now_ms += 1000

    assert desk.listen() == []
    assert desk.state.crossed_percent == crossed


# --- to whom ------------------------------------------------------------------------------------------------


class EventKube:
    """Keeps Events by name, as the API server does; `down` answers nothing after it has written."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.down = False

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert path == "/api/v1/namespaces/team-a/events"
        name = body["metadata"]["name"]
        if name in self.events:
            raise Conflict(409, "AlreadyExists", name)
        self.events[name] = body
        if self.down:
            raise KubeUnavailable(0, "", "no answer")
        return body


def teller(kube: EventKube, coordinator: Any, uids: dict[ObjectKey, str] | None = None) -> BudgetEvents:
    known = {ObjectKey("ModelBudget", "team-a", "team"): "uid-team"} if uids is None else uids
    return BudgetEvents(kube, coordinator, lambda: known)  # type: ignore[arg-type]


def test_an_event_is_written_once_over_a_lost_answer_a_restart_and_an_expired_event() -> None:
    """The first leader hears no answer; the second finds the Event; the third comes when it has expired."""
    store, kube = MemoryStore(), EventKube()

    async def scenario() -> None:
        async with serving(store) as first:
            (lease,) = (await first.acquire(POD, acquire("r", "n", want(850)))).leases
            await first.report(POD, ReportRequest(nonce="n", reports=(report(lease.id, 850),)))
            await first.sweep()
            kube.down = True
            await teller(kube, first).tell()
        kube.down = False
        async with serving(store) as second:
            await teller(kube, second).tell()
            assert await second.untold() == ()
        assert len(kube.events) == 1
        event = next(iter(kube.events.values()))
        kube.events.clear()
        async with serving(store) as third:
            await third.sweep()
            await teller(kube, third).tell()
        assert kube.events == {}
        assert (event["type"], event["reason"]) == ("Warning", "ThresholdReached")
        assert event["involvedObject"]["uid"] == "uid-team"
        assert "limit 'hourly' (0.000001 USD) has reached 80 %" in event["message"]

    asyncio.run(scenario())


def test_nothing_is_marked_as_told_while_it_is_not_known_which_budgets_exist() -> None:
    """A leader whose informer has not read the objects yet would swallow what it cannot say."""
    store, kube = MemoryStore(), EventKube()

    async def scenario() -> None:
        async with serving(store) as coordinator:
            (lease,) = (await coordinator.acquire(POD, acquire("r", "n", want(850)))).leases
            await coordinator.report(POD, ReportRequest(nonce="n", reports=(report(lease.id, 850),)))
            await coordinator.sweep()
            await BudgetEvents(kube, coordinator, lambda: None).tell()  # type: ignore[arg-type]
            assert len(await coordinator.untold()) == 1
            await teller(kube, coordinator, {}).tell()
            assert await coordinator.untold() == (), "the budget was deleted: there is nothing to say it of"

    asyncio.run(scenario())
    assert kube.events == {}


def test_the_metric_shows_each_milestone_while_it_stands() -> None:
    desk = Told()
    desk.spend(900)
    desk.listen()
    registry = CollectorRegistry()
    metrics = ControlMetrics(registry)

    def shown() -> dict[str, float | None]:
        metrics.show_accounts(view_of(account, NOTHING, desk.now_ms) for account in desk.books.current(desk.now_ms))
        labels = {"budget": BUDGET, "limit": "hourly", "unit": "Cost", "currency": "USD"}
        names = ("80", "90", "100", "quarantine")
        return {
            name: registry.get_sample_value("spendmesh_budget_milestone", labels | {"milestone": name})
            for name in names
        }

    assert shown() == {"80": 1.0, "90": 1.0, "100": None, "quarantine": None}
    desk.resize(1100)
    assert shown() == {"80": 1.0, "90": None, "100": None, "quarantine": None}


def test_a_real_api_server_keeps_one_event_under_the_milestones_name(control_plane: ControlPlane) -> None:
    """The name is a valid one, and the second writer hears that it is there."""
    control_plane.create_namespace("milestones")
    budget_name = "a.very-long.name-" + "x" * 180
    about = {
        "apiVersion": "spendmesh.io/v1alpha1",
        "kind": "ModelBudget",
        "metadata": {"name": budget_name, "namespace": "milestones", "uid": "u"},
    }

    async def run() -> list[bool]:
        kube = await Kube.connect(str(control_plane.kubeconfig))
        try:
            draft = EventDraft("Warning", "ThresholdReached", "80 %")
            at = datetime(2026, 1, 5, 10, tzinfo=UTC)
            return [await events.publish(kube, about, draft, at, "0123456789abcdef") for _ in range(3)]
        finally:
            await kube.close()

    assert asyncio.run(run()) == [True, True, True]
    items = control_plane.api.call("GET", "/api/v1/namespaces/milestones/events")["items"]
    assert [one["metadata"]["name"] for one in items] == [f"{budget_name}.0123456789abcdef"]
