"""`python -m spendmesh_sidecar`: read the settings, run one sidecar until SIGTERM."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys

import uvloop

from spendmesh_sidecar.process import Sidecar
from spendmesh_sidecar.settings import SettingsError, from_environ


async def run() -> None:
    """Serve until SIGTERM or SIGINT. A native sidecar is told to end after the application has ended."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sidecar = await Sidecar.start(from_environ(os.environ))
    listening = {"listen": str(sidecar.address), "admin": str(sidecar.admin_address)}
    sys.stdout.write(json.dumps(listening) + "\n")  # for whoever started it on port 0
    sys.stdout.flush()
    await stop.wait()
    await sidecar.stop()


def main() -> int:
    """Exit status 0 after a clean stop, 2 for settings it cannot start with."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        uvloop.run(run())
    except SettingsError as error:
        logging.getLogger("spendmesh").error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
