"""`python -m spendmesh_operator`: one replica of the operator, until it is asked to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from spendmesh_operator import settings as operator_settings
from spendmesh_operator.clock import SystemClock
from spendmesh_operator.kube.client import KubeUnavailable
from spendmesh_operator.kube.informer import InformerStopped
from spendmesh_operator.logs import configure_logging
from spendmesh_operator.runtime import serve

log = logging.getLogger("spendmesh_operator")


async def _run(settings: operator_settings.Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, SystemClock(), stop)


def main() -> int:
    """Exit status 0 after SIGTERM, 1 when a part failed (kubelet starts it anew), 2 for settings that make no sense."""
    try:
        settings = operator_settings.from_environ(os.environ)
    except operator_settings.SettingsError as error:
        print(f"spendmesh_operator: {error}", file=sys.stderr)  # noqa: T201  before there is a log
        return 2
    configure_logging(settings.log_level)
    try:
        asyncio.run(_run(settings))
    except (KubeUnavailable, InformerStopped) as error:
        log.error("ended: %s (%r)", error, error.__cause__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
