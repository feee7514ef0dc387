"""A write-ahead log in memory that can lose what a crash may lose."""

from __future__ import annotations

from spendmesh_sidecar.core.ledger.journal import LedgerUnwritable, Record
from spendmesh_sidecar.core.ledger.journal_frames import MAGIC, encode_frame
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.recovery import Here, Recovered, records_of, recover, restore
from spendmesh_sidecar.core.specs import BudgetSpec

HERE = Here(pod="pod-uid", boot="boot-1", durability="Process", monotonic=0.0, unix=1_790_000_000.0)


class MemoryLog:
    """`written` survives; of `buffered` a crash keeps what it likes from the beginning on."""

    def __init__(self, here: Here = HERE) -> None:
        self.here = here
        self.written = b""
        self.buffered = b""
        self.full = False
        self.ledger: Ledger | None = None

    def append(self, record: Record) -> None:
        self.buffered += encode_frame(record)

    def commit(self, record: Record) -> None:
        if self.full:
            raise LedgerUnwritable("no space left")
        self.append(record)
        self.flush()

    def begin(self) -> None:
        assert self.ledger is not None
        header = self.here.header(self.ledger.nonce)
        self.written = MAGIC + b"".join(map(encode_frame, (header, *records_of(self.ledger))))
        self.buffered = b""

    def hurry(self) -> None:
        self.flush()

    def flush(self) -> None:
        self.written, self.buffered = self.written + self.buffered, b""

    def crash(self, keep: int = 0) -> bytes:
        """What is on the disk afterwards; `keep` bytes of what was not written yet are."""
        return self.written + self.buffered[: keep % (len(self.buffered) + 1)]


def logged(
    nonce: str, budgets: tuple[BudgetSpec, ...], now: float, recovered: Recovered | None = None
) -> tuple[Ledger, MemoryLog]:
    """A ledger with its log, begun anew or from what was recovered."""
    log = MemoryLog()
    log.ledger = ledger = Ledger(recovered.nonce if recovered else nonce, journal=log)
    if recovered is not None:
        restore(ledger, recovered, now)
    log.begin()
    ledger.set_budgets(budgets, now)
    return ledger, log


def again(data: bytes, budgets: tuple[BudgetSpec, ...], now: float) -> tuple[Ledger, MemoryLog]:
    """The next process on that disk. Raises Abandoned."""
    return logged("", budgets, now, recover(data, HERE))
