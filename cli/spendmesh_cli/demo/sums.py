"""What the demo must show, checked from three sources: the clients, the books and the provider's invoice."""

from __future__ import annotations

from dataclasses import dataclass

from spendmesh_cli.demo.traffic import TeamTally

LARGE_INPUT_NANOS, LARGE_OUTPUT_NANOS = 5_000, 25_000
"""large-1 per token: what the same calls cost when everything asks for the strongest model."""
LEAST_SPENT_PERCENT = 95


@dataclass(frozen=True, slots=True)
class TeamSums:
    """Money of one team at the end, in nano-USD."""

    limit: int
    ledger: int
    """Everything that the books charge: settled and what is still held or quarantined."""
    invoice: int


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, whether it held, and the numbers."""

    promise: str
    held: bool
    detail: str


def without_policy_nanos(tally: TeamTally) -> int:
    """The same traffic sent to the strongest model, unlimited, without the failed attempts."""
    return sum(i * LARGE_INPUT_NANOS + o * LARGE_OUTPUT_NANOS for i, o in tally.offered_tokens)


def checks(sums: dict[str, TeamSums], tallies: dict[str, TeamTally], small: str, large: str) -> list[Check]:
    """All promises of the demo; `small` is the team whose budget ends, `large` the one whose budget lasts."""
    a, tally_a, tally_b = sums[small], tallies[small], tallies[large]
    retried = sum(t.retried for t in tallies.values())
    recovered = sum(t.recovered for t in tallies.values())
    return [
        *(
            Check(f"{team}: invoice ≤ ledger ≤ limit", s.invoice <= s.ledger <= s.limit, _money(s))
            for team, s in sums.items()
        ),
        Check(
            f"{small}: at least {LEAST_SPENT_PERCENT} % of the limit was spent before the stop",
            a.ledger * 100 >= a.limit * LEAST_SPENT_PERCENT,
            f"{a.ledger * 100 / a.limit:.1f} %",
        ),
        Check(
            f"{small}: stopped with 402 budget_exceeded",
            tally_a.refusals["budget_exceeded"] > 0,
            ", ".join(f"{code} {count}" for code, count in tally_a.refusals.items()) or "no refusal",
        ),
        Check(f"{small}: calls were downgraded before the stop", tally_a.downgraded > 0, f"{tally_a.downgraded} calls"),
        Check(
            f"{large}: went on to the end, nothing refused",
            tally_b.answered > 0 and not tally_b.refusals,
            f"{tally_b.answered} of {tally_b.sent} answered",
        ),
        Check("retries recovered calls", retried > 0 and recovered > 0, f"{retried} retried, {recovered} recovered"),
        Check(
            "calls failed over while the main provider was down",
            sum(t.failed_over for t in tallies.values()) > 0,
            f"{sum(t.failed_over for t in tallies.values())} calls",
        ),
    ]


def _money(sums: TeamSums) -> str:
    return f"{sums.invoice / 1e9:.4f} ≤ {sums.ledger / 1e9:.4f} ≤ {sums.limit / 1e9:.2f} USD"
