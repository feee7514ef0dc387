"""The cgroup that holds a node's pods: made before the kubelet starts, removed after the last process ended. Versions
1 and 2."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

REMOVAL_SECONDS = 10


def hierarchies() -> list[tuple[Path, bool]]:
    """Each mounted cgroup hierarchy, and whether it is version 2."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind = after.split()[0]
        if kind in ("cgroup", "cgroup2"):
            found.append((Path(before.split()[4]), kind == "cgroup2"))
    return found


def create(name: str) -> None:
    """Makes the cgroup `name` in every hierarchy, with the controllers that the kubelet asks for."""
    for root, is_version_2 in hierarchies():
        if is_version_2:
            for controller in (root / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):  # one that cannot be turned on is one the kubelet does not ask for
                    (root / "cgroup.subtree_control").write_text(f"+{controller}")
        group = root / name
        group.mkdir(exist_ok=True)
        if not is_version_2:
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (root / setting).exists():
                    (group / setting).write_text((root / setting).read_text())


def remove(name: str) -> None:
    """Removes the cgroup and all below it. The kernel refuses while a process is still ending: tries for ten
    seconds."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    for root, _ in hierarchies():
        while (group := root / name).exists():
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if not group.exists():
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"{group} still holds processes: {(group / 'cgroup.procs').read_text().split()}")
            time.sleep(0.05)
