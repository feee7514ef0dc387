"""`python -m spendmesh_operator.prices [--check] OUT` makes the committed price table from genai-prices."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from spendmesh_operator.prices.genai import import_prices
from spendmesh_operator.prices.table import BuiltInPrices, format_prices, parse_prices


def main(arguments: list[str] | None = None) -> int:
    """Write the table, or with --check compare the file with what would be written (exit status 1: it differs)."""
    parser = argparse.ArgumentParser(prog="python -m spendmesh_operator.prices", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="the file, operator/spendmesh_operator/data/prices.json")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if OUT is not up to date")
    options = parser.parse_args(arguments)
    out: Path = options.out
    committed = out.read_bytes() if out.exists() else b""
    # The day of the conversion belongs to the file: a check on another day must not differ by it.
    date = parse_prices(committed).table.date if options.check else datetime.now(UTC).date().isoformat()
    imported = import_prices(date)
    made = format_prices(BuiltInPrices(imported.table, imported.hosts))
    if options.check:
        if made != committed:
            sys.stderr.write(f"{out} is not what {imported.table.version} gives: run the command without --check\n")
            return 1
        return 0
    out.write_bytes(made)
    sys.stdout.write(f"{out}: {imported.table.version}, {len(imported.table.lists)} lists, {len(made):,} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
