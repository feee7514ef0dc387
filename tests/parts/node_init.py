"""Process 1 of a node's namespaces: arranges its mounts, then collects orphans until it is told to stop.

When it ends the kernel ends every process of the node and drops its mounts and its network: nothing else has to clean
up. Run by node.py under `unshare --mount --net --pid`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


def arrange(folder: Path) -> None:
    """Gives the node its own /run, /var/lib and /var/log, shared among its processes and hidden from the machine."""
    for own, shown in (("lib", "/var/lib"), ("log", "/var/log")):
        (folder / own).mkdir(exist_ok=True)
        _call("mount", "--bind", str(folder / own), shown)
    _call("mount", "-t", "tmpfs", "-o", "mode=755,size=256m", "tmpfs", "/run")
    # The kubelet hands mounts on to containers; the machine's own mounts were made private by `unshare`.
    _call("mount", "--make-rshared", "/")
    _call("ip", "link", "set", "lo", "up")
    for setting in ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet"):
        Path("/proc/sys", setting).write_text("1")


def _call(*command: str) -> None:
    subprocess.run(command, check=True)


def main() -> int:
    """Arranges, writes `init-ready`, waits."""
    folder = Path(sys.argv[1])
    watched = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    arrange(folder)
    (folder / "init-ready").touch()
    while signal.sigwait(watched) == signal.SIGCHLD:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue
    return 0


if __name__ == "__main__":
    sys.exit(main())
