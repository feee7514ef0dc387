"""Which store keeps the books of this replica, and how often it may be written: from the settings."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from spendmesh_operator.kube.client import Kube
from spendmesh_operator.kube.ledger_store import BudgetLedgerStore
from spendmesh_operator.ledger.coordinator.serving import CoordinatorSettings
from spendmesh_operator.ledger.document.moves import Place
from spendmesh_operator.ledger.stores.base import LedgerStore, Unavailable
from spendmesh_operator.ledger.stores.moving import Kept, MovingStore
from spendmesh_operator.settings import Settings

POSTGRES_INTERVAL_SECONDS: Final = 0.02
"""A commit takes a few milliseconds there; what arrives meanwhile shares the next one."""


def store_of(settings: Settings, kube: Kube) -> LedgerStore:
    """The store; connects when it is first used. Where both are known, the books move into the one that is chosen."""
    objects = BudgetLedgerStore(kube, settings.namespace, settings.cluster)
    if (dsn_file := settings.ledger_dsn_file) is None:
        return objects
    # The driver is in the operator's image, but an installation without PostgreSQL need not have it.
    from spendmesh_operator.ledger.stores.postgres import PostgresStore

    database = PostgresStore(lambda: read_dsn(dsn_file), settings.cluster, settings.ledger_member)
    both = (
        Kept(objects, Place("BudgetLedger objects", "")),
        Kept(database, Place("PostgreSQL", settings.ledger_member)),
    )
    here, there = both if settings.ledger_store == "BudgetLedger" else reversed(both)
    return MovingStore(here, there)


def coordinator_settings(settings: Settings) -> CoordinatorSettings:
    """An API server takes few writes; PostgreSQL is made for them, and may have other writers."""
    if settings.ledger_store == "BudgetLedger":
        return CoordinatorSettings()
    return CoordinatorSettings(commit_interval_seconds=POSTGRES_INTERVAL_SECONDS, member=settings.ledger_member)


def read_dsn(path: Path) -> str:
    """Read for each connection, so that a rotated password acts. Raises Unavailable, which says nothing of it."""
    try:
        return path.read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"the address of PostgreSQL cannot be read from {path} ({type(error).__name__}): is it in the Secret that "
            "ledger.postgresql.secretName names?"
        ) from None
