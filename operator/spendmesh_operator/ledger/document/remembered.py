"""What each budget last validly meant (contract §1), kept with the books for every cluster that writes them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from spendmesh_operator.ledger.document.pages import Pages
from spendmesh_sidecar.core.specs import BudgetSpec

BUDGETS_PER_PAGE = 64
"""A budget's meaning takes up to 2 kB for each of its limits."""
HEARD_MS = 600_000
"""A cluster of which nothing was heard for so long is not asked any more what its budgets mean: it was taken away, or
grants nothing."""
HEAR_MS = 60_000
"""How often a cluster says that it is there."""


class Remembered:
    """Budgets by `namespace/name`. `member`: the cluster whose budgets these are; others' are kept as they are."""

    def __init__(self) -> None:
        self.member = ""
        self.heard: dict[str, int] = {}
        """Member -> unix milliseconds at which it was there."""
        self.pages: Pages[tuple[str, str]] = Pages(BUDGETS_PER_PAGE)
        self._kept: dict[tuple[str, str], BudgetSpec] = {}
        self._by_name: dict[str, dict[str, BudgetSpec]] = {}

    @property
    def budgets(self) -> dict[str, BudgetSpec]:
        """Of this member."""
        return {name: spec for (member, name), spec in self._kept.items() if member == self.member}

    def update(self, budgets: Mapping[str, BudgetSpec], exist: Collection[str]) -> bool:
        """Keep these meanings, and those of others that still exist. Answers whether anything has changed."""
        kept = {name: spec for name, spec in self.budgets.items() if name in exist} | dict(budgets)
        before = self.budgets
        for name in before.keys() - kept.keys():
            del self._kept[self.member, name]
            del self._by_name[name][self.member]
            self.pages.remove((self.member, name))
        for name, spec in kept.items():
            if before.get(name) != spec:
                self._keep(self.member, name, spec)
                self.pages.note((self.member, name))
        return kept != before

    def place(self, member: str, name: str, spec: BudgetSpec, page: int) -> None:
        """Put back what the stored books have."""
        self._keep(member, name, spec)
        self.pages.place((member, name), page)

    def hear(self, now_ms: int) -> bool:
        """This member is there. Answers whether that is worth a write."""
        if not self.member or 0 <= now_ms - self.heard.get(self.member, -HEAR_MS) < HEAR_MS:
            return False
        self.heard[self.member] = now_ms
        return True

    def elsewhere(self, name: str, now_ms: int) -> dict[str, BudgetSpec]:
        """The budget as the other clusters have it that are there, by member."""
        known = self._by_name.get(name, {})
        return {
            member: spec
            for member, spec in known.items()
            if member != self.member and now_ms < self.heard.get(member, -HEARD_MS) + HEARD_MS
        }

    def _keep(self, member: str, name: str, spec: BudgetSpec) -> None:
        self._kept[member, name] = spec
        self._by_name.setdefault(name, {})[member] = spec

    def page(self, page: int) -> Iterator[tuple[str, BudgetSpec]]:
        """Member and meaning of what a page holds."""
        return ((key[0], self._kept[key]) for key in self.pages.keys(page))
