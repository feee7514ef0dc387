"""`spendmesh report`: what budgets have spent, from the control server, as a table, JSON or CSV."""

from __future__ import annotations

import argparse
import asyncio
import csv
import sys
from decimal import ROUND_UP, Decimal
from typing import TextIO

import msgspec

from spendmesh_cli.control_access import ControlError, access_of, add_options, ask
from spendmesh_operator.control.people import PATH_BILL, BillQuery
from spendmesh_operator.status.bill import Bill, BillLine

_TEXT = ("budget", "limit", "per", "mode", "unit", "currency", "period", "period_start", "resets_at", "stage")
_HEADER = (
    *("BUDGET", "LIMIT", "PERIOD", "SPENT", "HELD", "OF", "UNIT", "USED", "FORECAST", "STAGE", "MODE", "RESETS"),
)
_NUMBERS = frozenset({"SPENT", "HELD", "OF", "USED", "FORECAST"})
_SUMS = ("amount", "used", "held", "quarantined", "remaining", "percent", "forecast", "holder_count")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("report", help="what budgets have spent", description=__doc__)
    add = parser.add_argument
    add("budget", nargs="?", default="", help="one budget, NAMESPACE/NAME, or NAME with -n; default: all")
    add("-n", "--namespace", default="", help="budgets of this namespace; default: all namespaces")
    add("-o", "--output", choices=("table", "json", "csv"), default="table", help="form (%(default)s)")
    add_options(parser)
    parser.set_defaults(run=_command)


def _command(options: argparse.Namespace) -> int:
    try:
        bill = asyncio.run(ask(access_of(options), PATH_BILL, query_of(options.budget, options.namespace), Bill))
    except ControlError as error:
        sys.stderr.write(f"spendmesh report: {error}\n")
        return 2
    write(bill, options.output, sys.stdout)
    return 0


def query_of(budget: str, namespace: str) -> BillQuery:
    """Which budgets are meant. Raises ControlError."""
    first, slash, rest = budget.partition("/")
    if slash and namespace not in ("", first):
        raise ControlError(f"{budget} is not in namespace {namespace}: leave -n out")
    if budget and not slash and not namespace:
        raise ControlError(f"in which namespace is {budget}? Write NAMESPACE/{budget}, or add -n NAMESPACE")
    return BillQuery(namespace=first if slash else namespace, name=rest if slash else budget)


def write(bill: Bill, form: str, out: TextIO) -> None:
    """The bill in one of the forms; JSON and CSV are exact, the table rounds money up to cents or smaller."""
    if form == "json":
        out.write(msgspec.json.format(msgspec.json.encode(bill)).decode() + "\n")
    elif form == "csv":
        rows = csv.writer(out)
        rows.writerow((*_TEXT, *_SUMS))
        for line in bill.lines:
            rows.writerow([_cell(line, name) for name in (*_TEXT, *_SUMS)])
    else:
        out.writelines(line + "\n" for line in _table(bill))


def _cell(line: BillLine, name: str) -> str:
    value = getattr(line, name)
    return "/".join(value) if isinstance(value, tuple) else str(value)


def _table(bill: Bill) -> list[str]:
    """Aligned columns as kubectl prints them; numbers to the right."""
    rows = [_HEADER, *(_row(line) for line in bill.lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = []
    for row in rows:
        cells = (
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(_HEADER, row, widths, strict=True)
        )
        shown.append("   ".join(cells).rstrip())
    return [*shown, f"as of {bill.at}"]


def _row(line: BillLine) -> tuple[str, ...]:
    name = "/".join((line.limit, *line.per))
    forecast = rounded(line.forecast, line) if line.forecast else "-"
    return (
        *(line.budget, name, line.period, rounded(line.used, line), rounded(line.held, line), line.amount),
        *(line.currency or line.unit, f"{line.percent}%", forecast, line.stage, line.mode, line.resets_at),
    )


def rounded(amount: str, line: BillLine) -> str:
    """Money rounded up to as many decimals as a percent of the limit needs; counts as they are."""
    if line.unit != "Cost":
        return amount
    limit = Decimal(line.amount)
    decimals = next((count for count in (2, 4, 6, 9) if limit * 10**count >= 100), 9)
    return str(Decimal(amount).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_UP))
