"""Notice that files changed, by looking now and then: no inotify, so that it works on every mount."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

LOOK_SECONDS = 0.5


async def watch(paths: Iterable[Path], changed: Callable[[], Awaitable[None]]) -> None:
    """Call `changed` after each change below the paths, for ever."""
    paths = list(paths)
    seen = _signature(paths)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        now = _signature(paths)
        if now != seen:
            seen = now
            await changed()


def _signature(paths: Iterable[Path]) -> frozenset[tuple[str, int, int]]:
    files = (file for path in paths for file in (path.iterdir() if path.is_dir() else [path]))
    found = set()
    for file in files:
        try:
            stat = file.stat()
        except FileNotFoundError:
            continue  # replaced at this moment; the next look sees it
        found.add((str(file), stat.st_mtime_ns, stat.st_size))
    return frozenset(found)
