"""Pods of every sort: behind a proxy, with our names in their way, born while the operator is away, ending by
themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cluster_access import eventually
from cluster_mesh import APP_IMAGE, RELEASE, SYSTEM, Mesh, caller_pod, render

pytestmark = pytest.mark.cluster

Json = dict[str, Any]


@pytest.fixture(scope="module")
def edit(mesh: Mesh) -> Mesh:
    """The namespace `edit` with the smallest policy."""
    mesh.namespace("edit")
    mesh.policies("edit")
    return mesh


def test_an_application_behind_a_proxy_still_works(edit: Mesh) -> None:
    """HTTP_PROXY would catch calls to 127.0.0.1; the webhook adds that address to NO_PROXY, and keeps what is there."""

    def behind_proxy(pod: Json) -> None:
        environment = {
            "HTTP_PROXY": "http://192.0.2.1:3128",
            "HTTPS_PROXY": "http://192.0.2.1:3128",
            "NO_PROXY": ".svc",
        }
        pod["spec"]["containers"][0]["env"] = [{"name": name, "value": value} for name, value in environment.items()]

    app = edit.start_app("edit", "proxied", change=behind_proxy)
    assert app.ask("Hello [[out=5]]", max_tokens=16)["status"] == 200
    environment = {entry["name"]: entry.get("value", "") for entry in app.pod()["spec"]["containers"][0]["env"]}
    assert environment["NO_PROXY"].split(",") == [".svc", "127.0.0.1"]
    assert "127.0.0.1" in environment["no_proxy"]


def _own_sidecar(pod: Json) -> None:
    image = {"name": "spendmesh-sidecar", "image": "example.com/other:1", "command": ["sleep", "1"]}
    pod["spec"]["initContainers"] = [image]


def _mounts_keys(pod: Json) -> None:
    pod["spec"]["volumes"] = [{"name": "spendmesh-keys", "emptyDir": {}}]
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "spendmesh-keys", "mountPath": "/keys"}]


def _takes_port(pod: Json) -> None:
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": 15400}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_own_sidecar, "init container spendmesh-sidecar is not the one that this operator injects"),
        (_mounts_keys, "container app mounts volume spendmesh-keys"),
        (_takes_port, "container app uses port 15400, which is the sidecar's"),
    ],
)
def test_a_pod_that_uses_our_names_otherwise_is_refused(edit: Mesh, change: Any, said: str) -> None:
    """At `kubectl apply`, with the container, the reason and the fix."""
    pod = caller_pod("edit", "strange")
    change(pod)
    printed = edit.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod), check=False)
    assert "denied the request: Spendmesh:" in printed
    assert said in printed


def test_a_pod_that_says_disabled_is_left_alone(edit: Mesh) -> None:
    """The pod's own label counts more than its namespace's."""

    def disabled(pod: Json) -> None:
        pod["metadata"]["labels"]["spendmesh.io/inject"] = "disabled"

    app = edit.start_app("edit", "free", change=disabled, wait=False)
    assert "initContainers" not in app.pod()["spec"]
    edit.cluster.kubectl("-n", "edit", "delete", "pod", "free", "--wait=false")


def test_a_job_with_a_sidecar_completes(edit: Mesh) -> None:
    """The native sidecar ends when the program has, and the call that it made is on the invoice."""
    edit.namespace("jobs")
    edit.policies("jobs", budget="1")
    edit.cluster.apply(render("job.yaml", namespace="jobs", image=APP_IMAGE))
    edit.cluster.wait("condition=Complete", "-n", "jobs", "job/nightly", timeout_seconds=90)
    assert "gpt-4.1-mini" in edit.cluster.kubectl("-n", "jobs", "logs", "job/nightly", "-c", "batch")
    assert len(edit.invoice("jobs")) == 1


def test_a_pod_is_born_and_governed_while_the_operator_is_away(mesh: Mesh) -> None:
    """It starts from the bootstrap copy that it got at admission: its calls are routed by policy, and a budget that
    nobody can verify refuses, until the operator is back."""

    def gated(pod: Json) -> None:
        pod["spec"]["schedulingGates"] = [{"name": "spendmesh.test/wait"}]

    apps = {}
    for namespace, budget in (("away", ""), ("away-budget", "1")):
        mesh.namespace(namespace)
        mesh.policies(namespace, budget=budget)
        mesh.cluster.wait("condition=Accepted=True", "-n", namespace, "rpol/calls", timeout_seconds=30)
        if budget:
            mesh.cluster.wait("condition=Accepted=True", "-n", namespace, "mbud/pool", timeout_seconds=30)
        apps[namespace] = mesh.start_app(namespace, change=gated, wait=False)
    mesh.keep_operator_logs()
    scale = ("-n", SYSTEM, "scale", f"deployment/{RELEASE}")
    mesh.cluster.kubectl(*scale, "--replicas=0")
    try:
        everything = ("pod", "-n", SYSTEM, "-l", "app.kubernetes.io/component=operator")
        mesh.cluster.kubectl("wait", "--for=delete", *everything, "--timeout=60s")
        open_gate = ("patch", "pod", "app", "--type=json", "-p", '[{"op": "remove", "path": "/spec/schedulingGates"}]')
        for namespace in apps:
            mesh.cluster.kubectl("-n", namespace, *open_gate)
        for app in apps.values():
            app.wait_ready()
        hint = {"x-spendmesh-task": "extract"}
        outcome = apps["away"].ask("Hello [[out=5]]", max_tokens=16, extra_headers=hint)
        assert outcome["status"] == 200, outcome
        assert outcome["headers"]["x-spendmesh-tier"] == "economy"
        outcome = apps["away-budget"].ask("Hello [[out=5]]", max_tokens=16)
        assert outcome["status"] == 503, outcome
        assert outcome["headers"]["x-spendmesh-error"] == "budget_unverifiable"
        assert mesh.invoice("away-budget") == []
    finally:
        mesh.cluster.kubectl(*scale, "--replicas=2")
        mesh.ready_leader()

    def answered() -> bool:
        return apps["away-budget"].ask("Hello [[out=5]]", max_tokens=16).get("status") == 200

    eventually(answered, "the budget is verified again", 60, 1)
