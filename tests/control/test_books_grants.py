"""Who gets what rights: idempotence, all or nothing, sizes, and each reason of a refusal."""

from __future__ import annotations

import pytest

from ledger_desk import HOUR_MS, Desk, holder
from ledger_samples import BUDGET, REF, START_MS, acquire, budget, limit, limits_of, report, want
from spendmesh_operator.ledger.books.accounts import BadRequest, Holder, LimitInForce
from spendmesh_operator.ledger.coordinator.messages import MAX_WANTS
from spendmesh_sidecar.protocol import (
    AccountRef,
    AccountState,
    Want,
)

# --- grants -------------------------------------------------------------------------------------------------


def test_a_grant_is_the_holders_and_names_the_account_and_when_it_ends() -> None:
    """Everything that a sidecar needs to spend, and its own nonce."""
    desk = Desk()

    lease = desk.grant(holder(), 10)

    assert (lease.nonce, lease.account, lease.unit, lease.currency) == ("pod-a-nonce", REF, "Cost", "USD")
    assert (lease.granted, lease.starts_in_ms, lease.ends_in_ms) == (10, 0, HOUR_MS)
    assert (lease.state.amount, lease.state.charged, lease.state.settled) == (1000, 10, 0)


def test_rights_grow_on_the_one_lease_of_a_holder() -> None:
    """`granted` is cumulative: a lost reply is made good by the next."""
    desk = Desk()

    first, second = desk.grant(holder(), 10), desk.grant(holder(), 5)

    assert first.id == second.id
    assert second.granted == 15


def test_the_same_request_id_gets_the_same_answer() -> None:
    """Row 2 of the fault table: a repeated request is not granted twice."""
    desk = Desk()

    first = desk.ask(holder(), want(10), request_id="r")
    again = desk.ask(holder(), want(10), request_id="r")

    assert again == first
    assert desk.state.charged == 10


def test_a_refusal_tells_the_rights_that_an_answer_nobody_heard_had_brought() -> None:
    """Else a holder is refused what it has already, until somebody else gives something back."""
    desk = Desk()
    unheard = desk.grant(holder(), 900)
    desk.grant(holder("pod-b"), 50)

    refused = desk.ask(holder(), want(100), request_id="r")
    again = desk.ask(holder(), want(100), request_id="r")

    assert [denial.reason for denial in refused.denials] == ["in_flight"]
    assert [(lease.id, lease.granted) for lease in refused.leases] == [(unheard.id, 900)]
    assert again == refused


def test_a_refusal_tells_nothing_of_other_holders_accounts_or_quarantined_leases() -> None:
    """Only what the holder itself may spend, on what it asked for."""
    desk = Desk()
    desk.grant(holder(), 500)
    desk.books.quarantine(["pod-a"], "replaced")
    desk.grant(holder("pod-b"), 400)

    assert desk.ask(holder("pod-c"), want(200)).leases == ()
    assert desk.ask(holder(), want(200)).leases == ()


def test_a_denied_request_stays_denied_under_its_id() -> None:
    """Denials are sticky: only a new request is decided anew."""
    desk = Desk()
    lease = desk.grant(holder("pod-b"), 1000)
    denied = desk.ask(holder(), want(10), request_id="r")
    desk.tell(holder("pod-b"), report(lease.id, 0, closed=1))

    assert desk.ask(holder(), want(10), request_id="r") == denied
    assert desk.ask(holder(), want(10), request_id="other").leases


@pytest.mark.parametrize(("later_ms", "ends_in_ms"), [(1000, HOUR_MS - 1000), (HOUR_MS + 1000, 0)])
def test_a_late_repetition_is_told_what_is_left_of_the_period(later_ms: int, ends_in_ms: int) -> None:
    """It has begun, and what has ended does not end again."""
    desk = Desk()
    desk.ask(holder(), want(10), request_id="r")
    desk.now_ms += later_ms

    (again,) = desk.ask(holder(), want(10), request_id="r").leases

    assert (again.granted, again.starts_in_ms, again.ends_in_ms) == (10, 0, ends_in_ms)


def test_a_repeated_request_whose_lease_was_closed_gives_no_rights() -> None:
    """A late duplicate must not bring a closed lease to life."""
    desk = Desk()
    (lease,) = desk.ask(holder(), want(10), request_id="r").leases
    desk.tell(holder(), report(lease.id, 4, closed=1))

    (again,) = desk.ask(holder(), want(10), request_id="r").leases

    assert (again.id, again.granted, again.released, again.ends_in_ms) == (lease.id, 0, 0, 0)
    assert again.state == AccountState(amount=1000, settled=0, charged=0, resets_in_ms=0)
    assert desk.state.charged == 4


def test_wants_are_granted_all_or_none() -> None:
    """One exhausted account refuses the request and takes nothing from the others."""
    desk = Desk()
    small, large = limit(5, name="small"), limit(1000)
    desk.limits = limits_of(budget(limits=(small, large)))
    other = AccountRef(budget=BUDGET, limit="small")

    reply = desk.ask(holder(), want(10), want(10, ref=other))

    assert [(denial.account, denial.reason) for denial in reply.denials] == [(other, "too_large")]
    assert reply.leases == ()
    assert desk.books.states(desk.now_ms) == {}


@pytest.mark.parametrize(
    ("need", "useful", "granted"),
    [
        (10, 10, 10),  # what is wanted
        (0, 15, 15),  # in advance
        (10, 500, 20),  # at most the cap: 2 % of the limit ahead of use
        (300, 300, 300),  # a request may need more than the cap
        (30, 10, 30),  # want below need means need
    ],
)
def test_the_size_of_a_grant(need: int, useful: int, granted: int) -> None:
    """min(want, fair share, remaining / 2 active), at most the cap, at least the need."""
    assert Desk().grant(holder(), need, useful).granted == granted


def test_grants_shrink_to_one_request_near_the_limit() -> None:
    """With little left nobody gets ahead of what one request needs."""
    desk = Desk()
    desk.grant(holder("pod-b"), 980)

    assert desk.grant(holder(), 5, 20).granted == 5
    assert desk.grant(holder("pod-c"), 0, 20).granted <= 3


def test_free_rights_are_given_down_to_the_last_unit() -> None:
    """No false refusal: while the free rights cover a need, it is granted."""
    desk = Desk()
    desk.grant(holder("pod-b"), 990)

    assert desk.grant(holder(), 10).granted == 10
    assert desk.state.charged == 1000


def test_five_hundred_idle_pods_do_not_stop_the_next_one() -> None:
    """Each asks in advance for a hundredth of the limit, and still there is one request's worth for the 501st."""
    desk = Desk(1_000_000)
    for number in range(500):
        desk.grant(holder(f"pod-{number}"), 0, 10_000)

    assert desk.grant(holder("late"), 10_000).granted >= 10_000


# --- refusals -----------------------------------------------------------------------------------------------


def test_more_than_the_whole_limit_is_too_large() -> None:
    """It would not fit into an empty budget either: never retry."""
    assert Desk().refused(holder(), want(1001)) == ["too_large"]


def test_rights_in_other_hands_are_in_flight() -> None:
    """It fits once others settle or give back."""
    desk = Desk()
    desk.grant(holder("pod-b"), 995)

    assert desk.refused(holder(), want(10)) == ["in_flight"]


def test_spent_is_exhausted_and_says_what_is_left_and_when_it_resets() -> None:
    """Settled use leaves too little."""
    desk = Desk()
    lease = desk.grant(holder("pod-b"), 995)
    desk.tell(holder("pod-b"), report(lease.id, 995, closed=1))

    (denial,) = desk.ask(holder(), want(10)).denials

    assert denial.reason == "exhausted"
    assert denial.state == AccountState(amount=1000, settled=995, charged=995, crossed_percent=90, resets_in_ms=HOUR_MS)


def test_a_limit_that_the_pods_policy_does_not_have_is_unknown() -> None:
    """The body of a request cannot name another team's budget."""
    other = AccountRef(budget="team-b/team", limit="hourly")

    assert Desk().refused(holder(), want(1, ref=other)) == ["unknown"]
    assert Desk().refused(holder(), want(1, ref=AccountRef(budget=BUDGET, limit="hourly", per=("x",)))) == ["unknown"]


def test_a_budget_that_never_had_a_valid_meaning_is_unverifiable() -> None:
    """It refuses, and says why."""
    desk = Desk()
    desk.limits = lambda _: LimitInForce(limit(), verifiable=False)

    assert desk.refused(holder(), want(1)) == ["unverifiable"]


@pytest.mark.parametrize(
    ("wants", "message"),
    [
        ((), "0 wants in one request"),
        (tuple(want(1, ref=AccountRef(budget=BUDGET, limit=f"l{n}")) for n in range(MAX_WANTS + 1)), "65 wants"),
        ((want(1), want(2)), "two wants on one account"),
        ((want(-1),), "need -1 and want -1 must be between 0 and"),
        ((want(10**18 + 1),), "must be between 0 and"),
        ((want(-1, 5),), "need -1 and want 5 must be between 0 and"),
        ((want(0, -1),), "need 0 and want -1 must be between 0 and"),
        ((want(1, 10**18 + 1),), "must be between 0 and"),
    ],
)
def test_malformed_requests_say_what_is_wrong(wants: tuple[Want, ...], message: str) -> None:
    """And change nothing."""
    desk = Desk()

    with pytest.raises(BadRequest, match=message):
        desk.ask(holder(), *wants)

    assert desk.books.revision == 0


def test_the_largest_request_that_is_read_is_answered() -> None:
    """In wants, and in what each of them says."""
    desk = Desk()
    unknown = [want(1, ref=AccountRef(budget=BUDGET, limit=f"l{n}")) for n in range(MAX_WANTS)]

    assert desk.refused(holder(), *unknown) == ["unknown"] * MAX_WANTS
    assert desk.refused(holder(), want(10**18)) == ["too_large"]
    assert desk.grant(holder(), 1, 10**18).granted >= 1


def test_a_need_of_which_nothing_more_would_be_useful_is_granted() -> None:
    assert Desk().grant(holder(), 5, 0).granted == 5


@pytest.mark.parametrize("name", ["x", "x" * 128])
def test_a_nonce_and_an_id_of_any_length_that_is_read_are_answered(name: str) -> None:
    (lease,) = Desk().ask(holder(nonce=name), want(1), request_id=name).leases
    assert lease.nonce == name


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb"])
def test_nonces_and_ids_are_short_and_printable(name: str) -> None:
    """They are stored and logged."""
    with pytest.raises(BadRequest, match="1 to 128 printable characters"):
        Desk().books.acquire(
            Holder("pod-a", "team-a/pod-a", name), acquire("r", name, want(1)), limits_of(budget()), START_MS
        )
