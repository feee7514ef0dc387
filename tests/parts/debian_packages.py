"""The programs of a node that come from Debian: containerd, runc, CNI plugins and the tools around them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from go_toolchain import PartsUnavailable, Progress

# What shows that a package is there -> the package. A machine that has containerd from elsewhere keeps it.
NODE_PACKAGES: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "socat": "socat",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
    "sysctl": "procps",
    "debootstrap": "debootstrap",
    "buildah": "buildah",
    "gcc": "gcc",
    "libc.a": "libc6-dev",
}


def program_path() -> str:
    """PATH with the folders of administrators' programs, which not every login has: iptables, runc, debootstrap."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def missing_packages() -> list[str]:
    """The Debian packages that a node still needs."""
    search = program_path()

    def present(probe: str) -> bool:
        if probe == "libc.a":
            return any(Path("/usr/lib").glob("*/libc.a")) or Path("/usr/lib/libc.a").exists()
        return Path(probe).exists() if probe.startswith("/") else shutil.which(probe, path=search) is not None

    return [package for probe, package in NODE_PACKAGES.items() if not present(probe)]


def ensure_node_packages(progress: Progress) -> None:
    """Installs what is missing. Raises PartsUnavailable where that cannot work: not root, not Debian, or apt failed."""
    if os.geteuid() != 0:
        raise PartsUnavailable(
            "a node needs root (namespaces, mounts, cgroups); run as root, or set KUBECONFIG to a cluster"
        )
    missing = missing_packages()
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise PartsUnavailable(
            f"a node needs {', '.join(missing)}, and this is no Debian to install them on; "
            "install them, or set KUBECONFIG to a cluster"
        )
    # RUNLEVEL=1 keeps the packages' scripts from starting services: the node starts its own containerd in its own
    # folders.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    progress(f"installing Debian packages: {' '.join(missing)}")
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
            raise PartsUnavailable(
                f"{' '.join(command[:2])} failed; the machine's Debian mirror must be reachable:\n{tail}"
            )
