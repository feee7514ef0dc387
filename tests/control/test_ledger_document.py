"""The stored sections: amounts exact in any reader, safe one by one, and damage never read as "nothing spent"."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ledger_desk import HOUR_MS, Desk, holder
from ledger_samples import BUDGET, REF, START_MS, acquire, budget, limits_of, report, want
from spendmesh_operator.ledger.books.accounts import LEASES_PER_PAGE, Account, AccountKey, Holder
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.correcting import settle_quarantined
from spendmesh_operator.ledger.books.lives import Life, granted_here
from spendmesh_operator.ledger.document.records import HEAD
from spendmesh_operator.ledger.document.sections import LedgerUnreadable, decode, encode, section_name, take_changes
from spendmesh_sidecar.protocol import LeaseReport, ReportRequest

HUGE = 10**18
Sections = dict[str, dict[str, Any]]

FORMAT_ONE: dict[str, Any] = {
    "format": 1,
    "domain": "prod",
    "epoch": 7,
    "nextLease": 3,
    "accounts": [
        {
            "budget": BUDGET,
            "limit": "hourly",
            "per": [],
            "start": START_MS // 1000,
            "end": START_MS // 1000 + 3600,
            "mode": "Enforce",
            "closedUsed": "100",
            "closedOverrun": "2",
            "closedWouldBlock": "1",
            "corrections": [{"reference": "c", "delta": "-5", "evidence": "invoice", "atMs": 9}],
            "leases": [{"id": "a-1", "pod": "u", "name": "n/p", "nonce": "x", "granted": "50", "used": "10"}],
        }
    ],
    "pods": {"u": {"name": "n/p", "nonce": "x", "granted": {"r": ["a-1"]}}},
    "forgottenBefore": [{"budget": BUDGET, "limit": "hourly", "start": 5}],
    "remembered": [],
}
"""As version 0.1 wrote it."""


def as_json(sections: Any) -> Sections:
    """What another process reads."""
    read: Sections = json.loads(json.dumps(sections))
    return read


def page(sections: Sections) -> dict[str, Any]:
    """The only account's only page."""
    (name,) = (name for name in sections if name.startswith("account/"))
    return sections[name]


def sample() -> Sections:
    """Books with one lease of an amount that a float cannot hold, as JSON gives them back."""
    books = Books("prod")
    books.acquire(Holder("u", "n/p", "x"), acquire("r", "x", want(HUGE - 1)), limits_of(budget(HUGE)), START_MS)
    books.remember({BUDGET: budget(HUGE)}, (BUDGET,))
    return as_json(encode(books))


def test_amounts_are_decimal_strings() -> None:
    """JSON numbers above 2^53 lose digits in other hands."""
    account = page(sample())

    assert account["spec"]["amount"] == "1000000000000000000"
    assert account["leases"][0]["granted"] == "999999999999999999"
    assert account["closedUsed"] == "0"


@pytest.mark.parametrize(
    "damage",
    [
        lambda sections: sections.pop("head"),
        lambda sections: sections["head"].pop("epoch"),
        lambda sections: sections["head"].pop("nextLease"),
        lambda sections: page(sections).pop("takenBack"),
        lambda sections: sections["pods/0"].pop("pods"),
        lambda sections: sections["budgets/0"].update(budgets=None),
        lambda sections: sections["budgets/0"]["budgets"][0].pop("name"),
        lambda sections: page(sections).pop("closedUsed"),
        lambda sections: page(sections).update(closedUsed=5),
        lambda sections: page(sections).update(mode="Ignore"),
        lambda sections: page(sections).update(start=0),
        lambda sections: page(sections)["spec"].pop("window"),
        lambda sections: page(sections)["leases"][0].pop("nonce"),
        lambda sections: page(sections)["leases"][0].update(granted="1e3"),
        lambda sections: page(sections)["leases"][0].update(quarantined="perhaps"),
        lambda sections: page(sections)["leases"][0].update(refund="5"),
        lambda sections: page(sections)["leases"].append(page(sections)["leases"][0]),
        lambda sections: sections.update({"refunds/0": {}}),
        lambda sections: sections.update({"pods/x": {"pods": {}}}),
        lambda sections: sections["head"].update(format=3),
    ],
)
def test_damaged_or_newer_sections_are_refused(damage: Any) -> None:
    """Row 33: an unknown record means stop, not skip."""
    sections = sample()
    damage(sections)

    with pytest.raises(LedgerUnreadable):
        decode(sections, "prod")


def test_the_books_of_another_domain_are_refused_with_the_fix() -> None:
    """A changed cluster name must not begin with empty books."""
    with pytest.raises(LedgerUnreadable, match="set the cluster name back"):
        decode(sample(), "staging")


def test_an_upgrade_reads_the_one_document_of_format_1_and_writes_sections() -> None:
    """Nothing that was charged, answered or forgotten is lost, and the old document goes with the first commit."""
    document = as_json(FORMAT_ONE)
    document["accounts"][0]["spec"] = page(sample())["spec"]
    books = decode({"books": document}, "prod")
    changes = take_changes(books)

    again = decode(as_json(changes.put), "prod")
    (account,) = again.holdings.accounts.values()

    assert changes.drop == {"books"}
    assert (account.charged, account.overrun, account.would_block, again.epoch) == (100 - 5 + 50, 2, 1, 7)
    assert again.pods.answer("u", "r") == ("a-1",)
    assert again.holdings.forgotten_before == {(BUDGET, "hourly"): 5}


@pytest.mark.parametrize("missing", ["accounts", "pods", "epoch", "forgottenBefore", "remembered"])
def test_a_damaged_document_of_format_1_is_refused(missing: str) -> None:
    """An upgrade must not begin with less than was charged."""
    document = as_json(FORMAT_ONE)
    document["accounts"][0]["spec"] = page(sample())["spec"]
    del document[missing]

    with pytest.raises(LedgerUnreadable):
        decode({"books": document}, "prod")


def crowded(holders: int) -> Desk:
    """One account with many holders, all of it already written."""
    desk = Desk(amount=10**9)
    for number in range(holders):
        desk.grant(holder(f"pod-{number}"), 10)
    take_changes(desk.books)
    return desk


def test_an_account_of_thousands_of_holders_spans_pages_of_bounded_size() -> None:
    """No section grows with the number of pods: an API server takes no object above 1.5 MB."""
    sections = encode(crowded(2 * LEASES_PER_PAGE + 1).books)
    pages = [document for name, document in sections.items() if name.startswith("account/")]

    assert [len(document["leases"]) for document in pages] == [LEASES_PER_PAGE, LEASES_PER_PAGE, 1]
    assert max(len(json.dumps(document)) for document in sections.values()) < 100_000


@pytest.mark.parametrize("holders", [1, 2 * LEASES_PER_PAGE + 1])
def test_what_is_said_of_an_account_is_stored_once_however_many_pages_it_has(holders: int) -> None:
    desk = crowded(holders)
    (account,) = desk.books.current(desk.now_ms)
    account.taken_back = 7
    desk.pass_time(60_000)

    (again,) = decode(as_json(encode(desk.books)), "test").current(desk.now_ms)

    assert (again.taken_back, again.pace) == (7, account.pace) and account.pace is not None


def test_books_that_an_earlier_version_stored_are_found_under_the_names_that_it_gave() -> None:
    key = AccountKey("test", BUDGET, "hourly", ("ana",), START_MS // 1000)

    assert section_name(key, 2) == "account/2f76fb62c5cfe6e88e35d4fe/2"
    assert section_name(replace(key, override="launch"), 0) == "account/56f7284a8c26a1609ab1cf1c/0"


def test_a_change_of_one_lease_writes_its_page_alone() -> None:
    """Writes do not grow with the number of holders."""
    desk = crowded(2 * LEASES_PER_PAGE + 1)
    last = desk.books.holdings.leases_of(["pod-300"])[0][1]
    desk.tell(holder("pod-300"), report(last.id, 4))

    changes = take_changes(desk.books)

    assert [name[-2:] for name in changes.put] == ["/1"] and not changes.drop
    assert not take_changes(desk.books).put


def test_a_closed_lease_adds_to_the_totals_of_its_own_page() -> None:
    """So that its page proves what became of it, whatever else was stored."""
    desk = crowded(LEASES_PER_PAGE + 1)
    for uid in ("pod-0", f"pod-{LEASES_PER_PAGE}"):
        lease = desk.books.holdings.leases_of([uid])[0][1]
        desk.tell(holder(uid), report(lease.id, 7, overrun=2, would_block=1, closed=1))

    pages = [document for name, document in sorted(encode(desk.books).items()) if name.startswith("account/")]

    assert [document["closedUsed"] for document in pages] == ["7", "7"]
    assert [document["closedOverrun"] for document in pages] == ["2", "2"]
    assert desk.state.settled == 14


def test_a_dropped_account_takes_all_its_pages_along_and_is_never_opened_again() -> None:
    """What forgets it is written before what it was is removed."""
    desk = crowded(LEASES_PER_PAGE + 1)
    before = encode(desk.books)
    desk.books.quarantine(desk.books.pods.living(), "gone")
    for _ in range(2):
        desk.now_ms += 3 * HOUR_MS
        desk.books.sweep(desk.now_ms, 3 * HOUR_MS)

    changes = take_changes(desk.books)

    assert changes.drop == {name for name in before if name.startswith("account/")}
    assert "forgotten/0" in changes.put


def test_any_part_of_a_commit_can_be_stored_and_nothing_charged_counts_less() -> None:
    """A store of several objects may stop half-way: a granted lease counts, or was never told to anybody."""
    desk = crowded(LEASES_PER_PAGE)
    before = as_json(encode(desk.books))
    charged = desk.state.charged
    desk.ask(holder("pod-1", "second"), want(10))
    desk.ask(holder("new"), want(30))
    lease = desk.books.holdings.leases_of(["pod-0"])[0][1]
    desk.tell(holder("pod-0"), report(lease.id, 4, closed=1))
    put = list(as_json(take_changes(desk.books).put).items())

    for stored in range(2 ** len(put)):
        sections = before | {name: document for n, (name, document) in enumerate(put) if stored >> n & 1}
        books = decode(sections, "test")
        assert books.states(desk.now_ms)[BUDGET, "hourly", ()].charged >= charged - 6
        for account in books.holdings.accounts.values():
            assert account.recount() == account.totals


def test_a_page_in_which_all_leases_are_closed_is_still_a_page() -> None:
    """After a restart too: what it closed is charged, and it goes when the account is dropped."""
    desk = crowded(LEASES_PER_PAGE)
    last = desk.grant(holder("last"), 10)
    desk.tell(holder("last"), report(last.id, 4, closed=1))
    sections = as_json(encode(desk.books))

    books = decode(sections, "test")
    assert encode(books).keys() == sections.keys()
    (account,) = books.holdings.accounts.values()
    books.holdings.drop(account)
    assert take_changes(books).drop == {name for name in sections if name.startswith("account/")}


def test_an_account_that_is_dropped_twice_between_two_writes_leaves_no_page_behind() -> None:
    """It was opened again in between, with fewer pages than the store still has."""
    desk = crowded(LEASES_PER_PAGE + 1)
    stored = {name for name in encode(desk.books) if name.startswith("account/")}
    for _ in range(2):
        (account,) = desk.books.holdings.accounts.values()
        desk.books.holdings.drop(account)
        desk.books.holdings.add_account(Account(account.key, account.end, account.limit))
    desk.books.holdings.drop(desk.books.holdings.accounts[account.key])
    assert take_changes(desk.books).drop == stored


def vanished_over_two_pages() -> tuple[Desk, AccountKey, str]:
    """A deleted pod of two incarnations, whose leases of 10 are in different pages; all of it written."""
    desk = crowded(LEASES_PER_PAGE)
    first = desk.books.holdings.leases_of(["pod-0"])[0][1]
    desk.tell(holder("pod-0"), report(first.id, 4))
    desk.ask(holder("pod-0", "second"), want(10))
    desk.books.quarantine(["pod-0"], "gone")
    take_changes(desk.books)
    (account,) = desk.books.current(desk.now_ms)
    return desk, account.key, first.id


def test_of_settled_rights_any_part_can_be_stored_and_all_of_it_counts_or_nothing() -> None:
    """
    Leases are closed in their own pages. Whichever are stored: the settlement is whole or absent, a late last word of
    the pod gives nothing back a second time, and the same order given again books nothing twice.
    """
    desk, key, lease = vanished_over_two_pages()
    before = as_json(encode(desk.books))
    last = report(lease, 4, closed=1, after=report(lease, 4))
    settle_quarantined(desk.books, key, "team-a/pod-0", 7, "invoice-1", "line 17", desk.now_ms)
    put = list(as_json(take_changes(desk.books).put).items())
    assert len(put) > 1

    for stored in range(2 ** len(put)):
        sections = before | {name: document for n, (name, document) in enumerate(put) if stored >> n & 1}
        whole = 10 * LEASES_PER_PAGE - 10 + 7
        books = decode(sections, "test")
        account = books.holdings.accounts[key]
        settled = [(each.reference, each.delta) for each in account.corrections] == [("invoice-1", -13)]
        assert account.charged == (whole if settled else whole + 13)
        assert settled == bool(stored)

        books.report(holder("pod-0"), ReportRequest(nonce="pod-0-nonce", reports=(last,)), desk.limits, desk.now_ms)
        assert account.charged == (whole if settled else whole + 13 - 6)

        books = decode(sections, "test")
        settle_quarantined(books, key, "team-a/pod-0", 7, "invoice-1", "line 17", desk.now_ms)
        again = decode(as_json(encode(books)), "test").holdings.accounts[key]
        assert (again.charged, len(again.corrections), again.totals.quarantined) == (whole, 1, 0)


def test_what_a_half_stored_settlement_left_undone_is_written_with_the_next_commit() -> None:
    desk, key, _ = vanished_over_two_pages()
    before = as_json(encode(desk.books))
    settle_quarantined(desk.books, key, "team-a/pod-0", 7, "invoice-1", "line 17", desk.now_ms)
    put = as_json(take_changes(desk.books).put)
    assert not take_changes(decode(before | put, "test")).put, "all of it is stored"

    for name in put:
        stored = before | {name: put[name]}
        rest = as_json(take_changes(decode(stored, "test")).put)
        assert stored | rest == before | put


def test_a_replaced_holder_is_quarantined_also_if_only_its_successor_was_stored() -> None:
    """The rest of a half-stored commit is done when the books are read."""
    desk = crowded(1)
    before = as_json(encode(desk.books))
    desk.ask(holder("pod-0", "second"), want(10))
    put = as_json(take_changes(desk.books).put)

    books = decode(before | {"pods/0": put["pods/0"]}, "test")
    ((account, lease),) = books.holdings.leases_of(["pod-0"])

    assert (lease.quarantined, account.charged) == ("replaced", 10)
    assert any(name.startswith("account/") for name in take_changes(books).put)


def test_what_was_taken_back_after_a_restore_is_stored_also_if_its_lease_is_in_another_page() -> None:
    """It bounds how much holders are believed, so it must not be forgotten."""
    desk = crowded(LEASES_PER_PAGE)
    desk.books.begin_life("aaaaaa-", desk.now_ms)
    before = as_json(encode(desk.books))
    told = LeaseReport(
        lease="bbbbbb-fff", sequence=1, previous="", used=0, held=0, account=REF, granted=70, period="current"
    )
    request = ReportRequest(nonce="n", reports=(told,))
    desk.books.report(holder("new", "n"), request, desk.limits, desk.now_ms, "taken back")

    (account,) = decode(before | as_json(take_changes(desk.books).put), "test").holdings.accounts.values()

    assert (account.taken_back, account.charged) == (70, 10 * LEASES_PER_PAGE + 70)


def test_a_lease_that_was_stored_without_the_head_was_granted_here() -> None:
    """Its page is written before the head: a restore must not take its rights back a second time."""
    desk = Desk()
    desk.books.begin_life("eeeeee-", desk.now_ms)
    desk.grant(holder("earlier"), 10)
    desk.books.begin_life("aaaaaa-", desk.now_ms)
    before = as_json(encode(desk.books))
    desk.grant(holder(), 10)
    put = as_json(take_changes(desk.books).put)
    assert put.pop(HEAD)

    books = decode(before | put, "test")

    assert books.next_lease == 3
    assert granted_here(books.lives, "", "aaaaaa-2")
    assert not granted_here(books.lives, "", "aaaaaa-3")


def test_in_a_head_of_an_older_version_a_life_ends_where_the_following_one_began() -> None:
    books = Books("test")
    for number, prefix in enumerate(("aaaaaa-", "bbbbbb-"), 1):
        books.begin_life(prefix, START_MS)
        books.next_lease += number
    stored = as_json(encode(books))
    for life in stored[HEAD]["lives"]:
        del life["next"]

    lives = decode(stored, "test").lives

    assert lives == (Life("aaaaaa-", 1, 2), Life("bbbbbb-", 2, 4))
