"""`make sim-storm`: what retry policies make of a provider that loses most of its capacity for half a minute."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from findings import put
from stormsim import campaign, promises, report

DOCS: Final = Path(__file__).resolve().parents[3] / "docs"


def main(arguments: list[str]) -> int:
    """Answers 0 when every promise held with every seed."""
    options = _options(arguments)
    seeds = range(options.first, options.first + options.seeds)
    results = campaign.run(campaign.lines(), seeds, options.jobs, lambda line: print(line, file=sys.stderr, flush=True))
    text = f"{report.text(results)}\n\nSeeds {', '.join(map(str, seeds))}. {report.legend()}"
    print(text)
    violations = promises.broken(results)
    print(f"\n{len(promises.PROMISES)} promises, {len(violations)} broken", *violations, sep="\n  ")
    if options.write:
        put(DOCS / "resilience.md", "table", text, "sim-storm")
        (DOCS / "storm.csv").write_text(report.data(results), encoding="utf-8")
        (DOCS / "storm-series.csv").write_text(report.series(results), encoding="utf-8")
        for pods in campaign.PODS:
            shown = [
                result for result in results if (result.line.pods, result.line.offered) == (pods, campaign.OFFERED)
            ]
            (DOCS / f"storm-{pods}.svg").write_text(report.plot(shown, pods), encoding="utf-8")
    return int(bool(violations))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make sim-storm ARGS=", description=__doc__)
    parser.add_argument("--seeds", type=int, default=len(campaign.SEEDS), help="runs of each line; 3 unless given")
    parser.add_argument("--first", type=int, default=campaign.SEEDS[0], help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes; all cores unless given")
    parser.add_argument("--write", action="store_true", help="put table, data and plots into docs/")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
