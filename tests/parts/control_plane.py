"""A real control plane on loopback: etcd and kube-apiserver. No controllers, no scheduler, no node: a test plays those
parts."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from kube_api import KubeApi
from part_certificates import Authority, KeyPair, key_pem, kubeconfig, new_key, public_pem
from part_process import PartFailed, Running, free_port, start, stopping, wait_until

SERVICE_ADDRESSES = "10.96.0.0/16"
START_ATTEMPTS = 3  # somebody else may take a free port between our look and our bind


def etcd_command(etcd: Path, data: Path, client_url: str, peer_url: str, *, fsync: bool = False) -> list[str]:
    """etcd that never waits for the disk, unless told to: a test cluster need not outlive a power cut."""
    return [
        str(etcd),
        "--name=test",
        f"--data-dir={data}",
        *([] if fsync else ["--unsafe-no-fsync"]),
        f"--listen-client-urls={client_url}",
        f"--advertise-client-urls={client_url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=test={peer_url}",
        "--log-level=warn",
    ]


def apiserver_command(apiserver: Path, certificates: Path, etcd_url: str, address: str, port: int) -> list[str]:
    """kube-apiserver with RBAC, service-account tokens and client certificates; the files are those of
    `write_certificates`."""
    return [
        str(apiserver),
        f"--etcd-servers={etcd_url}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        f"--cert-dir={certificates}",
        f"--tls-cert-file={certificates}/apiserver.crt",
        f"--tls-private-key-file={certificates}/apiserver.key",
        f"--client-ca-file={certificates}/ca.crt",
        "--authorization-mode=Node,RBAC",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={certificates}/service-account.pub",
        f"--service-account-signing-key-file={certificates}/service-account.key",
        f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
        "--allow-privileged=true",
    ]


def write_certificates(authority: Authority, folder: Path, addresses: Sequence[str]) -> KeyPair:
    """Everything `apiserver_command` reads, and the pair of a cluster administrator (`admin.crt`, `admin.key`), which
    it returns."""
    authority.save(folder)
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ]
    authority.server([*names, "127.0.0.1", "10.96.0.1", *addresses]).write(folder, "apiserver")
    key = new_key()
    KeyPair(public_pem(key), key_pem(key)).write(folder, "service-account")
    (folder / "service-account.crt").rename(folder / "service-account.pub")
    admin = authority.client("spendmesh-test-admin", ["system:masters"])
    admin.write(folder, "admin")
    return admin


def run_kubectl(
    kubectl: Path, config: Path, arguments: Sequence[str], *, stdin: str | None, check: bool, prefix: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs kubectl with its own cache beside the kubeconfig. Raises PartFailed with its stderr if `check` and it
    failed."""
    environment = {**os.environ, "KUBECACHEDIR": str(config.parent / "kubectl-cache"), "NO_PROXY": "*"}
    done = subprocess.run(
        [*prefix, str(kubectl), f"--kubeconfig={config}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=300,
    )
    if check and done.returncode != 0:
        raise PartFailed(f"kubectl {' '.join(arguments)}: exit status {done.returncode}\n{done.stderr.strip()}")
    return done


class ControlPlane:
    """A control plane for the length of a `with` block.

    `url` and `authority_file` say how to reach it, `kubeconfig` is its administrator's, `api` a client with the same
    rights, `folder` holds its files and logs. Nothing creates the ServiceAccount `default` of a new namespace, as a
    controller would: use `create_namespace` where pods are to be created.
    """

    def __init__(self, programs: Mapping[str, Path], *, keep_files: bool = False, fsync: bool = False) -> None:
        """`programs`: the paths of etcd, kube-apiserver and kubectl, from `parts.ensure("control-plane")`. `fsync`:
        whether etcd waits for the disk."""
        self._programs = programs
        self._running: list[Running] = []
        self._users = 0
        self._fsync = fsync
        self.keep_files = keep_files
        self.folder = Path(tempfile.mkdtemp(prefix="spendmesh-control-plane-"))
        self._authority = Authority()
        self.authority_file = self.folder / "ca.crt"
        self.kubeconfig = self.folder / "admin.kubeconfig"
        self.url = ""
        self.api: KubeApi

    def __enter__(self) -> ControlPlane:
        admin = write_certificates(self._authority, self.folder, [])
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start(admin)
                break
            except PartFailed as failed:
                if attempt == START_ATTEMPTS or "address already in use" not in str(failed):
                    raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, admin: KeyPair) -> None:
        etcd_url, peer_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        self.kubeconfig.write_text(kubeconfig(self.url, self._authority.pem, admin))
        self.api = KubeApi(self.url, self.authority_file, self.folder / "admin.crt", self.folder / "admin.key")
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)
        with stopping([]) as started:
            data = self.folder / "etcd"
            command = etcd_command(self._programs["etcd"], data, etcd_url, peer_url, fsync=self._fsync)
            started.append(start("etcd", command, self.folder))
            apiserver = self._programs["kube-apiserver"]
            command = apiserver_command(apiserver, self.folder, etcd_url, "127.0.0.1", port)
            # Endpoints of the Service `kubernetes` may not be loopback addresses; nobody in a control plane alone uses
            # them.
            started.append(start("kube-apiserver", [*command, "--endpoint-reconciler-type=none"], self.folder))
            wait_until(self.api.ready, "the API server is ready", 120, started)
        self._running = started

    def stop(self) -> None:
        """Stops both programs and removes their files; with `keep_files` only etcd's data, 64 MB at least."""
        for running in reversed(self._running):
            running.stop()
        self._running = []
        shutil.rmtree(self.folder if not self.keep_files else self.folder / "etcd", ignore_errors=True)

    def logs(self, lines: int = 30) -> str:
        """The end of both logs."""
        return "\n".join(running.tail(lines) for running in self._running)

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs kubectl, as the administrator or with another kubeconfig. Raises PartFailed with its stderr if `check`
        and it failed."""
        config = kubeconfig or self.kubeconfig
        return run_kubectl(self._programs["kubectl"], config, arguments, stdin=stdin, check=check)

    def forget_discovery(self) -> None:
        """kubectl keeps for hours which kinds there are, and takes a short name that came later for a mistake."""
        shutil.rmtree(self.folder / "kubectl-cache", ignore_errors=True)

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for any user in any groups, by client certificate. RBAC decides what it may do: nothing, to
        begin with."""
        return self._write_kubeconfig(self._authority.client(user, groups))

    def kubeconfig_with_token(self, token: str) -> Path:
        """A kubeconfig for the bearer of a token, for example one of `token()`."""
        return self._write_kubeconfig(token)

    def _write_kubeconfig(self, user: KeyPair | str) -> Path:
        self._users += 1
        path = self.folder / f"user-{self._users}.kubeconfig"
        path.write_text(kubeconfig(self.url, self._authority.pem, user))
        return path

    def token(
        self,
        namespace: str,
        service_account: str,
        audience: str = "",
        *,
        pod: tuple[str, str] | None = None,
        expiration_seconds: int = 3600,
    ) -> str:
        """A ServiceAccount token by TokenRequest, as the kubelet gets it; see `KubeApi.token`."""
        return self.api.token(namespace, service_account, audience, pod=pod, expiration_seconds=expiration_seconds)

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """A namespace with the ServiceAccount `default`, without which the API server refuses pods."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.api.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        self.api.call("POST", f"/api/v1/namespaces/{name}/serviceaccounts", account)
