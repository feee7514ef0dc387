"""A cluster as the tests use it: kubectl, Helm, plain HTTP to pods and Services through the API server, images.

The real node of `tests/parts`, or whatever `KUBECONFIG` names. Knows nothing of Spendmesh.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import parts
from control_plane import run_kubectl
from go_toolchain import PartsUnavailable
from node import Node
from node_config import CONTAINERD_SOCKET
from part_process import PartFailed, Running, start, wait_until

Json = dict[str, Any]
LOAD_VARIABLE = "SPENDMESH_IMAGE_LOAD"
PROXY_SECONDS = 60


class Cluster:
    """One cluster, as its administrator. Close it when done."""

    def __init__(self, kubectl: Path, helm: Path, kubeconfig: Path, node: Node | None) -> None:
        self.kubectl_program, self._helm = kubectl, helm
        self.kubeconfig = kubeconfig
        self.node = node
        self._folder = Path(tempfile.mkdtemp(prefix="spendmesh-cluster-"))
        self._proxy, self._port = self._start_proxy()

    @classmethod
    def of_node(cls, node: Node) -> Cluster:
        """The real node."""
        programs = parts.ensure("node", "helm")
        return cls(programs["kubectl"], programs["helm"], node.kubeconfig, node)

    @classmethod
    def of_user(cls, kubeconfig: Path) -> Cluster:
        """The cluster of a kubeconfig. Raises PartsUnavailable if a tool is missing or it would take no images."""
        node = Node.find(kubeconfig.parent.name)
        if node is not None and node.kubeconfig != kubeconfig:
            node = None
        if node is None and not os.environ.get(LOAD_VARIABLE):
            raise PartsUnavailable(
                f"KUBECONFIG names a cluster of yours, and {LOAD_VARIABLE} does not say how images get there: set it "
                "to a command that takes an archive, for example `kind load image-archive`, or unset KUBECONFIG"
            )
        found = [shutil.which(name) or parts.find(name) for name in ("kubectl", "helm")]
        if not all(found):
            raise PartsUnavailable("kubectl and helm must be on PATH to use the cluster of KUBECONFIG")
        return cls(Path(str(found[0])), Path(str(found[1])), kubeconfig, node)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._proxy.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- tools --------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl prints. Raises PartFailed with its stderr; without `check`, stderr is part of the answer."""
        done = run_kubectl(self.kubectl_program, self.kubeconfig, arguments, stdin=stdin, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def get(self, *arguments: str) -> Json:
        """An object or a list, decoded."""
        decoded: Json = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return decoded

    def apply(self, manifest: str, namespace: str = "") -> str:
        """kubectl apply."""
        where = ("-n", namespace) if namespace else ()
        return self.kubectl(*where, "apply", "-f", "-", stdin=manifest)

    def wait(self, condition: str, *what: str, timeout_seconds: int = 60) -> None:
        """kubectl wait, for a condition or a jsonpath. Raises PartFailed when the time is over."""
        self.kubectl("wait", f"--for={condition}", *what, f"--timeout={timeout_seconds}s")

    def helm(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Helm with a home of its own. Raises PartFailed with all it said."""
        homes = {f"HELM_{name}_HOME": str(self._folder / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        done = subprocess.run(
            [str(self._helm), f"--kubeconfig={self.kubeconfig}", *arguments],
            env={**os.environ, **homes, "NO_PROXY": "*"},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if check and done.returncode != 0:
            raise PartFailed(
                f"helm {' '.join(arguments[:2])}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def load_image(self, archive: Path) -> None:
        """Makes an image archive known to the cluster's nodes, once."""
        if self.node is None:
            command = [*shlex.split(os.environ[LOAD_VARIABLE]), str(archive)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode != 0:
                raise PartFailed(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
            return
        loaded = self.node.place.folder / f"loaded-{archive.stem}"
        if not loaded.exists():
            self.node.import_image(archive)
            loaded.touch()

    # --- pods and Services over HTTP ----------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: object = None, timeout_seconds: float = PROXY_SECONDS
    ) -> tuple[int, str]:
        """One request to the API server with the administrator's rights: HTTP status and text."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=timeout_seconds)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def ask(self, method: str, address: str, path: str, body: object = None) -> str:
        """The text that a pod or Service answers. `address`: `pods/NAMESPACE/NAME:PORT` or `services/...`."""
        kind, namespace, name = address.split("/")
        status, text = self.request(method, f"/api/v1/namespaces/{namespace}/{kind}/{name}/proxy{path}", body)
        if status != 200:
            raise PartFailed(f"{method} {path} of {address}: {status} {text[:2000]}")
        return text

    def ask_json(self, method: str, address: str, path: str, body: object = None) -> Any:
        """The same, decoded."""
        return json.loads(self.ask(method, address, path, body))

    # --- processes ----------------------------------------------------------------------------------------

    def kill_container(self, namespace: str, pod: str, container: str) -> None:
        """kill -9 to a container's first process, from outside. Only on the real node."""
        assert self.node is not None, "only where the node itself can be entered"
        status = self.get("pod", pod, "-n", namespace)["status"]
        statuses = [*status.get("initContainerStatuses", []), *status["containerStatuses"]]
        identifier = next(each["containerID"] for each in statuses if each["name"] == container)
        words = ["ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL"]
        done = subprocess.run(
            [*self.node.enter(), *words, identifier.removeprefix("containerd://")],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PartFailed(f"{container} of {namespace}/{pod} could not be killed: {done.stderr}")

    def _start_proxy(self) -> tuple[Running, int]:
        command: Sequence[str | Path] = [self.kubectl_program, f"--kubeconfig={self.kubeconfig}", "proxy", "--port=0"]
        running = start("kubectl-proxy", command, self._folder, environment={"NO_PROXY": "*"})

        def port() -> str:
            said = re.search(r"127\.0\.0\.1:(\d+)", running.log.read_text())
            return said[1] if said else ""

        wait_until(lambda: bool(port()), "kubectl proxy serves", 20, [running])
        return running, int(port())


def eventually(condition: Callable[[], Any], what: str, timeout_seconds: float = 30, poll_seconds: float = 0.25) -> Any:
    """The condition's value as soon as it is true. Raises AssertionError with its last value when the time is over."""
    deadline = time.monotonic() + timeout_seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout_seconds:.0f} s; last: {value!r}")
        time.sleep(poll_seconds)
    return value
