"""
What one attempt can cost at worst, and booking exactly that: all limits at once, shrinking our own output maximum.

Pure arithmetic over prices and the ledger; which target, and what happens without room, is the exchange's.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from spendmesh_sidecar.core.admission import Priced, subject_of
from spendmesh_sidecar.core.ledger.charges import Charge, Quantities, Subject, charges, uncounted
from spendmesh_sidecar.core.ledger.journal import LedgerUnwritable
from spendmesh_sidecar.core.ledger.ledger import Ledger
from spendmesh_sidecar.core.ledger.slices import SLICE_TOKENS, sliced, slicing
from spendmesh_sidecar.core.prices.costs import worst_cost, worst_tokens
from spendmesh_sidecar.core.refusals import unwritable
from spendmesh_sidecar.core.specs import BudgetSpec
from spendmesh_sidecar.core.types import Bounds, ParsedRequest, Refusal, Shortfall

OUTPUT_FLOOR_TOKENS = 256
"""An injected maximum is not shrunk below this: shorter answers are mostly cut ones, and a refusal says more."""


class Booked(Struct, frozen=True, gc=False):
    """A reservation that is in the ledger."""

    worst: Quantities
    max_output_tokens: int | None
    """The output that `worst` assumes."""
    uncounted: tuple[str, ...] = ()
    """Limits in money that let it pass without a price."""
    unverified: bool = False
    """Some limit let it pass without rights, because nobody answered."""


def worst_case(priced: Priced, bounds: Bounds, max_output_tokens: int | None, now_unix: int) -> Quantities:
    """The most that one attempt at a target can be billed, in every unit."""
    price, listed, most = priced.price, priced.listed, max_output_tokens or 0
    tokens = worst_tokens(price, bounds, most)
    return Quantities(
        cost_nanos=worst_cost(price, bounds, most, now_unix, tokens=tokens) if price else 0,
        currency=price.currency if price else "",
        input_tokens=tokens.total_input_tokens,
        output_tokens=tokens.output_tokens,
        listed_nanos=worst_cost(listed, bounds, most, now_unix) if listed else 0,
    )


WorstCost = Callable[[Priced], tuple[int, str]]
"""The most that a try at a target can cost: nano-units and their currency, which is empty where it has no price."""


def worst_cost_of(bounds: Bounds, now_unix: int) -> WorstCost:
    """What a call with these bounds can cost at a target, if it is sent now."""

    def worst_cost_at(priced: Priced) -> tuple[int, str]:
        worst = worst_case(priced, bounds, priced.max_output_tokens, now_unix)
        return worst.cost_nanos, worst.currency

    return worst_cost_at


class Booking(Struct, frozen=True, gc=False):
    """One attempt's wish to be booked."""

    ledger: Ledger
    budgets: tuple[BudgetSpec, ...]
    priced: Priced
    request: ParsedRequest
    reservation: str
    now_unix: int

    def try_book(self, now: float, *, shrink: bool) -> Booked | Refusal | tuple[Shortfall, ...]:
        """
        Book the whole, or with `shrink` the largest part that fits; else say what lacks. A refusal: nothing can be
        booked.

        A shortfall's `need` is that of the smallest form of the call, its `want` that of the whole.
        """
        try:
            return self._try(now, shrink=shrink)
        except LedgerUnwritable as error:
            return unwritable(str(error))

    def _try(self, now: float, *, shrink: bool) -> Booked | tuple[Shortfall, ...]:
        whole = self.priced.max_output_tokens
        if not self.priced.injected or whole is None or whole <= OUTPUT_FLOOR_TOKENS:
            return self._book(whole, now)
        if shrink and self.ledger.crowds(charges := self._charges(whole), now):
            booked = self.ledger.shortfalls(charges, now)
        elif isinstance(tried := self._book(whole, now), Booked):
            return tried
        else:
            booked = tried
        floor = self._charges(OUTPUT_FLOOR_TOKENS)
        smallest = {lack.account: lack.need for lack in self.ledger.shortfalls(floor, now)}
        if shrink and not smallest:
            fitted = self._book(self._largest(whole, now), now)
            assert isinstance(fitted, Booked)  # it fitted a moment ago, and nothing runs in between
            return fitted
        amounts = {charge.account: charge.amount for charge in floor}
        return tuple(
            replace(lack, need=smallest.get(lack.account, 0), want=lack.need, amount=amounts[lack.account])
            for lack in booked
        )

    def smallest(self) -> tuple[Charge, ...]:
        """The charges of the smallest form of the call."""
        smallest = self.priced.max_output_tokens
        if self.priced.injected and smallest is not None:
            smallest = min(smallest, OUTPUT_FLOOR_TOKENS)
        return self._charges(smallest)

    def needs(self) -> dict[str, int]:
        """What the smallest form holds at least, by `budget/limit`, for the words of a refusal."""
        return {
            charge.account.name: charge.amount if charge.least is None else charge.least for charge in self.smallest()
        }

    def largest_output(self, name: str, amount: int) -> int | None:
        """
        The largest output maximum at which the call takes at most `amount` of limit `name`, for the words of a refusal.

        None: the operation has no output; 0: its input alone takes more.
        """
        whole = self.priced.max_output_tokens
        if whole is None:
            return None
        return _last_that_fits(0, whole + 1, lambda output: self._need(name, output) > amount)

    def _need(self, name: str, max_output_tokens: int) -> int:
        charged = self._charges(max_output_tokens)
        return sum(each.amount for each in charged if each.account.name == name)

    def _book(self, max_output_tokens: int | None, now: float) -> Booked | tuple[Shortfall, ...]:
        worst = self._worst(max_output_tokens)
        subject = subject_of(self.priced.candidate, self.request.hints)
        wanted = self._wanted(worst, max_output_tokens, subject)
        lacking = self.ledger.reserve(wanted, self.reservation, now)
        if lacking:
            return lacking
        passed = uncounted(self.budgets, worst.currency, subject)
        return Booked(worst, max_output_tokens, passed, self.ledger.unverified(self.reservation))

    def _charges(self, max_output_tokens: int | None) -> tuple[Charge, ...]:
        subject = subject_of(self.priced.candidate, self.request.hints)
        return self._wanted(self._worst(max_output_tokens), max_output_tokens, subject)

    def _worst(self, max_output_tokens: int | None) -> Quantities:
        return worst_case(self.priced, self.request.bounds, max_output_tokens, self.now_unix)

    def _wanted(self, worst: Quantities, max_output_tokens: int | None, subject: Subject) -> tuple[Charge, ...]:
        """The worst case on each limit, and what is held of it at least."""
        wanted = self.ledger.expectations.reduced(charges(self.budgets, worst, subject), self.budgets, subject)
        if max_output_tokens and self.request.stream and slicing(self.budgets):
            return sliced(wanted, self.budgets, self._worst(min(max_output_tokens, SLICE_TOKENS)))
        return wanted

    def _largest(self, whole: int, now: float) -> int:
        """The largest output in [floor, whole) that leaves what waiting calls need, or else the floor, which fits."""
        return _last_that_fits(
            OUTPUT_FLOOR_TOKENS, whole, lambda output: self.ledger.crowds(self._charges(output), now)
        )


def _last_that_fits(fits: int, too_large: int, exceeds: Callable[[int], bool]) -> int:
    """By halving: the largest number from `fits` to below `too_large` that does not exceed; `fits` itself at worst."""
    for _ in range(too_large.bit_length()):
        middle = (fits + too_large) // 2
        if exceeds(middle):
            too_large = middle
        else:
            fits = middle
    return fits
