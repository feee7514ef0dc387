"""
The books in one BudgetLedger object, written by compare-and-swap on its resourceVersion. Implements `LedgerStore`.

Only the coordinator writes it. What the document means is the ledger's; here it is a mapping with an epoch.
"""

from __future__ import annotations

from typing import Any, Final

from spendmesh_operator.kube import paths
from spendmesh_operator.kube.client import Conflict as KubeConflict, Kube, KubeError, NotFound
from spendmesh_operator.ledger.store import Conflict, Fenced, Stored, Unavailable
from spendmesh_operator.manifests import API_VERSION

Json = dict[str, Any]

FORMAT: Final = 1


class BudgetLedgerStore:
    """
    One object in the operator's namespace, named after the ledger domain.

    So another cluster name starts new books beside the old ones, and going back to the old name finds the old ones.
    """

    def __init__(self, kube: Kube, namespace: str, domain: str) -> None:
        self._kube = kube
        self._collection = paths.collection(paths.SPENDMESH, paths.PLURALS["BudgetLedger"], namespace)
        self._path = paths.item(paths.SPENDMESH, paths.PLURALS["BudgetLedger"], namespace, domain)
        self._name = domain

    async def read(self) -> Stored:
        """The books and their version. Raises Unavailable; also for a format that only a newer operator knows."""
        try:
            stored = await self._kube.get(self._path)
        except NotFound:
            return Stored("", None, "")
        except KubeError as error:
            raise Unavailable(f"the books cannot be read: {error}") from error
        spec = stored["spec"]
        if spec["format"] != FORMAT:
            raise Unavailable(f"the books have format {spec['format']}, this operator knows {FORMAT}: upgrade it")
        return Stored(stored["metadata"]["resourceVersion"], spec["books"], spec["commit"])

    async def write(self, document: Json, expected_version: str, commit_id: str) -> str:
        """
        Replace the books of `expected_version` (empty: create them) and return the new version.

        Raises Conflict, Fenced or Unavailable. Where the answer got lost the books are read again: the commit's own
        id in them says that it was done, and the same write may be sent again.
        """
        body = {
            "apiVersion": API_VERSION,
            "kind": "BudgetLedger",
            "metadata": {"name": self._name, **({"resourceVersion": expected_version} if expected_version else {})},
            "spec": {"format": FORMAT, "epoch": document["epoch"], "commit": commit_id, "books": document},
        }
        try:
            if expected_version:
                written = await self._kube.replace(self._path, body)
            else:
                written = await self._kube.create(self._collection, body)
        except (KubeConflict, NotFound) as error:
            return await self._already_done(document, commit_id, error)
        except KubeError as error:
            return await self._perhaps_done(commit_id, error)
        version: str = written["metadata"]["resourceVersion"]
        return version

    async def close(self) -> None:
        """Nothing of its own to close: the connection is the caller's."""

    async def _already_done(self, document: Json, commit_id: str, error: KubeError) -> str:
        stored = await self.read()
        if stored.commit_id == commit_id:
            return stored.version
        if stored.document is not None and stored.document["epoch"] > document["epoch"]:
            raise Fenced(f"epoch {stored.document['epoch']} writes the books now") from error
        raise Conflict(f"the books have changed: {error}") from error

    async def _perhaps_done(self, commit_id: str, error: KubeError) -> str:
        stored = await self.read()
        if stored.commit_id == commit_id:
            return stored.version
        raise Unavailable(f"the books may not be written: {error}") from error
