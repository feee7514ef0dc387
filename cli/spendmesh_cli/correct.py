"""
`spendmesh correct`: book proof that came later, for example from a provider's invoice, once per reference.

With --pod, --amount is what that vanished pod really used: the rest of its quarantined rights is free again. Without,
--amount is added to what is spent; a negative one takes back.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from spendmesh_cli.control_access import ControlError, access_of, add_options, ask
from spendmesh_cli.report import query_of, write
from spendmesh_operator.control.people import PATH_CORRECTION, CorrectionOrder
from spendmesh_operator.status.bill import Bill


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    form = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "correct", help="book proof that came later", description=__doc__, formatter_class=form
    )
    add = parser.add_argument
    add("budget", help="NAMESPACE/NAME, or NAME with -n")
    add("limit", help="name of the limit")
    add("-n", "--namespace", default="", help="namespace of the budget")
    add("--amount", required=True, help="decimal, in the limit's unit, such as -1.25 (write --amount=-1.25)")
    add("--pod", default="", help="NAMESPACE/NAME of a vanished pod whose quarantined rights are settled")
    add("--reference", required=True, help="unique name of the proof; booked once, however often it is sent")
    add("--evidence", required=True, help="what it rests on, for whoever reads the bill")
    add_options(parser)
    parser.set_defaults(run=_command)


def _command(options: argparse.Namespace) -> int:
    try:
        query = query_of(options.budget, options.namespace)
        order = CorrectionOrder(
            namespace=query.namespace,
            name=query.name,
            limit=options.limit,
            reference=options.reference,
            evidence=options.evidence,
            amount=options.amount,
            pod=options.pod,
        )
        bill = asyncio.run(ask(access_of(options), PATH_CORRECTION, order, Bill))
    except ControlError as error:
        sys.stderr.write(f"spendmesh correct: {error}\n")
        return 2
    write(bill, "table", sys.stdout)
    return 0
