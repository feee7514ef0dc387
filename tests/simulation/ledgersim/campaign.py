"""
Many histories on all cores: progress while it runs, a table at its end, a failing seed shrunk to one line.

It fails for a violation, and for a fault or a ledger transition that occurred too rarely to have been tested.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import count, islice

from ledgersim.faults import FAULTS
from ledgersim.run import Result, play_seeds
from ledgersim.shrink import shrink

CHUNK = 25
PER_THOUSAND = {
    "ledger: grant": 2_000,
    "ledger: top-up": 5_000,
    "ledger: report": 5_000,
    "ledger: given back": 200,
    "ledger: closed": 2_000,
    "ledger: revived": 20,
    "ledger: account dropped": 30,
    "ledger: epoch raised": 1_000,
    "ledger: quarantined, silent": 50,
    "ledger: quarantined, gone": 50,
    "ledger: quarantined, replaced": 100,
    "ledger: quarantined, fork": 5,
    "ledger: quarantined, breach": 2,
    "ledger: denied, exhausted": 50,
    "ledger: denied, in_flight": 100,
    "ledger: denied, too_large": 2,
    "ledger: denied, unknown": 20,
    "ledger: denied, unverifiable": 5,
    "store: conflict": 20,
    "store: fenced": 50,
    "store: found again after its answer was lost": 5,
    "store restored": 5,
    "refused: HolderFenced": 5,
    "killed in flight": 20,
    "message repeated": 200,
    "message late": 200,
    "message lost": 200,
    "message cut off": 200,
    "ledger: a window's spend came free": 3,
    "ledger: a value shares other": 100,
    "ledger: blank account dropped": 10,
    "log continued after a power loss": 8,
    "log abandoned": 15,
    "call: answered": 10_000,
    **dict.fromkeys(FAULTS, 8),
}
"""Least number of occurrences in a thousand histories; less would prove nothing about it."""


def too_rare(result: Result) -> dict[str, tuple[int, int]]:
    """What occurred less often than it must: how often, and the minimum."""
    least = {name: number * result.count // 1000 for name, number in PER_THOUSAND.items()}
    return {
        name: (result.happened[name], minimum) for name, minimum in least.items() if result.happened[name] < minimum
    }


def run(
    first_seed: int,
    seeds: int | None,
    seconds: float | None,
    jobs: int,
    say: Callable[[str], None],
    every_seconds: float = 10.0,
) -> Result:
    """Play seeds from `first_seed` on, as many as said or as long as said, and tell how far it is."""
    total, began = Result(), time.monotonic()
    told, chunks = began, _chunks(first_seed, seeds)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), os.nice, (5,)) as pool:
        running = {pool.submit(play_seeds, chunk) for chunk in islice(chunks, 2 * jobs)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for part in done:
                total.add(part.result())
            now = time.monotonic()
            if seconds is None or now - began < seconds:
                running |= {pool.submit(play_seeds, chunk) for chunk in islice(chunks, len(done))}
            if now - told >= every_seconds:
                told = now
                say(_progress(total, now - began, seeds, seconds))
    return total


def _chunks(first: int, seeds: int | None) -> Iterator[range]:
    for start in count(first, CHUNK):
        if seeds is not None and start >= first + seeds:
            return
        yield range(start, start + CHUNK if seeds is None else min(start + CHUNK, first + seeds))


def _progress(total: Result, elapsed: float, seeds: int | None, seconds: float | None) -> str:
    rate = total.count / elapsed
    left = [] if seconds is None else [seconds - elapsed]
    if seeds is not None:
        left.append((seeds - total.count) / rate)
    end = time.strftime("%H:%M:%S", time.localtime(time.time() + max(0.0, min(left))))
    return f"{total.count} histories, {rate:.0f} a second, {len(total.violations)} violations; ends about {end}"


def table(total: Result, first_seed: int) -> str:
    """What was played and how often everything occurred, by kind."""
    kinds: dict[str, Counter[str]] = {"faults": Counter(), "transitions": Counter(), "providers": Counter()}
    for name, number in total.happened.items():
        kind = "faults" if name in FAULTS or name.startswith(("message", "store", "killed")) else "transitions"
        kinds["providers" if name.startswith("provider") else kind][name] += number
    lines = [f"{total.count} histories, seeds {first_seed} to {first_seed + total.count - 1}"]
    for kind, counted in kinds.items():
        lines += [f"\n{kind}", *(f"  {number:>9,}  {name}" for name, number in sorted(counted.items()))]
    rare = too_rare(total)
    lines += [f"  too rare: {name} occurred {number} times, at least {least}" for name, (number, least) in rare.items()]
    return "\n".join([*lines, f"\nviolations: {len(total.violations)}"])


def explain(total: Result, say: Callable[[str], None], at_most: int = 3) -> None:
    """Shrink the first violations."""
    for seed, sentence in sorted(total.violations)[:at_most]:
        say(f"seed {seed}: {sentence}")
        try:
            shrunk = shrink(seed)
        except ValueError as error:
            say(f"  {error} when it is played again alone")
            continue
        say(f"  {len(shrunk.kept)} calls and faults are enough: {shrunk.replay}")
        say(f"  {shrunk.error}")
