"""
LiteLLM for tests that have it as a client: a folder of the cache with it and all that it needs.

Apart from the environment of the other tests, because it weighs 300 MB and wants another major version of the openai
SDK than the one that we test with. Versions and hashes are in `litellm.txt`, which `make lock` writes.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from go_toolchain import HERE, PartsUnavailable, Progress

PINS = HERE / "litellm.txt"


def library(cache: Path) -> Path:
    """Where its packages are, or will be: another pin or another Python is another folder."""
    pinned = hashlib.sha256(f"{sys.version_info[:2]} {sys.platform} {PINS.read_text()}".encode()).hexdigest()[:12]
    return cache / f"litellm-{pinned}"


def ensure_litellm(cache: Path, progress: Progress) -> Path:
    """Install it if it is not there. Call it under a lock of the cache. Raises PartsUnavailable with pip's reason."""
    home = library(cache)
    if home.exists():
        return home
    progress(f"installing LiteLLM into {home}; this takes about a minute")
    with tempfile.TemporaryDirectory(prefix=".litellm-", dir=cache) as building:
        target = Path(building) / "packages"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--only-binary=:all:", "--require-hashes", "--target", str(target), "-r", str(PINS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
            raise PartsUnavailable(f"LiteLLM could not be installed; mend pip:\n{tail}")
        target.rename(home)
    return home


def python(home: Path) -> tuple[list[str], dict[str, str]]:
    """The command of an interpreter that sees these packages and no others, and its environment."""
    return [sys.executable, "-S"], {"PYTHONPATH": str(home), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
