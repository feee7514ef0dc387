"""`make sim`: mutants and histories by time, histories by number, or one of them again."""

from __future__ import annotations

import argparse
import os
import sys
import time
from math import inf

from ledgersim import campaign, hunt
from ledgersim.run import failure
from ledgersim.shrink import only, read
from ledgersim.workload import draw
from ledgersim.world import World

MINUTES = 30.0
HUNTING = 0.4
"""Part of the time for mutants, if they need so much; the rest is for histories."""


def main(arguments: list[str]) -> int:
    """Answers 0 when every promise held and everything occurred often enough."""
    options = _options(arguments)
    if options.mutants:
        return _hunt(options, inf)
    if options.seed is not None:
        return _replay(options.seed, options.only, options.verbose)
    seeds, minutes, missed = options.seeds, options.minutes, 0
    if seeds is None:
        minutes = minutes or MINUTES
        began = time.monotonic()
        missed = _hunt(options, began + minutes * 60 * HUNTING)
        minutes -= (time.monotonic() - began) / 60
    total = campaign.run(options.first, seeds, minutes * 60 if minutes is not None else None, options.jobs, _say)
    print(campaign.table(total, options.first))
    campaign.explain(total, _say)
    return int(bool(missed or total.violations or campaign.too_rare(total)))


def _hunt(options: argparse.Namespace, until: float) -> int:
    found = hunt.hunt(options.jobs, hunt.SEEDS, options.match, _say, until, shuffle=options.first)
    if options.remember:
        hunt.remember(found)
    print(found.table(), flush=True)
    return int(found.failed)


def _replay(seed: int, kept: str | None, verbose: bool) -> int:
    history = draw(seed)
    if kept is not None:
        history = only(history, read(kept))
    print(f"seed {seed}: {history}")
    for number, fault in enumerate(history.faults):
        print(f"  f{number}  {fault.at:7.3f} s  {fault.kind}")
    if verbose:
        world = World(history)
        world.verbose = True
        try:
            world.run()
        except AssertionError as error:
            print(error)
    error = failure(history)
    print(error if error is not None else f"every promise held; trace {_digest(seed, kept)}")
    return int(error is not None)


def _digest(seed: int, kept: str | None) -> str:
    history = draw(seed)
    return World(history if kept is None else only(history, read(kept))).run().digest


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make sim ARGS=", description=__doc__)
    parser.add_argument("--minutes", type=float, help="play for so long (30 unless --seeds is given)")
    parser.add_argument("--seeds", type=int, help="play so many histories")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; all cores unless given")
    parser.add_argument("--seed", type=int, help="play one history again")
    parser.add_argument("--only", help="with --seed: only these faults and calls, such as f0,c3")
    parser.add_argument("--verbose", action="store_true", help="with --seed: print its trace")
    parser.add_argument("--mutants", action="store_true", help="change the ledger line by line; list survivors")
    parser.add_argument("--remember", action="store_true", help="with --mutants: write down who noticed each")
    parser.add_argument("--match", default="", help="with --mutants: only those whose file or name contains this")
    return parser.parse_args(arguments)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
