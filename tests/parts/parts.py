"""Finds the real programs that tests run, or builds them once into a cache; starts none of them.

`python tests/parts/parts.py ensure control-plane helm collector litellm node` makes groups ready, `... where kubectl`
prints a path. Looked for in `$KUBEBUILDER_ASSETS` (the convention of envtest), then in the cache, which is
`${SPENDMESH_CACHE:-${XDG_CACHE_HOME:-~/.cache}/spendmesh}/parts/<key>/bin`. The key is a hash of everything that
decides what a build makes, so an older tree finds its own programs again. Standard library only: this runs before
anything is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from debian_packages import ensure_node_packages
from go_toolchain import HERE, PartsUnavailable, Progress, find_go, run_go, wanted_version
from litellm_library import ensure_litellm

GO_MOD = HERE / "go.mod"
GO_SUM = HERE / "go.sum"
COLLECTOR = HERE / "collector.yaml"

GO_PACKAGES: Mapping[str, str] = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "coredns": "github.com/coredns/coredns",
    "helm": "helm.sh/helm/v4/cmd/helm",
}
GROUPS: Mapping[str, tuple[str, ...]] = {
    "control-plane": ("etcd", "kube-apiserver", "kubectl"),
    "helm": ("helm",),
    "collector": ("otelcol",),
    "litellm": (),
    "node": (
        "etcd",
        "kube-apiserver",
        "kubectl",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
        "coredns",
    ),
}


@dataclass(frozen=True)
class Cache:
    """Where built parts live: `bin` holds finished programs only, each moved there whole."""

    root: Path
    go_key: str
    collector_key: str

    def bin(self, name: str) -> Path:
        """The folder that holds the finished program `name`."""
        key = self.collector_key if name == "otelcol" else self.go_key
        return self.root / key / "bin"

    @contextlib.contextmanager
    def lock(self, name: str, progress: Progress) -> Iterator[None]:
        """Lets one process in at a time. The kernel lets go of the lock when its holder dies."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{name}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress(f"another process is making {name}; waiting for it")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield


def cache_home(environment: Mapping[str, str] = os.environ) -> Path:
    """The cache of Spendmesh's development files, by the XDG rule unless SPENDMESH_CACHE names one."""
    if named := environment.get("SPENDMESH_CACHE"):
        return Path(named).expanduser().absolute()
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "spendmesh"


def module_version(module: str) -> str:
    """The version of a Go module that go.mod requires, with its `v`: the one place where versions are written."""
    match = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", GO_MOD.read_text(), re.MULTILINE)
    if match is None:
        raise ValueError(f"go.mod requires no {module}")
    return match.group(1)


def linker_flags() -> str:
    """Strips debug data and sets the versions that clients parse: Helm refuses a server that reports none."""
    kubernetes, helm = module_version("k8s.io/kubernetes"), module_version("helm.sh/helm/v4")
    major, minor, _ = kubernetes.removeprefix("v").split(".", 2)
    values = {
        "k8s.io/component-base/version.gitVersion": kubernetes,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "helm.sh/helm/v4/internal/version.version": helm,
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])


def open_cache() -> Cache:
    """The cache for the parts as this tree pins them."""

    def key(kind: str, *texts: str) -> str:
        return f"{kind}-{hashlib.sha256(chr(0).join([platform.machine(), *texts]).encode()).hexdigest()[:12]}"

    return Cache(
        cache_home() / "parts",
        key("go", GO_MOD.read_text(), GO_SUM.read_text(), linker_flags()),
        key("collector", COLLECTOR.read_text()),
    )


def find(name: str, cache: Cache | None = None) -> Path | None:
    """The program `name` if it is there already; builds nothing."""
    places = [(cache or open_cache()).bin(name)]
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        places.insert(0, Path(assets))
    return next((place / name for place in places if os.access(place / name, os.X_OK)), None)


def say(line: str) -> None:
    """Progress goes to stderr, so that stdout carries answers only."""
    print(f"parts: {line}", file=sys.stderr, flush=True)


def ensure(*groups: str, progress: Progress = say) -> dict[str, Path]:
    """Makes the named groups ready and returns the path of each program. Raises PartsUnavailable with the reason."""
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise ValueError(f"no group {unknown[0]!r}; there are {', '.join(GROUPS)}")
    cache = open_cache()
    if "node" in groups:
        with cache.lock("debian", progress):
            ensure_node_packages(progress)
    if "litellm" in groups:
        with cache.lock("litellm", progress):
            ensure_litellm(cache.root, progress)
    names = list(dict.fromkeys(name for group in groups for name in GROUPS[group]))
    if not all(find(name, cache) for name in names):
        with cache.lock("build", progress):
            _build(cache, [name for name in names if find(name, cache) is None], progress)
    found = {name: find(name, cache) for name in names}
    return {name: path for name, path in found.items() if path is not None}


def _build(cache: Cache, names: Sequence[str], progress: Progress) -> None:
    if not names:
        return
    go = find_go(cache.root, wanted_version(GO_MOD.read_text()), progress)
    if go_names := [name for name in names if name in GO_PACKAGES]:
        with _staging(cache.bin(go_names[0])) as staging:
            progress(f"building {', '.join(go_names)} from source; the first time takes some minutes")
            packages = [GO_PACKAGES[name] for name in go_names]
            command = [
                "build",
                "-mod=readonly",
                "-trimpath",
                "-ldflags",
                linker_flags(),
                "-o",
                f"{staging}/",
                *packages,
            ]
            run_go(go, command, HERE, {}, f"go build {' '.join(go_names)}", progress)
            for name in go_names:
                (staging / _go_output_name(GO_PACKAGES[name])).replace(cache.bin(name) / name)
    if "otelcol" in names:
        with _staging(cache.bin("otelcol")) as staging:
            source = staging / "source"
            source.mkdir()
            config = staging / "collector.yaml"
            config.write_text(COLLECTOR.read_text().replace("dist:\n", f"dist:\n  output_path: {source}\n", 1))
            version = re.search(r"otlpreceiver (v\S+)", COLLECTOR.read_text())
            assert version is not None
            builder = f"go.opentelemetry.io/collector/cmd/builder@{version.group(1)}"
            run_go(go, ["run", builder, "--config", str(config)], staging, {}, "OpenTelemetry Collector", progress)
            (source / "otelcol").replace(cache.bin("otelcol") / "otelcol")


def _go_output_name(package: str) -> str:
    """The file name `go build -o folder/` chooses: the last element of the path that is no major version."""
    elements = [element for element in package.split("/") if not re.fullmatch(r"v\d+", element)]
    return elements[-1]


@contextlib.contextmanager
def _staging(destination: Path) -> Iterator[Path]:
    """A folder beside `destination`, on its file system, so that a finished program moves in one step. Sweeps up what
    a killed build left: the caller holds the lock, so nobody else is building."""
    destination.mkdir(parents=True, exist_ok=True)
    for left_over in destination.parent.glob(".building-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=destination.parent) as folder:
        yield Path(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 when everything asked for is there, 1 with the reason otherwise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    ensuring = commands.add_parser("ensure", help="find or build groups of programs")
    ensuring.add_argument("groups", nargs="+", choices=sorted(GROUPS))
    where = commands.add_parser("where", help="print the path of one program that is there")
    where.add_argument("name")
    options = parser.parse_args(arguments)
    if options.command == "where":
        path = find(options.name)
        if path is None:
            print(
                f"{options.name} is not there; run `python tests/parts/parts.py ensure` with its group", file=sys.stderr
            )
            return 1
        print(path)
        return 0
    try:
        for name, path in ensure(*options.groups).items():
            print(f"{name} {path}")
    except PartsUnavailable as unavailable:
        print(f"parts: {unavailable}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
