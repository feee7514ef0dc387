"""Overrides in the books: an account of their own, drained first, known by name, and gone when their time is over."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from ledger_desk import HOUR_MS, Desk, holder
from ledger_samples import BUDGET, START_MS, budget, limit, limits_of, report, want
from spendmesh_operator.ledger.books.overrides import overrides_of
from spendmesh_operator.ledger.books.rolling import NOTHING
from spendmesh_operator.ledger.books.views import view_of, views_of
from spendmesh_operator.ledger.document.sections import decode, encode
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.specs import LimitSpec, OverrideSpec, PerSpec, WindowSpec
from spendmesh_sidecar.core.types import Shortfall
from spendmesh_sidecar.protocol import AccountRef, Lease, LeaseReport, ReportRequest, Want

START = START_MS // 1000
LAUNCH = OverrideSpec(name="launch", amount=500, starts=START, ends=START + 1800)


class OverrideDesk(Desk):
    """Books of one hourly limit of 1000 with overrides."""

    def __init__(self, *overrides: OverrideSpec, base: LimitSpec | None = None) -> None:
        super().__init__()
        self.base = base or limit(1000)
        self.put(*(overrides or (LAUNCH,)))

    def put(self, *overrides: OverrideSpec) -> None:
        """Exactly these from now on."""
        spec = budget(limits=(replace(self.base, overrides=overrides),))
        self.limits = limits_of(spec)
        self.books.remember({BUDGET: spec}, [BUDGET])

    def take(self, who: str, need: int, useful: int | None = None) -> dict[str, Lease]:
        """What was granted, by override."""
        return {each.account.override: each for each in self.ask(holder(who), want(need, useful)).leases}

    def granted(self, who: str, need: int, useful: int | None = None) -> dict[str, int]:
        return {name: each.granted for name, each in self.take(who, need, useful).items()}

    def charged(self) -> dict[str, int]:
        return {key.override: each.charged for key, each in self.books.holdings.accounts.items()}


def test_the_override_is_granted_first_and_the_rest_from_the_limit() -> None:
    """All or nothing over both; the limit's own lease always comes along."""
    desk = OverrideDesk()

    assert desk.granted("pod-a", 300) == {"launch": 300, "": 0}
    assert desk.granted("pod-b", 300) == {"launch": 200, "": 100}
    assert desk.granted("pod-c", 10) == {"": 10}
    assert desk.charged() == {"launch": 500, "": 110}


@pytest.mark.parametrize(
    ("known", "granted"),
    [((), {"": 300}), (("later",), {"": 300}), (("launch",), {"launch": 300, "": 0}), (None, {"launch": 300, "": 0})],
)
def test_only_overrides_that_the_asker_knows_are_granted(
    known: tuple[str, ...] | None, granted: dict[str, int]
) -> None:
    """`None` is a sidecar of an earlier version, which does not say."""
    desk = OverrideDesk()
    reply = desk.ask(holder(), replace(want(300), overrides=known))
    assert {each.account.override: each.granted for each in reply.leases} == granted


def test_a_sidecar_whose_policy_lacks_an_override_still_is_served_by_one_question() -> None:
    """A policy change reaches the operator before the sidecar, or the other way round: neither refuses a call."""
    desk = OverrideDesk()
    plain, launched = (budget(limits=(replace(desk.base, overrides=each),)) for each in ((), (LAUNCH,)))
    for uid, spec in (("older", plain), ("newer", launched)):
        ledger = Ledger(f"{uid}-nonce", (spec,), 0.0)
        lacking = Shortfall(BUDGET, "hourly", 300, 300)
        for lease in desk.ask(holder(uid), *ledger.wants_for((lacking,), 0.0)).leases:
            ledger.merge(lease, 0.0)
        assert ledger.free(want(1).account, 0.0) >= 300, uid


def test_a_need_larger_than_either_is_served_by_both() -> None:
    """No false refusal while their free rights together cover it."""
    desk = OverrideDesk()

    assert desk.granted("pod-a", 1500) == {"launch": 500, "": 1000}
    assert desk.refused(holder("pod-b"), want(1501)) == ["too_large"]
    assert desk.refused(holder("pod-b"), want(1)) == ["in_flight"]


def test_an_overdrawn_limit_still_gives_what_its_override_has() -> None:
    """A lowered limit does not eat the override."""
    desk = OverrideDesk()
    desk.take("pod-a", 1500)
    desk.base = limit(100)
    desk.put(replace(LAUNCH, amount=900))

    assert desk.granted("pod-b", 400)["launch"] == 400
    assert desk.refused(holder("pod-b"), want(1)) == ["in_flight"]


def test_an_overdrawn_override_takes_nothing_from_its_limit() -> None:
    """A lowered override has nothing left to give; the limit still gives its last unit."""
    desk = OverrideDesk()
    desk.take("pod-a", 500)
    desk.put(replace(LAUNCH, amount=100))

    assert desk.granted("pod-b", 1000) == {"": 1000}


def test_a_raised_override_acts_at_once_for_whoever_knows_of_it() -> None:
    """A pod's new policy may ask before the books have heard of the edit."""
    desk = OverrideDesk()
    desk.take("pod-a", 500)
    desk.limits = limits_of(budget(limits=(replace(desk.base, overrides=(replace(LAUNCH, amount=700),)),)))

    assert desk.granted("pod-b", 200) == {"launch": 200, "": 0}


def test_refusals_and_states_count_both() -> None:
    """What is left, which step is reached, and why, is of the limit and its override together."""
    desk = OverrideDesk()
    leases = desk.take("pod-a", 1400)
    both = (report(leases["launch"].id, 500), report(leases[""].id, 700))

    states = desk.tell(holder("pod-a"), *both)

    assert {(each.state.amount, each.state.settled) for each in states if each.state} >= {(1500, 1200)}
    assert desk.state.crossed_percent == 80, "1200 of 1500, not 700 of 1000"
    (denial,) = desk.ask(holder("pod-b"), want(301)).denials
    assert denial.reason == "exhausted" and denial.state is not None
    assert (denial.state.amount, denial.state.settled, denial.state.charged) == (1500, 1200, 1400)
    assert desk.refused(holder("pod-b"), want(300)) == ["in_flight"]


def test_quarantined_rights_of_an_override_count_for_the_stage() -> None:
    desk = OverrideDesk()
    desk.take("pod-a", 1200)
    desk.books.quarantine(["pod-a"], "gone")

    assert desk.state.crossed_percent == 80


def test_the_last_unit_of_an_override_is_granted_before_the_limits_own() -> None:
    """A need of one is a need, and a rest of one is a rest."""
    desk = OverrideDesk(replace(LAUNCH, amount=1))

    assert desk.granted("pod-a", 1) == {"launch": 1, "": 0}
    assert desk.granted("pod-b", 1) == {"": 1}


class ObservedDesk(OverrideDesk):
    """The same, where nothing is enforced."""

    def put(self, *overrides: OverrideSpec) -> None:
        self.limits = limits_of(budget(mode="Observe", limits=(replace(self.base, overrides=overrides),)))


def test_an_observed_override_gives_no_more_than_it_has() -> None:
    """What is wanted beyond it is the limit's own, also when it is overdrawn."""
    desk = ObservedDesk()
    leases = desk.take("pod-a", 100, 700)
    desk.tell(holder("pod-a"), report(leases["launch"].id, 600, overrun=100))

    assert (leases["launch"].granted, leases[""].granted) == (500, 200)
    assert desk.granted("pod-b", 10, 30) == {"": 30}


BOTH = {"launch": 10, "": 0}


@pytest.mark.parametrize(("at", "granted"), [(-1, {"": 10}), (0, BOTH), (1799, BOTH), (1800, {"": 10})])
def test_it_gives_only_in_its_interval(at: int, granted: dict[str, int]) -> None:
    """`from` is the first instant, `until` the first that is no longer in it."""
    desk = OverrideDesk()
    desk.now_ms += at * 1000

    assert desk.granted("pod-a", 10) == granted


def test_what_is_unspent_lapses_and_what_was_spent_is_not_the_limits() -> None:
    """After it, the limit is as if it had never been."""
    desk = OverrideDesk()
    leases = desk.take("pod-a", 400)
    desk.tell(holder("pod-a"), report(leases["launch"].id, 400, closed=1))
    desk.now_ms += 1_800_000

    assert (desk.state.amount, desk.state.settled, desk.state.charged) == (1000, 0, 0)
    assert desk.granted("pod-b", 1000) == {"": 1000}


def test_deleted_and_applied_again_it_has_spent_what_it_had_spent() -> None:
    """The name is the identity, over deletion, a new leader and a larger increase."""
    desk = OverrideDesk()
    leases = desk.take("pod-a", 400)
    desk.tell(holder("pod-a"), report(leases["launch"].id, 400, closed=1))
    desk.put()
    assert desk.granted("pod-b", 10) == {"": 10}
    desk.books = decode(encode(desk.books), "test")
    desk.put(replace(LAUNCH, amount=600))

    assert desk.granted("pod-c", 500) == {"launch": 200, "": 300}
    assert desk.state.settled == 400


@pytest.mark.parametrize(
    "moved", [replace(LAUNCH, starts=START - 60), replace(LAUNCH, ends=START + 7200), replace(LAUNCH, starts=START - 1)]
)
def test_a_name_with_another_interval_gives_nothing_while_the_old_one_runs(moved: OverrideSpec) -> None:
    """Deleting an override and applying it with other moments must not reset what was spent; the limit goes on."""
    desk = OverrideDesk()
    desk.take("pod-a", 400)
    desk.put(moved)

    assert desk.granted("pod-b", 10) == {"": 10}


def test_a_later_interval_of_the_same_name_is_a_new_account() -> None:
    desk = OverrideDesk()
    desk.take("pod-a", 400)
    desk.put(replace(LAUNCH, starts=START + 1800, ends=START + 3600))
    desk.now_ms += 1_800_000

    assert desk.granted("pod-b", 450)["launch"] == 450


def test_a_dropped_interval_is_never_opened_again() -> None:
    """Books forget an ended override one retention after its end, and remember that it was."""
    desk = OverrideDesk(base=limit(1000, window=WindowSpec(period="Day")))
    leases = desk.take("pod-a", 400)
    desk.tell(holder("pod-a"), report(leases["launch"].id, 400, closed=1))
    desk.books.sweep(desk.now_ms + 2 * 1_800_000, 3_600_000)
    assert "launch" not in desk.charged()

    assert desk.granted("pod-b", 10) == {"": 10}


def test_it_runs_on_over_the_boundary_of_a_period() -> None:
    """Its account is its own: a new period of the limit does not fill it up again."""
    desk = OverrideDesk(replace(LAUNCH, starts=START + 1800, ends=START + 7200))
    desk.now_ms += 1_800_000
    desk.take("pod-a", 400)
    desk.now_ms += 1_800_000

    assert desk.granted("pod-b", 200) == {"launch": 100, "": 100}


def test_rights_of_the_next_period_are_the_limits_alone() -> None:
    desk = OverrideDesk(replace(LAUNCH, ends=START + 7200))
    ahead = Want(account=AccountRef(budget=BUDGET, limit="hourly"), need=0, want=10, period="next")

    (lease,) = desk.ask(holder(), ahead).leases

    assert (lease.account.override, lease.starts_in_ms, lease.state.amount) == ("", HOUR_MS, 1000)


def test_each_value_of_a_divided_limit_has_the_increase_for_itself() -> None:
    desk = OverrideDesk(base=replace(limit(1000), per=(PerSpec(type="User"),), max_values=4))
    for user in ("ana", "ben"):
        ref = AccountRef(budget=BUDGET, limit="hourly", per=(user,))
        leases = desk.ask(holder(), want(1500, ref=ref)).leases
        assert {(each.account.per, each.account.override): each.granted for each in leases} == {
            ((user,), "launch"): 500,
            ((user,), ""): 1000,
        }


def test_a_waiting_need_asks_back_what_others_hold_of_the_override_too() -> None:
    desk = OverrideDesk()
    leases = desk.take("pod-a", 1500)
    assert desk.refused(holder("pod-b"), want(100)) == ["in_flight"]

    states = desk.tell(holder("pod-a"), *(report(each.id, 0, held=0) for each in leases.values()))

    assert [each.recalled for each in states] == [100, 100]


def test_a_repeated_request_gets_both_leases_again() -> None:
    """A lost answer is asked for again under its id: nothing is granted twice, nothing is left unsaid."""
    desk = OverrideDesk()
    first = desk.ask(holder(), want(600), request_id="r")

    assert desk.ask(holder(), want(600), request_id="r") == first
    assert desk.charged() == {"launch": 500, "": 100}


def test_people_see_one_line_for_both() -> None:
    """Spent, held and the holders of an override are the limit's while it runs."""
    desk = OverrideDesk()
    leases = desk.take("pod-a", 600)
    desk.tell(holder("pod-a"), report(leases["launch"].id, 300, held=100), report(leases[""].id, 20))
    desk.books.quarantine(["pod-a"], "silent")
    desk.take("pod-b", 50)

    (account,) = desk.books.current(desk.now_ms)
    view = view_of(account, NOTHING, desk.now_ms, overrides_of(desk.books.holdings, account, None, desk.now_ms))

    assert (view.state.amount, view.quarantined, view.held) == (1500, 600, 50)
    assert len(view.holders) == 3


def test_no_request_names_an_override_itself() -> None:
    """Rights are asked for on the limit; which account gives them is the coordinator's."""
    ref = AccountRef(budget=BUDGET, limit="hourly", override="launch")

    assert OverrideDesk().refused(holder(), want(1, ref=ref)) == ["unknown"]


@pytest.mark.parametrize(("named", "believed"), [("launch", True), ("nobodys", False)])
def test_forgotten_rights_of_an_override_are_taken_back_on_its_own_account(named: str, believed: bool) -> None:
    """Books that were restored from a backup charge them where they were granted; row 13 of the fault table."""
    desk = OverrideDesk()
    desk.books.begin_life("aaaaaa-", desk.now_ms)
    copy = encode(desk.books)
    desk.books.begin_life("bbbbbb-", desk.now_ms)
    lease = desk.take("pod-a", 300)["launch"]
    desk.books = decode(copy, "test")
    desk.books.begin_life("cccccc-", desk.now_ms)
    ref = replace(lease.account, override=named)
    said = LeaseReport(lease=lease.id, sequence=3, used=20, held=0, account=ref, granted=300)
    request = ReportRequest(nonce=holder("pod-a").nonce, reports=(said,))

    (state,) = desk.books.report(holder("pod-a"), request, desk.limits, desk.now_ms, "taken back").leases

    assert state.fenced is not believed
    assert desk.charged() == ({"launch": 300} if believed else {})


def test_an_override_as_long_as_the_period_does_not_let_a_limit_change_its_meaning() -> None:
    """Contract §4: under another meaning its spend would begin anew, so it waits for the period's end."""
    for name in ("launch", "a", "b", "c", "d", "e", "f", "g"):
        desk = OverrideDesk(OverrideSpec(name=name, amount=500, starts=START, ends=START + 3600))
        desk.take("pod-a", 1500)

        desk.base = replace(desk.base, window=WindowSpec(period="Day"))
        desk.put()

        assert desk.refused(holder("pod-a"), want(1)) == ["unverifiable"], name


def test_a_forecast_is_never_less_than_what_is_spent_with_the_override() -> None:
    """While it runs it is drained first: its spend is in all sums that people see, so in this one too."""
    desk = OverrideDesk()
    extra, own = desk.take("pod-a", 600).values()
    desk.now_ms += 600_000
    desk.tell(holder("pod-a"), report(extra.id, 500), report(own.id, 100))
    desk.pass_time(1000)

    (view,) = views_of(desk.books.holdings, desk.now_ms)

    assert view.state.settled == 600
    assert view.forecast is not None and view.forecast >= 600
