"""
One account as a sidecar sees it: the leases it holds on a limit, their demand, and what is known of the whole.

Chooses the lease of a reservation and the rights to ask for; the ledger joins accounts into one decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf

from msgspec.structs import replace

from spendmesh_sidecar.core.ledger.debt import Debt
from spendmesh_sidecar.core.ledger.demand import Demand
from spendmesh_sidecar.core.ledger.journal import UnleasedRecord
from spendmesh_sidecar.core.ledger.lease import LeaseBook
from spendmesh_sidecar.core.ledger.rights import AccountRef, AccountState, Denial, Meaning, Want, meaning_of
from spendmesh_sidecar.core.specs import LimitSpec
from spendmesh_sidecar.core.types import Shortfall

ASK_AGAIN_SECONDS = 1.0
"""An unanswered top-up is repeated after this: one commit of a busy shard."""
DENIED_AGAIN_SECONDS = 5.0
"""A refused or fruitless top-up is repeated after this: about one report interval, when others' rights may be back."""
DENIAL_STANDS_SECONDS = 1.0
"""A refused call's answer also speaks for the next ones for so long, so that an empty budget costs no round trips."""
NEXT_PERIOD_LEAD_SECONDS = 30.0
"""Rights for the next period are asked for one to two of these before the boundary, spread over the sidecars."""
TIGHT_DIVISOR = 10
"""Less than a tenth left to grant: nobody asks far ahead, and idle holders keep nothing."""


@dataclass(slots=True)
class Account:
    """State of one (budget, limit, per)."""

    ref: AccountRef
    demand: Demand
    limit: LimitSpec | None = None
    """None: no budget in force has it (a policy change on its way)."""
    meaning: Meaning | None = None
    """Of the limit that was last in force: what all amounts here are in."""
    enforced: bool = True
    leases: dict[str, LeaseBook] = field(default_factory=dict)
    debt: Debt = field(default_factory=Debt)
    awaited: int = 0
    """What calls need at least that wait for rights."""
    promised: int = 0
    """Free rights that count for one of them: no other call may take them."""
    silent: bool = False
    """The coordinator did not answer when it was asked, and has not been heard since."""
    _ask_at: float = 0.0
    _ask_next_at: float = 0.0
    _granted_when_asked: int | None = None
    _denial: Denial | None = None
    _denial_need: int = 0
    _denied_at: float = 0.0
    _told: AccountState | None = None
    """The last word about the whole account of a lease that is closed."""
    _ended_at: float = -inf
    """When the newest period ended whose lease is closed."""
    _leased: bool = False
    """Some lease was held once: an idle account then asks for nothing."""

    def put_in_force(self, limit: LimitSpec, *, enforced: bool, now: float) -> None:
        """A policy has this limit. Under another meaning than before nothing is taken over: no right, no use."""
        meaning = meaning_of(limit)
        if self.meaning not in (None, meaning):
            for lease in self.leases.values():
                lease.supersede()
            self.demand = Demand(now)
            self.debt.forgive()
            self._granted_when_asked = self._told = None
            self._leased = False
        self.limit, self.meaning, self.enforced = limit, meaning, enforced
        self.forget_denial()

    def revive(self) -> None:
        """Spend again from leases that were retired because no policy had the account, or the override."""
        for lease in self.leases.values():
            if self.has(lease.override):
                lease.revive()
            else:
                lease.retired = True

    def has(self, override: str) -> bool:
        """Whether the limit in force has this override; its own amount (empty) it has always."""
        return not override or (self.limit is not None and any(each.name == override for each in self.limit.overrides))

    def current(self, now: float) -> LeaseBook | None:
        """The lease that a reservation uses now: the open one with the most free rights, overrides left out."""
        best: LeaseBook | None = None
        for lease in self.leases.values():
            if lease.open_at(now) and not lease.account.override and (best is None or lease.free > best.free):
                best = lease
        return best

    def extras(self, now: float) -> tuple[LeaseBook, ...]:
        """Leases of overrides that run now, in the order in which they are drained."""
        if self.limit is None or not self.limit.overrides:
            return ()
        running = [lease for lease in self.leases.values() if lease.override and lease.open_at(now)]
        return tuple(sorted(running, key=lambda lease: (lease.ends_at, lease.id)))

    def free(self, now: float) -> int:
        """The largest reservation that fits now."""
        lease = self.current(now)
        return (lease.free if lease else 0) + sum(extra.free for extra in self.extras(now))

    def unreported(self, now: float) -> int:
        """Own use that the coordinator's figures may not have."""
        lease = self.current(now)
        return self._unreported(lease, now)

    def _unreported(self, lease: LeaseBook | None, now: float) -> int:
        own = lease.unreported if lease is not None else 0
        extras = self.extras(now)
        return own + sum([extra.unreported for extra in extras]) if extras else own

    def state(self, now: float) -> AccountState | None:
        """What is known of the whole account in the running period; None if nothing is."""
        lease = self.current(now)
        if lease is not None and lease.state is not None:
            return lease.state
        denial = self._denial
        if denial is None or denial.state is None or now >= self._denied_at + denial.state.resets_in_ms / 1000:
            return self._last_told()
        return denial.state

    @property
    def _rolling(self) -> bool:
        return self.limit is not None and self.limit.window.type == "Rolling"

    def _last_told(self) -> AccountState | None:
        """What was known in an earlier part of a rolling window: most of it still counts. A calendar starts anew."""
        if not self._rolling:
            return None
        told = [(lease.ends_at, lease.state) for lease in self.leases.values() if lease.state is not None]
        return max(told, key=lambda each: each[0])[1] if told else self._told

    def settled(self, now: float) -> int:
        """Spent by everyone as far as known here: the coordinator's figure and our own use that it may not have."""
        state = self.state(now)
        return (state.settled if state else 0) + self.unreported(now)

    def standing(self, now: float) -> tuple[int, int] | None:
        """The account's whole amount and what is `settled` of it; None while nothing is known of it."""
        lease = self.current(now)
        if lease is not None and lease.state is not None:
            return lease.state.amount, lease.state.settled + self._unreported(lease, now)
        state = self.state(now)
        return (state.amount, self.settled(now)) if state is not None else None

    def denied(self, denial: Denial, need: int, now: float) -> None:
        """Remember a refusal: for top-ups, and for calls that would get the same answer."""
        self._denial, self._denial_need, self._denied_at = denial, need, now
        self._ask_at = self._ask_next_at = now + DENIED_AGAIN_SECONDS
        lease = self.current(now)
        if lease is not None and denial.state is not None:
            lease.state = denial.state

    def forget_denial(self) -> None:
        """The policy changed, or rights came: ask anew."""
        self._denial = None
        self._ask_at = self._ask_next_at = 0.0

    def standing_denial(self, need: int, now: float) -> Denial | None:
        """The refusal that a call lacking `need` would only hear again."""
        denial = self._denial
        if denial is None or now - self._denied_at >= DENIAL_STANDS_SECONDS or need < max(1, self._denial_need):
            return None
        return denial if denial.reason in ("exhausted", "too_large") else None

    def wants(self, now: float, spread: float) -> list[Want]:
        """Top-ups that are due, `spread` in [0, 1) moving the next period's away from other sidecars'."""
        if self.limit is None:
            return []
        idle, tight = self.demand.idle(now), self._tight(now)
        if idle and self.ref.per and not self.debt.waits:
            return []  # it is given up, see `partitions.fading`
        lease, free = self.current(now), self.free(now)
        target = self.demand.target(now, self.limit.amount, tight=tight)
        due = lease is None or free < self.demand.low_water(now, self.limit.amount, tight=tight)
        asked: list[Want] = []
        if due and (self.debt.waits or not (idle and self._leased)) and now >= self._ask_at:
            granted = sum(book.granted for book in self.leases.values())
            fruitless = self._granted_when_asked == granted
            self._granted_when_asked = granted
            self._ask_at = now + (DENIED_AGAIN_SECONDS if fruitless else ASK_AGAIN_SECONDS)
            asked.append(self._want(0, max(1, target - free)))
        provided = any(book.starts_at > now and not book.override for book in self.leases.values())
        # In a rolling window rights for the next part are taken from what this one may still spend.
        spare = not (tight and self._rolling)
        if lease is None or idle or provided or now < self._ask_next_at or not spare:
            return asked
        if lease.ends_at - now < NEXT_PERIOD_LEAD_SECONDS * (1 + spread):
            self._ask_next_at = now + ASK_AGAIN_SECONDS
            asked.append(replace(self._want(0, target), period="next"))
        return asked

    def want_for(self, lacking: tuple[Shortfall, ...], now: float) -> Want:
        """
        What to ask for calls that wait: the need of all, and with it room for one more, or for the demand ahead.

        What was free when they came may be gone since, with its period.
        """
        amount, free = self.limit.amount if self.limit else 0, self.free(now)
        need = max(sum(call.need for call in lacking), sum(call.amount for call in lacking) - free)
        wholes = [call.want for call in lacking]
        ahead = self.demand.target(now, amount, tight=self._tight(now)) - free
        return self._want(need, max(need, sum(wholes) + max(wholes), ahead))

    def _want(self, need: int, want: int) -> Want:
        known = tuple(each.name for each in self.limit.overrides) if self.limit else ()
        return Want(account=self.ref, need=need, want=want, overrides=known)

    def give_back_surplus(self, now: float) -> None:
        """Release what has been idle too long, so that others can spend it."""
        if self.demand.idle(now):
            for extra in self.extras(now):
                extra.give_back(extra.free)
        lease = self.current(now)
        if lease is None or self.limit is None:
            return
        lease.give_back(self.demand.surplus(lease.free, now, self.limit.amount, tight=self._tight(now)))

    def _tight(self, now: float) -> bool:
        state = self.state(now)
        return state is not None and (state.amount - state.charged) * TIGHT_DIVISOR < state.amount

    def note_would_block(self, amount: int, now: float) -> None:
        """Count a call that an Observe limit would have refused, as far as its state is known."""
        state, free = self.state(now), self.free(now)
        if state is not None and amount > free and state.amount - state.charged < amount - free:
            self.debt.would_block += 1

    def carry_over(self, now: float) -> LeaseBook | None:
        """Move what waited for a lease into the current one, or one that closes; answers the lease if it got use."""
        if not self.debt.waits:
            return None
        lease = self.current(now) or self._closing(now)
        return lease if lease is not None and self.debt.tell(lease, self._counts_until(lease)) else None

    def _closing(self, now: float) -> LeaseBook | None:
        return next((lease for lease in self.leases.values() if lease.tells(now) and not lease.override), None)

    def want_to_tell(self, now: float) -> Want | None:
        """At the end: a lease without rights, for use that none has yet. Asking is remembered."""
        if not self.debt.unleased or self.limit is None or now < self._ask_at or self._closing(now) is not None:
            return None
        self._ask_at = now + ASK_AGAIN_SECONDS
        return self._want(0, 0)

    def hear(self, *, silent: bool) -> None:
        """The coordinator was heard, or did not answer in time."""
        self.silent = silent
        for lease in self.leases.values():
            lease.silent = silent

    def credit(self, now: float) -> int:
        """What may be held without rights now: nothing, unless the coordinator is silent and the limit allows it."""
        if not self.silent or self.limit is None or self.limit.on_unverifiable != "Allow":
            return 0
        return self.debt.credit(self.limit.allow_cap, now)

    def recall_debt(self, record: UnleasedRecord, now: float) -> None:
        """Another process takes over what the log says of this account."""
        self.debt.recall(record, [(lease, self._counts_until(lease)) for lease in self.leases.values()], now)

    def _counts_until(self, lease: LeaseBook) -> float:
        """Until when what was spent from a lease counts: its period's end, or a rolling window after its part."""
        window = self.meaning.window if self.meaning is not None else None
        return lease.ends_at + (window.duration_seconds if window is not None and window.type == "Rolling" else 0)

    def period_ended(self, since: float, now: float) -> bool:
        """Whether a period has ended since, as far as is known: what was granted or denied for it is of no use."""
        return any(since < ended <= now for ended in (self._ended_at, *[each.ends_at for each in self.leases.values()]))

    def forget(self, lease: LeaseBook, now: float) -> bool:
        """A closed lease is acknowledged. Answers whether it leaves something that waits, or counts, without it."""
        del self.leases[lease.id]
        self._ended_at = max(self._ended_at, lease.ends_at)
        self._told = lease.state
        return self.debt.closed(lease, self._counts_until(lease), now)

    def add(self, lease: LeaseBook) -> None:
        """Take over a new lease."""
        lease.silent = self.silent
        self.leases[lease.id] = lease
        self._leased = True
