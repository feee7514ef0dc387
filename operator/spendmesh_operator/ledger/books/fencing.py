"""
Which incarnations of pods hold rights, and what becomes of those of the others. Pure.

One incarnation of a pod acquires at a time; a new one strands what the last one held. Two copies of one identity that
both live would strand without end what they take in turns: after some turns in a short time the last one stays.
"""

from __future__ import annotations

from collections.abc import Iterable

from spendmesh_operator.ledger.books.accounts import Holder, QuarantineReason
from spendmesh_operator.ledger.books.holdings import Holdings
from spendmesh_operator.ledger.books.pods import TURNS_MAX, TURNS_MS, Pods

RESTLESS = (
    f"its pod has begun anew {TURNS_MAX} times in {TURNS_MS // 60_000} minutes, each time stranding what it held: do "
    "two processes run with one identity, or does it lose its state folder?"
)


def admit(holdings: Holdings, pods: Pods, holder: Holder, now_ms: int) -> None:
    """I6: one incarnation of a pod acquires at a time. Raises NotYours, HolderFenced."""
    replaced = pods.admit(holder, now_ms)
    if replaced is not None:
        for account, lease in holdings.leases_of([holder.uid]):
            if lease.holder.nonce == replaced:
                holdings.quarantine(account, lease, "replaced")
        holdings.revision += 1
        if pods.turns(holder.uid, now_ms) == TURNS_MAX:
            holdings.alarm(f"{holder.name}: {RESTLESS} Another incarnation of it is granted nothing for a while")
    holdings.revive(holder.uid, holder.nonce)


def quarantine(holdings: Holdings, pods: Pods, uids: Iterable[str], reason: QuarantineReason) -> int:
    """
    Charge all leases of these pods in full and grant on them no more. Answers how many changed.

    A pod that was deleted before is silent for no other reason, also if a late word of it has come since.
    """
    changed = 0
    for uid in frozenset(uids):
        if reason == "gone":
            pods.mark_gone(uid)
        own: QuarantineReason = "gone" if reason == "silent" and pods.is_gone(uid) else reason
        changed += sum(holdings.quarantine(account, lease, own) for account, lease in holdings.leases_of([uid]))
    return changed
