"""The configuration of a one-node Kubernetes, as text and command lines. Writes nothing, starts nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from control_plane import SERVICE_ADDRESSES, apiserver_command, etcd_command

POD_ADDRESSES = "10.244.0.0/24"
CLUSTER_DOMAIN = "cluster.local"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CONTAINERD_COMMAND = ("containerd", "--config")
PAUSE_IMAGE = "spendmesh.test/pause:1"
API_PORT = 6443
DNS_READY_PORT = 8181
ETCD_URL, ETCD_PEER_URL = "http://127.0.0.1:2379", "http://127.0.0.1:2380"


@dataclass(frozen=True)
class Place:
    """Where a node lives: its name, its address inside its network namespace, its files."""

    name: str
    address: str
    folder: Path

    @property
    def cgroup(self) -> str:
        """The cgroup under which the kubelet keeps its pods, so that it meets no other kubelet's."""
        return f"spendmesh-{self.name}"

    @property
    def url(self) -> str:
        """The API server, from inside and from the machine around it."""
        return f"https://{self.address}:{API_PORT}"


def containerd_config(place: Place, snapshotter: str) -> str:
    """containerd for the node alone. `restrict_oom_score_adj`: without CAP_SYS_RESOURCE no pod would start
    otherwise."""
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{place.folder}/cni"
"""


def cni_config() -> str:
    """A routed pair of interfaces for each pod. Unlike a bridge it needs no br_netfilter for Services between pods."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_ADDRESSES}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/var/lib/cni/networks",
    }
    plugins = [
        {"type": "ptp", "ipMasq": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins})


def kubelet_config(place: Place) -> str:
    """The kubelet's, for cgroup v1 and v2, with limits low enough for a small shared machine. JSON is YAML too."""
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": place.address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{place.folder}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{place.cgroup}",
            "clusterDNS": [place.address],
            "clusterDomain": CLUSTER_DOMAIN,
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "failCgroupV1": False,
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "localStorageCapacityIsolation": False,
            "oomScoreAdj": 0,
            "resolvConf": f"{place.folder}/resolv.conf",
            "shutdownGracePeriod": "0s",
        }
    )


def kube_proxy_config(place: Place) -> str:
    """kube-proxy's: it leaves the conntrack limits alone, which belong to the machine."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": POD_ADDRESSES,
            "clientConnection": {"kubeconfig": f"{place.folder}/kube-proxy.kubeconfig"},
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
            "hostnameOverride": place.name,
            "oomScoreAdj": 0,
        }
    )


def corefile(place: Place) -> str:
    """CoreDNS on the node's address: names of the cluster and no others."""
    return f"""{CLUSTER_DOMAIN}:53 in-addr.arpa:53 {{
    bind {place.address}
    errors
    ready {place.address}:{DNS_READY_PORT}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{
        kubeconfig {place.folder}/coredns.kubeconfig
        ttl 1
    }}
}}
.:53 {{
    bind {place.address}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


# Who each component is to the API server: Kubernetes comes with the roles of all but CoreDNS.
COMPONENT_USERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
    "kube-proxy": ("system:kube-proxy", ()),
    "coredns": ("spendmesh-test-dns", ("system:masters",)),
}


def config_files(place: Place, snapshotter: str) -> dict[str, str]:
    """Every configuration file of the node, by its path below `place.folder`."""
    return {
        "containerd.toml": containerd_config(place, snapshotter),
        "cni/10-pods.conflist": cni_config(),
        "kubelet.yaml": kubelet_config(place),
        "kube-proxy.yaml": kube_proxy_config(place),
        "Corefile": corefile(place),
        "resolv.conf": f"nameserver {place.address}\n",
    }


def first_commands(place: Place, programs: Mapping[str, Path]) -> dict[str, list[str]]:
    """What starts at once: etcd, the API server, containerd."""
    apiserver = apiserver_command(programs["kube-apiserver"], place.folder, ETCD_URL, place.address, API_PORT)
    return {
        "etcd": etcd_command(programs["etcd"], place.folder / "etcd", ETCD_URL, ETCD_PEER_URL),
        "kube-apiserver": [
            *apiserver,
            f"--kubelet-client-certificate={place.folder}/admin.crt",
            f"--kubelet-client-key={place.folder}/admin.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--enable-admission-plugins=NodeRestriction",
        ],
        "containerd": [*CONTAINERD_COMMAND, f"{place.folder}/containerd.toml"],
    }


def later_commands(place: Place, programs: Mapping[str, Path]) -> dict[str, list[str]]:
    """What starts when the API server answers. One of each, so nobody elects a leader."""
    folder = place.folder
    return {
        "kube-controller-manager": [
            str(programs["kube-controller-manager"]),
            f"--kubeconfig={folder}/kube-controller-manager.kubeconfig",
            f"--service-account-private-key-file={folder}/service-account.key",
            f"--root-ca-file={folder}/ca.crt",
            f"--cluster-signing-cert-file={folder}/ca.crt",
            f"--cluster-signing-key-file={folder}/ca.key",
            f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
            "--use-service-account-credentials=true",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ],
        "kube-scheduler": [
            str(programs["kube-scheduler"]),
            f"--kubeconfig={folder}/kube-scheduler.kubeconfig",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ],
        "kubelet": [
            str(programs["kubelet"]),
            f"--config={folder}/kubelet.yaml",
            f"--kubeconfig={folder}/kubelet.kubeconfig",
            f"--hostname-override={place.name}",
            f"--node-ip={place.address}",
        ],
        "kube-proxy": [str(programs["kube-proxy"]), f"--config={folder}/kube-proxy.yaml"],
        "coredns": [str(programs["coredns"]), "-conf", f"{folder}/Corefile"],
    }
