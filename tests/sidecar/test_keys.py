"""Keys from mounted Secrets: read again when the kubelet has swapped them, and only what lies in the folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spendmesh_sidecar.keys import LOOK_AGAIN_SECONDS, FileKeys


def rotate(path: Path, key: str) -> None:
    """As the kubelet does: another file in the place of the old one."""
    fresh = path.with_suffix(".new")
    fresh.write_text(key, encoding="utf-8")
    later = path.stat().st_mtime_ns + 1 if path.exists() else fresh.stat().st_mtime_ns
    os.utime(fresh, ns=(later, later))
    fresh.replace(path)


def test_a_rotated_key_acts_without_a_restart_and_a_removed_one_is_gone(tmp_path: Path) -> None:
    now = 0.0
    keys = FileKeys(tmp_path, lambda: now)
    assert keys.get("openai") is None
    rotate(tmp_path / "openai", "first\n")
    assert keys.get("openai") == "first"
    rotate(tmp_path / "openai", "second")
    now += LOOK_AGAIN_SECONDS
    assert keys.get("openai") == "second"
    (tmp_path / "openai").unlink()
    now += LOOK_AGAIN_SECONDS
    assert keys.get("openai") is None


@pytest.mark.parametrize("name", ["", "../outside", ".hidden", "a/b", "/etc/hostname"])
def test_a_name_with_a_path_in_it_finds_nothing(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    for path in (tmp_path / "outside", folder / ".hidden"):
        path.write_text("secret", encoding="utf-8")
    assert FileKeys(folder, lambda: 0.0).get(name) is None


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xff\xfe"])
def test_a_file_without_a_readable_key_is_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "openai").write_bytes(content)
    assert FileKeys(tmp_path, lambda: 0.0).get("openai") is None
