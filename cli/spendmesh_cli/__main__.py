"""`spendmesh`: the command line. Each command is a module with `add_parser`; this one only joins them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from spendmesh_cli import check, correct, inject, report, run
from spendmesh_cli.demo import command as demo


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the answer is no, 2 it could not be done."""
    parser = argparse.ArgumentParser(prog="spendmesh", description="A mesh for model spend.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (demo, run, check, inject, report, correct):
        command.add_parser(subparsers)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
