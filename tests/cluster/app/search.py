"""Looks for a secret wherever a container can look: its environment, /proc, every file. Prints where it was found.

`search.py HEX`: the bytes to look for in hex, so that the search does not find itself. What may not be read is counted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

CHUNK = 1024 * 1024
PROC_FILES = ("environ", "cmdline", "maps", "mountinfo", "stack")
LEFT_OUT = ("/proc", "/sys", "/dev")


def candidates() -> Iterator[Path]:
    """Every file of the container, and what /proc shows of every process, its root included."""
    for folder, names, files in os.walk("/"):
        names[:] = [name for name in names if str(Path(folder, name)) not in LEFT_OUT]
        yield from (Path(folder, name) for name in files)
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            yield from (process / name for name in PROC_FILES)
            for part in ("root/var/run/spendmesh", "root/var/run/secrets", "cwd"):
                yield from files_below(process / part)


def files_below(folder: Path) -> Iterator[Path]:
    """The files below a folder, if it can be entered."""
    for below, _, files in os.walk(folder):
        yield from (Path(below, name) for name in files)


def holds(path: Path, secret: bytes) -> bool:
    """Whether the file has the secret in it. Raises OSError if it cannot be read."""
    if not path.is_file():
        return False
    with path.open("rb") as data:
        tail = b""
        while chunk := data.read(CHUNK):
            if secret in tail + chunk:
                return True
            tail = chunk[-len(secret) :]
    return False


def main() -> None:
    """Search and print JSON."""
    secret = bytes.fromhex(sys.argv[1])
    found = [f"environment {name}" for name, value in os.environ.items() if secret in value.encode()]
    read = unreadable = 0
    for path in candidates():
        try:
            if holds(path, secret):
                found.append(str(path))
            read += 1
        except OSError:
            unreadable += 1
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    print(json.dumps({"found": found, "read": read, "unreadable": unreadable, "mounts": mounts}))


if __name__ == "__main__":
    main()
