"""Spendmesh on a cluster, with what it needs around it: images, chart, stand-in provider, Collector, namespaces.

Used by the fixtures of this folder and by `make cluster` (`up.py`).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import yaml

import node_images
import parts
from cluster_access import Cluster, eventually
from otel_collector import CollectedSpan, collector_config, spans_of

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).resolve().parent / "app"
CHART = ROOT / "helm" / "spendmesh"
RELEASE = "spendmesh"
SYSTEM = "spendmesh-system"
MADE = "spendmesh.test/made"
APP_IMAGE = "spendmesh.test/app:1"
COLLECTOR_IMAGE = "spendmesh.test/otelcol:1"
OPERATOR_IMAGE = "spendmesh.test/operator"
SIDECAR_IMAGE = "spendmesh.test/sidecar"
IMAGE_TAG = "1"
STANDIN = "services/providers/standin:8080"
STANDIN_URL = "http://standin.providers.svc:8080"
COLLECTOR_URL = "http://collector.observability.svc:4318"
CANARY = "sk-canary-"
"""How every provider key of a run begins, so that a search can look for all of them."""

Json = dict[str, Any]

# What each image is made of, besides the Dockerfile.
SIDECAR_FILES = ("requirements/sidecar.txt", "sidecar/spendmesh_sidecar")
OPERATOR_FILES = ("requirements/operator.txt", "sidecar/spendmesh_sidecar", "operator/spendmesh_operator")
APP_FILES = ("tests/cluster/app", "cli/spendmesh_standin")


def load_images(cluster: Cluster) -> None:
    """Builds all images, or takes them from the cache where nothing has changed, and makes them known to the nodes."""
    dockerfile = ROOT / "Dockerfile"
    operator, sidecar = f"{OPERATOR_IMAGE}:{IMAGE_TAG}", f"{SIDECAR_IMAGE}:{IMAGE_TAG}"
    builds: list[Callable[[], Path]] = [
        partial(node_images.build_image, dockerfile, operator, context=ROOT, include=OPERATOR_FILES, target="operator"),
        partial(node_images.build_image, dockerfile, sidecar, context=ROOT, include=SIDECAR_FILES, target="sidecar"),
        partial(node_images.build_image, APP / "Dockerfile", APP_IMAGE, context=ROOT, include=APP_FILES),
        lambda: node_images.program_image(parts.ensure("collector")["otelcol"], COLLECTOR_IMAGE),
    ]
    node_images.python_base_image()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda build: cluster.load_image(build()), builds))


def examples_for_standin() -> str:
    """`examples/support` as one manifest, word for word but for where the providers are: the stand-in, without TLS."""
    text = "\n---\n".join(path.read_text() for path in sorted((ROOT / "examples" / "support").glob("*.yaml")))
    for real, standin in (
        ("https://api.openai.com/v1", f"{STANDIN_URL}/v1"),
        ("https://api.anthropic.com", STANDIN_URL),
    ):
        assert text.count(f"baseURL: {real}\n") == 1, f"examples/support no longer names {real} once"
        text = text.replace(f"baseURL: {real}\n", f"baseURL: {standin}\n  plaintext: Allow\n")
    return text


def render(name: str, /, **values: str) -> str:
    """A manifest of `app/` with its `$names` filled in."""
    return Template((APP / name).read_text()).substitute(values)


class Mesh:
    """An installation of Spendmesh and its surroundings on one cluster."""

    def __init__(self, cluster: Cluster, accounts: Sequence[str]) -> None:
        """`accounts`: the namespaces that get a paying account of their own at the stand-in."""
        self.cluster = cluster
        self.accounts = tuple(accounts)
        self.keys = {account: f"{CANARY}{account}-{secrets.token_hex(12)}" for account in accounts}
        self.kept_logs: list[str] = []

    # --- install ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Images, stand-in and Collector; nothing of Spendmesh yet."""
        load_images(self.cluster)
        arguments = " ".join(f"--key any:{account}={key}" for account, key in self.keys.items())
        digest = hashlib.sha256(arguments.encode()).hexdigest()[:16]  # other accounts start another stand-in
        self.cluster.apply(render("standin.yaml", image=APP_IMAGE, arguments=arguments, digest=digest))
        config = collector_config("0.0.0.0:4318", "http://127.0.0.1:9100")
        self.cluster.apply(render("collector.yaml", image=APP_IMAGE, collector=COLLECTOR_IMAGE, config=config))

    def install(self, command: str = "install", *extra: str) -> str:
        """`helm install` (or upgrade) with two replicas; returns what Helm prints, when both are ready."""
        values = {
            "clusterName": "test",
            "operator.image.repository": OPERATOR_IMAGE,
            "sidecar.image.repository": SIDECAR_IMAGE,
            "telemetry.otlpEndpoint": COLLECTOR_URL,
        }
        words = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        for image in ("operator", "sidecar"):
            words += ["--set-string", f"{image}.image.tag={IMAGE_TAG}"]
        where = ("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "120s")
        printed = self.cluster.helm(command, RELEASE, str(CHART), *where, *words, *extra).stdout
        eventually(lambda: not self._replicas(leaving=True), "replicas of before are gone", 90)
        eventually(self._injects, "the webhook is reached", 30)
        return printed

    def _injects(self) -> bool:
        """Whether pods can be born: ready replicas are reachable by their Service's address a moment later."""
        pod = caller_pod("default", "trial")
        pod["metadata"]["labels"]["spendmesh.io/inject"] = "enabled"
        dry = ("apply", "--dry-run=server", "-o", "name", "-f", "-")
        return self.cluster.kubectl(*dry, stdin=json.dumps(pod), check=False).strip() == "pod/trial"

    def wait_surroundings(self) -> None:
        """Returns when stand-in and Collector serve."""
        for namespace, name in (("providers", "standin"), ("observability", "collector")):
            self.cluster.kubectl("-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=90s")

    def wipe(self) -> None:
        """Removes what an earlier run left on this cluster."""
        self.cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", check=False)
        self.cluster.kubectl("delete", "namespace", "-l", f"{MADE}=yes", "--ignore-not-found", check=False)
        self.cluster.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", check=False)
        kinds = self.cluster.kubectl("get", "crd", "-o", "name").split()
        if ours := [name for name in kinds if name.endswith(".spendmesh.io")]:
            self.cluster.kubectl("delete", *ours, check=False)

    def installed(self) -> bool:
        """Whether somebody has a release here already."""
        return bool(json.loads(self.cluster.helm("list", "-A", "--filter", "spendmesh", "-o", "json").stdout))

    # --- namespaces and applications ----------------------------------------------------------------------

    def namespace(self, name: str, *, restricted: bool = True, inject: str = "enabled") -> None:
        """A namespace with the Secret that holds its provider keys, under Pod Security `restricted` unless said."""
        labels = {MADE: "yes", "spendmesh.io/inject": inject}
        if restricted:
            labels["pod-security.kubernetes.io/enforce"] = "restricted"
        key = self.keys[name]
        objects: list[Json] = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "model-keys", "namespace": name},
                "stringData": {"openai": key, "anthropic": key},
            },
        ]
        self.cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        path = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        eventually(lambda: self.cluster.request("GET", path)[0] == 200, f"the ServiceAccount of {name} is there")

    def policies(self, namespace: str, *, budget: str = "") -> None:
        """The smallest policy for a namespace (`app/policy.yaml`), and a budget of so many USD if one is said."""
        manifests = [render("policy.yaml", namespace=namespace, standin=STANDIN_URL)]
        if budget:
            manifests.append(render("budget.yaml", namespace=namespace, amount=budget))
        self.cluster.apply("\n---\n".join(manifests))
        eventually(lambda: self._accepted(namespace), f"the policy of {namespace} is accepted", 60)

    def _accepted(self, namespace: str) -> bool:
        """A pod mounts the keys of the policy that was known when it was created: so that has to come first."""
        objects = self.cluster.get("spendmesh", "-n", namespace)["items"]
        found = [{c["type"]: c["status"] for c in o.get("status", {}).get("conditions", [])} for o in objects]
        return bool(found) and all(conditions.get("Accepted") == "True" for conditions in found)

    def start_app(self, namespace: str, name: str = "app", *, wait: bool = True, change: Any = None) -> App:
        """A pod of the test's application. `change` edits its manifest (a dictionary) before it is applied."""
        manifest = caller_pod(namespace, name)
        if change is not None:
            change(manifest)
        self.cluster.apply(json.dumps(manifest))
        app = App(self, namespace, name)
        if wait:
            app.wait_ready()
        return app

    def start_apps(self, namespace: str, names: Sequence[str], *, timeout_seconds: int) -> list[App]:
        """Pods of the test's application, all at once; returns when every one is ready."""
        pods = [caller_pod(namespace, name) for name in names]
        self.cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
        apps = [App(self, namespace, name) for name in names]
        for app in apps:
            app.wait_ready(timeout_seconds)
        return apps

    def apps(self, namespace: str, label: str) -> list[App]:
        """The running pods with this label."""
        pods = self.cluster.get("pods", "-n", namespace, "-l", label, "--field-selector=status.phase=Running")
        names = [pod["metadata"]["name"] for pod in pods["items"] if "deletionTimestamp" not in pod["metadata"]]
        return [App(self, namespace, name) for name in names]

    # --- stand-in and Collector ---------------------------------------------------------------------------

    def faults(self, *rules: Json) -> None:
        """Replaces the stand-in's fault plan."""
        self.cluster.ask("POST", STANDIN, "/_standin/faults", list(rules))

    def fault_counts(self) -> list[Json]:
        """How often each rule matched and acted."""
        counts: list[Json] = self.cluster.ask_json("GET", STANDIN, "/_standin/faults")
        return counts

    def invoice(self, account: str) -> list[Json]:
        """The stand-in's invoice lines of one account."""
        lines = self.cluster.ask_json("GET", STANDIN, "/_standin/invoice")["lines"]
        return [line for line in lines if line["account"] == account]

    def invoice_nanos(self, account: str) -> int:
        """What the stand-in has billed this account."""
        return sum(line["cost_nanos"] for line in self.invoice(account))

    def spans(self, namespace: str) -> list[CollectedSpan]:
        """The spans of a namespace's sidecars that have gone through the Collector."""
        exports = self.cluster.ask_json("GET", "services/observability/collector:9100", "/exports")
        spans = [span for export in exports for span in spans_of(export)]
        return [span for span in spans if span.resource.get("k8s.namespace.name") == namespace]

    # --- operator -----------------------------------------------------------------------------------------

    def operator_pods(self) -> list[str]:
        """Names of the running replicas."""
        return self._replicas(leaving=False)

    def _replicas(self, *, leaving: bool) -> list[str]:
        pods = self.cluster.get("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator")
        found = [pod["metadata"] for pod in pods["items"]]
        return [one["name"] for one in found if ("deletionTimestamp" in one) == leaving]

    def leader(self) -> str:
        """The pod that the election names; empty if none."""
        holder = self.cluster.get("lease", RELEASE, "-n", SYSTEM)["spec"].get("holderIdentity") or ""
        return next((pod for pod in self.operator_pods() if pod in holder), "")

    def ready_leader(self) -> str:
        """The leader, once two replicas are ready and one of them leads."""
        self.cluster.kubectl("-n", SYSTEM, "rollout", "status", f"deployment/{RELEASE}", "--timeout=90s")
        leader: str = eventually(self.leader, "a replica leads")
        return leader

    def keep_operator_logs(self) -> None:
        """Keeps what the replicas have logged so far, before some of them go."""
        for pod in self.operator_pods():
            self.kept_logs.append(self.cluster.kubectl("-n", SYSTEM, "logs", pod, "--tail=-1", check=False))
            self.kept_logs.append(
                self.cluster.kubectl("-n", SYSTEM, "logs", pod, "--previous", "--tail=-1", check=False)
            )

    def report(self) -> str:
        """What a person wants to see after a failure: pods, Events, the end of every log of ours."""
        parts_of_report = [
            self.cluster.kubectl("get", "pods", "-A", "-o", "wide", check=False),
            self.cluster.kubectl("get", "mprov,rpol,mbud,rbud", "-A", check=False),
        ]
        unusual = ("get", "events", "-A", "--field-selector=type!=Normal", "--sort-by=.lastTimestamp")
        parts_of_report.append("\n".join(self.cluster.kubectl(*unusual, check=False).splitlines()[-25:]))
        for pod in self.operator_pods():
            parts_of_report.append(f"--- log of {pod}")
            parts_of_report.append(self.cluster.kubectl("-n", SYSTEM, "logs", pod, "--tail=60", check=False))
        for namespace in self.accounts:
            for app in self.cluster.get("pods", "-n", namespace)["items"]:
                name = app["metadata"]["name"]
                log = self.cluster.kubectl(
                    "-n", namespace, "logs", name, "-c", "spendmesh-sidecar", "--tail=15", check=False
                )
                parts_of_report += [f"--- sidecar of {namespace}/{name}", log]
        return "\n".join(parts_of_report)


def caller_pod(namespace: str, name: str) -> Json:
    """The pod of `app/caller.yaml` as a dictionary that a test may edit."""
    pod: Json = yaml.safe_load(render("caller.yaml", namespace=namespace, name=name, image=APP_IMAGE))
    return pod


class App:
    """One pod of the test's application."""

    def __init__(self, mesh: Mesh, namespace: str, name: str) -> None:
        self._mesh, self._cluster = mesh, mesh.cluster
        self.namespace, self.name = namespace, name
        self.address = f"pods/{namespace}/{name}:8000"

    def wait_ready(self, timeout_seconds: int = 90) -> None:
        """Returns when the pod is ready."""
        self._cluster.wait("condition=Ready", "-n", self.namespace, f"pod/{self.name}", timeout_seconds=timeout_seconds)

    def pod(self) -> Json:
        """The pod as the API server has it."""
        return self._cluster.get("pod", self.name, "-n", self.namespace)

    def call(self, api: str, **arguments: Any) -> Json:
        """One call through the SDK: `chat`, `messages` or `embeddings`, with the SDK's own arguments."""
        outcome: Json = self._cluster.ask_json("POST", self.address, "/call", {"api": api, "arguments": arguments})
        return outcome

    def ask(self, content: str = "Hello", model: str = "auto", **arguments: Any) -> Json:
        """One chat completion."""
        return self.call("chat", model=model, messages=[{"role": "user", "content": content}], **arguments)

    def start_job(self, api: str, count: int = 1, workers: int = 1, **arguments: Any) -> AppJob:
        """Calls in the background of the pod."""
        said = {"call": {"api": api, "arguments": arguments}, "count": count, "workers": workers}
        return AppJob(self, self._cluster.ask_json("POST", self.address, "/jobs", said)["id"])

    def job_state(self, identifier: str) -> Json:
        """What has come of a job so far."""
        state: Json = self._cluster.ask_json("GET", self.address, f"/jobs/{identifier}")
        return state

    def execute(self, *command: str, stdin: str | None = None) -> str:
        """Runs a command in the application's container, as its user."""
        flags = ("-i",) if stdin is not None else ()
        where = ("exec", *flags, "-n", self.namespace, self.name, "-c", "app", "--")
        return self._cluster.kubectl(*where, *command, stdin=stdin)

    def sidecar(self, path: str) -> str:
        """What the sidecar's admin listener says."""
        return self._cluster.ask("GET", f"pods/{self.namespace}/{self.name}:15490", path)

    def metric(self, name: str) -> int:
        """A counter of the sidecar, summed over its labels."""
        lines = [line for line in self.sidecar("/metrics").splitlines() if line.partition("{")[0].split()[0] == name]
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)

    def sidecar_restarts(self) -> int:
        """How often the kubelet has started the sidecar again."""
        statuses = self.pod()["status"]["initContainerStatuses"]
        return next(int(each["restartCount"]) for each in statuses if each["name"] == "spendmesh-sidecar")


class AppJob:
    """Calls that run in a pod."""

    def __init__(self, app: App, identifier: str) -> None:
        self._app, self._identifier = app, identifier

    def outcomes(self) -> list[Json]:
        """Those that have begun."""
        outcomes: list[Json] = self._app.job_state(self._identifier)["outcomes"]
        return outcomes

    def wait_for(self, begun: int) -> None:
        """Returns when so many calls have begun."""
        eventually(lambda: len(self.outcomes()) >= begun, f"{begun} calls have begun", 60)

    def finish(self, timeout_seconds: float = 90) -> list[Json]:
        """All outcomes, when the last call has ended."""
        done = eventually(lambda: self._finished(), "all calls have ended", timeout_seconds)
        outcomes: list[Json] = done["outcomes"]
        return outcomes

    def _finished(self) -> Json | None:
        state = self._app.job_state(self._identifier)
        return state if state["done"] else None
