"""
The books: the only operations that may change accounts and leases. Pure; one writer.

No clock, no I/O: `now_ms` (unix milliseconds) is handed in, and `coordinator` makes changes durable before anyone
hears of them. The invariants I1 to I7 of the protocol are checked here in production; a violated one stops grants
of that account (`unverifiable`) and is told through `alarms`, the process goes on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from spendmesh_operator.ledger.books import fencing, grants, lives
from spendmesh_operator.ledger.books.accounts import (
    Account,
    BadRequest,
    Holder,
    InvariantViolated,
    LimitInForce,
    QuarantineReason,
)
from spendmesh_operator.ledger.books.answers import refused, repeated, state_of, told
from spendmesh_operator.ledger.books.diverging import compared, difference
from spendmesh_operator.ledger.books.fencing import RESTLESS, admit
from spendmesh_operator.ledger.books.forecast import follow
from spendmesh_operator.ledger.books.granting import Plan, Refused, plan_grants
from spendmesh_operator.ledger.books.holdings import Holdings
from spendmesh_operator.ledger.books.lives import Life
from spendmesh_operator.ledger.books.milestones import note_reached
from spendmesh_operator.ledger.books.overrides import extra_of, in_force_for, limit_of, overrides_of
from spendmesh_operator.ledger.books.partitions import is_of
from spendmesh_operator.ledger.books.pods import Pods
from spendmesh_operator.ledger.books.pressure import Pressure
from spendmesh_operator.ledger.books.reporting import apply_report, find_lease
from spendmesh_operator.ledger.books.restoring import Forgotten, Found, forgotten, take_back
from spendmesh_operator.ledger.books.rolling import running, window_key
from spendmesh_operator.ledger.coordinator.asking import Asked, LimitsOf as LimitsOf, find_all
from spendmesh_operator.ledger.coordinator.messages import assignments, check_name, check_request
from spendmesh_operator.ledger.document.remembered import Remembered
from spendmesh_sidecar.core.ledger.rights import meaning_of
from spendmesh_sidecar.core.specs import BudgetSpec
from spendmesh_sidecar.protocol import (
    AccountRef,
    AccountState,
    AcquireReply,
    AcquireRequest,
    Denial,
    LeaseReport,
    LeaseState,
    ReportReply,
    ReportRequest,
    Want,
)

MAX_REPORTS = 1024


class Books:
    """All accounts of one ledger domain."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.epoch = 0
        self.stored_head: object = None
        """What of these fields was last written, as `document` keeps it; None: nothing was."""
        self.superseded: frozenset[str] = frozenset()
        """Stored sections of an older format, to be removed with the next commit."""
        self.next_lease = 1
        self.lives: tuple[Life, ...] = ()
        """Of the coordinators that wrote these books, the one that granted last at the end."""
        self.life = ""
        """Prefix of the one that goes on here; of other clusters' coordinators others do."""
        self.holdings = Holdings()
        self.pods = Pods()
        self.memory = Remembered()
        self._settled: set[str] = set()
        """Leases that were closed since the books were restored: a message that comes late opens none of them again."""
        self._pressure = Pressure()

    def belong_to(self, member: str) -> None:
        """Which of the clusters that write these books is served here; empty: there is only one."""
        self.pods.member = self.memory.member = member

    @property
    def remembered(self) -> dict[str, BudgetSpec]:
        """Each budget as it was last valid, by `namespace/name` (contract §1)."""
        return self.memory.budgets

    @property
    def revision(self) -> int:
        """Grows with each change that must become durable."""
        return self.holdings.revision

    def take_alarms(self) -> list[str]:
        """What an operator of the platform must hear, once."""
        alarms, self.holdings.alarms = self.holdings.alarms, []
        return alarms

    # --- operations ---------------------------------------------------------------------------------------

    def acquire(self, holder: Holder, request: AcquireRequest, limits: LimitsOf, now_ms: int) -> AcquireReply:
        """
        Grant all wants or none. The same request id gets the same answer.

        A new nonce of a known pod quarantines what its old one holds. Raises BadRequest, NotYours, HolderFenced.
        """
        check_request(request, holder)
        if self.pods.restless(holder, now_ms):
            refs = (want.account for want in request.wants)
            return AcquireReply(denials=tuple(Denial(account=ref, reason="unverifiable", why=RESTLESS) for ref in refs))
        admit(self.holdings, self.pods, holder, now_ms)
        answer = self.pods.answer(holder.uid, request.id)
        if isinstance(answer, AcquireReply):
            return refused(self.holdings, holder, request, answer.denials, limits, now_ms)
        if answer is not None:
            return repeated(self.holdings, holder, zip(answer, request.wants, strict=False), limits, now_ms)
        limits = compared(limits, self.memory.elsewhere, now_ms)
        asked, refusals = find_all(self.holdings, self.domain, holder.uid, request.wants, limits, now_ms)
        plans: list[Plan] = []
        for one in asked.values():
            try:
                plans += self._plan(holder, one, now_ms, plans)
            except Refused as why:
                refusals += ((want, why) for want in one.wants)
        if refusals:
            denials = tuple(self._denial(holder, want, why, limits, now_ms) for want, why in refusals)
            self.pods.remember_denial(holder.uid, request.id, AcquireReply(denials=denials))
            return refused(self.holdings, holder, request, denials, limits, now_ms)
        for plan in plans:
            if plan.account.key not in self.holdings.accounts:
                self.holdings.add_account(plan.account)
            self.holdings.put(plan.account, plan.lease)
        lease_of = {plan.account.key: plan.lease.id for plan in plans}
        asked_of = {(want.account, want.period): key for key, one in asked.items() for want in one.wants}
        lease_ids = tuple(lease_of[asked_of[want.account, want.period]] for want in request.wants)
        self.pods.remember_grant(holder.uid, request.id, lease_ids)
        return AcquireReply(
            leases=tuple(told(self.holdings, plan.account, plan.lease, plan.in_force, now_ms) for plan in plans),
            assigned=tuple(each for one in asked.values() for each in assignments(one.account, one.wants, now_ms)),
        )

    def report(
        self,
        holder: Holder,
        request: ReportRequest,
        limits: LimitsOf,
        now_ms: int,
        when_forgotten: Forgotten = "fenced",
    ) -> ReportReply:
        """
        Merge cumulative reports; each is answered with what is now in the books.

        A lease that is unknown, or of another nonce, is answered `fenced`, save what `restoring` takes back. Raises
        BadRequest or NotYours, changing nothing.
        """
        if len(request.reports) > MAX_REPORTS:
            raise BadRequest(f"{len(request.reports)} reports in one message; at most {MAX_REPORTS} are read")
        check_name("nonce", holder.nonce)
        self.pods.check_owner(holder)
        for report in request.reports:
            find_lease(self.holdings, holder, report)
        self.holdings.revive(holder.uid, holder.nonce)
        limits = compared(limits, self.memory.elsewhere, now_ms)
        if when_forgotten == "fenced":
            self._settled.clear()
        states = (self._report_one(holder, one, limits, now_ms, when_forgotten) for one in request.reports)
        return ReportReply(leases=tuple(states))

    def quarantine(self, uids: Iterable[str], reason: QuarantineReason) -> int:
        """See `fencing.quarantine`."""
        return fencing.quarantine(self.holdings, self.pods, uids, reason)

    def remember(self, budgets: Mapping[str, BudgetSpec], exist: Collection[str], now_ms: int = 0) -> None:
        """
        Keep the last valid meaning of budgets, and let changed amounts act at once.

        `exist` names all budgets that there are, also unreadable ones: those keep what they last meant. The meaning
        of a deleted one is dropped; its accounts stay.
        """
        if self.memory.hear(now_ms) | self.memory.update(budgets, exist):
            self.holdings.revision += 1
        for budget in budgets.values():
            differs = difference(budget, self.memory.elsewhere(budget.name, now_ms))
            for limit in budget.limits:
                for account in self.holdings.periods_of(budget.name, limit.name):
                    own = limit_of(limit, account.key.override)
                    if own is not None and meaning_of(account.limit) == meaning_of(own):
                        self.holdings.refresh(account, LimitInForce(own, budget.mode, differs=differs))

    def raise_epoch(self, epoch: int) -> None:
        """Begin a newer epoch; an older one than the books have changes nothing."""
        if epoch > self.epoch:
            self.epoch = epoch
            self.holdings.revision += 1

    def begin_life(self, prefix: str, now_ms: int) -> None:
        """A coordinator begins: its lease ids are unlike any other's, also after a restore from a backup."""
        self.life = prefix
        self.lives = lives.begin(self.lives, prefix, self.next_lease)
        self.holdings.begin(now_ms)
        self.holdings.revision += 1

    def go_on_from(self, before: Books) -> None:
        """These were read again in the same life. A write that was given up may yet arrive: its numbers stay taken."""
        self.life = before.life
        self.next_lease = max(self.next_lease, before.next_lease)

    def sweep(self, now_ms: int, elapsed_ms: int) -> None:
        """Check all sums (I7), note milestones, then drop what has ended and holds nothing; see `Holdings.believe`."""
        for account in tuple(self.holdings.accounts.values()):
            others = self.holdings.beside(account)
            extra = extra_of(overrides_of(self.holdings, account, None, now_ms))
            if note_reached(account, others, now_ms, extra):
                for changed in (account, *others.before):
                    self.holdings.touch(changed)
            account.pace = follow(account.pace, account.settled, account.key.start * 1000, account.end * 1000, now_ms)
            try:
                self.holdings.verify(account)
            except InvariantViolated as violated:
                self.holdings.freeze(account, violated)
        self.holdings.believe(now_ms, elapsed_ms)
        self.holdings.drop_ended()
        self._pressure.sweep(now_ms)
        if self.pods.forget_gone(self.holdings.holders()) | self.memory.hear(now_ms):
            self.holdings.revision += 1

    # --- reading ------------------------------------------------------------------------------------------

    def current(self, now_ms: int) -> list[Account]:
        """Accounts whose period runs, or whose window has parts that count; overrides left out (`overrides_of`)."""
        return running(self.holdings.accounts.values(), now_ms)

    def states(self, now_ms: int) -> dict[tuple[str, str, tuple[str, ...]], AccountState]:
        """(budget, limit, per) -> state of the running period."""
        return {
            (account.key.budget, account.key.limit, account.key.per): state_of(self.holdings, account, None, now_ms)
            for account in self.current(now_ms)
        }

    # --- parts of acquire ---------------------------------------------------------------------------------

    def _plan(self, holder: Holder, one: Asked, now_ms: int, planned: Sequence[Plan]) -> list[Plan]:
        overrides = one.known(overrides_of(self.holdings, one.account, one.in_force, now_ms))
        return plan_grants(self.holdings, one, overrides, holder, self._new_id, planned)

    def _new_id(self) -> str:
        number, self.next_lease = self.next_lease, self.next_lease + 1
        self.lives = lives.grant(self.lives, self.life, number)
        return f"{self.life}{number:x}"

    def _denial(self, holder: Holder, want: Want, refused: Refused, limits: LimitsOf, now_ms: int) -> Denial:
        account = refused.account
        if account is None:
            return Denial(account=want.account, reason=refused.reason, why=refused.why)
        if refused.reason == "in_flight":
            overrides = overrides_of(self.holdings, account, limits(want.account), now_ms)
            keys = (window_key(each) for each in (account, *overrides))
            self._pressure.note(keys, want.need, holder.uid, now_ms)
        state = state_of(self.holdings, account, limits(want.account), now_ms)
        return Denial(account=want.account, reason=refused.reason, state=state)

    # --- parts of report ----------------------------------------------------------------------------------

    def _report_one(
        self, holder: Holder, report: LeaseReport, limits: LimitsOf, now_ms: int, when_forgotten: Forgotten
    ) -> LeaseState:
        found = find_lease(self.holdings, holder, report)
        restored = when_forgotten != "fenced" and report.lease not in self._settled
        if restored and report.account is not None and forgotten(self.lives, self.life, found, report):
            in_force = limits(report.account)
            if when_forgotten == "awaited" or in_force is None:
                return LeaseState(lease=report.lease, sequence=0)
            found = self._take_back(holder, report, found, in_force, now_ms) or found
        if found is None:
            return LeaseState(lease=report.lease, sequence=report.sequence, fenced=True)
        account, lease = found
        ref = AccountRef(budget=account.key.budget, limit=account.key.limit, per=account.key.per)
        in_force = in_force_for(limits(ref), account.key.override)
        if in_force is not None and meaning_of(in_force.limit) == meaning_of(account.limit):
            self.holdings.refresh(account, in_force)
        after = apply_report(self.holdings, account, lease, report)
        state = state_of(self.holdings, account, in_force, now_ms)
        if after is None:
            if when_forgotten != "fenced":
                self._settled.add(lease.id)
            return LeaseState(lease=lease.id, sequence=report.sequence, state=state)
        if after.quarantined in ("fork", "breach"):
            self.pods.retire(after.holder)
        moved = in_force is not None and not is_of(account.limit, account.key.per, in_force.place)
        asked = self._pressure.on(window_key(account), holder.uid, now_ms)
        return LeaseState(
            lease=after.id,
            sequence=after.sequence,
            recalled=after.unspent if moved else grants.recall(account, after, asked, self.holdings.beside(account)),
            fenced=bool(after.quarantined),
            survival=after.survival,
            state=state,
        )

    def _take_back(
        self, holder: Holder, report: LeaseReport, found: Found | None, in_force: LimitInForce, now_ms: int
    ) -> Found | None:
        """Only for an incarnation that may still acquire."""
        if self.pods.retired(holder) or self.pods.restless(holder, now_ms):
            return None
        admit(self.holdings, self.pods, holder, now_ms)
        return take_back(self.holdings, self.domain, holder, report, found, in_force, now_ms)
