"""
The whole operator on a real API server: installed by Helm, two replicas, exactly the chart's rights.

There is no node here; what pods do is in tests/cluster.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kube_api import ApiRefused
from operator_cluster import (
    TEAM,
    acquire,
    authority,
    call,
    conditions,
    create_pod,
    governed_pod,
    is_true,
    pod,
    stored_leases,
    two_replicas,
)
from operator_replicas import NAMESPACE, RELEASE, WEBHOOK, Installation
from part_process import wait_until
from spendmesh_cli.__main__ import main as spendmesh
from spendmesh_sidecar import protocol
from spendmesh_sidecar.policy import decode_policy, decode_price_table, digest

Json = dict[str, Any]


@pytest.fixture(scope="module")
def cluster(helm: Path) -> Iterator[Installation]:
    """One installation for all tests. What they did needed no right that the chart does not give."""
    with two_replicas(helm) as installation:
        yield installation
        assert installation.denied() == 0, [line for one in installation.replicas.values() for line in one.log()]


@pytest.fixture(scope="module")
def app(cluster: Installation) -> tuple[Json, str]:
    """A pod that was injected under the team's policies, and its sidecar's token."""
    return governed_pod(cluster)


def test_helm_installs_what_becomes_ready(cluster: Installation) -> None:
    """Both replicas serve, one leads, and the webhook trusts the authority that the leader has made."""
    assert all(replica.ready() for replica in cluster.replicas.values())
    configuration = cluster.get(f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{WEBHOOK}")
    bundles = {one["clientConfig"]["caBundle"] for one in configuration["webhooks"]}
    assert [base64.b64decode(one).decode() for one in bundles] == [authority(cluster)]


def test_policies_are_accepted_and_say_so(cluster: Installation, app: tuple[Json, str]) -> None:
    """Status by server-side apply, with the generation that it is about."""
    for plural, name in (("modelproviders", "standin"), ("routingpolicies", "support"), ("modelbudgets", "team")):
        wait_until(
            lambda p=plural, n=name: (
                is_true(cluster, p, n, "Accepted", "ResolvedRefs")
                or (  # type: ignore[misc]
                    p == "modelbudgets" and is_true(cluster, p, n, "Accepted", "WithinBudget")
                )
            ),
            f"{name} is accepted",
            90,
        )
        found = cluster.get(f"/apis/spendmesh.io/v1alpha1/namespaces/{TEAM}/{plural}/{name}")
        assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
        managers = {one["manager"]: one for one in found["metadata"]["managedFields"]}
        assert managers["spendmesh-operator"]["operation"] == "Apply"
        assert managers["spendmesh-operator"]["subresource"] == "status"


def test_nobodys_object_carries_a_trace_of_us(cluster: Installation, app: tuple[Json, str]) -> None:
    """No finalizer and no annotation: deleting works though no operator runs."""
    for plural in ("modelproviders", "routingpolicies", "modelbudgets", "retrybudgets"):
        for one in cluster.get(f"/apis/spendmesh.io/v1alpha1/{plural}")["items"]:
            assert not one["metadata"].get("finalizers")
            annotations = set(one["metadata"].get("annotations", {}))
            assert annotations <= {"kubectl.kubernetes.io/last-applied-configuration"}


def test_a_pod_is_injected_through_the_webhook(cluster: Installation, app: tuple[Json, str]) -> None:
    """Native sidecar first, keys of exactly the policy's providers, bootstrap copy that the sidecar can read."""
    created, _ = app
    sidecar = created["spec"]["initContainers"][0]
    assert sidecar["name"] == "spendmesh-sidecar" and sidecar["restartPolicy"] == "Always"
    assert sidecar["image"] == "spendmesh-sidecar:0.1.0"
    environment = {one["name"]: one.get("value") for one in sidecar["env"]}
    assert environment["SPENDMESH_CONTROL_CA"] == authority(cluster)
    assert environment["SPENDMESH_CONTROL_URL"] == f"https://{RELEASE}-control.{NAMESPACE}.svc"
    keys = next(one for one in created["spec"]["volumes"] if one["name"] == "spendmesh-keys")
    assert [one["secret"]["name"] for one in keys["projected"]["sources"]] == ["model-keys"]
    packed = protocol.unpack_bootstrap(created["metadata"]["annotations"]["spendmesh.io/bootstrap"])
    policy = decode_policy(bytes(packed.snapshot.policy))
    assert digest(bytes(packed.snapshot.policy)) == packed.snapshot.digest
    assert policy.routing is not None and policy.price_table == digest(bytes(packed.price_table))
    decode_price_table(bytes(packed.price_table))
    app_environment = {one["name"]: one.get("value") for one in created["spec"]["containers"][0]["env"]}
    assert app_environment["OPENAI_BASE_URL"] == "http://127.0.0.1:15400/openai/v1"


def test_an_injected_pod_can_be_created_again(cluster: Installation, app: tuple[Json, str]) -> None:
    """A restore: the pod as the API server has it, under another name."""
    again = json.loads(json.dumps(app[0]))
    again["metadata"] = {key: again["metadata"][key] for key in ("labels", "annotations")} | {"name": "restored"}
    again["spec"].pop("nodeName", None)
    restored = create_pod(cluster, again)
    assert [one["name"] for one in restored["spec"]["initContainers"]] == ["spendmesh-sidecar"]
    cluster.plane.kubectl("delete", "pod", "-n", TEAM, "restored", "--grace-period=0", "--force")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"hostNetwork": True}, "hostNetwork shares 127.0.0.1:15400 with every pod of the node"),
        ({"shareProcessNamespace": True}, "set its runAsUser to another than 0 and 65532"),
        ({"initContainers": [{"name": "spendmesh-sidecar", "image": "evil"}]}, "let it be injected anew"),
    ],
)
def test_a_pod_that_cannot_be_governed_is_refused_with_the_reason(
    cluster: Installation, spec: Json, sentence: str
) -> None:
    with pytest.raises(ApiRefused, match="Spendmesh: ") as refused:
        create_pod(cluster, pod("refused", **spec))
    assert sentence in str(refused.value)


def test_labels_on_the_pod_decide_over_the_namespaces(cluster: Installation) -> None:
    cluster.plane.create_namespace("plain")
    plain = create_pod(cluster, pod("not-asked"), "plain")
    assert not plain["spec"].get("initContainers")
    wanted = pod("asked")
    wanted["metadata"]["labels"]["spendmesh.io/inject"] = "enabled"
    assert create_pod(cluster, wanted, "plain")["spec"]["initContainers"]
    unwanted = pod("opted-out")
    unwanted["metadata"]["labels"]["spendmesh.io/inject"] = "disabled"
    assert not create_pod(cluster, unwanted)["spec"].get("initContainers")


def test_every_replica_streams_the_same_policy_under_the_leaders_stamp(
    cluster: Installation, app: tuple[Json, str]
) -> None:
    """A follower asks the leader for the number; the price table is served by its digest."""
    seen = []
    for replica in cluster.replicas.values():
        status, line = call(cluster, replica, app[1], f"{protocol.PATH_STREAM}?nonce=n1")
        assert status == 200, line
        event = msgspec.json.decode(line, type=protocol.StreamEvent)
        assert isinstance(event, protocol.Snapshot) and digest(bytes(event.policy)) == event.digest
        seen.append((event.digest, event.stamp))
        table = decode_policy(bytes(event.policy)).price_table
        status, body = call(cluster, replica, app[1], protocol.PATH_PRICE_TABLE.format(digest=table))
        assert status == 200 and digest(body) == table
    assert seen[0] == seen[1] and seen[0][1].epoch >= 1


def test_a_follower_relays_an_acquire_and_the_books_have_it(cluster: Installation, app: tuple[Json, str]) -> None:
    """The lease is durable in the BudgetLedger before it is answered."""
    account = protocol.AccountRef(budget=f"{TEAM}/team", limit="monthly")
    want = protocol.Want(account=account, need=1_000_000, want=2_000_000)
    request = protocol.AcquireRequest(id="r1", nonce="n1", wants=(want,))
    status, body = call(cluster, cluster.follower(), app[1], protocol.PATH_ACQUIRE, request)
    assert status == 200, body
    reply = msgspec.json.decode(body, type=protocol.AcquireReply)
    assert len(reply.leases) == 1 and reply.leases[0].granted >= 1_000_000
    assert reply.leases[0].id in [lease["id"] for lease in stored_leases(cluster)]


@pytest.mark.parametrize("verb", ["create", "replace", "delete"])
def test_nobody_but_the_operator_writes_the_books(cluster: Installation, app: tuple[Json, str], verb: str) -> None:
    """Not even an administrator of the cluster, by accident: the message says what to do instead."""
    shown = cluster.plane.kubectl("get", "budgetledger", "default", "-n", NAMESPACE, "-o", "json").stdout
    changed = json.loads(shown)
    changed["metadata"] = {"name": "default" if verb == "replace" else "mine", "namespace": NAMESPACE}
    given = ("budgetledger", "default") if verb == "delete" else ("-f", "-")
    stdin = None if verb == "delete" else json.dumps(changed)
    done = cluster.plane.kubectl(verb, *given, "-n", NAMESPACE, stdin=stdin, check=False)
    assert done.returncode != 0 and "The books are written by the Spendmesh coordinator alone" in done.stderr
    assert cluster.plane.kubectl("get", "budgetledger", "default", "-n", NAMESPACE, "-o", "name").returncode == 0


@pytest.mark.parametrize("audience", ["", "vault"])
def test_another_audience_opens_nothing(cluster: Installation, app: tuple[Json, str], audience: str) -> None:
    token = cluster.plane.token(TEAM, "default", audience, pod=("app-0", app[0]["metadata"]["uid"]))
    for replica in cluster.replicas.values():
        assert call(cluster, replica, token, f"{protocol.PATH_STREAM}?nonce=n1")[0] == 401


def test_acknowledgements_through_a_follower_reach_the_status(cluster: Installation, app: tuple[Json, str]) -> None:
    """Programmed is what sidecars said, whichever replica they said it to."""
    follower = cluster.follower()
    _, line = call(cluster, follower, app[1], f"{protocol.PATH_STREAM}?nonce=n1")
    event = msgspec.json.decode(line, type=protocol.StreamEvent)
    assert isinstance(event, protocol.Snapshot)
    ack = protocol.Ack(nonce="n1", digest=event.digest, stamp=event.stamp)
    assert call(cluster, follower, app[1], protocol.PATH_ACK, ack)[0] == 204
    path = f"/apis/spendmesh.io/v1alpha1/namespaces/{TEAM}/routingpolicies/support"
    counts = {"matched": 1, "effective": 1, "programmed": 1}
    wait_until(lambda: cluster.get(path)["status"]["workloads"] == counts, "the workload is programmed", 90)
    assert is_true(cluster, "routingpolicies", "support", "Programmed")


def test_what_a_sidecar_tells_a_follower_becomes_conditions_and_events(
    cluster: Installation, app: tuple[Json, str]
) -> None:
    """An account out of money, and clients that retry too: on the objects that people change."""
    spent = protocol.SpentAccount(provider="openai", code="insufficient_quota")
    said = protocol.Observations(unpaid=(spent,), client_retries=("unmarked",))
    assert call(cluster, cluster.follower(), app[1], protocol.PATH_OBSERVATIONS, said)[0] == 204
    for plural, name, type_, reason in (
        ("modelproviders", "standin", "Funded", "SpendLimitReached"),
        ("retrybudgets", "default", "SoleRetrier", "ClientsRetry"),
    ):

        def seen(plural: str = plural, name: str = name, type_: str = type_) -> bool:
            return conditions(cluster, plural, name).get(type_, {}).get("status") == "False"

        def told(name: str = name, reason: str = reason) -> bool:
            items: list[Json] = cluster.get(f"/api/v1/namespaces/{TEAM}/events")["items"]
            return [one["reason"] for one in items if one["involvedObject"]["name"] == name].count(reason) == 1

        wait_until(seen, f"{type_} is False", 90)
        wait_until(told, f"the Event {reason}", 90)


def test_a_threshold_is_told_once_and_who_may_read_the_budget_reads_its_bill(
    cluster: Installation, app: tuple[Json, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """85 % spent: one Event at 80 %, and `spendmesh report` through a follower; a correction is another right."""
    where = f"/apis/spendmesh.io/v1alpha1/namespaces/{TEAM}/modelbudgets/team"
    steps = [{"percent": 80, "actions": [{"type": "Notify"}]}]
    patch = [{"op": "add", "path": "/spec/limits/0/thresholds", "value": steps}]
    edited = cluster.plane.api.call("PATCH", where, patch, "application/json-patch+json")
    amount = 10**9 * int(float(edited["spec"]["limits"][0]["amount"]))
    account = protocol.AccountRef(budget=f"{TEAM}/team", limit="monthly")
    want = protocol.Want(account=account, need=amount * 85 // 100, want=0)
    request = protocol.AcquireRequest(id="r2", nonce="n1", wants=(want,))
    _, body = call(cluster, cluster.follower(), app[1], protocol.PATH_ACQUIRE, request)
    (lease,) = msgspec.json.decode(body, type=protocol.AcquireReply).leases
    spent = protocol.LeaseReport(lease=lease.id, sequence=1, used=amount * 85 // 100, held=0)
    reports = protocol.ReportRequest(nonce="n1", reports=(spent,))
    assert call(cluster, cluster.follower(), app[1], protocol.PATH_REPORT, reports)[0] == 200

    def told() -> list[Json]:
        items: list[Json] = cluster.get(f"/api/v1/namespaces/{TEAM}/events")["items"]
        return [one for one in items if one["involvedObject"] == {**one["involvedObject"], "name": "team"}]

    wait_until(lambda: bool(told()), "the Event", 90)
    wait_until(lambda: cluster.get(where)["status"]["tightest"]["percent"] == 85, "the status", 90)
    (event,) = told()
    assert (event["reason"], event["type"]) == ("ThresholdReached", "Warning")
    assert "has reached 80 %" in event["message"]
    (held,) = cluster.get(where)["status"]["limits"][0]["holders"]
    assert (held["pod"], held["state"]) == (f"{TEAM}/app-0", "Reporting")

    cluster.plane.kubectl("create", "serviceaccount", "reader", "-n", TEAM)
    cluster.plane.kubectl(
        "create", "role", "bill-reader", "-n", TEAM, "--verb=get,list", "--resource=modelbudgets.spendmesh.io"
    )
    cluster.plane.kubectl(
        "create", "rolebinding", "bill-reader", "-n", TEAM, "--role=bill-reader", f"--serviceaccount={TEAM}:reader"
    )
    (tmp_path / "token").write_text(cluster.plane.token(TEAM, "reader", "spendmesh.io"))
    (tmp_path / "ca.crt").write_text(authority(cluster))
    at = ["--url", f"https://127.0.0.1:{cluster.follower().control}", "--token-file", str(tmp_path / "token")]
    at += ["--ca-file", str(tmp_path / "ca.crt"), "--server-name", f"{RELEASE}-control.{NAMESPACE}.svc"]
    assert spendmesh(["report", f"{TEAM}/team", *at]) == 0
    cells = capsys.readouterr().out.splitlines()[1].split()
    assert cells[:3] == [f"{TEAM}/team", "monthly", "Month"] and "85%" in cells
    assert spendmesh(["report", *at]) == 2
    assert "may not list modelbudgets.spendmesh.io in all namespaces" in capsys.readouterr().err
    proof = ["--amount=-1", "--reference", "r", "--evidence", "e"]
    assert spendmesh(["correct", f"{TEAM}/team", "monthly", *proof, *at]) == 2
    assert "may not create modelbudgets.spendmesh.io/corrections" in capsys.readouterr().err


def test_a_broken_object_is_told_and_an_event_says_why(cluster: Installation, app: tuple[Json, str]) -> None:
    """A reference that leads nowhere: a condition and one Event on the object."""
    broken = """
apiVersion: spendmesh.io/v1alpha1
kind: RoutingPolicy
metadata: {name: broken}
spec:
  podSelector: {matchLabels: {app: other}}
  providers: [{name: nobody, ref: {name: nobody}}]
  tiers: [{name: only, targets: [{name: t, provider: nobody, model: gpt-5-mini}]}]
  defaultTier: only
"""
    cluster.plane.kubectl("apply", "-n", TEAM, "-f", "-", stdin=broken)

    def told() -> bool:
        return conditions(cluster, "routingpolicies", "broken").get("ResolvedRefs", {}).get("status") == "False"

    wait_until(told, "the condition", 90)

    def events() -> list[Json]:
        items: list[Json] = cluster.get(f"/api/v1/namespaces/{TEAM}/events")["items"]
        return [one for one in items if one["involvedObject"]["name"] == "broken"]

    wait_until(lambda: bool(events()), "the Event", 90)
    assert all(one["type"] == "Warning" and "nobody" in one["message"] for one in events())
    cluster.plane.kubectl("delete", "routingpolicy", "-n", TEAM, "broken")


def test_a_debug_container_may_not_reach_the_keys(cluster: Installation, app: tuple[Json, str]) -> None:
    """`kubectl debug` changes a pod that runs: the webhook for new pods does not see it."""
    cluster.lead_webhook_to(cluster.follower())
    path = f"/api/v1/namespaces/{TEAM}/pods/{app[0]['metadata']['name']}/ephemeralcontainers"

    def attach(name: str, **container: Any) -> tuple[int, str]:
        body = {"spec": {"ephemeralContainers": [{"name": name, "image": "busybox", **container}]}}
        status, answer = cluster.plane.api.request(
            "PATCH", path, body, content_type="application/strategic-merge-patch+json"
        )
        return status, str(answer.get("message", ""))

    wait_until(lambda: attach("harmless")[0] == 200, "the webhook answers", 90)
    status, said = attach("mounts", volumeMounts=[{"name": "spendmesh-keys", "mountPath": "/keys"}])
    assert status == 403 and "spendmesh-keys" in said
    status, said = attach("targets", targetContainerName="spendmesh-sidecar")
    assert status == 403 and "targets spendmesh-sidecar" in said


def test_metrics_are_told_and_hold_no_user_value(cluster: Installation, app: tuple[Json, str]) -> None:
    acquire(cluster, cluster.follower(), app[1], "r3")
    leader = cluster.leader()
    assert leader is not None
    wait_until(lambda: 'spendmesh_budget_held{budget="team-a/team"' in leader.metrics(), "the budget's metrics", 90)
    wait_until(lambda: "spendmesh_injections_total" in cluster.follower().metrics(), "the webhook's metrics", 90)
