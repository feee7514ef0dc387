"""How the coordinator serves: its times, its refusal, and what it does when the books were restored. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spendmesh_operator.ledger.books.accounts import LedgerError

RESTORES_APART_SECONDS: Final = 60.0
FREEZES_APART_SECONDS: Final = 3600.0
"""A pod's word alone must not stop everybody's grants again and again: a restore from a backup is rare."""
MAX_EPOCH_STEP: Final = 1_000_000
"""How far ahead a sidecar may claim to have seen an epoch; leaders change far less often."""


class NotServing(LedgerError):
    """This coordinator does not answer now (503): retry, perhaps elsewhere."""


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """How often to write, and when to stop waiting."""

    commit_interval_seconds: float = 1.0
    """Shortest time between two writes; 0 for a store of its own disk."""
    silence_seconds: float = 60.0
    """A holder without any report for this long is quarantined; sidecars report every 2 to 5 s."""
    sweep_seconds: float = 1.0
    store_timeout_seconds: float = 5.0
    recover_seconds: float = 10.0
    """How long callers wait for a store whose answer was lost."""
    member: str = ""
    """This cluster among those that share the store; empty where no other one can write it."""
    restored_seconds: float = 15.0
    """
    After the store was found to be older than what sidecars have seen, for so long nothing is granted, and what the
    books have forgotten is taken back. Seven report intervals of a sidecar: each is heard, also after a lost answer.
    """


class Restoration:
    """Whether a sidecar's word that it saw a later epoch is acted on, and for how long nothing is granted then."""

    def __init__(self, freeze_seconds: float) -> None:
        self._freeze_seconds = freeze_seconds
        self._restored_at = self._frozen_at = float("-inf")

    def begins(self, epoch: int, seen: int, now: float) -> bool:
        """A sidecar saw epoch `seen`, the books are of `epoch`. True: a new epoch is needed, and was not just made."""
        if not epoch < seen <= epoch + MAX_EPOCH_STEP or now < self._restored_at + RESTORES_APART_SECONDS:
            return False
        self._restored_at = now
        if now >= self._frozen_at + FREEZES_APART_SECONDS:
            self._frozen_at = now
        return True

    def known(self, now: float) -> None:
        """We have seen ourselves that the store is older than what was written: no pod's word is needed."""
        self._restored_at = self._frozen_at = now

    def freezes(self, now: float) -> bool:
        """Whether holders are still waited for, so that they report before anybody is granted more."""
        return now < self._frozen_at + self._freeze_seconds
