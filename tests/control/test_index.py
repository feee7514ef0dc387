"""The index: objects and pods arrive in any order, raw; what matters is kept, what does not is dropped."""

from __future__ import annotations

from compile_samples import Raw, budget, indexed, pod, provider
from spendmesh_operator.index import Index, ObjectKey, Owner
from spendmesh_operator.workloads import MountedKey

REPLICA_SET: Raw = {
    "kind": "ReplicaSet",
    "metadata": {
        "name": "web-abc12",
        "namespace": "team-a",
        "ownerReferences": [{"kind": "Deployment", "name": "web", "controller": True}],
    },
}
CHAIN = (Owner("ReplicaSet", "web-abc12"), Owner("Deployment", "web"))


def owners(index: Index, name: str = "web-1") -> tuple[Owner, ...]:
    found = index.pod(f"uid-{name}")
    assert found is not None
    return found.owners


def test_a_pod_finds_its_deployment_whichever_arrives_first() -> None:
    assert owners(indexed(pod(), REPLICA_SET)) == owners(indexed(REPLICA_SET, pod())) == CHAIN


def test_a_deployment_is_known_by_its_hash_before_its_replica_set_is_seen() -> None:
    """Without it, a new pod would run without its Deployment's budget until the ReplicaSet arrives."""
    assert owners(indexed(pod())) == CHAIN
    bare = pod()
    bare["metadata"]["labels"] = {"app": "web"}
    assert owners(indexed(bare)) == CHAIN[:1]


def test_a_replica_set_of_something_else_is_believed_over_its_name() -> None:
    rollout = {**REPLICA_SET, "metadata": {**REPLICA_SET["metadata"], "ownerReferences": [
        {"kind": "Rollout", "name": "web-rollout", "controller": True}]}}  # fmt: skip
    assert owners(indexed(pod(), rollout))[-1] == Owner("Rollout", "web-rollout")


def test_a_cron_job_is_the_workload_of_its_jobs_pods() -> None:
    job = {"kind": "Job", "metadata": {"name": "nightly-1", "namespace": "team-a", "ownerReferences": [
        {"kind": "CronJob", "name": "nightly", "controller": True}]}}  # fmt: skip
    one = pod(deployment="")
    one["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "nightly-1", "controller": True}]
    found = indexed(one, job).pod("uid-web-1")
    assert found is not None and found.workload == ObjectKey("CronJob", "team-a", "nightly")


def cron_pod(job: str) -> Raw:
    one = pod(deployment="")
    one["metadata"]["ownerReferences"] = [
        {"apiVersion": "batch/v1", "kind": "Job", "name": job, "controller": True},
    ]
    return one


def test_a_cron_job_is_known_by_its_jobs_name_before_the_job_is_seen() -> None:
    """A Job's pod is admitted milliseconds after the Job was made: without it, the pod never gets its policy's key."""
    found = indexed(cron_pod("nightly-29000000")).pod("uid-web-1")
    assert found is not None and found.owners == (Owner("Job", "nightly-29000000"), Owner("CronJob", "nightly"))
    assert owners(indexed(cron_pod("report-2024"))) == (Owner("Job", "report-2024"),)


def test_a_job_that_nobody_controls_is_believed_over_its_name() -> None:
    job = {"kind": "Job", "metadata": {"name": "nightly-29000000", "namespace": "team-a"}}
    assert owners(indexed(cron_pod("nightly-29000000"), job)) == (Owner("Job", "nightly-29000000"),)


def test_another_projects_kind_of_the_same_name_is_another_owner() -> None:
    """A policy for StatefulSet db of group apps must not govern the pods of somebody else's StatefulSet db."""
    one = pod(deployment="")
    reference = {"apiVersion": "apps.kruise.io/v1beta1", "kind": "StatefulSet", "name": "db", "controller": True}
    one["metadata"]["ownerReferences"] = [reference]
    assert owners(indexed(one)) == (Owner("StatefulSet", "db", "apps.kruise.io"),)
    one["metadata"]["ownerReferences"] = [{**reference, "apiVersion": "apps/v1"}]
    assert owners(indexed(one)) == (Owner("StatefulSet", "db"),)


def test_the_keys_that_a_pod_was_given_are_read_from_its_volume() -> None:
    source = {"secret": {"name": "model-keys", "items": [{"key": "openai", "path": "main"}], "optional": True}}
    one = {**pod(), "spec": {"volumes": [{"name": "spendmesh-keys", "projected": {"sources": [source]}}]}}
    found, unknown = indexed(one).pod("uid-web-1"), indexed(pod()).pod("uid-web-1")
    assert found is not None and found.keys == {MountedKey("main", "model-keys", "openai")}
    assert unknown is not None and unknown.keys is None


def test_a_reference_that_is_no_controller_owns_nothing_and_a_circle_ends() -> None:
    one = pod(deployment="")
    one["metadata"]["ownerReferences"] = [{"kind": "Deployment", "name": "other"}]
    assert owners(indexed(one)) == ()
    circle = {**REPLICA_SET, "metadata": {**REPLICA_SET["metadata"], "ownerReferences": [
        {"kind": "ReplicaSet", "name": "web-abc12", "controller": True}]}}  # fmt: skip
    assert owners(indexed(pod(), circle)) == CHAIN[:1]


def test_only_what_may_matter_counts_as_a_change() -> None:
    index = indexed(pod(), budget(), provider())
    assert index.add(budget()) is False
    assert index.add({**budget(), "status": {"observedGeneration": 1}}) is False
    noisy = budget()
    noisy["metadata"]["resourceVersion"] = "99"
    assert index.add(noisy) is False
    assert index.add(budget(amount="11")) is True
    assert index.add(pod()) is False
    assert index.add(pod(app="other")) is True
    assert index.add({"kind": "ConfigMap", "metadata": {"name": "x"}}) is False


def test_a_finished_or_deleted_pod_is_gone_and_a_new_one_of_the_same_name_is_another() -> None:
    index = indexed(pod())
    reborn = pod()
    reborn["metadata"]["uid"] = "second"
    index.add(reborn)
    assert (index.pod("uid-web-1"), [each.uid for each in index.pods()]) == (None, ["second"])
    assert index.add({**reborn, "status": {"phase": "Succeeded"}}) is True
    assert index.pods() == ()
    index.add(pod())
    assert index.remove("Pod", "team-a", "web-1") is True
    assert index.remove("Pod", "team-a", "web-1") is False


def test_a_relist_replaces_the_whole_kind_and_no_other() -> None:
    index = indexed(budget("a"), budget("b"), provider(), pod("x-1"), pod("y-1"))
    assert index.replace("ModelBudget", [budget("b"), budget("c")]) is True
    keys = [(entry.key.kind, entry.key.name) for entry in index.entries()]
    assert keys == [("ModelBudget", "b"), ("ModelBudget", "c"), ("ModelProvider", "openai")]
    assert index.replace("ModelBudget", [budget("b"), budget("c")]) is False
    bodies = [{key: value for key, value in pod("y-1").items() if key != "kind"}]
    assert index.replace("Pod", bodies) is True
    assert [each.name for each in index.pods()] == ["y-1"]
    index.add({"kind": "Namespace", "metadata": {"name": "team-a", "labels": {"a": "b"}}})
    assert index.namespace_labels("team-a") == {"a": "b"}
    index.replace("Namespace", [])
    assert index.namespace_labels("team-a") is None


def test_of_a_secret_only_the_names_of_its_items_are_kept() -> None:
    secret = {"kind": "Secret", "metadata": {"name": "k", "namespace": "team-a"}, "stringData": {"openai": "sk-canary"}}
    index = indexed(secret)
    assert index.secret_keys("team-a", "k") == {"openai"}
    assert index.secret_keys("team-b", "k") is None
    assert "sk-canary" not in repr(vars(index))


def test_an_object_that_is_deleted_takes_its_last_valid_meaning_with_it() -> None:
    index = indexed(budget())
    index.remove("ModelBudget", "team-a", "team")
    index.add(budget(amount="nonsense", generation=2))
    entry = index.entry(ObjectKey("ModelBudget", "team-a", "team"))
    assert entry is not None and entry.manifest is None


def test_an_object_that_was_deleted_unseen_and_made_again_does_not_inherit_the_old_meaning() -> None:
    other = budget(amount="nonsense")
    other["metadata"]["uid"] = "another"
    entry = indexed(budget(), other).entry(ObjectKey("ModelBudget", "team-a", "team"))
    assert entry is not None and entry.manifest is None
