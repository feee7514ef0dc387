"""Verdicts, acknowledgements and books to what a status says, and when it is worth writing. Pure; no client."""

from spendmesh_operator.status.books import limit_views as limit_views
from spendmesh_operator.status.document import apply_document as apply_document, status_of as status_of
from spendmesh_operator.status.model import (
    EventDraft as EventDraft,
    LimitView as LimitView,
    PodState as PodState,
    Status as Status,
)
from spendmesh_operator.status.pace import (
    changed_enough as changed_enough,
    events as events,
    write_delay as write_delay,
)
from spendmesh_operator.status.programmed import Programmed as Programmed, programmed as programmed
from spendmesh_operator.status.shares import shared_pool as shared_pool
