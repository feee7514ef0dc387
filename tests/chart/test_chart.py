"""What the chart installs, and what it refuses to install."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

Json = dict[str, Any]
Render = Callable[..., list[Json]]
Template = Callable[..., subprocess.CompletedProcess[str]]

GOLDEN = Path(__file__).parent / "golden"

COMBINATIONS: list[tuple[str, ...]] = [
    (),
    ('scope="Namespace"',),
    ('ledger={"store":"PostgreSQL","postgresql":{"secretName":"books"},"member":"eu"}',),
    ("injection.enabled=false", "crds.install=false"),
    ("operator.replicas=1", "rbac.aggregate=false", "crds.keep=false"),
    (
        'telemetry.otlpEndpoint="http://collector.observability.svc:4318"',
        'operator.podLabels={"team":"platform"}',
        'operator.podAnnotations={"prometheus.io/scrape":"true"}',
        'operator.nodeSelector={"kubernetes.io/os":"linux"}',
        'operator.tolerations=[{"key":"infra","operator":"Exists"}]',
        'operator.priorityClassName="system-cluster-critical"',
        'serviceAccount={"create":false,"name":"mine","annotations":{}}',
        'imagePullSecrets=[{"name":"registry"}]',
        'sidecar.resources={"requests":{"cpu":"1"}}',
        'injection.failurePolicy="Ignore"',
        'sidecar.durability="Node"',
    ),
]


def only(objects: list[Json], kind: str, name: str = "") -> Json:
    found = [one for one in objects if one["kind"] == kind and (not name or one["metadata"]["name"] == name)]
    assert len(found) == 1, [one["metadata"]["name"] for one in objects if one["kind"] == kind]
    return found[0]


@pytest.mark.parametrize("settings", COMBINATIONS, ids=range(len(COMBINATIONS)))
def test_every_object_fits_the_schema_of_every_version(render: Render, settings: tuple[str, ...]) -> None:
    """Offline schemas, strictly: an unknown field is an error."""
    for version in ("1.29", "1.31", "1.33", "1.35", "1.37"):
        for rendered in render(*settings, version=f"{version}.0"):
            kubernetes_validate.validate(rendered, version, strict=True)


def test_an_older_kubernetes_is_refused(helm_template: Template) -> None:
    assert "1.29.0" in helm_template(version="1.28.9").stderr


@pytest.mark.parametrize("scope", ["Cluster", "Namespace"])
def test_rights_are_exactly_these(render: Render, scope: str) -> None:
    """A new verb or resource is seen in review: delete the file and run the test to write it anew."""
    rights = [
        {"kind": one["kind"], "name": one["metadata"]["name"], "rules": one["rules"]}
        for one in render(f'scope="{scope}"')
        if one["kind"] in ("Role", "ClusterRole")
    ]
    golden = GOLDEN / f"rights-{scope.lower()}.json"
    if not golden.exists():
        golden.write_text(json.dumps(rights, indent=1, sort_keys=True) + "\n")
    assert json.loads(golden.read_text()) == rights


@pytest.mark.parametrize("scope", ["Cluster", "Namespace"])
def test_no_right_is_broad(render: Render, scope: str) -> None:
    """No wildcard, no Secret but our own by name, no writing of pods; the books only in our own namespace."""
    for role in (one for one in render(f'scope="{scope}"') if one["kind"] in ("Role", "ClusterRole")):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"] == ["spendmesh-tls"] and rule["verbs"] == ["get", "update"]
            if "pods" in rule["resources"]:
                assert rule["verbs"] == ["list", "watch"]
            if "budgetledgers" in rule["resources"]:
                assert role["kind"] == "Role"


def test_prices_and_keys_are_written_by_admin_and_not_by_edit(render: Render) -> None:
    """Whoever may write routing must not thereby set prices or send keys elsewhere (contract §1)."""
    objects = render()
    edit = only(objects, "ClusterRole", "spendmesh-system:spendmesh:edit")
    admin = only(objects, "ClusterRole", "spendmesh-system:spendmesh:admin")
    assert all("modelproviders" not in rule["resources"] for rule in edit["rules"])
    assert admin["rules"][0]["resources"] == ["modelproviders"] and "update" in admin["rules"][0]["verbs"]


def test_a_release_for_one_namespace_has_no_cluster_wide_reading(render: Render) -> None:
    """What stays cluster-wide is what has no namespace: TokenReview and the release's own webhook."""
    objects = render('scope="Namespace"', namespace="team-a")
    resources = {resource for rule in only(objects, "ClusterRole")["rules"] for resource in rule["resources"]}
    assert resources == {"tokenreviews", "subjectaccessreviews", "mutatingwebhookconfigurations"}
    for webhook in only(objects, "MutatingWebhookConfiguration")["webhooks"]:
        own = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a"]}
        assert own in webhook["namespaceSelector"]["matchExpressions"]


def test_the_operator_passes_pod_security_restricted(render: Render) -> None:
    spec = only(render(), "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all(set(volume) - {"name"} <= {"projected", "emptyDir", "secret"} for volume in spec["volumes"])
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"]
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_the_webhook_asks_for_opted_in_pods_only_and_fails_closed(render: Render) -> None:
    """Not the operator's own namespace nor the cluster's: they would wait for each other."""
    webhooks = only(render(), "MutatingWebhookConfiguration")["webhooks"]
    by_name = {webhook["name"]: webhook for webhook in webhooks}
    assert set(by_name) == {"namespace.inject.spendmesh.io", "pod.inject.spendmesh.io", "debug.inject.spendmesh.io"}
    debugging = by_name["debug.inject.spendmesh.io"]
    assert debugging["rules"][0]["resources"] == ["pods/ephemeralcontainers"]
    assert debugging["objectSelector"] == {"matchLabels": {"spendmesh.io/injected": "true"}}
    for webhook in webhooks:
        assert webhook["failurePolicy"] == "Fail" and webhook["timeoutSeconds"] == 5
        assert webhook["reinvocationPolicy"] == "IfNeeded" and webhook["sideEffects"] == "None"
        assert "caBundle" not in webhook["clientConfig"], "Helm would take it back from the operator"
        excluded = next(
            one
            for one in webhook["namespaceSelector"]["matchExpressions"]
            if one["operator"] == "NotIn" and one["key"] == "kubernetes.io/metadata.name"
        )
        assert set(excluded["values"]) == {"kube-system", "kube-node-lease", "spendmesh-system"}


def test_the_operators_own_pods_are_never_injected(render: Render) -> None:
    labels = only(render(), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels["spendmesh.io/inject"] == "disabled"


def test_helm_owns_no_data_of_the_certificate(render: Render) -> None:
    """An upgrade must not take the authority away from running sidecars, nor must an uninstall and a new install."""
    secret = only(render(), "Secret")
    assert not {"data", "stringData"} & set(secret)
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_only_the_operator_writes_books_and_only_those_of_its_cluster_name(render: Render) -> None:
    """The index is called like the cluster, so that another name starts new books beside the old ones."""
    objects = render('clusterName="prod.eu"')
    policy = only(objects, "ValidatingAdmissionPolicy")["spec"]
    binding = only(objects, "ValidatingAdmissionPolicyBinding")["spec"]
    assert policy["failurePolicy"] == "Fail" and binding["validationActions"] == ["Deny"]
    assert policy["matchConstraints"]["resourceRules"][0]["operations"] == ["CREATE", "UPDATE", "DELETE"]
    said = " ".join(one["expression"] for one in policy["validations"])
    assert "system:serviceaccount:spendmesh-system:spendmesh" in said and "'prod.eu'" in said


@pytest.mark.parametrize("store", ["PostgreSQL", "BudgetLedger"])
def test_the_address_of_postgresql_is_a_file_and_never_in_the_environment(render: Render, store: str) -> None:
    """With its password it would be in the pod's description. Either store may hold books that move to the other."""
    objects = render(f'ledger={{"store":"{store}","postgresql":{{"secretName":"books","secretKey":"url"}}}}')
    pod = only(objects, "Deployment")["spec"]["template"]["spec"]
    (volume,) = (one for one in pod["volumes"] if one["name"] == "ledger")
    assert volume["secret"]["secretName"] == "books"
    assert volume["secret"]["items"] == [{"key": "url", "path": "dsn"}]
    environment = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert environment["SPENDMESH_LEDGER_STORE"] == store
    assert environment["SPENDMESH_LEDGER_DSN_FILE"] == "/var/run/spendmesh/ledger/dsn"
    rules = [rule for one in objects if one["kind"] == "Role" for rule in one["rules"]]
    assert [rule for rule in rules if "budgetledgers" in rule["resources"]]


def test_where_admission_policies_are_missing_only_roles_protect_the_books(render: Render) -> None:
    """They came with 1.30; an older API server would refuse the whole release."""
    for settings in ({"version": "1.29.0"}, {}):
        kinds = {one["kind"] for one in render("ledger.protect=" + str(bool(settings)).lower(), **settings)}
        assert not kinds & {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


def test_a_cluster_name_that_looks_like_a_part_of_other_books_is_refused(helm_template: Template) -> None:
    """`prod.shard-1` would be written over by the books of `prod`."""
    assert "clusterName" in helm_template('clusterName="prod.shard-1"').stderr


def test_images_may_be_pinned_by_digest(render: Render) -> None:
    digest = "sha256:" + "0" * 64
    container = only(render(f'operator.image.digest="{digest}"', f'sidecar.image.digest="{digest}"'), "Deployment")[
        "spec"
    ]["template"]["spec"]["containers"][0]
    sidecar = next(one["value"] for one in container["env"] if one["name"] == "SPENDMESH_SIDECAR_IMAGE")
    assert (container["image"], sidecar) == (f"spendmesh-operator@{digest}", f"spendmesh-sidecar@{digest}")


def test_a_cpu_limit_may_be_a_number(render: Render) -> None:
    environment = only(render("sidecar.resources.limits.cpu=1"), "Deployment")
    container = environment["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "SPENDMESH_SIDECAR_CPU_LIMIT", "value": "1"} in container["env"]


def test_the_operator_is_told_what_sidecars_survive(render: Render) -> None:
    for setting, value in ((), "Process"), (('sidecar.durability="Node"',), "Node"):
        container = only(render(*setting), "Deployment")["spec"]["template"]["spec"]["containers"][0]
        assert {"name": "SPENDMESH_SIDECAR_DURABILITY", "value": value} in container["env"]


def test_the_kinds_in_the_chart_are_the_generated_ones(chart: Path, render: Render) -> None:
    """`make generate` writes both; the chart adds the annotation that keeps them on uninstall, and nothing else."""
    source = chart.parents[1] / "crds"
    copies = {path.name: path.read_text() for path in (chart / "files" / "crds").glob("*.yaml")}
    assert copies == {path.name: path.read_text() for path in source.glob("*.yaml")}
    kept = {one["metadata"]["name"]: one for one in render() if one["kind"] == "CustomResourceDefinition"}
    plain = {
        one["metadata"]["name"]: one for one in render("crds.keep=false") if one["kind"] == "CustomResourceDefinition"
    }
    assert len(kept) == len(copies)
    for name, definition in kept.items():
        assert definition["metadata"]["annotations"].pop("helm.sh/resource-policy") == "keep"
        if not definition["metadata"]["annotations"]:
            del definition["metadata"]["annotations"]
        assert definition == plain[name]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ('scope="Everything"', "scope"),
        ('clusterName="Prod Cluster"', "clusterName"),
        ('clusterName=""', "clusterName"),
        ('unbudgeted="Maybe"', "unbudgeted"),
        ('ledger.store="Postgres"', "store"),
        ('ledger.store="PostgreSQL"', "secretName"),
        ('ledger.member="EU west"', "member"),
        ('ledger.dsn="postgresql://x"', "dsn"),
        ("operator.replicas=0", "replicas"),
        ("operator.replica=2", "replica"),
        ('injection.failurePolicy="fail"', "failurePolicy"),
        ('sidecar.image.pullPolicy="Sometimes"', "pullPolicy"),
        ('sidecar.resources={"limits":{"memory":"lots"}}', "memory"),
        ('telemetry.otlpEndpoint="collector:4317"', "otlpEndpoint"),
        ('sidecar.durability="Disk"', "durability"),
        ("webhook={}", "webhook"),
        ('clusterName="a..b"', "clusterName"),
        ('operator.image.digest="latest"', "digest"),
        ('serviceAccount={"create":false}', "serviceAccount"),
        ('serviceAccount.name="default"', "name"),
        *((f"{name}=null", name) for name in ("crds", "rbac", "telemetry", "serviceAccount", "podDisruptionBudget")),
        *((f"{name}=null", name) for name in ("operator", "sidecar", "injection", "clusterName", "scope")),
        *((f"{name}.image=null", "image") for name in ("operator", "sidecar")),
    ],
)
def test_a_value_that_means_nothing_is_refused_by_name(helm_template: Template, setting: str, named: str) -> None:
    done = helm_template(setting)
    assert done.returncode != 0 and named in done.stderr


def test_a_lone_replica_has_no_disruption_budget(render: Render) -> None:
    """It would block every node drain."""
    kinds = [one["kind"] for one in render("operator.replicas=1")]
    assert "PodDisruptionBudget" not in kinds and "PodDisruptionBudget" in [one["kind"] for one in render()]


def test_the_chart_passes_helm_lint(helm: Path, chart: Path) -> None:
    done = subprocess.run([str(helm), "lint", "--strict", str(chart)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_notes_say_the_next_commands(helm: Path, chart: Path) -> None:
    done = subprocess.run(
        [str(helm), "install", "spendmesh", str(chart), "-n", "spendmesh-system", "--dry-run=client"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "kubectl label namespace team-a spendmesh.io/inject=enabled" in done.stdout
    assert "kubectl apply -f examples/support" in done.stdout
    for folder in re.findall(r"-f (examples\S*)", done.stdout):
        assert list((chart.parents[1] / folder).glob("*.yaml"))
