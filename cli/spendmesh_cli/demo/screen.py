"""The demo's live table; on something that is not a terminal, a line now and then."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from spendmesh_cli.demo.sums import Check
from spendmesh_cli.demo.traffic import TeamTally

LINE_EVERY_SECONDS = 5.0


class Screen:
    """Draws the state it is given; keeps none but the time of the last printed line."""

    def __init__(self, console: Console, seconds: float) -> None:
        self._console = console
        self._seconds = seconds
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._printed = -LINE_EVERY_SECONDS

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(
        self,
        elapsed: float,
        chapter: str,
        tallies: Mapping[str, TeamTally],
        statuses: Mapping[str, Mapping[str, object]],
    ) -> None:
        """Draw one moment."""
        if self._live:
            self._live.update(self._table(elapsed, chapter, tallies, statuses), refresh=True)
        elif elapsed - self._printed >= LINE_EVERY_SECONDS:
            self._printed = elapsed
            teams = "   ".join(
                f"{team}: {t.answered}/{t.sent} answered, {sum(t.refusals.values())} refused, "
                f"spent {_spent(statuses.get(team, {}))}"
                for team, t in tallies.items()
            )
            self._console.print(f"{elapsed:4.0f}/{self._seconds:.0f} s  {chapter:<52} {teams}", highlight=False)

    def _table(
        self,
        elapsed: float,
        chapter: str,
        tallies: Mapping[str, TeamTally],
        statuses: Mapping[str, Mapping[str, object]],
    ) -> Group:
        table = Table(title=f"Spendmesh demo: {chapter}", title_justify="left")
        for column in ("team", "spent of limit", "sent", "economy", "standard", "premium", "down-\ngraded"):
            table.add_column(column)
        for column in ("retried", "recov-\nered", "failed\nover", "refused", "breaker"):
            table.add_column(column)
        for team, tally in tallies.items():
            status = statuses.get(team, {})
            refused = ", ".join(f"{code} {count}" for code, count in tally.refusals.items()) or "0"
            counts = (tally.sent, tally.tiers["economy"], tally.tiers["standard"], tally.tiers["premium"])
            more = (tally.downgraded, tally.retried, tally.recovered, tally.failed_over)
            table.add_row(team, _spent(status), *map(str, (*counts, *more)), refused, _breakers(status))
        left = max(0.0, self._seconds - elapsed)
        bar = ProgressBar(total=self._seconds, completed=min(elapsed, self._seconds), width=60)
        return Group(table, bar, Text(f"{elapsed:.0f} s, about {left:.0f} s to go"))

    def verdict(self, checks: list[Check], policy_nanos: int, without_nanos: int) -> None:
        """The sums at the end."""
        for check in checks:
            mark = "[green]held  [/green]" if check.held else "[red]BROKEN[/red]"
            self._console.print(f"  {mark} {check.promise}: {check.detail}", highlight=False)
        self._console.print(
            f"\nSpent under policy {policy_nanos / 1e9:.2f} USD. The same traffic without policy, everything on "
            f"large-1 and no limit: {without_nanos / 1e9:.2f} USD.",
            highlight=False,
        )


def _spent(status: Mapping[str, object]) -> str:
    rights = status.get("rights")
    if not isinstance(rights, list) or not rights:
        return "-"
    right = rights[0]
    amount, settled = int(right["amount"]), int(right["settled"])
    settled = max(settled, 0)
    return f"{settled / 1e9:.3f} of {amount / 1e9:.2f} ({settled * 100 // max(1, amount)} %)"


def _breakers(status: Mapping[str, object]) -> str:
    breakers = status.get("breakers")
    if not isinstance(breakers, dict):
        return "-"
    return ", ".join(f"{key} {state}" for key, state in breakers.items() if state != "serving") or "all serving"
