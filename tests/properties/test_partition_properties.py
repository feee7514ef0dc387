"""
Divided limits on both sides at once: sidecars' own ledgers against the books, with users that come and go.

The laws of the whole hold for each value too: nothing is charged beyond a limit, everything that was billed is charged,
every limit of a call is booked or none, and the number of accounts is bounded whatever pods say.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings, strategies as st
from msgspec.structs import replace

from ledger_samples import BUDGET, START_MS, acquire, budget, limit
from spendmesh_operator.ledger.books.accounts import Holder, LimitInForce
from spendmesh_operator.ledger.books.books import Books
from spendmesh_operator.ledger.books.partitions import PodPlace, as_asked, candidates, is_of
from spendmesh_operator.ledger.document.sections import decode, encode
from spendmesh_sidecar.core.ledger.charges import Quantities, Subject, charges
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.partitions import OF_THE_POD
from spendmesh_sidecar.core.specs import BudgetSpec, LimitSpec, OverrideSpec, PerSpec
from spendmesh_sidecar.core.types import Hints
from spendmesh_sidecar.protocol import AccountRef, ReportRequest, Want

STEPS = 400
STEP_SECONDS = 0.5
SEEDS = 5
USER = PerSpec(type="User")
TEAM = PerSpec(type="PodLabel", name="team")


class Pod:
    """A sidecar whose users come in bursts, behind a wire that loses answers."""

    def __init__(self, number: int, spec: BudgetSpec, rng: Random, users: int) -> None:
        self.place = PodPlace("team-a", f"w-{number % 2}", f"p-{number}", {"team": f"t-{number % 3}"})
        self.holder = Holder(f"uid-{number}", f"team-a/pod-{number}", f"nonce-{number}")
        self.ledger = Ledger(self.holder.nonce, (spec,), now=0.0)
        self.spec, self.rng, self.users = spec, rng, users
        self.billed: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self._open: list[tuple[str, str, int]] = []
        self._count = 0

    def limits(self, ref: AccountRef) -> LimitInForce | None:
        found = {each.name: each for each in self.spec.limits}.get(ref.limit)
        return LimitInForce(found, place=self.place) if found is not None else None

    def step(self, books: Books, now: float) -> None:
        if wants := self.ledger.wants(now):
            self._acquire(books, wants[:64], now)
        for _ in range(self.rng.randrange(4)):
            self._call(books, now)
        while self._open and self.rng.random() < 0.6:
            self._resolve(now)
        if self.rng.random() < 0.2:
            self.report(books, now)

    def _call(self, books: Books, now: float) -> None:
        self._count += 1
        user, worst = f"user-{self.rng.randrange(self.users)}", self.rng.randrange(1, 40)
        subject = Subject("m", "p", Hints(user=user))
        wanted, name = charges((self.spec,), Quantities(worst, "USD"), subject), f"{self.holder.uid}/{self._count}"
        before = self._held()
        if lacking := self.ledger.reserve(wanted, name, now):
            assert self._held() == before, "all limits or none"
            self._acquire(books, self.ledger.wants_for(lacking, now), now)
            if self.ledger.reserve(wanted, name, now):
                self.happened["refused"] += 1
                return
        self.happened["served"] += 1
        self._open.append((name, user, worst))

    def _resolve(self, now: float) -> None:
        name, user, worst = self._open.pop(self.rng.randrange(len(self._open)))
        if self.rng.random() < 0.2:
            self.ledger.void(name)
            return
        cost = self.rng.randrange(worst + 1)
        self.billed[user] += cost
        self.ledger.settle(name, Quantities(cost, "USD"), now)

    def _acquire(self, books: Books, wants: tuple[Want, ...], now: float) -> None:
        self._count += 1
        request = acquire(f"r{self._count}", self.holder.nonce, *wants)
        reply = books.acquire(self.holder, request, self.limits, _now_ms(now))
        self.happened["assigned"] += len(reply.assigned)
        if self.rng.random() < 0.1:
            self.happened["answer lost"] += 1
            again = books.acquire(self.holder, request, self.limits, _now_ms(now))
            told = {lease.id: lease for lease in again.leases}
            assert {lease.id: told[lease.id] for lease in reply.leases} == {lease.id: lease for lease in reply.leases}
            assert (again.denials, again.assigned) == (reply.denials, reply.assigned)
        self.ledger.assign(reply.assigned, now)
        for lease in reply.leases:
            self.ledger.merge(lease, now)
        self.ledger.denied(reply.denials, now)

    def report(self, books: Books, now: float, lossless: bool = False) -> None:
        reports = self.ledger.reports(now)
        self.happened["closed"] += sum(report.closed for report in reports)
        request = ReportRequest(nonce=self.holder.nonce, reports=reports)
        reply = books.report(self.holder, request, self.limits, _now_ms(now))
        if lossless or self.rng.random() > 0.1:
            self.ledger.acknowledged(reply.leases, now)
        for account in self.ledger.accounts.values():
            for lease in account.leases.values():
                assert lease.used + lease.held <= lease.granted - lease.released + lease.overrun

    def finish(self, books: Books, now: float) -> None:
        for name, _, _ in self._open:
            self.ledger.void(name)
        self.ledger.drain()
        while not self.ledger.settled_up:
            self.report(books, now, lossless=True)

    def _held(self) -> int:
        return sum(lease.held for each in self.ledger.accounts.values() for lease in each.leases.values())


def _now_ms(now: float) -> int:
    return START_MS + int(now * 1000)


LAUNCH = OverrideSpec(name="launch", amount=60, starts=START_MS // 1000 + 40, ends=START_MS // 1000 + 120)


@pytest.mark.parametrize("overrides", [(), (LAUNCH,)], ids=["", "override"])
@pytest.mark.parametrize(("per", "values"), [((USER,), 1000), ((USER,), 6), ((TEAM, USER), 20), ((TEAM,), 1000)])
def test_every_value_is_within_its_limit_and_every_bill_is_charged(
    per: tuple[PerSpec, ...], values: int, overrides: tuple[OverrideSpec, ...]
) -> None:
    """Users, teams, a bound that is too small, coordinators that restart: charged <= amount, billed = settled."""
    happened: Counter[str] = Counter()
    for seed in range(SEEDS):
        rng = Random(seed)
        whole = replace(limit(6_000, name="all"), overrides=overrides)
        each = replace(limit(300, name="each"), per=per, max_values=values, overrides=overrides)
        spec = budget(limits=(whole, each))
        books = Books("test")
        pods = [Pod(number, spec, rng, users=25) for number in range(5)]
        for step in range(STEPS):
            now = step * STEP_SECONDS
            rng.choice(pods).step(books, now)
            if step % 50 == 49:
                books.sweep(_now_ms(now), 25_000)
                books = decode(encode(books), "test")
                books.begin_life(f"c{step}-", _now_ms(now))
            _check(books, each)
        for pod in pods:
            pod.finish(books, now)
            happened += pod.happened
        settled: Counter[str] = Counter()
        for account in books.holdings.accounts.values():
            assert account.leases == {}
            settled[account.key.limit] += account.settled
        billed = sum(sum(pod.billed.values()) for pod in pods)
        assert settled["all"] == settled["each"] == billed
        assert books.take_alarms() == []
        if per == (USER,) and values == 1000:
            by_user = sum((pod.billed for pod in pods), Counter())
            accounts: Counter[str] = Counter()
            for key, account in books.holdings.accounts.items():
                accounts[key.per[0] if key.per else ""] += account.settled if key.per else 0
            assert +accounts == +by_user
        spent = [account.settled for account in books.holdings.accounts.values() if account.key.override]
        happened["override spent"] += sum(spent) > 0
    assert happened["override spent"] == (SEEDS if overrides else 0)
    wanted = {"served", "refused", "closed", "answer lost"} | ({"assigned"} if values < 25 and USER in per else set())
    assert {name for name in wanted if happened[name] < SEEDS} == set()


def _check(books: Books, each: LimitSpec) -> None:
    counts: Counter[int] = Counter()
    for account in books.holdings.accounts.values():
        assert account.charged <= account.limit.amount, account.name
        assert account.recount() == account.totals
        if account.key.per and not account.key.override:
            counts[account.key.start] += 1
    assert max(counts.values(), default=0) <= each.max_values + 1


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=4)
parts = st.lists(
    st.sampled_from([USER, TEAM, PerSpec(type="Namespace"), PerSpec(type="Header", name="x-t")]),
    min_size=1,
    max_size=4,
    unique=True,
).map(tuple)


@given(per=parts, said=st.lists(names, min_size=4, max_size=4), team=names)
@settings(max_examples=200)
def test_no_body_moves_a_pod_to_another_pods_account(per: tuple[PerSpec, ...], said: list[str], team: str) -> None:
    """Whatever is said in their place, the pod's own parts are the pod's, and a sidecar is never told them."""
    spec = replace(limit(name="each"), per=per)
    place = PodPlace("here", "w", "p", {"team": team})
    for values in candidates(spec, tuple(said[: len(per)]), place):
        assert is_of(spec, values, place)
        assert "" not in values
        told = as_asked(spec, values)
        assert all(value == "" for part, value in zip(per, told, strict=True) if part.type in OF_THE_POD)


def test_one_pods_values_never_take_another_pods_room() -> None:
    """Whatever pods say in whatever order: after any one of them there is room for the next one's first value."""
    rng = Random(3)
    spec = replace(limit(100, name="each"), per=(USER,), max_values=64)
    books, known = Books("test"), 0
    for number in range(6):
        holder = Holder(f"uid-{number}", "n", f"nonce-{number}")
        for count in range(200):
            ref = AccountRef(budget=BUDGET, limit="each", per=(f"{number}-{rng.random()}",))
            request = acquire(f"r{count}", holder.nonce, Want(account=ref, need=1, want=1))
            books.acquire(holder, request, lambda _: LimitInForce(spec), START_MS)
        mine = sum(account.opened_by == holder.uid for account in books.holdings.accounts.values())
        assert mine > 0
        known += mine
    assert known <= 65
