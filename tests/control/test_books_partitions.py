"""Divided limits in the books: whose account a call is, how many there may be, and what one pod can do to others."""

from __future__ import annotations

import pytest

from ledger_desk import HERE, HOUR_MS, NAMESPACE, TEAM, USER, DividedDesk, divided, holder, of
from ledger_samples import BUDGET, budget, limit, report, want
from spendmesh_operator.identity import PodIdentity
from spendmesh_operator.ledger.books.accounts import BadRequest
from spendmesh_operator.ledger.books.partitions import PodPlace, place_of
from spendmesh_operator.ledger.coordinator.operations import limits_of as limits_of_policy
from spendmesh_operator.ledger.document.sections import decode, encode, take_changes
from spendmesh_operator.workloads import Owner, PodInfo
from spendmesh_sidecar.core.specs import PerSpec
from spendmesh_sidecar.protocol import AccountRef, AcquireReply, Want

# --- whose account ----------------------------------------------------------------------------------------


def test_each_value_has_the_whole_amount_for_itself() -> None:
    """One user's end is not another's."""
    desk = DividedDesk()
    desk.take("pod-a", "ana", need=1000)

    assert desk.refused(holder("pod-b"), want(1, ref=of("ana"))) == ["in_flight"]
    assert desk.take("pod-b", "ben", need=1000).granted == 1000


@pytest.mark.parametrize(
    ("part", "value"),
    [
        (NAMESPACE, "team-a"),
        (PerSpec(type="Workload"), "team-a/Deployment/web"),
        (PerSpec(type="Pod"), "team-a/web-1"),
        (TEAM, "red"),
        (PerSpec(type="PodLabel", name="none"), "other"),
    ],
)
@pytest.mark.parametrize("claimed", ["", "team-b", "other"])
def test_what_a_pod_claims_to_be_is_ignored(part: PerSpec, value: str, claimed: str) -> None:
    """The books know the pod; the body of its request does not count."""
    desk = DividedDesk(part, USER)

    lease = desk.take("pod-a", claimed, "ana")

    assert desk.values == {(value, "ana")}
    assert lease.account == of("", "ana"), "the sidecar never sees the pod's part"


def test_a_value_that_is_not_said_is_other() -> None:
    desk = DividedDesk()

    assert desk.take("pod-a", "").account == of("other")
    assert desk.take("pod-b", "other").state.charged == 20


def test_a_limit_divided_otherwise_than_the_sidecar_thinks_is_unknown() -> None:
    """A policy change is on its way: it asks again with its next policy."""
    desk = DividedDesk()

    assert desk.refused(holder(), want(1, ref=of())) == ["unknown"]
    assert desk.refused(holder(), want(1, ref=of("ana", "x"))) == ["unknown"]


def test_another_division_under_the_same_name_waits_for_the_periods_end() -> None:
    """Contract §4: with another meaning it is another limit; an undivided account is not opened beside the users'."""
    desk = DividedDesk()
    desk.take("pod-a", "ana")
    desk.limit = limit()

    assert desk.refused(holder(), want(1, ref=of())) == ["unverifiable"]
    desk.now_ms += HOUR_MS
    assert desk.ask(holder(), want(1, ref=of())).leases


def test_a_relabelled_pod_gives_back_and_goes_on_under_its_new_label() -> None:
    """Live: what it still has of the old account is recalled at its next report."""
    desk = DividedDesk(TEAM)
    lease = desk.take("pod-a", "", need=100)
    desk.place = PodPlace("team-a", "w", "p", {"team": "blue"})

    [state] = desk.tell(holder("pod-a"), report(lease.id, 40, held=10))

    assert state.recalled == 50
    desk.take("pod-a", "", need=5)
    assert desk.values == {("red",), ("blue",)}


def test_a_pod_is_known_by_its_topmost_controller() -> None:
    """Replicas of one Deployment are one workload; a pod without a controller is its own."""
    pod = PodIdentity("team-a", "web-1", "uid")
    owners = (Owner("ReplicaSet", "web-5d"), Owner("Deployment", "web"))

    known = place_of(pod, PodInfo("team-a", "web-1", "uid", {"team": "red"}, owners))

    assert known == HERE
    assert place_of(pod, None).workload == "team-a/Pod/web-1"
    assert limits_of_policy(None, known)(of("ana")) is None


# --- how many ---------------------------------------------------------------------------------------------


def told(reply: AcquireReply) -> dict[AccountRef, AccountRef]:
    return {each.asked: each.account for each in reply.assigned}


def test_values_beyond_the_bound_share_other_and_are_told() -> None:
    """Half of four for the first pod; then `other`, with the end of the period."""
    desk = DividedDesk(values=4)
    for user in ("ana", "ben"):
        desk.take("pod-a", user)

    reply = desk.ask(holder("pod-a"), want(10, ref=of("cat")))

    assert told(reply) == {of("cat"): of("other")}
    assert [lease.account for lease in reply.leases] == [of("other")]
    assert reply.assigned[0].ends_in_ms == HOUR_MS
    assert desk.values == {("ana",), ("ben",), ("other",)}


def test_new_values_of_one_request_take_room_from_each_other() -> None:
    """Half of two is one: the second of them shares `other`."""
    desk = DividedDesk(values=2)

    reply = desk.ask(holder("pod-a"), want(1, ref=of("ana")), want(1, ref=of("ben")))

    assert told(reply) == {of("ben"): of("other")}
    assert desk.values == {("ana",), ("other",)}


def test_without_room_for_a_combination_it_shares_the_one_that_is_always_open() -> None:
    """Another `other` for each namespace would need room, too."""
    desk = DividedDesk(NAMESPACE, USER, values=2)
    desk.take("pod-a", "", "ana")

    desk.take("pod-a", "", "ben")

    assert desk.values == {("team-a", "ana"), ("other", "other")}


def test_a_late_repetition_is_told_that_the_account_it_shares_has_ended() -> None:
    desk = DividedDesk(values=1)
    desk.take("pod-b", "ana")
    desk.ask(holder("pod-a"), want(10, ref=of("ben")), request_id="r")
    desk.now_ms += HOUR_MS + 1000

    reply = desk.ask(holder("pod-a"), want(10, ref=of("ben")), request_id="r")

    assert [(each.account, each.ends_in_ms) for each in reply.assigned] == [(of("other"), 0)]


def test_known_values_keep_their_account_when_there_is_no_room() -> None:
    desk = DividedDesk(values=2)
    desk.take("pod-a", "ana")
    desk.take("pod-b", "ben")

    assert told(desk.ask(holder("pod-b"), want(1, ref=of("ana")))) == {}
    assert told(desk.ask(holder("pod-b"), want(1, ref=of("cat")))) == {of("cat"): of("other")}


def test_wants_that_meet_in_other_are_added_up_and_granted_together() -> None:
    """Two users of one request share an account: each need counts, and neither is granted alone."""
    desk = DividedDesk(amount=100, values=1)
    desk.take("pod-b", "ana", need=1)
    both = [want(40, ref=of("ben")), want(60, ref=of("cat"))]

    reply = desk.ask(holder("pod-a"), *both, request_id="r")

    assert [(lease.account, lease.granted) for lease in reply.leases] == [(of("other"), 100)]
    assert told(reply) == {of("ben"): of("other"), of("cat"): of("other")}
    assert desk.ask(holder("pod-a"), *both, request_id="r") == reply
    refused = desk.ask(holder("pod-c"), want(1, ref=of("dan")), want(1, ref=of("eve")))
    assert [denial.account for denial in refused.denials] == [of("dan"), of("eve")]


def test_a_refused_value_opens_no_account() -> None:
    """What was never granted takes no room."""
    desk = DividedDesk()
    assert desk.refused(holder(), want(5000, ref=of("ana"))) == ["too_large"]
    assert desk.values == set()


def test_a_value_without_spend_gives_its_room_back() -> None:
    """An account on which nothing was ever booked goes with its last lease, and may come again."""
    desk = DividedDesk(values=2)
    lease = desk.take("pod-a", "ana")
    desk.tell(holder("pod-a"), report(lease.id, 0, closed=1))
    desk.books.sweep(desk.now_ms, 0)

    assert desk.values == set()
    assert desk.take("pod-a", "ben").account == of("ben")
    assert desk.take("pod-b", "ana").account == of("ana")


def test_a_spent_value_stays_until_its_period_is_forgotten() -> None:
    desk = DividedDesk()
    lease = desk.take("pod-a", "ana")
    desk.tell(holder("pod-a"), report(lease.id, 3, closed=1))
    desk.books.sweep(desk.now_ms, 0)

    assert desk.values == {("ana",)}
    assert desk.take("pod-a", "ana").state.settled == 3


def test_ten_thousand_values_of_one_pod_do_not_starve_another_pods_users() -> None:
    """One pod invents users and spends on each; the books stay bounded and others still get accounts of their own."""
    desk = DividedDesk(amount=100, values=1000)
    for number in range(10_000):
        desk.ask(holder("hostile"), want(1, ref=of(f"user-{number}")))

    assert len(desk.values) == 501, "half of the room, and other"
    for number in range(200):
        assert desk.take("honest", f"customer-{number}", need=100).account == of(f"customer-{number}")
    assert all(account.charged <= 100 for account in desk.books.holdings.accounts.values())


def test_the_next_period_begins_with_room_and_says_nothing_of_this_one() -> None:
    """Rights of the next period are handed out early; a value's account of this one is not given up for it."""
    desk = DividedDesk(values=2)
    desk.take("pod-a", "ana")
    ahead = Want(account=of("ana"), need=0, want=5, period="next")
    fills = Want(account=of("zoe"), need=0, want=5, period="next")

    assert told(desk.ask(holder("pod-a"), ahead)) == {}
    reply = desk.ask(holder("pod-a"), fills)

    assert told(reply) == {}
    assert [lease.account for lease in reply.leases] == [of("other")]
    assert reply.leases[0].starts_in_ms == HOUR_MS


# --- durable, and safe ------------------------------------------------------------------------------------


def test_accounts_who_opened_them_and_the_bound_survive_the_document() -> None:
    """A new leader knows the same accounts: a pod cannot open its half twice."""
    desk = DividedDesk(values=4)
    for user in ("ana", "ben"):
        desk.take("pod-a", user)
    desk.books = decode(encode(desk.books), "test")

    assert told(desk.ask(holder("pod-a"), want(1, ref=of("cat")))) == {of("cat"): of("other")}
    assert desk.take("pod-b", "dan").account == of("dan")


def test_a_value_as_long_as_a_header_may_be_is_read() -> None:
    assert DividedDesk().take("pod-a", "x" * 512).granted == 10


@pytest.mark.parametrize("value", ["x" * 513, "\u00e9" * 257, "a\nb", "a\x7fb", "a\ud800b"])
def test_a_value_that_no_sidecar_sends_is_refused_without_being_repeated(value: str) -> None:
    """Values are stored, so they are short text; an error does not carry them into logs."""
    with pytest.raises(BadRequest, match="text of at most 512 bytes") as refused:
        DividedDesk().ask(holder(), want(1, ref=of(value)))
    assert value not in str(refused.value)


def test_alarms_and_names_for_people_hold_no_value() -> None:
    """Logs and Events are read by more people than the user."""
    desk = DividedDesk()
    lease = desk.take("pod-a", "ana@example.com")
    desk.tell(holder("pod-a"), report(lease.id, 9999))

    alarms = desk.books.take_alarms()

    assert alarms and not any("ana" in sentence for sentence in alarms)
    [account] = desk.books.holdings.accounts.values()
    assert account.name == f"{BUDGET}/hourly"


def test_a_changed_amount_acts_on_every_value_at_once() -> None:
    desk = DividedDesk()
    desk.take("pod-a", "ana")
    desk.take("pod-a", "ben")

    desk.books.remember({BUDGET: budget(limits=(divided(amount=50),))}, [BUDGET])

    assert {account.limit.amount for account in desk.books.holdings.accounts.values()} == {50}


def test_a_value_that_is_dropped_and_comes_back_between_two_writes_is_stored() -> None:
    """Nothing was booked under it, so it took no room; what it is granted since then must survive a restart."""
    desk = DividedDesk()
    lease = desk.take("pod-a", "ana")
    sections = dict(take_changes(desk.books).put)
    desk.tell(holder("pod-a"), report(lease.id, 0, closed=1))
    desk.pass_time(1000)
    assert desk.values == set(), "it was dropped"

    desk.take("pod-a", "ana", need=700)
    changes = take_changes(desk.books)
    sections = {name: each for name, each in (sections | changes.put).items() if name not in changes.drop}
    desk.books = decode(sections, "test")

    assert desk.refused(holder("pod-b"), want(400, ref=of("ana"))) == ["in_flight"]
