"""
The whole ledger in simulated time: single histories, and the simulation itself can be trusted (it replays, it shrinks
and it catches each weaker protocol).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from ledgersim import hunt
from ledgersim.broken import VARIANTS
from ledgersim.checker import Violation
from ledgersim.faults import FAULTS
from ledgersim.run import failure, play
from ledgersim.shrink import items_of, only, read, shrink, written
from ledgersim.workload import Call, Fault, History, draw

FOLDER = Path(__file__).parent
SEARCHED = 400
DIRECTED = {
    ("refund on expiry", "conservation"): 5,
    ("refund on expiry", "invoice <= ledger"): 3,
    ("reveal before persist", "persist before reveal"): 0,
    ("in flight is zero", "settle >= bill"): 28,
    ("delta reports", "conservation"): 0,
    ("delta reports", "monotone"): 5,
    ("no nonce", "invoice <= ledger"): 140,
    ("no nonce", "stranded"): 14,
}
"""Seeds that show it; where a change of the product moves all histories, the next ones are searched."""
ALONE = 6
"""Histories in which one kind of fault happens again and again."""


# --- one fault at a time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAULTS)
def test_a_history_full_of_one_fault_keeps_every_promise(kind: str) -> None:
    """The same fault eight times, in histories that have no other; it did act."""
    acted = 0
    for seed in range(ALONE):
        acted += play(full_of(kind, seed)).happened[kind]
    assert acted >= ALONE


def full_of(kind: str, seed: int) -> History:
    """A storm of one kind of fault."""
    history, rng = draw(10_000 + seed), Random(seed)
    faults = [
        Fault(rng.uniform(0.5, history.seconds), kind, rng.randrange(60), rng.uniform(0.2, 6.0), rng.random())
        for _ in range(8)
    ]
    calls = history.calls if history.kind != "race" else ()
    ordered = tuple(sorted(faults, key=lambda fault: fault.at))
    return replace(history, kind="storm", replicas=2, calls=calls, faults=ordered)


def test_a_thousand_streams_that_are_open_over_a_periods_end_count_where_they_were_reserved() -> None:
    """Row 17: the old period's account takes them, the new one's does not; both keep every promise."""
    history = next(found for seed in range(10_000) if is_wide(found := draw(seed)))
    until_end = ends_in(history)
    calls = tuple(
        Call(until_end - 1.5 + number / 1000, number % history.pods, 20, 20, 10, 0.5, "slow", 0.1)
        for number in range(1000)
    )
    amounts = tuple((name, 10**7) for name, _ in history.terms.amounts)
    terms = replace(history.terms, amounts=amounts, observed=frozenset())

    world = play(replace(history, calls=calls, terms=terms, seconds=until_end + 25, fast_store=True))

    billed = {key.start: track.billed for key, track in world.checker.accounts.items() if key.budget == "org/all"}
    served = world.happened["call: answered"]
    assert served >= 900
    assert max(billed.values()) >= 40 * 900, "cost 40 each, nearly all in the period that ended under them"


def is_wide(history: History) -> bool:
    """Calm, with some pods, over a midnight."""
    return history.kind == "calm" and history.pods >= 3 and 2.5 < ends_in(history) < history.seconds


def ends_in(history: History) -> float:
    """Seconds until the boundary that it was drawn to begin before; UTC midnights only."""
    midnight = 1_767_225_600
    return midnight - history.base_unix if history.zone == "Etc/UTC" else 0.0


# --- weaker protocols ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "check"),
    [
        ("refund on expiry", "conservation"),
        ("refund on expiry", "invoice <= ledger"),
        ("reveal before persist", "persist before reveal"),
        ("in flight is zero", "settle >= bill"),
        ("delta reports", "conservation"),
        ("delta reports", "monotone"),
        ("no nonce", "invoice <= ledger"),
        ("no nonce", "stranded"),
    ],
)
def test_each_weaker_protocol_is_caught(variant: str, check: str) -> None:
    """Without the one rule a history breaks just this promise; with the real protocol the same history holds."""
    seed, _ = first_failure(variant, check)
    assert failure(draw(seed)) is None


def first_failure(variant: str, check: str) -> tuple[int, Violation]:
    """The first seed, of those that begin at the directed one, in which a weaker protocol breaks this promise."""
    for seed in range(DIRECTED[variant, check], DIRECTED[variant, check] + SEARCHED):
        error = failure(draw(seed), VARIANTS[variant])
        if isinstance(error, Violation) and error.check == check:
            return seed, error
    raise AssertionError(f"{variant}: {check} was never broken")


# --- the simulation itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [3, 11, 23])
def test_a_seed_replays_exactly(seed: int) -> None:
    """Every message, bill and commit at the same instant, also in an interpreter that hashes otherwise."""
    here = play(draw(seed)).digest
    code = f"from ledgersim.run import play; from ledgersim.workload import draw; print(play(draw({seed})).digest)"
    path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    there = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == here == play(draw(seed)).digest


def test_another_seed_is_another_history() -> None:
    """The digest sees what happens."""
    assert len({play(draw(seed)).digest for seed in range(6)}) == 6


def test_a_failing_seed_is_shrunk_to_what_it_needs_to_fail() -> None:
    """And the line that is printed plays exactly that."""
    broken = VARIANTS["refund on expiry"]
    seed, _ = first_failure("refund on expiry", "invoice <= ledger")
    shrunk = shrink(seed, broken)

    assert len(shrunk.kept) < len(items_of(draw(seed))) / 2
    again = failure(only(draw(seed), read(written(shrunk.kept))), broken)
    assert isinstance(again, Violation)
    assert again.check == "invoice <= ledger"
    for item in shrunk.kept:
        less = failure(only(draw(seed), tuple(kept for kept in shrunk.kept if kept != item)), broken)
        assert not (isinstance(less, Violation) and less.check == "invoice <= ledger"), f"{item} was not needed"


def test_a_changed_line_of_the_ledger_is_noticed() -> None:
    """The mutants that `make sim ARGS='--mutants'` tries are served to a process of their own, and caught there."""
    found = hunt.hunt(1, 20, "need == 0 -> need != 0", [].append)

    assert (len(found.noticed), found.listed, found.unexplained) == (1, [], [])
