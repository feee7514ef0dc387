"""Starting, watching and stopping one real program; knows nothing of what the program is."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_UNRESERVED = range(16_000, 65_536)
_HANDED_OUT: set[int] = set()


class PartFailed(RuntimeError):
    """A real program stopped or did not become ready; the message carries the end of its log."""


def log_tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log, under a heading that names the file."""
    text = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
    return "\n".join([f"--- {log}", *text])


@dataclass(frozen=True)
class Running:
    """A program that we started, with its output in `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self, lines: int = 30) -> str:
        """The last lines of the log, under a heading that names the file."""
        return log_tail(self.log, lines)

    def stop(self, timeout_seconds: float = 10) -> None:
        """Asks the program to stop, and ends it if it does not within the time."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(
    name: str,
    command: Sequence[str | Path],
    logs: Path,
    *,
    environment: Mapping[str, str] | None = None,
    with_parent: bool = True,
) -> Running:
    """Starts `command` with its output in `logs/<name>.log`. `with_parent`: the kernel ends it when our thread ends,
    also by kill -9; otherwise it lives on in a session of its own."""
    words = [str(word) for word in command]
    if with_parent and (setpriv := shutil.which("setpriv")):
        words = [setpriv, "--pdeathsig", "KILL", "--", *words]
    log = logs / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    return Running(name, process, log)


def wait_until(
    condition: Callable[[], object],
    what: str,
    timeout_seconds: float,
    watched: Sequence[Running] = (),
    poll_seconds: float = 0.05,
) -> None:
    """Returns as soon as `condition` holds. Raises PartFailed when a watched program stops first, or the time is
    over."""
    deadline = time.monotonic() + timeout_seconds
    while not (seen := condition()):
        for running in watched:
            if (code := running.process.poll()) is not None:
                raise PartFailed(f"{running.name} stopped with exit status {code} before {what}\n{running.tail()}")
        if time.monotonic() > deadline:
            logs = "\n".join(running.tail() for running in watched)
            raise PartFailed(f"{what}: not within {timeout_seconds:.0f} s; last seen: {seen!r}\n{logs}")
        time.sleep(poll_seconds)


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port of the address that is free now, and out of those that the kernel gives to whoever names none: so no
    connection of another test takes it before the program that it is for has bound it."""
    first, last = map(int, _EPHEMERAL.read_text().split()) if _EPHEMERAL.exists() else (32_768, 65_535)
    others = [port for port in _UNRESERVED if not first <= port <= last]
    while True:
        port = secrets.choice(others or _UNRESERVED)
        if port not in _HANDED_OUT and _is_free(address, port):
            _HANDED_OUT.add(port)
            return port


def _is_free(address: str, port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def stopping(started: list[Running]) -> Iterator[list[Running]]:
    """Stops what is in the list, last started first, if the block fails."""
    try:
        yield started
    except BaseException:
        for running in reversed(started):
            running.stop()
        raise
