"""
What must hold of many accounts together: the parts of a rolling window in every row that a window can touch, and the
values of a divided limit, of which there are so many, with the rest under `other`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ledgersim.terms import budgets
from spendmesh_operator.ledger.books.accounts import Account, AccountKey, Lease
from spendmesh_operator.ledger.books.books import Books
from spendmesh_sidecar.core.ledger.partitions import OTHER
from spendmesh_sidecar.protocol import AccountRef

if TYPE_CHECKING:
    from ledgersim.disk import Written
    from ledgersim.world import World

ROW = 25
"""Parts that a window of real time can touch: 24 of its length, and one more."""
Line = tuple[str, str, tuple[str, ...]]
"""Budget, limit and values: what the parts of one window have in common."""


class Violation(AssertionError):
    """A promise of the ledger does not hold in this history; `check` says which one."""

    def __init__(self, check: str, sentence: str) -> None:
        super().__init__(f"{check}: {sentence}")
        self.check = check


def granted_of(charged: int, leases: Mapping[str, Lease], account: Account | None) -> int:
    """What of the charge is there by grants: copies, breaches and what a restored backup forgot come on top."""
    beyond = sum(lease.charge - lease.rights for lease in leases.values())
    return charged - beyond - (account.taken_back if account is not None else 0)


class RowChecks:
    """Hears of each commit."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violation: Violation | None = None
        self._parts: dict[Line, dict[int, int]] = defaultdict(dict)
        """Of rolling windows: what is granted in each part, by its start."""
        self._values: dict[tuple[str, str, int], set[tuple[str, ...]]] = defaultdict(set)
        """Of divided limits: the values that have an account now, by period."""
        self._most_values: dict[tuple[str, str], int] = defaultdict(int)
        self._shared: set[tuple[AccountRef, tuple[str, ...]]] = set()

    def violated(self, check: str, sentence: str) -> Violation:
        """Kept, because what is raised inside of a process is the process's to catch."""
        self.violation = self.violation or Violation(check, sentence)
        return self.violation

    def cap(self, key: AccountKey) -> int | None:
        """The largest amount that any living policy says; None: nobody says any."""
        found = []
        for terms in self.world.terms_in_force():
            spec = budgets(terms, self.world.history.zone).get(key.budget)
            if spec is not None:
                found += [limit.amount for limit in spec.limits if limit.name == key.limit]
        return max(found, default=None)

    # --- rolling windows ----------------------------------------------------------------------------------

    def check_rows(self, written: Written) -> None:
        """
        No row of 25 parts is granted more than the amount, but for what it was granted before it was lowered.

        Of a write that was torn only the grants may be stored, and not what was given back for them: nobody has heard
        of those grants.
        """
        changed: dict[Line, list[Account]] = defaultdict(list)
        for account in written.accounts.values():
            if account.limit.window.type == "Rolling" and account.mode == "Enforce":
                changed[account.key.budget, account.key.limit, account.key.per].append(account)
        for line, accounts in changed.items():
            before = dict(self._parts[line])
            for account in accounts:
                self._parts[line][account.key.start] = granted_of(account.charged, account.leases, account)
            lowered = {
                key.start: granted_of(account.charged, account.leases, account)
                for key, account in written.unwritten.items()
                if (key.budget, key.limit, key.per) == line
            }
            self._check_row(line, before, lowered, accounts[0])
        for key in written.dropped:
            self._parts.get((key.budget, key.limit, key.per), {}).pop(key.start, None)

    def _check_row(self, line: Line, before: dict[int, int], lowered: dict[int, int], sample: Account) -> None:
        seconds, cap = sample.end - sample.key.start, self.cap(sample.key)
        parts = {start: min(granted, lowered.get(start, granted)) for start, granted in self._parts[line].items()}
        if cap is None:
            return
        for first in parts:
            row = range(first, first + ROW * seconds, seconds)
            charged, was = (sum(of.get(start, 0) for start in row) for of in (parts, before))
            if charged > max(cap, was):
                raise self.violated("window <= limit", f"{line[0]}/{line[1]} from {first}: {was} -> {charged} of {cap}")
        if sum(parts.values()) > cap:
            self.world.happened["ledger: a window's spend came free"] += 1

    def charged_beside(self, account: Account) -> int:
        """The most that is granted in any row of parts with this one, its own not included."""
        if account.limit.window.type != "Rolling":
            return 0
        parts = self._parts[account.key.budget, account.key.limit, account.key.per]
        start, seconds = account.key.start, account.end - account.key.start
        rows = (range(start - back * seconds, start + (ROW - back) * seconds, seconds) for back in range(ROW))
        return max(sum(parts.get(each, 0) for each in row if each != start) for row in rows)

    # --- divided limits -----------------------------------------------------------------------------------

    def check_values(self, written: Written) -> None:
        """A divided limit has at most so many values in a period, `other` not counted."""
        for key in written.dropped:
            self._values[key.budget, key.limit, key.start].discard(key.per)
        for key, account in written.accounts.items():
            if key.per:
                values = self._values[key.budget, key.limit, key.start]
                values.add(key.per)
                self._most_values[key.budget, key.limit] = max(len(values), self._most_values[key.budget, key.limit])
                if len(values - {(OTHER,)}) > account.limit.max_values:
                    raise self.violated("values", f"{key.budget}/{key.limit} has {len(values)} accounts: {values}")

    def shared(self, asked: AccountRef, told: AccountRef) -> None:
        """The coordinator counts a value under another one: under `other`, and not while there is room."""
        self.world.happened["ledger: a value shares other"] += 1
        opened, most = self._most_values[asked.budget, asked.limit], self.world.history.terms.max_values
        if told.per != (OTHER,) or 2 * opened < most:
            raise self.violated("values", f"{asked.per} became {told.per} beside {opened} accounts of {most}")
        self._shared.add((asked, told.per))

    def check_value(self, key: AccountKey | None, asked: AccountRef) -> None:
        """A call is counted on its own value's account, or on the one that the coordinator named for it."""
        if asked.per and key is not None and key.per != asked.per and (asked, key.per) not in self._shared:
            raise self.violated("values", f"a call of {asked.per} is counted on {key.per}")

    def forget_rows(self, back: Books) -> None:
        """The store went back in time."""
        self._parts.clear()
        self._values.clear()
        for key, account in back.holdings.accounts.items():
            if account.limit.window.type == "Rolling":
                granted = granted_of(account.charged, account.leases, account)
                self._parts[key.budget, key.limit, key.per][key.start] = granted
            if key.per:
                self._values[key.budget, key.limit, key.start].add(key.per)
