"""What `mutate` does to a pod, and when it refuses: `spendmesh_operator.injection`."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonpatch
import kubernetes_validate
import msgspec
import pytest
from hypothesis import given, strategies as st

from pod_samples import CONFIG, ENABLED, KEYS, as_server_returns, environment, pod
from spendmesh_operator.injection import Injected, LeftAlone, ProviderKey, Refused, mutate
from spendmesh_operator.injection.mutate import ANNOTATIONS_BYTES_MAX
from spendmesh_operator.prices import load_prices
from spendmesh_sidecar.policy import encode
from spendmesh_sidecar.protocol import Bootstrap, Snapshot, Stamp, pack_bootstrap, unpack_bootstrap

GOLDEN = Path(__file__).parent / "golden" / "injected_pod.json"
Json = dict[str, Any]


def injected(before: Json, **options: Any) -> Injected:
    config = options.pop("config", CONFIG)
    decision = mutate(before, ENABLED, config, **{"keys": KEYS, "bootstrap": "Ym9vdA==", **options})
    assert isinstance(decision, Injected), decision
    return decision


def refusal(before: Json, **options: Any) -> str:
    decision = mutate(before, ENABLED, CONFIG, **{"keys": KEYS, **options})
    assert isinstance(decision, Refused), decision
    return decision.reason


def sidecar(after: Json) -> Json:
    return next(one for one in after["spec"]["initContainers"] if one["name"] == "spendmesh-sidecar")


def test_the_injected_pod_is_the_golden_one() -> None:
    """Any change of what pods get shows in review (SPENDMESH: regenerate by deleting the file and running the test)."""
    after = injected(pod(initContainers=[{"name": "migrate", "image": "app:1"}])).pod
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(after, indent=1, sort_keys=True) + "\n")
    assert json.loads(GOLDEN.read_text()) == after


def test_the_patch_makes_the_same_pod() -> None:
    before = pod()
    decision = injected(before)
    assert jsonpatch.apply_patch(before, list(decision.patch)) == decision.pod


def test_the_pod_that_was_given_is_not_changed() -> None:
    before = pod(volumes=[{"name": "data", "emptyDir": {}}])
    kept = copy.deepcopy(before)
    injected(before)
    assert before == kept


@pytest.mark.parametrize("version", ["1.29", "1.32", "1.35", "1.37"])
def test_the_injected_pod_fits_the_schema(version: str) -> None:
    """Native sidecars exist since 1.29; unknown fields are refused."""
    kubernetes_validate.validate(injected(pod()).pod, version, strict=True)


def test_the_sidecar_is_native_and_first() -> None:
    """An application's init containers run after it and can already call."""
    after = injected(pod(initContainers=[{"name": "migrate", "image": "app:1"}])).pod
    assert [one["name"] for one in after["spec"]["initContainers"]] == ["spendmesh-sidecar", "migrate"]
    assert sidecar(after)["restartPolicy"] == "Always"
    assert environment(after["spec"]["initContainers"][1])["OPENAI_BASE_URL"] == "http://127.0.0.1:15400/openai/v1"


def test_only_the_sidecar_mounts_keys_and_token() -> None:
    after = injected(pod()).pod
    assert not after["spec"]["containers"][0].get("volumeMounts")
    keys = next(volume for volume in after["spec"]["volumes"] if volume["name"] == "spendmesh-keys")
    assert keys["projected"]["sources"] == [
        {"secret": {"name": "model-keys", "items": [{"key": "openai", "path": "openai"}], "optional": True}}
    ]
    token = next(volume for volume in after["spec"]["volumes"] if volume["name"] == "spendmesh-token")
    assert token["projected"]["sources"][0]["serviceAccountToken"] == {
        "audience": "spendmesh.io",
        "expirationSeconds": 3600,
        "path": "token",
    }


def test_the_sidecar_passes_pod_security_restricted() -> None:
    """The restricted profile's checks on a container, and a user that no application should have."""
    context = sidecar(injected(pod()).pod)["securityContext"]
    assert context["runAsNonRoot"] and context["runAsUser"] == 65532
    assert context["allowPrivilegeEscalation"] is False and context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"} and context["readOnlyRootFilesystem"]


@pytest.mark.parametrize(
    ("pod_label", "namespace_label", "wanted"),
    [
        (None, "enabled", True),
        (None, None, False),
        (None, "disabled", False),
        ("disabled", "enabled", False),
        ("enabled", None, True),
        ("enabled", "disabled", True),
    ],
)
def test_the_pods_own_label_counts_more_than_the_namespaces(
    pod_label: str | None, namespace_label: str | None, wanted: bool
) -> None:
    before = pod()
    if pod_label:
        before["metadata"]["labels"]["spendmesh.io/inject"] = pod_label
    labels = {"spendmesh.io/inject": namespace_label} if namespace_label else {}
    assert isinstance(mutate(before, labels, CONFIG), Injected if wanted else LeftAlone)


@pytest.mark.parametrize("spec", [{"os": {"name": "windows"}}, {"nodeSelector": {"kubernetes.io/os": "windows"}}])
def test_windows_pods_are_left_alone(spec: Json) -> None:
    assert mutate(pod(**spec), ENABLED, CONFIG) == LeftAlone("Windows pods have no sidecar")


@pytest.mark.parametrize(("durability", "medium"), [("Process", {"medium": "Memory"}), ("Node", {})])
def test_the_sidecars_log_lies_where_it_survives_what_it_should(durability: str, medium: Json) -> None:
    """In memory over a killed container, on the node's disk over the node's end; bounded, and nobody else's."""
    after = injected(pod(), config=replace(CONFIG, durability=durability)).pod
    volume = next(one for one in after["spec"]["volumes"] if one["name"] == "spendmesh-state")
    assert volume["emptyDir"] == {**medium, "sizeLimit": "32Mi"}
    told = [one["value"] for one in sidecar(after)["env"] if one["name"] == "SPENDMESH_DURABILITY"]
    assert told == ([] if durability == "Process" else ["Node"])
    mounts = [mount["name"] for one in after["spec"]["containers"] for mount in one.get("volumeMounts", ())]
    assert "spendmesh-state" not in mounts


# --- again ------------------------------------------------------------------------------------------------


def test_a_second_time_changes_nothing() -> None:
    """Reinvocation, and `spendmesh inject` before the webhook."""
    once = injected(pod()).pod
    assert injected(once).patch == ()


def test_a_restored_pod_is_left_alone() -> None:
    """With all that an API server has added, nothing is refused and the sidecar stays as it is."""
    restored = as_server_returns(injected(pod()).pod)
    assert injected(restored).patch == ()


def test_a_restored_pod_gets_todays_keys_and_bootstrap_copy() -> None:
    """Policies may have changed since; that is no reason to refuse a restore."""
    restored = as_server_returns(injected(pod()).pod)
    keys = (*KEYS, ProviderKey(key_name="anthropic", secret="model-keys", item="anthropic"))
    after = injected(restored, keys=keys, bootstrap="bmV3").pod
    volume = next(volume for volume in after["spec"]["volumes"] if volume["name"] == "spendmesh-keys")
    assert len(volume["projected"]["sources"]) == 2
    assert after["metadata"]["annotations"]["spendmesh.io/bootstrap"] == "bmV3"


def test_a_bootstrap_copy_that_a_user_wrote_is_never_kept() -> None:
    before = pod()
    before["metadata"]["annotations"] = {"spendmesh.io/bootstrap": "forged"}
    assert "spendmesh.io/bootstrap" not in injected(before, bootstrap="").pod["metadata"]["annotations"]


def test_another_webhook_may_add_to_the_sidecar() -> None:
    """Sidecars of others (tracing, service accounts) add variables to every container; that is no difference."""
    once = injected(pod()).pod
    sidecar(once)["env"].append({"name": "DD_AGENT_HOST", "value": "node"})
    assert injected(once).patch == ()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"image": "evil:1"}, "image is evil:1"),
        ({"command": ["sleep"]}, "command is set"),
        ({"args": ["--debug"]}, "args is set"),
        ({"lifecycle": {"postStart": {"exec": {"command": ["cat"]}}}}, "lifecycle is set"),
        ({"envFrom": [{"secretRef": {"name": "x"}}]}, "envFrom is set"),
        ({"restartPolicy": None}, "restartPolicy is None"),
        ({"securityContext": {"privileged": True}}, "securityContext"),
        ({"ports": []}, "ports is []"),
        ({"volumeMounts": []}, "volumeMounts"),
    ],
)
def test_a_container_of_our_name_that_differs_is_refused(change: Json, named: str) -> None:
    once = injected(pod()).pod
    sidecar(once).update(change)
    reason = refusal(once)
    assert named in reason and "let it be injected anew" in reason


def test_a_privileged_copy_of_the_sidecar_is_refused() -> None:
    """Something more in the security context is a difference too."""
    once = injected(pod()).pod
    sidecar(once)["securityContext"]["privileged"] = True
    assert "securityContext" in refusal(once)


@pytest.mark.parametrize(
    ("name", "value"), [("SPENDMESH_CONTROL_URL", "https://evil"), ("SPENDMESH_UNKNOWN", "1"), ("POD_IP", "127.0.0.1")]
)
def test_environment_of_our_names_that_differs_is_refused(name: str, value: str) -> None:
    once = injected(pod()).pod
    kept = [entry for entry in sidecar(once)["env"] if entry["name"] != name]
    sidecar(once)["env"] = [*kept, {"name": name, "value": value}]
    assert f"environment variable {name} is another" in refusal(once)


@pytest.mark.parametrize(
    "volume",
    [
        {"name": "spendmesh-keys", "emptyDir": {}},
        {"name": "spendmesh-keys", "projected": {"sources": [{"secret": {"name": "all-of-it"}}]}},
        {"name": "spendmesh-state", "hostPath": {"path": "/tmp"}},
        {"name": "spendmesh-token", "emptyDir": {}},
        {"name": "spendmesh-bootstrap", "configMap": {"name": "mine"}},
    ],
)
def test_a_volume_of_our_name_that_differs_is_refused(volume: Json) -> None:
    assert f"volume {volume['name']} is not the one" in refusal(pod(volumes=[volume]))


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"shareProcessNamespace": True}, "set its runAsUser to another than 0 and 65532"),
        ({"hostPID": True}, "hostPID lets container app"),
        ({"shareProcessNamespace": True, "securityContext": {"runAsUser": 65532}}, "user 65532"),
        ({"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 15400}]}]}, "uses port 15400"),
        ({"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 15490}]}]}, "uses port 15490"),
        ({"containers": [{"name": "spendmesh-sidecar", "image": "a"}]}, "rename it"),
        (
            {
                "containers": [
                    {"name": "a", "image": "a", "volumeMounts": [{"name": "spendmesh-keys", "mountPath": "/k"}]}
                ]
            },
            "container a mounts volume spendmesh-keys",
        ),
        (
            {
                "initContainers": [
                    {"name": "a", "image": "a", "volumeMounts": [{"name": "spendmesh-state", "mountPath": "/k"}]}
                ]
            },
            "container a mounts volume spendmesh-state",
        ),
    ],
)
def test_a_pod_that_cannot_have_a_sidecar_is_refused_with_what_to_change(spec: Json, named: str) -> None:
    assert named in refusal(pod(**spec))


def test_a_shared_process_namespace_with_another_user_is_fine() -> None:
    assert injected(pod(shareProcessNamespace=True, securityContext={"runAsUser": 1000})).patch


@pytest.mark.parametrize("value", ["lots", "1,5", "-1", "1e3", "9" * 30])
def test_a_tunable_that_is_no_quantity_is_refused_by_name(value: str) -> None:
    before = pod()
    before["metadata"]["annotations"] = {"spendmesh.io/sidecar-memory-limit": value}
    assert "annotation spendmesh.io/sidecar-memory-limit" in refusal(before)


def test_tunables_change_the_resources() -> None:
    before = pod()
    before["metadata"]["annotations"] = {"spendmesh.io/sidecar-cpu": "250m", "spendmesh.io/sidecar-cpu-limit": "1"}
    assert sidecar(injected(before).pod)["resources"] == {
        "requests": {"cpu": "250m", "memory": "64Mi"},
        "limits": {"cpu": "1", "memory": "192Mi"},
    }


# --- sizes ------------------------------------------------------------------------------------------------


def test_a_bootstrap_copy_that_does_not_fit_is_left_out_and_said() -> None:
    """A pod whose annotations are full still starts; it only needs the operator for it."""
    decision = injected(pod(), bootstrap="x" * ANNOTATIONS_BYTES_MAX)
    assert "spendmesh.io/bootstrap" not in decision.pod["metadata"]["annotations"]
    assert "does not fit" in decision.warnings[0]


def test_the_whole_price_table_would_fit_a_pod() -> None:
    """A bootstrap copy carries only what its policy can need; even all of it is a quarter of the annotations."""
    table = msgspec.Raw(encode(load_prices().table))
    snapshot = Snapshot(digest="", stamp=Stamp(epoch=0, sequence=0), policy=msgspec.Raw(b"{}"))
    packed = pack_bootstrap(Bootstrap(snapshot=snapshot, price_table=table))
    assert len(packed) < 64 * 1024 <= ANNOTATIONS_BYTES_MAX / 4
    assert unpack_bootstrap(packed).price_table == table


# --- the application's environment ------------------------------------------------------------------------


def wired(container: Json, **options: Any) -> dict[str, Any]:
    after = injected(pod(containers=[{"name": "app", "image": "a", **container}]), **options).pod
    return environment(after["spec"]["containers"][0])


def test_the_application_gets_addresses_and_dummy_keys() -> None:
    assert wired({}) == {
        "OPENAI_BASE_URL": "http://127.0.0.1:15400/openai/v1",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:15400/anthropic",
        "OPENAI_API_KEY": "spendmesh",
        "ANTHROPIC_API_KEY": "spendmesh",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "$(NO_PROXY),127.0.0.1",
    }


def test_what_the_application_sets_itself_is_kept_and_said() -> None:
    before = pod(containers=[{"name": "app", "image": "a", "env": [{"name": "OPENAI_BASE_URL", "value": "https://x"}]}])
    decision = injected(before)
    assert environment(decision.pod["spec"]["containers"][0])["OPENAI_BASE_URL"] == "https://x"
    assert decision.warnings == (
        "container app sets OPENAI_BASE_URL itself: its calls are governed only if that is the sidecar",
    )


@pytest.mark.parametrize(
    ("written", "merged"),
    [
        ("svc.local,10.0.0.0/8", "svc.local,10.0.0.0/8,127.0.0.1"),
        ("svc.local 10.0.0.0/8", "svc.local,10.0.0.0/8,127.0.0.1"),
        ("", "127.0.0.1"),
        ("*", "*"),
        ("a,127.0.0.1", "a,127.0.0.1"),
    ],
)
def test_loopback_joins_the_no_proxy_that_a_user_wrote(written: str, merged: str) -> None:
    """Both spellings end up with the user's hosts: programs that prefer the other one lose nothing."""
    after = wired({"env": [{"name": "no_proxy", "value": written}]})
    assert after["no_proxy"] == merged
    assert after["NO_PROXY"] == "$(no_proxy),127.0.0.1"


def test_no_proxy_from_a_config_map_keeps_its_source() -> None:
    """The value is not known here; it is referred to, and kubelet expands it."""
    source = {"configMapKeyRef": {"name": "proxy", "key": "no_proxy"}}
    after = wired({"env": [{"name": "NO_PROXY", "valueFrom": source}]})
    assert after["SPENDMESH_USER_NO_PROXY"] == source
    assert after["NO_PROXY"] == "$(SPENDMESH_USER_NO_PROXY),127.0.0.1"
    assert after["no_proxy"] == "$(NO_PROXY),127.0.0.1"


def test_no_proxy_from_env_from_is_referred_to() -> None:
    after = wired({"envFrom": [{"configMapRef": {"name": "proxy"}}]})
    assert after["NO_PROXY"] == "$(NO_PROXY),$(no_proxy),127.0.0.1"
    assert after["no_proxy"] == "$(no_proxy),$(NO_PROXY),127.0.0.1"


def test_that_env_wins_over_env_from_is_said() -> None:
    """What envFrom brings cannot be seen here; kubelet lets env win, so a user's own address would vanish silently."""
    source = [{"configMapRef": {"name": "settings"}}]
    decision = injected(pod(containers=[{"name": "app", "image": "a", "envFrom": source}]))
    (said,) = decision.warnings
    assert "container app uses envFrom" in said and "OPENAI_BASE_URL" in said
    assert injected(decision.pod).warnings == ()


# --- any pod ----------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(["app", "worker", "istio-proxy", "spendmesh-sidecar", "x"])
_VARIABLES = st.sampled_from(["NO_PROXY", "no_proxy", "OPENAI_BASE_URL", "OPENAI_API_KEY", "HTTP_PROXY", "A"])
_ENTRY = st.one_of(
    st.builds(
        lambda name, value: {"name": name, "value": value}, _VARIABLES, st.sampled_from(["", "a,b", "*", "$(A)"])
    ),
    st.builds(
        lambda name: {"name": name, "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        _VARIABLES,
    ),
)
_CONTAINER = st.builds(
    lambda name, env, has_env_from, mounts, ports: {
        "name": name,
        "image": "i",
        **({"env": env} if env else {}),
        **({"envFrom": [{"configMapRef": {"name": "c"}}]} if has_env_from else {}),
        **({"volumeMounts": mounts} if mounts else {}),
        **({"ports": ports} if ports else {}),
    },
    _NAMES,
    st.lists(_ENTRY, max_size=4, unique_by=lambda entry: entry["name"]),
    st.booleans(),
    st.lists(
        st.sampled_from([{"name": "data", "mountPath": "/d"}, {"name": "spendmesh-keys", "mountPath": "/k"}]),
        max_size=1,
    ),
    st.lists(st.sampled_from([{"containerPort": 80}, {"containerPort": 15400}]), max_size=1),
)
_SPEC = st.fixed_dictionaries(
    {"containers": st.lists(_CONTAINER, min_size=1, max_size=3, unique_by=lambda one: one["name"])},
    optional={
        "initContainers": st.lists(_CONTAINER, max_size=2, unique_by=lambda one: one["name"]),
        "volumes": st.lists(
            st.sampled_from([{"name": "data", "emptyDir": {}}, {"name": "spendmesh-state", "emptyDir": {}}]),
            max_size=2,
            unique_by=lambda one: one["name"],
        ),
        "hostNetwork": st.booleans(),
        "shareProcessNamespace": st.booleans(),
    },
)


@given(spec=_SPEC)
def test_any_pod_is_decided_and_an_injected_one_is_stable(spec: Json) -> None:
    """The patch gives the pod, a second run adds nothing, and no container but the sidecar mounts our volumes."""
    before = pod(**spec)
    decision = mutate(before, ENABLED, CONFIG, keys=KEYS, bootstrap="Ym9vdA==")
    if isinstance(decision, Refused):
        assert decision.reason
        return
    assert isinstance(decision, Injected)
    assert jsonpatch.apply_patch(before, list(decision.patch)) == decision.pod
    again = mutate(decision.pod, ENABLED, CONFIG, keys=KEYS, bootstrap="Ym9vdA==")
    assert isinstance(again, Injected) and again.patch == ()
    for container in decision.pod["spec"]["containers"]:
        assert not any(mount["name"].startswith("spendmesh-") for mount in container.get("volumeMounts", []))
        variables = environment(container)
        assert "127.0.0.1" in variables["NO_PROXY"] or variables["NO_PROXY"] == "*"
        assert "127.0.0.1" in variables["no_proxy"] or variables["no_proxy"] == "*"
