"""Child processes that say when they are ready, and end when asked. Their output goes to a log file each."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

READY_SECONDS = 20.0
STOP_SECONDS = 12.0


class ChildFailed(RuntimeError):
    """A process ended or stayed silent before it was ready; the message has the end of its log."""


class Child:
    """One `python -m MODULE` of ours."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(
        cls, name: str, module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start it with its error output in `log`; its standard output is read for one line of JSON."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *arguments,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(environment or {})},
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def ready(self) -> dict[str, object]:
        """The JSON line that the process prints when it serves. Raises ChildFailed."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line:
            await self.stop()
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise ChildFailed(f"{self.name} did not start:\n{tail}")
        decoded: dict[str, object] = json.loads(line)
        return decoded

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL for one that does not end."""
        if self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
