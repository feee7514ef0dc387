"""`spendmesh inject` gives the pod that the webhook would give: `spendmesh_cli.inject`."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster_samples import POLICIES
from pod_samples import CONFIG
from spendmesh_cli import inject
from spendmesh_operator.injection import Injected, mutate
from spendmesh_sidecar.protocol import unpack_bootstrap

Json = dict[str, Any]

DEPLOYMENT = """
# a comment
apiVersion: apps/v1
kind: Deployment
metadata: {name: support, namespace: team-a}
spec:
  selector: {matchLabels: {app: support}}
  template:
    metadata: {labels: {app: support}}
    spec:
      containers: [{name: app, image: "app:1"}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
data: {a: "1"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.yaml").write_text(DEPLOYMENT)
    (tmp_path / "ca.crt").write_text(CONFIG.control_ca)
    (tmp_path / "policies.yaml").write_text(POLICIES)
    return tmp_path


def command(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    inject.add_parser(parser.add_subparsers())
    parsed = parser.parse_args(["inject", *arguments])
    status: int = parsed.run(parsed)
    return status


def test_a_deployment_gets_keys_and_copy_and_other_objects_stay(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = command(
        "-f", f"{folder}/app.yaml", "--control-ca", f"{folder}/ca.crt", "-p", f"{folder}/policies.yaml", "-n", "team-a"
    )
    assert status == 0
    deployment, other = yaml.safe_load_all(capsys.readouterr().out)
    template = deployment["spec"]["template"]
    assert template["spec"]["initContainers"][0]["name"] == "spendmesh-sidecar"
    keys = next(one for one in template["spec"]["volumes"] if one["name"] == "spendmesh-keys")
    assert keys["projected"]["sources"][0]["secret"]["items"] == [{"key": "openai", "path": "standin"}]
    packed = unpack_bootstrap(template["metadata"]["annotations"]["spendmesh.io/bootstrap"])
    assert b"small-1" in bytes(packed.snapshot.policy)
    assert other == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": {"a": "1"}}


def test_the_webhook_leaves_an_injected_template_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Same image, control server and authority: nothing to do."""
    arguments = ["--control-ca", f"{folder}/ca.crt", "--image", CONFIG.image, "--control-url", CONFIG.control_url]
    assert command("-f", f"{folder}/app.yaml", *arguments, "--otlp-endpoint", CONFIG.otlp_endpoint) == 0
    deployment, _ = yaml.safe_load_all(capsys.readouterr().out)
    decision = mutate(deployment["spec"]["template"], {"spendmesh.io/inject": "enabled"}, CONFIG)
    assert isinstance(decision, Injected) and decision.patch == ()


def test_injecting_twice_is_injecting_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("-f", f"{folder}/app.yaml", "--control-ca", f"{folder}/ca.crt") == 0
    once = capsys.readouterr().out
    monkeypatch.setattr("sys.stdin", io.StringIO(once))
    assert command("-f", "-", "--control-ca", f"{folder}/ca.crt") == 0
    assert capsys.readouterr().out == once


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Pod"])
def test_every_kind_with_pods_is_injected(kind: str) -> None:
    template: Json = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "app", "image": "a"}]}}
    spec: Json = {"template": template}
    bodies: dict[str, Json] = {"Pod": template, "CronJob": {"spec": {"jobTemplate": {"spec": spec}}}}
    body = {"kind": kind, **bodies.get(kind, {"spec": spec})}
    outcome = inject.Injection(CONFIG).apply([{"kind": "List", "items": [body]}])
    found = outcome.documents[0]["items"][0]
    for step in inject.TEMPLATES[kind]:
        found = found[step]
    assert found["spec"]["initContainers"][0]["name"] == "spendmesh-sidecar"
    assert found["metadata"]["labels"]["spendmesh.io/injected"] == "true"


def test_a_refused_workload_writes_nothing_and_says_why(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "app.yaml").write_text(DEPLOYMENT.replace("containers: [", "hostNetwork: true\n      containers: ["))
    assert command("-f", f"{folder}/app.yaml", "--control-ca", f"{folder}/ca.crt") == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "Deployment/support: refused: hostNetwork" in captured.err


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2", "just text"])
def test_what_is_no_manifest_is_an_error_that_names_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (folder / "app.yaml").write_text(text)
    assert command("-f", f"{folder}/app.yaml", "--control-ca", f"{folder}/ca.crt") == 2
    assert "app.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spec",
    [None, "text", {}, {"template": None}, {"template": {"spec": []}}, {"template": {"spec": {"containers": [1]}}}],
)
def test_a_workload_without_pods_is_refused_by_name(spec: Any) -> None:
    document = {"kind": "Deployment", "metadata": {"name": "odd"}, "spec": spec}
    outcome = inject.Injection(CONFIG).apply([document])
    assert outcome.refused and outcome.documents == (document,)
    assert outcome.remarks == ("Deployment/odd: refused: it has no spec.template.spec with containers",)
