"""A full one-node Kubernetes in namespaces of its own: etcd, control plane, kubelet, containerd, kube-proxy and
CoreDNS.

`python tests/parts/node.py up` leaves one running and prints its kubeconfig; `down` removes it, whatever state it is
in. All its processes live in one PID, mount and network namespace: ending process 1 of it ends everything. Needs root
on Linux.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import node_cgroups
import node_images
import node_namespaces
import parts
from control_plane import run_kubectl, write_certificates
from debian_packages import program_path
from go_toolchain import PartsUnavailable
from kube_api import KubeApi
from node_config import (
    COMPONENT_USERS,
    CONTAINERD_SOCKET,
    DNS_READY_PORT,
    Place,
    config_files,
    first_commands,
    later_commands,
)
from node_namespaces import Namespaces, call
from part_certificates import Authority, kubeconfig
from part_process import PartFailed, Running, log_tail, start, wait_until

DEFAULT_NAME = "spendmesh"
READY_SECONDS = 180


class Node:
    """A running node. Make one with `Node.up`, find one with `Node.find`; `kubeconfig` works on the machine and in the
    node."""

    def __init__(self, namespaces: Namespaces, folder: Path, programs: Mapping[str, Path]) -> None:
        self._namespaces = namespaces
        self._started: list[Running] = []
        self._programs = programs
        self.place = Place(namespaces.name, namespaces.address, folder)
        self.kubeconfig = folder / "admin.kubeconfig"
        self.authority_file = folder / "ca.crt"

    @property
    def url(self) -> str:
        """The API server's address."""
        return self.place.url

    @property
    def api(self) -> KubeApi:
        """A client with all rights."""
        folder = self.place.folder
        return KubeApi(self.url, self.authority_file, folder / "admin.crt", folder / "admin.key")

    @property
    def host_address(self) -> str:
        """The machine's address on the veth pair: pods reach a listener of a test here."""
        return self._namespaces.host_address

    @classmethod
    def up(cls, name: str = DEFAULT_NAME, *, images: Sequence[Path] = (), with_parent: bool = False) -> Node:
        """Starts a node and returns when it can run pods, or returns the one of this name that runs. `images` are
        imported first. `with_parent`: the node ends with this process, also by kill -9. Raises PartsUnavailable or
        PartFailed with the reason."""
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", name):
            raise ValueError(
                f"{name!r} names no node: 12 lower-case letters, digits and hyphens at most, for example `spendmesh`"
            )
        programs = parts.ensure("node")
        pause = node_images.pause_image()
        with _locked(name) as folder:
            running = cls._load(folder, programs)
            if running is None:
                _remove_dead()
                _remove(name, folder)
                started: list[Running] = []
                try:
                    running = cls._start(name, folder, programs, pause, started, with_parent)
                except BaseException:
                    _remove(name, folder, keep_logs=True)
                    _collect(started)
                    raise
                running._started = started
        for image in images:
            running.import_image(image)
        return running

    @classmethod
    def find(cls, name: str = DEFAULT_NAME) -> Node | None:
        """The running node of this name, if there is one."""
        folder = _folder(name)
        programs = {program: path for program in parts.GROUPS["node"] if (path := parts.find(program))}
        return cls._load(folder, programs)

    @classmethod
    def _load(cls, folder: Path, programs: Mapping[str, Path]) -> Node | None:
        namespaces = node_namespaces.load(folder) if (folder / "ready").exists() else None
        return cls(namespaces, folder, programs) if namespaces else None

    @classmethod
    def _start(
        cls,
        name: str,
        folder: Path,
        programs: Mapping[str, Path],
        pause: Path,
        started: list[Running],
        with_parent: bool,
    ) -> Node:
        for part in ("logs", "cni", "lib", "log"):
            (folder / part).mkdir(parents=True)
        node_cgroups.create(f"spendmesh-{name}")
        namespaces, init = node_namespaces.create(name, folder, with_parent=with_parent)
        started.append(init)
        node = cls(namespaces, folder, programs)
        node._write_files()
        for label, command in first_commands(node.place, programs).items():
            started.append(node._spawn(label, command))
        wait_until(node.api.ready, "the API server is ready", READY_SECONDS, started)
        wait_until(node._containerd_answers, "containerd answers", READY_SECONDS, started)
        node.import_image(pause)
        for label, command in later_commands(node.place, programs).items():
            started.append(node._spawn(label, command))
        wait_until(node._ready, "the node is ready", READY_SECONDS, started, poll_seconds=0.2)
        (folder / "ready").touch()
        return node

    def _write_files(self) -> None:
        folder, place = self.place.folder, self.place
        authority = Authority()
        admin = write_certificates(authority, folder, [place.address])
        self.kubeconfig.write_text(kubeconfig(place.url, authority.pem, admin))
        users = {**COMPONENT_USERS, "kubelet": (f"system:node:{place.name}", ("system:nodes",))}
        for component, (user, groups) in users.items():
            text = kubeconfig(place.url, authority.pem, authority.client(user, groups))
            (folder / f"{component}.kubeconfig").write_text(text)
        for name, text in config_files(place, _snapshotter(folder)).items():
            (folder / name).write_text(text)

    def _spawn(self, label: str, command: Sequence[str]) -> Running:
        return start(
            label,
            [*self.enter(), *command],
            self.place.folder / "logs",
            environment={"NO_PROXY": "*", "PATH": program_path()},
            with_parent=False,
        )

    def _containerd_answers(self) -> bool:
        return subprocess.run(self._ctr("version"), capture_output=True, check=False).returncode == 0

    def _ready(self) -> bool:
        nodes = self.api.call("GET", "/api/v1/nodes").get("items", [])
        ready = any(
            c["type"] == "Ready" and c["status"] == "True" for n in nodes for c in n["status"].get("conditions", [])
        )
        account = self.api.request("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200
        return ready and account and self._names_resolve()

    def _names_resolve(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{self.place.address}:{DNS_READY_PORT}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _ctr(self, *arguments: str) -> list[str]:
        return [*self.enter(), "ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments]

    def enter(self, *, network_only: bool = False) -> list[str]:
        """The words to put before a command that is to run in the node: all its namespaces, or its network with the
        machine's files."""
        return self._namespaces.enter(network_only=network_only)

    def run(
        self, *command: str, stdin: str | None = None, check: bool = True, timeout_seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of the machine in the node's network, where pods and Services have their addresses."""
        words = [*self.enter(network_only=True), *command]
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=timeout_seconds)
        if check and done.returncode != 0:
            raise PartFailed(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}".strip())
        return done

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as the administrator. Raises PartFailed with its stderr if `check` and it failed."""
        return run_kubectl(self._programs["kubectl"], self.kubeconfig, arguments, stdin=stdin, check=check)

    def import_image(self, archive: Path) -> None:
        """Makes an image archive known to the kubelet. Use `imagePullPolicy: Never` and a tag other than `latest`."""
        call(*self._ctr("images", "import", "--no-unpack=false", str(archive)))

    def logs(self, lines: int = 20) -> str:
        """The end of every component's log."""
        logs = [log_tail(path, lines) for path in sorted((self.place.folder / "logs").glob("*.log"))]
        return "\n".join(logs)

    def down(self, *, keep_logs: bool = False) -> None:
        """Removes the node and everything it left."""
        down(self.place.name, keep_logs=keep_logs)
        _collect(self._started)


def _folder(name: str) -> Path:
    return parts.cache_home() / "node" / name


@contextmanager
def _locked(name: str) -> Iterator[Path]:
    """The folder of a node. One process at a time starts or removes nodes."""
    folder = _folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder


def _remove_dead() -> None:
    """Removes what nodes left that died without `down`: a killed test run's, for one. Call it under the lock."""
    for folder in _folder("any").parent.glob("*/"):
        if (folder / "logs").is_dir() and node_namespaces.load(folder) is None:
            _remove(folder.name, folder)


def _collect(started: Sequence[Running]) -> None:
    """Takes note of the end of processes that ended with their namespaces."""
    for running in started:
        running.process.wait(timeout=10)


def _snapshotter(folder: Path) -> str:
    """`overlayfs` where the cache's file system can carry one, else `native`, which copies."""
    return "overlayfs" if node_images.overlay_works(folder) else "native"


def _remove(name: str, folder: Path, *, keep_logs: bool = False) -> None:
    """Ends and removes whatever there is of a node, also what a crash left half made."""
    node_namespaces.end(folder)
    node_cgroups.remove(f"spendmesh-{name}")
    if keep_logs and (folder / "logs").exists():
        kept = folder.parent / "logs-of-last-failure"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder / "logs", kept)
        parts.say(f"the node's logs are kept in {kept}")
    if folder.exists():
        shutil.rmtree(folder)


def down(name: str = DEFAULT_NAME, *, keep_logs: bool = False) -> None:
    """Removes the node of this name, running or crashed; nothing happens if there is none."""
    if os.geteuid() != 0:
        raise PartsUnavailable("a node can be removed by root only")
    with _locked(name) as folder:
        _remove(name, folder, keep_logs=keep_logs)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: `up`, `down`, `status`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--name", default=DEFAULT_NAME, help="to have more than one (default: %(default)s)")
    parser.add_argument("--image", type=Path, action="append", default=[], help="an image archive to import")
    options = parser.parse_args(arguments)
    try:
        if options.command == "down":
            down(options.name)
            return 0
        started = time.monotonic()
        node = Node.find(options.name) if options.command == "status" else Node.up(options.name, images=options.image)
    except (PartsUnavailable, PartFailed, ValueError) as failed:
        print(f"node: {failed}", file=sys.stderr)
        return 1
    if node is None:
        print(f"node: no node {options.name} is running; start one with `up`", file=sys.stderr)
        return 1
    if options.command == "up":
        parts.say(f"the node {options.name} is up after {time.monotonic() - started:.1f} s")
        parts.say(f"in its network: {' '.join(node.enter(network_only=True)[:-1])} COMMAND")
        parts.say(f"away with it: {sys.argv[0]} down --name {options.name}")
    print(f"export KUBECONFIG={node.kubeconfig}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
