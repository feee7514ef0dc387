"""What the webhook gives a new pod: the keys and the copy of the policy that will be its own once it runs."""

from __future__ import annotations

from compile_samples import NAMESPACE, Raw, compiled, indexed, provider, routing
from spendmesh_operator.injecting import Injector
from spendmesh_operator.injection import Injected, InjectionConfig

CONFIG = InjectionConfig(image="sidecar:1", control_url="https://control.svc", control_ca="authority")


def test_the_first_pod_of_a_new_job_gets_the_key_that_its_cron_jobs_policy_needs() -> None:
    """The Job was made milliseconds ago and no watch has told of it; a running pod gets no other key (contract §3)."""
    nightly = routing(targetRefs=[{"group": "batch", "kind": "CronJob", "name": "nightly"}])
    nightly["spec"] |= routing()["spec"]
    objects = [provider(), nightly]
    pod: Raw = {
        "kind": "Pod",
        "metadata": {
            "generateName": "nightly-29000000-",
            "labels": {"batch.kubernetes.io/job-name": "nightly-29000000"},
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": "nightly-29000000", "controller": True}
            ],
        },
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    }
    decision = Injector(indexed(*objects), lambda: compiled(*objects), lambda: CONFIG).decide(pod, NAMESPACE)
    assert isinstance(decision, Injected)
    (keys,) = (volume for volume in decision.pod["spec"]["volumes"] if volume["name"] == "spendmesh-keys")
    assert [source["secret"]["items"][0]["path"] for source in keys["projected"]["sources"]] == ["openai"]
