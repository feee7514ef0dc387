"""BudgetLedger: the books, as the coordinator keeps them in the API server. What they mean is the ledger's business."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from spendmesh_operator.manifests.common import AGE, Column, CrdNames, Manifest
from spendmesh_operator.manifests.quantities import WHOLE
from spendmesh_operator.manifests.rules import Node, list_map

EPOCH_MAX = 2**53 - 1
"""Largest integer that every JSON reader keeps exact; an API server reads bounds as floats."""
SHARDS_MAX = 4096
"""Parts of one cluster's books: some 400 MB."""


class LedgerShard(Node):
    """One object that holds a part of the books."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of a BudgetLedger in the same namespace. Example: default.shard-0"""
    version: Annotated[int, Field(ge=1, le=EPOCH_MAX), WHOLE]
    """Lowest version that it may have; what is older was lost. Example: 1042"""


class BudgetLedgerSpec(Node):
    """
    The books: an index of the cluster's name, and the parts that it names. Written by the coordinator only, with
    compare-and-swap on metadata.resourceVersion.
    """

    format: Annotated[int, Field(ge=1, le=1000), WHOLE]
    """Version of the format of books. A reader that does not know it stops. Example: 1"""
    epoch: Annotated[int, Field(ge=0, le=EPOCH_MAX), WHOLE]
    """Number of the reign that wrote it; it only grows. Example: 7"""
    commit: Annotated[str, Field(min_length=1, max_length=128)]
    """Identifies the last committed change. Example: 7-1042"""
    parts: Annotated[int, Field(ge=1, le=SHARDS_MAX + 1), WHOLE] | None = None
    """How many objects carry the id of that change once it is stored whole. Example: 2"""
    version: Annotated[int, Field(ge=1, le=EPOCH_MAX), WHOLE] | None = None
    """Of a part: grows with each write. Example: 1042"""
    shards: Annotated[tuple[LedgerShard, ...], Field(max_length=SHARDS_MAX), list_map("name")] | None = None
    """Of the index: all parts. Example: [{name: default.shard-0, version: 1042}]"""
    books: Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
    """Accounts, leases and pods, in the ledger's own format; amounts are decimal text. Example: {pods/0: {}}"""


class BudgetLedger(Manifest):
    """The books of the budgets, kept by the coordinator in the operator's namespace. Do not edit: a correction goes
    through the ledger."""

    CRD: ClassVar[CrdNames] = CrdNames(
        plural="budgetledgers",
        short=None,
        policy=None,
        columns=(
            Column(name="Format", path=".spec.format", type="integer", description="Version of the books' format."),
            Column(name="Epoch", path=".spec.epoch", type="integer", description="Reign that wrote it last."),
            AGE,
        ),
    )

    kind: Literal["BudgetLedger"]
    spec: BudgetLedgerSpec
