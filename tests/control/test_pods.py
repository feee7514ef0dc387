"""Which incarnation of a pod acquires, where the pod runs, and what it was last answered: each step by itself."""

from __future__ import annotations

import pytest

from ledger_desk import holder
from ledger_samples import START_MS
from spendmesh_operator.ledger.books.accounts import HolderFenced
from spendmesh_operator.ledger.books.pods import ANSWERS_KEPT, RETIRED_KEPT, TURNS_MAX, TURNS_MS, Pods
from spendmesh_sidecar.protocol import AcquireReply


def admitted(*nonces: str, at_ms: int = START_MS) -> Pods:
    """One pod that has begun anew with each of these nonces."""
    pods = Pods()
    for nonce in nonces:
        pods.admit(holder(nonce=nonce), at_ms)
    return pods


def test_each_nonce_that_was_replaced_stays_fenced() -> None:
    """Also the first one, after further ones, and one that was retired twice."""
    pods = admitted("n1", "n2", "n3")
    pods.retire(holder(nonce="n3"))
    pods.admit(holder(nonce="n4"), START_MS)

    for nonce in ("n1", "n2", "n3"):
        with pytest.raises(HolderFenced):
            pods.admit(holder(nonce=nonce), START_MS)
    assert pods.records["pod-a"].retired == ("n3", "n2", "n1")


def test_the_newest_retired_nonces_are_kept() -> None:
    pods = admitted(*(f"n{number}" for number in range(RETIRED_KEPT + 2)))
    assert pods.records["pod-a"].retired == tuple(f"n{number}" for number in range(RETIRED_KEPT, 0, -1))


def test_the_newest_answers_are_kept_granted_and_denied() -> None:
    pods = admitted("n1")
    for number in range(ANSWERS_KEPT + 1):
        pods.remember_grant("pod-a", f"g{number}", (f"l{number}",))
        pods.remember_denial("pod-a", f"d{number}", AcquireReply())

    record = pods.records["pod-a"]
    assert list(record.granted) == [f"g{number}" for number in range(1, ANSWERS_KEPT + 1)]
    assert list(record.denied) == [f"d{number}" for number in range(1, ANSWERS_KEPT + 1)]


def test_a_pod_that_begins_anew_too_often_is_kept_waiting_until_a_turn_is_long_ago() -> None:
    """What each turn strands is bounded by how many there are in ten minutes. An unknown pod has had none."""
    pods = admitted("first", *(f"n{number}" for number in range(TURNS_MAX)))

    assert pods.turns("pod-a", START_MS + TURNS_MS - 1) == TURNS_MAX
    assert pods.restless(holder(nonce="next"), START_MS + TURNS_MS - 1)
    assert pods.turns("pod-a", START_MS + TURNS_MS) == 0
    assert not pods.restless(holder(nonce="next"), START_MS + TURNS_MS)
    assert pods.turns("unknown", START_MS) == 0


def test_a_pod_is_of_the_cluster_where_it_acquired_last() -> None:
    """Only that one knows when it is gone; the change is written."""
    pods = admitted("n1")
    pods.member = "c1"
    assert not pods.owns("pod-a")
    pods.pages.take_changed()

    pods.admit(holder(nonce="n1"), START_MS)

    assert pods.owns("pod-a")
    assert pods.pages.take_changed() == [0]
    pods.admit(holder(nonce="n1"), START_MS)
    assert pods.pages.take_changed() == [], "nothing has changed since"
