"""
The control side as a process of its own, for `demo` and `make bench`: manifests in, policy and rights out.

Prints one JSON line with its URL when it serves. At SIGTERM it leaves its accounts as JSON, if asked to.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any

from spendmesh_cli.load import load
from spendmesh_cli.watching import watch
from spendmesh_operator.clock import SystemClock
from spendmesh_operator.ledger.books.accounts import LedgerError
from spendmesh_operator.local import LocalControl, LocalPod

log = logging.getLogger("spendmesh.control")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m spendmesh_cli.control_process", description=__doc__)
    parser.add_argument("--manifests", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="folder of the books")
    parser.add_argument("--tokens", type=Path, required=True, help="JSON: token to namespace")
    parser.add_argument("--books", type=Path, help="where the accounts are written at the end")
    parser.add_argument("--port", type=int, default=0, help="loopback port; 0 takes a free one")
    parser.add_argument("--watch", action="store_true", help="take changed manifests while serving")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    asyncio.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    namespaces: dict[str, str] = json.loads(options.tokens.read_text(encoding="utf-8"))
    pods = [LocalPod(namespace, f"{namespace}-pod", token) for token, namespace in namespaces.items()]
    control = LocalControl(read_objects([options.manifests]), pods, options.state, SystemClock(), SystemRandom())
    await control.start(port=options.port)
    print(json.dumps({"url": control.url}), flush=True)

    async def changed() -> None:
        try:
            await control.update(read_objects([options.manifests]))
        except (ValueError, OSError, LedgerError) as error:
            log.error("kept the last manifests: %s", error)

    watching = asyncio.create_task(watch([options.manifests], changed)) if options.watch else None
    await stop.wait()
    if watching is not None:
        watching.cancel()
    if options.books is not None:
        options.books.write_text(json.dumps(accounts(control)), encoding="utf-8")
    await control.stop()


def read_objects(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """All readable objects; what cannot be read is logged and left out."""
    files = load(paths)
    for unreadable in files.unreadable:
        log.error("%s: %s", unreadable.place, unreadable.message)
    return [dict(loaded.raw) for loaded in files.objects]


def accounts(control: LocalControl) -> list[dict[str, Any]]:
    """Every account of a running period, amounts in the limit's unit."""
    return [
        {
            "budget": view.key.budget,
            "limit": view.limit.name,
            "unit": view.limit.unit,
            "amount": view.state.amount,
            "settled": view.state.settled,
            "charged": view.state.charged,
            "quarantined": view.quarantined,
            "overrun": view.overrun,
        }
        for view in control.coordinator.views()
    ]


if __name__ == "__main__":
    sys.exit(main())
