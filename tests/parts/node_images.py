"""Container images made without a registry: pause, a Python base, and builds of a Dockerfile on it. All cached by
content."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from debian_packages import ensure_node_packages, program_path
from go_toolchain import PartsUnavailable
from node_config import PAUSE_IMAGE
from parts import cache_home, say

PYTHON_BASE = "spendmesh.test/python:3.11"
SUITE = "bookworm"
BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates")
# What a container never reads; a third of the base's size.
BASE_LEAVES_OUT = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
)
ARCHITECTURES: Mapping[str, str] = {"x86_64": "amd64", "aarch64": "arm64"}
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"

PAUSE_SOURCE = """
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, 0, WNOHANG) > 0) {} }

int main(void) {
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""


@contextmanager
def _locked() -> Iterator[Path]:
    """The folder of cached images, to one process at a time."""
    folder = cache_home() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder


def _run(command: Sequence[str], **environment: str) -> None:
    environment = {**os.environ, "PATH": program_path(), **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise PartsUnavailable(f"{' '.join(command[:3])} failed with exit status {done.returncode}:\n{tail}")


def _digest(*parts: str | bytes) -> str:
    total = hashlib.sha256(platform.machine().encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()[:16]


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def write_image(tree: Path, tag: str, archive: Path, config: Mapping[str, object]) -> None:
    """Writes the file tree as an image of one layer, in the form of `docker save`, into `archive` in one step."""
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".image-") as building:
        layer = Path(building) / "layer.tar"
        with tarfile.open(layer, "w") as files:
            files.add(tree, arcname=".", filter=lambda entry: None if entry.isdev() else entry)
        with layer.open("rb") as data:
            layer_digest = hashlib.file_digest(data, "sha256").hexdigest()
        image = {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        }
        encoded = json.dumps(image).encode()
        name = f"{hashlib.sha256(encoded).hexdigest()}.json"
        finished = Path(building) / "image.tar"
        with tarfile.open(finished, "w") as out:
            _add_bytes(out, name, encoded)
            out.add(layer, arcname=f"{layer_digest}/layer.tar")
            manifest = [{"Config": name, "RepoTags": [tag], "Layers": [f"{layer_digest}/layer.tar"]}]
            _add_bytes(out, "manifest.json", json.dumps(manifest).encode())
        finished.replace(archive)


def pause_image() -> Path:
    """The image that holds a pod's namespaces: one static C program."""
    with _locked() as folder:
        archive = folder / f"pause-{_digest(PAUSE_SOURCE)}.tar"
        if not archive.exists():
            with tempfile.TemporaryDirectory(dir=folder, prefix=".pause-") as building:
                source, tree = Path(building) / "pause.c", Path(building) / "tree"
                source.write_text(PAUSE_SOURCE)
                tree.mkdir()
                _run(["gcc", "-Os", "-static", "-s", "-o", str(tree / "pause"), str(source)])
                write_image(tree, PAUSE_IMAGE, archive, {"Entrypoint": ["/pause"], "User": "65535:65535"})
        return archive


def program_image(program: Path, tag: str) -> Path:
    """An image that holds one static program and starts it, for example the Collector's."""
    with _locked() as folder:
        archive = folder / f"program-{_digest(program.read_bytes(), tag)}.tar"
        if not archive.exists():
            with tempfile.TemporaryDirectory(dir=folder, prefix=".program-") as building:
                tree = Path(building) / "tree"
                tree.mkdir()
                shutil.copy2(program, tree / program.name)
                write_image(tree, tag, archive, {"Entrypoint": [f"/{program.name}"], "User": "65532:65532"})
        return archive


def python_base_image() -> Path:
    """Debian with Python 3.11 and its venv module, tagged `PYTHON_BASE`; `python` and `python3` are on PATH as in the
    official images."""
    with _locked() as folder:
        archive = folder / f"python-{_digest(SUITE, *BASE_PACKAGES, *BASE_LEAVES_OUT)}.tar"
        if not archive.exists():
            say(f"making the Python base image (Debian {SUITE}, about a minute)")
            with tempfile.TemporaryDirectory(dir=folder, prefix=".python-") as building:
                tree = Path(building) / "tree"
                include = f"--include={','.join(BASE_PACKAGES)}"
                _run(["debootstrap", "--variant=minbase", include, SUITE, str(tree)])
                for name in BASE_LEAVES_OUT:
                    shutil.rmtree(tree / name, ignore_errors=True)
                    (tree / name).mkdir(parents=True)
                (tree / "usr/local/bin/python").symlink_to("/usr/bin/python3")
                path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                write_image(tree, PYTHON_BASE, archive, {"Env": [path, "LANG=C.UTF-8"], "Cmd": ["python3"]})
        return archive


def _context_files(context: Path, include: Sequence[str]) -> list[Path]:
    """The files below `context` that `include` names, folders with all their content, in a fixed order."""
    files: set[Path] = set()
    for name in include:
        start = context / name
        if not start.exists():
            raise FileNotFoundError(f"{start} is to go into an image, and is not there")
        found = [start] if start.is_file() else [path for path in start.rglob("*") if path.is_file()]
        files.update(path for path in found if "__pycache__" not in path.parts)
    return sorted(files)


def build_image(
    dockerfile: Path | str,
    tag: str,
    *,
    context: Path | None = None,
    include: Sequence[str] = (),
    target: str = "",
    base: str = PYTHON_BASE,
    build_args: Mapping[str, str] | None = None,
) -> Path:
    """Builds an image on the local Python base and returns its archive, from the cache if nothing that goes in has
    changed.

    `dockerfile`: a file, or its text. `include`: the files and folders of `context` that the build may see. The
    Dockerfile takes its base from `ARG BASE`, and `ARG PIP_CERT` in a stage that runs pip. Raises PartsUnavailable
    with the end of the build's output.
    """
    text = dockerfile if isinstance(dockerfile, str) else dockerfile.read_text()
    base_archive = python_base_image()
    arguments = {"BASE": base, **(build_args or {})}
    files = _context_files(context, include) if context else []
    contents = [part for path in files for part in (str(path.relative_to(context or path)), path.read_bytes())]
    key = _digest(text, tag, target, base_archive.name, json.dumps(arguments, sort_keys=True), *contents)
    with _locked() as folder:
        archive = folder / f"built-{key}.tar"
        if archive.exists():
            archive.touch()
            return archive
    # Without the lock: a build mostly waits for downloads, and others go on beside it.
    say(f"building the image {tag}")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".build-") as building:
        seen = Path(building) / "context"
        seen.mkdir()
        for path in files:
            copy = seen / path.relative_to(context or path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
        (Path(building) / "Dockerfile").write_text(text)
        _buildah(Path(building), base_archive, tag, target, arguments)
        (Path(building) / "image.tar").replace(archive)
    with _locked():
        _forget_old(folder)
    return archive


def _buildah(building: Path, base_archive: Path, tag: str, target: str, arguments: Mapping[str, str]) -> None:
    """One build in a storage of its own, which goes with it. chroot isolation needs no more than root; an overlay
    spares a copy of the whole tree for each step (15 s instead of 80 for an image of 250 MB)."""
    driver = "overlay" if overlay_works(building) else "vfs"
    root = building / "storage"
    storage = ["--root", str(root), "--runroot", str(building / "run"), "--storage-driver", driver]
    command = ["buildah", *storage, "bud", "--isolation=chroot", "--network=host", "--pull-never", "-t", tag]
    command += ["-f", str(building / "Dockerfile")]
    if target:
        command += ["--target", target]
    if os.environ.get("PIP_CERT"):  # behind a proxy that reads along, pip has to trust what this machine trusts
        arguments = {**arguments, "PIP_CERT": CA_BUNDLE}
        command += ["-v", f"{CA_BUNDLE}:{CA_BUNDLE}:ro"]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    settings = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(building)}
    try:
        _run(["buildah", *storage, "pull", "-q", f"docker-archive:{base_archive}"], **settings)
        _run([*command, str(building / "context")], **settings)
        _run(["buildah", *storage, "push", "-q", tag, f"docker-archive:{building / 'image.tar'}:{tag}"], **settings)
    finally:
        for merged in root.glob("overlay/*/merged"):  # a build that failed leaves its containers mounted
            if merged.is_mount():
                _run(["umount", str(merged)])


def overlay_works(folder: Path) -> bool:
    """Whether the folder's file system can carry an overlay (another overlay cannot)."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".overlay-") as probe:
        lower, upper, work, merged = (Path(probe) / name for name in ("lower", "upper", "work", "merged"))
        for path in (lower, upper, work, merged):
            path.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            return False
        _run(["umount", str(merged)])
        return True


def _forget_old(folder: Path, keep: int = 8) -> None:
    """Keeps the builds used last: each is a few hundred megabytes."""
    builds = sorted(folder.glob("built-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for archive in builds[keep:]:
        archive.unlink()


def main() -> int:
    """Makes the images that need no Dockerfile and prints where they are."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    try:
        ensure_node_packages(say)
        print(pause_image())
        print(python_base_image())
    except PartsUnavailable as unavailable:
        print(f"parts: {unavailable}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
