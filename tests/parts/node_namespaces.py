"""The namespaces that a node lives in: made, found again, ended. Its processes, mounts and network go with process
1."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from debian_packages import program_path
from part_process import PartFailed, Running, start, wait_until

INIT = Path(__file__).resolve().parent / "node_init.py"
END_SECONDS = 20
# Pairs of addresses of one /30 network each: the node's and the machine's.
ADDRESS_PAIRS = tuple((f"172.31.255.{4 * i + 1}", f"172.31.255.{4 * i + 2}") for i in range(60))


@dataclass(frozen=True)
class Namespaces:
    """What is needed to enter a node's namespaces, kept in `state.json`. `started` guards against a process id used
    anew."""

    name: str
    init_pid: int
    started: str
    address: str
    host_address: str

    def alive(self) -> bool:
        """Whether process 1 still runs."""
        return bool(self.started) and _process_started(self.init_pid) == self.started

    def enter(self, *, network_only: bool = False) -> list[str]:
        """The words to put before a command that is to run in all namespaces, or in the network with the machine's
        files."""
        which = ["--net"] if network_only else ["--mount", "--net", "--pid"]
        return ["nsenter", f"--target={self.init_pid}", *which, "--"]


def call(*command: str) -> str:
    """The output of a command. Raises PartFailed with all it said if it failed."""
    environment = {**os.environ, "PATH": program_path()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PartFailed(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}".strip())
    return done.stdout


def load(folder: Path) -> Namespaces | None:
    """The namespaces of a node whose process 1 runs, from its folder."""
    try:
        found = Namespaces(**json.loads((folder / "state.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.alive() else None


def create(name: str, folder: Path, *, with_parent: bool) -> tuple[Namespaces, Running]:
    """Starts process 1 and joins its network to the machine's by a veth pair, which the kernel removes with the
    namespace."""
    unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command = [*unshare, sys.executable, str(INIT), str(folder)]
    environment = {"PATH": program_path()}
    init = start("init", command, folder / "logs", environment=environment, with_parent=with_parent)
    wait_until((folder / "init-ready").exists, "the node's namespaces are ready", 60, [init])
    taken = call("ip", "-4", "-o", "address")
    address, host_address = next(pair for pair in ADDRESS_PAIRS if f" {pair[1]}/" not in taken)
    init_pid = int(Path(f"/proc/{init.process.pid}/task/{init.process.pid}/children").read_text().split()[0])
    made = Namespaces(name, init_pid, _process_started(init_pid), address, host_address)
    (folder / "state.json").write_text(json.dumps(asdict(made)))
    link = f"sm-{name}"  # an interface's name has 15 characters at most, a node's has 12
    call("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(init_pid))
    call("ip", "address", "add", f"{host_address}/30", "dev", link)
    call("ip", "link", "set", link, "up")
    inside = [*made.enter(network_only=True), "ip"]
    call(*inside, "address", "add", f"{address}/30", "dev", "eth0")
    call(*inside, "link", "set", "eth0", "up")
    call(*inside, "route", "add", "default", "via", host_address)
    return made, init


def end(folder: Path) -> None:
    """Ends process 1 of the node in this folder, and with it all others. Finds it by its command line, so also one
    that a crash left before it was written down."""
    deadline = time.monotonic() + END_SECONDS
    while left := _init_processes(folder):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise PartFailed(f"processes {left} of the node in {folder} do not end")
        time.sleep(0.05)


def _init_processes(folder: Path) -> list[int]:
    wanted = [str(INIT).encode(), str(folder).encode()]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().split(b"\0")[-3:-1] == wanted and _process_started(int(process.name)):
                found.append(int(process.name))
    return found


def _process_started(pid: int) -> str:
    """When a process began, in clock ticks since boot; empty if there is none, or only what is left of one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
