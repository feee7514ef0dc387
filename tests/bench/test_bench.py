"""The benches run, and each tells its figures: in their smallest size, without a word about how good they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane import ControlPlane
from findings import Findings, Goal, median_and_range, put, table, verdict
from ledger import DOCS, SECTIONS, Bench, Sizes, document_of
from ledger_enforcement import CASES
from ledger_places import Places, with_kinds
from postgres import Postgres

SMALLEST = Sizes(
    seconds=0.1,
    idle=("PostgreSQL",),
    busy=(),
    growing=("BudgetLedger",),
    sidecars=(2,),
    commit_seconds=0.0,
    cases=CASES[-1:],
    rounds=1,
    calls=20,
    accounts=(1,),
    ledgers=2,
    attempts=10,
    waits=1,
    histories=1,
    fleets=(1, 2),
    ratios=(10,),
)


def smallest(section: str, folder: Path, places: Places | None = None) -> Findings:
    def there() -> Places:
        assert places is not None
        return places

    found: Findings = getattr(Bench(SMALLEST, folder, there), section)()
    return found


@pytest.mark.parametrize(
    ("section", "rows", "goals"),
    [("enforcement", 2, 2), ("memory", 1, 0), ("log", 5, 0), ("histories", 1, 1), ("utilisation", 1, 1)],
)
def test_a_section_without_a_store_tells_its_figures(section: str, rows: int, goals: int, tmp_path: Path) -> None:
    """`make bench-ledger ARGS=SECTION`: a table with a row for each case, and its goals."""
    found = smallest(section, tmp_path)
    assert (section, rows, goals) == (found.section, rows_of(found), len(found.goals))


@pytest.mark.parametrize(("section", "rows", "goals"), [("trips", 1, 0), ("coordinator", 1, 3)])
def test_a_section_on_real_stores_tells_its_figures(
    section: str, rows: int, goals: int, tmp_path: Path, control_plane: ControlPlane, postgres: Postgres
) -> None:
    """The same with books in memory, a file, BudgetLedger objects and PostgreSQL."""
    with_kinds(control_plane)
    found = smallest(section, tmp_path, Places(tmp_path, control_plane, postgres))
    assert (section, rows, goals) == (found.section, rows_of(found), len(found.goals))


def rows_of(found: Findings) -> int:
    return sum(line.startswith("|") for line in found.text.splitlines()) - 2


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_has_its_place_in_the_documents(section: str, tmp_path: Path) -> None:
    """`--write` replaces what stands between the marks of a section, and nothing else."""
    copy = tmp_path / document_of(section)
    copy.write_bytes((DOCS / copy.name).read_bytes())
    put(copy, section, f"figures of {section}")
    once = copy.read_text(encoding="utf-8")
    put(copy, section, f"figures of {section}")
    assert f"<!-- bench-ledger: {section} -->\n\nfigures of {section}\n\n<!-- end -->\n" in once
    assert once == copy.read_text(encoding="utf-8")


def test_a_document_without_the_place_is_refused(tmp_path: Path) -> None:
    """Figures are never lost in silence."""
    copy = tmp_path / "budgets.md"
    copy.write_text("no marks\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"budgets\.md must have <!-- bench-ledger: trips --> … <!-- end --> once"):
        put(copy, "trips", "figures")


def test_goals_are_told_as_met_or_missed() -> None:
    goals = [Goal("fast", "1 ms", met=True), Goal("flat", "2.0", met=False)]
    assert verdict(goals) == table(("goal", "this run", ""), [("fast", "1 ms", "met"), ("flat", "2.0", "missed")])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], (3.0, 3.0, 3.0)), ([2.0, 1.0, 3.0], (2.0, 1.0, 3.0)), ([float(n) for n in range(25)], (12.0, 7.0, 17.0))],
    ids=["one", "few: all of them", "many: by rank"],
)
def test_a_median_comes_with_its_range(values: list[float], expected: tuple[float, float, float]) -> None:
    assert median_and_range(values) == expected
